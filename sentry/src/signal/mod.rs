//! Signals: actions, masks, queues, delivery.

use std::borrow::Cow;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SignalSet(pub u64);

/// Signal state of a group.
#[derive(Debug, Default)]
pub struct GroupSignals {}
