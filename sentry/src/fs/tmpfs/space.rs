//! How much of a tmpfs is used, against its limits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use quicksand_abi::Errno;

use crate::vfs::inode::{FsStat, StatFs};

/// No limit.
pub(super) const UNLIMITED: u64 = u64::MAX;

/// Pages of all file systems in memory and all memfds of this process, which is one sandbox. A guest that fills them gets
/// ENOSPC; without a common limit several half-full file systems would have the host kill the sandbox.
static ALL_PAGES: AtomicU64 = AtomicU64::new(0);

/// Three quarters of the machine's memory.
fn all_max() -> u64 {
    static MAX: OnceLock<u64> = OnceLock::new();
    *MAX.get_or_init(|| {
        let info = rustix::system::sysinfo();
        (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)) / 4096 / 4 * 3
    })
}

/// Adds `want` to `used`, or what is left up to `max`; returns how many.
fn take(used: &AtomicU64, max: u64, want: u64) -> u64 {
    let mut got = 0;
    let add = |used: u64| {
        got = want.min(max.saturating_sub(used));
        used.checked_add(got)
    };
    match used.fetch_update(Ordering::AcqRel, Ordering::Acquire, add) {
        Ok(_) => got,
        Err(_) => 0,
    }
}

fn put(used: &AtomicU64, pages: u64) {
    let sub = |used: u64| Some(used.saturating_sub(pages));
    let _ = used.fetch_update(Ordering::AcqRel, Ordering::Acquire, sub);
}

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
    /// Takes `want` pages, or as many as are left here and in the sandbox; returns how many.
    pub(super) fn take_pages(&self, want: u64) -> u64 {
        let got = take(&self.pages, self.max_pages.load(Ordering::Relaxed), want);
        let granted = take(&ALL_PAGES, all_max(), got);
        put(&self.pages, got - granted);
        granted
    }
    /// Takes pages that are in use already, whatever the limit.
    pub(super) fn force_pages(&self, pages: u64) {
        self.pages.fetch_add(pages, Ordering::AcqRel);
        ALL_PAGES.fetch_add(pages, Ordering::AcqRel);
    }
    pub(super) fn put_pages(&self, pages: u64) {
        put(&self.pages, pages);
        put(&ALL_PAGES, pages);
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
