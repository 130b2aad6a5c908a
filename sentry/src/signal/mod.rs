//! Signals: actions, masks, queues, delivery.
//!
//! - [`action`]: what a process does with each signal (`sighand_struct`). [`queue`]: what is pending.
//! - [`send`]: from a cause to a queue, the part that runs in the sender. [`deliver`]: from a queue to an effect, the part
//!   that runs in the receiving task's loop. [`frame`]: the frame of a handler, and `rt_sigreturn`. [`stop`]: job control.
//! - [`syscalls`]: the calls.
//!
//! Invariants: a task's blocked set changes only under its group's lock; a signal that is ignored when it is sent and not
//! blocked is never queued; SIGKILL is never queued but kills at once.

pub mod action;
pub mod deliver;
pub mod frame;
pub mod queue;
pub mod send;
pub mod stop;
pub mod syscalls;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::{Level, Mutex, WaitQueue};

pub use action::Actions;
pub use queue::Queue;
pub use quicksand_abi::SigInfo;
pub use send::{send_to_group, send_to_pgrp, send_to_task};

/// `SIGKILL`, … by number, for logs.
pub fn name(number: i32) -> Cow<'static, str> {
    const NAMES: [&str; 32] = [
        "0",
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    match usize::try_from(number).ok().and_then(|n| NAMES.get(n)) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(format!("SIGRT_{}", number.wrapping_sub(32))),
    }
}

/// A set of signals: bit `n - 1` stands for signal `n`, as in `sigset_t`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct SignalSet(pub u64);

impl SignalSet {
    pub const EMPTY: SignalSet = SignalSet(0);
    /// What cannot be blocked, caught or ignored.
    pub const UNBLOCKABLE: SignalSet = SignalSet::of(libc::SIGKILL).with(libc::SIGSTOP);
    /// Stops by default.
    pub const STOP: SignalSet =
        SignalSet::of(libc::SIGSTOP).with(libc::SIGTSTP).with(libc::SIGTTIN).with(libc::SIGTTOU);
    /// Does nothing by default.
    pub const IGNORED: SignalSet =
        SignalSet::of(libc::SIGCONT).with(libc::SIGCHLD).with(libc::SIGWINCH).with(libc::SIGURG);
    /// Caused by the task's own instruction: delivered before all others.
    pub const SYNCHRONOUS: SignalSet = SignalSet::of(libc::SIGSEGV)
        .with(libc::SIGBUS)
        .with(libc::SIGILL)
        .with(libc::SIGTRAP)
        .with(libc::SIGFPE)
        .with(libc::SIGSYS);

    /// Just `signal`, which is in 1..=64; the empty set otherwise.
    pub const fn of(signal: i32) -> SignalSet {
        if signal >= 1 && signal <= 64 { SignalSet(1 << (signal - 1)) } else { SignalSet(0) }
    }
    pub const fn with(self, signal: i32) -> SignalSet {
        SignalSet(self.0 | SignalSet::of(signal).0)
    }
    pub const fn union(self, other: SignalSet) -> SignalSet {
        SignalSet(self.0 | other.0)
    }
    pub const fn without(self, other: SignalSet) -> SignalSet {
        SignalSet(self.0 & !other.0)
    }
    pub const fn intersect(self, other: SignalSet) -> SignalSet {
        SignalSet(self.0 & other.0)
    }
    pub const fn contains(self, signal: i32) -> bool {
        self.0 & SignalSet::of(signal).0 != 0
    }
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The lowest signal in the set.
    pub fn first(self) -> Option<i32> {
        (self.0 != 0).then(|| self.0.trailing_zeros() as i32 + 1)
    }
}

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Whether `signal` is a signal's number.
pub fn is_valid(signal: i32) -> bool {
    (1..=quicksand_abi::signal::NSIG).contains(&signal)
}

/// What of a group's signals others may wait for.
#[derive(Debug, Default)]
pub struct GroupSignals {
    /// Notified (`Events::IN`) whenever a signal is queued for the group or one of its tasks: for signalfd and
    /// `sigtimedwait`.
    pub queue: Arc<WaitQueue>,
}

/// A task's own signals.
pub struct TaskSignals {
    /// Changed under the group's lock only.
    blocked: AtomicU64,
    /// Sent to this very task.
    pub(crate) pending: Mutex<Queue>,
}

impl Default for TaskSignals {
    fn default() -> TaskSignals {
        TaskSignals { blocked: AtomicU64::new(0), pending: Mutex::new(Level::Signals, Queue::default()) }
    }
}

impl TaskSignals {
    pub fn blocked(&self) -> SignalSet {
        SignalSet(self.blocked.load(Ordering::SeqCst))
    }
    /// The caller holds the group's lock, or is making the task.
    pub(crate) fn set_blocked(&self, set: SignalSet) {
        self.blocked.store(set.without(SignalSet::UNBLOCKABLE).0, Ordering::SeqCst);
    }
    /// Pending for this very task.
    pub fn pending_set(&self) -> SignalSet {
        self.pending.lock().set()
    }
}

impl fmt::Debug for TaskSignals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskSignals(blocked {:?})", self.blocked())
    }
}
