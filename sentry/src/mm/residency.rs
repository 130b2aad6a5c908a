//! What is in memory, and what must stay there: `mincore(2)`, `msync(2)`, `mlock(2)` and its family.
//!
//! Locking is kept as Linux's books (limits, `VmLck`, what `madvise` refuses); the pages are made resident, but not
//! pinned in the host: a sandbox has no right to that.

use std::sync::Arc;

use quicksand_abi::{Errno, PAGE_SIZE, UserAddr, UserRange};
use quicksand_platform::Advice;

use super::vma::{VmFlags, VmaBacking};
use super::{Inner, Limits, MemoryManager};
use crate::vfs::OpenFile;

impl MemoryManager {
    /// `msync(2)`.
    pub fn sync(&self, addr: UserAddr, len: u64, flags: i32) -> Result<(), Errno> {
        if flags & !(libc::MS_ASYNC | libc::MS_INVALIDATE | libc::MS_SYNC) != 0
            || !addr.is_page_aligned()
            || flags & libc::MS_ASYNC != 0 && flags & libc::MS_SYNC != 0
        {
            return Err(Errno::EINVAL);
        }
        let range =
            UserAddr(len).page_ceil().and_then(|len| UserRange::new(addr, len.0)).ok_or(Errno::ENOMEM)?;
        if range.is_empty() {
            return Ok(());
        }
        let mut files: Vec<Arc<OpenFile>> = Vec::new();
        let result = self.read().sync(range, flags, &mut files);
        // The file system is called without the lock.
        for file in files {
            file.ops.sync(&file, true)?;
        }
        result
    }

    /// Whether each page of a range is resident (`mincore(2)`). ENOMEM where one is not mapped.
    pub fn resident(&self, range: UserRange, out: &mut [bool]) -> Result<(), Errno> {
        if !self.read().tree.covers(range) {
            return Err(Errno::ENOMEM);
        }
        self.space.resident(range, out);
        Ok(())
    }

    /// `mlock(2)`, and `mlock2(2)` with `on_fault`.
    pub fn lock_range(&self, limits: &Limits, addr: UserAddr, len: u64, on_fault: bool) -> Result<(), Errno> {
        if !limits.may_lock && limits.memlock == 0 {
            return Err(Errno::EPERM);
        }
        let range = lock_range_of(addr, len)?;
        let mut inner = self.write();
        let already: u64 = inner
            .tree
            .overlapping(range)
            .filter(|v| v.flags.contains(VmFlags::LOCKED))
            .filter_map(|v| v.range.intersect(range))
            .map(|r| r.len() / PAGE_SIZE)
            .sum();
        inner.may_lock(limits, (range.len() / PAGE_SIZE).saturating_sub(already), Errno::ENOMEM)?;
        let flags = if on_fault { VmFlags::LOCKED | VmFlags::LOCKONFAULT } else { VmFlags::LOCKED };
        inner.set_locked(range, flags)?;
        if !on_fault { inner.populate_locked(range) } else { Ok(()) }
    }

    /// `munlock(2)`.
    pub fn unlock_range(&self, addr: UserAddr, len: u64) -> Result<(), Errno> {
        let range = lock_range_of(addr, len)?;
        self.write().set_locked(range, VmFlags::empty())
    }

    /// `mlockall(2)`.
    pub fn lock_all(&self, limits: &Limits, flags: i32) -> Result<(), Errno> {
        const ALL: i32 = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
        if flags == 0 || flags & !ALL != 0 || flags == libc::MCL_ONFAULT {
            return Err(Errno::EINVAL);
        }
        if !limits.may_lock && limits.memlock == 0 {
            return Err(Errno::EPERM);
        }
        let mut inner = self.write();
        let current = flags & libc::MCL_CURRENT != 0;
        if current && !limits.may_lock && inner.tree.counters().total > limits.memlock / PAGE_SIZE {
            return Err(Errno::ENOMEM);
        }
        let mut lock = VmFlags::LOCKED;
        lock.set(VmFlags::LOCKONFAULT, flags & libc::MCL_ONFAULT != 0);
        inner.default_flags = if flags & libc::MCL_FUTURE != 0 { lock } else { VmFlags::empty() };
        if current {
            inner.lock_everything(lock);
        }
        Ok(())
    }

    /// `munlockall(2)`.
    pub fn unlock_all(&self) {
        let mut inner = self.write();
        inner.default_flags = VmFlags::empty();
        inner.lock_everything(VmFlags::empty());
    }
}

/// The pages that hold `len` bytes from `addr`.
fn lock_range_of(addr: UserAddr, len: u64) -> Result<UserRange, Errno> {
    let start = addr.page_floor();
    // As Linux's arithmetic: a length that wraps around is a short one.
    let len = len.wrapping_add(addr.0 - start.0).wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
    UserRange::new(start, len).ok_or(Errno::EINVAL)
}

const LOCK_FLAGS: VmFlags = VmFlags::LOCKED.union(VmFlags::LOCKONFAULT);

impl Inner {
    fn sync(&self, range: UserRange, flags: i32, files: &mut Vec<Arc<OpenFile>>) -> Result<(), Errno> {
        let mut at = range.start;
        let mut hole = false;
        while at < range.end {
            let Some(vma) = self.tree.find_from(at).filter(|v| v.start() < range.end) else {
                return Err(Errno::ENOMEM);
            };
            if vma.start() > at {
                if flags == libc::MS_ASYNC {
                    return Err(Errno::ENOMEM);
                }
                hole = true;
            }
            if flags & libc::MS_INVALIDATE != 0 && vma.flags.contains(VmFlags::LOCKED) {
                return Err(Errno::EBUSY);
            }
            if flags & libc::MS_SYNC != 0
                && vma.is_shared()
                && let VmaBacking::File { file, .. } = &vma.backing
                && !files.iter().any(|f| Arc::ptr_eq(f, file))
            {
                files.push(file.clone());
            }
            at = vma.end();
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Sets the locks of a range, up to the first hole.
    fn set_locked(&mut self, range: UserRange, flags: VmFlags) -> Result<(), Errno> {
        let mut at = range.start;
        while at < range.end {
            let Some(vma) = self.tree.find(at) else { return Err(Errno::ENOMEM) };
            let part = UserRange { start: at, end: vma.end().min(range.end) };
            let changes = vma.flags & LOCK_FLAGS != flags && !vma.flags.contains(VmFlags::SPECIAL);
            at = part.end;
            if changes {
                self.tree.update(part, |v| v.flags = (v.flags - LOCK_FLAGS) | flags);
            }
        }
        Ok(())
    }

    fn lock_everything(&mut self, flags: VmFlags) {
        let ranges: Vec<UserRange> =
            self.tree.iter().filter(|v| !v.flags.contains(VmFlags::SPECIAL)).map(|v| v.range).collect();
        for range in ranges {
            self.tree.update(range, |v| v.flags = (v.flags - LOCK_FLAGS) | flags);
            if flags == VmFlags::LOCKED {
                // What cannot be made resident is no error here.
                let _ = self.populate_locked(range);
            }
        }
    }

    fn populate_locked(&self, range: UserRange) -> Result<(), Errno> {
        for vma in self.tree.overlapping(range) {
            if !vma.prot.any() {
                return Err(Errno::ENOMEM);
            }
            if let Some(part) = vma.range.intersect(range) {
                let write = vma.prot.write && !vma.is_shared();
                self.space.advise(part, Advice::Populate { write })?;
            }
        }
        Ok(())
    }
}
