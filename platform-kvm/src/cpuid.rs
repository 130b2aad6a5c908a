//! What CPUID tells guest code, and the extended states that follow from it.
//!
//! On hardware KVM the guest sees this list; some nested hosts show their own CPUID to guest ring 3 whatever is set, so
//! nothing may rely on a feature being hidden.

use kvm_bindings::kvm_cpuid_entry2;

/// x87, SSE, AVX and AVX-512: what signal frames and images carry. Protection keys, AMX, MPX and shadow stacks need
/// kernel interfaces that are not offered.
const XCR0_OFFERED: u64 = 0b1110_0111;
const XCR0_LEGACY: u64 = 0b11;

/// The guest's processor.
#[derive(Debug)]
pub(crate) struct Cpu {
    pub(crate) entries: Vec<kvm_cpuid_entry2>,
    pub(crate) xcr0: u64,
    /// Bytes of an XSAVE area (standard format) with all of `xcr0`.
    pub(crate) xsave_len: usize,
    pub(crate) has_xsave: bool,
    pub(crate) has_fsgsbase: bool,
    pub(crate) physical_bits: u32,
    /// KVM can give guest code exactly the host's time stamp counter.
    pub(crate) exact_tsc: bool,
}

fn clear(register: &mut u32, bits: &[u32]) {
    for bit in bits {
        *register &= !(1 << bit);
    }
}

impl Cpu {
    /// From what KVM supports.
    pub(crate) fn new(supported: Vec<kvm_cpuid_entry2>, exact_tsc: bool) -> Cpu {
        let find = |function: u32, index: u32| {
            supported.iter().find(|e| e.function == function && e.index == index).copied().unwrap_or_default()
        };
        let states = find(0xd, 0);
        // Nested hosts that cannot filter CPUID leave XSAVE out of leaf 1, but keep the state and say so here.
        let has_xsave = find(1, 0).ecx & (1 << 26) != 0 || states.eax != 0;
        let offered = (u64::from(states.edx) << 32 | u64::from(states.eax)) & XCR0_OFFERED;
        let xcr0 = if has_xsave { offered | XCR0_LEGACY } else { XCR0_LEGACY };
        let component_end = |i: u32| {
            let component = find(0xd, i);
            (component.ebx.saturating_add(component.eax)) as usize
        };
        let xsave_len =
            (2..63).filter(|i| xcr0 >> i & 1 != 0).map(component_end).max().unwrap_or(0).clamp(576, 4096);
        let has_fsgsbase = find(7, 0).ebx & 1 != 0;
        let physical_bits = match find(0x8000_0008, 0).eax & 0xff {
            0 => 36,
            bits => bits.clamp(32, 52),
        };

        let mut entries = supported;
        entries.retain(|e| match e.function {
            // Hypervisor leaves.
            0x4000_0000..=0x4fff_ffff => false,
            0xd => e.index < 2 || xcr0 >> e.index.min(63) & 1 != 0,
            // Resource monitoring, SGX, processor trace, AMX.
            0xf | 0x10 | 0x12 | 0x14 | 0x1d | 0x1e => false,
            _ => true,
        });
        for entry in &mut entries {
            match (entry.function, entry.index) {
                (1, _) => {
                    // DTES64 MONITOR DS-CPL VMX SMX EIST TM2, PDCM, PCID, DCA, x2APIC, TSC-deadline, hypervisor.
                    clear(&mut entry.ecx, &[2, 3, 4, 5, 6, 7, 8, 15, 17, 18, 21, 24, 31]);
                    // The initial APIC id.
                    entry.ebx &= 0x00ff_ffff;
                }
                // MONITOR, thermal and power, performance counters.
                (5 | 6 | 0xa, _) => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
                (7, 0) => {
                    // SGX, HLE, RTM, MPX, processor trace.
                    clear(&mut entry.ebx, &[2, 4, 11, 14, 25]);
                    // PKU, OSPKE, WAITPKG, shadow stacks, bus-lock detection, MOVDIR64B's enqueue relatives, PKS.
                    clear(&mut entry.ecx, &[3, 4, 5, 7, 24, 29, 31]);
                    // UINTR, PCONFIG, IBT, AMX.
                    clear(&mut entry.edx, &[5, 18, 20, 22, 24, 25]);
                }
                (0xd, 0) => {
                    entry.eax = xcr0 as u32;
                    entry.edx = (xcr0 >> 32) as u32;
                    entry.ebx = xsave_len as u32;
                    entry.ecx = xsave_len as u32;
                }
                // Supervisor states: XSAVES.
                (0xd, 1) => {
                    clear(&mut entry.eax, &[3]);
                    (entry.ecx, entry.edx) = (0, 0);
                }
                // SVM, SKINIT, OSVW, IBS, watchdog, performance counters, MONITORX.
                (0x8000_0001, _) => clear(&mut entry.ecx, &[2, 9, 10, 12, 13, 23, 24, 28, 29]),
                (0x8000_000a, _) => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
                _ => {}
            }
        }
        Cpu { entries, xcr0, xsave_len, has_xsave, has_fsgsbase, physical_bits, exact_tsc }
    }
}
