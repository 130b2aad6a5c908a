//! File systems, one per module.

use quicksand_abi::signal::{SigInfo, code};

pub mod anon;
pub mod dev;
pub mod epoll;
pub mod eventfd;
pub mod gofer;
pub mod host;
pub mod inotify;
pub mod ioctl;
pub mod overlay;
pub mod pipe;
pub mod poll;
pub mod proc;
pub mod pseudo;
pub mod signalfd;
pub mod splice;
pub mod sys;
pub mod timerfd;
pub mod tmpfs;
pub mod tty;

/// A write to a pipe or socket that nobody reads: SIGPIPE for the writing thread.
pub(crate) fn send_sigpipe(task: &crate::task::CurrentTask) {
    let uid = task.creds().ruid;
    let info = SigInfo::user(libc::SIGPIPE, code::SI_USER, task.group().pid(), uid);
    // A standard signal is never over a limit.
    let _ = crate::signal::send_to_task(task, info);
}
