//! Inodes: files as their file systems know them.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use quicksand_abi::Errno;

use super::file::{FileOps, OpenFlags};
use super::mount::Path;
use crate::task::CurrentTask;
use crate::time::Realtime;

/// One component of a path: not empty, no `/`, no NUL, at most 255 bytes.
pub type FileName = [u8];

/// A device number as `st_dev`/`st_rdev` carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct DeviceId {
    pub major: u32,
    pub minor: u32,
}

impl DeviceId {
    pub const fn new(major: u32, minor: u32) -> DeviceId {
        DeviceId { major, minor }
    }
    /// The encoding of `stat(2)` (`new_encode_dev` extended to 64 bits, as glibc's `makedev`).
    pub fn encode(self) -> u64 {
        let (major, minor) = (u64::from(self.major), u64::from(self.minor));
        (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12) | ((major & !0xfff) << 32)
    }
    pub fn decode(raw: u64) -> DeviceId {
        DeviceId {
            major: (((raw >> 8) & 0xfff) | ((raw >> 32) & !0xfff)) as u32,
            minor: ((raw & 0xff) | ((raw >> 12) & !0xff)) as u32,
        }
    }
}

/// The file type bits of a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    Regular,
    Directory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
    /// A file without a type (`S_IFMT` zero): eventfd, epoll and their like.
    Anonymous,
}

impl FileKind {
    pub fn to_mode(self) -> u32 {
        match self {
            FileKind::Regular => libc::S_IFREG,
            FileKind::Directory => libc::S_IFDIR,
            FileKind::Symlink => libc::S_IFLNK,
            FileKind::CharDevice => libc::S_IFCHR,
            FileKind::BlockDevice => libc::S_IFBLK,
            FileKind::Fifo => libc::S_IFIFO,
            FileKind::Socket => libc::S_IFSOCK,
            FileKind::Anonymous => 0,
        }
    }
    pub fn from_mode(mode: u32) -> FileKind {
        match mode & libc::S_IFMT {
            libc::S_IFREG => FileKind::Regular,
            libc::S_IFDIR => FileKind::Directory,
            libc::S_IFLNK => FileKind::Symlink,
            libc::S_IFCHR => FileKind::CharDevice,
            libc::S_IFBLK => FileKind::BlockDevice,
            libc::S_IFIFO => FileKind::Fifo,
            libc::S_IFSOCK => FileKind::Socket,
            _ => FileKind::Anonymous,
        }
    }
    /// `d_type` of a directory entry.
    pub fn to_dtype(self) -> u8 {
        (self.to_mode() >> 12) as u8
    }
}

/// What `stat(2)` tells. `ino` and the device come from the [`Inode`].
#[derive(Clone, Debug)]
pub struct Attr {
    pub kind: FileKind,
    /// Permission, set-id and sticky bits only (`07777`).
    pub perm: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: DeviceId,
    pub size: u64,
    /// Allocated 512-byte blocks.
    pub blocks: u64,
    pub blksize: u32,
    pub atime: Realtime,
    pub mtime: Realtime,
    pub ctime: Realtime,
    pub btime: Option<Realtime>,
}

impl Attr {
    /// Type and permissions together, as `st_mode`.
    pub fn mode(&self) -> u32 {
        self.kind.to_mode() | self.perm
    }
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

/// Attributes to change; `None` leaves one as it is. The caller has checked permissions and computed what Linux's
/// `notify_change` would (set-id bits cleared, times filled in). `ctime` is always updated by the file system.
#[derive(Clone, Debug, Default)]
pub struct SetAttr {
    pub perm: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<Realtime>,
    pub mtime: Option<Realtime>,
}

/// Who a new file belongs to, and its permission bits (umask and set-gid rules already applied by the VFS).
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    pub perm: u32,
}

/// What kind of node to make.
#[derive(Clone, Debug)]
pub enum NewNode<'a> {
    Regular,
    Directory,
    Symlink(&'a [u8]),
    Fifo,
    Socket,
    CharDevice(DeviceId),
    BlockDevice(DeviceId),
}

/// Where a symbolic link leads.
#[derive(Debug)]
pub enum LinkTarget {
    /// A path to be walked.
    Path(Vec<u8>),
    /// A magic link of proc: straight to a place, whatever its name.
    Jump(Path),
}

/// A mounted file system instance (Linux's `super_block`).
#[derive(Debug)]
pub struct Superblock {
    /// `st_dev` of its files.
    pub dev: DeviceId,
    /// The name in `/proc/mounts`: `tmpfs`, `proc`, `overlay`, …
    pub fs_type: &'static str,
    /// `f_type` of `statfs(2)`.
    pub magic: u64,
    next_ino: AtomicU64,
    /// Held by cross-directory renames (`s_vfs_rename_mutex`).
    pub rename: crate::sync::Mutex<()>,
    /// What `statfs(2)` answers beyond the magic.
    pub statfs: Box<dyn StatFs>,
    /// Mounts of it, in any namespace or none.
    mounts: AtomicUsize,
    /// Its cached dentries, in the order in which they were cached; some are gone.
    pub(super) cached: crate::sync::Mutex<VecDeque<Weak<super::Dentry>>>,
}

/// Sizes for `statfs(2)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct FsStat {
    pub block_size: u64,
    pub blocks: u64,
    pub free: u64,
    pub available: u64,
    pub files: u64,
    pub files_free: u64,
}

/// A file system's answer to `statfs(2)`.
pub trait StatFs: Send + Sync + fmt::Debug {
    fn statfs(&self) -> Result<FsStat, Errno>;
}

/// For file systems without storage (proc, pipes, …): all zero but the block size.
#[derive(Debug)]
pub struct NoStorage;

impl StatFs for NoStorage {
    fn statfs(&self) -> Result<FsStat, Errno> {
        Ok(FsStat { block_size: 4096, ..FsStat::default() })
    }
}

impl Superblock {
    /// A superblock with a fresh anonymous device number (major 0).
    pub fn new(fs_type: &'static str, magic: u64, statfs: Box<dyn StatFs>) -> Arc<Superblock> {
        static NEXT_MINOR: AtomicU64 = AtomicU64::new(20);
        let minor = NEXT_MINOR.fetch_add(1, Ordering::Relaxed) as u32;
        Arc::new(Superblock {
            dev: DeviceId::new(0, minor),
            fs_type,
            magic,
            next_ino: AtomicU64::new(2),
            rename: crate::sync::Mutex::new(crate::sync::Level::Rename, ()),
            statfs,
            mounts: AtomicUsize::new(0),
            cached: crate::sync::Mutex::new(crate::sync::Level::Leaf, VecDeque::new()),
        })
    }
    /// Counts one more mount.
    pub(super) fn get_mount(&self) {
        self.mounts.fetch_add(1, Ordering::AcqRel);
    }
    /// Counts one mount less; true where it was the last.
    pub(super) fn put_mount(&self) -> bool {
        self.mounts.fetch_sub(1, Ordering::AcqRel) == 1
    }
    /// Leaves the inode numbers below `first` unused.
    pub fn start_inos_at(&self, first: u64) {
        self.next_ino.fetch_max(first, Ordering::Relaxed);
    }
    /// An inode number not used before in this file system.
    pub fn next_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }
}

/// A file. What is common to all file systems; the rest is behind [`InodeOps`].
pub struct Inode {
    /// `st_ino`.
    pub ino: u64,
    pub sb: Arc<Superblock>,
    /// Never changes during an inode's life.
    pub kind: FileKind,
    pub ops: Box<dyn InodeOps>,
    /// Unique in the sandbox and never reused: identifies the inode in futex keys and records.
    pub id: u64,
    /// flock, POSIX and OFD locks; made by the first lock.
    pub locks: std::sync::OnceLock<Box<super::locks::FileLocks>>,
    /// Who wants to hear what happens to it.
    pub watches: super::notify::Watches,
    /// Held over a whole write, truncation or allocation of a regular file (`i_rwsem`): what makes O_APPEND atomic.
    pub io_lock: crate::sync::Mutex<()>,
    /// Its dentry, where directories do not cache their children.
    pub(super) alias: crate::sync::Mutex<Weak<super::Dentry>>,
    /// Open files that may write; negative: running executables that forbid it (`i_writecount`).
    writers: AtomicI32,
}

impl Inode {
    pub fn new(sb: &Arc<Superblock>, ino: u64, kind: FileKind, ops: Box<dyn InodeOps>) -> Arc<Inode> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new(Inode {
            ino,
            sb: sb.clone(),
            kind,
            ops,
            id,
            locks: std::sync::OnceLock::new(),
            watches: super::notify::Watches::default(),
            io_lock: crate::sync::Mutex::new(crate::sync::Level::InodeIo, ()),
            alias: crate::sync::Mutex::new(crate::sync::Level::Leaf, Weak::new()),
            writers: AtomicI32::new(0),
        })
    }
    pub fn attr(&self) -> Result<Attr, Errno> {
        self.ops.attr(self)
    }
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
    /// Counts one more writer (`get_write_access`); ETXTBSY while it is being executed.
    pub fn get_write_access(&self) -> Result<(), Errno> {
        let add = |n: i32| (n >= 0).then(|| n.saturating_add(1));
        let done = self.writers.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        done.map(drop).map_err(|_| Errno::ETXTBSY)
    }
    pub fn put_write_access(&self) {
        self.writers.fetch_sub(1, Ordering::AcqRel);
    }
    /// Forbids writers while an executable runs (`deny_write_access`); ETXTBSY while there are any.
    pub fn deny_write_access(&self) -> Result<(), Errno> {
        let sub = |n: i32| (n <= 0).then(|| n.saturating_sub(1));
        let done = self.writers.fetch_update(Ordering::AcqRel, Ordering::Acquire, sub);
        done.map(drop).map_err(|_| Errno::ETXTBSY)
    }
    pub fn allow_write_access(&self) {
        self.writers.fetch_add(1, Ordering::AcqRel);
    }
    /// The file system's own type behind this inode.
    pub fn ops_as<T: InodeOps>(&self) -> Option<&T> {
        (&*self.ops as &dyn Any).downcast_ref::<T>()
    }
}

impl fmt::Debug for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inode({} {} {:?})", self.sb.fs_type, self.ino, self.kind)
    }
}

/// What a file system does for an inode. Defaults are what Linux answers where the operation is missing. Names are valid
/// [`FileName`]s, never `.` or `..`. The VFS holds the dentry lock of the directories concerned during calls that change
/// them, and has checked permissions and the existence rules (EEXIST, ENOENT, EISDIR, ENOTDIR, EXDEV, ENOTEMPTY is the
/// file system's) before.
pub trait InodeOps: Any + Send + Sync + fmt::Debug {
    fn attr(&self, inode: &Inode) -> Result<Attr, Errno>;

    fn set_attr(&self, _inode: &Inode, _set: &SetAttr) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    /// Finds a child. ENOENT where there is none. For an inode that is in use, the same `Arc` must come back. `task` is
    /// who walks; `None` when the kernel itself does (mounts made at boot).
    fn lookup(
        &self,
        _dir: &Inode,
        _name: &FileName,
        _task: Option<&CurrentTask>,
    ) -> Result<Arc<Inode>, Errno> {
        Err(Errno::ENOTDIR)
    }
    fn create(
        &self,
        _dir: &Inode,
        _name: &FileName,
        _node: NewNode<'_>,
        _owner: Owner,
    ) -> Result<Arc<Inode>, Errno> {
        Err(Errno::EPERM)
    }
    /// An unnamed regular file in this directory (`O_TMPFILE`), which `link` may name later.
    fn create_unnamed(&self, _dir: &Inode, _owner: Owner) -> Result<Arc<Inode>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    fn link(&self, _dir: &Inode, _name: &FileName, _target: &Arc<Inode>) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    fn unlink(&self, _dir: &Inode, _name: &FileName, _target: &Arc<Inode>) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    /// ENOTEMPTY where it has entries.
    fn rmdir(&self, _dir: &Inode, _name: &FileName, _target: &Arc<Inode>) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    /// Moves `moved` from `dir/name` to `new_dir/new_name`, replacing `replaced` (`exchange` swaps the two instead).
    fn rename(&self, _dir: &Inode, _rename: &Rename<'_>) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }
    fn read_link(&self, _inode: &Inode, _task: Option<&CurrentTask>) -> Result<LinkTarget, Errno> {
        Err(Errno::EINVAL)
    }
    /// Makes what an open file of this inode does. Called for regular files, directories and whatever the file system
    /// handles itself; FIFOs and device nodes are opened by the VFS (`fs::pipe`, `fs::dev`). O_TRUNC is done by the VFS.
    fn open(
        &self,
        _inode: &Arc<Inode>,
        _flags: OpenFlags,
        _task: &CurrentTask,
    ) -> Result<Box<dyn FileOps>, Errno> {
        Err(Errno::ENXIO)
    }
    /// The name is no longer cached; what the file system keeps only for its sake may go.
    fn forget(&self, _dir: &Inode, _name: &FileName, _child: &Arc<Inode>) {}
    /// The directory is about to be removed or replaced: the time to learn what only a task can ask for.
    fn prepare_removal(&self, _inode: &Inode, _task: &CurrentTask) -> Result<(), Errno> {
        Ok(())
    }
    /// The host file with a regular file's contents, from offset 0, for reading.
    fn host_file(&self, _inode: &Inode) -> Result<super::HostMapping, Errno> {
        Err(Errno::ENODEV)
    }
    /// Whether [`InodeOps::open`] is asked whatever the kind: for FIFOs, sockets and devices that are the host's.
    fn opens_itself(&self) -> bool {
        false
    }
    /// Whether a cached name still leads here (proc's task directories vanish with their tasks).
    fn revalidate(&self, _inode: &Inode) -> bool {
        true
    }
    /// Whether dentries of children may be cached. Directories that change by themselves (proc, a shared host
    /// directory) say no.
    fn cache_children(&self) -> bool {
        true
    }
    /// The file was read (or the link followed) at `now`, on a mount that keeps access times. `relative` asks for the
    /// relatime rule: only when the old access time is not after the others, or a day old.
    fn touch_atime(&self, _inode: &Inode, _now: Realtime, _relative: bool) {}
    fn get_xattr(&self, _inode: &Inode, _name: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `flags`: XATTR_CREATE, XATTR_REPLACE.
    fn set_xattr(&self, _inode: &Inode, _name: &[u8], _value: &[u8], _flags: u32) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    fn list_xattr(&self, _inode: &Inode) -> Result<Vec<Vec<u8>>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    fn remove_xattr(&self, _inode: &Inode, _name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
}

/// A rename, as the file system sees it.
#[derive(Debug)]
pub struct Rename<'a> {
    pub name: &'a FileName,
    pub moved: &'a Arc<Inode>,
    pub new_dir: &'a Arc<Inode>,
    pub new_name: &'a FileName,
    pub replaced: Option<&'a Arc<Inode>>,
    pub exchange: bool,
}
