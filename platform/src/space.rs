//! Guest address spaces.

use std::any::Any;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr, UserRange};

use crate::PlatformError;

/// Page protection, as `mmap(2)`'s PROT_ bits. On x86-64 write or execute imply read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Prot {
    pub read: bool,
    pub write: bool,
    pub execute: bool,
}

impl Prot {
    pub const NONE: Prot = Prot { read: false, write: false, execute: false };
    pub const R: Prot = Prot { read: true, write: false, execute: false };
    pub const RW: Prot = Prot { read: true, write: true, execute: false };
    pub const RX: Prot = Prot { read: true, write: false, execute: true };

    /// Whether any access is allowed.
    pub fn any(self) -> bool {
        self.read || self.write || self.execute
    }
}

/// What stands behind a mapping. Descriptors are borrowed for the call; a platform that needs one later (to map in
/// steps) duplicates it.
#[derive(Clone, Copy, Debug)]
pub enum Backing<'a> {
    /// Private zero pages.
    Anonymous,
    /// `MAP_PRIVATE` of a host file: an image layer, an executable, a memfd.
    PrivateFile { fd: BorrowedFd<'a>, offset: u64 },
    /// `MAP_SHARED` of a host file or memfd. `writable` says whether the descriptor allows a writable shared mapping
    /// (`protect` never asks for more than that).
    SharedFile { fd: BorrowedFd<'a>, offset: u64, writable: bool },
}

/// One of several mappings that are made together.
#[derive(Clone, Copy, Debug)]
pub struct Mapping<'a> {
    pub range: UserRange,
    pub prot: Prot,
    pub backing: Backing<'a>,
}

/// Advice that changes what a page holds or whether it is resident; what is only a hint the Sentry answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// `MADV_DONTNEED`: private pages return to what the backing holds (zeroes, file content); memory goes back to
    /// the host at once. Shared mappings only drop their pages' translations.
    DontNeed,
    /// `MADV_FREE`: as `DontNeed`, but may be delayed by the host.
    Free,
    /// `MADV_WILLNEED`/`MADV_POPULATE_*`: make it resident now, as far as that is cheap. `write` asks for private
    /// copies.
    Populate { write: bool },
}

/// A copy that stopped: the first address that could not be reached, and how many bytes were copied before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemFault {
    pub addr: UserAddr,
    pub done: usize,
}

impl From<MemFault> for Errno {
    fn from(_: MemFault) -> Errno {
        Errno::EFAULT
    }
}

/// One guest address space: the pages behind the Sentry's VMAs. All methods may be called from any thread at any time,
/// also while guest threads run in it; they are ordered by a lock of the platform's own.
///
/// Errors are what `mmap(2)` and friends would give for want of resources (`ENOMEM`) or a backing that cannot be mapped
/// (`ENODEV`, `EACCES`); arguments are valid by contract.
pub trait AddressSpace: Send + Sync + fmt::Debug {
    /// For a platform to find its own type again.
    fn as_any(&self) -> &dyn Any;

    /// Maps `range`, replacing whatever was there. `Prot::NONE` costs nothing, whatever the size; neither does a huge
    /// range whose pages are never touched.
    fn map(&self, range: UserRange, prot: Prot, backing: Backing<'_>) -> Result<(), Errno>;

    /// As [`map`](AddressSpace::map), one after the other; cheaper where each call has a price. Where one fails, none of
    /// the ranges is mapped any more.
    fn map_all(&self, mappings: &[Mapping<'_>]) -> Result<(), Errno> {
        let made = mappings.iter().try_for_each(|m| self.map(m.range, m.prot, m.backing));
        made.or_else(|errno| {
            mappings.iter().try_for_each(|m| self.unmap(m.range))?;
            Err(errno)
        })
    }

    /// Removes whatever is mapped in `range` (holes are fine). Private memory goes back to the host before this returns.
    fn unmap(&self, range: UserRange) -> Result<(), Errno>;

    /// Changes the protection of everything mapped in `range` (holes are skipped).
    fn protect(&self, range: UserRange, prot: Prot) -> Result<(), Errno>;

    /// Moves the mappings in `old`, with their pages and contents, to `new_start` (`mremap(2)`): what was at the target is
    /// replaced, `old` becomes unmapped. The two ranges do not overlap.
    fn relocate(&self, old: UserRange, new_start: UserAddr) -> Result<(), Errno>;

    /// Applies `advice` to what is mapped in `range` (holes are skipped).
    fn advise(&self, range: UserRange, advice: Advice) -> Result<(), Errno>;

    /// As [`advise`](AddressSpace::advise), for several ranges.
    fn advise_all(&self, ranges: &[(UserRange, Advice)]) -> Result<(), Errno> {
        ranges.iter().try_for_each(|(range, advice)| self.advise(*range, *advice))
    }

    /// A copy, as `fork(2)` makes one: private pages are copied on write, shared mappings stay shared.
    fn fork(&self) -> Result<Arc<dyn AddressSpace>, PlatformError>;

    /// Copies guest memory at `addr` into `buf`.
    fn read(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), MemFault>;

    /// Copies `buf` into guest memory at `addr`.
    fn write(&self, addr: UserAddr, buf: &[u8]) -> Result<(), MemFault>;

    /// As `write`, but ignores that pages are not writable for the guest (a debugger's poke, the loader); shared
    /// read-only mappings still refuse.
    fn write_forced(&self, addr: UserAddr, buf: &[u8]) -> Result<(), MemFault>;

    /// Atomically loads the aligned 32-bit word at `addr`.
    fn load_u32(&self, addr: UserAddr) -> Result<u32, MemFault>;

    /// Atomically replaces the aligned 32-bit word at `addr` where it equals `current`. Returns the word found: the
    /// exchange took place exactly when that is `current`.
    fn compare_exchange_u32(&self, addr: UserAddr, current: u32, new: u32) -> Result<u32, MemFault>;

    /// Whether the host has taken it away, with all that was in it: nothing will run in it or be read from it again.
    fn is_lost(&self) -> bool {
        false
    }

    /// For each page of `range`, whether it is resident (`mincore(2)`); `out` has one entry a page, unmapped pages are
    /// `false`.
    fn resident(&self, range: UserRange, out: &mut [bool]);

    /// For each page of `range`, whether it may hold anything but zeroes: it is resident, or it is a page of a file, whoever
    /// has touched it. For what must not be lost.
    fn has_contents(&self, range: UserRange, out: &mut [bool]);

    /// Bytes of private host memory behind this address space, roughly (for `/proc/PID/statm`).
    fn resident_bytes(&self) -> u64;

    /// The most bytes of host memory that there ever were behind it (`ru_maxrss`), as far as that is known: at least as many
    /// as now. Asked for at the end of every process.
    fn peak_resident_bytes(&self) -> u64 {
        self.resident_bytes()
    }
}
