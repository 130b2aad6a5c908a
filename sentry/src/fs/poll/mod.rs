//! `poll(2)`, `select(2)` and their variants with a signal mask.
//!
//! Each is a try over the files named: what is ready now, or else a `Blocked` on all their wait queues. The deadline is
//! computed on the first call and travels in `Resume`; a temporary signal mask is put in place only when the call has to
//! wait (a call that finds something ready never notices it).

mod call;
mod mask;
mod select;

use quicksand_abi::{Errno, Timespec, UserAddr};

use crate::syscalls::{Blocked, OnSignal, Resume, SyscallError, WakeReason};
use crate::task::CurrentTask;
use crate::time::Monotonic;

pub use call::{sys_poll, sys_ppoll};
pub use mask::{TemporaryMask, read_mask};
pub use select::{sys_pselect6, sys_select};

/// How long a call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    Never,
    /// Do not wait at all.
    Now,
    At(Monotonic),
}

impl Timeout {
    /// From a valid span of time, in nanoseconds.
    pub fn after_ns(task: &CurrentTask, ns: i64) -> Timeout {
        match u64::try_from(ns) {
            Ok(0) | Err(_) => Timeout::Now,
            Ok(ns) => Timeout::At(Monotonic(task.kernel().clocks.monotonic().0.saturating_add(ns))),
        }
    }
    pub fn deadline(self) -> Option<Monotonic> {
        match self {
            Timeout::At(at) => Some(at),
            Timeout::Never | Timeout::Now => None,
        }
    }
    /// Goes on from where an earlier try left off, or starts with what `first` says.
    pub fn resumed(
        task: &CurrentTask,
        first: impl FnOnce() -> Result<Timeout, Errno>,
    ) -> Result<(Timeout, bool), Errno> {
        let of = |deadline: Option<Monotonic>| deadline.map_or(Timeout::Never, Timeout::At);
        match task.take_resume() {
            Resume::Deadline(deadline) | Resume::SavedMask { deadline, .. } => Ok((of(deadline), true)),
            _ => Ok((first()?, false)),
        }
    }
    /// Whether a call that found nothing must give up.
    pub fn is_over(self, task: &CurrentTask) -> bool {
        match self {
            Timeout::Never => false,
            Timeout::Now => true,
            Timeout::At(at) => {
                task.wake_reason() == WakeReason::Timeout || task.kernel().clocks.monotonic() >= at
            }
        }
    }
    /// What is left, as `ppoll` and `select` write it back. `None` where there is nothing to write.
    fn left(self, task: &CurrentTask) -> Option<Timespec> {
        let at = self.deadline()?;
        let left = at.saturating_since(task.kernel().clocks.monotonic());
        Some(Timespec::from_duration(left))
    }
}

/// Where the remaining time goes: nowhere, a `timespec`, or a `timeval`.
#[derive(Clone, Copy, Debug)]
pub(super) enum WriteBack {
    Timespec(UserAddr),
    Timeval(UserAddr),
}

impl WriteBack {
    /// `poll_select_finish`: writes the remaining time, and says whether it could be written. Programs with
    /// STICKY_TIMEOUTS, and timeouts of zero, are left alone.
    fn finish(self, task: &CurrentTask, timeout: Timeout) -> bool {
        const STICKY_TIMEOUTS: u32 = 0x0400_0000;
        let Some(left) = timeout.left(task) else { return true };
        if task.state.lock().personality & STICKY_TIMEOUTS != 0 {
            return false;
        }
        let done = match self {
            WriteBack::Timespec(addr) if addr.is_null() => return true,
            WriteBack::Timeval(addr) if addr.is_null() => return true,
            WriteBack::Timespec(addr) => task.write_object(addr, &left),
            WriteBack::Timeval(addr) => {
                let left = quicksand_abi::Timeval { sec: left.sec, usec: left.nsec / 1000 };
                task.write_object(addr, &left)
            }
        };
        done.is_ok()
    }
}

/// The `Blocked` of a call that writes back the remaining time: it is called again when a signal interrupts it. What it
/// waits for is `blocked.on`.
pub(super) fn wait_or_interrupted(
    task: &CurrentTask,
    blocked: Blocked,
    timeout: Timeout,
    write_back: WriteBack,
) -> SyscallError {
    if task.wake_reason() == WakeReason::Interrupted {
        // A timeout that could not be written back must not start over.
        if !write_back.finish(task, timeout) {
            return Errno::EINTR.into();
        }
        return blocked.on_signal(OnSignal::RestartNoHandler).into();
    }
    blocked.on_signal(OnSignal::CallAgain).into()
}
