//! Thread groups: processes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use super::Task;
use super::rlimit::{Resource, Rlimit, Rlimits};
use crate::signal::GroupSignals;
use crate::sync::{Level, Mutex, WaitQueue};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// `exit(2)` with this code (0..=255).
    Code(u8),
    /// Killed by this signal.
    Signal { signal: i32, core_dumped: bool },
}

impl ExitStatus {
    /// The `wait(2)` status word.
    pub fn to_wait_status(self) -> i32 {
        match self {
            ExitStatus::Code(c) => i32::from(c) << 8,
            ExitStatus::Signal { signal, core_dumped } => signal | if core_dumped { 0x80 } else { 0 },
        }
    }
}

/// A process: the tasks that share a pid.
pub struct ThreadGroup {
    /// Unique in the sandbox, never reused.
    pub id: u64,
    /// Its number in the container's pid namespace.
    pid: AtomicI32,
    /// Signal actions and the queues of the group and its tasks.
    pub signals: GroupSignals,
    pub(crate) state: Mutex<GroupState>,
    /// Notified when a child changes state (`wait4`), and on exit.
    pub child_queue: Arc<WaitQueue>,
    /// Notified when this group exits: pidfds, and the sandbox's own waiters.
    pub exit_queue: Arc<WaitQueue>,
}

/// What may change in a group.
#[derive(Debug)]
pub struct GroupState {
    /// Live tasks, the leader first as long as it lives.
    pub tasks: Vec<Arc<Task>>,
    pub rlimits: Rlimits,
    /// Set once the group is exiting: what its parent will see.
    pub exit_status: Option<ExitStatus>,
}

impl ThreadGroup {
    pub(crate) fn new(id: u64, pid: i32, signals: GroupSignals, rlimits: Rlimits) -> Arc<ThreadGroup> {
        let state = GroupState { tasks: Vec::new(), rlimits, exit_status: None };
        Arc::new(ThreadGroup {
            id,
            pid: AtomicI32::new(pid),
            signals,
            state: Mutex::new(Level::Group, state),
            child_queue: WaitQueue::new(),
            exit_queue: WaitQueue::new(),
        })
    }
    /// The process id in the container's pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid.load(Ordering::Relaxed)
    }
    pub fn rlimit(&self, resource: Resource) -> Rlimit {
        self.state.lock().rlimits.get(resource)
    }
    /// Live tasks.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.state.lock().tasks.clone()
    }
}

impl fmt::Debug for ThreadGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThreadGroup({})", self.pid())
    }
}
