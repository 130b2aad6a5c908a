//! Operations on one name in one directory of the host: what both the Sentry (`directfs`) and the gofer process are made
//! of.
//!
//! Invariants, which keep a container inside its root:
//! - Every operation names a *single component* below an open directory: never a path, never `.` or `..`
//!   ([`check_name`]), and a symbolic link in that place is not followed.
//! - Only regular files and directories are ever opened; what a name leads to is checked after the open, and
//!   `O_NONBLOCK` keeps an open from waiting should a FIFO have taken a file's place meanwhile. Devices, FIFOs and
//!   sockets of the host are only ever looked at.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use quicksand_abi::Errno;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, StatxFlags, Timespec, Timestamps, XattrFlags};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `XATTR_SIZE_MAX`.
pub const XATTR_SIZE_MAX: usize = 65536;
/// `XATTR_LIST_MAX`.
pub const XATTR_LIST_MAX: usize = 65536;

/// Attributes of a host file. Flat, because the gofer sends it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Stat {
    pub ino: u64,
    pub size: u64,
    /// 512-byte blocks.
    pub blocks: u64,
    pub atime_ns: i64,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    /// Zero where the file system has none.
    pub btime_ns: i64,
    pub dev_major: u32,
    pub dev_minor: u32,
    /// Type and permissions.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev_major: u32,
    pub rdev_minor: u32,
    pub blksize: u32,
    pub reserved: u32,
}

impl Stat {
    /// The file type bits of the mode.
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
    /// What makes two stats the same file.
    pub fn identity(&self) -> (u32, u32, u64) {
        (self.dev_major, self.dev_minor, self.ino)
    }
}

/// Attributes to change. Flat. `set` says which fields count (`Change::PERM` and its like).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Change {
    pub size: u64,
    pub atime_ns: i64,
    pub mtime_ns: i64,
    pub set: u32,
    pub perm: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Change {
    pub const PERM: u32 = 1;
    pub const UID: u32 = 2;
    pub const GID: u32 = 4;
    pub const SIZE: u32 = 8;
    pub const ATIME: u32 = 16;
    pub const MTIME: u32 = 32;

    fn has(&self, bit: u32) -> bool {
        self.set & bit != 0
    }
}

/// Who owns a new file, and its permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NewFile {
    /// Type and permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev_major: u32,
    pub rdev_minor: u32,
}

/// What to open a regular file for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

/// A host error as the guest sees it.
pub fn errno(e: rustix::io::Errno) -> Errno {
    Errno::from_raw(e.raw_os_error())
}

/// Refuses what is not a single component.
pub fn check_name(name: &[u8]) -> Result<(), Errno> {
    match name {
        b"" => Err(Errno::ENOENT),
        b"." | b".." => Err(Errno::EINVAL),
        _ if name.len() > 255 => Err(Errno::ENAMETOOLONG),
        _ if name.iter().any(|b| *b == b'/' || *b == 0) => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

fn convert(x: &rustix::fs::Statx) -> Stat {
    let ns = |t: &rustix::fs::StatxTimestamp| {
        t.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(t.tv_nsec))
    };
    let born = StatxFlags::from_bits_retain(x.stx_mask).contains(StatxFlags::BTIME);
    Stat {
        ino: x.stx_ino,
        size: x.stx_size,
        blocks: x.stx_blocks,
        atime_ns: ns(&x.stx_atime),
        mtime_ns: ns(&x.stx_mtime),
        ctime_ns: ns(&x.stx_ctime),
        btime_ns: if born { ns(&x.stx_btime) } else { 0 },
        dev_major: x.stx_dev_major,
        dev_minor: x.stx_dev_minor,
        mode: u32::from(x.stx_mode),
        nlink: x.stx_nlink,
        uid: x.stx_uid,
        gid: x.stx_gid,
        rdev_major: x.stx_rdev_major,
        rdev_minor: x.stx_rdev_minor,
        blksize: x.stx_blksize,
        reserved: 0,
    }
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// `statx` of `name` in `dir`.
pub fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
    check_name(name)?;
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(dir, name, flags, WANTED).map(|x| convert(&x)).map_err(errno)
}

/// `statx` of an open file.
pub fn stat_fd(fd: BorrowedFd<'_>) -> Result<Stat, Errno> {
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, WANTED).map(|x| convert(&x)).map_err(errno)
}

/// An `O_PATH` descriptor of the directory `name`: something to look up names in.
pub fn open_dir_path(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    check_name(name)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(errno)
}

/// The directory `name`, to read its entries.
pub fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    check_name(name)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(errno)
}

/// The directory behind an `O_PATH` descriptor, to read its entries.
pub fn reopen_dir(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, c".", flags, Mode::empty()).map_err(errno)
}

/// The regular file `name`. Anything else in its place: ELOOP (a link) or ENXIO.
pub fn open_file(dir: BorrowedFd<'_>, name: &[u8], access: Access) -> Result<OwnedFd, Errno> {
    check_name(name)?;
    let mode = match access {
        Access::Read => OFlags::RDONLY,
        Access::Write => OFlags::WRONLY,
        Access::ReadWrite => OFlags::RDWR,
    };
    let flags = mode | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(errno)?;
    match stat_fd(fd.as_fd())?.kind() {
        libc::S_IFREG => Ok(fd),
        _ => Err(Errno::ENXIO),
    }
}

/// For calls that take a descriptor of the file itself (`f*xattr`): a regular file or a directory, else EOPNOTSUPP.
fn open_any(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    match stat_at(dir, name)?.kind() {
        libc::S_IFREG => open_file(dir, name, Access::Read),
        libc::S_IFDIR => open_dir(dir, name),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// Makes a node. For a regular file, also its descriptor, open for reading and writing. EEXIST where the name is taken.
pub fn create(
    dir: BorrowedFd<'_>,
    name: &[u8],
    new: &NewFile,
    target: &[u8],
) -> Result<(Stat, Option<OwnedFd>), Errno> {
    check_name(name)?;
    let perm = Mode::from_raw_mode(new.mode & 0o7777);
    let mut file = None;
    match new.mode & libc::S_IFMT {
        libc::S_IFREG => {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            file = Some(rustix::fs::openat(dir, name, flags, perm).map_err(errno)?);
        }
        libc::S_IFDIR => rustix::fs::mkdirat(dir, name, perm).map_err(errno)?,
        libc::S_IFLNK => rustix::fs::symlinkat(target, dir, name).map_err(errno)?,
        kind => {
            let dev = rustix::fs::makedev(new.rdev_major, new.rdev_minor);
            let kind = rustix::fs::FileType::from_raw_mode(kind);
            rustix::fs::mknodat(dir, name, kind, perm, dev).map_err(errno)?;
        }
    }
    let settled = settle(dir, name, new, file.as_ref());
    if settled.is_err() {
        let flags =
            if new.mode & libc::S_IFMT == libc::S_IFDIR { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        // What could not be given its owner is not left behind.
        let _ = rustix::fs::unlinkat(dir, name, flags);
    }
    settled.map(|stat| (stat, file))
}

/// Gives a new node the owner and permissions that were asked for, and stats it.
fn settle(dir: BorrowedFd<'_>, name: &[u8], new: &NewFile, file: Option<&OwnedFd>) -> Result<Stat, Errno> {
    let stat = |_: ()| match file {
        Some(fd) => stat_fd(fd.as_fd()),
        None => stat_at(dir, name),
    };
    let made = stat(())?;
    let mut change = Change { perm: new.mode & 0o7777, uid: new.uid, gid: new.gid, ..Change::default() };
    if made.uid != new.uid {
        change.set |= Change::UID;
    }
    if made.gid != new.gid {
        change.set |= Change::GID;
    }
    let is_link = new.mode & libc::S_IFMT == libc::S_IFLNK;
    if !is_link && (made.mode & 0o7777 != change.perm || change.set != 0) {
        change.set |= Change::PERM;
    }
    if change.set == 0 {
        return Ok(made);
    }
    change_at(dir, name, &change)?;
    stat(())
}

/// Changes attributes of `name`.
pub fn change_at(dir: BorrowedFd<'_>, name: &[u8], change: &Change) -> Result<(), Errno> {
    check_name(name)?;
    if change.has(Change::SIZE) {
        let fd = open_file(dir, name, Access::Write)?;
        rustix::fs::ftruncate(&fd, change.size).map_err(errno)?;
    }
    if let Some((uid, gid)) = owner(change) {
        rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(errno)?;
    }
    if change.has(Change::PERM) {
        quicksand_host::fs::chmod_at(dir, name, change.perm & 0o7777)?;
    }
    if change.has(Change::ATIME) || change.has(Change::MTIME) {
        rustix::fs::utimensat(dir, name, &times(change), AtFlags::SYMLINK_NOFOLLOW).map_err(errno)?;
    }
    Ok(())
}

/// Changes attributes of an open file, which need not have a name any more. The size needs a writable descriptor.
pub fn change_fd(fd: BorrowedFd<'_>, change: &Change) -> Result<(), Errno> {
    if change.has(Change::SIZE) {
        rustix::fs::ftruncate(fd, change.size).map_err(errno)?;
    }
    if let Some((uid, gid)) = owner(change) {
        rustix::fs::fchown(fd, uid, gid).map_err(errno)?;
    }
    if change.has(Change::PERM) {
        rustix::fs::fchmod(fd, Mode::from_raw_mode(change.perm & 0o7777)).map_err(errno)?;
    }
    if change.has(Change::ATIME) || change.has(Change::MTIME) {
        rustix::fs::futimens(fd, &times(change)).map_err(errno)?;
    }
    Ok(())
}

fn owner(change: &Change) -> Option<(Option<rustix::fs::Uid>, Option<rustix::fs::Gid>)> {
    // All ones means "no change" to the host.
    let uid = change.has(Change::UID).then_some(change.uid).filter(|id| *id != u32::MAX);
    let gid = change.has(Change::GID).then_some(change.gid).filter(|id| *id != u32::MAX);
    (uid.is_some() || gid.is_some())
        .then(|| (uid.map(rustix::fs::Uid::from_raw), gid.map(rustix::fs::Gid::from_raw)))
}

fn times(change: &Change) -> Timestamps {
    let time = |bit, ns: i64| {
        if change.has(bit) {
            Timespec { tv_sec: ns.div_euclid(1_000_000_000), tv_nsec: ns.rem_euclid(1_000_000_000) }
        } else {
            Timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT }
        }
    };
    Timestamps {
        last_access: time(Change::ATIME, change.atime_ns),
        last_modification: time(Change::MTIME, change.mtime_ns),
    }
}

/// Where the link `name` leads.
pub fn read_link(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
    check_name(name)?;
    rustix::fs::readlinkat(dir, name, Vec::new()).map(|s| s.into_bytes()).map_err(errno)
}

/// Removes `name`; `directory` says which kind it must be.
pub fn unlink(dir: BorrowedFd<'_>, name: &[u8], directory: bool) -> Result<(), Errno> {
    check_name(name)?;
    let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    rustix::fs::unlinkat(dir, name, flags).map_err(errno)
}

/// Gives the file `name` another name.
pub fn link(dir: BorrowedFd<'_>, name: &[u8], new_dir: BorrowedFd<'_>, new_name: &[u8]) -> Result<(), Errno> {
    check_name(name)?;
    check_name(new_name)?;
    rustix::fs::linkat(dir, name, new_dir, new_name, AtFlags::empty()).map_err(errno)
}

/// Renames, or exchanges two names.
pub fn rename(
    dir: BorrowedFd<'_>,
    name: &[u8],
    new_dir: BorrowedFd<'_>,
    new_name: &[u8],
    exchange: bool,
) -> Result<(), Errno> {
    check_name(name)?;
    check_name(new_name)?;
    let flags = if exchange { RenameFlags::EXCHANGE } else { RenameFlags::empty() };
    rustix::fs::renameat_with(dir, name, new_dir, new_name, flags).map_err(errno)
}

/// An extended attribute.
pub fn get_xattr(dir: BorrowedFd<'_>, name: &[u8], attr: &[u8]) -> Result<Vec<u8>, Errno> {
    get_xattr_fd(open_any(dir, name)?.as_fd(), attr)
}

/// An extended attribute of an open file.
pub fn get_xattr_fd(fd: BorrowedFd<'_>, attr: &[u8]) -> Result<Vec<u8>, Errno> {
    // Most are small; a big one says ERANGE.
    let mut small = [0u8; 256];
    match rustix::fs::fgetxattr(fd, attr, &mut small[..]) {
        Ok(n) => return Ok(small[..n].to_vec()),
        Err(rustix::io::Errno::RANGE) => {}
        Err(e) => return Err(errno(e)),
    }
    let mut value = vec![0; XATTR_SIZE_MAX];
    let n = rustix::fs::fgetxattr(fd, attr, &mut value[..]).map_err(errno)?;
    value.truncate(n);
    Ok(value)
}

/// Sets an extended attribute; `flags` are XATTR_CREATE or XATTR_REPLACE.
pub fn set_xattr(
    dir: BorrowedFd<'_>,
    name: &[u8],
    attr: &[u8],
    value: &[u8],
    flags: u32,
) -> Result<(), Errno> {
    set_xattr_fd(open_any(dir, name)?.as_fd(), attr, value, flags)
}

pub fn set_xattr_fd(fd: BorrowedFd<'_>, attr: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
    let flags = XattrFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    rustix::fs::fsetxattr(fd, attr, value, flags).map_err(errno)
}

/// The names of all extended attributes, each ended by a NUL.
pub fn list_xattr(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
    list_xattr_fd(open_any(dir, name)?.as_fd())
}

pub fn list_xattr_fd(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut names = vec![0u8; XATTR_LIST_MAX];
    let n = rustix::fs::flistxattr(fd, &mut names[..]).map_err(errno)?;
    names.truncate(n);
    Ok(names)
}

pub fn remove_xattr(dir: BorrowedFd<'_>, name: &[u8], attr: &[u8]) -> Result<(), Errno> {
    remove_xattr_fd(open_any(dir, name)?.as_fd(), attr)
}

pub fn remove_xattr_fd(fd: BorrowedFd<'_>, attr: &[u8]) -> Result<(), Errno> {
    rustix::fs::fremovexattr(fd, attr).map_err(errno)
}

/// One directory entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub ino: u64,
    /// `d_type`.
    pub dtype: u8,
    /// Where to go on after this entry.
    pub next: u64,
    pub name: &'a [u8],
}

/// Reads entries of an open directory from cookie `from` on, until `emit` says false or the end. `buffer` is how many
/// bytes are asked of the host at a time.
pub fn read_dir(
    dir: BorrowedFd<'_>,
    from: u64,
    buffer: usize,
    emit: &mut dyn FnMut(Entry<'_>) -> bool,
) -> Result<(), Errno> {
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(from)).map_err(errno)?;
    let mut bytes = vec![MaybeUninit::uninit(); buffer];
    let mut entries = rustix::fs::RawDir::new(dir, &mut bytes);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(errno)?;
        let name = entry.file_name().to_bytes();
        let dtype = (entry.file_type().as_raw_mode() >> 12) as u8;
        if !emit(Entry { ino: entry.ino(), dtype, next: entry.next_entry_cookie(), name }) {
            break;
        }
    }
    Ok(())
}

/// File systems that are a door into the host's kernel rather than storage.
const KERNEL_INTERFACES: [u64; 16] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
    0x1980_0202, // mqueue
    0x6165_676c, // pstore
    0xde5e_81e4, // efivarfs
    0x4249_4e4d, // binfmt_misc
    0x6265_6570, // configfs
    0x6573_5543, // fusectl
    0x6e73_6673, // nsfs
];

/// Whether `name`, which lies on another device than `dir`, is the mount point of one of the host's kernel interfaces.
/// Those are not part of a container's root, whatever was mounted into it. What cannot be looked at counts as one.
pub fn is_kernel_interface(dir: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> bool {
    if stat.kind() != libc::S_IFDIR {
        return false;
    }
    let Ok(fd) = open_dir_path(dir, name) else { return true };
    match rustix::fs::fstatfs(&fd) {
        Ok(s) => u64::try_from(s.f_type).map_or(true, |magic| KERNEL_INTERFACES.contains(&magic)),
        Err(_) => true,
    }
}
