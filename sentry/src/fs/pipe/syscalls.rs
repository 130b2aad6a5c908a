//! `pipe(2)`.

use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr};

use super::Pipe;
use super::anon_pipe::PipeInode;
use super::file::PipeFile;
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;
use crate::vfs::{FdFlags, OpenFile, OpenFlags};

/// `pipe(2)`
pub fn pipe(task: &CurrentTask, fds: UserAddr) -> SyscallResult {
    pipe2(task, fds, 0)
}

/// `pipe2(2)`: O_CLOEXEC, O_NONBLOCK, O_DIRECT.
pub fn pipe2(task: &CurrentTask, fds: UserAddr, flags: u32) -> SyscallResult {
    let flags = OpenFlags::from_bits_retain(flags);
    // O_EXCL is O_NOTIFICATION_PIPE: watch queues, which kernels may lack.
    if flags.contains(OpenFlags::EXCL) {
        task.kernel().log_unsupported("pipe2(O_NOTIFICATION_PIPE)", Errno::ENOPKG);
        return Err(Errno::ENOPKG.into());
    }
    let known = OpenFlags::CLOEXEC | OpenFlags::NONBLOCK | OpenFlags::DIRECT;
    if !(flags - known).is_empty() {
        return Err(Errno::EINVAL.into());
    }
    let fd_flags = if flags.contains(OpenFlags::CLOEXEC) { FdFlags::CLOEXEC } else { FdFlags::empty() };
    let (read, write) = new_pipe(task, flags);
    let read = task.install_fd(read, fd_flags)?;
    let write = task.install_fd(write, fd_flags).inspect_err(|_| drop(task.files().remove(read)))?;
    let written = task.write_array(fds, &[read.0, write.0]);
    if let Err(e) = written {
        drop(task.files().remove(read));
        drop(task.files().remove(write));
        return Err(e.into());
    }
    Ok(0)
}

/// An open end of a restored pipe that nothing counts yet; `inode` is its inode, made by [`restored_inode`].
pub fn restored_end(
    pipe: &Arc<Pipe>,
    inode: &Arc<crate::vfs::Inode>,
    (read, write): (bool, bool),
    flags: OpenFlags,
) -> Arc<OpenFile> {
    let ops = restored_ops(pipe, (read, write), false);
    OpenFile::new_anonymous(inode.clone(), &format!("pipe:[{}]", inode.ino), ops, flags)
}

/// What an open file of a restored pipe or FIFO does; `no_hup`: it waits for its first writer. It is counted.
pub(crate) fn restored_ops(pipe: &Arc<Pipe>, (read, write): (bool, bool), no_hup: bool) -> Box<PipeFile> {
    let opens = {
        let mut state = pipe.state.lock();
        state.readers += u32::from(read);
        state.writers += u32::from(write);
        state.writer_opens
    };
    Box::new(PipeFile::counted(pipe.clone(), read, write, no_hup.then_some(opens)))
}

/// The inode of a restored pipe.
pub fn restored_inode(task: &CurrentTask, pipe: &Arc<Pipe>) -> Arc<crate::vfs::Inode> {
    PipeInode::make(task, pipe)
}

/// Both ends of a new pipe. Of `flags`, O_NONBLOCK and O_DIRECT count.
pub fn new_pipe(task: &CurrentTask, flags: OpenFlags) -> (Arc<OpenFile>, Arc<OpenFile>) {
    let pipe = Pipe::new();
    let inode = PipeInode::make(task, &pipe);
    {
        let mut state = pipe.state.lock();
        state.readers = 1;
        state.writers = 1;
    }
    let name = format!("pipe:[{}]", inode.ino);
    let end = |read: bool| {
        let ops = Box::new(PipeFile::counted(pipe.clone(), read, !read, None));
        let kept = OpenFlags::NONBLOCK | OpenFlags::DIRECT;
        // Packet mode is the writing end's; both show it, as Linux.
        let access = if read { OpenFlags::empty() } else { OpenFlags::WRONLY };
        OpenFile::new_anonymous(inode.clone(), &name, ops, access | (flags & kept))
    };
    (end(true), end(false))
}
