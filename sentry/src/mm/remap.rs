//! Moving and resizing mappings: `mremap(2)`.

use quicksand_abi::{Errno, PAGE_SIZE, UserAddr, UserRange};
use quicksand_platform::Advice;

use super::vma::{VmFlags, Vma, VmaBacking};
use super::{Inner, Limits, MAX_MAP_COUNT, MemoryManager};

/// `mremap(2)`'s arguments, as the guest gave them.
#[derive(Clone, Copy, Debug)]
pub struct RemapRequest {
    pub addr: UserAddr,
    pub old_len: u64,
    pub new_len: u64,
    /// MREMAP_ bits.
    pub flags: u32,
    /// Where to, with MREMAP_FIXED; a hint with MREMAP_DONTUNMAP.
    pub new_addr: UserAddr,
}

const MAYMOVE: u32 = libc::MREMAP_MAYMOVE as u32;
const FIXED: u32 = libc::MREMAP_FIXED as u32;
const DONTUNMAP: u32 = libc::MREMAP_DONTUNMAP as u32;

impl MemoryManager {
    /// `mremap(2)`. Returns where the mapping is now.
    pub fn remap(&self, limits: &Limits, request: RemapRequest) -> Result<UserAddr, Errno> {
        let RemapRequest { addr, flags, new_addr, .. } = request;
        if flags & !(MAYMOVE | FIXED | DONTUNMAP) != 0 || !addr.is_page_aligned() {
            return Err(Errno::EINVAL);
        }
        // Lengths that wrap around to zero count as zero.
        let old_len = UserAddr(request.old_len).page_ceil().unwrap_or_default().0;
        let new_len = UserAddr(request.new_len).page_ceil().unwrap_or_default().0;
        if new_len == 0 || new_len > UserAddr::TASK_SIZE.0 {
            return Err(Errno::EINVAL);
        }
        let moves = flags & (FIXED | DONTUNMAP) != 0;
        if moves {
            if new_addr.0 > UserAddr::TASK_SIZE.0 - new_len
                || !new_addr.is_page_aligned()
                || flags & MAYMOVE == 0
                || flags & DONTUNMAP != 0 && old_len != new_len
            {
                return Err(Errno::EINVAL);
            }
            let old = UserRange::new(addr, old_len);
            let new = UserRange { start: new_addr, end: UserAddr(new_addr.0 + new_len) };
            if flags & FIXED != 0 && old.is_none_or(|old| old.overlaps(new)) {
                return Err(Errno::EINVAL);
            }
        }
        let mut inner = self.write();
        if moves && inner.tree.len() + 2 >= MAX_MAP_COUNT - 3 {
            return Err(Errno::ENOMEM);
        }
        let vma = inner.tree.find(addr).ok_or(Errno::EFAULT)?.clone();
        if vma.flags.contains(VmFlags::SEALED) {
            return Err(Errno::EPERM);
        }
        if old_len == 0 && !vma.is_shared() {
            // Linux once copied private mappings that way, by accident.
            return Err(Errno::EINVAL);
        }
        if flags & DONTUNMAP != 0 && vma.flags.contains(VmFlags::SPECIAL) {
            return Err(Errno::EINVAL);
        }
        let old =
            UserRange::new(addr, old_len).filter(|r| r.end <= UserAddr::TASK_SIZE).ok_or(Errno::EFAULT)?;
        if !moves && new_len <= old_len {
            let tail = UserRange { start: UserAddr(addr.0 + new_len), end: old.end };
            inner.unmap_range(tail)?;
            return Ok(addr);
        }
        // Several mappings can be moved at once, as they are; what is cut off first does not count.
        let several = old.end.min(UserAddr(addr.0.saturating_add(new_len))) > vma.end();
        if several && (flags & DONTUNMAP != 0 || old_len != new_len)
            || new_len > old_len && old.end > vma.end()
        {
            return Err(Errno::EFAULT);
        }
        if several {
            return inner.remap_several(limits, old, new_addr);
        }
        if new_len > old_len {
            inner.may_grow_mapping(limits, &vma, addr, old_len, new_len)?;
        }
        if moves {
            return inner.remap_to(limits, old, new_len, flags, new_addr);
        }
        if old.end == vma.end() && old_len != 0 {
            let tail = UserRange { start: old.end, end: UserAddr(addr.0.saturating_add(new_len)) };
            if tail.end <= UserAddr::MAP_END && !inner.tree.overlaps(tail) {
                inner.extend_mapping(limits, &vma, tail)?;
                return Ok(addr);
            }
        }
        if flags & MAYMOVE == 0 {
            return Err(Errno::ENOMEM);
        }
        let target = inner.place(limits, UserAddr::NULL, new_len, 0)?;
        inner.move_mapping(limits, old, target, new_len, false)?;
        Ok(target)
    }
}

impl Inner {
    fn may_grow_mapping(
        &self,
        limits: &Limits,
        vma: &Vma,
        addr: UserAddr,
        old_len: u64,
        new_len: u64,
    ) -> Result<(), Errno> {
        if let VmaBacking::File { offset, .. } | VmaBacking::SharedAnon { offset, .. } = &vma.backing {
            let from = offset + (addr.0 - vma.start().0);
            from.checked_add(new_len).ok_or(Errno::EINVAL)?;
        }
        if vma.flags.contains(VmFlags::SPECIAL) {
            return Err(Errno::EFAULT);
        }
        let pages = (new_len - old_len) / PAGE_SIZE;
        if vma.flags.contains(VmFlags::LOCKED) {
            self.may_lock(limits, pages, Errno::EAGAIN)?;
        }
        let mut growth = vma.clone();
        growth.range = UserRange { start: UserAddr(0), end: UserAddr(new_len - old_len) };
        self.may_expand(&growth, 0, limits)
    }

    /// Moves every mapping in `old` to the same place from `new_addr` on. What lies where `old` has holes stays.
    fn remap_several(
        &mut self,
        limits: &Limits,
        old: UserRange,
        new_addr: UserAddr,
    ) -> Result<UserAddr, Errno> {
        let pieces: Vec<UserRange> =
            self.tree.overlapping(old).filter_map(|v| v.range.intersect(old)).collect();
        for piece in pieces {
            let target = UserAddr(new_addr.0 + (piece.start.0 - old.start.0));
            if self.tree.overlapping(piece).any(|v| v.flags.contains(VmFlags::SEALED)) {
                return Err(Errno::EPERM);
            }
            self.remap_to(limits, piece, piece.len(), FIXED, target)?;
        }
        Ok(new_addr)
    }

    /// MREMAP_FIXED and MREMAP_DONTUNMAP.
    fn remap_to(
        &mut self,
        limits: &Limits,
        old: UserRange,
        new_len: u64,
        flags: u32,
        new_addr: UserAddr,
    ) -> Result<UserAddr, Errno> {
        let map_flags = if flags & FIXED != 0 { libc::MAP_FIXED as u32 } else { 0 };
        let target = self.place(limits, new_addr, new_len, map_flags)?;
        if flags & FIXED != 0 {
            let range = UserRange { start: target, end: UserAddr(target.0 + new_len) };
            if self.tree.overlapping(range).any(|v| v.flags.contains(VmFlags::SEALED)) {
                return Err(Errno::EPERM);
            }
            self.unmap_range(range)?;
        }
        let mut old = old;
        if old.len() > new_len {
            let tail = UserRange { start: UserAddr(old.start.0 + new_len), end: old.end };
            self.unmap_range(tail)?;
            old.end = tail.start;
        }
        self.move_mapping(limits, old, target, new_len, flags & DONTUNMAP != 0)?;
        Ok(target)
    }

    /// Moves what is in `old` to `target`, and makes it `new_len` long. `old.len()` zero copies a shared mapping instead;
    /// with `keep`, empty mappings of the same kind stay behind.
    fn move_mapping(
        &mut self,
        limits: &Limits,
        old: UserRange,
        target: UserAddr,
        new_len: u64,
        keep: bool,
    ) -> Result<(), Errno> {
        if self.tree.len() >= MAX_MAP_COUNT - 3 {
            return Err(Errno::ENOMEM);
        }
        let new = UserRange { start: target, end: UserAddr(target.0 + new_len) };
        if old.is_empty() {
            let vma = self.tree.find(old.start).ok_or(Errno::EFAULT)?;
            let mut copy = vma.clone();
            copy.backing = vma.backing.advanced(old.start.0 - vma.start().0);
            copy.range = new;
            return self.install(limits, copy);
        }
        if keep {
            let pieces: Vec<Vma> = self.tree.overlapping(old).cloned().collect();
            for piece in &pieces {
                self.may_expand(piece, 0, limits)?;
            }
            self.bury(pieces);
        }
        self.space.relocate(old, target)?;
        let pieces = self.tree.remove(old);
        let mut last = None;
        for mut piece in pieces {
            if keep {
                let mut left = piece.clone();
                left.flags.remove(VmFlags::LOCKED | VmFlags::LOCKONFAULT);
                self.space.map(left.range, left.prot, left.platform_backing(left.range))?;
                self.tree.insert(left);
            }
            let shift = |at: UserAddr| UserAddr(at.0 - old.start.0 + target.0);
            piece.range = UserRange { start: shift(piece.start()), end: shift(piece.end()) };
            last = Some(piece.clone());
            self.tree.insert(piece);
        }
        let tail = UserRange { start: UserAddr(target.0 + old.len()), end: new.end };
        if let Some(last) = last {
            if !tail.is_empty() {
                self.extend_mapping(limits, &last, tail)?;
            }
            self.bury([last]);
        }
        self.peak_total = self.peak_total.max(self.tree.counters().total);
        Ok(())
    }

    /// Lets `vma` go on over `tail`, which begins where it ends.
    fn extend_mapping(&mut self, limits: &Limits, vma: &Vma, tail: UserRange) -> Result<(), Errno> {
        let mut more = vma.clone();
        more.backing = vma.backing.advanced(vma.range.len());
        more.range = tail;
        let locked = vma.flags.contains(VmFlags::LOCKED) && !vma.flags.contains(VmFlags::LOCKONFAULT);
        self.install(limits, more)?;
        if locked {
            let _ = self.space.advise(tail, Advice::Populate { write: vma.prot.write && !vma.is_shared() });
        }
        Ok(())
    }
}
