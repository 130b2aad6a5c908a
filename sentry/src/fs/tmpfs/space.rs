//! How much of a tmpfs is used, against its limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quicksand_abi::Errno;

use crate::vfs::inode::{FsStat, StatFs};

/// No limit.
pub(super) const UNLIMITED: u64 = u64::MAX;

/// Pages and inodes of one file system.
#[derive(Debug)]
pub(super) struct Space {
    max_pages: AtomicU64,
    pages: AtomicU64,
    max_inodes: AtomicU64,
    inodes: AtomicU64,
}

impl Space {
    pub(super) fn new(max_pages: u64, max_inodes: u64) -> Space {
        Space {
            max_pages: AtomicU64::new(max_pages),
            pages: AtomicU64::new(0),
            max_inodes: AtomicU64::new(max_inodes),
            inodes: AtomicU64::new(0),
        }
    }
    /// Takes `want` pages, or as many as are left; returns how many.
    pub(super) fn take_pages(&self, want: u64) -> u64 {
        let max = self.max_pages.load(Ordering::Relaxed);
        let mut got = 0;
        let take = |used: u64| {
            got = want.min(max.saturating_sub(used));
            used.checked_add(got)
        };
        match self.pages.fetch_update(Ordering::AcqRel, Ordering::Acquire, take) {
            Ok(_) => got,
            Err(_) => 0,
        }
    }
    /// Takes pages that are in use already, whatever the limit.
    pub(super) fn force_pages(&self, pages: u64) {
        self.pages.fetch_add(pages, Ordering::AcqRel);
    }
    pub(super) fn put_pages(&self, pages: u64) {
        let put = |used: u64| Some(used.saturating_sub(pages));
        let _ = self.pages.fetch_update(Ordering::AcqRel, Ordering::Acquire, put);
    }
    pub(super) fn take_inode(&self) -> Result<(), Errno> {
        let max = self.max_inodes.load(Ordering::Relaxed);
        let take = |used: u64| (used < max).then(|| used + 1);
        let taken = self.inodes.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        taken.map(drop).map_err(|_| Errno::ENOSPC)
    }
    pub(super) fn force_inode(&self) {
        self.inodes.fetch_add(1, Ordering::AcqRel);
    }
    pub(super) fn put_inode(&self) {
        self.inodes.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The answer to `statfs(2)`.
#[derive(Debug)]
pub(super) struct SpaceStat(pub(super) Arc<Space>);

impl StatFs for SpaceStat {
    fn statfs(&self) -> Result<FsStat, Errno> {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let (max_pages, max_inodes) = (load(&self.0.max_pages), load(&self.0.max_inodes));
        let mut stat = FsStat { block_size: 4096, ..FsStat::default() };
        // As Linux: a file system without a limit reports none.
        if max_pages != UNLIMITED {
            stat.blocks = max_pages;
            stat.free = max_pages.saturating_sub(load(&self.0.pages));
            stat.available = stat.free;
        }
        if max_inodes != UNLIMITED {
            stat.files = max_inodes;
            stat.files_free = max_inodes.saturating_sub(load(&self.0.inodes));
        }
        Ok(stat)
    }
}
