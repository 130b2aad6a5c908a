//! The processor's time stamp counter.

use std::arch::x86_64::{__cpuid, _mm_lfence, _rdtsc};

/// Reads the counter, not before anything that comes earlier in the program.
pub fn read() -> u64 {
    // SAFETY: both instructions exist on every x86-64 processor and touch no memory. RDTSC faults only where a process
    // asked for that (PR_SET_TSC), which nobody here does.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

/// Whether the counter runs at one rate whatever the processor does (CPUID 0x80000007, EDX bit 8).
#[allow(unused_unsafe)] // newer toolchains know that CPUID is always there
pub fn is_invariant() -> bool {
    // SAFETY: CPUID exists on every x86-64 processor; a leaf that does not is not asked for.
    unsafe { __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0 }
}
