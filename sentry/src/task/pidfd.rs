//! Pidfds: descriptors that stand for a process.

use std::sync::Arc;

use quicksand_abi::signal::{SigInfo, code};
use quicksand_abi::{Errno, UserAddr};

use super::{CurrentTask, ThreadGroup};
use crate::kernel::Kernel;
use crate::signal::syscalls::{read_siginfo, signal_group};
use crate::sync::{Events, WaitQueue};
use crate::syscalls::{Fd, SyscallResult};
use crate::vfs::{FdFlags, FileOps, OpenFile, OpenFlags};

/// PIDFD_NONBLOCK.
const NONBLOCK: u32 = libc::O_NONBLOCK as u32;

#[derive(Debug)]
struct PidFd {
    group: Arc<ThreadGroup>,
}

impl FileOps for PidFd {
    fn is_stream(&self) -> bool {
        true
    }
    /// Readable once the process has ended; hung up once it has been reaped.
    fn poll(&self, _file: &OpenFile, _task: &CurrentTask) -> Events {
        if !self.group.is_dead() {
            return Events::empty();
        }
        let reaped = !self.group.pids().group(self.group.pid()).is_some_and(|g| Arc::ptr_eq(&g, &self.group));
        Events::READABLE | if reaped { Events::HUP } else { Events::empty() }
    }
    fn wait_queue(&self, _file: &OpenFile) -> Option<Arc<WaitQueue>> {
        Some(self.group.exit_queue.clone())
    }
    fn fdinfo(&self, _file: &OpenFile) -> String {
        let reaped = !self.group.pids().group(self.group.pid()).is_some_and(|g| Arc::ptr_eq(&g, &self.group));
        let pid = if reaped { -1 } else { self.group.pid() };
        format!("Pid:\t{pid}\nNSpid:\t{pid}\n")
    }
}

impl OpenFile {
    /// The process that a pidfd stands for.
    pub(crate) fn pidfd_group(&self) -> Option<Arc<ThreadGroup>> {
        self.ops_as::<PidFd>().map(|pidfd| pidfd.group.clone())
    }
}

/// An open file for `group`.
pub(crate) fn new_file(kernel: &Kernel, group: &Arc<ThreadGroup>, nonblocking: bool) -> Arc<OpenFile> {
    let flags = OpenFlags::RDWR | if nonblocking { OpenFlags::NONBLOCK } else { OpenFlags::empty() };
    kernel.anon.file("pidfd", Box::new(PidFd { group: group.clone() }), flags)
}

/// The process behind a pidfd, and whether the file is non-blocking. EBADF for any other file.
pub(crate) fn group_of(task: &CurrentTask, fd: Fd) -> Result<(Arc<ThreadGroup>, bool), Errno> {
    let file = task.file(fd)?;
    let pidfd = file.ops_as::<PidFd>().ok_or(Errno::EBADF)?;
    Ok((pidfd.group.clone(), file.is_nonblocking()))
}

/// `pidfd_open(2)`.
pub fn sys_pidfd_open(task: &CurrentTask, pid: i32, flags: u32) -> SyscallResult {
    if flags & !NONBLOCK != 0 || pid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let group = match task.pids().group(pid) {
        Some(group) => group,
        // A thread's number, which is no process's.
        None if task.pids().task(pid).is_some() => return Err(Errno::ENOENT.into()),
        None => return Err(Errno::ESRCH.into()),
    };
    let file = new_file(task.kernel(), &group, flags & NONBLOCK != 0);
    Ok(task.install_fd(file, FdFlags::CLOEXEC)?.0 as usize)
}

/// `pidfd_send_signal(2)`.
pub fn sys_pidfd_send_signal(
    task: &CurrentTask,
    fd: Fd,
    sig: i32,
    info: UserAddr,
    flags: u32,
) -> SyscallResult {
    // PIDFD_SIGNAL_THREAD and its kin are not supported.
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let group = match group_of(task, fd) {
        // A descriptor of `/proc/PID` will do.
        Err(Errno::EBADF) => crate::fs::pseudo::process_of(&task.file(fd)?.inode).ok_or(Errno::EBADF)?,
        group => group?.0,
    };
    let info = if info.is_null() {
        SigInfo::user(sig, code::SI_USER, task.group().pid(), task.creds().ruid)
    } else {
        let asked = task.read_object::<SigInfo>(info)?.signo;
        if asked != sig {
            return Err(Errno::EINVAL.into());
        }
        read_siginfo(task, info, sig, group.pid())?
    };
    if !task.pids().group(group.pid()).is_some_and(|g| Arc::ptr_eq(&g, &group)) {
        return Err(Errno::ESRCH.into());
    }
    signal_group(task, &group, sig, info)?;
    Ok(0)
}

/// `pidfd_getfd(2)`: needs the rights of a debugger.
pub fn sys_pidfd_getfd(task: &CurrentTask, pidfd: Fd, fd: Fd, flags: u32) -> SyscallResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (group, _) = group_of(task, pidfd)?;
    let other = group.any_task().ok_or(Errno::ESRCH)?;
    super::sched::check_same_user(task, &other)?;
    let file = other.files_opt().ok_or(Errno::ESRCH)?.get(fd)?;
    Ok(task.install_fd(file, FdFlags::CLOEXEC)?.0 as usize)
}
