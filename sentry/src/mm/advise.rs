//! Advice about mappings: `madvise(2)`.

use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr, UserRange};
use quicksand_platform::Advice;

use super::vma::{VmFlags, Vma, VmaBacking};
use super::{Inner, MemoryManager};
use crate::vfs::OpenFile;

const MADV_DONTNEED_LOCKED: i32 = 24;
pub(super) const MADV_COLLAPSE: i32 = 25;
const FALLOC_PUNCH_HOLE: u32 = libc::FALLOC_FL_PUNCH_HOLE as u32 | libc::FALLOC_FL_KEEP_SIZE as u32;

/// A hole to be made in a file, once the lock is free.
#[derive(Debug)]
struct Punch {
    file: Arc<OpenFile>,
    offset: u64,
    len: u64,
}

impl MemoryManager {
    /// `madvise(2)`. Holes are skipped, and reported at the end as ENOMEM.
    pub fn advise(&self, addr: UserAddr, len: u64, advice: i32) -> Result<(), Errno> {
        if !is_known(advice) || !addr.is_page_aligned() {
            return Err(Errno::EINVAL);
        }
        let len = UserAddr(len).page_ceil().ok_or(Errno::EINVAL)?;
        let range = UserRange::new(addr, len.0).ok_or(Errno::EINVAL)?;
        if range.is_empty() {
            return Ok(());
        }
        if advice == libc::MADV_POPULATE_READ || advice == libc::MADV_POPULATE_WRITE {
            return self.write().populate(range, advice == libc::MADV_POPULATE_WRITE);
        }
        let mut punches = Vec::new();
        let result = self.write().advise(range, advice, &mut punches);
        for punch in punches {
            punch.file.ops.fallocate(&punch.file, FALLOC_PUNCH_HOLE, punch.offset, punch.len)?;
        }
        result
    }
}

fn is_known(advice: i32) -> bool {
    matches!(
        advice,
        libc::MADV_NORMAL
            | libc::MADV_RANDOM
            | libc::MADV_SEQUENTIAL
            | libc::MADV_WILLNEED
            | libc::MADV_DONTNEED
            | libc::MADV_FREE
            | libc::MADV_REMOVE
            | libc::MADV_DONTFORK
            | libc::MADV_DOFORK
            | libc::MADV_MERGEABLE
            | libc::MADV_UNMERGEABLE
            | libc::MADV_HUGEPAGE
            | libc::MADV_NOHUGEPAGE
            | libc::MADV_DONTDUMP
            | libc::MADV_DODUMP
            | libc::MADV_WIPEONFORK
            | libc::MADV_KEEPONFORK
            | libc::MADV_COLD
            | libc::MADV_PAGEOUT
            | libc::MADV_POPULATE_READ
            | libc::MADV_POPULATE_WRITE
            | MADV_DONTNEED_LOCKED
            | MADV_COLLAPSE
    )
}

/// Whether an advice loses contents, which `mseal(2)` forbids for what cannot be written.
fn discards(advice: i32) -> bool {
    matches!(
        advice,
        libc::MADV_FREE
            | libc::MADV_DONTNEED
            | MADV_DONTNEED_LOCKED
            | libc::MADV_REMOVE
            | libc::MADV_DONTFORK
            | libc::MADV_WIPEONFORK
    )
}

impl Inner {
    fn advise(&mut self, range: UserRange, advice: i32, punches: &mut Vec<Punch>) -> Result<(), Errno> {
        let mut at = range.start;
        let mut hole = false;
        loop {
            let Some(vma) = self.tree.find_from(at).filter(|v| v.start() < range.end) else {
                // Nothing up to the range's end.
                hole |= at < range.end;
                break;
            };
            hole |= vma.start() > at;
            let part = UserRange { start: vma.start().max(at), end: vma.end().min(range.end) };
            at = part.end;
            self.advise_part(part, advice, punches)?;
            if at >= range.end {
                break;
            }
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Private pages go back to what the VMA says. `part` lies within one.
    fn drop_contents(&self, part: UserRange, advice: Advice) -> Result<(), Errno> {
        match self.tree.find(part.start) {
            // The platform knows pages of an image where the VMA knows none.
            Some(vma) if self.layered && !vma.is_shared() => {
                self.space.map(part, vma.prot, vma.platform_backing(part))
            }
            _ => self.space.advise(part, advice),
        }
    }

    /// `part` lies within one VMA.
    fn advise_part(&mut self, part: UserRange, advice: i32, punches: &mut Vec<Punch>) -> Result<(), Errno> {
        let vma = self.tree.find(part.start).ok_or(Errno::ENOMEM)?;
        let special = vma.flags.contains(VmFlags::SPECIAL);
        let locked = vma.flags.contains(VmFlags::LOCKED);
        let sealed = vma.flags.contains(VmFlags::SEALED) && vma.is_anonymous() && !vma.prot.write;
        if sealed && discards(advice) {
            return Err(Errno::EPERM);
        }
        let (add, remove) = match advice {
            libc::MADV_NORMAL => (VmFlags::empty(), VmFlags::SEQ_READ | VmFlags::RAND_READ),
            libc::MADV_SEQUENTIAL => (VmFlags::SEQ_READ, VmFlags::RAND_READ),
            libc::MADV_RANDOM => (VmFlags::RAND_READ, VmFlags::SEQ_READ),
            libc::MADV_DONTFORK => (VmFlags::DONTFORK, VmFlags::empty()),
            libc::MADV_DOFORK if special => return Err(Errno::EINVAL),
            libc::MADV_DOFORK => (VmFlags::empty(), VmFlags::DONTFORK),
            libc::MADV_WIPEONFORK if !vma.is_anonymous() => return Err(Errno::EINVAL),
            libc::MADV_WIPEONFORK => (VmFlags::WIPEONFORK, VmFlags::empty()),
            libc::MADV_KEEPONFORK => (VmFlags::empty(), VmFlags::WIPEONFORK),
            libc::MADV_DONTDUMP => (VmFlags::DONTDUMP, VmFlags::empty()),
            libc::MADV_DODUMP if special => return Err(Errno::EINVAL),
            libc::MADV_DODUMP => (VmFlags::empty(), VmFlags::DONTDUMP),
            libc::MADV_HUGEPAGE => (VmFlags::HUGEPAGE, VmFlags::NOHUGEPAGE),
            libc::MADV_NOHUGEPAGE => (VmFlags::NOHUGEPAGE, VmFlags::HUGEPAGE),
            libc::MADV_DONTNEED | MADV_DONTNEED_LOCKED => {
                if special || locked && advice == libc::MADV_DONTNEED {
                    return Err(Errno::EINVAL);
                }
                return self.drop_contents(part, Advice::DontNeed);
            }
            libc::MADV_FREE => {
                if special || locked || !vma.is_anonymous() {
                    return Err(Errno::EINVAL);
                }
                return self.drop_contents(part, Advice::Free);
            }
            libc::MADV_COLD | libc::MADV_PAGEOUT => {
                // Hints about reclaim, which is the host's own business.
                return if special || locked { Err(Errno::EINVAL) } else { Ok(()) };
            }
            // A private mapping has huge pages or not as the host sees fit: never on demand.
            MADV_COLLAPSE => return Err(Errno::EINVAL),
            libc::MADV_REMOVE => {
                punches.extend(remove_of(vma, part)?);
                return Ok(());
            }
            // MADV_WILLNEED, and merging of equal pages, which Linux also promises to nobody.
            _ => return Ok(()),
        };
        let change = |v: &Vma| (v.flags - remove) | add;
        if change(vma) != vma.flags {
            self.tree.update(part, |v| v.flags = change(v));
        }
        Ok(())
    }

    fn populate(&mut self, range: UserRange, write: bool) -> Result<(), Errno> {
        let mut at = range.start;
        while at < range.end {
            let vma = self.tree.find(at).ok_or(Errno::ENOMEM)?;
            // By the letter of the protection, whatever the processor would allow.
            let allowed = if write { vma.prot.write } else { vma.prot.read };
            if vma.flags.contains(VmFlags::SPECIAL) || !allowed {
                return Err(Errno::EINVAL);
            }
            let part = UserRange { start: at, end: vma.end().min(range.end) };
            let copies = write && !vma.is_shared();
            at = part.end;
            self.space.advise(part, Advice::Populate { write: copies })?;
        }
        Ok(())
    }
}

/// MADV_REMOVE of a part of a VMA: anonymous shared memory at once, a file's hole by the file.
fn remove_of(vma: &Vma, part: UserRange) -> Result<Option<Punch>, Errno> {
    if vma.flags.contains(VmFlags::LOCKED) || vma.is_anonymous() {
        return Err(Errno::EINVAL);
    }
    if !vma.is_shared() || !vma.max_prot.write {
        return Err(Errno::EACCES);
    }
    let by = part.start.0 - vma.start().0;
    match &vma.backing {
        VmaBacking::Anon | VmaBacking::Special { .. } => Err(Errno::EINVAL),
        VmaBacking::File { file, offset, .. } => {
            Ok(Some(Punch { file: file.clone(), offset: offset + by, len: part.len() }))
        }
        VmaBacking::SharedAnon { memory, offset } => {
            use rustix::fs::FallocateFlags;
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&*memory.fd, flags, offset + by, part.len())
                .map_err(super::syscalls::host_error)?;
            Ok(None)
        }
    }
}
