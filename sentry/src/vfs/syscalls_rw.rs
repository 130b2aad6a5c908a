//! `read`, `write` and their relatives; `lseek`.

use std::sync::Arc;

use quicksand_abi::fs::Iovec;
use quicksand_abi::{Errno, UserAddr};

use super::io::{IoRange, MAX_RW_COUNT};
use super::rw::{self, MAX_FILE_SIZE};
use super::{IoDst, IoSrc, OpenFile, OpenFlags, ReadTimer, SeekFrom};
use crate::sync::Events;
use crate::syscalls::{Blocked, Fd, OnSignal, Resume, SyscallError, SyscallResult, WakeReason};
use crate::task::CurrentTask;
use crate::time::Monotonic;

/// `UIO_MAXIOV`.
const IOV_MAX: usize = 1024;

bitflags::bitflags! {
    /// RWF_ flags of `preadv2` and `pwritev2`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Rwf: u32 {
        const HIPRI = 1;
        const DSYNC = 2;
        const SYNC = 4;
        const NOWAIT = 8;
        const APPEND = 0x10;
        const NOAPPEND = 0x20;
    }
}

/// A range that a guest hands in: no longer than what is moved at most, and within user space.
fn user_range(addr: UserAddr, len: usize) -> Result<IoRange, Errno> {
    match addr.checked_add(len as u64) {
        Some(end) if end <= UserAddr::TASK_SIZE => Ok((addr, len.min(MAX_RW_COUNT))),
        _ => Err(Errno::EFAULT),
    }
}

/// Copies in an array of `iovec`s; together no longer than what is moved at most.
pub fn read_iovecs(task: &CurrentTask, addr: UserAddr, count: usize) -> Result<Vec<IoRange>, Errno> {
    if count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let iovecs: Vec<Iovec> = task.read_array(addr, count)?;
    let mut ranges = Vec::with_capacity(iovecs.len());
    let mut left = MAX_RW_COUNT;
    for iovec in iovecs {
        if i64::try_from(iovec.len).is_err() {
            return Err(Errno::EINVAL);
        }
        let (addr, len) = user_range(UserAddr(iovec.base), iovec.len as usize)?;
        let len = len.min(left);
        left -= len;
        ranges.push((addr, len));
    }
    Ok(ranges)
}

/// The wait of a blocking read or write that would have to wait.
fn wait_for(
    file: &OpenFile,
    events: Events,
    done: usize,
    deadline: Option<Monotonic>,
) -> Result<usize, SyscallError> {
    let Some(queue) = file.wait_queue() else { return Err(Errno::EAGAIN.into()) };
    let on_signal = match done {
        0 if deadline.is_some() => OnSignal::Interrupt,
        0 => OnSignal::Restart,
        done => OnSignal::Return(done),
    };
    let resume = Resume::Io { bytes: done as u64, deadline };
    Err(Blocked::on(queue, events).deadline(deadline).resume(resume).on_signal(on_signal).into())
}

/// Where a blocked transfer was: bytes done, and its deadline (SO_RCVTIMEO, SO_SNDTIMEO).
fn progress(task: &CurrentTask, file: &OpenFile, write: bool) -> (usize, Option<Monotonic>) {
    match task.take_resume() {
        Resume::Io { bytes, deadline } => (bytes as usize, deadline),
        _ => {
            let timeout = file.ops.timeout(file, write);
            (0, timeout.map(|t| task.kernel().clocks.monotonic().saturating_add(t)))
        }
    }
}

fn read_blocking(
    task: &CurrentTask,
    file: &Arc<OpenFile>,
    mut dst: IoDst<'_>,
    at: Option<u64>,
    no_wait: bool,
) -> SyscallResult {
    match rw::read_file(task, file, &mut dst, at) {
        Err(Errno::EAGAIN) if !no_wait && !file.is_nonblocking() => {
            if let Some(timer) = file.ops.read_timer(file) {
                return Err(wait_for_timer(task, file, timer)?.into());
            }
            let (_, deadline) = progress(task, file, false);
            if task.wake_reason() == WakeReason::Timeout {
                return Err(Errno::EAGAIN.into());
            }
            wait_for(file, Events::READABLE | Events::RDHUP, 0, deadline)
        }
        result => Ok(result?),
    }
}

/// The wait of a terminal's read in non-canonical mode.
fn wait_for_timer(task: &CurrentTask, file: &OpenFile, timer: ReadTimer) -> Result<Blocked, SyscallError> {
    let queue = file.wait_queue().ok_or(Errno::EAGAIN)?;
    let deadline = match task.take_resume() {
        Resume::Io { bytes, deadline: Some(at) } if bytes == timer.seen && timer.after.is_some() => Some(at),
        _ => timer.after.map(|after| task.kernel().clocks.monotonic().saturating_add(after)),
    };
    let on_signal = if timer.seen > 0 && task.wake_reason() != WakeReason::Interrupted {
        OnSignal::CallAgain
    } else {
        OnSignal::Restart
    };
    let resume = Resume::Io { bytes: timer.seen, deadline };
    Ok(Blocked::on(queue, Events::READABLE | Events::RDHUP)
        .deadline(deadline)
        .resume(resume)
        .on_signal(on_signal))
}

fn write_blocking(
    task: &CurrentTask,
    file: &Arc<OpenFile>,
    mut src: IoSrc<'_>,
    at: Option<u64>,
    flags: Rwf,
) -> SyscallResult {
    let append = (file.flags().contains(OpenFlags::APPEND) && !flags.contains(Rwf::NOAPPEND))
        || flags.contains(Rwf::APPEND);
    let (mut done, deadline) = progress(task, file, true);
    src.skip(done);
    loop {
        match rw::write_file_append(task, file, &mut src, at, append) {
            Ok(n) => {
                done += n;
                if n == 0 || src.remaining() == 0 || !file.ops.writes_all() {
                    break;
                }
            }
            Err(Errno::EAGAIN) if !flags.contains(Rwf::NOWAIT) && !file.is_nonblocking() => {
                if task.wake_reason() == WakeReason::Timeout {
                    return if done > 0 { Ok(done) } else { Err(Errno::EAGAIN.into()) };
                }
                return wait_for(file, Events::WRITABLE, done, deadline);
            }
            Err(_) if done > 0 => break,
            Err(e) => return Err(e.into()),
        }
    }
    if done > 0 && flags.intersects(Rwf::DSYNC | Rwf::SYNC) {
        file.ops.sync(file, !flags.contains(Rwf::SYNC))?;
    }
    Ok(done)
}

/// A position argument: not negative.
fn position(at: i64) -> Result<u64, Errno> {
    u64::try_from(at).map_err(|_| Errno::EINVAL)
}

fn readable(task: &CurrentTask, fd: Fd) -> Result<Arc<OpenFile>, Errno> {
    let file = task.file(fd)?;
    if file.flags().can_read() { Ok(file) } else { Err(Errno::EBADF) }
}
fn writable(task: &CurrentTask, fd: Fd) -> Result<Arc<OpenFile>, Errno> {
    let file = task.file(fd)?;
    if file.flags().can_write() { Ok(file) } else { Err(Errno::EBADF) }
}
fn positioned(file: Arc<OpenFile>) -> Result<Arc<OpenFile>, Errno> {
    if file.ops.is_stream() { Err(Errno::ESPIPE) } else { Ok(file) }
}
fn positioned_write(file: Arc<OpenFile>) -> Result<Arc<OpenFile>, Errno> {
    if file.ops.can_pwrite() { Ok(file) } else { Err(Errno::ESPIPE) }
}

pub fn sys_read(task: &CurrentTask, fd: Fd, buf: UserAddr, count: usize) -> SyscallResult {
    let file = readable(task, fd)?;
    let (addr, len) = user_range(buf, count)?;
    read_blocking(task, &file, IoDst::user(task.mm(), addr, len), None, false)
}

pub fn sys_write(task: &CurrentTask, fd: Fd, buf: UserAddr, count: usize) -> SyscallResult {
    let file = writable(task, fd)?;
    let (addr, len) = user_range(buf, count)?;
    write_blocking(task, &file, IoSrc::user(task.mm(), addr, len), None, Rwf::empty())
}

pub fn sys_pread64(task: &CurrentTask, fd: Fd, buf: UserAddr, count: usize, at: i64) -> SyscallResult {
    let at = position(at)?;
    let file = positioned(task.file(fd)?)?;
    if !file.flags().can_read() {
        return Err(Errno::EBADF.into());
    }
    let (addr, len) = user_range(buf, count)?;
    read_blocking(task, &file, IoDst::user(task.mm(), addr, len), Some(at), false)
}

pub fn sys_pwrite64(task: &CurrentTask, fd: Fd, buf: UserAddr, count: usize, at: i64) -> SyscallResult {
    let at = position(at)?;
    let file = positioned_write(task.file(fd)?)?;
    if !file.flags().can_write() {
        return Err(Errno::EBADF.into());
    }
    let (addr, len) = user_range(buf, count)?;
    write_blocking(task, &file, IoSrc::user(task.mm(), addr, len), Some(at), Rwf::empty())
}

pub fn sys_readv(task: &CurrentTask, fd: Fd, iov: UserAddr, count: usize) -> SyscallResult {
    read_vec(task, fd, iov, count, None, Rwf::empty())
}

pub fn sys_writev(task: &CurrentTask, fd: Fd, iov: UserAddr, count: usize) -> SyscallResult {
    write_vec(task, fd, iov, count, None, Rwf::empty())
}

pub fn sys_preadv(
    task: &CurrentTask,
    fd: Fd,
    iov: UserAddr,
    count: usize,
    at: i64,
    _high: u64,
) -> SyscallResult {
    read_vec(task, fd, iov, count, Some(position(at)?), Rwf::empty())
}

pub fn sys_pwritev(
    task: &CurrentTask,
    fd: Fd,
    iov: UserAddr,
    count: usize,
    at: i64,
    _high: u64,
) -> SyscallResult {
    write_vec(task, fd, iov, count, Some(position(at)?), Rwf::empty())
}

/// The position of the `…2` calls: -1 is the file's own.
fn optional_position(at: i64) -> Result<Option<u64>, Errno> {
    if at == -1 { Ok(None) } else { position(at).map(Some) }
}

pub fn sys_preadv2(
    task: &CurrentTask,
    fd: Fd,
    iov: UserAddr,
    count: usize,
    at: i64,
    _high: u64,
    flags: u32,
) -> SyscallResult {
    read_vec(task, fd, iov, count, optional_position(at)?, rwf(flags)?)
}

pub fn sys_pwritev2(
    task: &CurrentTask,
    fd: Fd,
    iov: UserAddr,
    count: usize,
    at: i64,
    _high: u64,
    flags: u32,
) -> SyscallResult {
    write_vec(task, fd, iov, count, optional_position(at)?, rwf(flags)?)
}

fn rwf(flags: u32) -> Result<Rwf, Errno> {
    let flags = Rwf::from_bits(flags).ok_or(Errno::EOPNOTSUPP)?;
    if flags.contains(Rwf::APPEND | Rwf::NOAPPEND) {
        return Err(Errno::EINVAL);
    }
    Ok(flags)
}

fn read_vec(
    task: &CurrentTask,
    fd: Fd,
    iov: UserAddr,
    count: usize,
    at: Option<u64>,
    flags: Rwf,
) -> SyscallResult {
    let file = task.file(fd)?;
    let file = if at.is_some() { positioned(file)? } else { file };
    if !file.flags().can_read() {
        return Err(Errno::EBADF.into());
    }
    let ranges = read_iovecs(task, iov, count)?;
    if ranges.iter().all(|r| r.1 == 0) {
        return Ok(0);
    }
    let dst = IoDst::user_vec(task.mm(), ranges);
    read_blocking(task, &file, dst, at, flags.contains(Rwf::NOWAIT))
}

fn write_vec(
    task: &CurrentTask,
    fd: Fd,
    iov: UserAddr,
    count: usize,
    at: Option<u64>,
    flags: Rwf,
) -> SyscallResult {
    let file = task.file(fd)?;
    let file = if at.is_some() { positioned_write(file)? } else { file };
    if !file.flags().can_write() {
        return Err(Errno::EBADF.into());
    }
    let ranges = read_iovecs(task, iov, count)?;
    if ranges.iter().all(|r| r.1 == 0) {
        return Ok(0);
    }
    write_blocking(task, &file, IoSrc::user_vec(task.mm(), ranges), at, flags)
}

pub fn sys_lseek(task: &CurrentTask, fd: Fd, offset: i64, whence: u32) -> SyscallResult {
    let file = task.file(fd)?;
    if whence > libc::SEEK_HOLE as u32 {
        return Err(Errno::EINVAL.into());
    }
    Ok(seek(&file, offset, whence)? as usize)
}

/// `lseek(2)`; `whence` is in range.
pub fn seek(file: &OpenFile, offset: i64, whence: u32) -> Result<u64, Errno> {
    let _position = file.position_lock.lock();
    let target = file.ops.seek(
        file,
        match whence as i32 {
            libc::SEEK_SET => SeekFrom::Start(offset),
            libc::SEEK_CUR => SeekFrom::Current(offset),
            libc::SEEK_END => SeekFrom::End(offset),
            libc::SEEK_DATA => SeekFrom::Data(offset),
            _ => SeekFrom::Hole(offset),
        },
    )?;
    if target > MAX_FILE_SIZE {
        return Err(Errno::EINVAL);
    }
    *file.offset.lock() = target;
    Ok(target)
}
