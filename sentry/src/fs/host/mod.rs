//! Descriptors that a container is given from outside: standard input, output and error, whatever they are on the host.
//!
//! A host pipe, socket, terminal or file becomes an open file of the guest. Its own host inode is behind `fstat`, so a guest
//! sees what it would see without us.
//!
//! Invariants: a `FileOps` here never waits on the host, though the host's open file may be shared with processes that
//! rely on its blocking: it is never switched to O_NONBLOCK. Sockets are read with `MSG_DONTWAIT`; pipes and terminals
//! are asked for readiness first, and written in pieces that a ready one takes without waiting.

mod file;
mod tty;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use quicksand_abi::Errno;
use quicksand_gofer::hostfs;

use crate::fs::tty::devpts::DevPts;
use crate::kernel::Kernel;
use crate::sync::{Events, WaitQueue};
use crate::task::CurrentTask;
use crate::time::Realtime;
use crate::vfs::inode::NoStorage;
use crate::vfs::{
    Attr, DeviceId, FileKind, FileOps, Inode, InodeOps, OpenFile, OpenFlags, SetAttr, Superblock,
};

use file::HostFile;
pub use tty::{HostSlave, HostTerminal, HostTty};

/// `ANON_INODE_FS_MAGIC`: what `fstatfs` says of an imported descriptor.
const MAGIC: u64 = 0x0904_1934;

/// Makes the open file for a host descriptor.
pub fn import(kernel: &Arc<Kernel>, fd: OwnedFd) -> Result<Arc<OpenFile>, Errno> {
    let stat = hostfs::stat_fd(fd.as_fd())?;
    let flags = rustix::fs::fcntl_getfl(&fd).map_err(hostfs::errno)?;
    let kind = FileKind::from_mode(stat.mode);
    // The host's access mode is the guest's; O_APPEND makes the VFS append.
    let wanted = OpenFlags::WRONLY | OpenFlags::RDWR | OpenFlags::APPEND;
    let guest_flags = OpenFlags::from_bits_truncate(flags.bits()) & wanted;
    let is_tty = kind == FileKind::CharDevice && rustix::termios::isatty(&fd);
    let shared = Arc::new(Shared::new(fd, kind));
    let device = DeviceId::new(stat.rdev_major, stat.rdev_minor);
    let terminal = is_tty.then(|| HostTerminal::of(&shared, device, kernel));
    let position = match kind {
        FileKind::Regular | FileKind::BlockDevice => rustix::fs::tell(&shared.fd).unwrap_or(0),
        _ => 0,
    };
    let sb = Superblock::new("hostfs", MAGIC, Box::new(NoStorage));
    let inode = Inode::new(
        &sb,
        stat.ino,
        kind,
        Box::new(HostInode { shared: shared.clone(), terminal: terminal.clone() }),
    );
    let name = match kind {
        FileKind::Fifo => format!("pipe:[{}]", stat.ino),
        FileKind::Socket => format!("socket:[{}]", stat.ino),
        _ if is_tty => "/dev/console".to_owned(),
        _ => format!("host:[{}]", stat.ino),
    };
    let ops = open_shared(&shared, terminal.as_ref(), position);
    let file = OpenFile::new_anonymous(inode, &name, ops, guest_flags);
    *file.offset.lock() = position;
    Ok(file)
}

/// Makes the open file for a terminal of the host, under a name in the container's devpts: `wanted`, or the first that is
/// free.
pub fn import_terminal(
    kernel: &Arc<Kernel>,
    fd: OwnedFd,
    devpts: &Arc<DevPts>,
    owner: (u32, u32),
    wanted: Option<u32>,
) -> Result<Arc<OpenFile>, Errno> {
    let shared = Arc::new(Shared::new(fd, FileKind::CharDevice));
    let terminal = HostTerminal::new(shared.clone(), DeviceId::default(), kernel);
    let (index, inode) = devpts.adopt(&terminal, owner, kernel.clocks.realtime(), wanted)?;
    let ops = Box::new(HostTty::new(terminal, shared));
    Ok(OpenFile::new_anonymous(inode, &format!("/dev/pts/{index}"), ops, OpenFlags::RDWR))
}

fn open_shared(
    shared: &Arc<Shared>,
    terminal: Option<&Arc<HostTerminal>>,
    position: u64,
) -> Box<dyn FileOps> {
    match terminal {
        Some(terminal) => Box::new(HostTty::new(terminal.clone(), shared.clone())),
        None => Box::new(HostFile::new(shared.clone(), position)),
    }
}

/// The host descriptor behind an inode and all its open files.
#[derive(Debug)]
pub struct Shared {
    pub fd: Arc<OwnedFd>,
    pub kind: FileKind,
    /// Whether reads and writes may wait: for sockets never (MSG_DONTWAIT), else as the host's flags say.
    pub may_wait: bool,
    queue: Arc<WaitQueue>,
    interest: OnceLock<Option<crate::host_poll::HostInterest>>,
}

impl Shared {
    fn new(fd: OwnedFd, kind: FileKind) -> Shared {
        let nonblocking =
            rustix::fs::fcntl_getfl(&fd).is_ok_and(|f| f.contains(rustix::fs::OFlags::NONBLOCK));
        Shared {
            fd: Arc::new(fd),
            kind,
            may_wait: !nonblocking,
            queue: WaitQueue::new(),
            interest: OnceLock::new(),
        }
    }
    /// What the host says is ready now.
    pub fn ready(&self) -> Events {
        use rustix::event::{PollFd, PollFlags, poll};
        let all = PollFlags::IN
            | PollFlags::PRI
            | PollFlags::OUT
            | PollFlags::RDNORM
            | PollFlags::WRNORM
            | PollFlags::RDHUP;
        let mut fds = [PollFd::new(&*self.fd, all)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, Some(&now)) {
            Ok(_) => Events::from_bits_truncate(u32::from(fds[0].revents().bits())),
            Err(_) => Events::ERR,
        }
    }
    /// The queue that is notified when [`Shared::ready`] changes; `None` where the host cannot tell, and the file is always
    /// ready.
    pub fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        let events = Events::READABLE | Events::WRITABLE | Events::PRI | Events::RDHUP;
        let register = || match crate::host_poll::register(self.fd.clone(), events, self.queue.clone()) {
            Ok(interest) => Some(interest),
            Err(Errno::EPERM) => None,
            Err(e) => {
                tracing::warn!("a host descriptor cannot be waited for: {e:?}");
                None
            }
        };
        self.interest.get_or_init(register).as_ref().map(|_| self.queue.clone())
    }
}

/// The host's inode.
#[derive(Debug)]
struct HostInode {
    shared: Arc<Shared>,
    terminal: Option<Arc<HostTerminal>>,
}

impl InodeOps for HostInode {
    fn attr(&self, inode: &Inode) -> Result<Attr, Errno> {
        let s = hostfs::stat_fd(self.shared.fd.as_fd())?;
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
            atime: Realtime(s.atime_ns),
            mtime: Realtime(s.mtime_ns),
            ctime: Realtime(s.ctime_ns),
            btime: (s.btime_ns != 0).then_some(Realtime(s.btime_ns)),
        })
    }
    fn set_attr(&self, inode: &Inode, set: &SetAttr) -> Result<(), Errno> {
        // Of a file that was handed in, the guest may change what its descriptor allows: the size of a regular file.
        match set.size {
            Some(size) if inode.kind == FileKind::Regular => {
                rustix::fs::ftruncate(&*self.shared.fd, size).map_err(hostfs::errno)
            }
            _ => Err(Errno::EPERM),
        }
    }
    fn opens_itself(&self) -> bool {
        true
    }
    fn open(&self, _: &Arc<Inode>, _: OpenFlags, _: &CurrentTask) -> Result<Box<dyn FileOps>, Errno> {
        // `/proc/self/fd/1`, `/dev/stdout`.
        match self.shared.kind {
            FileKind::Socket => Err(Errno::ENXIO),
            _ => Ok(open_shared(&self.shared, self.terminal.as_ref(), 0)),
        }
    }
}
