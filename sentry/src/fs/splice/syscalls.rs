//! `splice(2)`, `tee(2)`, `vmsplice(2)`.

use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr};

use super::pipes::{Stuck, pass};
use super::{CHUNK, Position, wait_for};
use crate::fs::pipe::{Pipe, PipeFile};
use crate::fs::send_sigpipe;
use crate::sync::Events;
use crate::syscalls::{Fd, SyscallError, SyscallResult};
use crate::task::CurrentTask;
use crate::vfs::io::MAX_RW_COUNT;
use crate::vfs::rw::{read_file, write_file};
use crate::vfs::syscalls_rw::read_iovecs;
use crate::vfs::{IoDst, IoSrc, OpenFile, OpenFlags};

pub use super::copy::{sys_copy_file_range, sys_sendfile};

const SPLICE_F_NONBLOCK: u32 = 2;
const SPLICE_F_ALL: u32 = 0xf;

fn pipe_of(file: &OpenFile) -> Option<&PipeFile> {
    file.ops_as::<PipeFile>()
}

/// `splice(2)`
pub fn sys_splice(
    task: &CurrentTask,
    in_fd: Fd,
    in_offset: UserAddr,
    out_fd: Fd,
    out_offset: UserAddr,
    len: usize,
    flags: u32,
) -> SyscallResult {
    if len == 0 {
        return Ok(0);
    }
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL.into());
    }
    let source = task.file(in_fd)?;
    let sink = task.file(out_fd)?;
    let (from_pipe, to_pipe) = (pipe_of(&source), pipe_of(&sink));
    if (from_pipe.is_some() && !in_offset.is_null()) || (to_pipe.is_some() && !out_offset.is_null()) {
        return Err(Errno::ESPIPE.into());
    }
    if !source.flags().can_read() || !sink.flags().can_write() {
        return Err(Errno::EBADF.into());
    }
    let nonblock = flags & SPLICE_F_NONBLOCK != 0;
    let len = len.min(MAX_RW_COUNT);
    match (from_pipe, to_pipe) {
        (Some(from), Some(to)) => {
            if Arc::ptr_eq(&from.pipe, &to.pipe) {
                return Err(Errno::EINVAL.into());
            }
            let nonblock = nonblock || source.is_nonblocking() || sink.is_nonblocking();
            pipe_to_pipe(task, (&source, from), (&sink, to), len, nonblock, false)
        }
        (Some(from), None) => {
            let nonblock = nonblock || source.is_nonblocking();
            pipe_to_file(task, (&source, &from.pipe), &sink, out_offset, len, nonblock)
        }
        (None, Some(to)) => {
            let nonblock = nonblock || sink.is_nonblocking();
            file_to_pipe(task, &source, in_offset, (&sink, &to.pipe), len, nonblock)
        }
        (None, None) => Err(Errno::EINVAL.into()),
    }
}

/// `tee(2)`
pub fn sys_tee(task: &CurrentTask, in_fd: Fd, out_fd: Fd, len: usize, flags: u32) -> SyscallResult {
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL.into());
    }
    if len == 0 {
        return Ok(0);
    }
    let source = task.file(in_fd)?;
    let sink = task.file(out_fd)?;
    if !source.flags().can_read() || !sink.flags().can_write() {
        return Err(Errno::EBADF.into());
    }
    let (Some(from), Some(to)) = (pipe_of(&source), pipe_of(&sink)) else { return Err(Errno::EINVAL.into()) };
    if Arc::ptr_eq(&from.pipe, &to.pipe) {
        return Err(Errno::EINVAL.into());
    }
    let nonblock = flags & SPLICE_F_NONBLOCK != 0 || source.is_nonblocking() || sink.is_nonblocking();
    pipe_to_pipe(task, (&source, from), (&sink, to), len.min(MAX_RW_COUNT), nonblock, true)
}

/// `vmsplice(2)`: pages are copied, never given away.
pub fn sys_vmsplice(task: &CurrentTask, fd: Fd, iov: UserAddr, count: usize, flags: u32) -> SyscallResult {
    if flags & !SPLICE_F_ALL != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = task.file(fd)?;
    let pipe = pipe_of(&file).ok_or(Errno::EBADF)?;
    let ranges = read_iovecs(task, iov, count)?;
    let nonblock = flags & SPLICE_F_NONBLOCK != 0;
    let (result, events) = if pipe.is_writer() {
        let mut src = IoSrc::user_vec(task.mm(), ranges);
        if src.remaining() == 0 {
            return Ok(0);
        }
        (write_file(task, &file, &mut src, None), Events::WRITABLE)
    } else {
        let mut dst = IoDst::user_vec(task.mm(), ranges);
        if dst.remaining() == 0 {
            return Ok(0);
        }
        (read_file(task, &file, &mut dst, None), Events::READABLE)
    };
    match result {
        Err(Errno::EAGAIN) => Err(wait_for(&file, events, nonblock)?.into()),
        other => Ok(other?),
    }
}

fn pipe_to_pipe(
    task: &CurrentTask,
    from: (&Arc<OpenFile>, &PipeFile),
    to: (&Arc<OpenFile>, &PipeFile),
    len: usize,
    nonblock: bool,
    copy: bool,
) -> SyscallResult {
    match pass(&from.1.pipe, &to.1.pipe, len, copy) {
        Ok(passed) => Ok(passed),
        Err(Stuck::Empty) => Err(wait_for(from.0, Events::READABLE, nonblock)?.into()),
        Err(Stuck::Full) => Err(wait_for(to.0, Events::WRITABLE, nonblock)?.into()),
        Err(Stuck::Errno(e)) => Err(broken(task, e)),
    }
}

fn pipe_to_file(
    task: &CurrentTask,
    from: (&Arc<OpenFile>, &Pipe),
    sink: &Arc<OpenFile>,
    offset: UserAddr,
    len: usize,
    nonblock: bool,
) -> SyscallResult {
    if !offset.is_null() && sink.ops.is_stream() {
        return Err(Errno::EINVAL.into());
    }
    if sink.flags().contains(OpenFlags::APPEND) || !sink.ops.can_splice(true) {
        return Err(Errno::EINVAL.into());
    }
    let mut to = Position::new(task, sink, offset)?;
    let mut done = 0;
    let mut failed = None;
    while done < len {
        let data = match from.1.take((len - done).min(CHUNK)) {
            Ok(data) if data.is_empty() => break,
            Ok(data) => data,
            Err(_) if done > 0 => break,
            Err(_) => return Err(wait_for(from.0, Events::READABLE, nonblock)?.into()),
        };
        let mut src = IoSrc::kernel(&data);
        while src.remaining() > 0 && failed.is_none() {
            match write_file(task, sink, &mut src, to.arg()) {
                Ok(0) => failed = Some(Errno::EIO),
                Ok(n) => {
                    done += n;
                    to.advance(n);
                }
                Err(e) => failed = Some(e),
            }
        }
        if src.remaining() > 0 {
            from.1.put_back(&data[data.len() - src.remaining()..]);
            break;
        }
    }
    if done > 0 {
        to.store(task)?;
        return Ok(done);
    }
    match failed {
        None => Ok(0),
        Some(Errno::EAGAIN) => Err(wait_for(sink, Events::WRITABLE, sink.is_nonblocking())?.into()),
        Some(e) => Err(e.into()),
    }
}

fn file_to_pipe(
    task: &CurrentTask,
    source: &Arc<OpenFile>,
    offset: UserAddr,
    to: (&Arc<OpenFile>, &Pipe),
    len: usize,
    nonblock: bool,
) -> SyscallResult {
    if !offset.is_null() && source.ops.is_stream() {
        return Err(Errno::EINVAL.into());
    }
    if source.inode.is_dir() || !source.ops.can_splice(false) {
        return Err(Errno::EINVAL.into());
    }
    let mut from = Position::new(task, source, offset)?;
    let room = match to.1.room(len, false) {
        Ok(room) => room,
        Err(Errno::EAGAIN) => return Err(wait_for(to.0, Events::WRITABLE, nonblock)?.into()),
        Err(e) => return Err(broken(task, e)),
    };
    let mut data = vec![0; room.min(CHUNK)];
    let got = match read_file(task, source, &mut IoDst::kernel(&mut data), from.arg()) {
        Ok(got) => got,
        Err(Errno::EAGAIN) => {
            let nonblock = nonblock || source.is_nonblocking();
            return Err(wait_for(source, Events::READABLE, nonblock)?.into());
        }
        Err(e) => return Err(e.into()),
    };
    to.1.store_all(&data[..got]).map_err(|e| broken(task, e))?;
    from.advance(got);
    from.store(task)?;
    Ok(got)
}

/// A pipe without readers costs the writer a SIGPIPE.
fn broken(task: &CurrentTask, e: Errno) -> SyscallError {
    if e == Errno::EPIPE {
        send_sigpipe(task);
    }
    e.into()
}
