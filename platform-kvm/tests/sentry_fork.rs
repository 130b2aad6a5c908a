//! `sfork`: the process that holds the platform forks, and the child goes on with a VM of its own.

use std::sync::Arc;

use quicksand_abi::{UserAddr, UserRange};
use quicksand_platform::{AddressSpace, Backing, Exit, Platform, PlatformError, Prot, Registers};
use quicksand_platform_kvm::KvmPlatform;

const TEXT: u64 = 0x40_0000;
const DATA: u64 = 0x1000_0000;

fn word(space: &Arc<dyn AddressSpace>) -> u32 {
    space.load_u32(UserAddr(DATA)).expect("load")
}

#[test]
fn child_goes_on_alone() {
    let platform = match KvmPlatform::new(None) {
        Ok(platform) => platform,
        Err(PlatformError::Unavailable { reason, .. }) => return eprintln!("NOT RUN: {reason}"),
        Err(error) => panic!("{error}"),
    };
    let space = platform.address_space().expect("space");
    let range = |start| UserRange { start: UserAddr(start), end: UserAddr(start + 0x4000) };
    space.map(range(TEXT), Prot::RX, Backing::Anonymous).expect("map");
    space.map(range(DATA), Prot::RW, Backing::Anonymous).expect("map");
    // 1: incl (%rbx); addss %xmm7, %xmm7; syscall; jmp 1b
    let code = [0xff, 0x03, 0xf3, 0x0f, 0x58, 0xff, 0x0f, 0x05, 0xeb, 0xf6];
    space.write_forced(UserAddr(TEXT), &code).expect("write");
    let mut context = platform.context().expect("context");
    let mut state = vec![0; platform.extended_state_len()];
    context.get_extended_state(&mut state).expect("get");
    let xmm7 = 160 + 7 * 16;
    state[xmm7..xmm7 + 4].copy_from_slice(&1.0f32.to_le_bytes());
    context.set_extended_state(&state).expect("set");
    let mut regs = Registers { rip: TEXT, rbx: DATA, ..Registers::default() };
    for _ in 0..3 {
        assert_eq!(context.run(&space, &mut regs).expect("run"), Exit::Syscall);
    }
    for generation in 0..3 {
        platform.before_sentry_fork().expect("park");
        // SAFETY: the other threads of this process (the test harness) hold no lock that the child needs.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let start = std::time::Instant::now();
            platform.after_sentry_fork_in_child().expect("new VM");
            for _ in 0..2 {
                let ran = context.run(&space, &mut regs).expect("run");
                if ran != Exit::Syscall {
                    eprintln!("child: {ran:?} {regs:x?}");
                    std::process::exit(1);
                }
            }
            eprintln!("generation {generation}: in the child {:?}", start.elapsed());
            let forked = space.fork().expect("guest fork");
            context.get_extended_state(&mut state).expect("get");
            let mut value = [0; 4];
            value.copy_from_slice(&state[xmm7..xmm7 + 4]);
            let right = word(&space) == 5 + generation
                && word(&forked) == 5 + generation
                && f32::from_le_bytes(value) == 32.0 * f32::from(1u16 << generation);
            // SAFETY: ends the child without running what the parent will run as well.
            unsafe { libc::_exit(if right { 0 } else { 2 }) };
        }
        let mut status = 0;
        // SAFETY: waits for our own child.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0, "generation {generation}");
        // The parent goes on as well, untouched by the child.
        assert_eq!(word(&space), 3 + generation);
        assert_eq!(context.run(&space, &mut regs).expect("run"), Exit::Syscall);
    }
}
