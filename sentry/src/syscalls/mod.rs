//! System calls: results, blocking, arguments, dispatch. The calls themselves live beside their subsystems; [`table`]
//! lists them all.

mod args;
mod dispatch;
pub mod strace;
pub mod table;

use std::sync::Arc;

use quicksand_abi::Errno;

use crate::sync::{Events, WaitQueue};
use crate::time::Monotonic;

pub use args::{Fd, FromArg};
pub use dispatch::dispatch;

/// What a handler returns: the value for RAX, an errno, or that it has to wait.
pub type SyscallResult = Result<usize, SyscallError>;

/// Why a handler did not finish with a value.
#[derive(Debug)]
pub enum SyscallError {
    Errno(Errno),
    /// Not yet: the task loop waits as told and calls the handler again.
    Blocked(Box<Blocked>),
    /// The registers were replaced as a whole (`rt_sigreturn`, `execve`): RAX is not to be written.
    NoReturn,
}

impl From<Errno> for SyscallError {
    fn from(e: Errno) -> SyscallError {
        SyscallError::Errno(e)
    }
}
impl From<quicksand_platform::MemFault> for SyscallError {
    fn from(_: quicksand_platform::MemFault) -> SyscallError {
        SyscallError::Errno(Errno::EFAULT)
    }
}

/// A system call that waits, as data. The task loop registers on every queue in `on`, calls the handler once more (so that
/// a change in between is seen), parks until a queue or the deadline wakes it, and calls the handler again with
/// `resume` in [`CurrentTask::resume`](crate::task::CurrentTask::take_resume). A handler must therefore be a *try*: it may
/// be called any number of times, and has no effect when it returns `Blocked` but what `resume` says.
#[derive(Debug)]
pub struct Blocked {
    pub on: Vec<(Arc<WaitQueue>, Events)>,
    /// When to call again though nothing happened. The handler sees [`WakeReason::Timeout`].
    pub deadline: Option<Monotonic>,
    /// The progress so far.
    pub resume: Resume,
    /// What an unblocked signal does.
    pub on_signal: OnSignal,
}

impl Blocked {
    /// Waits for `events` of one queue; a signal restarts the call (`ERESTARTSYS`).
    pub fn on(queue: Arc<WaitQueue>, events: Events) -> Blocked {
        Blocked {
            on: vec![(queue, events)],
            deadline: None,
            resume: Resume::None,
            on_signal: OnSignal::Restart,
        }
    }
    /// Waits for nothing but the deadline and signals.
    pub fn until(deadline: Option<Monotonic>) -> Blocked {
        Blocked { on: Vec::new(), deadline, resume: Resume::None, on_signal: OnSignal::RestartNoHandler }
    }
    pub fn deadline(mut self, deadline: Option<Monotonic>) -> Blocked {
        self.deadline = deadline;
        self
    }
    pub fn resume(mut self, resume: Resume) -> Blocked {
        self.resume = resume;
        self
    }
    pub fn on_signal(mut self, on_signal: OnSignal) -> Blocked {
        self.on_signal = on_signal;
        self
    }
}

impl From<Blocked> for SyscallError {
    fn from(b: Blocked) -> SyscallError {
        SyscallError::Blocked(Box::new(b))
    }
}

/// What happens to a blocked call when a signal arrives, by the names of the kernel's restart codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSignal {
    /// ERESTARTSYS: restarted when the handler has SA_RESTART or none runs, else EINTR.
    Restart,
    /// ERESTARTNOHAND: restarted only when no handler runs, else EINTR.
    RestartNoHandler,
    /// ERESTARTNOINTR: always restarted.
    RestartAlways,
    /// ERESTART_RESTARTBLOCK: when no handler runs, goes on with `resume` (through `restart_syscall`), else EINTR.
    RestartBlock,
    /// EINTR, always.
    Interrupt,
    /// The call ends with this value: bytes already transferred.
    Return(usize),
    /// Nothing but the end of the task ends the wait (`vfork`, `execve`).
    Killable,
    /// The handler is called once more with [`WakeReason::Interrupted`], to write back what is left (a remaining time);
    /// it returns `EINTR`, or a `Blocked` whose `on_signal` says how to restart.
    CallAgain,
}

/// Why a handler is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WakeReason {
    /// For the first time.
    #[default]
    First,
    /// Something it waits for may have happened.
    Event,
    /// Its deadline has passed.
    Timeout,
    /// A signal is pending, and `on_signal` was `CallAgain`.
    Interrupted,
}

/// The progress of a blocked call: plain data only, so that a checkpoint can hold it. Add a variant where none fits.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Resume {
    #[default]
    None,
    /// Bytes transferred so far.
    Transferred { bytes: u64 },
    /// A read or write: bytes transferred so far, and when it gives up (SO_RCVTIMEO, SO_SNDTIMEO).
    Io { bytes: u64, deadline: Option<Monotonic> },
    /// An absolute deadline, computed on the first call.
    Deadline(Option<Monotonic>),
    /// A futex waiter that is queued, and its deadline.
    Futex { deadline: Option<Monotonic> },
    /// A signal mask to put back when the call ends (`ppoll`, `pselect`, `epoll_pwait`, `sigsuspend`), and the deadline.
    SavedMask { mask: u64, deadline: Option<Monotonic> },
    /// A sleeper on a process's processor-time clock: what the clock must read.
    CpuSleep { until_ns: i64 },
    /// `vfork(2)` waits for this task (by number in the sandbox, and in its namespace) to exec or exit.
    Vfork { task: u64, tid: i32 },
    /// `execve(2)` waits for the other threads to end.
    Exec,
    /// `recvmmsg` after some messages, and its timeout.
    Messages { received: u32, deadline: Option<Monotonic> },
    /// An opener of a FIFO that waits for its partner: its number in the pipe.
    FifoOpen { opener: u64 },
    /// An opener of a FIFO whose partner came, and perhaps went, before a checkpoint.
    FifoMet,
}
