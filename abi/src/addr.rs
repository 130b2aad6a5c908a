//! Guest virtual addresses. A `UserAddr` is an allegation by the guest: nothing says that it is mapped, aligned or
//! even canonical. Arithmetic is checked only, so an address never wraps around silently.

use std::fmt;

/// Bytes in a page. Only 4 KiB pages are visible to guests.
pub const PAGE_SIZE: u64 = 4096;

/// A guest virtual address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UserAddr(pub u64);

impl UserAddr {
    pub const NULL: UserAddr = UserAddr(0);
    /// One past the highest address a 64-bit program can map (`TASK_SIZE_MAX` with 4-level page tables).
    pub const TASK_SIZE: UserAddr = UserAddr(0x7fff_ffff_f000);
    /// One past the highest address where anything is mapped for a program. What lies between here and
    /// [`UserAddr::TASK_SIZE`] may belong to the platform, and is the same on all of them, so that images are.
    pub const MAP_END: UserAddr = UserAddr(0x7fff_c000_0000);

    pub fn is_null(self) -> bool {
        self.0 == 0
    }
    pub fn checked_add(self, bytes: u64) -> Option<UserAddr> {
        self.0.checked_add(bytes).map(UserAddr)
    }
    pub fn checked_sub(self, bytes: u64) -> Option<UserAddr> {
        self.0.checked_sub(bytes).map(UserAddr)
    }
    pub fn is_page_aligned(self) -> bool {
        self.0.is_multiple_of(PAGE_SIZE)
    }
    /// Rounds down to a page boundary.
    pub fn page_floor(self) -> UserAddr {
        UserAddr(self.0 & !(PAGE_SIZE - 1))
    }
    /// Rounds up to a page boundary; `None` past the end of the address space.
    pub fn page_ceil(self) -> Option<UserAddr> {
        self.0.checked_add(PAGE_SIZE - 1).map(|a| UserAddr(a & !(PAGE_SIZE - 1)))
    }
}

impl fmt::Debug for UserAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
impl fmt::Display for UserAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A half-open range `[start, end)` of guest addresses; `start <= end` always holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserRange {
    pub start: UserAddr,
    pub end: UserAddr,
}

impl UserRange {
    /// `None` where `start + len` overflows.
    pub fn new(start: UserAddr, len: u64) -> Option<UserRange> {
        Some(UserRange { start, end: start.checked_add(len)? })
    }
    /// `None` where `end < start`.
    pub fn from_bounds(start: UserAddr, end: UserAddr) -> Option<UserRange> {
        (start <= end).then_some(UserRange { start, end })
    }
    pub fn len(self) -> u64 {
        self.end.0 - self.start.0
    }
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
    pub fn contains(self, addr: UserAddr) -> bool {
        self.start <= addr && addr < self.end
    }
    pub fn contains_range(self, other: UserRange) -> bool {
        self.start <= other.start && other.end <= self.end
    }
    pub fn overlaps(self, other: UserRange) -> bool {
        self.start < other.end && other.start < self.end
    }
    /// The part that both have, empty ranges excluded.
    pub fn intersect(self, other: UserRange) -> Option<UserRange> {
        let start = self.start.max(other.start);
        let end = self.end.min(other.end);
        (start < end).then_some(UserRange { start, end })
    }
    pub fn is_page_aligned(self) -> bool {
        self.start.is_page_aligned() && self.end.is_page_aligned()
    }
}

impl fmt::Debug for UserRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start.0, self.end.0)
    }
}
