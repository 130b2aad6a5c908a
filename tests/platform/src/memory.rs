//! Mapping, protection, files, and the Sentry's access.

use quicksand_abi::UserAddr;
use quicksand_platform::{Access, Advice, Backing, FaultCause, Mapping, MemFault, Platform, Prot};

use crate::code::{Code, Reg};
use crate::support::{
    DATA, Guest, PAGE, TEXT, file_byte, numbered_file, private, range, reader, shared, writer,
};

/// Faults name the exact address and access; a mapped page then works.
pub fn fault_addresses(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &reader());
    guest.regs.rbx = DATA + 123;
    let fault = guest.fault(DATA + 123, Access::Read, FaultCause::Unmapped);
    assert_eq!(fault.error_code, 4);
    assert_eq!(guest.regs.rip, TEXT);
    guest.map(DATA, PAGE, Prot::RW);
    guest.poke(DATA + 123, 0x1122_3344_5566_7788);
    assert_eq!(guest.syscall(), 1);
    assert_eq!(guest.regs.rdx, 0x1122_3344_5566_7788);
    let mut guest = Guest::new(platform, &writer());
    guest.regs.rbx = DATA + PAGE - 4;
    guest.map(DATA, PAGE, Prot::RW);
    let fault = guest.fault(DATA + PAGE, Access::Write, FaultCause::Unmapped);
    assert_eq!(fault.error_code, 6);
}

/// Each protection allows what it says, changed back and forth after the page was used.
pub fn protections(platform: &dyn Platform) {
    let mut read = Guest::new(platform, &reader());
    let mut write = Guest::in_space(platform, &read.space);
    let at = TEXT + 16 * PAGE;
    read.space.map(range(at, PAGE), Prot::RX, Backing::Anonymous).expect("map");
    read.space.write_forced(UserAddr(at), writer().bytes()).expect("write");
    read.map(DATA, 2 * PAGE, Prot::RW);
    (read.regs.rbx, write.regs.rbx) = (DATA, DATA);
    for round in 0..3u64 {
        write.regs.rip = at;
        write.regs.rdx = round + 1;
        assert_eq!(write.syscall(), 2);
        read.restart();
        assert_eq!(read.syscall(), 1);
        assert_eq!(read.regs.rdx, round + 1);

        read.space.protect(range(DATA, PAGE), Prot::R).expect("protect");
        write.regs.rip = at;
        write.fault(DATA, Access::Write, FaultCause::Unmapped);
        read.restart();
        assert_eq!(read.syscall(), 1);

        read.space.protect(range(DATA, PAGE), Prot::NONE).expect("protect");
        write.fault(DATA, Access::Write, FaultCause::Unmapped);
        read.restart();
        read.fault(DATA, Access::Read, FaultCause::Unmapped);
        assert_eq!(
            read.space.read(UserAddr(DATA), &mut [0]),
            Err(MemFault { addr: UserAddr(DATA), done: 0 })
        );

        read.space.protect(range(DATA, PAGE), Prot::RW).expect("protect");
        assert_eq!(read.syscall(), 1);
        assert_eq!(read.regs.rdx, round + 1);
    }
    // Execution: not without the right, and not any more once it is gone.
    let mut run = Guest::in_space(platform, &read.space);
    run.poke(DATA, u64::from_le_bytes([0x0f, 0x05, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90]));
    run.regs.rip = DATA;
    run.fault(DATA, Access::Execute, FaultCause::Unmapped);
    run.space.protect(range(DATA, PAGE), Prot::RX).expect("protect");
    run.syscall();
    run.space.protect(range(DATA, PAGE), Prot::RW).expect("protect");
    run.regs.rip = DATA;
    run.fault(DATA, Access::Execute, FaultCause::Unmapped);
}

/// Unmapped means gone, mapped again means zero, and replacing works.
pub fn map_unmap(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &reader());
    for round in 0..4u64 {
        guest.map(DATA, 8 * PAGE, Prot::RW);
        for page in 0..8 {
            assert_eq!(guest.peek(DATA + page * PAGE), 0);
            guest.poke(DATA + page * PAGE, round << 8 | page | 1 << 60);
        }
        guest.restart();
        guest.regs.rbx = DATA + 3 * PAGE;
        assert_eq!(guest.syscall(), 1);
        guest.space.unmap(range(DATA + 3 * PAGE, 2 * PAGE)).expect("unmap");
        guest.restart();
        guest.fault(DATA + 3 * PAGE, Access::Read, FaultCause::Unmapped);
        guest.map(DATA + 3 * PAGE, PAGE, Prot::R);
        assert_eq!(guest.syscall(), 1);
        assert_eq!(guest.regs.rdx, 0);
        assert_eq!(guest.peek(DATA + 2 * PAGE), round << 8 | 2 | 1 << 60);
        assert_eq!(guest.peek(DATA + 5 * PAGE), round << 8 | 5 | 1 << 60);
        // Replaced without an unmap between.
        guest.map(DATA + 2 * PAGE, PAGE, Prot::RW);
        guest.restart();
        guest.regs.rbx = DATA + 2 * PAGE;
        assert_eq!(guest.syscall(), 1);
        assert_eq!(guest.regs.rdx, 0);
        guest.space.unmap(range(DATA - PAGE, 100 * PAGE)).expect("unmap over holes");
    }
    assert!(guest.space.read(UserAddr(DATA), &mut [0; 8]).is_err());
}

/// Hundreds of gigabytes cost nothing until touched, with and without access.
pub fn huge_reservations_are_free(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &writer());
    let before = resident_kib();
    guest.map(DATA, 512 << 30, Prot::NONE);
    guest.map(DATA + (512 << 30), 512 << 30, Prot::RW);
    guest.space.protect(range(DATA + (100 << 30), 64 << 30), Prot::RW).expect("protect");
    assert!(resident_kib() < before + 1024);
    for at in [DATA + (100 << 30), DATA + (164 << 30) - 8, DATA + (512 << 30), DATA + (1023 << 30)] {
        guest.restart();
        (guest.regs.rbx, guest.regs.rdx) = (at, at);
        assert_eq!(guest.syscall(), 2);
        assert_eq!(guest.peek(at), at);
    }
    guest.restart();
    guest.regs.rbx = DATA + (164 << 30);
    guest.fault(DATA + (164 << 30), Access::Write, FaultCause::Unmapped);
    let fork = guest.space.fork().expect("fork");
    guest.space.unmap(range(DATA, 1024 << 30)).expect("unmap");
    drop(fork);
    assert!(resident_kib() < before + 4096);
}

/// More than a gigabyte of guest memory, all of it used, and all of it given back.
pub fn window_grows_and_shrinks(platform: &dyn Platform) {
    const SIZE: u64 = 1200 << 20;
    // Writes one word a page, `rcx` pages from RBX.
    let code = Code::new();
    let top = code.here();
    let code = code.store_rdx_to_rbx().add_rbx(PAGE as u32).dec_jnz(Reg::Rcx, top).syscall();
    let mut guest = Guest::new(platform, &code);
    let before = resident_kib();
    guest.map(DATA, SIZE, Prot::RW);
    (guest.regs.rbx, guest.regs.rdx, guest.regs.rcx, guest.regs.rax) = (DATA, 0x77, SIZE / PAGE, 9);
    assert_eq!(guest.syscall(), 9);
    assert_eq!(guest.regs.rbx, DATA + SIZE);
    let used = resident_kib() - before;
    assert!(used >= SIZE / 1024, "{used} KiB");
    let bytes = guest.space.resident_bytes();
    assert!((SIZE..SIZE + (16 << 20)).contains(&bytes), "{bytes}");
    guest.space.unmap(range(DATA, SIZE)).expect("unmap");
    let left = resident_kib().saturating_sub(before);
    assert!(left < 16 << 10, "{left} KiB stay");
}

/// The test process's resident memory: guest memory is part of it, or of a child's.
fn resident_kib() -> u64 {
    let mut total = 0;
    let mut pids = vec![std::process::id()];
    while let Some(pid) = pids.pop() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        total += line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    total
}

/// `mremap`: contents go along, the old place is empty, what was at the new one is gone.
pub fn relocate_moves_pages(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &reader());
    let file = numbered_file(4);
    let (old, new) = (DATA, DATA + (3 << 30));
    guest.map(old, 600 * PAGE, Prot::RW);
    guest.space.map(range(old + 600 * PAGE, 4 * PAGE), Prot::RW, private(&file, 0)).expect("map");
    guest.map(new, 10 * PAGE, Prot::RW);
    guest.poke(new, 1);
    for page in 0..600 {
        guest.poke(old + page * PAGE, 1000 + page);
    }
    guest.poke(old + 601 * PAGE, 4242);
    guest.regs.rbx = old;
    assert_eq!(guest.syscall(), 1);
    guest.space.relocate(range(old, 604 * PAGE), UserAddr(new)).expect("relocate");
    guest.restart();
    guest.fault(old, Access::Read, FaultCause::Unmapped);
    for page in [0, 1, 511, 512, 599] {
        guest.restart();
        guest.regs.rbx = new + page * PAGE;
        assert_eq!(guest.syscall(), 1);
        assert_eq!(guest.regs.rdx, 1000 + page);
    }
    assert_eq!(guest.peek(new + 601 * PAGE), 4242);
    assert_eq!(guest.peek(new + 602 * PAGE) as u8, 3);
    // The old place can be used again, and is fresh.
    guest.map(old, PAGE, Prot::RW);
    assert_eq!(guest.peek(old), 0);
    assert_eq!(guest.peek(new), 1000);
    // A mapping that was never touched moves as well.
    guest.map(old, 1 << 30, Prot::RW);
    guest.space.relocate(range(old, 1 << 30), UserAddr(new + (8 << 30))).expect("relocate");
    guest.poke(new + (8 << 30) + 12345 * 8, 5);
    assert!(guest.space.read(UserAddr(old + 12345 * 8), &mut [0; 8]).is_err());
}

/// `MADV_DONTNEED`: zeroes, or the file, at once.
pub fn dont_need(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &reader());
    let file = numbered_file(3);
    guest.map(DATA, 4 * PAGE, Prot::RW);
    guest.space.map(range(DATA + 4 * PAGE, 3 * PAGE), Prot::RW, private(&file, 0)).expect("map");
    for page in 0..7 {
        guest.poke(DATA + page * PAGE, 99);
        guest.restart();
        guest.regs.rbx = DATA + page * PAGE;
        assert_eq!(guest.syscall(), 1);
        assert_eq!(guest.regs.rdx, 99);
    }
    guest.space.advise(range(DATA + PAGE, 5 * PAGE), Advice::DontNeed).expect("advise");
    for (page, expected) in [99, 0, 0, 0, 1, 2, 99].into_iter().enumerate() {
        guest.restart();
        guest.regs.rbx = DATA + page as u64 * PAGE;
        assert_eq!(guest.syscall(), 1);
        assert_eq!(guest.regs.rdx & 0xff, expected, "page {page}");
    }
    // After a fork both sides have their own answer.
    guest.poke(DATA, 7);
    guest.poke(DATA + 4 * PAGE, 7);
    let child = guest.space.fork().expect("fork");
    child.write(UserAddr(DATA + 5 * PAGE), &[70]).expect("write");
    child.advise(range(DATA, 7 * PAGE), Advice::DontNeed).expect("advise");
    let mut byte = [9];
    child.read(UserAddr(DATA), &mut byte).expect("read");
    assert_eq!(byte, [0]);
    for page in 4..7 {
        child.read(UserAddr(DATA + page * PAGE), &mut byte).expect("read");
        assert_eq!(byte, [page as u8 - 3]);
    }
    assert_eq!((guest.peek(DATA), guest.peek(DATA + 4 * PAGE)), (7, 7));
}

/// A shared mapping is the file.
pub fn shared_file(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &writer());
    let file = numbered_file(4);
    guest.space.map(range(DATA, 2 * PAGE), Prot::RW, shared(&file, PAGE, true)).expect("map");
    assert_eq!(guest.peek(DATA) as u8, 2);
    (guest.regs.rbx, guest.regs.rdx) = (DATA + PAGE, 0x55);
    assert_eq!(guest.syscall(), 2);
    assert_eq!(file_byte(&file, 2 * PAGE), 0x55);
    rustix::io::pwrite(&file, &[0x66], 2 * PAGE).expect("pwrite");
    assert_eq!(guest.peek(DATA + PAGE) as u8, 0x66);
    // A second mapping of the same pages, in another space.
    let other = platform.address_space().expect("space");
    other.map(range(DATA, 4 * PAGE), Prot::R, shared(&file, 0, false)).expect("map");
    guest.poke(DATA, 0x99);
    let mut byte = [0];
    other.read(UserAddr(DATA + PAGE), &mut byte).expect("read");
    assert_eq!(byte, [0x99]);
    assert!(other.write(UserAddr(DATA), &[1]).is_err());
    assert!(other.write_forced(UserAddr(DATA), &[1]).is_err());
    assert_eq!(other.load_u32(UserAddr(DATA)).expect("load") as u8, 1);
    drop(other);
    guest.space.protect(range(DATA, PAGE), Prot::R).expect("protect");
    guest.restart();
    guest.regs.rbx = DATA;
    guest.fault(DATA, Access::Write, FaultCause::Unmapped);
    guest.space.advise(range(DATA, 2 * PAGE), Advice::DontNeed).expect("advise");
    assert_eq!(guest.peek(DATA) as u8, 0x99);
}

/// A private mapping starts as the file and never writes to it.
pub fn private_file(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &writer());
    let file = numbered_file(8);
    guest.space.map(range(DATA, 4 * PAGE), Prot::RW, private(&file, 2 * PAGE)).expect("map");
    guest.space.map(range(DATA + 4 * PAGE, 4 * PAGE), Prot::R, private(&file, 0)).expect("map");
    (guest.regs.rbx, guest.regs.rdx) = (DATA + PAGE, 0x55);
    assert_eq!(guest.syscall(), 2);
    assert_eq!(guest.peek(DATA + PAGE), 0x55);
    assert_eq!(guest.peek(DATA) as u8, 3);
    assert_eq!(file_byte(&file, 3 * PAGE), 4);
    assert_eq!(guest.peek(DATA + 7 * PAGE) as u8, 4);
    guest.restart();
    guest.regs.rbx = DATA + 4 * PAGE;
    guest.fault(DATA + 4 * PAGE, Access::Write, FaultCause::Unmapped);
    // Large and lazily filled, from both ends.
    let large = rustix::fs::memfd_create("large", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    rustix::fs::ftruncate(&large, 256 << 20).expect("ftruncate");
    rustix::io::pwrite(&large, &[0xab], (256 << 20) - 8).expect("pwrite");
    guest.space.map(range(DATA + (1 << 30), 256 << 20), Prot::RW, private(&large, 0)).expect("map");
    assert_eq!(guest.peek(DATA + (1 << 30) + (256 << 20) - 8), 0xab);
    guest.restart();
    guest.regs.rbx = DATA + (1 << 30) + (128 << 20);
    assert_eq!(guest.syscall(), 2);
    assert_eq!(file_byte(&large, 128 << 20), 0);
}

/// Beyond the end of the file: SIGBUS, at the exact address; the last page is zero-filled.
pub fn beyond_end_of_file(platform: &dyn Platform) {
    for sharing in [false, true] {
        let mut guest = Guest::new(platform, &reader());
        let file = numbered_file(2);
        rustix::fs::ftruncate(&file, PAGE + 10).expect("ftruncate");
        let backing = if sharing { shared(&file, 0, true) } else { private(&file, 0) };
        guest.space.map(range(DATA, 4 * PAGE), Prot::RW, backing).expect("map");
        guest.regs.rbx = DATA + PAGE + 6;
        assert_eq!(guest.syscall(), 1);
        assert_eq!(guest.regs.rdx, 0x0202_0202);
        guest.restart();
        guest.regs.rbx = DATA + 2 * PAGE + 77;
        guest.fault(DATA + 2 * PAGE + 77, Access::Read, FaultCause::Bus);
        guest.regs.rbx = DATA + 2 * PAGE - 3;
        guest.fault(DATA + 2 * PAGE, Access::Read, FaultCause::Bus);
        let mut buf = [0; 100];
        let at = UserAddr(DATA + 2 * PAGE - 40);
        let fault = guest.space.read(at, &mut buf).expect_err("nothing there");
        assert_eq!(fault, MemFault { addr: UserAddr(DATA + 2 * PAGE), done: 40 });
        assert!(guest.space.write(UserAddr(DATA + 3 * PAGE), &[1]).is_err());
        // The file grows: the pages are there.
        rustix::fs::ftruncate(&file, 4 * PAGE).expect("ftruncate");
        assert_eq!(guest.syscall(), 1);
        assert_eq!(guest.regs.rdx, 0);
        guest.poke(DATA + 3 * PAGE, 1);
        assert_eq!(file_byte(&file, 3 * PAGE), u8::from(sharing));
    }
}

/// The file shrinks under pages that were in use.
pub fn truncated_file(platform: &dyn Platform) {
    for sharing in [false, true] {
        let mut read = Guest::new(platform, &reader());
        let file = numbered_file(4);
        let backing = if sharing { shared(&file, 0, true) } else { private(&file, 0) };
        read.space.map(range(DATA, 4 * PAGE), Prot::RW, backing).expect("map");
        for page in 0..4 {
            read.restart();
            read.regs.rbx = DATA + page * PAGE;
            assert_eq!(read.syscall(), 1);
            assert_eq!(read.regs.rdx as u8, page as u8 + 1);
        }
        rustix::fs::ftruncate(&file, PAGE).expect("ftruncate");
        for offset in [PAGE + 8, 3 * PAGE + 4088] {
            read.restart();
            read.regs.rbx = DATA + offset;
            read.fault(DATA + offset, Access::Read, FaultCause::Bus);
            // Again: the answer does not change.
            read.fault(DATA + offset, Access::Read, FaultCause::Bus);
        }
        let fault = read.space.read(UserAddr(DATA + PAGE - 1), &mut [0; 2]).expect_err("nothing there");
        assert_eq!(fault, MemFault { addr: UserAddr(DATA + PAGE), done: 1 });
        assert!(read.space.load_u32(UserAddr(DATA + 2 * PAGE)).is_err());
        assert!(read.space.compare_exchange_u32(UserAddr(DATA + 2 * PAGE), 0, 1).is_err());
        // The page that is left works, and so do the others once the file is back.
        read.regs.rbx = DATA;
        assert_eq!(read.syscall(), 1);
        rustix::fs::ftruncate(&file, 4 * PAGE).expect("ftruncate");
        read.restart();
        read.regs.rbx = DATA + PAGE;
        assert_eq!(read.syscall(), 1);
        assert_eq!(read.regs.rdx, 0);
    }
}

/// The Sentry's copies: across pages, up to the first bad byte, and with the guest's rights.
pub fn sentry_access(platform: &dyn Platform) {
    let space = platform.address_space().expect("space");
    space.map(range(DATA, 3 * PAGE), Prot::RW, Backing::Anonymous).expect("map");
    space.map(range(DATA + 3 * PAGE, PAGE), Prot::R, Backing::Anonymous).expect("map");
    let bytes: Vec<u8> = (0..2 * PAGE + 100).map(|i| (i % 251) as u8).collect();
    space.write(UserAddr(DATA + 50), &bytes).expect("write");
    let mut back = vec![0; bytes.len()];
    space.read(UserAddr(DATA + 50), &mut back).expect("read");
    assert_eq!(bytes, back);
    let fault = space.write(UserAddr(DATA + 2 * PAGE + 1), &bytes).expect_err("read-only");
    assert_eq!(fault, MemFault { addr: UserAddr(DATA + 3 * PAGE), done: PAGE as usize - 1 });
    let fault = space.read(UserAddr(DATA + 3 * PAGE + 1), &mut back).expect_err("unmapped");
    assert_eq!(fault, MemFault { addr: UserAddr(DATA + 4 * PAGE), done: PAGE as usize - 1 });
    for bad in [0, u64::MAX, u64::MAX - 3, 1 << 47, UserAddr::TASK_SIZE.0] {
        assert_eq!(space.read(UserAddr(bad), &mut [0; 8]), Err(MemFault { addr: UserAddr(bad), done: 0 }));
        assert!(space.write(UserAddr(bad), &[0; 8]).is_err());
        assert!(space.write_forced(UserAddr(bad), &[0; 8]).is_err());
        assert!(space.load_u32(UserAddr(bad)).is_err());
    }
    space.read(UserAddr(0), &mut []).expect("nothing to read");
    space.write(UserAddr(DATA + 8), &7u32.to_le_bytes()).expect("write");
    assert_eq!(space.compare_exchange_u32(UserAddr(DATA + 8), 6, 9), Ok(7));
    assert_eq!(space.compare_exchange_u32(UserAddr(DATA + 8), 7, u32::MAX), Ok(7));
    assert_eq!(space.load_u32(UserAddr(DATA + 8)), Ok(u32::MAX));
    assert!(space.compare_exchange_u32(UserAddr(DATA + 3 * PAGE), 0, 1).is_err());
    assert_eq!(space.load_u32(UserAddr(DATA + 3 * PAGE)), Ok(0));
}

/// A debugger's writes ignore protection but stay private.
pub fn forced_writes(platform: &dyn Platform) {
    let mut guest = Guest::new(platform, &reader());
    let file = numbered_file(2);
    guest.space.map(range(DATA, 2 * PAGE), Prot::R, private(&file, 0)).expect("map");
    guest.regs.rbx = DATA;
    assert_eq!(guest.syscall(), 1);
    let child = guest.space.fork().expect("fork");
    guest.space.write_forced(UserAddr(DATA), &[0xcc]).expect("write");
    guest.restart();
    assert_eq!(guest.syscall(), 1);
    assert_eq!(guest.regs.rdx & 0xffff, 0x01cc);
    assert!(guest.space.write(UserAddr(DATA), &[1]).is_err());
    let mut byte = [0];
    child.read(UserAddr(DATA), &mut byte).expect("read");
    assert_eq!((byte, file_byte(&file, 0)), ([1], 1));
}

/// `mincore`, as far as it can be said.
pub fn residency(platform: &dyn Platform) {
    let guest = Guest::new(platform, &reader());
    guest.map(DATA, 8 * PAGE, Prot::RW);
    guest.poke(DATA + 2 * PAGE, 1);
    guest.poke(DATA + 5 * PAGE, 1);
    let mut out = [true; 10];
    guest.space.resident(range(DATA, 10 * PAGE), &mut out);
    assert_eq!(out, [false, false, true, false, false, true, false, false, false, false]);
    guest.space.advise(range(DATA, 8 * PAGE), Advice::DontNeed).expect("advise");
    guest.space.resident(range(DATA, 10 * PAGE), &mut out);
    assert_eq!(out, [false; 10]);
}

/// `MADV_POPULATE_WRITE`.
pub fn populate(platform: &dyn Platform) {
    let guest = Guest::new(platform, &reader());
    guest.map(DATA, 8 << 20, Prot::RW);
    guest.space.advise(range(DATA + (1 << 20), 4 << 20), Advice::Populate { write: true }).expect("advise");
    let mut out = vec![false; 2048];
    guest.space.resident(range(DATA, 8 << 20), &mut out);
    assert_eq!(out.iter().filter(|r| **r).count(), 1024);
    assert!(out[256..1280].iter().all(|r| *r));
}

/// Thousands of mappings of different kinds and protections, in one space.
pub fn many_small_mappings(platform: &dyn Platform) {
    let guest = Guest::new(platform, &reader());
    let file = numbered_file(1);
    const COUNT: u64 = 6000;
    for i in 0..COUNT {
        let prot = if i % 2 == 0 { Prot::RW } else { Prot::R };
        let backing = if i % 5 == 0 { private(&file, 0) } else { Backing::Anonymous };
        guest.space.map(range(DATA + 2 * i * PAGE, PAGE), prot, backing).expect("map");
    }
    for i in (0..COUNT).step_by(7) {
        assert_eq!(guest.peek(DATA + 2 * i * PAGE) as u8, u8::from(i % 5 == 0));
    }
    for i in (0..COUNT).step_by(3) {
        guest.space.unmap(range(DATA + 2 * i * PAGE, PAGE)).expect("unmap");
    }
    assert!(guest.space.read(UserAddr(DATA), &mut [0]).is_err());
    assert_eq!(guest.peek(DATA + 10 * PAGE) as u8, 1);
}

/// More mappings, of more files, than a platform may make in one go; and advice for all of them.
pub fn mappings_made_together(platform: &dyn Platform) {
    let guest = Guest::new(platform, &reader());
    let files: Vec<_> = (0..150).map(|_| numbered_file(4)).collect();
    let mapping = |i: u64| {
        let file = &files[(i % 150) as usize];
        let backing = match i % 3 {
            0 => Backing::Anonymous,
            1 => private(file, i % 4 * PAGE),
            _ => shared(file, i % 4 * PAGE, true),
        };
        Mapping { range: range(DATA + 2 * i * PAGE, PAGE), prot: Prot::RW, backing }
    };
    let mappings: Vec<_> = (0..700).map(mapping).collect();
    guest.space.map_all(&mappings).expect("map_all");
    let expected = |i: u64| if i.is_multiple_of(3) { 0 } else { (i % 4 + 1) as u8 };
    for i in 0..700 {
        assert_eq!(guest.peek(DATA + 2 * i * PAGE) as u8, expected(i), "mapping {i}");
        assert!(guest.space.read(UserAddr(DATA + (2 * i + 1) * PAGE), &mut [0]).is_err());
    }
    // Later ones take the place of earlier ones.
    let again = [mapping(0), mapping(1), Mapping { range: range(DATA, 3 * PAGE), ..mapping(4) }];
    guest.space.map_all(&again).expect("map_all");
    assert_eq!(guest.peek(DATA) as u8, 1);
    let advice: Vec<_> = mappings.iter().map(|m| (m.range, Advice::Populate { write: true })).collect();
    guest.space.advise_all(&advice).expect("advise_all");
    for i in 3..700 {
        assert_eq!(guest.peek(DATA + 2 * i * PAGE) as u8, expected(i), "mapping {i}");
    }
    let mut out = [false; 1];
    guest.space.resident(range(DATA + 6 * PAGE, PAGE), &mut out);
    assert_eq!(out, [true]);
}

/// A page of a file has contents before anybody has touched it.
pub fn contents_of_files(platform: &dyn Platform) {
    let guest = Guest::new(platform, &reader());
    guest.map(DATA, 4 * PAGE, Prot::RW);
    let large = rustix::fs::memfd_create("large", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    rustix::fs::ftruncate(&large, 16 << 20).expect("ftruncate");
    guest.space.map(range(DATA + 4 * PAGE, 16 << 20), Prot::RW, private(&large, 0)).expect("map");
    guest.poke(DATA + PAGE, 1);
    let mut out = vec![false; 4100];
    guest.space.has_contents(range(DATA, 4100 * PAGE), &mut out);
    assert_eq!(out[..4], [false, true, false, false]);
    assert!(out[4..].iter().all(|page| *page));
    // Thrown away, they are as in the file; moved, they go along.
    guest.space.advise(range(DATA, 8 * PAGE), Advice::DontNeed).expect("advise");
    let target = DATA + (1 << 30);
    guest.space.relocate(range(DATA, 8 * PAGE), UserAddr(target)).expect("relocate");
    guest.space.has_contents(range(target, 9 * PAGE), &mut out[..9]);
    assert_eq!(out[..9], [false, false, false, false, true, true, true, true, false]);
}
