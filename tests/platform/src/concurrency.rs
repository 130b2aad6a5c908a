//! Kicks, and several threads in one space.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use quicksand_abi::UserAddr;
use quicksand_platform::{Access, Exit, FaultCause, Platform, Prot};

use crate::code::{Code, Reg};
use crate::support::{DATA, Guest, PAGE, is_emulated, range, reader, writer};

/// An endless loop that counts in the word at RBX.
fn counting() -> Code {
    // lock incq (%rbx)
    Code::new().raw(&[0xf0, 0x48, 0xff, 0x03]).jump(0)
}

/// A kick before `run` ends that run, and only that one.
pub fn kick_before_run(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &Code::new().mov(Reg::Rax, 3).syscall());
    let kicker = guest.context.kicker();
    kicker.kick();
    kicker.kick();
    let before = guest.regs;
    assert_eq!(guest.run(), Exit::Kicked);
    assert_eq!(guest.regs, before);
    assert_eq!(guest.syscall(), 3);
    kicker.kick();
    guest.restart();
    assert_eq!(guest.run(), Exit::Kicked);
    assert_eq!(guest.syscall(), 3);
    drop(guest);
    kicker.kick();
}

/// A kick gets a spinning thread out, with its registers.
pub fn kick_while_running(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &counting());
    guest.map(DATA, PAGE, Prot::RW);
    (guest.regs.rbx, guest.regs.r12) = (DATA, 0x1234);
    let space = Arc::clone(&guest.space);
    for _ in 0..20 {
        let kicker = guest.context.kicker();
        let start = space.load_u32(UserAddr(DATA)).expect("load");
        thread::scope(|scope| {
            let space = &space;
            scope.spawn(move || {
                // Once it really runs.
                while space.load_u32(UserAddr(DATA)).expect("load") == start {
                    thread::yield_now();
                }
                kicker.kick();
            });
            assert_eq!(guest.run(), Exit::Kicked);
        });
        assert_eq!((guest.regs.rbx, guest.regs.r12), (DATA, 0x1234));
        assert!(guest.regs.rip < crate::support::TEXT + 16);
    }
}

/// Kicks at any moment: each is followed by exactly one `Kicked`, sooner or later.
pub fn kicks_are_not_lost(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &Code::new().syscall().mov(Reg::R12, 1).syscall().jump(0));
    // A system call as the first instruction after a resume, and one in the middle of things.
    let kicker = guest.context.kicker();
    let seen = AtomicU64::new(0);
    const ROUNDS: u64 = 500;
    thread::scope(|scope| {
        let seen = &seen;
        scope.spawn(move || {
            for round in 0..ROUNDS {
                kicker.kick();
                while seen.load(Ordering::Acquire) == round {
                    thread::yield_now();
                }
            }
        });
        let mut kicks = 0;
        let mut wrong = None;
        while kicks < ROUNDS {
            match guest.run() {
                Exit::Kicked => {
                    kicks += 1;
                    seen.store(kicks, Ordering::Release);
                }
                Exit::Syscall => {}
                exit => {
                    wrong = Some(exit);
                    break;
                }
            }
        }
        seen.store(u64::MAX, Ordering::Release);
        assert_eq!(wrong, None);
    });
    for _ in 0..10 {
        assert_eq!(guest.run(), Exit::Syscall);
    }
}

/// Runs `guest` on a thread of its own until it faults; meanwhile, once it has started, does `change`. Returns the
/// counter as it was right after the change and at the end.
fn change_under(platform: &dyn Platform, change: &(dyn Fn(&Guest) + Sync)) -> (u64, u64) {
    let guest = Guest::new(platform, &counting());
    let second = Guest::in_space(platform, &guest.space);
    guest.map(DATA, PAGE, Prot::RW);
    // The same page's counter stays readable through a shared file mapping elsewhere.
    let file = crate::support::numbered_file(1);
    let (target, view) = (DATA + 16 * PAGE, DATA + 32 * PAGE);
    guest.space.map(range(target, PAGE), Prot::RW, crate::support::shared(&file, 0, true)).expect("map");
    guest.space.map(range(view, PAGE), Prot::R, crate::support::shared(&file, 0, false)).expect("map");
    let mut after = 0;
    thread::scope(|scope| {
        for mut runner in [Guest::in_space(platform, &guest.space), second] {
            runner.regs.rbx = target;
            scope.spawn(move || {
                let exit = runner.run();
                let Exit::Fault(fault) = exit else { panic!("{exit:x?} instead of a fault") };
                assert_eq!((fault.addr, fault.cause), (UserAddr(target), FaultCause::Unmapped));
                // An emulator that runs one processor at a time reads and then writes.
                assert!(fault.access == Access::Write || is_emulated(), "{fault:x?}");
            });
        }
        let start = guest.peek(view);
        while guest.peek(view) < start + 1000 {
            thread::yield_now();
        }
        change(&guest);
        after = guest.peek(view);
    });
    (after, guest.peek(view))
}

/// When `unmap` has returned, no thread writes to the page any more.
pub fn unmap_stops_other_threads(platform: &dyn Platform) {
    for _ in 0..10 {
        let (after, end) =
            change_under(platform, &|guest| guest.space.unmap(range(DATA + 16 * PAGE, PAGE)).expect("unmap"));
        assert_eq!(after, end);
    }
}

/// The same for `protect`.
pub fn protect_stops_other_threads(platform: &dyn Platform) {
    for _ in 0..10 {
        let (after, end) = change_under(platform, &|guest| {
            guest.space.protect(range(DATA + 16 * PAGE, PAGE), Prot::R).expect("protect");
        });
        assert_eq!(after, end);
    }
}

/// Two threads count in one word, and the Sentry with them.
pub fn threads_share_memory(platform: &dyn Platform) {
    let code = counting();
    let code = Code::new().raw(&code.bytes()[..4]).dec_jnz(Reg::Rcx, 0).syscall();
    let guest = Guest::new(platform, &code);
    guest.map(DATA, PAGE, Prot::RW);
    const COUNT: u64 = 200_000;
    thread::scope(|scope| {
        for _ in 0..2 {
            let mut runner = Guest::in_space(platform, &guest.space);
            (runner.regs.rbx, runner.regs.rcx, runner.regs.rax) = (DATA, COUNT, 1);
            scope.spawn(move || assert_eq!(runner.syscall(), 1));
        }
        for _ in 0..1000 {
            let mut word = guest.space.load_u32(UserAddr(DATA)).expect("load");
            loop {
                let found =
                    guest.space.compare_exchange_u32(UserAddr(DATA), word, word + 1).expect("exchange");
                if found == word {
                    break;
                }
                word = found;
            }
        }
    });
    assert_eq!(guest.peek(DATA), 2 * COUNT + 1000);
}

/// Hundreds of guest threads that exist at once, each with its own state.
pub fn many_contexts(platform: &dyn Platform) {
    let first = Guest::new(platform, &reader());
    first.map(DATA, PAGE, Prot::RW);
    first.poke(DATA, 11);
    let mut guests: Vec<Guest> = (0..200).map(|_| Guest::in_space(platform, &first.space)).collect();
    for round in 0..2 {
        for guest in &mut guests {
            guest.restart();
            guest.regs.rbx = DATA;
            guest.regs.r15 = 5;
            assert_eq!(guest.syscall(), 1);
            assert_eq!((guest.regs.rdx, guest.regs.r15), (11, 5), "round {round}");
        }
    }
}

/// Threads that touch fresh pages of one mapping at the same time.
pub fn parallel_faults(platform: &dyn Platform) {
    let code = Code::new();
    let top = code.here();
    let code = code.store_rdx_to_rbx().add_rbx(4 * PAGE as u32).dec_jnz(Reg::Rcx, top).syscall();
    let guest = Guest::new(platform, &code);
    const SIZE: u64 = 64 << 20;
    guest.map(DATA, SIZE, Prot::RW);
    thread::scope(|scope| {
        for thread in 0..4 {
            let mut runner = Guest::in_space(platform, &guest.space);
            (runner.regs.rbx, runner.regs.rcx) = (DATA + thread * PAGE, SIZE / PAGE / 4);
            (runner.regs.rdx, runner.regs.rax) = (thread + 1, 1);
            scope.spawn(move || assert_eq!(runner.syscall(), 1));
        }
    });
    for page in 0..SIZE / PAGE {
        assert_eq!(guest.peek(DATA + page * PAGE), page % 4 + 1);
    }
}

/// Forks while other threads of the parent write: each child is a snapshot that never changes.
pub fn fork_under_load(platform: &dyn Platform) {
    let guest = Guest::new(platform, &counting());
    guest.map(DATA, 4 * PAGE, Prot::RW);
    let stop = AtomicBool::new(false);
    let mut kickers = Vec::new();
    thread::scope(|scope| {
        let mut runners = Vec::new();
        for _ in 0..2 {
            let mut runner = Guest::in_space(platform, &guest.space);
            runner.regs.rbx = DATA;
            kickers.push(runner.context.kicker());
            let stop = &stop;
            runners.push(scope.spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    assert_eq!(runner.run(), Exit::Kicked);
                }
            }));
        }
        let mut last = 0;
        for round in 0..100 {
            let child = Guest::in_space(platform, &guest.space.fork().expect("fork"));
            let seen = child.peek(DATA);
            assert!(seen >= last, "round {round}: {seen} after {last}");
            last = seen;
            // The parent goes on; the child's page does not.
            let now = guest.peek(DATA);
            while guest.peek(DATA) < now + 100 {
                assert!(!runners.iter().any(|runner| runner.is_finished()), "a runner failed");
                thread::yield_now();
            }
            assert_eq!(child.peek(DATA), seen);
            // The child's own writes stay its own.
            let mut runner = Guest::in_space(platform, &child.space);
            crate::support::load(&*runner.space, &writer());
            (runner.regs.rbx, runner.regs.rdx) = (DATA, 1);
            assert_eq!(runner.syscall(), 2);
            assert_eq!(child.peek(DATA), 1);
            assert!(guest.peek(DATA) >= now);
        }
        stop.store(true, Ordering::Release);
        kickers.iter().for_each(|kicker| kicker.kick());
    });
}
