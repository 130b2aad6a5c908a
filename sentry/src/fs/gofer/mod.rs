//! The host's files: a directory tree of the host as a file system of the guest (gVisor's `gofer`).
//!
//! - [`node`]: a file's place in the host's tree, which is its identity. Descriptors are caches.
//! - [`backend`]: who carries out an operation: the Sentry itself ([`Direct`], `directfs`), or a gofer process
//!   ([`remote`]).
//! - [`inode`]: the tree as inodes. [`file`]: open regular files and directories.
//!
//! Invariants: nothing of the host is opened but regular files and directories. A tree that only this sandbox can change
//! ([`Options::exclusive`]) is cached for as long as it is known: names by dentries, attributes in nodes. A shared one
//! is asked each time.

pub mod backend;
pub mod file;
pub mod inode;
pub mod node;
pub mod remote;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use quicksand_abi::Errno;
use quicksand_gofer::hostfs;

use crate::vfs::Inode;
use crate::vfs::inode::{FsStat, StatFs, Superblock};

pub use backend::{Backend, Direct};
use inode::Tree;

/// How a tree is served.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Nobody but this sandbox changes the tree while it runs: names and attributes may be cached.
    pub exclusive: bool,
}

/// The root inode of a directory tree (or of a single file) of the host, given by a descriptor: `O_PATH` for a directory,
/// open for reading (and writing) for a file.
pub fn open_direct(root: OwnedFd, options: Options) -> Result<Arc<Inode>, Errno> {
    let stat = rustix::fs::fstatfs(&root).map_err(hostfs::errno)?;
    let magic = u64::try_from(stat.f_type).unwrap_or(0);
    hostfs::stat_fd(root.as_fd())?;
    open(Arc::new(Direct::new(root)), magic, options)
}

/// The root inode of a tree that a gofer serves on `socket`.
pub fn open_remote(socket: OwnedFd, options: Options) -> Result<Arc<Inode>, Errno> {
    let remote = remote::Remote::new(socket);
    let magic = remote.magic()?;
    open(Arc::new(remote), magic, options)
}

/// The root inode of a tree behind any backend.
pub fn open(backend: Arc<dyn Backend>, magic: u64, options: Options) -> Result<Arc<Inode>, Errno> {
    let sb = Superblock::new(fs_name(magic), magic, Box::new(Storage(backend.clone())));
    Tree::new(backend, options).root(&sb)
}

#[derive(Debug)]
struct Storage(Arc<dyn Backend>);

impl StatFs for Storage {
    fn statfs(&self) -> Result<FsStat, Errno> {
        self.0.statfs()
    }
}

/// The name of a host file system as `/proc/mounts` shows it to the guest.
fn fs_name(magic: u64) -> &'static str {
    match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        0x7371_7368 => "squashfs",
        0xe0f5_e1e2 => "erofs",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        _ => "virtiofs",
    }
}
