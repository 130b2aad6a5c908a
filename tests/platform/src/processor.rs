//! Exceptions, privileges, and extended state.

use quicksand_platform::{Access, Exit, FaultCause, Platform, Prot, Trap};

use crate::code::{Code, Reg};
use crate::support::{DATA, Guest, PAGE, TEXT};

fn trap(platform: &dyn Platform, bytes: &[u8]) -> (Trap, Guest) {
    let mut guest = Guest::new(platform, &Code::new().raw(bytes).mov(Reg::Rax, 0x77).syscall());
    guest.map(DATA, PAGE, Prot::RW);
    (guest.regs.rbx, guest.regs.rsp) = (DATA, DATA + PAGE);
    match guest.run() {
        Exit::Trap(trap) => (trap, guest),
        exit => panic!("{exit:x?} instead of a trap from {bytes:x?}: {:x?}", guest.regs),
    }
}

fn plain(vector: u8) -> Trap {
    Trap { vector, error_code: 0, dr6: 0 }
}

/// The exceptions that programs cause, with the right vector, at the right instruction; the thread then goes on.
pub fn traps(platform: &dyn Platform) {
    // xor %ecx, %ecx; div %ecx
    let (found, mut guest) = trap(platform, &[0x31, 0xc9, 0xf7, 0xf1]);
    assert_eq!((found, guest.regs.rip), (plain(0), TEXT + 2));
    guest.regs.rip = TEXT + 4;
    assert_eq!(guest.syscall(), 0x77);
    // ud2
    let (found, guest) = trap(platform, &[0x0f, 0x0b]);
    assert_eq!((found, guest.regs.rip), (plain(6), TEXT));
    // mov (%rax), %eax with a non-canonical address
    let (found, _) = trap(platform, &[0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x8b, 0x00]);
    assert_eq!(found, plain(13));
    // The same through RSP: a stack fault, which emulated processors confuse with the one above.
    let (found, _) = trap(platform, &[0x48, 0xbc, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x58]);
    assert!([plain(12), plain(13)].contains(&found), "{found:?}");
    // fldz; fldz; fdivp; fwait with division by zero and invalid unmasked: fldcw (%rbx) with 0x0340
    let x87 = [0xc7, 0x03, 0x40, 0x03, 0, 0, 0xd9, 0x2b, 0xd9, 0xee, 0xd9, 0xee, 0xde, 0xf9, 0x9b];
    assert_eq!(trap(platform, &x87).0, plain(16));
    // ldmxcsr (%rbx) with everything unmasked; xorps; divss %xmm0, %xmm0
    let sse = [0xc7, 0x03, 0, 0, 0, 0, 0x0f, 0xae, 0x13, 0x0f, 0x57, 0xc0, 0xf3, 0x0f, 0x5e, 0xc0];
    let mut guest = Guest::new(platform, &Code::new().raw(&sse).mov(Reg::Rax, 0x77).syscall());
    guest.map(DATA, PAGE, Prot::RW);
    guest.regs.rbx = DATA;
    match guest.run() {
        Exit::Syscall => {
            eprintln!("NOT RUN: #XM part of traps: this (emulated) processor raises no SSE exceptions")
        }
        exit => assert_eq!(exit, Exit::Trap(plain(19))),
    }
    // pushfq; orl $0x40000, (%rsp); popfq; mov 1(%rbx), %eax: alignment check
    let ac = [0x9c, 0x81, 0x0c, 0x24, 0, 0, 4, 0, 0x9d, 0x8b, 0x43, 0x01];
    let mut guest = Guest::new(platform, &Code::new().raw(&ac).mov(Reg::Rax, 0x77).syscall());
    guest.map(DATA, PAGE, Prot::RW);
    (guest.regs.rbx, guest.regs.rsp) = (DATA, DATA + PAGE);
    match guest.run() {
        Exit::Syscall => {
            eprintln!("NOT RUN: #AC part of traps: this (emulated) processor checks no alignment")
        }
        exit => {
            assert_eq!(exit, Exit::Trap(plain(17)));
            assert_eq!((guest.regs.rip, guest.regs.eflags & 0x40000), (TEXT + 9, 0x40000));
        }
    }
}

/// The trap flag steps one instruction, set by the program or from outside.
pub fn single_step(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &Code::new().raw(&[0x90, 0x90, 0x90]).mov(Reg::Rax, 0x77).syscall());
    for step in 1..=4 {
        guest.regs.eflags |= 0x100;
        let Exit::Trap(trap) = guest.run() else { panic!("no trap at step {step}: {:x?}", guest.regs) };
        assert_eq!((trap.vector, trap.dr6 & 0x400f), (1, 0x4000));
        assert_eq!(guest.regs.rip, TEXT + if step == 4 { 13 } else { step });
        assert_eq!(guest.regs.eflags & 0x100, 0x100);
    }
    guest.regs.eflags &= !0x100;
    assert_eq!(guest.syscall(), 0x77);
    // pushfq; orl $0x100, (%rsp); popfq; nop
    let (found, guest) = trap(platform, &[0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x90, 0x90]);
    assert_eq!((found.vector, guest.regs.rip), (1, TEXT + 10));
}

/// `int3` traps behind itself.
pub fn breakpoint(platform: &dyn Platform) {
    let (found, guest) = trap(platform, &[0xcc]);
    assert_eq!((found, guest.regs.rip), (plain(3), TEXT + 1));
    let (found, guest) = trap(platform, &[0xcd, 3]);
    assert_eq!((found, guest.regs.rip), (plain(3), TEXT + 2));
}

/// Software interrupts are general protection faults, as on Linux without 32-bit emulation.
pub fn software_interrupts(platform: &dyn Platform) {
    for vector in [0x80u8, 0, 2, 13, 14, 0x20, 0xff] {
        let (found, guest) = trap(platform, &[0xcd, vector]);
        let expected = Trap { vector: 13, error_code: u32::from(vector) * 8 + 2, dr6: 0 };
        assert_eq!((found, guest.regs.rip), (expected, TEXT));
    }
}

/// Ring 3 is ring 3.
pub fn privileged_instructions(platform: &dyn Platform) {
    let cases: [(&str, &[u8]); 16] = [
        ("hlt", &[0xf4]),
        ("cli", &[0xfa]),
        ("sti", &[0xfb]),
        ("in", &[0xe4, 0x80]),
        ("out", &[0xe6, 0x80]),
        ("out 0x40", &[0xe6, 0x40]),
        ("out dx", &[0xee]),
        ("mov cr3", &[0x0f, 0x22, 0xd8]),
        ("mov from cr0", &[0x0f, 0x20, 0xc0]),
        ("mov dr7", &[0x0f, 0x23, 0xf8]),
        ("wrmsr", &[0x0f, 0x30]),
        ("rdmsr", &[0x0f, 0x32]),
        ("lgdt", &[0x0f, 0x01, 0x13]),
        ("lidt", &[0x0f, 0x01, 0x1b]),
        ("swapgs", &[0x0f, 0x01, 0xf8]),
        ("xsetbv", &[0x0f, 0x01, 0xd1]),
    ];
    for (name, bytes) in cases {
        let (found, guest) = trap(platform, bytes);
        let allowed = [plain(13), plain(6)];
        assert!(allowed.contains(&found) && guest.regs.rip == TEXT, "{name}: {found:?}");
    }
    // sysret, iretq to a ring 0 selector, sysenter: none of them gets anywhere.
    for (name, bytes) in [
        ("sysret", &[0x48, 0x0f, 0x07][..]),
        ("sysenter", &[0x0f, 0x34]),
        ("iretq to ring 0", &[0x6a, 0x18, 0x54, 0x6a, 0x02, 0x6a, 0x10, 0x68, 0, 0, 0x40, 0, 0x48, 0xcf]),
        ("far return to 32-bit code", &[0x6a, 0x23, 0x68, 0, 0, 0x40, 0, 0x48, 0xcb]),
        ("mov ss, 0x18", &[0xb8, 0x18, 0, 0, 0, 0x8e, 0xd0]),
    ] {
        let (found, _) = trap(platform, bytes);
        assert!(matches!(found.vector, 6 | 13), "{name}: {found:?}");
    }
}

/// Nothing of the platform's own can be read, written or jumped to.
pub fn supervisor_is_out_of_reach(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &crate::support::reader());
    for page in [0u64, 1, 2, 3, 16, 17, 100] {
        for base in [0xffff_8000_0000_0000, 0xffff_ffff_8000_0000, 0x7fff_ffff_f000] {
            let at = base + page * PAGE;
            guest.restart();
            guest.regs.rbx = at;
            // Above the last user page begin the non-canonical addresses.
            match guest.run() {
                Exit::Fault(fault) => {
                    assert_eq!((fault.addr.0, fault.cause), (at, FaultCause::Unmapped));
                }
                Exit::Trap(trap) => assert!(trap.vector == 13 && at >> 47 == 1, "{at:#x}: {trap:?}"),
                exit => panic!("{at:#x}: {exit:?}"),
            }
        }
    }
    // jmp *%rbx
    let mut guest = Guest::new(platform, &Code::new().raw(&[0xff, 0xe3]));
    for offset in [0, 2, 0x40, 0x100, 0x1e0, 0x1000] {
        guest.restart();
        guest.regs.rbx = 0xffff_8000_0000_0000 + offset;
        guest.fault(guest.regs.rbx, Access::Execute, FaultCause::Unmapped);
    }
}

/// movdqu (%rbx), %xmm7; syscall; then movdqu %xmm7, 16(%rbx); syscall
fn xmm_code() -> Code {
    Code::new()
        .raw(&[0xf3, 0x0f, 0x6f, 0x3b])
        .syscall()
        .raw(&[0xf3, 0x0f, 0x7f, 0x7b, 0x10])
        .syscall()
        .jump(0)
}

/// Each thread has its own registers, whatever runs in between.
pub fn extended_state_per_context(platform: &dyn Platform) {
    let mut threads: Vec<Guest> = (0..8u64)
        .map(|i| {
            let mut guest = Guest::new(platform, &xmm_code());
            guest.map(DATA, PAGE, Prot::RW);
            guest.poke(DATA, 0x1111 * (i + 1));
            guest.regs.rbx = DATA;
            guest
        })
        .collect();
    for _ in 0..3 {
        for half in 0..2 {
            for guest in &mut threads {
                assert_eq!(guest.run(), Exit::Syscall, "half {half}");
            }
        }
        for (i, guest) in threads.iter().enumerate() {
            assert_eq!(guest.peek(DATA + 16), 0x1111 * (i as u64 + 1));
            guest.poke(DATA + 16, 0);
        }
    }
    // Threads come and go; a new one starts with clean registers.
    drop(threads);
    // movdqu %xmm7, 16(%rbx); fnstcw (%rbx); stmxcsr 4(%rbx)
    let code = Code::new().raw(&[0xf3, 0x0f, 0x7f, 0x7b, 0x10, 0xd9, 0x3b, 0x0f, 0xae, 0x5b, 0x04]).syscall();
    let mut guest = Guest::new(platform, &code);
    guest.map(DATA, PAGE, Prot::RW);
    guest.poke(DATA + 16, 5);
    guest.regs.rbx = DATA;
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!((guest.peek(DATA + 16), guest.peek(DATA)), (0, 0x1f80_0000_037f));
}

/// What a signal frame does: state out, changed, and back in.
pub fn extended_state_round_trip(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &xmm_code());
    guest.map(DATA, PAGE, Prot::RW);
    guest.poke(DATA, 0xabcd);
    guest.regs.rbx = DATA;
    let mut state = vec![0; platform.extended_state_len()];
    assert!(state.len() >= 576);
    // Before it ever ran: the defaults.
    guest.context.get_extended_state(&mut state).expect("get");
    assert_eq!((&state[0..2], &state[24..28]), (&[0x7f, 0x03][..], &[0x80, 0x1f, 0, 0][..]));
    assert_eq!(guest.run(), Exit::Syscall);
    guest.context.get_extended_state(&mut state).expect("get");
    let xmm7 = 160 + 7 * 16;
    assert_eq!(state[xmm7..xmm7 + 4], [0xcd, 0xab, 0, 0]);
    assert_eq!(state[512] & 2, 2);
    let saved = state.clone();
    state[xmm7] = 0xee;
    guest.context.set_extended_state(&state).expect("set");
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!(guest.peek(DATA + 16), 0xabee);
    guest.context.reset_extended_state().expect("reset");
    guest.regs.rip = TEXT + 6;
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!(guest.peek(DATA + 16), 0);
    // Into another thread that has not run yet.
    let mut other = Guest::in_space(platform, &guest.space);
    other.context.set_extended_state(&saved).expect("set");
    (other.regs.rbx, other.regs.rip) = (DATA, TEXT + 6);
    assert_eq!(other.run(), Exit::Syscall);
    assert_eq!(other.peek(DATA + 16), 0xabcd);
    // AVX: the upper halves travel as well. vmovdqu (%rbx), %ymm7; syscall; vmovdqu %ymm7, 32(%rbx); syscall
    if platform.xcr0() & 4 == 0 {
        eprintln!("NOT RUN: AVX part of extended_state_round_trip: the guest's processor has none");
        return;
    }
    let code = Code::new().raw(&[0xc5, 0xfe, 0x6f, 0x3b]).syscall();
    let code = code.raw(&[0xc5, 0xfe, 0x7f, 0x7b, 0x20]).syscall();
    let mut avx = Guest::new(platform, &code);
    avx.map(DATA, PAGE, Prot::RW);
    avx.poke(DATA + 16, 0x1234);
    avx.regs.rbx = DATA;
    assert_eq!(avx.run(), Exit::Syscall);
    let mut state = vec![0; platform.extended_state_len()];
    avx.context.get_extended_state(&mut state).expect("get");
    let mut second = Guest::in_space(platform, &avx.space);
    second.context.set_extended_state(&state).expect("set");
    (second.regs.rbx, second.regs.rip) = (DATA, TEXT + 6);
    assert_eq!(second.run(), Exit::Syscall);
    assert_eq!(second.peek(DATA + 48), 0x1234);
}

/// Whatever a guest puts into a signal frame: it loads, or is refused, and the thread goes on.
pub fn hostile_extended_state(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &Code::new().syscall().jump(0));
    guest.run();
    let len = platform.extended_state_len();
    let mut pattern = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..40 {
        let mut state = vec![0xff; if round % 3 == 0 { len } else { (round * 97) % (2 * len) }];
        if round % 2 == 0 {
            for byte in &mut state {
                pattern =
                    pattern.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = (pattern >> 56) as u8;
            }
        }
        guest.context.set_extended_state(&state).expect("set");
        assert_eq!(guest.run(), Exit::Syscall);
    }
}
