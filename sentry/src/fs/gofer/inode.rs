//! Host files as inodes.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use quicksand_abi::Errno;
use quicksand_gofer::hostfs::{self, Access, Change, NewFile, Stat};

use super::Options;
use super::backend::Backend;
use super::file::{HostDirectory, HostRegular};
use super::node::{At, Node};
use crate::sync::{Level, Mutex};
use crate::task::CurrentTask;
use crate::time::Realtime;
use crate::vfs::inode::Rename;
use crate::vfs::{
    Attr, DeviceId, FileKind, FileName, FileOps, HostMapping, Inode, InodeOps, LinkTarget, NewNode,
    OpenFlags, Owner, SetAttr, Superblock,
};

/// One mounted host tree.
#[derive(Debug)]
pub struct Tree {
    pub backend: Arc<dyn Backend>,
    options: Options,
    /// Inodes in use, by the host's device and inode number: hard links lead to one inode.
    inodes: Mutex<HashMap<(u32, u32, u64), Weak<Inode>>>,
    /// Devices below the root, the root's own first: inode numbers of the others are told apart by their place here.
    devices: Mutex<Vec<(u32, u32)>>,
    /// The descriptor that the last `create` made, until the open that follows takes it over.
    created: Mutex<Option<Arc<OwnedFd>>>,
}

impl Tree {
    pub fn new(backend: Arc<dyn Backend>, options: Options) -> Arc<Tree> {
        Arc::new(Tree {
            backend,
            options,
            inodes: Mutex::new(Level::Leaf, HashMap::new()),
            devices: Mutex::new(Level::Leaf, Vec::new()),
            created: Mutex::new(Level::Leaf, None),
        })
    }

    pub fn root(self: &Arc<Tree>, sb: &Arc<Superblock>) -> Result<Arc<Inode>, Errno> {
        // The root's backend call ignores the directory, so any node will do for the question.
        let question = At { dir: Node::root(Stat::default()), name: Box::default() };
        let (stat, _) = self.backend.stat(&question)?;
        Ok(self.inode(sb, Node::root(stat), &stat))
    }

    /// The inode number that the guest sees: the host's, where it lies on the root's device.
    pub fn guest_ino(&self, dev: (u32, u32), ino: u64) -> u64 {
        let mut devices = self.devices.lock();
        let index = devices.iter().position(|d| *d == dev).unwrap_or_else(|| {
            devices.push(dev);
            devices.len() - 1
        });
        ino ^ ((index as u64) << 48)
    }

    /// The inode for what was found at `node`: the one in use, if there is one.
    fn inode(self: &Arc<Tree>, sb: &Arc<Superblock>, node: Arc<Node>, stat: &Stat) -> Arc<Inode> {
        let key = stat.identity();
        let kind = FileKind::from_mode(stat.mode);
        let known = self.inodes.lock().get(&key).and_then(Weak::upgrade);
        // The host may have given a removed file's number to another one.
        if let Some(inode) = known.filter(|i| i.kind == kind)
            && let Some(ops) = inode.ops_as::<HostInode>()
        {
            let at = node.at();
            if kind != FileKind::Directory && !at.name.is_empty() {
                ops.node.move_to(&at.dir, &at.name);
            }
            if self.options.exclusive {
                ops.node.set_stat(Some(*stat));
            }
            return inode;
        }
        let ino = self.guest_ino((stat.dev_major, stat.dev_minor), stat.ino);
        let ops = HostInode { tree: self.clone(), node };
        let inode = Inode::new(sb, ino, kind, Box::new(ops));
        let old = self.inodes.lock().insert(key, Arc::downgrade(&inode));
        drop(old);
        inode
    }

    /// What the host says of `node` now; ESTALE where another file is in its place.
    pub fn stat(&self, node: &Arc<Node>) -> Result<Stat, Errno> {
        if self.options.exclusive
            && let Some(stat) = node.cached_stat()
        {
            return Ok(stat);
        }
        let stat = match node.any_fd() {
            Some(fd) => hostfs::stat_fd(fd.as_fd())?,
            None => self.backend.stat(&node.at())?.0,
        };
        if stat.identity() != node.identity {
            return Err(Errno::ESTALE);
        }
        if self.options.exclusive {
            node.set_stat(Some(stat));
        }
        Ok(stat)
    }

    /// A descriptor of a regular file, shared with whoever has one of the kind open.
    pub fn open_fd(&self, node: &Arc<Node>, write: bool) -> Result<Arc<OwnedFd>, Errno> {
        {
            let files = node.files.lock();
            let found =
                if write { files.write.upgrade() } else { files.read.upgrade().or(files.write.upgrade()) };
            if let Some(fd) = found {
                return Ok(fd);
            }
            if let Some(fd) = &files.pinned {
                // It has no name any more; this is what there is.
                return if write { Err(Errno::EACCES) } else { Ok(fd.clone()) };
            }
        }
        let at = node.at();
        let mut shareable = true;
        let opened = if write {
            // Reading back is needed for shared mappings, and for other openers.
            match self.backend.open_file(&at, Access::ReadWrite) {
                Err(Errno::EACCES) => {
                    shareable = false;
                    self.backend.open_file(&at, Access::Write)?
                }
                other => other?,
            }
        } else {
            self.backend.open_file(&at, Access::Read)?
        };
        let opened = Arc::new(opened);
        if hostfs::stat_fd(opened.as_fd())?.identity() != node.identity {
            return Err(Errno::ESTALE);
        }
        if shareable {
            let mut files = node.files.lock();
            let slot = if write { &mut files.write } else { &mut files.read };
            *slot = Arc::downgrade(&opened);
        }
        Ok(opened)
    }
}

/// A host file as an inode.
#[derive(Debug)]
pub struct HostInode {
    pub tree: Arc<Tree>,
    pub node: Arc<Node>,
}

impl Drop for HostInode {
    fn drop(&mut self) {
        let mut inodes = self.tree.inodes.lock();
        if inodes.get(&self.node.identity).is_some_and(|weak| weak.strong_count() == 0) {
            inodes.remove(&self.node.identity);
        }
    }
}

impl HostInode {
    fn child(&self, name: &FileName) -> At {
        At { dir: self.node.clone(), name: name.into() }
    }
    /// The directory changed: what is cached of it is no longer true.
    fn touched(&self) {
        self.node.set_stat(None);
    }
    /// Keeps a way to a file that is about to lose its name, where the guest still uses it.
    fn pin(&self, target: &Arc<Inode>) {
        let Some(ops) = target.ops_as::<HostInode>() else { return };
        if target.kind != FileKind::Regular {
            return;
        }
        let fd = self.tree.open_fd(&ops.node, true).or_else(|_| self.tree.open_fd(&ops.node, false));
        if let Ok(fd) = fd {
            ops.node.files.lock().pinned = Some(fd);
        }
        ops.node.set_stat(None);
    }
    /// Runs `change` on an open descriptor where there is one, else by name.
    fn change(&self, change: &Change) -> Result<(), Errno> {
        let writable = self.node.files.lock().write.upgrade();
        let any = if change.set & Change::SIZE != 0 { writable } else { self.node.any_fd() };
        let result = match any {
            Some(fd) => hostfs::change_fd(fd.as_fd(), change),
            None => self.tree.backend.change(&self.node.at(), change),
        };
        self.node.set_stat(None);
        result
    }
    /// Only `user.` attributes are the guest's, and file capabilities can be looked at: the others mean something to the
    /// host.
    fn xattr_is_served(name: &[u8], write: bool) -> bool {
        name.starts_with(b"user.") || (!write && name == b"security.capability")
    }
}

fn realtime(ns: i64) -> Realtime {
    Realtime(ns)
}

impl InodeOps for HostInode {
    fn attr(&self, inode: &Inode) -> Result<Attr, Errno> {
        let s = self.tree.stat(&self.node)?;
        Ok(Attr {
            kind: inode.kind,
            perm: s.mode & 0o7777,
            nlink: s.nlink,
            uid: s.uid,
            gid: s.gid,
            rdev: DeviceId::new(s.rdev_major, s.rdev_minor),
            size: s.size,
            blocks: s.blocks,
            blksize: s.blksize,
            atime: realtime(s.atime_ns),
            mtime: realtime(s.mtime_ns),
            ctime: realtime(s.ctime_ns),
            btime: (s.btime_ns != 0).then_some(Realtime(s.btime_ns)),
        })
    }

    fn set_attr(&self, _: &Inode, set: &SetAttr) -> Result<(), Errno> {
        let mut change = Change::default();
        let mut field = |bit: u32, given: bool| change.set |= if given { bit } else { 0 };
        field(Change::PERM, set.perm.is_some());
        field(Change::UID, set.uid.is_some());
        field(Change::GID, set.gid.is_some());
        field(Change::SIZE, set.size.is_some());
        field(Change::ATIME, set.atime.is_some());
        field(Change::MTIME, set.mtime.is_some());
        change.perm = set.perm.unwrap_or(0);
        change.uid = set.uid.unwrap_or(0);
        change.gid = set.gid.unwrap_or(0);
        change.size = set.size.unwrap_or(0);
        change.atime_ns = set.atime.map_or(0, |t| t.0);
        change.mtime_ns = set.mtime.map_or(0, |t| t.0);
        self.change(&change)
    }

    fn lookup(&self, dir: &Inode, name: &FileName, _: Option<&CurrentTask>) -> Result<Arc<Inode>, Errno> {
        if self.node.sealed {
            return Err(Errno::ENOENT);
        }
        let (stat, sealed) = self.tree.backend.stat(&self.child(name))?;
        let node = Node::child(&self.node, name, stat, sealed);
        Ok(self.tree.inode(&dir.sb, node, &stat))
    }

    fn create(
        &self,
        dir: &Inode,
        name: &FileName,
        node: NewNode<'_>,
        owner: Owner,
    ) -> Result<Arc<Inode>, Errno> {
        let (kind, rdev, target) = match node {
            NewNode::Regular => (libc::S_IFREG, DeviceId::default(), &[][..]),
            NewNode::Directory => (libc::S_IFDIR, DeviceId::default(), &[][..]),
            NewNode::Symlink(target) => (libc::S_IFLNK, DeviceId::default(), target),
            NewNode::Fifo => (libc::S_IFIFO, DeviceId::default(), &[][..]),
            NewNode::Socket => (libc::S_IFSOCK, DeviceId::default(), &[][..]),
            NewNode::CharDevice(dev) => (libc::S_IFCHR, dev, &[][..]),
            NewNode::BlockDevice(dev) => (libc::S_IFBLK, dev, &[][..]),
        };
        let new = NewFile {
            mode: kind | (owner.perm & 0o7777),
            uid: owner.uid,
            gid: owner.gid,
            rdev_major: rdev.major,
            rdev_minor: rdev.minor,
        };
        if self.node.sealed {
            return Err(Errno::EROFS);
        }
        let (stat, fd) = self.tree.backend.create(&self.child(name), &new, target)?;
        self.touched();
        let node = Node::child(&self.node, name, stat, false);
        let inode = self.tree.inode(&dir.sb, node, &stat);
        if let (Some(fd), Some(ops)) = (fd, inode.ops_as::<HostInode>()) {
            let fd = Arc::new(fd);
            ops.node.files.lock().write = Arc::downgrade(&fd);
            let old = self.tree.created.lock().replace(fd);
            drop(old);
        }
        Ok(inode)
    }

    fn link(&self, _: &Inode, name: &FileName, target: &Arc<Inode>) -> Result<(), Errno> {
        let ops = target.ops_as::<HostInode>().ok_or(Errno::EXDEV)?;
        self.tree.backend.link(&ops.node.at(), &self.child(name))?;
        ops.node.set_stat(None);
        self.touched();
        Ok(())
    }

    fn unlink(&self, _: &Inode, name: &FileName, target: &Arc<Inode>) -> Result<(), Errno> {
        self.pin(target);
        self.tree.backend.unlink(&self.child(name), false)?;
        self.touched();
        Ok(())
    }

    fn rmdir(&self, _: &Inode, name: &FileName, _: &Arc<Inode>) -> Result<(), Errno> {
        self.tree.backend.unlink(&self.child(name), true)?;
        self.touched();
        Ok(())
    }

    fn rename(&self, _: &Inode, rename: &Rename<'_>) -> Result<(), Errno> {
        let new_dir = rename.new_dir.ops_as::<HostInode>().ok_or(Errno::EXDEV)?;
        let moved = rename.moved.ops_as::<HostInode>().ok_or(Errno::EXDEV)?;
        let replaced = rename.replaced.and_then(|i| i.ops_as::<HostInode>());
        if let (Some(inode), false) = (rename.replaced, rename.exchange) {
            self.pin(inode);
        }
        let (from, to) = (self.child(rename.name), new_dir.child(rename.new_name));
        self.tree.backend.rename(&from, &to, rename.exchange)?;
        moved.node.move_to(&new_dir.node, rename.new_name);
        moved.node.set_stat(None);
        if let (Some(other), true) = (replaced, rename.exchange) {
            other.node.move_to(&self.node, rename.name);
            other.node.set_stat(None);
        }
        self.touched();
        new_dir.touched();
        Ok(())
    }

    fn read_link(&self, _: &Inode, _: Option<&CurrentTask>) -> Result<LinkTarget, Errno> {
        self.tree.backend.read_link(&self.node.at()).map(LinkTarget::Path)
    }

    fn open(&self, inode: &Arc<Inode>, flags: OpenFlags, _: &CurrentTask) -> Result<Box<dyn FileOps>, Errno> {
        match inode.kind {
            FileKind::Regular => {
                let fd = self.tree.open_fd(&self.node, flags.can_write())?;
                // Where this file was just created, the open file holds its descriptor from now on.
                let created = self.tree.created.lock().take();
                drop(created);
                let cached = self.tree.options.exclusive;
                Ok(Box::new(HostRegular::new(self.node.clone(), fd, flags.can_write(), cached)))
            }
            FileKind::Directory => {
                let reader = match self.node.sealed {
                    true => None,
                    false => Some(self.tree.backend.open_dir(&self.node)?),
                };
                Ok(Box::new(HostDirectory::new(self.tree.clone(), self.node.clone(), reader)))
            }
            _ => Err(Errno::ENXIO),
        }
    }

    fn host_file(&self, _: &Inode) -> Result<HostMapping, Errno> {
        Ok(HostMapping { fd: self.tree.open_fd(&self.node, false)?, offset: 0, writable: false })
    }

    fn cache_children(&self) -> bool {
        self.tree.options.exclusive
    }

    fn get_xattr(&self, _: &Inode, name: &[u8]) -> Result<Vec<u8>, Errno> {
        if !HostInode::xattr_is_served(name, false) {
            return Err(if name.starts_with(b"system.") { Errno::EOPNOTSUPP } else { Errno::ENODATA });
        }
        match self.node.any_fd() {
            Some(fd) => hostfs::get_xattr_fd(fd.as_fd(), name),
            None => self.tree.backend.get_xattr(&self.node.at(), name),
        }
    }
    fn set_xattr(&self, _: &Inode, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        if !HostInode::xattr_is_served(name, true) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.node.set_stat(None);
        match self.node.any_fd() {
            Some(fd) => hostfs::set_xattr_fd(fd.as_fd(), name, value, flags),
            None => self.tree.backend.set_xattr(&self.node.at(), name, value, flags),
        }
    }
    fn list_xattr(&self, _: &Inode) -> Result<Vec<Vec<u8>>, Errno> {
        let names = match self.node.any_fd() {
            Some(fd) => hostfs::list_xattr_fd(fd.as_fd()),
            None => self.tree.backend.list_xattr(&self.node.at()),
        };
        let names = match names {
            Err(Errno::EOPNOTSUPP) => Vec::new(),
            other => other?,
        };
        let all = names.split(|b| *b == 0).filter(|n| HostInode::xattr_is_served(n, false));
        Ok(all.map(<[u8]>::to_vec).collect())
    }
    fn remove_xattr(&self, _: &Inode, name: &[u8]) -> Result<(), Errno> {
        if !HostInode::xattr_is_served(name, true) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.node.set_stat(None);
        match self.node.any_fd() {
            Some(fd) => hostfs::remove_xattr_fd(fd.as_fd(), name),
            None => self.tree.backend.remove_xattr(&self.node.at(), name),
        }
    }
}
