//! The guest's time stamp counter is the host's, on every vCPU: the vDSO computes clocks from it.

use quicksand_abi::{UserAddr, UserRange};
use quicksand_platform::{Backing, Exit, Platform, PlatformError, Prot, Registers};
use quicksand_platform_kvm::KvmPlatform;

#[test]
fn tsc_is_the_hosts() {
    let platform = match KvmPlatform::new(None) {
        Ok(platform) => platform,
        Err(PlatformError::Unavailable { reason, .. }) => return eprintln!("NOT RUN: {reason}"),
        Err(error) => panic!("{error}"),
    };
    // Where the processor's counter is not steady, KVM does not pass it on but makes one up from the kernel's clock.
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").expect("/proc/cpuinfo");
    if !cpuinfo.contains("constant_tsc") || !cpuinfo.contains("nonstop_tsc") {
        return eprintln!("NOT RUN: tsc_is_the_hosts: this processor's time stamp counter is not steady");
    }
    // SAFETY: reading the counter has no other effect.
    let host = || unsafe { std::arch::x86_64::_rdtsc() };
    let space = platform.address_space().expect("space");
    let text = UserRange { start: UserAddr(0x40_0000), end: UserAddr(0x40_1000) };
    space.map(text, Prot::RX, Backing::Anonymous).expect("map");
    // 1: rdtsc; syscall; jmp 1b
    space.write_forced(text.start, &[0x0f, 0x31, 0x0f, 0x05, 0xeb, 0xfa]).expect("write");
    for _ in 0..3 {
        let mut context = platform.context().expect("context");
        let mut regs = Registers { rip: text.start.0, ..Registers::default() };
        for _ in 0..100 {
            let before = host();
            assert_eq!(context.run(&space, &mut regs).expect("run"), Exit::Syscall);
            let guest = regs.rdx << 32 | regs.rax & 0xffff_ffff;
            let after = host();
            // Counters of two processors may differ by a little.
            assert!(guest + 10_000 > before && guest < after + 10_000, "{before} {guest} {after}");
        }
        // The next context gets another vCPU.
        std::mem::forget(context);
    }
}
