//! Guests whose system calls are patched while they run: nothing may tell them so but a look at their own code.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quicksand_abi::UserAddr;
use quicksand_platform::{Access, AddressSpace, Advice, Backing, Exit, Platform, Prot, Registers};
use quicksand_platform_conformance::code::{Code, Reg};

use crate::SystrapPlatform;
use crate::context::TRAPS_BEFORE_PATCH;
use crate::layout::{TABLE, TABLE_LEN};
use crate::testing::{DATA, Guest, PAGE, TEXT, assert_well, platform, range};

/// `mov $number, %eax; syscall`
fn site(code: Code, number: u32) -> Code {
    code.raw(&[0xb8]).raw(&number.to_le_bytes()).syscall()
}

fn counter(platform: &dyn Platform, name: &str) -> u64 {
    platform.counters().into_iter().find(|(n, _)| *n == name).expect("a counter").1
}

/// Runs `guest`, whose code is an endless loop over a site, until that is patched.
fn warm_up(platform: &SystrapPlatform, guest: &mut Guest) {
    let before = counter(platform, "patched_sites");
    for _ in 0..=TRAPS_BEFORE_PATCH {
        assert_eq!(guest.run().expect("run"), Exit::Syscall);
    }
    assert_eq!(counter(platform, "patched_sites"), before + 1);
    let calls = counter(platform, "patched_calls");
    assert_eq!(guest.run().expect("run"), Exit::Syscall);
    assert_eq!(counter(platform, "patched_calls"), calls + 1);
}

/// At [`TEXT`], `mov $39, %eax; syscall; jmp TEXT`, patched.
fn hot(platform: &SystrapPlatform) -> Guest {
    let mut guest = Guest::new(platform, &site(Code::new(), 39).jump(0));
    warm_up(platform, &mut guest);
    guest
}

const SITE: [u8; 7] = [0xb8, 39, 0, 0, 0, 0x0f, 0x05];

fn raw(guest: &Guest, addr: u64) -> [u8; 7] {
    let mut bytes = [0; 7];
    crate::memory::read(&guest.own().stub, UserAddr(addr), &mut bytes).expect("read");
    bytes
}

#[test]
fn registers_and_flags_travel() {
    let platform = platform();
    let mut guest = hot(&platform);
    // CF PF AF ZF SF DF OF AC, alone and together. (ID is what no signal frame restores.)
    let bits = [1, 4, 16, 64, 128, 1 << 10, 1 << 11, 1 << 18];
    let flags = (0..256).map(|set| {
        bits.iter().enumerate().filter(|(i, _)| set >> i & 1 != 0).map(|(_, bit)| bit).sum::<u64>()
    });
    for (i, flags) in flags.enumerate() {
        let value = |n: u64| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(n as u32) ^ n;
        // The way in from a signal frame the first time, and as the return from a call the second.
        for as_return in [false, true] {
            let given = Registers {
                r15: value(15),
                r14: value(14),
                r13: value(13),
                r12: value(12),
                rbp: value(5),
                rbx: value(3),
                r11: if as_return { flags | 0x202 } else { value(11) },
                r10: value(10),
                r9: value(9),
                r8: value(8),
                rax: value(0),
                rcx: if as_return { TEXT } else { value(1) },
                rdx: value(2),
                rsi: value(6),
                rdi: value(7),
                // Nobody's, and not even an address.
                rsp: value(4),
                rip: TEXT,
                eflags: flags | 0x202,
                fs_base: value(16) >> 18,
                gs_base: value(17) >> 18,
                ..Registers::default()
            };
            guest.regs = given;
            let calls = counter(&platform, "patched_calls");
            assert_eq!(guest.run().expect("run"), Exit::Syscall);
            assert_eq!(counter(&platform, "patched_calls"), calls + 1);
            let expected = Registers {
                rax: 39,
                orig_rax: 39,
                rip: TEXT + 7,
                rcx: TEXT + 7,
                r11: flags | 0x202,
                ..given
            };
            assert_eq!(guest.regs, expected, "{flags:#x} {as_return}");
        }
    }
    assert_well(&platform);
}

#[test]
fn below_the_stack_pointer_nothing_changes() {
    let platform = platform();
    let mut guest = hot(&platform);
    let before: Vec<u8> = (0..2 * PAGE).map(|i| i as u8 ^ 0x5a).collect();
    guest.space.write(UserAddr(DATA - PAGE), &before).expect("write");
    guest.regs.rsp = DATA;
    for _ in 0..10 {
        assert_eq!(guest.run().expect("run"), Exit::Syscall);
        let kicker = guest.context.kicker();
        kicker.kick();
        assert_eq!(guest.run().expect("run"), Exit::Kicked);
    }
    let mut after = vec![0; before.len()];
    guest.space.read(UserAddr(DATA - PAGE), &mut after).expect("read");
    assert_eq!(before, after);
}

/// The instruction behind the jump's first byte is not there any more, and is what it was.
#[test]
fn a_jump_to_the_instruction() {
    let platform = platform();
    let mut guest = hot(&platform);
    for number in [0, 39, 200, u64::MAX] {
        (guest.regs.rip, guest.regs.rax, guest.regs.rbx) = (TEXT + 5, number, 5);
        assert_eq!(guest.run().expect("run"), Exit::Syscall);
        let regs = &guest.regs;
        assert_eq!((regs.rax, regs.orig_rax, regs.rip, regs.rcx), (number, number, TEXT + 7, TEXT + 7));
        assert_eq!(regs.r11, regs.eflags);
        // What Linux does to have a call made again.
        (guest.regs.rip, guest.regs.rax) = (guest.regs.rip - 2, 1234);
        assert_eq!(guest.run().expect("run"), Exit::Syscall);
        assert_eq!((guest.regs.rax, guest.regs.rip), (1234, TEXT + 7));
    }
}

#[test]
fn all_kinds_of_sites() {
    let platform = platform();
    let long = Code::new().raw(&[0x48, 0xc7, 0xc0, 0xfe, 0xff, 0xff, 0xff]).syscall().jump(0);
    let mut guest = Guest::new(&platform, &long);
    warm_up(&platform, &mut guest);
    assert_eq!((guest.regs.rax, guest.regs.rip), (-2i64 as u64, TEXT + 9));
    guest.regs.rip = TEXT + 7;
    guest.regs.rax = 7;
    assert_eq!(guest.run().expect("run"), Exit::Syscall);
    assert_eq!((guest.regs.rax, guest.regs.rip), (7, TEXT + 9));
    // As syscall(3) does it, with numbers that vary.
    let stack = Code::new().raw(&crate::layout::STACK_ARGUMENT).syscall().jump(0);
    let mut guest = Guest::new(&platform, &stack);
    guest.regs.rsp = DATA - 64;
    guest.space.write(UserAddr(DATA - 56), &0x1234_5678_9abcu64.to_le_bytes()).expect("write");
    for number in 0..2 * u64::from(TRAPS_BEFORE_PATCH) {
        guest.regs.rax = number;
        assert_eq!(guest.run().expect("run"), Exit::Syscall);
        assert_eq!((guest.regs.rax, guest.regs.r9, guest.regs.rip), (number, 0x1234_5678_9abc, TEXT + 7));
    }
    assert_eq!(counter(&platform, "patched_sites"), 2);
    // The load faults where it stood.
    (guest.regs.rip, guest.regs.rsp, guest.regs.r9) = (TEXT, 0x5000, 3);
    match guest.run().expect("run") {
        Exit::Fault(fault) => assert_eq!((fault.addr.0, fault.access), (0x5008, Access::Read)),
        exit => panic!("{exit:?}"),
    }
    assert_eq!((guest.regs.rip, guest.regs.rsp, guest.regs.r9), (TEXT, 0x5000, 3));
    assert_well(&platform);
}

#[test]
fn the_extended_state_stays() {
    let platform = platform();
    let mut guest = hot(&platform);
    let len = platform.extended_state_len();
    let mut state = vec![0; len];
    guest.context.get_extended_state(&mut state).expect("state");
    for (i, byte) in state[160..416].iter_mut().enumerate() {
        *byte = i as u8 | 1;
    }
    guest.context.set_extended_state(&state).expect("set");
    for i in 0..20 {
        assert_eq!(guest.run().expect("run"), Exit::Syscall);
        if i % 3 == 0 {
            let mut now = vec![0; len];
            guest.context.get_extended_state(&mut now).expect("get");
            assert_eq!(now[160..416], state[160..416]);
        }
    }
    guest.context.reset_extended_state().expect("reset");
    assert_eq!(guest.run().expect("run"), Exit::Syscall);
    guest.context.get_extended_state(&mut state).expect("get");
    assert!(state[160..416].iter().all(|byte| *byte == 0));
}

#[test]
fn the_sentry_reads_what_was_there() {
    let platform = platform();
    let mut guest = hot(&platform);
    assert_ne!(raw(&guest, TEXT), SITE);
    let mut bytes = [0; 7];
    guest.space.read(UserAddr(TEXT), &mut bytes).expect("read");
    assert_eq!(bytes, SITE);
    assert_eq!(guest.space.load_u32(UserAddr(TEXT + 4)), Ok(0xe905_0f00));
    let child = guest.space.fork().expect("fork");
    child.read(UserAddr(TEXT), &mut bytes).expect("read");
    assert_eq!(bytes, SITE);
    // The child has it patched as well, and undoes its own only.
    let mut own = Guest::in_space(&platform, &child);
    let calls = counter(&platform, "patched_calls");
    assert_eq!(own.run().expect("run"), Exit::Syscall);
    assert_eq!(counter(&platform, "patched_calls"), calls + 1);
    child.protect(range(TEXT, PAGE), Prot::R).expect("protect");
    assert_eq!(raw(&own, TEXT), SITE);
    assert_ne!(raw(&guest, TEXT), SITE);
    assert!(child.write(UserAddr(TEXT), &[0]).is_err());
    // The table is not there for guests.
    assert!(guest.space.read(UserAddr(TABLE), &mut bytes).is_err());
    let fault = guest.space.read(UserAddr(TABLE - 1), &mut bytes).expect_err("not mapped");
    assert_eq!(fault.done, 0);
    assert_eq!(guest.run().expect("run"), Exit::Syscall);
}

#[test]
fn changes_to_the_code_undo_it() {
    let platform = platform();
    type Change<'a> = &'a dyn Fn(&dyn AddressSpace);
    let changes: [Change<'_>; 3] = [
        &|space| space.protect(range(TEXT, PAGE), Prot::RW).expect("protect"),
        &|space| space.write_forced(UserAddr(TEXT + 1), &[39]).expect("write"),
        &|space| {
            space.relocate(range(TEXT, PAGE), UserAddr(TEXT + 16 * PAGE)).expect("move");
            space.relocate(range(TEXT + 16 * PAGE, PAGE), UserAddr(TEXT)).expect("move back");
        },
    ];
    for change in changes {
        let mut guest = hot(&platform);
        change(&*guest.space);
        assert_eq!(raw(&guest, TEXT), SITE);
        guest.space.protect(range(TEXT, PAGE), Prot::RX).expect("protect");
        for _ in 0..3 {
            let calls = counter(&platform, "patched_calls");
            assert_eq!(guest.run().expect("run"), Exit::Syscall);
            assert_eq!((guest.regs.rax, guest.regs.rip), (39, TEXT + 7));
            assert_eq!(counter(&platform, "patched_calls"), calls);
        }
    }
    // What is gone is not remembered.
    let mut guest = hot(&platform);
    guest.space.advise(range(TEXT, PAGE), Advice::DontNeed).expect("advise");
    let mut bytes = [1; 7];
    guest.space.read(UserAddr(TEXT), &mut bytes).expect("read");
    assert_eq!(bytes, [0; 7]);
    guest.space.map(range(TEXT, PAGE), Prot::RX, Backing::Anonymous).expect("map");
    guest.space.write_forced(UserAddr(TEXT), &[0x0f, 0x0b, 0x0f, 0x0b, 0x0f, 0x0b]).expect("write");
    for at in [TEXT, TEXT + 2, TEXT + 4] {
        guest.regs.rip = at;
        assert!(matches!(guest.run().expect("run"), Exit::Trap(trap) if trap.vector == 6));
        assert_eq!(guest.regs.rip, at);
    }
    assert_well(&platform);
}

#[test]
fn writable_or_shared_code_is_left_alone() {
    let platform = platform();
    let code = site(Code::new(), 39).jump(0);
    let memfd = rustix::fs::memfd_create("code", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    rustix::io::write(&memfd, code.bytes()).expect("write");
    rustix::fs::ftruncate(&memfd, PAGE).expect("truncate");
    let all = Prot { read: true, write: true, execute: true };
    let shared = Backing::SharedFile { fd: std::os::fd::AsFd::as_fd(&memfd), offset: 0, writable: true };
    for (prot, backing) in [(all, Backing::Anonymous), (Prot::RX, shared)] {
        let mut guest = Guest::new(&platform, &code);
        guest.space.map(range(TEXT, PAGE), prot, backing).expect("map");
        let _ = guest.space.write(UserAddr(TEXT), code.bytes());
        for _ in 0..3 * TRAPS_BEFORE_PATCH {
            assert_eq!(guest.run().expect("run"), Exit::Syscall);
        }
        assert_eq!(raw(&guest, TEXT), SITE);
    }
    assert_eq!(counter(&platform, "patched_sites"), 0);
}

#[test]
fn a_guest_that_wants_the_tables_place_has_it() {
    let platform = platform();
    let mut guest = hot(&platform);
    guest.space.map(range(TABLE, TABLE_LEN as u64), Prot::RW, Backing::Anonymous).expect("map");
    let mut bytes = [1; 7];
    guest.space.read(UserAddr(TABLE), &mut bytes).expect("read");
    assert_eq!(bytes, [0; 7]);
    guest.space.write(UserAddr(TABLE), &[1; 8]).expect("write");
    assert_eq!(raw(&guest, TEXT), SITE);
    for _ in 0..3 * TRAPS_BEFORE_PATCH {
        assert_eq!(guest.run().expect("run"), Exit::Syscall);
        assert_eq!((guest.regs.rax, guest.regs.rip), (39, TEXT + 7));
    }
    assert_eq!(raw(&guest, TEXT), SITE);
    assert_well(&platform);
}

/// With TF, each instruction traps where it is.
#[test]
fn step_by_step() {
    let platform = platform();
    let mut guest = hot(&platform);
    guest.regs.eflags |= 1 << 8;
    guest.regs.rip = TEXT;
    assert!(matches!(guest.run().expect("run"), Exit::Trap(trap) if trap.vector == 1));
    assert_eq!((guest.regs.rip, guest.regs.rax), (TEXT + 5, 39));
    assert_eq!(guest.run().expect("run"), Exit::Syscall);
    assert_eq!(guest.regs.rip, TEXT + 7);
}

#[test]
fn answers() {
    let platform = platform();
    // rbx times the call, then another.
    let code = site(Code::new(), 39).dec_jnz(Reg::Rbx, 0).syscall().jump(0);
    let mut guest = Guest::new(&platform, &code);
    guest.regs.rbx = 1 << 40;
    warm_up(&platform, &mut guest);
    let answers = guest.context.answers().expect("answers");
    answers.set(39, Some(4711));
    (guest.regs.rbx, guest.regs.rip) = (1000, TEXT);
    assert_eq!(guest.run().expect("run"), Exit::Syscall);
    assert_eq!((guest.regs.rax, guest.regs.rbx, guest.regs.rsp), (4711, 0, DATA));
    // Flags are the call's, not ours.
    answers.set(39, None);
    answers.set(110, Some(1));
    (guest.regs.rbx, guest.regs.rip) = (1000, TEXT);
    assert_eq!(guest.run().expect("run"), Exit::Syscall);
    assert_eq!((guest.regs.rax, guest.regs.rbx), (39, 1000));
    // Another context with the same thread has none of them.
    answers.set(39, Some(4712));
    let space = guest.space.clone();
    drop(guest);
    let mut other = Guest::in_space(&platform, &space);
    other.regs.rbx = 5;
    assert_eq!(other.run().expect("run"), Exit::Syscall);
    assert_eq!((other.regs.rax, other.regs.rbx), (39, 5));
    answers.set(39, Some(4713));
    other.regs.rip = TEXT;
    assert_eq!(other.run().expect("run"), Exit::Syscall);
    assert_eq!((other.regs.rax, other.regs.rbx), (39, 5));
}

/// There are more threads in a process than descriptors in the table.
#[test]
fn a_thread_without_a_descriptor() {
    let platform = platform();
    let code = site(Code::new(), 39).jump(0);
    let stack = Code::new().raw(&crate::layout::STACK_ARGUMENT).syscall().raw(&[0xeb, 0xf7]);
    let mut first = hot(&platform);
    first.space.map(range(TEXT + PAGE, PAGE), Prot::RX, Backing::Anonymous).expect("map");
    first.space.write_forced(UserAddr(TEXT + PAGE), stack.bytes()).expect("write");
    first.regs.rip = TEXT + PAGE;
    first.regs.rsp = DATA - 64;
    warm_up(&platform, &mut first);
    assert_eq!(raw(&first, TEXT + 7)[..5], code.bytes()[7..12]);
    let mut others: Vec<Guest> = Vec::new();
    for _ in 0..=crate::layout::DESCRIPTORS_COUNT {
        let mut guest = Guest::in_space(&platform, &first.space);
        assert_eq!(guest.run().expect("run"), Exit::Syscall);
        others.push(guest);
    }
    let calls = counter(&platform, "patched_calls");
    let last = others.last_mut().expect("one");
    for flags in [0x202u64, 0x202 | 64, 0x202 | 1, 0x202 | 65] {
        for (rip, rax) in [(TEXT, 39), (TEXT + PAGE, 4711)] {
            last.regs = Registers { rip, rax: 4711, rsp: DATA - 64, eflags: flags, ..Registers::default() };
            assert_eq!(last.run().expect("run"), Exit::Syscall);
            let regs = &last.regs;
            assert_eq!((regs.rax, regs.orig_rax, regs.rip, regs.rcx), (rax, rax, rip + 7, rip + 7));
            assert_eq!((regs.eflags, regs.r11, regs.rsp), (flags, flags, DATA - 64));
        }
    }
    assert_eq!(counter(&platform, "patched_calls"), calls);
    assert_well(&platform);
}

/// Kicks that come at any instruction of the stub: each is noticed, and the guest's registers are its own.
#[test]
fn kicked_anywhere() {
    let platform = platform();
    for answered in [false, true] {
        let code = site(Code::new(), 39).raw(&[0x48, 0xff, 0xc3]).jump(0);
        let mut guest = Guest::new(&platform, &code);
        warm_up(&platform, &mut guest);
        if answered {
            guest.context.answers().expect("answers").set(39, Some(7));
        }
        let kicker = guest.context.kicker();
        let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        let (seen, go_on) = (AtomicU64::new(0), 3000);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut pause = 1u64;
                while !over.load(Ordering::SeqCst) {
                    sent.fetch_add(1, Ordering::SeqCst);
                    kicker.kick();
                    // The next one when this was seen: none may be lost.
                    while seen.load(Ordering::SeqCst) < sent.load(Ordering::SeqCst) {
                        if over.load(Ordering::SeqCst) {
                            return;
                        }
                        std::hint::spin_loop();
                    }
                    pause = pause.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (0..pause >> 54).for_each(|_| std::hint::spin_loop());
                }
            });
            guest.regs = Registers { rip: TEXT, rbx: 1, r11: 0x202, rcx: TEXT, r12: 12, r9: 9, ..guest.regs };
            guest.regs.rsp = 0x1234;
            let mut last = guest.regs.rbx;
            while seen.load(Ordering::SeqCst) < go_on {
                let exit = guest.run().expect("run");
                let regs = &guest.regs;
                assert_eq!((regs.r12, regs.r9, regs.rsp), (12, 9, 0x1234), "{exit:?} {regs:x?}");
                assert!((TEXT..TEXT + code.bytes().len() as u64).contains(&regs.rip), "{exit:?} {regs:x?}");
                assert!(regs.rbx >= last, "{exit:?} {last:x} {regs:x?}");
                last = regs.rbx;
                match exit {
                    Exit::Kicked => {
                        seen.fetch_add(1, Ordering::SeqCst);
                    }
                    Exit::Syscall => assert_eq!((regs.rax, regs.rip), (39, TEXT + 7)),
                    exit => panic!("{exit:?}"),
                }
            }
            over.store(true, Ordering::SeqCst);
        });
    }
    assert_well(&platform);
}

/// Threads that run over a site, and into its middle, while it is patched and undone.
#[test]
fn patched_under_other_threads() {
    let platform = platform();
    // Two entrances: TEXT, and by way of %r15 the instruction itself.
    let code = site(Code::new(), 39).raw(&[0x41, 0xff, 0xe7]);
    let first = Guest::new(&platform, &code);
    let over = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for into_the_middle in [false, false, true] {
            let (platform, over, space, rounds) = (&platform, &over, first.space.clone(), &rounds);
            scope.spawn(move || {
                let mut guest = Guest::in_space(platform, &space);
                guest.regs.r15 = if into_the_middle { TEXT + 5 } else { TEXT };
                while !over.load(Ordering::SeqCst) {
                    guest.regs.rax = 40;
                    assert_eq!(guest.run().expect("run"), Exit::Syscall, "{:x?}", guest.regs);
                    assert_eq!(guest.regs.rip, TEXT + 7);
                    let first_time = rounds.load(Ordering::SeqCst) == 0;
                    let expected = if into_the_middle { 40 } else { 39 };
                    assert!(guest.regs.rax == expected || first_time || guest.regs.rax == 39);
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let mut guest = Guest::in_space(&platform, &first.space);
        guest.regs.r15 = TEXT;
        for _ in 0..100 {
            let before = counter(&platform, "patched_sites");
            for _ in 0..500 {
                assert_eq!(guest.run().expect("run"), Exit::Syscall);
                if counter(&platform, "patched_sites") > before {
                    break;
                }
            }
            // Undone, but not refused: as if it had been mapped anew.
            let space = guest.own();
            space.undo_for_test(TEXT);
            guest.context = platform.context().expect("context");
        }
        over.store(true, Ordering::SeqCst);
    });
    assert!(counter(&platform, "patched_sites") > 20);
    assert_well(&platform);
}
