//! What procfs and terminals ask of tasks and processes: plain reads of their state.

use std::sync::Arc;

use super::{CurrentTask, Task, ThreadGroup};
use crate::signal::SignalSet;

/// Where a process stands in the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    pub ppid: i32,
    pub pgid: i32,
    pub sid: i32,
}

impl Task {
    /// Sets `comm`; longer names are cut to 15 bytes.
    pub fn set_name(&self, name: &[u8]) {
        self.state.lock().name = name[..name.len().min(15)].to_vec();
    }
    pub fn nice(&self) -> i32 {
        self.state.lock().sched.nice
    }
    pub fn no_new_privs(&self) -> bool {
        self.state.lock().no_new_privs
    }
    pub fn personality(&self) -> u32 {
        self.state.lock().personality
    }
    pub fn timer_slack_ns(&self) -> u64 {
        self.state.lock().timer_slack_ns
    }
    /// PR_SET_DUMPABLE: others of the same user may look into it.
    pub fn is_dumpable(&self) -> bool {
        self.group().state.lock().dumpable == 1
    }
}

impl CurrentTask {
    /// Whether sending this signal to the caller would do nothing now.
    pub fn is_signal_blocked_or_ignored(&self, signal: i32) -> bool {
        let blocked = self.signals.blocked().0 & (1u64 << (signal - 1).clamp(0, 63)) != 0;
        blocked || self.group().state.lock().actions.is_ignored(signal)
    }
}

impl ThreadGroup {
    pub fn ids(&self) -> Ids {
        let tables = self.pids().lock();
        let found = tables.procs.get(&self.pid());
        found.map_or(Ids::default(), |p| Ids { ppid: p.parent, pgid: p.pgid, sid: p.sid })
    }
    /// The signals it ignores and those it has handlers for.
    pub fn ignored_and_caught(&self) -> (SignalSet, SignalSet) {
        let actions: Arc<_> = self.state.lock().actions.clone();
        actions.ignored_and_caught()
    }
    /// Signals sent to the process as a whole that nobody has taken.
    pub fn pending_set(&self) -> SignalSet {
        self.state.lock().pending.set()
    }
    pub fn pending_len(&self) -> usize {
        self.state.lock().pending.len()
    }
    /// The `wait(2)` status of a zombie, 0 before.
    pub fn exit_code(&self) -> i32 {
        self.state.lock().exit_status.map_or(0, |s| s.to_wait_status())
    }
    /// `/proc/PID/oom_score_adj`, and the lowest value it was ever set to by somebody privileged.
    pub fn oom_score_adj(&self) -> (i32, i32) {
        self.state.lock().oom_score_adj
    }
    /// Sets it; `privileged` callers move the floor too.
    pub fn set_oom_score_adj(&self, adj: i32, privileged: bool) {
        let own = &mut self.state.lock().oom_score_adj;
        own.0 = adj;
        if privileged {
            own.1 = adj;
        }
    }
}
