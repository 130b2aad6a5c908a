//! devpts: the file system of pty slaves, one instance per mount (`Documentation/filesystems/devpts.rst`).

use std::collections::BTreeMap;
use std::sync::Arc;

use quicksand_abi::Errno;

use super::pty::{Master, Pty, SLAVE_MAJOR};
use crate::fs::dev;
use crate::fs::host::{HostSlave, HostTerminal};
use crate::fs::pseudo::{self, Directory, Perm};
use crate::kernel::Container;
use crate::sync::{Level, Mutex};
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;
use crate::time::Realtime;
use crate::vfs::inode::NoStorage;
use crate::vfs::{
    Attr, Dentry, DeviceId, FdFlags, FileKind, FileName, FileOps, Inode, InodeOps, OpenFile, OpenFlags,
    SetAttr, Superblock,
};

/// DEVPTS_SUPER_MAGIC.
const MAGIC: u64 = 0x1cd1;
/// `kernel.pty.max`.
const MAX: u32 = 4096;
/// The group `tty` of every distribution, which `grantpt` expects slaves to belong to.
const DEFAULT_GID: u32 = 5;

/// Mount options.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: u32,
    pub ptmx_mode: u32,
}

impl Options {
    /// Reads `gid=5,mode=620,ptmxmode=666`; what is unknown is EINVAL.
    pub fn parse(data: &[u8]) -> Result<Options, Errno> {
        let mut options = Options { uid: None, gid: Some(DEFAULT_GID), mode: 0o600, ptmx_mode: 0 };
        let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        for option in text.split(',').filter(|o| !o.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let decimal = || value.parse::<u32>().map_err(|_| Errno::EINVAL);
            let octal = || u32::from_str_radix(value, 8).map(|m| m & 0o7777).map_err(|_| Errno::EINVAL);
            match key {
                "uid" => options.uid = Some(decimal()?),
                "gid" => options.gid = Some(decimal()?),
                "mode" => options.mode = octal()?,
                "ptmxmode" => options.ptmx_mode = octal()?,
                "newinstance" => {}
                "max" => drop(decimal()?),
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(options)
    }
}

/// A terminal (`None`: one of the host's) and the inode of its slave.
type Slave = (Option<Arc<Pty>>, Arc<Inode>);

/// One instance.
#[derive(Debug)]
pub struct DevPts {
    sb: Arc<Superblock>,
    options: Options,
    /// The attributes of `ptmx`.
    ptmx: Mutex<Attr>,
    /// Slaves by number. One that is a terminal of the host has no pair here.
    ptys: Mutex<BTreeMap<u32, Slave>>,
}

impl DevPts {
    /// A fresh instance: itself, and its root directory.
    pub fn new(options: Options) -> (Arc<DevPts>, Arc<Dentry>) {
        let sb = Superblock::new("devpts", MAGIC, Box::new(NoStorage));
        let perm = Perm::root(options.ptmx_mode);
        let ptmx = Attr { rdev: dev::PTMX, ..pseudo::attr(FileKind::CharDevice, perm, 1) };
        let ptmx = Mutex::new(Level::Inode, ptmx);
        let devpts = Arc::new(DevPts { sb, options, ptmx, ptys: Mutex::new(Level::Object, BTreeMap::new()) });
        let dir = Arc::new(Root(devpts.clone()));
        let inode = pseudo::directory(&devpts.sb, 1, Perm::root(0o755), dir);
        (devpts, Dentry::new_root(inode, b"/"))
    }

    /// Opens `ptmx`: a new pair, its master's end.
    pub fn open_master(self: &Arc<Self>, task: &CurrentTask) -> Result<Box<dyn FileOps>, Errno> {
        let creds = task.creds();
        let mut ptys = self.ptys.lock();
        let index = (0..MAX).find(|i| !ptys.contains_key(i)).ok_or(Errno::ENOSPC)?;
        let pty = Pty::new(index, task, self);
        let owner = (creds.fsuid, creds.fsgid);
        let attr = self.slave_attr(index, owner, task.kernel().clocks.realtime());
        let node = SlaveInode { pty: pty.clone(), attr: Mutex::new(Level::Inode, attr) };
        let inode = Inode::new(&self.sb, u64::from(index) + 3, FileKind::CharDevice, Box::new(node));
        ptys.insert(index, (Some(pty.clone()), inode));
        drop(ptys);
        Ok(Box::new(Master::new(pty, self.clone())))
    }

    fn slave_attr(&self, index: u32, owner: (u32, u32), now: Realtime) -> Attr {
        let perm = Perm {
            perm: self.options.mode,
            uid: self.options.uid.unwrap_or(owner.0),
            gid: self.options.gid.unwrap_or(owner.1),
        };
        Attr {
            rdev: DeviceId::new(SLAVE_MAJOR, index),
            blksize: 1024,
            atime: now,
            mtime: now,
            ctime: now,
            ..pseudo::attr(FileKind::CharDevice, perm, 1)
        }
    }

    /// The instance whose root directory this is.
    pub(crate) fn at(root: &Inode) -> Option<Arc<DevPts>> {
        let ptmx = root.is_dir().then(|| root.ops.lookup(root, b"ptmx", None).ok()).flatten()?;
        ptmx.ops_as::<PtmxInode>().map(|ptmx| ptmx.0.clone())
    }
    pub(crate) fn superblock(&self) -> &Arc<Superblock> {
        &self.sb
    }
    /// The node of this number.
    pub(crate) fn node(&self, index: u32) -> Option<Arc<Inode>> {
        self.ptys.lock().get(&index).map(|(_, inode)| inode.clone())
    }
    /// The node of a pair's slave, as long as it has its name.
    pub(super) fn inode(&self, index: u32, pty: &Pty) -> Option<Arc<Inode>> {
        let ptys = self.ptys.lock();
        let (own, inode) = ptys.get(&index)?;
        own.as_ref().filter(|own| own.number() == pty.number()).map(|_| inode.clone())
    }
    /// Makes the node of a restored pair's slave: permissions, user and group; `named` gives it its name.
    pub(super) fn adopt_pair(
        &self,
        pty: &Arc<Pty>,
        (perm, uid, gid): (u32, u32, u32),
        named: bool,
    ) -> Result<Arc<Inode>, Errno> {
        let index = pty.index;
        let now = crate::vfs::now();
        let attr = Attr { perm, uid, gid, ..self.slave_attr(index, (uid, gid), now) };
        let node = SlaveInode { pty: pty.clone(), attr: Mutex::new(Level::Inode, attr) };
        let mut ptys = self.ptys.lock();
        if index >= MAX {
            return Err(Errno::EINVAL);
        }
        let inode = Inode::new(&self.sb, u64::from(index) + 3, FileKind::CharDevice, Box::new(node));
        if named {
            if ptys.contains_key(&index) {
                return Err(Errno::EEXIST);
            }
            ptys.insert(index, (Some(pty.clone()), inode.clone()));
        }
        Ok(inode)
    }

    /// Gives a terminal of the host a name here, as long as it is open.
    pub fn adopt(
        self: &Arc<Self>,
        terminal: &Arc<HostTerminal>,
        owner: (u32, u32),
        now: Realtime,
        wanted: Option<u32>,
    ) -> Result<(u32, Arc<Inode>), Errno> {
        let (index, inode) = {
            let mut ptys = self.ptys.lock();
            let mut free = wanted.into_iter().chain(0..MAX).filter(|i| *i < MAX && !ptys.contains_key(i));
            let index = free.next().ok_or(Errno::ENOSPC)?;
            let node = HostSlave::new(terminal, self.slave_attr(index, owner, now));
            let inode = Inode::new(&self.sb, u64::from(index) + 3, FileKind::CharDevice, Box::new(node));
            ptys.insert(index, (None, inode.clone()));
            (index, inode)
        };
        terminal.set_name(self, index);
        Ok((index, inode))
    }

    /// The master was closed: its slave's name goes.
    pub(crate) fn remove(&self, index: u32) {
        let gone = self.ptys.lock().remove(&index);
        drop(gone); // outside the lock
    }

    pub(super) fn slave(&self, index: u32) -> Option<Arc<Pty>> {
        self.ptys.lock().get(&index).and_then(|(pty, _)| pty.clone())
    }

    /// TIOCGPTPEER: opens the slave without any path.
    pub(super) fn open_peer(&self, pty: &Arc<Pty>, task: &CurrentTask, flags: u32) -> SyscallResult {
        let flags = OpenFlags::from_bits_retain(flags);
        let inode = self.ptys.lock().get(&pty.index).map(|(_, inode)| inode.clone()).ok_or(Errno::EIO)?;
        let ops = pty.open_slave(flags, task)?;
        let fd_flags = if flags.contains(OpenFlags::CLOEXEC) { FdFlags::CLOEXEC } else { FdFlags::empty() };
        let file = OpenFile::new_anonymous(
            inode,
            &format!("/dev/pts/{}", pty.index),
            ops,
            flags - OpenFlags::CLOEXEC,
        );
        Ok(task.install_fd(file, fd_flags)?.0 as usize)
    }
}

/// The root directory: `ptmx` and the slaves.
#[derive(Debug)]
struct Root(Arc<DevPts>);

impl Root {
    fn ptmx(&self) -> Arc<Inode> {
        let node = PtmxInode(self.0.clone());
        Inode::new(&self.0.sb, 2, FileKind::CharDevice, Box::new(node))
    }
}

impl Directory for Root {
    fn cookie(&self, position: u64, name: &FileName) -> u64 {
        pseudo::number_cookie(position, name)
    }
    fn lookup(&self, _: &Inode, name: &FileName, _: Option<&CurrentTask>) -> Result<Arc<Inode>, Errno> {
        if name == b"ptmx" {
            return Ok(self.ptmx());
        }
        let text = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let index: u32 = text.parse().map_err(|_| Errno::ENOENT)?;
        if index.to_string() != text {
            return Err(Errno::ENOENT);
        }
        self.0.ptys.lock().get(&index).map(|(_, inode)| inode.clone()).ok_or(Errno::ENOENT)
    }
    fn entries(&self, _: &Inode, _: &CurrentTask) -> Result<Vec<(Vec<u8>, u64, FileKind)>, Errno> {
        let mut all = vec![(b"ptmx".to_vec(), 2, FileKind::CharDevice)];
        for (index, (_, inode)) in self.0.ptys.lock().iter() {
            all.push((index.to_string().into_bytes(), inode.ino, FileKind::CharDevice));
        }
        Ok(all)
    }
}

/// `ptmx` of an instance.
#[derive(Debug)]
pub(super) struct PtmxInode(pub(super) Arc<DevPts>);

impl InodeOps for PtmxInode {
    fn attr(&self, _: &Inode) -> Result<Attr, Errno> {
        Ok(self.0.ptmx.lock().clone())
    }
    fn set_attr(&self, _: &Inode, set: &SetAttr) -> Result<(), Errno> {
        pseudo::change(&mut self.0.ptmx.lock(), set);
        Ok(())
    }
}

/// A slave's node.
#[derive(Debug)]
pub(super) struct SlaveInode {
    pub(super) pty: Arc<Pty>,
    attr: Mutex<Attr>,
}

impl InodeOps for SlaveInode {
    fn attr(&self, _: &Inode) -> Result<Attr, Errno> {
        Ok(self.attr.lock().clone())
    }
    fn set_attr(&self, _: &Inode, set: &SetAttr) -> Result<(), Errno> {
        pseudo::change(&mut self.attr.lock(), set);
        Ok(())
    }
}

/// The instance that device nodes outside any devpts belong to.
pub fn of_container(container: &Container) -> Result<Arc<DevPts>, Errno> {
    container.devpts().ok_or(Errno::ENODEV)
}
