//! Tests of the memory manager over the fake address space.

use std::sync::Arc;

use quicksand_abi::{Errno, PAGE_SIZE, UserAddr, UserRange};
use quicksand_platform::{Access, FaultCause, Prot};

use super::map::{MapRequest, Target};
use super::testing::FakeSpace;
use super::*;

const PRIVATE: u32 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u32;
const FIXED: u32 = libc::MAP_FIXED as u32;

fn new() -> (Arc<FakeSpace>, Arc<MemoryManager>) {
    let space = FakeSpace::new();
    (space.clone(), MemoryManager::new(space))
}

fn map(mm: &MemoryManager, addr: u64, pages: u64, prot: Prot, flags: u32) -> Result<u64, Errno> {
    let request = MapRequest {
        addr: UserAddr(addr),
        len: pages * PAGE_SIZE,
        prot,
        flags: PRIVATE | flags,
        vm_flags: VmFlags::empty(),
        target: Target::Anonymous,
    };
    mm.map(&Limits::NONE, request).map(|a| a.0)
}

fn remap(mm: &MemoryManager, addr: u64, old: u64, new: u64, flags: i32, to: u64) -> Result<u64, Errno> {
    let request = RemapRequest {
        addr: UserAddr(addr),
        old_len: old * PAGE_SIZE,
        new_len: new * PAGE_SIZE,
        flags: flags as u32,
        new_addr: UserAddr(to),
    };
    mm.remap(&Limits::NONE, request).map(|a| a.0)
}

#[test]
fn placement_is_top_down_and_first_fit() {
    let (_, mm) = new();
    let a = map(&mm, 0, 4, Prot::RW, 0).unwrap();
    let b = map(&mm, 0, 4, Prot::R, 0).unwrap();
    assert_eq!(a, Layout::default().mmap_base.0 - 4 * PAGE_SIZE);
    assert_eq!(b, a - 4 * PAGE_SIZE);
    mm.unmap(UserAddr(a), 2 * PAGE_SIZE).unwrap();
    assert_eq!(map(&mm, 0, 2, Prot::RX, 0).unwrap(), a);
    // A hint that is free is taken, rounded down; one that is not goes elsewhere.
    let hint = 0x1234_5000;
    assert_eq!(map(&mm, hint + 5, 1, Prot::RW, 0).unwrap(), hint);
    assert_ne!(map(&mm, hint, 1, Prot::RW, 0).unwrap(), hint);
    assert_eq!(map(&mm, hint, 1, Prot::RW, libc::MAP_FIXED_NOREPLACE as u32), Err(Errno::EEXIST));
    assert_eq!(map(&mm, hint + 1, 1, Prot::RW, FIXED), Err(Errno::EINVAL));
    assert_eq!(map(&mm, PAGE_SIZE, 1, Prot::RW, FIXED), Err(Errno::EPERM));
    assert_eq!(map(&mm, PAGE_SIZE, 1, Prot::RW, 0), Ok(MMAP_MIN_ADDR));
    assert_eq!(map(&mm, UserAddr::TASK_SIZE.0, 1, Prot::RW, FIXED), Err(Errno::ENOMEM));
    assert!(map(&mm, 0, 1, Prot::RW, libc::MAP_32BIT as u32).unwrap() < 1 << 31);
    assert_eq!(map(&mm, 0, 1 << 36, Prot::NONE, 0), Err(Errno::ENOMEM));
    // A reservation of 64 TiB is one VMA, and costs nothing.
    assert!(map(&mm, 0, 1 << 34, Prot::NONE, 0).is_ok());
}

#[test]
fn limits_are_kept() {
    let (_, mm) = new();
    let request = |prot, pages| MapRequest {
        addr: UserAddr::NULL,
        len: pages * PAGE_SIZE,
        prot,
        flags: PRIVATE,
        vm_flags: VmFlags::empty(),
        target: Target::Anonymous,
    };
    let data = Limits { data: 10 * PAGE_SIZE, ..Limits::NONE };
    assert!(mm.map(&data, request(Prot::RW, 10)).is_ok());
    assert_eq!(mm.map(&data, request(Prot::RW, 1)), Err(Errno::ENOMEM));
    assert!(mm.map(&data, request(Prot::R, 1)).is_ok());
    let space = Limits { address_space: 12 * PAGE_SIZE, ..Limits::NONE };
    assert!(mm.map(&space, request(Prot::R, 1)).is_ok());
    assert_eq!(mm.map(&space, request(Prot::R, 1)), Err(Errno::ENOMEM));
    let lock = Limits { memlock: PAGE_SIZE, may_lock: false, ..Limits::NONE };
    let mut locked = request(Prot::RW, 2);
    locked.flags |= libc::MAP_LOCKED as u32;
    assert_eq!(mm.map(&lock, locked), Err(Errno::EAGAIN));
}

#[test]
fn contents_survive_moves() {
    let (space, mm) = new();
    let a = map(&mm, 0x10_0000, 4, Prot::RW, FIXED).unwrap();
    mm.write_bytes(UserAddr(a + 2 * PAGE_SIZE), b"hello").unwrap();
    map(&mm, 0x10_4000, 1, Prot::NONE, FIXED).unwrap();
    assert_eq!(remap(&mm, a, 4, 8, 0, 0), Err(Errno::ENOMEM));
    let b = remap(&mm, a, 4, 8, libc::MREMAP_MAYMOVE, 0).unwrap();
    let mut buf = [0; 5];
    mm.read_bytes(UserAddr(b + 2 * PAGE_SIZE), &mut buf).unwrap();
    assert_eq!(&buf, b"hello");
    assert_eq!(space.prot_at(UserAddr(a)), None);
    assert_eq!(space.prot_at(UserAddr(b + 7 * PAGE_SIZE)), Some(Prot::RW));
    // What is left behind by MREMAP_DONTUNMAP is empty.
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
    let c = remap(&mm, b, 8, 8, flags, 0).unwrap();
    mm.read_bytes(UserAddr(c + 2 * PAGE_SIZE), &mut buf).unwrap();
    assert_eq!(&buf, b"hello");
    mm.read_bytes(UserAddr(b + 2 * PAGE_SIZE), &mut buf).unwrap();
    assert_eq!(buf, [0; 5]);
    // Several mappings, with a hole, at once.
    mm.protect(&Limits::NONE, UserAddr(c), PAGE_SIZE, 1, false).unwrap();
    mm.unmap(UserAddr(c + PAGE_SIZE), PAGE_SIZE).unwrap();
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    assert_eq!(remap(&mm, c, 8, 8, flags, 0x20_0000), Ok(0x20_0000));
    mm.read_bytes(UserAddr(0x20_2000), &mut buf).unwrap();
    assert_eq!(&buf, b"hello");
    assert_eq!(space.prot_at(UserAddr(0x20_0000)), Some(Prot::R));
    assert_eq!(space.prot_at(UserAddr(0x20_1000)), None);
    assert_eq!(remap(&mm, 0x20_2000, 0, 1, libc::MREMAP_MAYMOVE, 0), Err(Errno::EINVAL));
}

#[test]
fn stacks_grow_over_faults_and_copies() {
    let (_, mm) = new();
    let top = 0x7000_0000_0000;
    let start = top - 4 * PAGE_SIZE;
    map(&mm, start, 4, Prot::RW, FIXED | libc::MAP_GROWSDOWN as u32).unwrap();
    let fault = |addr: u64| mm.handle_fault(UserAddr(addr), Access::Write, FaultCause::Unmapped, 1 << 20);
    assert_eq!(fault(start - 1), FaultOutcome::Resolved);
    assert_eq!(mm.maps()[0].range.start.0, start - PAGE_SIZE);
    // A copy grows it as well.
    mm.write_bytes(UserAddr(start - 10 * PAGE_SIZE), b"x").unwrap();
    assert_eq!(mm.maps()[0].range.start.0, start - 10 * PAGE_SIZE);
    assert_eq!(mm.maps().len(), 1);
    // Not beyond the limit, nor into the guard gap of what lies below.
    assert_eq!(fault(top - (2 << 20)), FaultOutcome::NotMapped);
    let below = top - (1 << 20) - 300 * PAGE_SIZE;
    map(&mm, below, 100, Prot::RW, FIXED).unwrap();
    assert_eq!(fault(top - (1 << 20)), FaultOutcome::NotMapped);
    assert_eq!(fault(below), FaultOutcome::Resolved);
    assert_eq!(
        mm.handle_fault(UserAddr(below), Access::Execute, FaultCause::Unmapped, 0),
        FaultOutcome::Forbidden
    );
    assert_eq!(mm.handle_fault(UserAddr(below), Access::Read, FaultCause::Bus, 0), FaultOutcome::Bus);
}

#[test]
fn brk_moves_and_refuses() {
    let (_, mm) = new();
    let base = UserAddr(0x60_0000);
    mm.write().marks.start_brk = base;
    mm.write().marks.brk = base;
    let brk = |pages: u64| mm.set_brk(&Limits::NONE, UserAddr(base.0 + pages * PAGE_SIZE)).0;
    assert_eq!(brk(3), base.0 + 3 * PAGE_SIZE);
    assert!(matches!(&mm.maps()[0].name, MapsName::Text(t) if t == b"[heap]"));
    mm.write_bytes(UserAddr(base.0 + 2 * PAGE_SIZE), b"x").unwrap();
    assert_eq!(brk(1), base.0 + PAGE_SIZE);
    assert_eq!(brk(3), base.0 + 3 * PAGE_SIZE);
    let mut byte = [9];
    mm.read_bytes(UserAddr(base.0 + 2 * PAGE_SIZE), &mut byte).unwrap();
    assert_eq!(byte, [0]);
    map(&mm, base.0 + 8 * PAGE_SIZE, 1, Prot::R, FIXED).unwrap();
    assert_eq!(brk(8), base.0 + 3 * PAGE_SIZE);
    assert_eq!(brk(7), base.0 + 7 * PAGE_SIZE);
    assert_eq!(mm.set_brk(&Limits::NONE, UserAddr(0x1000)).0, base.0 + 7 * PAGE_SIZE);
}

#[test]
fn forks_share_what_is_shared() {
    let (_, mm) = new();
    let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, 4 * PAGE_SIZE).unwrap();
    let memory = Arc::new(SharedMemory { id: 7, key: None, fd: Arc::new(fd) });
    let request = MapRequest {
        addr: UserAddr(0x30_0000),
        len: 4 * PAGE_SIZE,
        prot: Prot::RW,
        flags: FIXED | (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u32,
        vm_flags: VmFlags::empty(),
        target: Target::SharedAnonymous(memory),
    };
    let shared = mm.map(&Limits::NONE, request).unwrap();
    let private = UserAddr(map(&mm, 0x40_0000, 4, Prot::RW, FIXED).unwrap());
    mm.write_bytes(private, b"parent").unwrap();
    let page = |n: u64| UserAddr(private.0 + n * PAGE_SIZE);
    mm.write_bytes(page(1), b"wiped").unwrap();
    mm.advise(page(1), PAGE_SIZE, libc::MADV_WIPEONFORK).unwrap();
    mm.advise(page(2), PAGE_SIZE, libc::MADV_DONTFORK).unwrap();
    mm.lock_range(&Limits::NONE, page(3), PAGE_SIZE, false).unwrap();
    let child = mm.fork().unwrap();
    child.write_bytes(private, b"child!").unwrap();
    child.write_bytes(shared, b"both").unwrap();
    let read = |mm: &MemoryManager, at: UserAddr, n: usize| {
        let mut buf = vec![0; n];
        mm.read_bytes(at, &mut buf).map(|()| buf)
    };
    assert_eq!(read(&mm, private, 6).unwrap(), b"parent");
    assert_eq!(read(&mm, shared, 4).unwrap(), b"both");
    assert_eq!(read(&child, page(1), 5).unwrap(), [0; 5]);
    assert_eq!(read(&mm, page(1), 5).unwrap(), b"wiped");
    assert!(read(&child, page(2), 1).is_err());
    assert_eq!((mm.counters().locked, child.counters().locked), (1, 0));
    let key = |mm: &MemoryManager, at: UserAddr, private| mm.futex_key(at, private).unwrap();
    assert_eq!(key(&mm, shared, false), key(&child, shared, false));
    assert_ne!(key(&mm, shared, true), key(&child, shared, true));
    assert_ne!(key(&mm, private, false), key(&child, private, false));
    assert_eq!(mm.futex_key(UserAddr(private.0 + 2), true), Err(Errno::EINVAL));
}

#[test]
fn protection_stops_at_the_first_hole() {
    let (space, mm) = new();
    let at = |n: u64| UserAddr(0x50_0000 + n * PAGE_SIZE);
    map(&mm, at(0).0, 8, Prot::RW, FIXED).unwrap();
    mm.unmap(at(5), PAGE_SIZE).unwrap();
    let read = libc::PROT_READ as u32;
    assert_eq!(mm.protect(&Limits::NONE, at(0), 8 * PAGE_SIZE, read, false), Err(Errno::ENOMEM));
    assert_eq!(space.prot_at(at(4)), Some(Prot::R));
    assert_eq!(space.prot_at(at(6)), Some(Prot::RW));
    assert_eq!(mm.protect(&Limits::NONE, at(5), PAGE_SIZE, read, false), Err(Errno::ENOMEM));
    assert_eq!(mm.protect(&Limits::NONE, at(0), PAGE_SIZE, 0x40, false), Err(Errno::EINVAL));
    mm.seal(at(0), PAGE_SIZE).unwrap();
    assert_eq!(mm.protect(&Limits::NONE, at(0), PAGE_SIZE, 0, false), Err(Errno::EPERM));
    assert_eq!(mm.unmap(at(0), 2 * PAGE_SIZE), Err(Errno::EPERM));
    assert_eq!(map(&mm, at(0).0, 1, Prot::RW, FIXED), Err(Errno::EPERM));
    assert_eq!(remap(&mm, at(0).0, 1, 2, libc::MREMAP_MAYMOVE, 0), Err(Errno::EPERM));
}

/// Random calls against a model that knows one protection a page.
#[test]
fn tree_platform_and_model_agree() {
    const PAGES: u64 = 64;
    const BASE: u64 = 0x100_0000;
    let (space, mm) = new();
    let mut model: Vec<Option<Prot>> = vec![None; PAGES as usize];
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut random = move |below: u64| {
        // xorshift: the same numbers on every run.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for _ in 0..4000 {
        let first = random(PAGES);
        let count = 1 + random(PAGES - first).min(12);
        let range = first as usize..(first + count).min(PAGES) as usize;
        let count = range.len() as u64;
        let addr = BASE + first * PAGE_SIZE;
        let (bits, prot) = [(0, Prot::NONE), (1, Prot::R), (3, Prot::RW), (5, Prot::RX)][random(4) as usize];
        match random(5) {
            0 => {
                map(&mm, addr, count, prot, FIXED).unwrap();
                model[range].fill(Some(prot));
            }
            1 => {
                mm.unmap(UserAddr(addr), count * PAGE_SIZE).unwrap();
                model[range].fill(None);
            }
            2 => {
                let hole = model[range.clone()].iter().position(Option::is_none);
                let done = hole.unwrap_or(range.len());
                let result = mm.protect(&Limits::NONE, UserAddr(addr), count * PAGE_SIZE, bits, false);
                assert_eq!(result.is_err(), hole.is_some());
                model[range.start..range.start + done].fill(Some(prot));
            }
            3 => {
                let to = random(PAGES - count + 1);
                let target = to as usize..(to + count) as usize;
                let apart = target.end <= range.start || range.end <= target.start;
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                let result = remap(&mm, addr, count, count, flags, BASE + to * PAGE_SIZE);
                let fine = apart && model[range.start].is_some();
                assert_eq!(result.is_ok(), fine, "{result:?}");
                if fine {
                    let moved = model[range.clone()].to_vec();
                    model[range].fill(None);
                    for (place, page) in model[target].iter_mut().zip(moved) {
                        // Where there was nothing to move, what was there stays.
                        *place = page.or(*place);
                    }
                }
            }
            _ => {
                let hole = model[range].iter().any(Option::is_none);
                let result = mm.advise(UserAddr(addr), count * PAGE_SIZE, libc::MADV_DONTNEED);
                assert_eq!(result.is_err(), hole);
            }
        }
        let inner = mm.read();
        for (i, expected) in model.iter().enumerate() {
            let at = UserAddr(BASE + i as u64 * PAGE_SIZE);
            assert_eq!(inner.tree.find(at).map(|v| v.prot), *expected);
            assert_eq!(space.prot_at(at), *expected);
        }
        let mapped = model.iter().flatten().count() as u64;
        assert_eq!(inner.tree.counters().total, mapped);
        assert_eq!(space.mapped_bytes(), mapped * PAGE_SIZE);
        // Neighbours that are alike are one.
        let runs = model.chunk_by(|a, b| a == b).filter(|r| r[0].is_some()).count();
        assert_eq!(inner.tree.len(), runs);
        assert!(inner.tree.iter().all(|v| UserRange::is_page_aligned(v.range)));
    }
}
