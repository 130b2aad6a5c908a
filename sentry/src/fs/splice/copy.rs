//! `sendfile(2)` and `copy_file_range(2)`.

use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr};

use super::{Position, copy_files, wait_for};
use crate::fs::pipe::PipeFile;
use crate::sync::Events;
use crate::syscalls::{Fd, OnSignal, Resume, SyscallResult, WakeReason};
use crate::task::CurrentTask;
use crate::vfs::io::MAX_RW_COUNT;
use crate::vfs::{FileKind, OpenFile, OpenFlags};

/// `sendfile(2)`
pub fn sys_sendfile(
    task: &CurrentTask,
    out_fd: Fd,
    in_fd: Fd,
    offset: UserAddr,
    count: usize,
) -> SyscallResult {
    let source = task.file(in_fd)?;
    if !source.flags().can_read() {
        return Err(Errno::EBADF.into());
    }
    let mut from = Position::new(task, &source, offset)?;
    if !offset.is_null() && source.ops.is_stream() {
        return Err(Errno::ESPIPE.into());
    }
    let sink = task.file(out_fd)?;
    if !sink.flags().can_write() {
        return Err(Errno::EBADF.into());
    }
    let to_pipe = sink.ops_as::<PipeFile>().is_some();
    // What cannot be positioned could lose data; only a pipe as the sink can hold it.
    if (source.ops.is_stream() && !to_pipe) || source.inode.is_dir() {
        return Err(Errno::EINVAL.into());
    }
    if !source.ops.can_splice(false) || !(to_pipe || sink.ops.can_splice(true)) {
        return Err(Errno::EINVAL.into());
    }
    if sink.flags().contains(OpenFlags::APPEND) && !to_pipe {
        return Err(Errno::EINVAL.into());
    }
    let earlier = match task.take_resume() {
        Resume::Transferred { bytes } => bytes as usize,
        _ => 0,
    };
    // The guest's variable is written at the end only; the file's own position has moved on already.
    if !offset.is_null() {
        from.advance(earlier);
    }
    let count = count.min(MAX_RW_COUNT).saturating_sub(earlier);
    let mut to = Position::new(task, &sink, UserAddr::NULL)?;
    let (copied, stopped) = copy_files(task, &mut from, &mut to, count);
    let done = earlier + copied;
    to.store(task)?;
    if offset.is_null() {
        from.store(task)?;
    }
    if let Err(stopped) = stopped {
        let file = if stopped.at_sink { &sink } else { &source };
        let events = if stopped.at_sink { Events::WRITABLE } else { Events::READABLE };
        // A pipe takes what it has room for and returns.
        let enough = done > 0 && to_pipe;
        if stopped.errno == Errno::EAGAIN && !enough && task.wake_reason() != WakeReason::Interrupted {
            match wait_for(file, events, file.is_nonblocking()) {
                Ok(blocked) => {
                    let on_signal = if done > 0 { OnSignal::CallAgain } else { OnSignal::Restart };
                    let resume = Resume::Transferred { bytes: done as u64 };
                    return Err(blocked.resume(resume).on_signal(on_signal).into());
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => {}
            }
        }
        if done == 0 {
            return Err(stopped.errno.into());
        }
    }
    if !offset.is_null() {
        from.store(task)?;
    }
    Ok(done)
}

/// `copy_file_range(2)`
pub fn sys_copy_file_range(
    task: &CurrentTask,
    in_fd: Fd,
    in_offset: UserAddr,
    out_fd: Fd,
    out_offset: UserAddr,
    len: usize,
    flags: u32,
) -> SyscallResult {
    let source = task.file(in_fd)?;
    let sink = task.file(out_fd)?;
    let mut from = Position::unchecked(task, &source, in_offset)?;
    let mut to = Position::unchecked(task, &sink, out_offset)?;
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    check_copy(&source, &sink)?;
    // As `generic_copy_file_checks`: a sum that wraps around is found before a position that is negative.
    if [from.at, to.at].iter().any(|at| at.checked_add(len as u64).is_none()) {
        return Err(Errno::EOVERFLOW.into());
    }
    if [from.at, to.at].iter().any(|at| i64::try_from(*at).is_err()) {
        return Err(Errno::EINVAL.into());
    }
    let len = len.min(MAX_RW_COUNT);
    let size = source.inode.attr()?.size;
    let len = usize::try_from(size.saturating_sub(from.at)).unwrap_or(usize::MAX).min(len);
    let end = |at: u64| at.saturating_add(len as u64);
    let overlaps = from.at < end(to.at) && to.at < end(from.at);
    if Arc::ptr_eq(&source.inode, &sink.inode) && overlaps && len > 0 {
        return Err(Errno::EINVAL.into());
    }
    let (done, stopped) = copy_files(task, &mut from, &mut to, len);
    if let (0, Err(stopped)) = (done, stopped) {
        return Err(stopped.errno.into());
    }
    from.store(task)?;
    to.store(task)?;
    Ok(done)
}

/// `generic_file_rw_checks`, and that both files are of one file system.
fn check_copy(source: &OpenFile, sink: &OpenFile) -> Result<(), Errno> {
    let kinds = [source.inode.kind, sink.inode.kind];
    if kinds.contains(&FileKind::Directory) {
        return Err(Errno::EISDIR);
    }
    if kinds != [FileKind::Regular; 2] {
        return Err(Errno::EINVAL);
    }
    let flags = sink.flags();
    if !source.flags().can_read() || !flags.can_write() || flags.contains(OpenFlags::APPEND) {
        return Err(Errno::EBADF);
    }
    if !Arc::ptr_eq(source.superblock(), sink.superblock()) {
        return Err(Errno::EXDEV);
    }
    Ok(())
}
