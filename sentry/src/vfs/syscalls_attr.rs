//! Calls that change attributes and sizes, and those about a file's storage: `chmod`, `chown`, `utime`, `truncate`,
//! `fallocate`, `fsync`, `fadvise`.

use quicksand_abi::fs::Utimbuf;
use quicksand_abi::{Errno, Timespec, Timeval, UserAddr};

use super::attr::{self, Stamp};
use super::inode::FileKind;
use super::rw::MAX_FILE_SIZE;
use super::syscalls_stat::at_path;
use super::{OpenFile, Path, walk};
use crate::syscalls::{Fd, SyscallResult};
use crate::task::CurrentTask;
use crate::time::Realtime;

const NOFOLLOW: u32 = libc::AT_SYMLINK_NOFOLLOW as u32;
const EMPTY: u32 = libc::AT_EMPTY_PATH as u32;

pub fn sys_chmod(task: &CurrentTask, path: UserAddr, mode: u32) -> SyscallResult {
    chmod_at(task, Fd::CWD, path, mode, 0)
}

pub fn sys_fchmodat(task: &CurrentTask, dirfd: Fd, path: UserAddr, mode: u32) -> SyscallResult {
    chmod_at(task, dirfd, path, mode, 0)
}

pub fn sys_fchmodat2(task: &CurrentTask, dirfd: Fd, path: UserAddr, mode: u32, flags: u32) -> SyscallResult {
    if flags & !(NOFOLLOW | EMPTY) != 0 {
        return Err(Errno::EINVAL.into());
    }
    chmod_at(task, dirfd, path, mode, flags)
}

fn chmod_at(task: &CurrentTask, dirfd: Fd, path: UserAddr, mode: u32, flags: u32) -> SyscallResult {
    let path = at_path(task, dirfd, path, flags)?;
    attr::chmod(task, &path, mode)?;
    Ok(0)
}

pub fn sys_fchmod(task: &CurrentTask, fd: Fd, mode: u32) -> SyscallResult {
    attr::chmod(task, &task.file(fd)?.path, mode)?;
    Ok(0)
}

/// An id argument: -1 leaves it as it is.
fn id(raw: u32) -> Option<u32> {
    (raw != u32::MAX).then_some(raw)
}

pub fn sys_chown(task: &CurrentTask, path: UserAddr, uid: u32, gid: u32) -> SyscallResult {
    chown_at(task, Fd::CWD, path, uid, gid, 0)
}

pub fn sys_lchown(task: &CurrentTask, path: UserAddr, uid: u32, gid: u32) -> SyscallResult {
    chown_at(task, Fd::CWD, path, uid, gid, NOFOLLOW)
}

pub fn sys_fchownat(
    task: &CurrentTask,
    dirfd: Fd,
    path: UserAddr,
    uid: u32,
    gid: u32,
    flags: u32,
) -> SyscallResult {
    if flags & !(NOFOLLOW | EMPTY) != 0 {
        return Err(Errno::EINVAL.into());
    }
    chown_at(task, dirfd, path, uid, gid, flags)
}

fn chown_at(task: &CurrentTask, dirfd: Fd, path: UserAddr, uid: u32, gid: u32, flags: u32) -> SyscallResult {
    let path = at_path(task, dirfd, path, flags)?;
    attr::chown(task, &path, id(uid), id(gid))?;
    Ok(0)
}

pub fn sys_fchown(task: &CurrentTask, fd: Fd, uid: u32, gid: u32) -> SyscallResult {
    attr::chown(task, &task.file(fd)?.path, id(uid), id(gid))?;
    Ok(0)
}

pub fn sys_utimensat(
    task: &CurrentTask,
    dirfd: Fd,
    path: UserAddr,
    times: UserAddr,
    flags: u32,
) -> SyscallResult {
    let stamps = if times.is_null() {
        [Stamp::Now, Stamp::Now]
    } else {
        let raw: Vec<Timespec> = task.read_array(times, 2)?;
        let stamps = [stamp(raw[0])?, stamp(raw[1])?];
        if stamps == [Stamp::Omit, Stamp::Omit] {
            return Ok(0);
        }
        stamps
    };
    if flags & !(NOFOLLOW | EMPTY) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let path = if path.is_null() && dirfd != Fd::CWD {
        if flags != 0 {
            return Err(Errno::EINVAL.into());
        }
        task.file(dirfd)?.path.clone()
    } else {
        at_path(task, dirfd, path, flags)?
    };
    attr::set_times(task, &path, stamps[0], stamps[1])?;
    Ok(0)
}

/// `UTIME_NOW`, `UTIME_OMIT`, or a time.
fn stamp(t: Timespec) -> Result<Stamp, Errno> {
    match t.nsec {
        libc::UTIME_NOW => Ok(Stamp::Now),
        libc::UTIME_OMIT => Ok(Stamp::Omit),
        0..=999_999_999 => Ok(Stamp::At(Realtime(t.to_ns()))),
        _ => Err(Errno::EINVAL),
    }
}

pub fn sys_utimes(task: &CurrentTask, path: UserAddr, times: UserAddr) -> SyscallResult {
    sys_futimesat(task, Fd::CWD, path, times)
}

pub fn sys_futimesat(task: &CurrentTask, dirfd: Fd, path: UserAddr, times: UserAddr) -> SyscallResult {
    let stamps = if times.is_null() {
        [Stamp::Now, Stamp::Now]
    } else {
        let raw: Vec<Timeval> = task.read_array(times, 2)?;
        if raw.iter().any(|t| !(0..1_000_000).contains(&t.usec)) {
            return Err(Errno::EINVAL.into());
        }
        [Stamp::At(Realtime(raw[0].to_ns())), Stamp::At(Realtime(raw[1].to_ns()))]
    };
    set_times_at(task, dirfd, path, stamps)
}

pub fn sys_utime(task: &CurrentTask, path: UserAddr, times: UserAddr) -> SyscallResult {
    let stamps = if times.is_null() {
        [Stamp::Now, Stamp::Now]
    } else {
        let raw: Utimbuf = task.read_object(times)?;
        let at = |sec: i64| Stamp::At(Realtime(sec.saturating_mul(1_000_000_000)));
        [at(raw.actime), at(raw.modtime)]
    };
    set_times_at(task, Fd::CWD, path, stamps)
}

fn set_times_at(task: &CurrentTask, dirfd: Fd, path: UserAddr, stamps: [Stamp; 2]) -> SyscallResult {
    let path = if path.is_null() && dirfd != Fd::CWD {
        task.file(dirfd)?.path.clone()
    } else {
        at_path(task, dirfd, path, 0)?
    };
    attr::set_times(task, &path, stamps[0], stamps[1])?;
    Ok(0)
}

pub fn sys_truncate(task: &CurrentTask, path: UserAddr, len: i64) -> SyscallResult {
    let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
    let path: Path = at_path(task, Fd::CWD, path, 0)?;
    attr::truncate(task, &path, len)?;
    Ok(0)
}

pub fn sys_ftruncate(task: &CurrentTask, fd: Fd, len: i64) -> SyscallResult {
    let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
    let file = task.file(fd)?;
    if file.inode.kind != FileKind::Regular || !file.flags().can_write() {
        return Err(Errno::EINVAL.into());
    }
    attr::set_size(task, &file.inode, len)?;
    super::notify::file(&file.path, super::notify::MODIFY);
    Ok(0)
}

pub fn sys_fallocate(task: &CurrentTask, fd: Fd, mode: u32, offset: i64, len: i64) -> SyscallResult {
    const KEEP_SIZE: u32 = libc::FALLOC_FL_KEEP_SIZE as u32;
    const PUNCH_HOLE: u32 = libc::FALLOC_FL_PUNCH_HOLE as u32;
    const COLLAPSE: u32 = libc::FALLOC_FL_COLLAPSE_RANGE as u32;
    const ZERO: u32 = libc::FALLOC_FL_ZERO_RANGE as u32;
    const INSERT: u32 = libc::FALLOC_FL_INSERT_RANGE as u32;
    const UNSHARE: u32 = 0x40;
    let file = task.file(fd)?;
    if offset < 0 || len <= 0 {
        return Err(Errno::EINVAL.into());
    }
    // The modes that make sense together.
    match mode & !KEEP_SIZE {
        0 | ZERO | UNSHARE => {}
        PUNCH_HOLE if mode & KEEP_SIZE != 0 => {}
        COLLAPSE | INSERT if mode & KEEP_SIZE == 0 => {}
        PUNCH_HOLE => return Err(Errno::EOPNOTSUPP.into()),
        COLLAPSE | INSERT => return Err(Errno::EINVAL.into()),
        _ => return Err(Errno::EOPNOTSUPP.into()),
    }
    if !file.flags().can_write() {
        return Err(Errno::EBADF.into());
    }
    match file.inode.kind {
        FileKind::Regular => {}
        FileKind::Fifo => return Err(Errno::ESPIPE.into()),
        FileKind::Directory => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::ENODEV.into()),
    }
    let (offset, len) = (offset as u64, len as u64);
    let end = offset.checked_add(len).filter(|end| *end <= MAX_FILE_SIZE).ok_or(Errno::EFBIG)?;
    if mode & KEEP_SIZE == 0 {
        attr::check_size(task, &file.inode, end)?;
    }
    let _io = file.inode.io_lock.lock();
    file.ops.fallocate(&file, mode, offset, len)?;
    Ok(0)
}

pub fn sys_fsync(task: &CurrentTask, fd: Fd) -> SyscallResult {
    let file = task.file(fd)?;
    file.ops.sync(&file, false)?;
    Ok(0)
}

pub fn sys_fdatasync(task: &CurrentTask, fd: Fd) -> SyscallResult {
    let file = task.file(fd)?;
    file.ops.sync(&file, true)?;
    Ok(0)
}

/// What is written has reached the host's page cache already; making the host write everything out is not a guest's to ask.
pub fn sys_sync(_task: &CurrentTask) -> SyscallResult {
    Ok(0)
}

pub fn sys_syncfs(task: &CurrentTask, fd: Fd) -> SyscallResult {
    task.file(fd)?;
    Ok(0)
}

pub fn sys_sync_file_range(task: &CurrentTask, fd: Fd, offset: i64, len: i64, flags: u32) -> SyscallResult {
    let file = task.file(fd)?;
    if flags & !7 != 0 || offset < 0 || len < 0 || offset.checked_add(len).is_none() {
        return Err(Errno::EINVAL.into());
    }
    if !super::syscalls_path::is_stored(file.inode.kind) && file.inode.kind != FileKind::BlockDevice {
        return Err(Errno::ESPIPE.into());
    }
    match file.ops.sync(&file, true) {
        // It has no `fsync`, and no pages that could be written either.
        Ok(()) | Err(Errno::EINVAL) => Ok(0),
        Err(e) => Err(e.into()),
    }
}

pub fn sys_fadvise64(task: &CurrentTask, fd: Fd, _offset: i64, len: i64, advice: i32) -> SyscallResult {
    let file: std::sync::Arc<OpenFile> = task.file(fd)?;
    if file.inode.kind == FileKind::Fifo {
        return Err(Errno::ESPIPE.into());
    }
    if len < 0 || !(libc::POSIX_FADV_NORMAL..=libc::POSIX_FADV_NOREUSE).contains(&advice) {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}

pub fn sys_readahead(task: &CurrentTask, fd: Fd, _offset: i64, _count: usize) -> SyscallResult {
    let file = task.file(fd)?;
    if !file.flags().can_read() {
        return Err(Errno::EBADF.into());
    }
    if !matches!(file.inode.kind, FileKind::Regular | FileKind::BlockDevice) {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}

/// No file system here gives handles.
pub fn sys_name_to_handle_at(
    task: &CurrentTask,
    dirfd: Fd,
    path: UserAddr,
    _handle: UserAddr,
    _mount_id: UserAddr,
    flags: u32,
) -> SyscallResult {
    const FOLLOW: u32 = libc::AT_SYMLINK_FOLLOW as u32;
    const HANDLE_FID: u32 = 0x200;
    if flags & !(FOLLOW | EMPTY | HANDLE_FID) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let path = task.read_path(path)?;
    let mut walk_flags = walk::WalkFlags::empty();
    walk_flags.set(walk::WalkFlags::FOLLOW, flags & FOLLOW != 0);
    walk_flags.set(walk::WalkFlags::EMPTY, flags & EMPTY != 0);
    walk::lookup(task, dirfd, &path, walk_flags)?;
    Err(Errno::EOPNOTSUPP.into())
}
