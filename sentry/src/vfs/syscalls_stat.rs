//! `stat` and its relatives, `statfs`, `access`, `readlink`, `getdents`.

use quicksand_abi::fs::{
    STATX_ATTR_MOUNT_ROOT, STATX_BASIC_STATS, STATX_BTIME, STATX_MNT_ID, Stat, Statfs, Statx, StatxTimestamp,
};
use quicksand_abi::{Errno, Timespec, UserAddr};

use super::file::{DirEntry, DirSink};
use super::inode::{FileKind, Inode, LinkTarget};
use super::perm::{self, Access};
use super::walk::{self, WalkFlags, Walker};
use super::{MountFlags, OpenFile, Path};
use crate::syscalls::{Fd, SyscallResult};
use crate::task::credentials::Caps;
use crate::task::{Credentials, CurrentTask};
use crate::time::Realtime;

/// AT_ flags that `stat` and `statx` know.
const AT_STAT: u32 = (libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_EMPTY_PATH) as u32;
/// `AT_STATX_SYNC_TYPE`.
const AT_SYNC_TYPE: u32 = 0x6000;
/// `SECURE_NO_SETUID_FIXUP`.
const NO_SETUID_FIXUP: u32 = 1 << 2;

fn timespec(t: Realtime) -> Timespec {
    Timespec::from_nanos(t.0)
}

/// The walk flags that the AT_ flags of a call mean.
pub(super) fn walk_flags(at: u32) -> WalkFlags {
    let mut flags = WalkFlags::empty();
    flags.set(WalkFlags::FOLLOW, at & libc::AT_SYMLINK_NOFOLLOW as u32 == 0);
    flags.set(WalkFlags::EMPTY, at & libc::AT_EMPTY_PATH as u32 != 0);
    flags
}

/// `struct stat` of an inode.
pub fn stat_of(inode: &Inode) -> Result<Stat, Errno> {
    let attr = inode.attr()?;
    Ok(Stat {
        dev: inode.sb.dev.encode(),
        ino: inode.ino,
        nlink: u64::from(attr.nlink),
        mode: attr.mode(),
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev.encode(),
        size: attr.size as i64,
        blksize: i64::from(attr.blksize),
        blocks: attr.blocks as i64,
        atime: timespec(attr.atime),
        mtime: timespec(attr.mtime),
        ctime: timespec(attr.ctime),
        ..Stat::default()
    })
}

pub fn sys_stat(task: &CurrentTask, path: UserAddr, buf: UserAddr) -> SyscallResult {
    stat_path(task, Fd::CWD, path, buf, 0)
}

pub fn sys_lstat(task: &CurrentTask, path: UserAddr, buf: UserAddr) -> SyscallResult {
    stat_path(task, Fd::CWD, path, buf, libc::AT_SYMLINK_NOFOLLOW as u32)
}

pub fn sys_newfstatat(
    task: &CurrentTask,
    dirfd: Fd,
    path: UserAddr,
    buf: UserAddr,
    flags: u32,
) -> SyscallResult {
    if flags & !AT_STAT != 0 {
        return Err(Errno::EINVAL.into());
    }
    stat_path(task, dirfd, path, buf, flags)
}

pub fn sys_fstat(task: &CurrentTask, fd: Fd, buf: UserAddr) -> SyscallResult {
    let file = task.file_or_path(fd)?;
    task.write_object(buf, &stat_of(&file.inode)?)?;
    Ok(0)
}

fn stat_path(task: &CurrentTask, dirfd: Fd, path: UserAddr, buf: UserAddr, flags: u32) -> SyscallResult {
    let path = at_path(task, dirfd, path, flags)?;
    task.write_object(buf, &stat_of(&path.dentry.inode)?)?;
    Ok(0)
}

/// The place that a path argument of an *at call leads to. With AT_EMPTY_PATH the path may be NULL, too.
pub(super) fn at_path(task: &CurrentTask, dirfd: Fd, path: UserAddr, flags: u32) -> Result<Path, Errno> {
    if flags & libc::AT_EMPTY_PATH as u32 != 0 && path.is_null() {
        return walk::lookup(task, dirfd, b"", WalkFlags::EMPTY);
    }
    let path = task.read_path(path)?;
    walk::lookup(task, dirfd, &path, walk_flags(flags))
}

pub fn sys_statx(
    task: &CurrentTask,
    dirfd: Fd,
    path: UserAddr,
    flags: u32,
    mask: u32,
    buf: UserAddr,
) -> SyscallResult {
    const RESERVED: u32 = 0x8000_0000;
    if mask & RESERVED != 0 || flags & AT_SYNC_TYPE == AT_SYNC_TYPE || flags & !(AT_STAT | AT_SYNC_TYPE) != 0
    {
        return Err(Errno::EINVAL.into());
    }
    let path = at_path(task, dirfd, path, flags)?;
    let inode = &path.dentry.inode;
    let attr = inode.attr()?;
    let stamp = |t: Realtime| {
        let t = timespec(t);
        StatxTimestamp { sec: t.sec, nsec: t.nsec as u32, pad: 0 }
    };
    let mut statx = Statx {
        mask: STATX_BASIC_STATS | (mask & STATX_MNT_ID),
        blksize: attr.blksize,
        attributes_mask: STATX_ATTR_MOUNT_ROOT,
        attributes: if path.is_mount_root() { STATX_ATTR_MOUNT_ROOT } else { 0 },
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        mode: attr.mode() as u16,
        ino: inode.ino,
        size: attr.size,
        blocks: attr.blocks,
        atime: stamp(attr.atime),
        ctime: stamp(attr.ctime),
        mtime: stamp(attr.mtime),
        rdev_major: attr.rdev.major,
        rdev_minor: attr.rdev.minor,
        dev_major: inode.sb.dev.major,
        dev_minor: inode.sb.dev.minor,
        mnt_id: path.mount.id,
        ..Statx::default()
    };
    if mask & STATX_BTIME != 0
        && let Some(btime) = attr.btime
    {
        statx.mask |= STATX_BTIME;
        statx.btime = stamp(btime);
    }
    task.write_object(buf, &statx)?;
    Ok(0)
}

pub fn sys_statfs(task: &CurrentTask, path: UserAddr, buf: UserAddr) -> SyscallResult {
    let path = at_path(task, Fd::CWD, path, 0)?;
    write_statfs(task, &path, buf)
}

pub fn sys_fstatfs(task: &CurrentTask, fd: Fd, buf: UserAddr) -> SyscallResult {
    let file = task.file_or_path(fd)?;
    write_statfs(task, &file.path, buf)
}

fn write_statfs(task: &CurrentTask, path: &Path, buf: UserAddr) -> SyscallResult {
    const ST_VALID: u64 = 0x20;
    const ST_NOATIME: u64 = 0x400;
    const ST_NODIRATIME: u64 = 0x800;
    const ST_RELATIME: u64 = 0x1000;
    let sb = &path.dentry.inode.sb;
    let stat = sb.statfs.statfs()?;
    let flags = path.mount.flags();
    // The first four bits are those of mount(2).
    let mut shown = ST_VALID | u64::from(flags.bits() & 0xf);
    for (flag, bit) in [
        (MountFlags::NOATIME, ST_NOATIME),
        (MountFlags::NODIRATIME, ST_NODIRATIME),
        (MountFlags::RELATIME, ST_RELATIME),
    ] {
        if flags.contains(flag) {
            shown |= bit;
        }
    }
    let dev = sb.dev.encode();
    let statfs = Statfs {
        fs_type: sb.magic,
        bsize: stat.block_size,
        blocks: stat.blocks,
        bfree: stat.free,
        bavail: stat.available,
        files: stat.files,
        ffree: stat.files_free,
        fsid: [dev as u32, (dev >> 32) as u32],
        namelen: 255,
        frsize: stat.block_size,
        flags: shown,
        spare: [0; 4],
    };
    task.write_object(buf, &statfs)?;
    Ok(0)
}

pub fn sys_access(task: &CurrentTask, path: UserAddr, mode: u32) -> SyscallResult {
    access(task, Fd::CWD, path, mode, 0)
}

pub fn sys_faccessat(task: &CurrentTask, dirfd: Fd, path: UserAddr, mode: u32) -> SyscallResult {
    access(task, dirfd, path, mode, 0)
}

pub fn sys_faccessat2(task: &CurrentTask, dirfd: Fd, path: UserAddr, mode: u32, flags: u32) -> SyscallResult {
    access(task, dirfd, path, mode, flags)
}

fn access(task: &CurrentTask, dirfd: Fd, path: UserAddr, mode: u32, flags: u32) -> SyscallResult {
    const KNOWN: u32 = (libc::AT_EACCESS | libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) as u32;
    let wanted = Access::from_bits(mode).ok_or(Errno::EINVAL)?;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut creds = task.creds();
    if flags & libc::AT_EACCESS as u32 == 0 {
        creds = real_credentials(&creds).into();
    }
    let text = task.read_path(path)?;
    let path = Walker::with_creds(task, creds.clone(), dirfd, &text, walk_flags(flags))?.finish()?;
    let inode = &path.dentry.inode;
    if wanted.contains(Access::EXEC)
        && inode.kind == FileKind::Regular
        && path.mount.flags().contains(MountFlags::NOEXEC)
    {
        return Err(Errno::EACCES.into());
    }
    perm::check(&creds, inode, wanted)?;
    if wanted.contains(Access::WRITE)
        && matches!(inode.kind, FileKind::Regular | FileKind::Directory | FileKind::Symlink)
    {
        perm::want_write(&path)?;
    }
    Ok(0)
}

/// `access_override_creds`: the real ids, and the capabilities that they would have.
fn real_credentials(creds: &Credentials) -> Credentials {
    let mut real = creds.clone();
    real.fsuid = creds.ruid;
    real.fsgid = creds.rgid;
    if creds.securebits & NO_SETUID_FIXUP == 0 {
        real.effective = if creds.ruid == 0 { creds.permitted } else { Caps::empty() };
    }
    real
}

pub fn sys_readlink(task: &CurrentTask, path: UserAddr, buf: UserAddr, size: usize) -> SyscallResult {
    sys_readlinkat(task, Fd::CWD, path, buf, size)
}

pub fn sys_readlinkat(
    task: &CurrentTask,
    dirfd: Fd,
    path: UserAddr,
    buf: UserAddr,
    size: usize,
) -> SyscallResult {
    let size = size as i32;
    if size <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let text = task.read_path(path)?;
    // An empty path means the link that the descriptor itself is (O_PATH|O_NOFOLLOW).
    let path = walk::lookup(task, dirfd, &text, WalkFlags::EMPTY)?;
    let inode = &path.dentry.inode;
    if inode.kind != FileKind::Symlink {
        return Err(if text.is_empty() { Errno::ENOENT } else { Errno::EINVAL }.into());
    }
    walk::touch_atime(&path);
    let target = match inode.ops.read_link(inode, Some(task))? {
        LinkTarget::Path(text) => text,
        LinkTarget::Jump(path) => path.display(&task.fs().root()),
    };
    let shown = &target[..target.len().min(size as usize)];
    task.write_bytes(buf, shown)?;
    Ok(shown.len())
}

/// Which layout of directory entries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// `struct linux_dirent`: the type is the record's last byte.
    Old,
    /// `struct linux_dirent64`.
    Dirent64,
}

/// Packs entries into a buffer of the kernel's.
struct Packer {
    bytes: Vec<u8>,
    limit: usize,
    layout: Layout,
    /// Cookie after the last entry taken.
    next: u64,
    /// The first entry alone did not fit.
    too_small: bool,
}

impl DirSink for Packer {
    fn emit(&mut self, entry: DirEntry<'_>) -> bool {
        // ino, off, reclen; the type before or after the name; the name with its NUL.
        let len = (19 + entry.name.len() + 1).next_multiple_of(8);
        if len > self.limit - self.bytes.len() {
            self.too_small = self.bytes.is_empty();
            return false;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&entry.ino.to_ne_bytes());
        self.bytes.extend_from_slice(&entry.next.to_ne_bytes());
        self.bytes.extend_from_slice(&(len as u16).to_ne_bytes());
        if self.layout == Layout::Dirent64 {
            self.bytes.push(entry.kind.to_dtype());
        }
        self.bytes.extend_from_slice(entry.name);
        self.bytes.resize(start + len, 0);
        if self.layout == Layout::Old
            && let Some(last) = self.bytes.last_mut()
        {
            *last = entry.kind.to_dtype();
        }
        self.next = entry.next;
        true
    }
}

pub fn sys_getdents(task: &CurrentTask, fd: Fd, buf: UserAddr, count: u32) -> SyscallResult {
    read_dir(task, fd, buf, count, Layout::Old)
}

pub fn sys_getdents64(task: &CurrentTask, fd: Fd, buf: UserAddr, count: u32) -> SyscallResult {
    read_dir(task, fd, buf, count, Layout::Dirent64)
}

fn read_dir(task: &CurrentTask, fd: Fd, buf: UserAddr, count: u32, layout: Layout) -> SyscallResult {
    // What one call returns at most, whatever the buffer's size.
    const MOST: usize = 256 << 10;
    let file = task.file(fd)?;
    if !file.inode.is_dir() {
        return Err(Errno::ENOTDIR.into());
    }
    let limit = (count as usize).min(MOST);
    let _position = file.position_lock.lock();
    let from = *file.offset.lock();
    if file.path.dentry.is_unlinked() {
        return Err(Errno::ENOENT.into());
    }
    let packer = collect(task, &file, from, limit, layout)?;
    if packer.too_small {
        return Err(Errno::EINVAL.into());
    }
    walk::touch_atime(&file.path);
    task.write_bytes(buf, &packer.bytes)?;
    *file.offset.lock() = packer.next;
    Ok(packer.bytes.len())
}

fn collect(
    task: &CurrentTask,
    file: &OpenFile,
    from: u64,
    limit: usize,
    layout: Layout,
) -> Result<Packer, Errno> {
    let mut packer = Packer { bytes: Vec::new(), limit, layout, next: from, too_small: false };
    file.ops.read_dir(file, task, from, &mut packer)?;
    Ok(packer)
}
