//! What the processor can do, as far as a program can use it.

use std::arch::x86_64::__cpuid_count;

/// Bits by their numbers.
const fn bits(numbers: &[u32]) -> u32 {
    let mut all = 0;
    let mut i = 0;
    while i < numbers.len() {
        all |= 1 << numbers[i];
        i += 1;
    }
    all
}

/// A register of CPUID, by leaf, subleaf and number (EAX, EBX, ECX, EDX), and those of its bits that name instructions or state
/// that user code can use. Others say what a kernel can do, or what the machine is like.
struct Word {
    name: &'static str,
    leaf: u32,
    subleaf: u32,
    register: usize,
    usable: u32,
}

const WORDS: &[Word] = &[
    Word {
        name: "cpuid.1.ecx",
        leaf: 1,
        subleaf: 0,
        register: 2,
        usable: bits(&[0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 27, 28, 29, 30]),
    },
    Word {
        name: "cpuid.1.edx",
        leaf: 1,
        subleaf: 0,
        register: 3,
        usable: bits(&[0, 4, 8, 15, 19, 23, 24, 25, 26]),
    },
    Word {
        name: "cpuid.7.ebx",
        leaf: 7,
        subleaf: 0,
        register: 1,
        usable: bits(&[0, 3, 4, 5, 8, 9, 11, 16, 17, 18, 19, 21, 23, 24, 26, 27, 28, 29, 30, 31]),
    },
    Word {
        name: "cpuid.7.ecx",
        leaf: 7,
        subleaf: 0,
        register: 2,
        usable: bits(&[0, 1, 4, 5, 6, 8, 9, 10, 11, 12, 14, 22, 25, 27, 28, 29]),
    },
    Word {
        name: "cpuid.7.edx",
        leaf: 7,
        subleaf: 0,
        register: 3,
        usable: bits(&[2, 3, 4, 8, 14, 22, 23, 24, 25]),
    },
    Word {
        name: "cpuid.7.1.eax",
        leaf: 7,
        subleaf: 1,
        register: 0,
        usable: bits(&[0, 1, 2, 4, 5, 7, 10, 11, 12, 21, 23]),
    },
    Word { name: "cpuid.7.1.edx", leaf: 7, subleaf: 1, register: 3, usable: bits(&[4, 5, 8, 10, 14]) },
    Word { name: "cpuid.d.1.eax", leaf: 0xd, subleaf: 1, register: 0, usable: bits(&[0, 1, 2]) },
    Word {
        name: "cpuid.80000001.ecx",
        leaf: 0x8000_0001,
        subleaf: 0,
        register: 2,
        usable: bits(&[0, 5, 6, 7, 8, 11, 16, 21, 29]),
    },
    Word {
        name: "cpuid.80000001.edx",
        leaf: 0x8000_0001,
        subleaf: 0,
        register: 3,
        usable: bits(&[11, 22, 27, 29, 30, 31]),
    },
    Word { name: "cpuid.80000008.ebx", leaf: 0x8000_0008, subleaf: 0, register: 1, usable: bits(&[0, 4]) },
];

/// The features of this processor that a program can use: names of CPUID registers and their bits.
pub fn features() -> Vec<(&'static str, u32)> {
    // Of a leaf above the highest, the answer would be another leaf's.
    let highest = [cpuid(0, 0)[0], cpuid(0x8000_0000, 0)[0]];
    let word = |word: &Word| {
        let is_there = word.leaf <= highest[usize::from(word.leaf >= 0x8000_0000)];
        let value = if is_there { cpuid(word.leaf, word.subleaf)[word.register] } else { 0 };
        (word.name, value & word.usable)
    };
    WORDS.iter().map(word).collect()
}

#[allow(unused_unsafe)] // newer toolchains know that CPUID is always there
fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    // SAFETY: CPUID exists on every x86-64 processor and changes nothing; any leaf has some answer.
    let result = unsafe { __cpuid_count(leaf, subleaf) };
    [result.eax, result.ebx, result.ecx, result.edx]
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_processor_has_what_the_architecture_has() {
        let features = super::features();
        let of = |name| features.iter().find(|(n, _)| *n == name).unwrap().1;
        // SSE2, and long mode.
        assert!(of("cpuid.1.edx") & 1 << 26 != 0 && of("cpuid.80000001.edx") & 1 << 29 != 0);
    }
}
