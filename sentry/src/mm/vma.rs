//! Virtual memory areas: what one stretch of a guest's address space is (Linux's `vm_area_struct`).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use quicksand_abi::{PAGE_SIZE, UserAddr, UserRange};
use quicksand_platform::{Backing, Prot};

use super::numa::MemPolicy;
use crate::vfs::OpenFile;

bitflags::bitflags! {
    /// What a mapping is, beyond its protection.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct VmFlags: u32 {
        /// MAP_SHARED.
        const SHARED = 1 << 0;
        /// MAP_GROWSDOWN, and the first stack.
        const GROWSDOWN = 1 << 1;
        /// Locked by `mlock(2)`; with LOCKONFAULT only what is touched.
        const LOCKED = 1 << 2;
        const LOCKONFAULT = 1 << 3;
        const DONTFORK = 1 << 4;
        const WIPEONFORK = 1 << 5;
        const DONTDUMP = 1 << 6;
        const NORESERVE = 1 << 7;
        const HUGEPAGE = 1 << 8;
        const NOHUGEPAGE = 1 << 9;
        const SEQ_READ = 1 << 10;
        const RAND_READ = 1 << 11;
        /// The kernel's own (vvar, vDSO): neither grows nor merges.
        const SPECIAL = 1 << 12;
        /// `mseal(2)`.
        const SEALED = 1 << 13;
    }
}

/// Memory shared by mappings of more than one address space without a file of the guest's behind it: `MAP_SHARED |
/// MAP_ANONYMOUS`. A host memfd.
#[derive(Debug)]
pub struct SharedMemory {
    /// Unique in the sandbox, never reused: identifies the memory in futex keys and in `/proc/PID/maps`.
    pub id: u64,
    /// Of a System V segment: the key that it was made with.
    pub key: Option<i32>,
    pub fd: Arc<OwnedFd>,
}

/// What is behind a VMA, at its first page.
#[derive(Clone, Debug)]
pub enum VmaBacking {
    /// Private zero pages.
    Anon,
    /// Shared zero pages.
    SharedAnon { memory: Arc<SharedMemory>, offset: u64 },
    /// A file. `host` and `host_offset` are what the file system gave for it when it was mapped.
    File { file: Arc<OpenFile>, offset: u64, host: Arc<OwnedFd>, host_offset: u64, host_writable: bool },
    /// Pages of the kernel's own: the vDSO and its data.
    Special { name: &'static str, fd: Arc<OwnedFd>, offset: u64 },
}

impl VmaBacking {
    /// The same backing `by` bytes further on.
    pub fn advanced(&self, by: u64) -> VmaBacking {
        let mut next = self.clone();
        match &mut next {
            VmaBacking::Anon => {}
            VmaBacking::SharedAnon { offset, .. } | VmaBacking::Special { offset, .. } => *offset += by,
            VmaBacking::File { offset, host_offset, .. } => {
                *offset += by;
                *host_offset += by;
            }
        }
        next
    }

    /// Whether `next` goes on where `self` ends after `len` bytes.
    fn continues(&self, len: u64, next: &VmaBacking) -> bool {
        match (self, next) {
            (VmaBacking::Anon, VmaBacking::Anon) => true,
            (
                VmaBacking::SharedAnon { memory: a, offset },
                VmaBacking::SharedAnon { memory: b, offset: next },
            ) => Arc::ptr_eq(a, b) && offset + len == *next,
            (
                VmaBacking::File { file: a, offset, host: host_a, host_offset, .. },
                VmaBacking::File { file: b, offset: next, host: host_b, host_offset: next_host, .. },
            ) => {
                Arc::ptr_eq(a, b)
                    && Arc::ptr_eq(host_a, host_b)
                    && offset + len == *next
                    && host_offset + len == *next_host
            }
            _ => false,
        }
    }
}

/// One mapping. `range` is page-aligned and not empty.
#[derive(Clone, Debug)]
pub struct Vma {
    pub range: UserRange,
    pub prot: Prot,
    /// What `mprotect` may set (VM_MAYREAD, VM_MAYWRITE, VM_MAYEXEC).
    pub max_prot: Prot,
    pub flags: VmFlags,
    pub backing: VmaBacking,
    /// A name given by `prctl(PR_SET_VMA_ANON_NAME)`.
    pub anon_name: Option<Arc<[u8]>>,
    /// Set by `mbind(2)`.
    pub policy: MemPolicy,
}

impl Vma {
    /// A private anonymous mapping.
    pub fn anonymous(range: UserRange, prot: Prot) -> Vma {
        let max_prot = Prot { read: true, write: true, execute: true };
        Vma {
            range,
            prot,
            max_prot,
            flags: VmFlags::empty(),
            backing: VmaBacking::Anon,
            anon_name: None,
            policy: MemPolicy::default(),
        }
    }
    pub fn start(&self) -> UserAddr {
        self.range.start
    }
    pub fn end(&self) -> UserAddr {
        self.range.end
    }
    pub fn pages(&self) -> u64 {
        self.range.len() / PAGE_SIZE
    }
    pub fn is_shared(&self) -> bool {
        self.flags.contains(VmFlags::SHARED)
    }
    pub fn is_anonymous(&self) -> bool {
        matches!(self.backing, VmaBacking::Anon)
    }
    /// Counts towards RLIMIT_DATA (`is_data_mapping`).
    pub fn is_data(&self) -> bool {
        self.prot.write && !self.flags.intersects(VmFlags::SHARED | VmFlags::GROWSDOWN)
    }
    /// Where the gap that must stay free below it begins: a guard for mappings that grow down.
    pub fn start_with_gap(&self) -> UserAddr {
        if self.flags.contains(VmFlags::GROWSDOWN) {
            UserAddr(self.range.start.0.saturating_sub(super::STACK_GUARD_GAP))
        } else {
            self.range.start
        }
    }
    /// What the platform maps for the part `range` of it.
    pub fn platform_backing(&self, range: UserRange) -> Backing<'_> {
        let by = range.start.0 - self.range.start.0;
        match &self.backing {
            VmaBacking::Anon => Backing::Anonymous,
            VmaBacking::SharedAnon { memory, offset } => {
                Backing::SharedFile { fd: memory.fd.as_fd(), offset: offset + by, writable: true }
            }
            VmaBacking::File { host, host_offset, host_writable, .. } if self.is_shared() => {
                Backing::SharedFile { fd: host.as_fd(), offset: host_offset + by, writable: *host_writable }
            }
            VmaBacking::File { host, host_offset, .. } => {
                Backing::PrivateFile { fd: host.as_fd(), offset: host_offset + by }
            }
            // What can never be written is the kernel's own to change: shared, though not called so.
            VmaBacking::Special { fd, offset, .. } if !self.max_prot.write => {
                Backing::SharedFile { fd: fd.as_fd(), offset: offset + by, writable: false }
            }
            VmaBacking::Special { fd, offset, .. } => {
                Backing::PrivateFile { fd: fd.as_fd(), offset: offset + by }
            }
        }
    }

    /// Cuts it in two at `at`, which lies strictly inside; `self` keeps the lower part.
    pub(super) fn split_off(&mut self, at: UserAddr) -> Vma {
        let mut upper = self.clone();
        upper.range.start = at;
        upper.backing = self.backing.advanced(at.0 - self.range.start.0);
        self.range.end = at;
        upper
    }

    /// Whether `next`, which begins where `self` ends, can be one VMA with it.
    pub(super) fn merges_with(&self, next: &Vma) -> bool {
        self.range.end == next.range.start
            && self.prot == next.prot
            && self.max_prot == next.max_prot
            && self.flags == next.flags
            && !self.flags.contains(VmFlags::SPECIAL)
            && self.anon_name == next.anon_name
            && self.policy == next.policy
            && self.backing.continues(self.range.len(), &next.backing)
    }
}
