//! Nameless files: the pseudo file systems behind pipes, sockets, and anonymous inodes (eventfd, epoll, …).
//!
//! Linux has one kernel-internal mount for each of `pipefs`, `sockfs` and `anon_inodefs`. A pipe or socket has an inode of
//! its own; all other nameless files share a single one. Their names exist only in `/proc/PID/fd`: `pipe:[7]`,
//! `socket:[8]`, `anon_inode:[eventfd]`.

use std::fmt;
use std::sync::Arc;

use quicksand_abi::Errno;

use crate::sync::{Level, Mutex};
use crate::task::CurrentTask;
use crate::time::Realtime;
use crate::vfs::inode::NoStorage;
use crate::vfs::{
    Attr, DeviceId, FileKind, FileOps, Inode, InodeOps, OpenFile, OpenFlags, SetAttr, Superblock,
};

const PIPEFS_MAGIC: u64 = 0x5049_5045;
const SOCKFS_MAGIC: u64 = 0x534f_434b;
const ANON_INODE_FS_MAGIC: u64 = 0x0904_1934;

/// The superblocks of nameless files. One per kernel.
pub struct AnonFs {
    pub pipefs: Arc<Superblock>,
    pub sockfs: Arc<Superblock>,
    anon_inode: Arc<Inode>,
}

impl Default for AnonFs {
    fn default() -> AnonFs {
        let sb = |name, magic| Superblock::new(name, magic, Box::new(NoStorage));
        let anon = sb("anon_inodefs", ANON_INODE_FS_MAGIC);
        let ops = NamelessInode::new(FileKind::Anonymous, 0o600, (0, 0), Realtime(0), false);
        let sockfs = sb("sockfs", SOCKFS_MAGIC);
        // As no Linux has numbers of one digit there, netstat(8) does not understand them.
        sockfs.start_inos_at(1000);
        AnonFs {
            pipefs: sb("pipefs", PIPEFS_MAGIC),
            sockfs,
            anon_inode: Inode::new(&anon, anon.next_ino(), FileKind::Anonymous, Box::new(ops)),
        }
    }
}

impl AnonFs {
    /// A file on the shared anonymous inode. `class` is the name in brackets: `eventfd`, `eventpoll`, ….
    pub fn file(&self, class: &str, ops: Box<dyn FileOps>, flags: OpenFlags) -> Arc<OpenFile> {
        OpenFile::new_anonymous(self.anon_inode.clone(), &format!("anon_inode:[{class}]"), ops, flags)
    }

    /// A new socket inode, owned by `task`'s file-system ids.
    pub fn socket_inode(&self, task: &CurrentTask) -> Arc<Inode> {
        let creds = task.creds();
        let now = task.kernel().clocks.realtime();
        let ops = NamelessInode::new(FileKind::Socket, 0o777, (creds.fsuid, creds.fsgid), now, true);
        Inode::new(&self.sockfs, self.sockfs.next_ino(), FileKind::Socket, Box::new(ops))
    }
}

impl fmt::Debug for AnonFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnonFs")
    }
}

/// The attributes of a nameless inode.
pub struct NamelessInode {
    attr: Mutex<Attr>,
    settable: bool,
}

impl NamelessInode {
    /// `settable` says whether `fchmod` and `fchown` work, as they do for pipes and sockets.
    pub fn new(kind: FileKind, perm: u32, owner: (u32, u32), now: Realtime, settable: bool) -> NamelessInode {
        let attr = Attr {
            kind,
            perm,
            nlink: 1,
            uid: owner.0,
            gid: owner.1,
            rdev: DeviceId::default(),
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: now,
            mtime: now,
            ctime: now,
            btime: None,
        };
        NamelessInode { attr: Mutex::new(Level::Inode, attr), settable }
    }

    pub fn get(&self) -> Attr {
        self.attr.lock().clone()
    }

    pub fn set(&self, set: &SetAttr) -> Result<(), Errno> {
        if !self.settable {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut attr = self.attr.lock();
        attr.perm = set.perm.unwrap_or(attr.perm);
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
        attr.atime = set.atime.unwrap_or(attr.atime);
        attr.mtime = set.mtime.unwrap_or(attr.mtime);
        Ok(())
    }
}

impl InodeOps for NamelessInode {
    fn attr(&self, _: &Inode) -> Result<Attr, Errno> {
        Ok(self.get())
    }
    fn set_attr(&self, _: &Inode, set: &SetAttr) -> Result<(), Errno> {
        self.set(set)
    }
}

impl fmt::Debug for NamelessInode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NamelessInode")
    }
}
