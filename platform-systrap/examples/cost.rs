//! What single operations of the platform cost here, in microseconds: the median of several rounds.

use std::sync::Arc;
use std::time::Instant;

use quicksand_abi::{UserAddr, UserRange};
use quicksand_platform::{AddressSpace, Backing, Context, Exit, Platform, Prot, Registers};
use quicksand_platform_systrap::SystrapPlatform;

const TEXT: u64 = 0x40_0000;
const DATA: u64 = 0x10_0000_0000;
const PAGE: u64 = 4096;

fn range(start: u64, len: u64) -> UserRange {
    UserRange { start: UserAddr(start), end: UserAddr(start + len) }
}

fn median(name: &str, count: u32, mut f: impl FnMut()) {
    let mut rounds: Vec<f64> = (0..15)
        .map(|_| {
            let start = Instant::now();
            (0..count).for_each(|_| f());
            start.elapsed().as_secs_f64() * 1e6 / f64::from(count)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{name:24} {:9.2}   ({:.2} to {:.2})", rounds[7], rounds[0], rounds[14]);
}

fn guest(platform: &dyn Platform) -> (Arc<dyn AddressSpace>, Box<dyn Context>, Registers) {
    let space = platform.address_space().expect("space");
    space.map(range(TEXT, PAGE), Prot::RX, Backing::Anonymous).expect("map");
    // 0: syscall; jmp 0.  4: lock-free work: dec rcx; jnz 4; jmp 0
    let code = [0x0f, 0x05, 0xeb, 0xfc, 0x48, 0xff, 0xc9, 0x75, 0xfb, 0xeb, 0xf5];
    space.write_forced(UserAddr(TEXT), &code).expect("write");
    (space, platform.context().expect("context"), Registers { rip: TEXT, ..Registers::default() })
}

/// System calls at sites that can be patched.
fn patched(platform: &dyn Platform) {
    // mov $39, %eax; syscall; jmp 0
    let code = [0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];
    let (space, mut context, mut regs) = guest(platform);
    space.write_forced(UserAddr(TEXT), &code).expect("write");
    let mut call = || assert_eq!(context.run(&space, &mut regs).expect("run"), Exit::Syscall);
    (0..100).for_each(|_| call());
    median("patched system call", 3000, call);
    // 0: mov $1000, %ebx. 5: mov $39, %eax; syscall; dec %ebx; jnz 5; syscall; jmp 0
    let code =
        [0xbb, 0xe8, 3, 0, 0, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xff, 0xcb, 0x75, 0xf5, 0x0f, 0x05, 0xeb, 0xec];
    let (space, mut context, mut regs) = guest(platform);
    space.write_forced(UserAddr(TEXT), &code).expect("write");
    (0..1000).for_each(|_| assert_eq!(context.run(&space, &mut regs).expect("run"), Exit::Syscall));
    if let Some(answers) = context.answers() {
        answers.set(39, Some(77));
    }
    median("1000 answered calls", 20, || {
        assert_eq!(context.run(&space, &mut regs).expect("run"), Exit::Syscall);
    });
    assert_eq!(regs.rax, 77, "{:?}", platform.counters());
    let (space, mut context, mut regs) = guest(platform);
    space.write_forced(UserAddr(TEXT), &[0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]).expect("write");
    (0..100).for_each(|_| assert_eq!(context.run(&space, &mut regs).expect("run"), Exit::Syscall));
    let mut state = vec![0; platform.extended_state_len()];
    median("patched, then its state", 1000, || {
        assert_eq!(context.run(&space, &mut regs).expect("run"), Exit::Syscall);
        context.get_extended_state(&mut state).expect("state");
    });
    let sites: Vec<_> =
        platform.counters().into_iter().filter(|(name, _)| name.starts_with("patched")).collect();
    println!("{sites:?}");
}

fn main() {
    let platform = SystrapPlatform::new().expect("platform");
    let (space, mut context, mut regs) = guest(&platform);
    median("system call", 3000, || {
        assert_eq!(context.run(&space, &mut regs).expect("run"), Exit::Syscall);
    });
    patched(&platform);
    median("map, unmap", 200, || {
        space.map(range(DATA, 16 * PAGE), Prot::RW, Backing::Anonymous).expect("map");
        space.unmap(range(DATA, 16 * PAGE)).expect("unmap");
    });
    median("map, unmap from a call", 200, || {
        context.run(&space, &mut regs).expect("run");
        space.map(range(DATA, 16 * PAGE), Prot::RW, Backing::Anonymous).expect("map");
        context.run(&space, &mut regs).expect("run");
        space.unmap(range(DATA, 16 * PAGE)).expect("unmap");
    });
    space.map(range(DATA, 16 * PAGE), Prot::RW, Backing::Anonymous).expect("map");
    let mut bytes = [0; 64];
    median("read 64 bytes", 1000, || space.read(UserAddr(DATA), &mut bytes).expect("read"));
    median("compare-exchange", 200, || {
        space.compare_exchange_u32(UserAddr(DATA), 0, 0).expect("exchange");
    });
    median("fork", 20, || drop(space.fork().expect("fork")));
    median("thread's first run", 20, || {
        let space = space.fork().expect("fork");
        let mut context = platform.context().expect("context");
        context.run(&space, &mut Registers { rip: TEXT, ..Registers::default() }).expect("run");
    });
    // Two guests that compute, with a call now and then, beside one.
    let work = |times: u64, loops: u64| {
        let (space, mut context, mut regs) = guest(&platform);
        let start = Instant::now();
        for _ in 0..times {
            (regs.rip, regs.rcx) = (TEXT + 4, loops);
            context.run(&space, &mut regs).expect("run");
        }
        start.elapsed().as_secs_f64() * 1e3
    };
    for (times, loops) in [(1, 1_000_000_000), (2000, 300_000), (100_000, 1000)] {
        let one = work(times, loops);
        let both: Vec<f64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2).map(|_| scope.spawn(move || work(times, loops))).collect();
            threads.into_iter().map(|t| t.join().expect("join")).collect()
        });
        println!("{times} calls, {loops} loops each: alone {one:.1} ms, two at once {both:.1?} ms");
    }
}
