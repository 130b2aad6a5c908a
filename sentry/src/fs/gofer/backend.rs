//! Who carries out an operation on the host's tree: the Sentry itself (`directfs`), or a gofer process.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use quicksand_abi::Errno;
use quicksand_gofer::hostfs::{self, Access, Change, Entry, NewFile, Stat};

use super::node::{At, DirCache, Node};
use crate::vfs::inode::FsStat;

/// Operations on the host's tree. Names are single components; a place is given by its directory's node and its name.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Attributes of a place, and whether it is the root of one of the host's kernel interfaces.
    fn stat(&self, at: &At) -> Result<(Stat, bool), Errno>;
    fn open_file(&self, at: &At, access: Access) -> Result<OwnedFd, Errno>;
    fn open_dir(&self, node: &Arc<Node>) -> Result<Box<dyn DirReader>, Errno>;
    fn create(&self, at: &At, new: &NewFile, target: &[u8]) -> Result<(Stat, Option<OwnedFd>), Errno>;
    fn change(&self, at: &At, change: &Change) -> Result<(), Errno>;
    fn read_link(&self, at: &At) -> Result<Vec<u8>, Errno>;
    fn unlink(&self, at: &At, directory: bool) -> Result<(), Errno>;
    fn link(&self, from: &At, to: &At) -> Result<(), Errno>;
    fn rename(&self, from: &At, to: &At, exchange: bool) -> Result<(), Errno>;
    fn get_xattr(&self, at: &At, attr: &[u8]) -> Result<Vec<u8>, Errno>;
    fn set_xattr(&self, at: &At, attr: &[u8], value: &[u8], flags: u32) -> Result<(), Errno>;
    fn list_xattr(&self, at: &At) -> Result<Vec<u8>, Errno>;
    fn remove_xattr(&self, at: &At, attr: &[u8]) -> Result<(), Errno>;
    fn statfs(&self) -> Result<FsStat, Errno>;
}

/// An open directory of the host.
pub trait DirReader: Send + Sync + fmt::Debug {
    /// Emits entries from cookie `from` on until `emit` says false or the end.
    fn read(&self, from: u64, emit: &mut dyn FnMut(Entry<'_>) -> bool) -> Result<(), Errno>;
}

/// The Sentry opens files itself, below an `O_PATH` descriptor of the root.
#[derive(Debug)]
pub struct Direct {
    root: Arc<OwnedFd>,
    dirs: DirCache,
}

impl Direct {
    /// `root` is an `O_PATH` descriptor of a directory, or an open regular file (a bind mount of one).
    pub fn new(root: OwnedFd) -> Direct {
        let root = Arc::new(root);
        Direct { dirs: DirCache::new(root.clone()), root }
    }
    fn dir(&self, at: &At) -> Result<Arc<OwnedFd>, Errno> {
        self.dirs.get(&at.dir)
    }
    /// The root as a descriptor for `f…` calls.
    fn root_file(&self) -> Result<OwnedFd, Errno> {
        match hostfs::stat_fd(self.root.as_fd())?.kind() {
            libc::S_IFDIR => hostfs::reopen_dir(self.root.as_fd()),
            libc::S_IFREG => self.root.try_clone().map_err(Errno::from),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}

impl Backend for Direct {
    fn stat(&self, at: &At) -> Result<(Stat, bool), Errno> {
        if at.name.is_empty() {
            return Ok((hostfs::stat_fd(self.root.as_fd())?, false));
        }
        let dir = self.dir(at)?;
        let stat = hostfs::stat_at(dir.as_fd(), &at.name)?;
        let crosses = (stat.dev_major, stat.dev_minor) != (at.dir.identity.0, at.dir.identity.1);
        let sealed = crosses && hostfs::is_kernel_interface(dir.as_fd(), &at.name, &stat);
        Ok((stat, sealed))
    }
    fn open_file(&self, at: &At, access: Access) -> Result<OwnedFd, Errno> {
        if at.name.is_empty() {
            if access != Access::Read {
                let flags = rustix::fs::fcntl_getfl(&*self.root).map_err(hostfs::errno)?;
                if !flags.intersects(rustix::fs::OFlags::RDWR | rustix::fs::OFlags::WRONLY) {
                    return Err(Errno::EROFS);
                }
            }
            return self.root.try_clone().map_err(Errno::from);
        }
        hostfs::open_file(self.dir(at)?.as_fd(), &at.name, access)
    }
    fn open_dir(&self, node: &Arc<Node>) -> Result<Box<dyn DirReader>, Errno> {
        Ok(Box::new(HostDir(hostfs::reopen_dir(self.dirs.get(node)?.as_fd())?)))
    }
    fn create(&self, at: &At, new: &NewFile, target: &[u8]) -> Result<(Stat, Option<OwnedFd>), Errno> {
        hostfs::create(self.dir(at)?.as_fd(), &at.name, new, target)
    }
    fn change(&self, at: &At, change: &Change) -> Result<(), Errno> {
        if at.name.is_empty() {
            return hostfs::change_fd(self.root_file()?.as_fd(), change);
        }
        hostfs::change_at(self.dir(at)?.as_fd(), &at.name, change)
    }
    fn read_link(&self, at: &At) -> Result<Vec<u8>, Errno> {
        hostfs::read_link(self.dir(at)?.as_fd(), &at.name)
    }
    fn unlink(&self, at: &At, directory: bool) -> Result<(), Errno> {
        hostfs::unlink(self.dir(at)?.as_fd(), &at.name, directory)
    }
    fn link(&self, from: &At, to: &At) -> Result<(), Errno> {
        hostfs::link(self.dir(from)?.as_fd(), &from.name, self.dir(to)?.as_fd(), &to.name)
    }
    fn rename(&self, from: &At, to: &At, exchange: bool) -> Result<(), Errno> {
        let (from_dir, to_dir) = (self.dir(from)?, self.dir(to)?);
        hostfs::rename(from_dir.as_fd(), &from.name, to_dir.as_fd(), &to.name, exchange)
    }
    fn get_xattr(&self, at: &At, attr: &[u8]) -> Result<Vec<u8>, Errno> {
        if at.name.is_empty() {
            return hostfs::get_xattr_fd(self.root_file()?.as_fd(), attr);
        }
        hostfs::get_xattr(self.dir(at)?.as_fd(), &at.name, attr)
    }
    fn set_xattr(&self, at: &At, attr: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        if at.name.is_empty() {
            return hostfs::set_xattr_fd(self.root_file()?.as_fd(), attr, value, flags);
        }
        hostfs::set_xattr(self.dir(at)?.as_fd(), &at.name, attr, value, flags)
    }
    fn list_xattr(&self, at: &At) -> Result<Vec<u8>, Errno> {
        if at.name.is_empty() {
            return hostfs::list_xattr_fd(self.root_file()?.as_fd());
        }
        hostfs::list_xattr(self.dir(at)?.as_fd(), &at.name)
    }
    fn remove_xattr(&self, at: &At, attr: &[u8]) -> Result<(), Errno> {
        if at.name.is_empty() {
            return hostfs::remove_xattr_fd(self.root_file()?.as_fd(), attr);
        }
        hostfs::remove_xattr(self.dir(at)?.as_fd(), &at.name, attr)
    }
    fn statfs(&self) -> Result<FsStat, Errno> {
        let s = rustix::fs::fstatfs(&*self.root).map_err(hostfs::errno)?;
        Ok(FsStat {
            block_size: u64::try_from(s.f_bsize).unwrap_or(4096),
            blocks: s.f_blocks,
            free: s.f_bfree,
            available: s.f_bavail,
            files: s.f_files,
            files_free: s.f_ffree,
        })
    }
}

#[derive(Debug)]
struct HostDir(OwnedFd);

impl DirReader for HostDir {
    fn read(&self, from: u64, emit: &mut dyn FnMut(Entry<'_>) -> bool) -> Result<(), Errno> {
        hostfs::read_dir(self.0.as_fd(), from, 32 * 1024, emit)
    }
}
