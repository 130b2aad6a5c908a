//! procfs: what the kernel tells about itself and its tasks (`proc(5)`).
//!
//! - [`root`]: the global files. [`task`]: `/proc/PID` and `/proc/PID/task/TID`. [`status`]: their longer texts.
//! - [`fd`]: `fd`, `fdinfo` and the other magic links. [`sysctl`]: `/proc/sys`.
//!
//! A mount shows one pid namespace: the one of whoever mounted it. Inode numbers are made from the pid and a small
//! number for the file, so that they stay the same from look-up to look-up.

mod fd;
mod mounts;
mod net;
mod root;
mod status;
mod sysctl;
mod task;

use std::sync::Arc;

use crate::task::PidNamespace;
use crate::vfs::inode::NoStorage;
use crate::vfs::{Dentry, Superblock};

/// PROC_SUPER_MAGIC.
const MAGIC: u64 = 0x9fa0;

/// A procfs instance that shows a pid namespace; its root.
pub fn new(pids: &Arc<PidNamespace>) -> Arc<Dentry> {
    let sb = Superblock::new("proc", MAGIC, Box::new(NoStorage));
    Dentry::new_root(root::new(&sb, pids), b"/")
}
