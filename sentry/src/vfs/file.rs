//! Open files (open file descriptions).

use std::any::Any;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use quicksand_abi::Errno;

use super::inode::{FileKind, Inode, Superblock};
use super::io::{IoDst, IoSrc};
use super::mount::Path;
use super::notify;
use crate::sync::{Events, Level, Mutex, WaitQueue};
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;

bitflags::bitflags! {
    /// `open(2)` flags. The access mode is in the two lowest bits: see [`OpenFlags::can_read`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct OpenFlags: u32 {
        const WRONLY = libc::O_WRONLY as u32;
        const RDWR = libc::O_RDWR as u32;
        const CREAT = libc::O_CREAT as u32;
        const EXCL = libc::O_EXCL as u32;
        const NOCTTY = libc::O_NOCTTY as u32;
        const TRUNC = libc::O_TRUNC as u32;
        const APPEND = libc::O_APPEND as u32;
        const NONBLOCK = libc::O_NONBLOCK as u32;
        const DSYNC = libc::O_DSYNC as u32;
        const ASYNC = libc::O_ASYNC as u32;
        const DIRECT = libc::O_DIRECT as u32;
        const LARGEFILE = 0o100000;
        const DIRECTORY = libc::O_DIRECTORY as u32;
        const NOFOLLOW = libc::O_NOFOLLOW as u32;
        const NOATIME = libc::O_NOATIME as u32;
        const CLOEXEC = libc::O_CLOEXEC as u32;
        const SYNC_BIT = 0o4000000;
        const PATH = libc::O_PATH as u32;
        const TMPFILE_BIT = 0o20000000;
    }
}

impl OpenFlags {
    pub fn can_read(self) -> bool {
        !self.contains(OpenFlags::PATH) && matches!(self.bits() & 3, 0 | 2)
    }
    pub fn can_write(self) -> bool {
        !self.contains(OpenFlags::PATH) && matches!(self.bits() & 3, 1 | 2)
    }
}

/// Where to seek.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekFrom {
    Start(i64),
    Current(i64),
    End(i64),
    Data(i64),
    Hole(i64),
}

/// A directory entry, as a file system emits it.
#[derive(Debug)]
pub struct DirEntry<'a> {
    pub ino: u64,
    pub kind: FileKind,
    pub name: &'a [u8],
    /// The cookie to go on from after this entry (`d_off`).
    pub next: u64,
}

/// Takes directory entries until it is full.
pub trait DirSink {
    /// False where the entry does not fit: stop, and do not advance past it.
    fn emit(&mut self, entry: DirEntry<'_>) -> bool;
}

/// What the host maps for a guest's `mmap` of a file.
#[derive(Debug)]
pub struct HostMapping {
    /// A host file or memfd.
    pub fd: Arc<OwnedFd>,
    /// The host offset that corresponds to the requested file offset.
    pub offset: u64,
    /// Whether the descriptor allows a writable shared mapping.
    pub writable: bool,
}

/// What an open file does. Every operation is a *try*: EAGAIN says that it would have to wait for what
/// [`FileOps::poll`] reports. Defaults are what Linux answers where a `file_operations` entry is missing. Checks of the
/// access mode are done by the VFS.
pub trait FileOps: Any + Send + Sync + fmt::Debug {
    /// Reads at `offset` (streams ignore it). 0 at the end.
    fn read(
        &self,
        _file: &OpenFile,
        _task: &CurrentTask,
        _dst: &mut IoDst<'_>,
        _offset: u64,
    ) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }
    /// Writes at `offset` (streams ignore it). For O_APPEND files the VFS calls [`FileOps::append`] instead.
    fn write(
        &self,
        _file: &OpenFile,
        _task: &CurrentTask,
        _src: &mut IoSrc<'_>,
        _offset: u64,
    ) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }
    /// Writes at the end, atomically; returns bytes written and the offset after them.
    fn append(
        &self,
        file: &OpenFile,
        task: &CurrentTask,
        src: &mut IoSrc<'_>,
    ) -> Result<(usize, u64), Errno> {
        let end = file.inode.attr()?.size;
        let n = self.write(file, task, src, end)?;
        Ok((n, end.saturating_add(n as u64)))
    }
    /// Whether a blocking write goes on until all is written (pipes, ttys, stream sockets). Where not, one try that moved
    /// something is the answer.
    fn writes_all(&self) -> bool {
        false
    }
    /// How long a blocking read or write waits at most (SO_RCVTIMEO, SO_SNDTIMEO).
    fn timeout(&self, _file: &OpenFile, _write: bool) -> Option<std::time::Duration> {
        None
    }
    /// Whether the file has no position (pipes, sockets, ttys): `pread` answers ESPIPE, and so does `lseek` where
    /// [`FileOps::seek`] does not say otherwise.
    fn is_stream(&self) -> bool {
        false
    }
    /// Whether `pwrite` has a meaning here (FMODE_PWRITE); else it answers ESPIPE.
    fn can_pwrite(&self) -> bool {
        !self.is_stream()
    }
    /// Whether data can be spliced out of the file (`splice_read`), or with `write` into it (`splice_write`).
    fn can_splice(&self, _write: bool) -> bool {
        !self.is_stream()
    }
    /// What ends the wait of a blocking read besides data: terminals have timers (VTIME).
    fn read_timer(&self, _file: &OpenFile) -> Option<ReadTimer> {
        None
    }
    /// Where a seek leads; the VFS checks the range and moves the position.
    fn seek(&self, file: &OpenFile, from: SeekFrom) -> Result<u64, Errno> {
        default_seek(file, from)
    }
    /// Emits entries from cookie `from` on, `.` and `..` included.
    fn read_dir(
        &self,
        _file: &OpenFile,
        _task: &CurrentTask,
        _from: u64,
        _sink: &mut dyn DirSink,
    ) -> Result<(), Errno> {
        Err(Errno::ENOTDIR)
    }
    /// What is ready now. Regular files are always ready.
    fn poll(&self, _file: &OpenFile, _task: &CurrentTask) -> Events {
        Events::READABLE | Events::WRITABLE
    }
    /// Who is notified when [`FileOps::poll`] changes; `None` where it never does (epoll_ctl then answers EPERM).
    fn wait_queue(&self, _file: &OpenFile) -> Option<Arc<WaitQueue>> {
        None
    }
    fn ioctl(&self, _file: &OpenFile, _task: &CurrentTask, _cmd: u32, _arg: u64) -> SyscallResult {
        Err(Errno::ENOTTY.into())
    }
    /// Prepares `len` bytes from `offset` for mapping.
    fn mmap(&self, _file: &OpenFile, _offset: u64, _len: u64, _shared: bool) -> Result<HostMapping, Errno> {
        Err(Errno::ENODEV)
    }
    /// `fsync(2)`; `data_only` for `fdatasync(2)`.
    fn sync(&self, _file: &OpenFile, _data_only: bool) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
    fn fallocate(&self, _file: &OpenFile, _mode: u32, _offset: u64, _len: u64) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `fcntl(F_GET_SEALS)`.
    fn seals(&self, _file: &OpenFile) -> Result<u32, Errno> {
        Err(Errno::EINVAL)
    }
    /// `fcntl(F_ADD_SEALS)`; the VFS has checked that the file is writable.
    fn add_seals(&self, _file: &OpenFile, _seals: u32) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
    /// `fcntl(F_GETPIPE_SZ)`.
    fn pipe_size(&self, _file: &OpenFile) -> Result<usize, Errno> {
        Err(Errno::EBADF)
    }
    /// `fcntl(F_SETPIPE_SZ)`; returns the size set.
    fn set_pipe_size(&self, _file: &OpenFile, _task: &CurrentTask, _bytes: u32) -> Result<usize, Errno> {
        Err(Errno::EBADF)
    }
    /// The flags that F_SETFL can change did change.
    fn set_flags(&self, _file: &OpenFile, _flags: OpenFlags) -> Result<(), Errno> {
        Ok(())
    }
    /// A descriptor of this file is being closed (`f_op->flush`), by `task` where one does it.
    fn flush(&self, _file: &OpenFile) -> Result<(), Errno> {
        Ok(())
    }
    /// Lines for `/proc/PID/fdinfo/N` after the common ones.
    fn fdinfo(&self, _file: &OpenFile) -> String {
        String::new()
    }
}

/// How a terminal's read waits in non-canonical mode. When the time is over, or a signal comes while there is
/// something to be had, [`FileOps::read`] is called once more, with [`CurrentTask::wake_reason`] saying so, and gives what
/// there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadTimer {
    /// Runs from now on; begins anew when `seen` changes. `None`: for ever.
    pub after: Option<std::time::Duration>,
    /// Bytes that are there.
    pub seen: u64,
}

impl ReadTimer {
    /// By VMIN, and VTIME in tenths of a second: with VMIN the time runs between bytes, from the first one on; without, from
    /// the start.
    pub fn new(min: u8, tenths: u8, seen: u64) -> ReadTimer {
        let runs = min == 0 || (tenths > 0 && seen > 0);
        ReadTimer { after: runs.then(|| std::time::Duration::from_millis(u64::from(tenths) * 100)), seen }
    }
}

/// What [`FileOps::seek`] does where a file system does not say: a file without holes.
pub fn default_seek(file: &OpenFile, from: SeekFrom) -> Result<u64, Errno> {
    if file.ops.is_stream() {
        return Err(Errno::ESPIPE);
    }
    let size = || file.inode.attr().map(|a| a.size as i64);
    let target = match from {
        SeekFrom::Start(at) => Some(at),
        SeekFrom::Current(by) => (*file.offset.lock() as i64).checked_add(by),
        SeekFrom::End(by) => size()?.checked_add(by),
        // A file without holes: data everywhere, one hole at the end.
        SeekFrom::Data(at) if at < 0 || at >= size()? => return Err(Errno::ENXIO),
        SeekFrom::Data(at) => Some(at),
        SeekFrom::Hole(at) if at < 0 || at >= size()? => return Err(Errno::ENXIO),
        SeekFrom::Hole(_) => Some(size()?),
    };
    match target {
        // Linux's addition wraps around to a negative position.
        None => Err(Errno::EINVAL),
        Some(at) => u64::try_from(at).map_err(|_| Errno::EINVAL),
    }
}

/// An open file description: shared by every descriptor that `dup`, `fork` or SCM_RIGHTS made of it.
pub struct OpenFile {
    pub inode: Arc<Inode>,
    /// How it was opened; for nameless files a root dentry of their pseudo file system.
    pub path: Path,
    pub ops: Box<dyn FileOps>,
    flags: AtomicU32,
    /// The position. Only looked at and set under this lock; see `position_lock`.
    pub offset: Mutex<u64>,
    /// Held during a read or write that uses and moves the position (`f_pos_lock`).
    pub position_lock: Mutex<()>,
    /// What it counts for in [`Inode::get_write_access`].
    write_access: AtomicU8,
    /// Watchers have heard of its opening, and will hear of its end.
    announced: AtomicBool,
    /// Unique in the sandbox, never reused.
    pub id: u64,
    /// Who gets SIGIO and SIGURG, where anybody asked for them.
    pub(super) signals: OnceLock<super::fasync::FileSignals>,
}

impl OpenFile {
    pub fn new(path: Path, ops: Box<dyn FileOps>, flags: OpenFlags) -> Arc<OpenFile> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Arc::new(OpenFile {
            inode: path.dentry.inode.clone(),
            path,
            ops,
            flags: AtomicU32::new(flags.bits()),
            offset: Mutex::new(Level::File, 0),
            position_lock: Mutex::new(Level::Position, ()),
            write_access: AtomicU8::new(0),
            announced: AtomicBool::new(false),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            signals: OnceLock::new(),
        })
    }

    /// A file without a name in any directory (pipe, socket, eventfd, …): `name` is what `/proc/PID/fd` shows.
    pub fn new_anonymous(
        inode: Arc<Inode>,
        name: &str,
        ops: Box<dyn FileOps>,
        flags: OpenFlags,
    ) -> Arc<OpenFile> {
        let dentry = super::Dentry::new_root(inode, name.as_bytes());
        let mount = super::Mount::new(dentry.clone(), super::MountFlags::empty(), b"none", b"");
        OpenFile::new(Path::new(mount, dentry), ops, flags)
    }

    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }
    /// Changes the flags that F_SETFL may change; access mode and creation flags stay.
    pub fn set_flags(&self, flags: OpenFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }
    pub fn is_nonblocking(&self) -> bool {
        self.flags().contains(OpenFlags::NONBLOCK)
    }
    /// Counts as a writer of the inode until the last reference goes; ETXTBSY while it is being executed.
    pub fn hold_write_access(&self) -> Result<(), Errno> {
        self.inode.get_write_access()?;
        self.write_access.store(1, Ordering::Release);
        Ok(())
    }
    /// Takes over a write access that was counted for the inode already.
    pub(crate) fn adopt_write_access(&self) {
        self.write_access.store(1, Ordering::Release);
    }
    /// Forbids writers of the inode until the last reference goes; ETXTBSY while there are any.
    pub fn hold_deny_write(&self) -> Result<(), Errno> {
        self.inode.deny_write_access()?;
        self.write_access.store(2, Ordering::Release);
        Ok(())
    }
    /// Whether it counts as a writer.
    pub fn counts_as_writer(&self) -> bool {
        self.write_access.load(Ordering::Acquire) == 1
    }
    /// Whether it forbids writers ([`OpenFile::hold_deny_write`]).
    pub fn denies_write(&self) -> bool {
        self.write_access.load(Ordering::Acquire) == 2
    }
    /// The file's own type behind this open file.
    pub fn ops_as<T: FileOps>(&self) -> Option<&T> {
        (&*self.ops as &dyn Any).downcast_ref::<T>()
    }
    pub fn superblock(&self) -> &Arc<Superblock> {
        &self.inode.sb
    }
    pub fn poll(&self, task: &CurrentTask) -> Events {
        self.ops.poll(self, task)
    }
    pub fn wait_queue(&self) -> Option<Arc<WaitQueue>> {
        self.ops.wait_queue(self)
    }
    /// Tells watchers that it was opened.
    pub(super) fn announce(&self) {
        self.announced.store(true, Ordering::Relaxed);
        notify::file(&self.path, notify::OPEN);
    }
    pub fn ioctl(&self, task: &CurrentTask, cmd: u32, arg: u64) -> SyscallResult {
        self.ops.ioctl(self, task, cmd, arg)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        super::locks::release_file(&self.inode, self.id);
        if *self.announced.get_mut() {
            let wrote = self.flags().can_write();
            notify::file(&self.path, if wrote { notify::CLOSE_WRITE } else { notify::CLOSE_NOWRITE });
        }
        match *self.write_access.get_mut() {
            1 => self.inode.put_write_access(),
            2 => self.inode.allow_write_access(),
            _ => {}
        }
    }
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenFile({} {:?})", self.id, self.path.dentry)
    }
}
