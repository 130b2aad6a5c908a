//! Descriptors: `close`, `dup`, `fcntl`, `flock`.

use std::sync::Arc;

use quicksand_abi::fs::{Flock as UserFlock, OwnerEx};
use quicksand_abi::{Errno, UserAddr};

use super::fd_table::close_file;
use super::inode::FileKind;
use super::locks::{self, Flock, LAST, LockOwner, Record};
use super::{FdFlags, OpenFile, OpenFlags, perm};
use crate::sync::Events;
use crate::syscalls::{Blocked, Fd, OnSignal, SyscallResult, WakeReason};
use crate::task::{CurrentTask, Resource};

const F_OWNER_TID: i32 = 0;
const F_OWNER_PID: i32 = 1;
const F_OWNER_PGRP: i32 = 2;
const F_DUPFD_QUERY: i32 = 1027;
const F_GET_RW_HINT: i32 = 1035;
const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;
const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;
const DN_MULTISHOT: u64 = 0x8000_0000;
const CLOSE_RANGE_UNSHARE: u32 = 2;
const CLOSE_RANGE_CLOEXEC: u32 = 4;

pub fn sys_close(task: &CurrentTask, fd: Fd) -> SyscallResult {
    let files = task.files();
    let file = files.remove(fd)?;
    close_file(files.id, &file)?;
    Ok(0)
}

pub fn sys_close_range(task: &CurrentTask, first: u32, last: u32, flags: u32) -> SyscallResult {
    if flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 || first > last {
        return Err(Errno::EINVAL.into());
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        task.set_files(Arc::new(task.files().duplicate()));
    }
    let files = task.files();
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        files.set_cloexec_range(first as usize, last as usize);
        return Ok(0);
    }
    for file in files.remove_where(|fd, _| (first..=last).contains(&(fd.0 as u32))) {
        // As Linux: errors of a flush are not reported.
        let _ = close_file(files.id, &file);
    }
    Ok(0)
}

pub fn sys_dup(task: &CurrentTask, fd: Fd) -> SyscallResult {
    let file = task.file_or_path(fd)?;
    Ok(task.install_fd(file, FdFlags::empty())?.0 as usize)
}

pub fn sys_dup2(task: &CurrentTask, old: Fd, new: Fd) -> SyscallResult {
    if old == new {
        task.file_or_path(old)?;
        return Ok(new.0 as usize);
    }
    duplicate_to(task, old, new, FdFlags::empty())
}

pub fn sys_dup3(task: &CurrentTask, old: Fd, new: Fd, flags: u32) -> SyscallResult {
    if flags & !OpenFlags::CLOEXEC.bits() != 0 || old == new {
        return Err(Errno::EINVAL.into());
    }
    duplicate_to(task, old, new, cloexec(flags))
}

fn cloexec(flags: u32) -> FdFlags {
    if flags & OpenFlags::CLOEXEC.bits() != 0 { FdFlags::CLOEXEC } else { FdFlags::empty() }
}

fn duplicate_to(task: &CurrentTask, old: Fd, new: Fd, flags: FdFlags) -> SyscallResult {
    let limit = task.group().rlimit(Resource::Nofile).soft;
    if u64::try_from(new.0).is_ok_and(|n| n >= limit) || new.0 < 0 {
        return Err(Errno::EBADF.into());
    }
    let file = task.file_or_path(old)?;
    let files = task.files();
    if let Some(replaced) = files.install_at(new, file, flags, limit)? {
        let _ = close_file(files.id, &replaced);
    }
    Ok(new.0 as usize)
}

pub fn sys_fcntl(task: &CurrentTask, fd: Fd, cmd: i32, arg: u64) -> SyscallResult {
    let (file, fd_flags) = task.files().get_with_flags(fd)?;
    match cmd {
        libc::F_DUPFD => return duplicate(task, file, arg, FdFlags::empty()),
        libc::F_DUPFD_CLOEXEC => return duplicate(task, file, arg, FdFlags::CLOEXEC),
        libc::F_GETFD => return Ok(fd_flags.bits() as usize),
        libc::F_SETFD => {
            task.files().set_flags(fd, FdFlags::from_bits_truncate(arg as u32))?;
            return Ok(0);
        }
        libc::F_GETFL => return Ok(file.flags().bits() as usize),
        F_DUPFD_QUERY => {
            let other = task.file_or_path(Fd(arg as i32))?;
            return Ok(usize::from(Arc::ptr_eq(&file, &other)));
        }
        _ if file.flags().contains(OpenFlags::PATH) => return Err(Errno::EBADF.into()),
        _ => {}
    }
    match cmd {
        libc::F_SETFL => set_flags(task, fd, &file, arg as u32),
        libc::F_GETLK => get_lock(task, &file, UserAddr(arg), false),
        libc::F_SETLK => set_lock(task, &file, UserAddr(arg), false, false),
        libc::F_SETLKW => set_lock(task, &file, UserAddr(arg), false, true),
        libc::F_OFD_GETLK => get_lock(task, &file, UserAddr(arg), true),
        libc::F_OFD_SETLK => set_lock(task, &file, UserAddr(arg), true, false),
        libc::F_OFD_SETLKW => set_lock(task, &file, UserAddr(arg), true, true),
        libc::F_SETOWN => {
            let pid = arg as i32;
            if pid == i32::MIN {
                return Err(Errno::EINVAL.into());
            }
            file.set_owner(task, pid, false)?;
            Ok(0)
        }
        libc::F_GETOWN => Ok(file.owner().pid as isize as usize),
        F_SETSIG => {
            if arg > 64 {
                return Err(Errno::EINVAL.into());
            }
            file.set_owner_signal(arg as i32);
            Ok(0)
        }
        F_GETSIG => Ok(file.owner().signal as usize),
        F_SETOWN_EX => {
            let owner: OwnerEx = task.read_object(UserAddr(arg))?;
            match owner.kind {
                F_OWNER_TID => file.set_owner(task, owner.pid, true)?,
                F_OWNER_PID => file.set_owner(task, owner.pid, false)?,
                F_OWNER_PGRP => {
                    file.set_owner(task, owner.pid.checked_neg().ok_or(Errno::EINVAL)?, false)?;
                }
                _ => return Err(Errno::EINVAL.into()),
            }
            Ok(0)
        }
        F_GETOWN_EX => {
            let owner = file.owner();
            let kind = match owner.pid {
                _ if owner.thread => F_OWNER_TID,
                pid if pid < 0 => F_OWNER_PGRP,
                _ => F_OWNER_PID,
            };
            let pid = owner.pid.saturating_abs();
            task.write_object(UserAddr(arg), &OwnerEx { kind, pid })?;
            Ok(0)
        }
        libc::F_GETLEASE => Ok(libc::F_UNLCK as usize),
        libc::F_SETLEASE => set_lease(task, &file, arg as i32),
        // To be told of nothing is what everybody is.
        libc::F_NOTIFY if arg & !DN_MULTISHOT == 0 => Ok(0),
        libc::F_NOTIFY if !file.inode.is_dir() => Err(Errno::ENOTDIR.into()),
        libc::F_GETPIPE_SZ => Ok(file.ops.pipe_size(&file)?),
        libc::F_SETPIPE_SZ => {
            let bytes = u32::try_from(arg as i32).map_err(|_| Errno::EINVAL)?;
            Ok(file.ops.set_pipe_size(&file, task, bytes)?)
        }
        libc::F_GET_SEALS => Ok(file.ops.seals(&file)? as usize),
        libc::F_ADD_SEALS => {
            // EINVAL for a file that knows no seals comes before EPERM for one that is not writable.
            if !file.flags().can_write() {
                file.ops.seals(&file)?;
                return Err(Errno::EPERM.into());
            }
            let _io = file.inode.io_lock.lock();
            file.ops.add_seals(&file, arg as u32)?;
            Ok(0)
        }
        F_GET_RW_HINT => {
            task.write_object(UserAddr(arg), &0u64)?;
            Ok(0)
        }
        _ => {
            task.kernel().log_once(0x1000_0000 | u64::from(cmd as u32), || {
                format!("fcntl command {cmd} is not supported; EINVAL")
            });
            Err(Errno::EINVAL.into())
        }
    }
}

fn duplicate(task: &CurrentTask, file: Arc<OpenFile>, min: u64, flags: FdFlags) -> SyscallResult {
    let limit = task.group().rlimit(Resource::Nofile).soft;
    let min = u64::from(min as u32);
    if min >= limit {
        return Err(Errno::EINVAL.into());
    }
    let min = i32::try_from(min).map_err(|_| Errno::EINVAL)?;
    Ok(task.files().install(file, flags, min, limit)?.0 as usize)
}

/// F_SETFL (`setfl`).
fn set_flags(task: &CurrentTask, fd: Fd, file: &OpenFile, arg: u32) -> SyscallResult {
    const CHANGEABLE: OpenFlags = OpenFlags::APPEND
        .union(OpenFlags::NONBLOCK)
        .union(OpenFlags::DIRECT)
        .union(OpenFlags::NOATIME)
        .union(OpenFlags::ASYNC);
    let wanted = OpenFlags::from_bits_retain(arg) & CHANGEABLE;
    let old = file.flags();
    if wanted.contains(OpenFlags::NOATIME)
        && !old.contains(OpenFlags::NOATIME)
        && !perm::is_owner(&task.creds(), &file.inode.attr()?)
    {
        return Err(Errno::EPERM.into());
    }
    let mut new = (old & !CHANGEABLE) | wanted;
    if !file.ops.is_stream() {
        // Only what can become ready by itself sends SIGIO.
        new.remove(OpenFlags::ASYNC);
    }
    file.ops.set_flags(file, new)?;
    file.set_flags(new);
    if new.contains(OpenFlags::ASYNC) != old.contains(OpenFlags::ASYNC) {
        file.set_async(fd.0, new.contains(OpenFlags::ASYNC));
    }
    Ok(0)
}

/// F_SETLEASE: no file system here can break a lease, so none is given (`simple_nosetlease`).
fn set_lease(task: &CurrentTask, file: &OpenFile, kind: i32) -> SyscallResult {
    if kind == libc::F_UNLCK {
        return Err(Errno::EAGAIN.into());
    }
    if !perm::is_owner(&task.creds(), &file.inode.attr()?) {
        return Err(Errno::EACCES.into());
    }
    task.kernel()
        .log_once(0x1000_0000 | libc::F_SETLEASE as u64, || "leases are not supported; EINVAL".into());
    Err(Errno::EINVAL.into())
}

/// The bytes that a `struct flock` means (`flock_to_posix_lock`).
fn lock_range(file: &OpenFile, lock: &UserFlock) -> Result<(u64, u64), Errno> {
    let base = match i32::from(lock.whence) {
        libc::SEEK_SET => 0,
        libc::SEEK_CUR => *file.offset.lock() as i64,
        libc::SEEK_END => file.inode.attr()?.size as i64,
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(lock.start).ok_or(Errno::EOVERFLOW)?;
    let (first, last) = match lock.len {
        0 => (start, i64::MAX),
        len if len > 0 => {
            let last = start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?;
            (start, last)
        }
        len => (start.checked_add(len).ok_or(Errno::EINVAL)?, start.saturating_sub(1)),
    };
    match (u64::try_from(first), u64::try_from(last)) {
        (Ok(first), Ok(last)) => Ok((first, last)),
        _ => Err(Errno::EINVAL),
    }
}

fn record(task: &CurrentTask, file: &OpenFile, lock: &UserFlock, of_file: bool) -> Result<Record, Errno> {
    if of_file && lock.pid != 0 {
        return Err(Errno::EINVAL);
    }
    let (start, end) = lock_range(file, lock)?;
    let (owner, pid) = if of_file {
        (LockOwner::File(file.id), -1)
    } else {
        (LockOwner::Table(task.files().id), task.group().pid())
    };
    Ok(Record { owner, start, end, exclusive: i32::from(lock.kind) == libc::F_WRLCK, pid })
}

fn get_lock(task: &CurrentTask, file: &OpenFile, addr: UserAddr, of_file: bool) -> SyscallResult {
    let mut lock: UserFlock = task.read_object(addr)?;
    if !matches!(i32::from(lock.kind), libc::F_RDLCK | libc::F_WRLCK) {
        return Err(Errno::EINVAL.into());
    }
    let wanted = record(task, file, &lock, of_file)?;
    match locks::of(&file.inode).conflict(&wanted) {
        None => lock.kind = libc::F_UNLCK as i16,
        Some(held) => {
            lock.kind = if held.exclusive { libc::F_WRLCK } else { libc::F_RDLCK } as i16;
            lock.whence = libc::SEEK_SET as i16;
            lock.start = held.start as i64;
            lock.len = if held.end == LAST { 0 } else { (held.end - held.start + 1) as i64 };
            lock.pid = held.pid;
        }
    }
    task.write_object(addr, &lock)?;
    Ok(0)
}

fn set_lock(task: &CurrentTask, file: &OpenFile, addr: UserAddr, of_file: bool, wait: bool) -> SyscallResult {
    let waits = &task.kernel().lock_waits;
    if wait && task.wake_reason() != WakeReason::First {
        waits.end(task.id);
    }
    let lock: UserFlock = task.read_object(addr)?;
    let wanted = record(task, file, &lock, of_file)?;
    let inode_locks = locks::of(&file.inode);
    match i32::from(lock.kind) {
        libc::F_RDLCK if !file.flags().can_read() => return Err(Errno::EBADF.into()),
        libc::F_WRLCK if !file.flags().can_write() => return Err(Errno::EBADF.into()),
        libc::F_RDLCK | libc::F_WRLCK => {}
        libc::F_UNLCK => {
            inode_locks.clear(wanted.owner, wanted.start, wanted.end);
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    let Err(held) = inode_locks.set(wanted) else { return Ok(0) };
    if !wait {
        return Err(Errno::EAGAIN.into());
    }
    let blocked = Blocked::on(inode_locks.queue().clone(), Events::all());
    if of_file || task.wake_reason() == WakeReason::Interrupted {
        return Err(blocked.on_signal(OnSignal::Restart).into());
    }
    waits.begin(task.task(), task.files().id, held.owner)?;
    // Called once more when interrupted, to leave the table of waits.
    Err(blocked.on_signal(OnSignal::CallAgain).into())
}

pub fn sys_flock(task: &CurrentTask, fd: Fd, op: i32) -> SyscallResult {
    let file = task.file(fd)?;
    let exclusive = match op & !libc::LOCK_NB {
        libc::LOCK_SH => false,
        libc::LOCK_EX => true,
        libc::LOCK_UN => {
            if let Some(locks) = file.inode.locks.get() {
                locks.unflock(file.id);
            }
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    if !file.flags().can_read() && !file.flags().can_write() && file.inode.kind != FileKind::Anonymous {
        return Err(Errno::EBADF.into());
    }
    let locks = locks::of(&file.inode);
    match locks.flock(Flock { file: file.id, exclusive, pid: task.group().pid() }) {
        Err(Errno::EAGAIN) if op & libc::LOCK_NB == 0 => {
            Err(Blocked::on(locks.queue().clone(), Events::all()).into())
        }
        result => Ok(result.map(|()| 0)?),
    }
}
