//! Guests that attack their stub. The worst that they may reach is their own end.

use std::time::{Duration, Instant};

use quicksand_abi::{Errno, UserAddr};
use quicksand_platform::{Access, Advice, Backing, Exit, FaultCause, Platform, Prot, Trap};
use quicksand_platform_conformance::code::{Code, Reg};

use crate::layout::{
    AREA_LEN, AREAS, CONSTANTS, FIRST_THREAD_AREA, GLOBALS, IMAGE, NUMBER_SLOTS, REQUEST, SLOT_LEN, SLOTS,
    STUB_END, STUB_START, area, state,
};
use crate::stub;
use crate::testing::{DATA, Guest, PAGE, TEXT, assert_well, platform, range};

/// Where the code of the stub has a `syscall` instruction.
fn calls_in_stub() -> Vec<u64> {
    let image = stub::image();
    (0..image.len() - 1).filter(|i| image[*i..*i + 2] == [0x0f, 0x05]).map(|i| IMAGE + i as u64).collect()
}

const ERRANDS: [libc::c_long; 4] = [libc::SYS_munmap, libc::SYS_mmap, libc::SYS_madvise, libc::SYS_getrusage];
const URETPROBE: u64 = 335;
const UPROBE: u64 = 336;

/// `jmp *%r15`
fn jump_r15() -> Code {
    Code::new().raw(&[0x41, 0xff, 0xe7])
}

#[test]
fn pages_of_the_stub_cannot_be_written() {
    let platform = platform();
    let mut guest = Guest::new(&platform, &Code::new().store_rdx_to_rbx().syscall());
    for at in [IMAGE, CONSTANTS + 8, GLOBALS, REQUEST, REQUEST + 0x40, REQUEST + 0x200] {
        (guest.regs.rip, guest.regs.rbx, guest.regs.rdx) = (TEXT, at, u64::MAX);
        match guest.run().expect("run") {
            Exit::Fault(fault) => assert_eq!(
                (fault.addr, fault.access, fault.cause),
                (UserAddr(at), Access::Write, FaultCause::Unmapped)
            ),
            exit => panic!("{at:#x}: {exit:?}"),
        }
    }
    assert_well(&platform);
}

#[test]
fn the_sentry_does_not_touch_them_for_a_guest() {
    let platform = platform();
    let guest = Guest::new(&platform, &Code::new().syscall());
    let space = &guest.space;
    for at in [STUB_START, REQUEST, AREAS, STUB_END - PAGE] {
        assert_eq!(space.map(range(at, PAGE), Prot::RW, Backing::Anonymous), Err(Errno::ENOMEM));
        assert!(space.relocate(range(DATA, PAGE), UserAddr(at)).is_err());
        assert!(space.read(UserAddr(at), &mut [0]).is_err() && space.write(UserAddr(at), &[0]).is_err());
        assert!(space.write_forced(UserAddr(at), &[0]).is_err() && space.load_u32(UserAddr(at)).is_err());
        assert!(space.compare_exchange_u32(UserAddr(at), 0, 1).is_err());
        let _ = (space.unmap(range(at, PAGE)), space.protect(range(at, PAGE), Prot::RW));
    }
    assert!(space.map(range(STUB_START - PAGE, 2 * PAGE), Prot::RW, Backing::Anonymous).is_err());
    let fault = space.read(UserAddr(STUB_START - 1), &mut [0; 2]).expect_err("not mapped");
    assert_eq!(fault.done, 0);
    space.map(range(STUB_START - PAGE, PAGE), Prot::RW, Backing::Anonymous).expect("the last page");
    let fault = space.read(UserAddr(STUB_START - 1), &mut [0; 2]).expect_err("the end");
    assert_eq!(fault.done, 1);
    space.unmap(range(0x1_0000, STUB_END - 0x1_0000)).expect("everything");
    assert_eq!(space.read(UserAddr(DATA), &mut [0]).expect_err("gone").done, 0);
    space.map(range(DATA, PAGE), Prot::RW, Backing::Anonymous).expect("the agent lives");
    assert_well(&platform);
}

/// A guest that jumps to the stub's system calls, with the arguments of its choice, makes none.
#[test]
fn system_calls_of_the_stub_are_not_for_guests() {
    let platform = platform();
    let numbers = [
        libc::SYS_munmap,
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_clone,
        libc::SYS_exit_group,
        libc::SYS_pwrite64,
        libc::SYS_seccomp,
        libc::SYS_rt_sigprocmask,
        libc::SYS_tgkill,
        libc::SYS_openat,
        // As an x32 call.
        0x4000_0000 | libc::SYS_munmap,
    ];
    let calls = calls_in_stub();
    assert!(calls.len() > 20);
    let mut guest = Guest::new(&platform, &jump_r15());
    for at in &calls {
        for number in numbers {
            (guest.regs.rip, guest.regs.r15, guest.regs.rax) = (TEXT, *at, number as u64);
            (guest.regs.rdi, guest.regs.rsi, guest.regs.rdx) = (REQUEST, PAGE, 7);
            assert_eq!(guest.run().expect("run"), Exit::Syscall, "{at:#x}");
            assert_eq!((guest.regs.rax, guest.regs.rip), (number as u64, at + 2));
        }
        // A futex elsewhere than in the areas, and a sigreturn where there is none.
        let own = [stub::guest_calls().sigreturn, stub::guest_calls().futex[0], stub::guest_calls().futex[1]];
        for number in [libc::SYS_futex, libc::SYS_rt_sigreturn] {
            if number == libc::SYS_rt_sigreturn && at + 2 == own[0] {
                continue;
            }
            (guest.regs.rip, guest.regs.r15, guest.regs.rax) = (TEXT, *at, number as u64);
            (guest.regs.rdi, guest.regs.rsi) = (DATA, 0);
            assert_eq!(guest.run().expect("run"), Exit::Syscall, "{at:#x}");
        }
    }
    guest.space.map(range(DATA + 8 * PAGE, PAGE), Prot::RW, Backing::Anonymous).expect("the agent lives");
    assert_well(&platform);
}

/// Every number of a system call, by each instruction of the stub that could make it and by one of the guest's own: none
/// comes to the host but those that the filter names.
#[test]
fn no_number_is_for_guests() {
    let platform = platform();
    let own = stub::guest_calls();
    let mut guest = Guest::new(&platform, &jump_r15().raw(&[0x90; 13]).syscall());
    let (futex, sigreturn) = (libc::SYS_futex as u64, libc::SYS_rt_sigreturn as u64);
    for at in calls_in_stub().into_iter().chain([TEXT + 16]) {
        let numbers = (0..=600).chain([1 << 31, u64::from(u32::MAX)]);
        // The x32 table's, and one that counts its lower half only.
        for number in numbers.chain((0..=600).map(|n| n | 1 << 30)).chain((0..=600).map(|n| n | 1 << 32)) {
            let low = number & 0xffff_ffff;
            // The latter fails without a word, whatever the filter says: `filter.rs`.
            if low == sigreturn && at + 2 == own.sigreturn || low == UPROBE {
                continue;
            }
            // Looked at more closely in `filter.rs`.
            if at + 2 == own.errand && ERRANDS.contains(&(low as libc::c_long)) {
                continue;
            }
            (guest.regs.rip, guest.regs.r15, guest.regs.rax) = (TEXT, at, number);
            // What they would do with these if they could; `futex` elsewhere than it may.
            (guest.regs.rdi, guest.regs.rsi, guest.regs.rdx) = (if low == futex { DATA } else { 1 }, 0, 0);
            (guest.regs.r10, guest.regs.r8, guest.regs.r9) = (0, 0, 0);
            assert_eq!(guest.run().expect("run"), Exit::Syscall, "{at:#x}, {number:#x}");
            let seen = if low == URETPROBE { low } else { number };
            assert_eq!((guest.regs.rax, guest.regs.rip), (seen, at + 2));
        }
    }
    assert_well(&platform);
}

/// Whatever instruction of the stub a guest jumps to: it comes back, or is stopped, or ends itself.
#[test]
fn any_instruction_of_the_stub() {
    let area = AREAS + (FIRST_THREAD_AREA * AREA_LEN) as u64;
    // Plausible and implausible; those of the agent; those of a thread that waits in a patched call.
    for (register, value) in [(DATA, 0), (area, 0), (REQUEST, 1), (0, u64::MAX), (area + 0x600, 16)] {
        jump_everywhere(register, value);
    }
}

/// With all registers that are addresses in the stub's code `register`, and the others `value`.
fn jump_everywhere(register: u64, value: u64) {
    let platform = platform();
    let mut guest = Guest::new(&platform, &jump_r15());
    let mut ends = 0;
    let code = IMAGE..stub::guest_calls().sigreturn + 0x700;
    // A slot of each kind, and one that has not been used.
    let slots = [0, 1, NUMBER_SLOTS]
        .into_iter()
        .flat_map(|n| (0..SLOT_LEN).map(move |i| SLOTS + (n * SLOT_LEN + i) as u64));
    for at in code.chain(slots) {
        guest.regs.r15 = at;
        guest.regs.rip = TEXT;
        let regs = &mut guest.regs;
        (regs.rsp, regs.rbp, regs.r11, regs.r12, regs.r14) =
            (register, register, register, register, register);
        (regs.rcx, regs.rdi, regs.rsi, regs.rdx, regs.r13) = (value, value, value, value, value);
        (regs.rax, regs.r8, regs.r9, regs.r10) = (value, value, value, value);
        regs.rbx = register;
        let kicker = guest.context.kicker();
        let over = std::sync::Mutex::new(false);
        let changed = std::sync::Condvar::new();
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                // It may wait for somebody who never comes.
                let guard = over.lock().unwrap();
                let wait = changed.wait_timeout_while(guard, Duration::from_millis(10), |over| !*over);
                if wait.unwrap().1.timed_out() {
                    kicker.kick();
                }
            });
            let result = guest.run();
            *over.lock().unwrap() = true;
            changed.notify_one();
            result
        });
        if result.is_err() {
            ends += 1;
            guest = Guest::new(&platform, &jump_r15());
        }
    }
    eprintln!("{ends} times it was the end");
    assert_well(&platform);
}

/// A guest that claims to have stopped, with a frame that is none.
#[test]
fn a_forged_frame_ends_its_guest_only() {
    let platform = platform();
    let own = AREAS + (FIRST_THREAD_AREA * AREA_LEN) as u64;
    for frame in [0, DATA, own, own + AREA_LEN as u64 - 8, AREAS + 0x1100, u64::MAX, own + 0x1101] {
        // mov %rdx, FRAME(%rbx); movl $EVENT, STATE(%rbx); jmp .
        let code = Code::new()
            .raw(&[0x48, 0x89, 0x93])
            .raw(&(area::FRAME as u32).to_le_bytes())
            .raw(&[0xc7, 0x83])
            .raw(&(area::STATE as u32).to_le_bytes())
            .raw(&state::EVENT.to_le_bytes());
        let here = code.here();
        let mut guest = Guest::new(&platform, &code.jump(here));
        (guest.regs.rbx, guest.regs.rdx) = (own, frame);
        let kicker = guest.context.kicker();
        kick_after(&*kicker, || guest.run().expect_err("a frame that is none"));
        assert!(guest.run().is_err());
    }
    assert_well(&platform);
}

/// A guest that claims to be in a patched call, and is not: it is not waited for when it is to take a signal.
#[test]
fn a_forged_call_ends_its_guest_only() {
    let platform = platform();
    let own = AREAS + (FIRST_THREAD_AREA * AREA_LEN) as u64;
    // movl $0, SIGNAL(%rbx); movl $EVENT, STATE(%rbx); jmp .
    let code = Code::new()
        .raw(&[0xc7, 0x83])
        .raw(&(area::SIGNAL as u32).to_le_bytes())
        .raw(&[0; 4])
        .raw(&[0xc7, 0x83])
        .raw(&(area::STATE as u32).to_le_bytes())
        .raw(&state::EVENT.to_le_bytes());
    let here = code.here();
    let mut guest = Guest::new(&platform, &code.jump(here));
    guest.regs.rbx = own;
    let kicker = guest.context.kicker();
    assert_eq!(kick_after(&*kicker, || guest.run().expect("so it seems")), Exit::Syscall);
    let mut state = vec![0; platform.extended_state_len()];
    let start = Instant::now();
    assert!(guest.context.get_extended_state(&mut state).is_err());
    assert!(start.elapsed() < Duration::from_secs(5));
    // The kick is not forgotten.
    let mut runs = [guest.run(), guest.run()].into_iter();
    assert!(runs.any(|run| run.is_err()));
    assert_well(&platform);
}

/// Makes sure that `f`, a run, ends: kicks until it does. A kick may come too early to be noticed by what goes on.
fn kick_after<R>(kicker: &dyn quicksand_platform::Kicker, f: impl FnOnce() -> R) -> R {
    std::thread::scope(|scope| {
        let (over, is_over) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            while is_over.recv_timeout(Duration::from_millis(100))
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                kicker.kick();
            }
        });
        let result = f();
        drop(over);
        result
    })
}

/// Guests that write all over what is writable, while the Sentry works with the same stub.
#[test]
fn scribbling_over_the_areas() {
    let platform = platform();
    // 0: mov %rbx, %rdi; mov %rdx, %rcx; rep stosb; inc %al; jmp 0
    let code = Code::new().raw(&[0x48, 0x89, 0xdf, 0x48, 0x89, 0xd1, 0xf3, 0xaa, 0xfe, 0xc0]).jump(0);
    // The agent's area; its own; all.
    let (agents, first) = (AREAS, AREAS + (FIRST_THREAD_AREA * AREA_LEN) as u64);
    for (from, len) in [(agents, AREA_LEN), (agents, 3 * AREA_LEN), (first, AREA_LEN), (agents, 6 * AREA_LEN)]
    {
        let mut guest = Guest::new(&platform, &code);
        (guest.regs.rbx, guest.regs.rdx) = (from, len as u64);
        let space = guest.space.clone();
        let kicker = guest.context.kicker();
        std::thread::scope(|scope| {
            let (over, is_over) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                let _ = guest.run();
                drop(over);
            });
            for i in 0..100 {
                let at = DATA + (16 + i) * PAGE;
                let _ = space.map(range(at, PAGE), Prot::RW, Backing::Anonymous);
                let _ = space.compare_exchange_u32(UserAddr(at), 0, 1);
                let _ = space.compare_exchange_u32(UserAddr(0x5000), 0, 1);
                let mut pages = [false; 4];
                space.resident(range(at, 4 * PAGE), &mut pages);
                let _ = space.resident_bytes();
                let _ = space.unmap(range(at, PAGE));
                if i % 10 == 0
                    && let Ok(child) = space.fork()
                {
                    // The child is another process, which nobody scribbles over.
                    child.map(range(at, PAGE), Prot::RW, Backing::Anonymous).expect("map");
                    child.write(UserAddr(at), &[1]).expect("write");
                }
            }
            while is_over.recv_timeout(Duration::from_millis(50))
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                kicker.kick();
            }
        });
    }
    assert_well(&platform);
}

/// A guest that has blocked the kick by a signal frame of its own, and runs on for ever.
#[test]
fn deaf_to_kicks() {
    let platform = platform();
    let mut guest = Guest::new(&platform, &jump_r15().raw(&[0x90; 13]).jump(16));
    // A frame: the mask blocks everything, RIP is the endless loop at 16.
    let put = |at: u64, value: u64| {
        guest.space.write(UserAddr(DATA - 512 + at), &value.to_le_bytes()).expect("write");
    };
    put(0, 6);
    put(40 + 8 * 15, DATA);
    put(40 + 8 * 16, TEXT + 16);
    put(40 + 8 * 17, 0x202);
    put(40 + 8 * 18, 0x33 | 0x2b << 48);
    put(296, u64::MAX);
    (guest.regs.r15, guest.regs.rax) = (stub::guest_calls().sigreturn - 2, libc::SYS_rt_sigreturn as u64);
    guest.regs.rsp = DATA - 512;
    let kicker = guest.context.kicker();
    let start = Instant::now();
    let error = kick_after(&*kicker, || guest.run()).expect_err("it does not stop");
    assert!(error.to_string().contains("killed"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_well(&platform);
}

/// The host's 32-bit code segment can be found; nothing is to be had there.
#[test]
fn thirty_two_bit_code() {
    let platform = platform();
    // push $0x23; push $TEXT+8; lretq. At 16: int $0x80; ud2.
    let code = Code::new().raw(&[0x6a, 0x23, 0x68]).raw(&(TEXT as u32 + 16).to_le_bytes()).raw(&[0x48, 0xcb]);
    let code = code.raw(&[0x90; 7]).raw(&[0xcd, 0x80, 0x0f, 0x0b]);
    let mut guest = Guest::new(&platform, &code);
    guest.regs.rax = 1; // exit, in the 32-bit table
    assert_eq!(guest.run().expect("run"), Exit::Trap(Trap { vector: 13, error_code: 0, dr6: 0 }));
    // The vsyscall page: gettimeofday, by way of a call.
    let mut guest = Guest::new(&platform, &Code::new().raw(&[0x41, 0xff, 0xd7]).mov(Reg::Rax, 1).syscall());
    guest.regs.r15 = 0xffff_ffff_ff60_0000;
    match guest.run().expect("run") {
        Exit::Fault(fault) => {
            assert_eq!((fault.addr.0, fault.access), (0xffff_ffff_ff60_0000, Access::Execute));
        }
        exit => panic!("{exit:?}"),
    }
    assert_eq!((guest.regs.rip, guest.regs.rsp), (0xffff_ffff_ff60_0000, DATA - 8));
    assert_well(&platform);
}

/// The address of the instruction by which errands are run.
fn errand_call() -> u64 {
    stub::guest_calls().errand - 2
}

/// A guest that runs errands of its own: it can unmap what is its own, and nothing else. The Sentry does not mind.
#[test]
fn errands_of_its_own() {
    let platform = platform();
    let mut guest = Guest::new(&platform, &jump_r15());
    guest.space.map(range(DATA + 4 * PAGE, 4 * PAGE), Prot::RW, Backing::Anonymous).expect("map");
    let anonymous = crate::errand::ANONYMOUS as u64;
    let calls = [
        (libc::SYS_munmap, 0, 0),
        (libc::SYS_mmap, 7, anonymous),
        (libc::SYS_madvise, libc::MADV_DONTNEED as u64, 0),
        (libc::SYS_mprotect, 7, 0),
        (libc::SYS_mremap, PAGE, 3),
    ];
    let stubs_own = [
        (STUB_START, PAGE),
        (STUB_START - PAGE, 2 * PAGE),
        (REQUEST, PAGE),
        (AREAS, PAGE),
        (0, STUB_END),
        (DATA, STUB_START - DATA + 1),
        (REQUEST - (1 << 32), (1 << 32) + PAGE),
        (1 << 63, (1 << 63) + REQUEST + PAGE),
        (u64::MAX - PAGE + 1, REQUEST + 2 * PAGE),
    ];
    for (number, third, flags) in calls {
        for (start, len) in stubs_own {
            (guest.regs.rip, guest.regs.r15, guest.regs.rax) = (TEXT, errand_call(), number as u64);
            (guest.regs.rdi, guest.regs.rsi, guest.regs.rdx) = (start, len, third);
            (guest.regs.r10, guest.regs.r8, guest.regs.r9) = (flags, u64::MAX, 0);
            assert_eq!(guest.run().expect("run"), Exit::Syscall, "{number} {start:#x} {len:#x}");
            assert_eq!(guest.regs.rip, errand_call() + 2);
        }
    }
    // Files are never mapped, whatever descriptor is named.
    for flags in [libc::MAP_SHARED | libc::MAP_FIXED, libc::MAP_PRIVATE | libc::MAP_FIXED] {
        for fd in 0..4 {
            (guest.regs.rip, guest.regs.r15, guest.regs.rax) = (TEXT, errand_call(), libc::SYS_mmap as u64);
            (guest.regs.rdi, guest.regs.rsi, guest.regs.rdx) = (DATA, PAGE, 3);
            (guest.regs.r10, guest.regs.r8, guest.regs.r9) = (flags as u64, fd, 0);
            assert_eq!(guest.run().expect("run"), Exit::Syscall);
        }
    }
    // Its own memory; afterwards it is in the handler's code, with what it says is its frame.
    let own = AREAS + (FIRST_THREAD_AREA * AREA_LEN) as u64;
    let frame = guest.own().stub.areas.u64(FIRST_THREAD_AREA * AREA_LEN + area::FRAME);
    let frame = frame.load(std::sync::atomic::Ordering::Relaxed);
    (guest.regs.rip, guest.regs.r15, guest.regs.rax) = (TEXT, errand_call(), libc::SYS_munmap as u64);
    (guest.regs.rdi, guest.regs.rsi) = (DATA + 5 * PAGE, PAGE);
    guest.regs.r12 = own;
    guest.regs.r14 = frame;
    guest.run().expect("run");
    let space = &guest.space;
    assert!(space.read(UserAddr(DATA + 5 * PAGE), &mut [0]).is_err(), "it is gone");
    space.read(UserAddr(DATA + 4 * PAGE), &mut [0]).expect("what is before it");
    // What the Sentry believes to be there is not; each operation does what it can, or fails.
    let all = range(DATA + 4 * PAGE, 4 * PAGE);
    let mut resident = [false; 4];
    space.resident(all, &mut resident);
    let _ = (space.protect(all, Prot::R), space.advise(all, Advice::DontNeed), space.resident_bytes());
    let _ = (space.relocate(all, UserAddr(DATA + 16 * PAGE)), space.write_forced(UserAddr(DATA), &[1]));
    space.map(all, Prot::RW, Backing::Anonymous).expect("map");
    space.write(all.start, &[1; 3 * PAGE as usize]).expect("it is there again");
    space.unmap(all).expect("unmap");
    assert_well(&platform);
}

/// A guest thread that says that it has stopped, and runs on: it is sent on an errand, and does not come back.
#[test]
fn an_errand_that_is_not_run() {
    let platform = platform();
    // 0: syscall. 2: movl $EVENT, STATE(%rbx); then nothing more, or the same for ever.
    let claim = Code::new()
        .syscall()
        .raw(&[0xc7, 0x83])
        .raw(&(area::STATE as u32).to_le_bytes())
        .raw(&state::EVENT.to_le_bytes());
    let here = claim.here();
    for back in [here, 2] {
        let mut guest = Guest::new(&platform, &claim.clone().jump(back));
        let (other, space) = (DATA + 8 * PAGE, guest.space.clone());
        let mut second = Guest::in_space(&platform, &space);
        assert_eq!(second.run().expect("run"), Exit::Syscall);
        guest.regs.rbx = AREAS + ((FIRST_THREAD_AREA + 1) * AREA_LEN) as u64;
        assert_eq!(guest.run().expect("run"), Exit::Syscall);
        assert_eq!(guest.regs.rip, TEXT + 2);
        let kicker = guest.context.kicker();
        kick_after(&*kicker, || guest.run().expect("what it claims"));
        let start = Instant::now();
        let mapped = space.map(range(other, PAGE), Prot::RW, Backing::Anonymous);
        assert!(start.elapsed() < Duration::from_secs(5));
        if back == here {
            assert!(mapped.is_err());
            // A kick may have been left over.
            assert!((0..2).any(|_| guest.run().is_err()) && second.run().is_err());
        } else {
            // What it says, it has done.
            mapped.expect("so it says");
            let _ = space.read(UserAddr(other), &mut [0]);
        }
        assert_well(&platform);
    }
}
