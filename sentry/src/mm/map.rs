//! Placing and making mappings: `mmap(2)`, `munmap(2)`, `brk(2)`.

use std::sync::{Arc, OnceLock};

use quicksand_abi::{Errno, PAGE_SIZE, UserAddr, UserRange};
use quicksand_platform::{Advice, Mapping, Prot};

use super::vma::{SharedMemory, VmFlags, Vma, VmaBacking};
use super::{Inner, Limits, MAX_MAP_COUNT, MMAP_MIN_ADDR, MemoryManager};
use crate::task::rlimit::INFINITY;
use crate::vfs::{HostMapping, OpenFile};

/// A file to be mapped, and what the VFS found about it. The file system prepared `host` before the mm was locked.
#[derive(Debug)]
pub struct FileTarget {
    pub file: Arc<OpenFile>,
    pub offset: u64,
    pub host: HostMapping,
    /// VM_MAYEXEC: not on a `noexec` mount. VM_MAYWRITE of shared mappings: opened for writing, not sealed.
    pub may_execute: bool,
    pub may_write: bool,
}

/// What to map.
#[derive(Debug)]
pub enum Target {
    Anonymous,
    SharedAnonymous(Arc<SharedMemory>),
    /// An error found while the file was looked at. It counts only when nothing else is wrong, as Linux looks at the
    /// file after the address.
    File(Result<FileTarget, Errno>),
}

/// A call of `mmap(2)`, decoded. `addr` is a hint unless MAP_FIXED or MAP_FIXED_NOREPLACE is among `flags`.
#[derive(Debug)]
pub struct MapRequest {
    pub addr: UserAddr,
    pub len: u64,
    pub prot: Prot,
    /// MAP_ bits as `mmap(2)` takes them.
    pub flags: u32,
    /// Flags of the VMA beyond what `flags` says.
    pub vm_flags: VmFlags,
    pub target: Target,
}

fn has(flags: u32, bit: i32) -> bool {
    flags & bit as u32 != 0
}

impl MemoryManager {
    /// Maps as `mmap(2)`. Returns where.
    pub fn map(&self, limits: &Limits, request: MapRequest) -> Result<UserAddr, Errno> {
        let mut inner = self.write();
        inner.map(limits, request)
    }

    /// Unmaps as `munmap(2)`.
    pub fn unmap(&self, addr: UserAddr, len: u64) -> Result<(), Errno> {
        let range = super::page_range(addr, len).filter(|r| !r.is_empty()).ok_or(Errno::EINVAL)?;
        let mut inner = self.write();
        if inner.tree.overlapping(range).any(|v| v.flags.contains(VmFlags::SEALED)) {
            return Err(Errno::EPERM);
        }
        if inner.tree.len() >= MAX_MAP_COUNT && inner.tree.splits_inside(range) {
            return Err(Errno::ENOMEM);
        }
        inner.unmap_range(range)
    }

    /// Moves the end of the heap; returns where it is then, which is where it was when it cannot be moved.
    pub fn set_brk(&self, limits: &Limits, brk: UserAddr) -> UserAddr {
        let mut inner = self.write();
        // `brk` has no errno: a refusal shows in the value.
        let _ = inner.set_brk(limits, brk);
        inner.marks.brk
    }
}

impl Inner {
    pub(crate) fn map(&mut self, limits: &Limits, request: MapRequest) -> Result<UserAddr, Errno> {
        let MapRequest { addr, len, prot, flags, mut vm_flags, target } = request;
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let len = UserAddr(len).page_ceil().filter(|l| l.0 != 0).ok_or(Errno::ENOMEM)?.0;
        if let Target::File(Ok(file)) = &target
            && file.offset.checked_add(len).is_none()
        {
            return Err(Errno::EOVERFLOW);
        }
        // Linux compares with `>`: one more than the limit may exist for a moment.
        if self.tree.len() > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let start = self.place(limits, addr, len, flags)?;
        let range = UserRange::new(start, len).ok_or(Errno::ENOMEM)?;
        vm_flags |= self.default_flags;
        if has(flags, libc::MAP_LOCKED) {
            if !limits.may_lock && limits.memlock == 0 {
                return Err(Errno::EPERM);
            }
            vm_flags |= VmFlags::LOCKED;
        }
        if vm_flags.contains(VmFlags::LOCKED) {
            self.may_lock(limits, len / PAGE_SIZE, Errno::EAGAIN)?;
        }
        if has(flags, libc::MAP_NORESERVE) {
            vm_flags |= VmFlags::NORESERVE;
        }
        if has(flags, libc::MAP_GROWSDOWN) {
            vm_flags |= VmFlags::GROWSDOWN;
        }
        let mut vma = Vma { flags: vm_flags, ..Vma::anonymous(range, prot) };
        match target {
            Target::Anonymous => {}
            Target::SharedAnonymous(memory) => {
                vma.flags |= VmFlags::SHARED;
                vma.backing = VmaBacking::SharedAnon { memory, offset: 0 };
            }
            Target::File(file) => {
                let file = file?;
                vma.max_prot.execute = file.may_execute;
                if flags & libc::MAP_TYPE as u32 != libc::MAP_PRIVATE as u32 {
                    vma.max_prot.write = file.may_write;
                    vma.flags |= VmFlags::SHARED;
                }
                vma.backing = VmaBacking::File {
                    file: file.file,
                    offset: file.offset,
                    host: file.host.fd,
                    host_offset: file.host.offset,
                    host_writable: file.host.writable && file.may_write,
                };
            }
        }
        let populate = vma.prot.any()
            && (vma.flags.contains(VmFlags::LOCKED) && !vma.flags.contains(VmFlags::LOCKONFAULT)
                || has(flags, libc::MAP_POPULATE) && !has(flags, libc::MAP_NONBLOCK));
        let write = vma.prot.write && !vma.is_shared();
        self.install(limits, vma)?;
        if populate {
            // As in Linux, what cannot be made resident (the end of a file, memory) is no error.
            let _ = self.space.advise(range, Advice::Populate { write });
        }
        Ok(start)
    }

    /// Where a mapping goes (`get_unmapped_area`). `len` is a multiple of the page size, not zero.
    pub(crate) fn place(
        &mut self,
        limits: &Limits,
        addr: UserAddr,
        len: u64,
        flags: u32,
    ) -> Result<UserAddr, Errno> {
        let map_end = UserAddr::MAP_END;
        if len > map_end.0 {
            return Err(Errno::ENOMEM);
        }
        let fixed = has(flags, libc::MAP_FIXED) || has(flags, libc::MAP_FIXED_NOREPLACE);
        let start = if fixed { addr } else { self.find_place(addr, len, flags)? };
        if start.0 > map_end.0 - len {
            return Err(Errno::ENOMEM);
        }
        if !start.is_page_aligned() {
            return Err(Errno::EINVAL);
        }
        if start.0 < MMAP_MIN_ADDR && !limits.raw_io {
            return Err(Errno::EPERM);
        }
        let range = UserRange { start, end: UserAddr(start.0 + len) };
        if has(flags, libc::MAP_FIXED_NOREPLACE) && self.tree.overlaps(range) {
            return Err(Errno::EEXIST);
        }
        Ok(start)
    }

    fn find_place(&mut self, hint: UserAddr, len: u64, flags: u32) -> Result<UserAddr, Errno> {
        let lowest = UserAddr(MMAP_MIN_ADDR);
        if has(flags, libc::MAP_32BIT) {
            let end = UserAddr(0x8000_0000);
            return self.tree.gap_bottom_up(len, self.layout.low_base, end).ok_or(Errno::ENOMEM);
        }
        let hint = hint.page_floor();
        if !hint.is_null() {
            let hint = hint.max(lowest);
            if let Some(range) = UserRange::new(hint, len)
                && range.end <= UserAddr::MAP_END
                && !self.tree.overlaps(range)
                && self.tree.find_from(range.end).is_none_or(|v| range.end <= v.start_with_gap())
            {
                return Ok(hint);
            }
        }
        let base = self.layout.mmap_base;
        let found = if self.layout.top_down { self.tree.gap_top_down(len, lowest, base) } else { None };
        // Where nothing is free below the base, look above it (and that is all there is to it when bottom-up).
        let from = if self.layout.top_down { UserAddr(UserAddr::TASK_SIZE.0 / 3).page_floor() } else { base };
        found.or_else(|| self.tree.gap_bottom_up(len, from, UserAddr::MAP_END)).ok_or(Errno::ENOMEM)
    }

    /// Puts a VMA where it belongs, replacing what is there (`mmap_region`).
    pub(crate) fn install(&mut self, limits: &Limits, vma: Vma) -> Result<(), Errno> {
        let range = vma.range;
        let replaced: u64 = self.tree.pages_in(range);
        self.may_expand(&vma, replaced, limits)?;
        if replaced != 0 {
            if self.tree.overlapping(range).any(|v| v.flags.contains(VmFlags::SEALED)) {
                return Err(Errno::EPERM);
            }
            if self.tree.len() >= MAX_MAP_COUNT && self.tree.splits_inside(range) {
                return Err(Errno::ENOMEM);
            }
        }
        let mapped = self.space.map(range, vma.prot, vma.platform_backing(range));
        let old = self.tree.remove(range);
        self.dead.extend(old);
        if let Err(error) = mapped {
            self.space.unmap(range)?;
            self.dead.push(vma);
            return Err(error);
        }
        self.tree.insert(vma);
        self.peak_total = self.peak_total.max(self.tree.counters().total);
        Ok(())
    }

    /// Makes `mappings` in an address space that holds nothing yet; `vmas` are what they are of. Those are
    /// [`adopt`](Inner::adopt)ed next.
    pub(crate) fn map_fresh(&mut self, vmas: &[Vma], mappings: &[Mapping<'_>]) -> Result<(), Errno> {
        if !self.tree.is_empty() || vmas.len() > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        vmas.iter().try_for_each(|vma| self.may_expand(vma, 0, &Limits::NONE))?;
        self.space.map_all(mappings)
    }

    /// Puts VMAs there whose mappings have been made.
    pub(crate) fn adopt(&mut self, vmas: Vec<Vma>) {
        vmas.into_iter().for_each(|vma| self.tree.insert(vma));
        self.peak_total = self.peak_total.max(self.tree.counters().total);
    }

    /// Removes everything in a range.
    pub(crate) fn unmap_range(&mut self, range: UserRange) -> Result<(), Errno> {
        let old = self.tree.remove(range);
        if old.is_empty() {
            return Ok(());
        }
        self.dead.extend(old);
        self.space.unmap(range)
    }

    /// Keeps a VMA until the lock is free.
    pub(crate) fn bury(&mut self, vmas: impl IntoIterator<Item = Vma>) {
        self.dead.extend(vmas);
    }

    /// Whether `vma` fits within the limits (`may_expand_vm`) and memory (`__vm_enough_memory` in its heuristic mode: no
    /// single mapping may be larger than all there is). `replaced` pages go away for it.
    pub(crate) fn may_expand(&self, vma: &Vma, replaced: u64, limits: &Limits) -> Result<(), Errno> {
        let counters = self.tree.counters();
        let fits = |used: u64, limit: u64| {
            limit == INFINITY
                || used.saturating_sub(replaced).saturating_add(vma.pages()) <= limit / PAGE_SIZE
        };
        if !fits(counters.total, limits.address_space) {
            return Err(Errno::ENOMEM);
        }
        if vma.is_data() && !fits(counters.data, limits.data) {
            return Err(Errno::ENOMEM);
        }
        let accountable = vma.prot.write && !vma.flags.intersects(VmFlags::SHARED | VmFlags::NORESERVE);
        if accountable && vma.pages() > host_pages() {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// Whether `pages` more may be locked; `error` is what the calling call answers where not.
    pub(crate) fn may_lock(&self, limits: &Limits, pages: u64, error: Errno) -> Result<(), Errno> {
        let locked = self.tree.counters().locked.saturating_add(pages);
        if limits.may_lock || limits.memlock == INFINITY || locked <= limits.memlock / PAGE_SIZE {
            Ok(())
        } else {
            Err(error)
        }
    }

    fn set_brk(&mut self, limits: &Limits, brk: UserAddr) -> Result<(), Errno> {
        let marks = &self.marks;
        if brk < marks.start_brk || brk > UserAddr::MAP_END {
            return Err(Errno::EINVAL);
        }
        let data = marks.end_data.0.saturating_sub(marks.start_data.0);
        if limits.data != INFINITY && (brk.0 - marks.start_brk.0).saturating_add(data) > limits.data {
            return Err(Errno::ENOMEM);
        }
        let new_end = brk.page_ceil().ok_or(Errno::ENOMEM)?;
        let old_end = marks.brk.page_ceil().ok_or(Errno::ENOMEM)?;
        if new_end < old_end {
            let range = UserRange { start: new_end, end: old_end };
            if self.tree.overlapping(range).any(|v| v.flags.contains(VmFlags::SEALED)) {
                return Err(Errno::EPERM);
            }
            self.unmap_range(range)?;
        } else if new_end > old_end {
            // One page must stay free above it.
            let next = self.tree.find_from(old_end);
            if next.is_some_and(|v| new_end.0.saturating_add(PAGE_SIZE) > v.start_with_gap().0) {
                return Err(Errno::ENOMEM);
            }
            let range = UserRange { start: old_end, end: new_end };
            let mut vma = Vma::anonymous(range, Prot::RW);
            vma.flags |= self.default_flags;
            if vma.flags.contains(VmFlags::LOCKED) {
                self.may_lock(limits, vma.pages(), Errno::EAGAIN)?;
            }
            if self.tree.len() > MAX_MAP_COUNT {
                return Err(Errno::ENOMEM);
            }
            let populate = vma.flags.contains(VmFlags::LOCKED) && !vma.flags.contains(VmFlags::LOCKONFAULT);
            self.install(limits, vma)?;
            if populate {
                let _ = self.space.advise(range, Advice::Populate { write: true });
            }
        }
        self.marks.brk = brk;
        Ok(())
    }
}

/// Pages of memory and swap that the host has.
pub(crate) fn host_pages() -> u64 {
    static PAGES: OnceLock<u64> = OnceLock::new();
    *PAGES.get_or_init(|| {
        let info = rustix::system::sysinfo();
        let bytes = info.totalram.saturating_add(info.totalswap).saturating_mul(u64::from(info.mem_unit));
        bytes / PAGE_SIZE
    })
}
