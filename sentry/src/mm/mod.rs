//! Memory management: the VMA tree of an address space, and the calls of `mmap(2)` and its family.
//!
//! The Sentry owns VMAs, the platform owns pages: nothing here knows about a single page. Every change is made in the
//! VMA tree and in the platform's address space under one lock, so that the two always agree.
//!
//! Where to look: [`vma`] and [`tree`] are the data; [`map`] places and makes mappings (`mmap`, `munmap`, `brk`),
//! [`protect`], [`remap`] and [`advise`] change them; [`fault`] answers page faults and grows stacks; [`maps`] is what
//! `/proc` shows; [`memfd`] is memory as a file; [`syscalls`] are the handlers.
//!
//! Invariants:
//! - The platform has exactly the mappings that the tree has. Where a platform call fails half-way, the range is
//!   unmapped in both.
//! - Files are never called, and never dropped, with the lock held: their locks come before it in the lock order.
//! - The lock comes late in the lock order, so that a copy to or from guest memory that has to grow a stack may be
//!   made with an object's buffers locked.

pub mod advise;
pub mod fault;
pub mod map;
pub mod maps;
mod nowhere;
pub mod numa;
pub mod process_vm;
pub mod protect;
pub mod remap;
pub mod residency;
pub mod segment;
pub mod syscalls;
pub mod tree;
pub mod vma;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quicksand_abi::{Errno, PAGE_SIZE, UserAddr, UserRange};
use quicksand_platform::{AddressSpace, MemFault, PlatformError};

use crate::sync::lock::{ReadGuard, WriteGuard};
use crate::sync::{Level, RwLock};
use crate::task::rlimit::INFINITY;
use crate::task::{CurrentTask, Resource};
use crate::vfs::OpenFile;

pub use fault::FaultOutcome;
pub use map::{FileTarget, MapRequest, Target};
pub use maps::{FutexKey, MapsEntry, MapsName, Usage};
pub use remap::RemapRequest;
pub use tree::{Counters, VmaTree};
pub use vma::{SharedMemory, VmFlags, Vma, VmaBacking};

/// `vm.mmap_min_addr`: nothing is mapped below without CAP_SYS_RAWIO.
pub const MMAP_MIN_ADDR: u64 = 65536;
/// `vm.max_map_count`.
pub const MAX_MAP_COUNT: usize = 65530;
/// `stack_guard_gap`: what stays free below a mapping that grows down.
pub const STACK_GUARD_GAP: u64 = 256 * PAGE_SIZE;

/// What limits a caller's mappings.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// RLIMIT_AS, RLIMIT_DATA, RLIMIT_STACK and RLIMIT_MEMLOCK, in bytes.
    pub address_space: u64,
    pub data: u64,
    pub stack: u64,
    pub memlock: u64,
    /// CAP_IPC_LOCK: RLIMIT_MEMLOCK does not count.
    pub may_lock: bool,
    /// CAP_SYS_RAWIO: may map below [`MMAP_MIN_ADDR`].
    pub raw_io: bool,
}

impl Limits {
    /// No limits: what the kernel maps itself.
    pub const NONE: Limits = Limits {
        address_space: INFINITY,
        data: INFINITY,
        stack: INFINITY,
        memlock: INFINITY,
        may_lock: true,
        raw_io: false,
    };

    pub fn of(task: &CurrentTask) -> Limits {
        use crate::task::credentials::Caps;
        let creds = task.creds();
        let group = task.group();
        Limits {
            address_space: group.rlimit(Resource::As).soft,
            data: group.rlimit(Resource::Data).soft,
            stack: group.rlimit(Resource::Stack).soft,
            memlock: group.rlimit(Resource::Memlock).soft,
            may_lock: creds.has(Caps::IPC_LOCK),
            raw_io: creds.has(Caps::SYS_RAWIO),
        }
    }
}

/// Where mappings without an address go.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Top-down placement ends here; bottom-up placement (`ADDR_COMPAT_LAYOUT`) begins here.
    pub mmap_base: UserAddr,
    pub top_down: bool,
    /// Where MAP_32BIT mappings begin.
    pub low_base: UserAddr,
}

impl Default for Layout {
    fn default() -> Layout {
        // What a process without randomisation and with an 8 MiB stack has.
        Layout {
            mmap_base: UserAddr(UserAddr::MAP_END.0 - (128 << 20)),
            top_down: true,
            low_base: UserAddr(0x4000_0000),
        }
    }
}

/// The marks that `execve` sets, and `prctl(PR_SET_MM)` may move: where a program's parts lie.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    pub start_code: UserAddr,
    pub end_code: UserAddr,
    pub start_data: UserAddr,
    pub end_data: UserAddr,
    pub start_brk: UserAddr,
    pub brk: UserAddr,
    /// The stack pointer at the program's start.
    pub start_stack: UserAddr,
    pub arg_start: UserAddr,
    pub arg_end: UserAddr,
    pub env_start: UserAddr,
    pub env_end: UserAddr,
    /// Where the vDSO's ELF header is; null where there is none.
    pub vdso: UserAddr,
    /// The auxiliary vector, for `/proc/PID/auxv`.
    pub auxv: Vec<u8>,
}

/// What the lock of a [`MemoryManager`] guards.
#[derive(Debug)]
pub struct Inner {
    pub(crate) space: Arc<dyn AddressSpace>,
    pub(crate) tree: VmaTree,
    pub(crate) layout: Layout,
    pub(crate) marks: Marks,
    /// Flags of future mappings: `mlockall(MCL_FUTURE)`.
    pub(crate) default_flags: VmFlags,
    pub(crate) exe: Option<Arc<OpenFile>>,
    /// Pages of an image lie over what the VMAs say: what drops contents maps anew.
    pub(crate) layered: bool,
    /// `hiwater_vm`, in pages.
    pub(crate) peak_total: u64,
    /// VMAs taken out, dropped once the lock is free.
    dead: Vec<Vma>,
}

/// Linux's `mm_struct`. Shared by tasks that were cloned with CLONE_VM.
#[derive(Debug)]
pub struct MemoryManager {
    /// Unique in the sandbox, never reused: identifies it in futex keys.
    pub id: u64,
    pub space: Arc<dyn AddressSpace>,
    inner: RwLock<Inner>,
    /// RLIMIT_STACK as last seen, for stacks that grow during a copy.
    stack_limit: AtomicU64,
    /// `hiwater_rss`, in bytes.
    peak_resident: AtomicU64,
}

/// The inner part, locked for writing. What was unmapped is dropped after the lock.
pub(crate) struct WriteInner<'a>(Option<WriteGuard<'a, Inner>>);

impl Deref for WriteInner<'_> {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        self.0.as_ref().expect("held until dropped")
    }
}
impl DerefMut for WriteInner<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        self.0.as_mut().expect("held until dropped")
    }
}
impl Drop for WriteInner<'_> {
    fn drop(&mut self) {
        let dead = std::mem::take(&mut self.dead);
        self.0 = None;
        drop(dead);
    }
}

impl MemoryManager {
    /// Of a process that has no program yet.
    pub fn nowhere() -> Arc<MemoryManager> {
        MemoryManager::new(Arc::new(nowhere::Nowhere))
    }
    /// An empty one.
    pub fn new(space: Arc<dyn AddressSpace>) -> Arc<MemoryManager> {
        let inner = Inner {
            space: space.clone(),
            tree: VmaTree::default(),
            layout: Layout::default(),
            marks: Marks::default(),
            default_flags: VmFlags::empty(),
            exe: None,
            layered: false,
            peak_total: 0,
            dead: Vec::new(),
        };
        MemoryManager::with_inner(space, inner, 8 << 20)
    }

    fn with_inner(space: Arc<dyn AddressSpace>, inner: Inner, stack_limit: u64) -> Arc<MemoryManager> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Arc::new(MemoryManager {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            space,
            inner: RwLock::new(Level::Mm, inner),
            stack_limit: AtomicU64::new(stack_limit),
            peak_resident: AtomicU64::new(0),
        })
    }

    pub(crate) fn read(&self) -> ReadGuard<'_, Inner> {
        self.inner.read()
    }
    pub(crate) fn write(&self) -> WriteInner<'_> {
        WriteInner(Some(self.inner.write()))
    }

    /// A copy, as `fork(2)` makes one. ENOMEM where the platform cannot.
    pub fn fork(&self) -> Result<Arc<MemoryManager>, Errno> {
        // Held while the platform copies: the tree and the pages must be of one moment.
        let inner = self.write();
        let space = self.space.fork().map_err(|error| {
            tracing::warn!("fork: {error}");
            match error {
                PlatformError::Unavailable { .. } => Errno::EAGAIN,
                PlatformError::Host { .. } | PlatformError::Exhausted { .. } => Errno::ENOMEM,
            }
        })?;
        let mut copy = Inner {
            space: space.clone(),
            tree: inner.tree.clone(),
            layout: inner.layout,
            marks: inner.marks.clone(),
            default_flags: VmFlags::empty(),
            exe: inner.exe.clone(),
            layered: inner.layered,
            peak_total: inner.peak_total,
            dead: Vec::new(),
        };
        let special = VmFlags::LOCKED | VmFlags::LOCKONFAULT | VmFlags::DONTFORK | VmFlags::WIPEONFORK;
        let marked: Vec<Vma> = copy.tree.iter().filter(|v| v.flags.intersects(special)).cloned().collect();
        drop(inner);
        for vma in marked {
            if vma.flags.contains(VmFlags::DONTFORK) {
                let removed = copy.tree.remove(vma.range);
                drop(removed);
                space.unmap(vma.range)?;
                continue;
            }
            if vma.flags.contains(VmFlags::WIPEONFORK) {
                space.map(vma.range, vma.prot, vma.platform_backing(vma.range))?;
            }
            // Locks are not inherited.
            copy.tree.update(vma.range, |v| v.flags.remove(VmFlags::LOCKED | VmFlags::LOCKONFAULT));
        }
        Ok(MemoryManager::with_inner(space, copy, self.stack_limit.load(Ordering::Relaxed)))
    }

    /// After `setrlimit(RLIMIT_STACK)`: how far stacks may grow from now on.
    pub fn set_stack_limit(&self, bytes: u64) {
        self.stack_limit.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn stack_limit(&self) -> u64 {
        self.stack_limit.load(Ordering::Relaxed)
    }

    /// The program (`/proc/PID/exe`).
    pub fn exe(&self) -> Option<Arc<OpenFile>> {
        self.read().exe.clone()
    }
    /// `prctl(PR_SET_MM_EXE_FILE)`, and the loader.
    pub fn set_exe(&self, exe: Option<Arc<OpenFile>>) {
        let old = std::mem::replace(&mut self.write().exe, exe);
        drop(old);
    }
    pub fn marks(&self) -> Marks {
        self.read().marks.clone()
    }
    pub fn counters(&self) -> Counters {
        self.read().tree.counters()
    }

    /// Bytes of host memory behind it, and the most there ever were, as far as anybody asked.
    pub fn resident_bytes(&self) -> (u64, u64) {
        let now = self.space.resident_bytes();
        (now, self.peak_resident_bytes().max(now))
    }

    /// The second of those alone: at the end of a process nobody asks what is there now, and to count it takes long.
    pub fn peak_resident_bytes(&self) -> u64 {
        let peak = self.space.peak_resident_bytes();
        self.peak_resident.fetch_max(peak, Ordering::Relaxed).max(peak)
    }

    // Copies. As `copy_from_user`: nothing is checked before it is touched, but that the whole range is below the end of
    // user space.

    pub fn read_bytes(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), MemFault> {
        check_range(addr, buf.len())?;
        let mut done = 0;
        loop {
            // Cannot wrap: the range was checked.
            match self.space.read(UserAddr(addr.0 + done as u64), &mut buf[done..]) {
                Ok(()) => return Ok(()),
                Err(fault) => done = self.after_fault(fault, done)?,
            }
        }
    }

    pub fn write_bytes(&self, addr: UserAddr, buf: &[u8]) -> Result<(), MemFault> {
        check_range(addr, buf.len())?;
        let mut done = 0;
        loop {
            match self.space.write(UserAddr(addr.0 + done as u64), &buf[done..]) {
                Ok(()) => return Ok(()),
                Err(fault) => done = self.after_fault(fault, done)?,
            }
        }
    }

    /// Where the copy goes on after `fault` when a stack could be grown over it.
    fn after_fault(&self, fault: MemFault, done: usize) -> Result<usize, MemFault> {
        let done = done + fault.done;
        if self.grow_stack_to(fault.addr) { Ok(done) } else { Err(MemFault { addr: fault.addr, done }) }
    }

    /// Atomically loads an aligned word (futexes).
    pub fn load_u32(&self, addr: UserAddr) -> Result<u32, MemFault> {
        check_range(addr, 4)?;
        loop {
            match self.space.load_u32(addr) {
                Err(fault) if self.grow_stack_to(fault.addr) => {}
                result => return result,
            }
        }
    }

    /// Atomically replaces an aligned word where it equals `current`; returns the word found.
    pub fn compare_exchange_u32(&self, addr: UserAddr, current: u32, new: u32) -> Result<u32, MemFault> {
        check_range(addr, 4)?;
        loop {
            match self.space.compare_exchange_u32(addr, current, new) {
                Err(fault) if self.grow_stack_to(fault.addr) => {}
                result => return result,
            }
        }
    }

    /// A NUL-terminated string of at most `max` bytes, without its NUL. ENAMETOOLONG where it is longer, EFAULT where it
    /// cannot be read up to its NUL.
    pub fn read_cstring(&self, addr: UserAddr, max: usize) -> Result<Vec<u8>, Errno> {
        let mut out = Vec::new();
        let mut at = addr;
        while out.len() <= max {
            // Up to the end of the page: a string may end right before an unmapped one.
            let in_page = (PAGE_SIZE - at.0 % PAGE_SIZE) as usize;
            let mut piece = [0; 256];
            let piece = &mut piece[..in_page.min(256).min(max + 1 - out.len())];
            self.read_bytes(at, piece)?;
            if let Some(end) = piece.iter().position(|b| *b == 0) {
                out.extend_from_slice(&piece[..end]);
                return Ok(out);
            }
            out.extend_from_slice(piece);
            at = at.checked_add(piece.len() as u64).ok_or(Errno::EFAULT)?;
        }
        Err(Errno::ENAMETOOLONG)
    }
}

/// `access_ok`: a copy that would reach beyond user space moves nothing at all.
fn check_range(addr: UserAddr, len: usize) -> Result<(), MemFault> {
    match addr.checked_add(len as u64) {
        Some(end) if end <= UserAddr::TASK_SIZE => Ok(()),
        _ => Err(MemFault { addr, done: 0 }),
    }
}

/// A page-aligned range as the calls of this family take it: `start` aligned, `len` rounded up. `None` where it is not in
/// the address space.
pub(crate) fn page_range(start: UserAddr, len: u64) -> Option<UserRange> {
    if !start.is_page_aligned() {
        return None;
    }
    let len = UserAddr(len).page_ceil()?.0;
    UserRange::new(start, len).filter(|r| r.end <= UserAddr::TASK_SIZE)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
