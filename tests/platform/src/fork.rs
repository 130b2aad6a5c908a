//! `fork`: copies on write, in both directions.

use quicksand_platform::{Access, FaultCause, Platform, Prot};

use crate::support::{DATA, Guest, PAGE, file_byte, numbered_file, private, range, reader, shared, writer};

/// Writes by either side, by guest code and by the Sentry, before and after pages were touched: the other side never sees
/// them.
pub fn fork_copies_on_write(platform: &dyn Platform) {
    let mut parent = Guest::new(platform, &writer());
    let file = numbered_file(40);
    parent.map(DATA, 40 * PAGE, Prot::RW);
    parent.space.map(range(DATA + 40 * PAGE, 40 * PAGE), Prot::RW, private(&file, 0)).expect("map");
    for page in 0..80 {
        if page % 3 != 0 {
            parent.restart();
            (parent.regs.rbx, parent.regs.rdx) = (DATA + page * PAGE, 1000 + page);
            assert_eq!(parent.syscall(), 2);
        }
    }
    let before: Vec<u64> = (0..80).map(|page| parent.peek(DATA + page * PAGE)).collect();
    let space = parent.space.fork().expect("fork");
    let mut child = Guest::in_space(platform, &space);
    for page in 0..80u64 {
        let at = DATA + page * PAGE;
        match page % 4 {
            0 => {
                child.restart();
                (child.regs.rbx, child.regs.rdx) = (at, 2000 + page);
                assert_eq!(child.syscall(), 2);
            }
            1 => {
                parent.restart();
                (parent.regs.rbx, parent.regs.rdx) = (at, 3000 + page);
                assert_eq!(parent.syscall(), 2);
            }
            2 => child.poke(at, 2000 + page),
            _ => parent.poke(at, 3000 + page),
        }
    }
    for page in 0..80u64 {
        let at = DATA + page * PAGE;
        let old = before[page as usize];
        let (mine, theirs) = if page % 2 == 0 { (old, 2000 + page) } else { (3000 + page, old) };
        assert_eq!((parent.peek(at), child.peek(at)), (mine, theirs), "page {page}");
    }
    assert_eq!(file_byte(&file, 0), 1);
    // Once the child is gone the parent writes in place.
    drop(child);
    drop(space);
    for page in 0..80 {
        parent.restart();
        (parent.regs.rbx, parent.regs.rdx) = (DATA + page * PAGE, 5000 + page);
        assert_eq!(parent.syscall(), 2);
        assert_eq!(parent.peek(DATA + page * PAGE), 5000 + page);
    }
}

/// Three generations, dropped in an awkward order.
pub fn fork_of_fork(platform: &dyn Platform) {
    let first = Guest::new(platform, &reader());
    first.map(DATA, 16 * PAGE, Prot::RW);
    first.poke(DATA, 1);
    let second = Guest::in_space(platform, &first.space.fork().expect("fork"));
    second.poke(DATA + PAGE, 2);
    let mut third = Guest::in_space(platform, &second.space.fork().expect("fork"));
    third.poke(DATA + 2 * PAGE, 3);
    first.poke(DATA, 10);
    drop(second);
    assert_eq!((third.peek(DATA), third.peek(DATA + PAGE), third.peek(DATA + 2 * PAGE)), (1, 2, 3));
    assert_eq!((first.peek(DATA), first.peek(DATA + PAGE), first.peek(DATA + 2 * PAGE)), (10, 0, 0));
    drop(first);
    third.regs.rbx = DATA;
    assert_eq!(third.syscall(), 1);
    assert_eq!(third.regs.rdx, 1);
    third.poke(DATA, 30);
    third.restart();
    assert_eq!(third.syscall(), 1);
    assert_eq!(third.regs.rdx, 30);
}

/// Shared mappings stay shared.
pub fn fork_shares_files(platform: &dyn Platform) {
    let mut parent = Guest::new(platform, &writer());
    let file = numbered_file(2);
    parent.space.map(range(DATA, 2 * PAGE), Prot::RW, shared(&file, 0, true)).expect("map");
    parent.poke(DATA, 5);
    let child = Guest::in_space(platform, &parent.space.fork().expect("fork"));
    (parent.regs.rbx, parent.regs.rdx) = (DATA, 6);
    assert_eq!(parent.syscall(), 2);
    assert_eq!(child.peek(DATA), 6);
    child.poke(DATA + PAGE, 7);
    assert_eq!(parent.peek(DATA + PAGE), 7);
    parent.space.unmap(range(DATA, 2 * PAGE)).expect("unmap");
    child.poke(DATA, 8);
    assert_eq!(file_byte(&file, 0), 8);
}

/// Protection is each side's own, and changes to it do not make private pages shared or shared ones private.
pub fn fork_keeps_protections(platform: &dyn Platform) {
    let mut parent = Guest::new(platform, &writer());
    parent.map(DATA, 4 * PAGE, Prot::RW);
    parent.poke(DATA, 1);
    parent.poke(DATA + PAGE, 1);
    parent.space.protect(range(DATA + PAGE, PAGE), Prot::R).expect("protect");
    let mut child = Guest::in_space(platform, &parent.space.fork().expect("fork"));
    child.space.protect(range(DATA, PAGE), Prot::R).expect("protect");
    child.regs.rbx = DATA;
    child.fault(DATA, Access::Write, FaultCause::Unmapped);
    (parent.regs.rbx, parent.regs.rdx) = (DATA, 2);
    assert_eq!(parent.syscall(), 2);
    assert_eq!(child.peek(DATA), 1);
    // Made writable on one side while shared: still copied.
    parent.space.protect(range(DATA + PAGE, PAGE), Prot::RW).expect("protect");
    parent.restart();
    (parent.regs.rbx, parent.regs.rdx) = (DATA + PAGE, 3);
    assert_eq!(parent.syscall(), 2);
    assert_eq!((parent.peek(DATA + PAGE), child.peek(DATA + PAGE)), (3, 1));
    child.space.protect(range(DATA, 4 * PAGE), Prot::RW).expect("protect");
    (child.regs.rbx, child.regs.rdx) = (DATA + PAGE, 4);
    assert_eq!(child.syscall(), 2);
    assert_eq!((parent.peek(DATA + PAGE), child.peek(DATA + PAGE)), (3, 4));
}

/// Fork, write, exit, many times over: nothing leaks from one child into the next, or stays behind.
pub fn many_forks(platform: &dyn Platform) {
    let mut parent = Guest::new(platform, &writer());
    parent.map(DATA, 64 * PAGE, Prot::RW);
    for page in 0..64 {
        parent.poke(DATA + page * PAGE, page);
    }
    for round in 0..300u64 {
        let mut child = Guest::in_space(platform, &parent.space.fork().expect("fork"));
        // A private corner of its own, at a place that changes.
        let own = DATA + ((1 + round % 37) << 30);
        child.map(own, 3 * PAGE, Prot::RW);
        assert_eq!(child.peek(own + PAGE), 0);
        for at in [own + PAGE, DATA + (round % 64) * PAGE] {
            child.restart();
            (child.regs.rbx, child.regs.rdx) = (at, 7_000_000 + round);
            assert_eq!(child.syscall(), 2);
            assert_eq!(child.peek(at), 7_000_000 + round);
        }
        let page = (round * 7) % 64;
        parent.restart();
        (parent.regs.rbx, parent.regs.rdx) = (DATA + page * PAGE, page);
        assert_eq!(parent.syscall(), 2);
        for page in 0..64 {
            assert_eq!(parent.peek(DATA + page * PAGE), page);
        }
    }
}
