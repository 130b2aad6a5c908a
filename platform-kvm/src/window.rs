//! The window: guest-physical memory as one reservation of the Sentry's own address space.
//!
//! A guest-physical address (GPA) is an offset in the window, so the Sentry reaches any guest page directly, and the
//! host kernel does demand paging behind it. The window is backed in steps: each step is a KVM memory slot over
//! anonymous private host memory, mapped at once, so that however many guest mappings there are, the host sees one
//! VMA. Only guest mappings of files need host mappings of their own, and their frames become anonymous again when freed.
//!
//! Invariants:
//! - A frame handed out by [`Window::alloc`] is anonymous, zero, and named by no page table.
//! - A frame that guest code lost is returned only after its host pages were dropped (`MADV_DONTNEED` or a new mapping):
//!   KVM hears of that through the MMU notifier and drops every translation to it, in shadow tables as in EPT/NPT, and
//!   flushes the guest's TLBs. So nobody can hold a stale translation to a frame that is handed out again.
//! - What the host may see as read-only for an instant ([`Window::revoke`]) is so under `revoking` only: an access
//!   that failed is final when it failed with that lock held.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use quicksand_platform::PlatformError;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

use crate::sys::{VcpuFd, VmFd};
use crate::{NAME, host_error};

pub(crate) const PAGE: u64 = 4096;

/// The first slot, and the least by which memory grows. A slot costs 1 us a MiB, but adding any also makes KVM wait for
/// all its readers (`synchronize_srcu`), which on a busy host takes milliseconds: so few slots, each as large as all
/// before it.
const SLOT_STEP: u64 = 64 << 20;
const MAX_SLOT_STEP: u64 = 1 << 30;
/// Just below the range under 1 TiB that HyperTransport keeps for itself on older AMD processors.
const MAX_WINDOW: u64 = 960 << 30;
const MIN_WINDOW: u64 = 1 << 30;
/// Freed page tables wait for a full flush of KVM's shadow tables; this many at most.
const MAX_RETIRED_TABLES: usize = 4096;
/// Beyond so many ranges or pages, everything is flushed instead of revoking each. A flush takes 35 us on an idle host,
/// where revoking takes 11 us a range and 0.13 us a page; but on a busy one it waits for milliseconds, and all other
/// pages of the VM have to be found again.
const REVOKE_MAX_RUNS: usize = 64;
const REVOKE_MAX_PAGES: u64 = 8192;

/// Consecutive frames of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) gpa: u64,
    pub(crate) len: u64,
    pub(crate) kind: HostKind,
}

/// What the host has behind a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostKind {
    Anonymous,
    /// A private mapping of a file, or a shared one that is writable.
    File,
    /// A shared mapping of a file that may not be written.
    ReadOnlyFile,
}

/// Runs of frames, merged as they come.
#[derive(Debug, Default)]
pub(crate) struct Runs(pub(crate) Vec<Run>);

impl Runs {
    pub(crate) fn push(&mut self, gpa: u64, kind: HostKind) {
        match self.0.last_mut() {
            Some(last) if last.gpa + last.len == gpa && last.kind == kind => last.len += PAGE,
            _ => self.0.push(Run { gpa, len: PAGE, kind }),
        }
    }
}

#[derive(Debug)]
struct Allocator {
    /// Everything below has a memory slot.
    backed: u64,
    /// The memory slots: start and length.
    slots: Vec<(u64, u64)>,
    free: BTreeMap<u64, u64>,
    by_len: BTreeSet<(u64, u64)>,
    free_bytes: u64,
    /// Zeroed pages for page tables.
    tables: Vec<u64>,
    /// Frames of page tables whose shadows KVM may still hold.
    retired: Vec<Run>,
    retired_tables: usize,
}

impl Allocator {
    fn insert(&mut self, mut start: u64, mut len: u64) {
        self.free_bytes += len;
        if let Some((&before, &before_len)) = self.free.range(..start).next_back()
            && before + before_len == start
        {
            self.free.remove(&before);
            self.by_len.remove(&(before_len, before));
            start = before;
            len += before_len;
        }
        if let Some(after_len) = self.free.remove(&(start + len)) {
            self.by_len.remove(&(after_len, start + len));
            len += after_len;
        }
        self.free.insert(start, len);
        self.by_len.insert((len, start));
    }

    /// Best fit.
    fn take(&mut self, len: u64) -> Option<u64> {
        let &(hole, start) = self.by_len.range((len, 0)..).next()?;
        self.by_len.remove(&(hole, start));
        self.free.remove(&start);
        if hole > len {
            self.free.insert(start + len, hole - len);
            self.by_len.insert((hole - len, start + len));
        }
        self.free_bytes -= len;
        Some(start)
    }
}

/// Maps fresh private memory at a place in the window.
///
/// # Safety
/// Whatever was mapped there goes away.
unsafe fn anonymous(host: *mut u8, len: u64) -> rustix::io::Result<()> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the caller's promise.
    unsafe { rustix::mm::mmap_anonymous(host.cast(), len as usize, prot, flags)? };
    // Mappings of all sizes and owners lie side by side in one host mapping, so where the host uses huge pages for
    // everything, touching a byte of any would cost 2 MiB. All parts say so, or the host could not join them.
    // SAFETY: changes how memory is found, not what it holds.
    let _ = unsafe { rustix::mm::madvise(host.cast(), len as usize, Advice::LinuxNoHugepage) };
    Ok(())
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Window {
    base: NonNull<u8>,
    size: u64,
    max_slots: u32,
    /// Replaced in a forked Sentry.
    vm: RwLock<VmFd>,
    alloc: Mutex<Allocator>,
    /// Held while host protections are down.
    pub(crate) revoking: Mutex<()>,
    pub(crate) revoked_runs: AtomicU64,
    pub(crate) flushes: AtomicU64,
}

// SAFETY: `base` is the start of a reservation that lives as long as the window. What lies in it is reached through
// atomics and the fault-safe copies only, and never as a Rust reference to plain data.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: nobody can reach the window any more: spaces and vCPUs hold it by `Arc`.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.size as usize) };
    }
}

impl Window {
    pub(crate) fn new(vm: VmFd, physical_bits: u32, max_slots: u32) -> Result<Window, PlatformError> {
        // The page above the window is for `flush_all`.
        let limit = if physical_bits >= 52 { MAX_WINDOW } else { (1u64 << physical_bits) - SLOT_STEP };
        let mut size = limit.min(MAX_WINDOW) & !(SLOT_STEP - 1);
        let base = loop {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            // SAFETY: a new mapping at an address of the kernel's choice disturbs nobody.
            let map = unsafe {
                rustix::mm::mmap_anonymous(std::ptr::null_mut(), size as usize, ProtFlags::empty(), flags)
            };
            match map {
                Ok(base) => break base,
                // A limit on address space (RLIMIT_AS): a smaller window does, too.
                Err(_) if size / 2 >= MIN_WINDOW => size = (size / 2) & !(SLOT_STEP - 1),
                Err(e) => return Err(host_error("reserving the guest memory window", e.into())),
            }
        };
        let base = NonNull::new(base.cast::<u8>())
            .ok_or(PlatformError::Exhausted { platform: NAME, what: "address space" })?;
        let window = Window {
            base,
            size,
            max_slots: max_slots.saturating_sub(1).max(1),
            vm: RwLock::new(vm),
            alloc: Mutex::new(Allocator {
                backed: 0,
                slots: Vec::new(),
                free: BTreeMap::new(),
                by_len: BTreeSet::new(),
                free_bytes: 0,
                tables: Vec::new(),
                retired: Vec::new(),
                retired_tables: 0,
            }),
            revoking: Mutex::new(()),
            revoked_runs: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
        };
        window.grow(&mut window.alloc.lock(), SLOT_STEP)?;
        Ok(window)
    }

    pub(crate) fn create_vcpu(&self, id: u32, mmap_size: usize) -> io::Result<VcpuFd> {
        self.vm.read().create_vcpu(id, mmap_size)
    }

    /// In a forked Sentry: puts a new VM in the place of the parent's, over the same memory.
    pub(crate) fn replace_vm(&self, vm: VmFd) -> Result<(), PlatformError> {
        let mut alloc = self.alloc.lock();
        for (slot, &(gpa, len)) in (0..).zip(&alloc.slots) {
            // SAFETY: as in `grow`.
            unsafe { vm.set_memory(slot, gpa, self.host(gpa) as u64, len) }
                .map_err(|e| host_error("KVM_SET_USER_MEMORY_REGION", e))?;
        }
        *self.vm.write() = vm;
        // The new VM has shadowed nothing yet.
        alloc.retired_tables = 0;
        for run in std::mem::take(&mut alloc.retired) {
            alloc.insert(run.gpa, run.len);
        }
        Ok(())
    }

    /// Bytes of guest memory that there may be.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that have a memory slot.
    pub(crate) fn backed_bytes(&self) -> u64 {
        self.alloc.lock().backed
    }

    /// Bytes handed out.
    pub(crate) fn used_bytes(&self) -> u64 {
        let alloc = self.alloc.lock();
        alloc.backed - alloc.free_bytes
    }

    fn grow(&self, alloc: &mut Allocator, step: u64) -> Result<(), PlatformError> {
        let exhausted =
            PlatformError::Exhausted { platform: NAME, what: "guest memory (the window is full)" };
        if alloc.backed + step > self.size || alloc.slots.len() + 1 >= self.max_slots as usize {
            return Err(exhausted);
        }
        let host = self.host(alloc.backed);
        // SAFETY: the range lies in our own reservation and is not in use yet.
        unsafe { anonymous(host, step) }.map_err(|e| host_error("mapping guest memory", e.into()))?;
        // SAFETY: the range belongs to the window, whose contents are the guest's by definition.
        unsafe { self.vm.read().set_memory(alloc.slots.len() as u32, alloc.backed, host as u64, step) }
            .map_err(|e| host_error("KVM_SET_USER_MEMORY_REGION", e))?;
        let start = alloc.backed;
        alloc.slots.push((start, step));
        alloc.insert(start, step);
        alloc.backed += step;
        Ok(())
    }

    /// `len` bytes of consecutive, zeroed, anonymous frames.
    pub(crate) fn alloc(&self, len: u64) -> Result<u64, PlatformError> {
        let mut alloc = self.alloc.lock();
        loop {
            if let Some(gpa) = alloc.take(len) {
                return Ok(gpa);
            }
            let step = alloc.backed.clamp(SLOT_STEP, MAX_SLOT_STEP).max(len.next_multiple_of(SLOT_STEP));
            self.grow(&mut alloc, step)?;
        }
    }

    /// The host's address of a frame.
    pub(crate) fn host(&self, gpa: u64) -> *mut u8 {
        debug_assert!(gpa <= self.size, "GPA {gpa:#x} outside the window");
        self.base.as_ptr().wrapping_add(gpa as usize)
    }

    /// A page-table page, or any page of the supervisor's, as words.
    pub(crate) fn words(&self, gpa: u64) -> &[AtomicU64; 512] {
        // SAFETY: callers name pages that they allocated from this window and that stay anonymous memory; everybody
        // (KVM included, which sets accessed bits) changes them by whole aligned words.
        unsafe { &*self.host(gpa).cast::<[AtomicU64; 512]>() }
    }

    /// Maps a file over `len` bytes of frames just allocated.
    pub(crate) fn map_file(
        &self,
        gpa: u64,
        len: u64,
        fd: BorrowedFd<'_>,
        offset: u64,
        shared: bool,
        writable: bool,
    ) -> io::Result<()> {
        let mut prot = ProtFlags::READ;
        if !shared || writable {
            prot |= ProtFlags::WRITE;
        }
        let sharing = if shared { MapFlags::SHARED } else { MapFlags::PRIVATE };
        let flags = sharing | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: the frames belong to the caller and no page table names them yet.
        unsafe { rustix::mm::mmap(self.host(gpa).cast(), len as usize, prot, flags, fd, offset)? };
        Ok(())
    }

    /// Gives frames back, and their memory to the host. No page table names them any more.
    pub(crate) fn free(&self, runs: &[Run]) {
        let dropped = |run: &Run| match run.kind {
            HostKind::Anonymous => self.discard(run.gpa, run.len),
            _ => self.map_anonymous(run.gpa, run.len),
        };
        let fresh: Vec<Run> = runs.iter().copied().filter(dropped).collect();
        if fresh.len() < runs.len() {
            // The frames that could not be made fresh are lost, and nobody may reach them.
            self.flush_all();
        }
        let mut alloc = self.alloc.lock();
        for run in fresh {
            alloc.insert(run.gpa, run.len);
        }
    }

    /// Lets anonymous frames read as zero again. `false` if the host would not.
    pub(crate) fn discard(&self, gpa: u64, len: u64) -> bool {
        // SAFETY: the frames are the caller's; guest memory may change at any time.
        let done = unsafe { rustix::mm::madvise(self.host(gpa).cast(), len as usize, Advice::LinuxDontNeed) };
        // Only memory locked by someone (mlock) refuses.
        done.is_ok() || self.map_anonymous(gpa, len)
    }

    /// As [`Window::discard`], for frames of any kind: private file frames read as their file again.
    pub(crate) fn discard_contents(&self, run: &Run) {
        if run.kind == HostKind::Anonymous {
            self.discard(run.gpa, run.len);
            return;
        }
        // SAFETY: the frames are the caller's; guest memory may change at any time.
        let done = unsafe {
            rustix::mm::madvise(self.host(run.gpa).cast(), run.len as usize, Advice::LinuxDontNeed)
        };
        if let Err(error) = done {
            tracing::warn!(%error, "MADV_DONTNEED on a file mapping");
        }
    }

    /// Makes frames resident, as far as the host will.
    pub(crate) fn populate(&self, run: &Run, write: bool) {
        let advice = if write { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
        // SAFETY: populating changes nothing that can be seen.
        let _ = unsafe { rustix::mm::madvise(self.host(run.gpa).cast(), run.len as usize, advice) };
    }

    /// Calls `f` for each page of the run, in order, with whether it is resident (`mincore(2)`).
    pub(crate) fn for_each_resident(&self, run: &Run, f: &mut dyn FnMut(bool)) {
        const AT_ONCE: u64 = 512 * PAGE;
        let mut done = 0;
        while done < run.len {
            let len = (run.len - done).min(AT_ONCE);
            let mut vector = [0u8; (AT_ONCE / PAGE) as usize];
            // SAFETY: the range is in the window, and the vector has a byte for each of its pages.
            let r =
                unsafe { libc::mincore(self.host(run.gpa + done).cast(), len as usize, vector.as_mut_ptr()) };
            for byte in &vector[..(len / PAGE) as usize] {
                f(r == 0 && byte & 1 != 0);
            }
            done += len;
        }
    }

    fn map_anonymous(&self, gpa: u64, len: u64) -> bool {
        // SAFETY: the frames are the caller's to replace.
        let done = unsafe { anonymous(self.host(gpa), len) };
        // Only want of a VMA can make this fail, where a hole is cut into a file mapping.
        if let Err(error) = &done {
            tracing::warn!(%error, len, "guest memory is lost: too many host mappings (vm.max_map_count)");
        }
        done.is_ok()
    }

    /// Makes every translation to these frames go away, in all address spaces and on all vCPUs, before it returns; the
    /// frames stay, and what the page tables say now is what the next access finds.
    ///
    /// Nested KVM shadows guest page tables without seeing the Sentry's writes to them, so changing an entry is not
    /// enough, nor is a flush of the guest's TLB. What always works is to take the *frame* away from under it: when
    /// the host protects a page, the MMU notifier makes KVM drop its shadow entries, or with two-level paging its
    /// EPT/NPT entries, and then flush the TLB of every vCPU of this VM (`kvm_flush_remote_tlbs`, which waits for
    /// those in guest mode). With two-level paging that flush covers combined guest-virtual translations as well, and a TLB
    /// can only hold one for a frame that has an EPT/NPT entry, so nothing escapes it.
    pub(crate) fn revoke(&self, runs: &[Run]) {
        if runs.is_empty() {
            return;
        }
        if runs.len() > REVOKE_MAX_RUNS || runs.iter().map(|r| r.len / PAGE).sum::<u64>() > REVOKE_MAX_PAGES {
            self.flush_all();
            return;
        }
        self.revoked_runs.fetch_add(runs.len() as u64, Ordering::Relaxed);
        let _guard = self.revoking.lock();
        let rw = MprotectFlags::READ | MprotectFlags::WRITE;
        for run in runs {
            let (down, up) = match run.kind {
                HostKind::ReadOnlyFile => (MprotectFlags::empty(), MprotectFlags::READ),
                _ => (MprotectFlags::READ, rw),
            };
            let (host, len) = (self.host(run.gpa).cast(), run.len as usize);
            // SAFETY: the frames are the window's. Host accesses to them go through the fault-safe copies, which wait
            // for `revoking` and try again.
            let lowered = unsafe { rustix::mm::mprotect(host, len, down) };
            // SAFETY: as above.
            let raised = unsafe { rustix::mm::mprotect(host, len, up) };
            // The second call only merges what the first one split.
            raised.expect("restoring the protection of guest memory");
            if lowered.is_err() {
                self.flush_all();
            }
        }
    }

    /// Drops all translations of this VM: deleting a memory slot, any slot, makes KVM throw away its shadow or EPT/NPT
    /// tables and flush (the documented default, `KVM_X86_QUIRK_SLOT_ZAP_ALL`). So one slot of one page is made above the
    /// window, and deleted.
    pub(crate) fn flush_all(&self) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        let slot = self.max_slots;
        // One at a time: the slot is shared.
        let alloc = self.alloc.lock();
        // No page table names a frame above the window, so guest code cannot reach this page, which is
        // the window's first in any case.
        let vm = self.vm.read();
        // SAFETY: as above.
        let done = unsafe {
            vm.set_memory(slot, self.size, self.host(0) as u64, PAGE)
                .and_then(|()| vm.set_memory(slot, self.size, self.host(0) as u64, 0))
        };
        drop(alloc);
        // Without it a revoked page would stay reachable: fail-stop.
        done.expect("flushing the guest's translations");
    }

    /// A zeroed page-table page.
    pub(crate) fn alloc_table(&self) -> Result<u64, PlatformError> {
        const BATCH: u64 = 16;
        if let Some(gpa) = self.alloc.lock().tables.pop() {
            return Ok(gpa);
        }
        let gpa = self.alloc(BATCH * PAGE)?;
        let mut alloc = self.alloc.lock();
        alloc.tables.extend((1..BATCH).rev().map(|i| gpa + i * PAGE));
        Ok(gpa)
    }

    /// Takes back the page tables of an address space that is gone, and their memory. KVM may shadow them still, keyed by
    /// their address, and would believe the old contents of a table used again. So their frames wait until a flush
    /// has dropped all shadows.
    pub(crate) fn retire_tables(&self, mut tables: Vec<u64>) {
        tables.sort_unstable();
        let mut runs = Runs::default();
        for gpa in &tables {
            runs.push(*gpa, HostKind::Anonymous);
        }
        runs.0.retain(|run| self.discard(run.gpa, run.len));
        let ready = {
            let mut alloc = self.alloc.lock();
            alloc.retired_tables += tables.len();
            alloc.retired.append(&mut runs.0);
            if alloc.retired_tables < MAX_RETIRED_TABLES {
                return;
            }
            alloc.retired_tables = 0;
            std::mem::take(&mut alloc.retired)
        };
        self.flush_all();
        let mut alloc = self.alloc.lock();
        for run in ready {
            alloc.insert(run.gpa, run.len);
        }
    }
}
