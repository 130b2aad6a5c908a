//! File systems, one per module.

pub mod anon;
pub mod dev;
pub mod epoll;
pub mod eventfd;
pub mod ioctl;
pub mod overlay;
pub mod pipe;
pub mod poll;
pub mod proc;
pub mod pseudo;
pub mod splice;
pub mod sys;
pub mod timerfd;
pub mod tmpfs;
pub mod tty;

/// A write to a pipe or socket that nobody reads: SIGPIPE for the writing thread.
pub(crate) fn send_sigpipe(task: &crate::task::CurrentTask) {
    // Queued here as soon as a task has signal queues.
    tracing::debug!("SIGPIPE for task {}", task.tid());
}
pub mod gofer;
pub mod host;
