//! Thread groups: processes.
//!
//! One lock, [`ThreadGroup::state`], stands for what Linux guards with `siglock`: which tasks there are, the shared signal
//! queue, job control, the exit status. The blocked sets of the tasks only change under it, so that whoever sends a
//! signal picks a task that really wants it.
//!
//! Invariants: `exit_status` never changes once it is set. A group is `dead` (a zombie) from the moment its last task
//! has gone; it stays in its pid namespace until it is reaped.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use super::cpu_limit::CpuLimit;
use super::cputime::{CpuTimes, Usage};
use super::rlimit::{Resource, Rlimit, Rlimits};
use super::{Credentials, PidNamespace, Task, Work};
use crate::signal::{Actions, GroupSignals, Queue};
use crate::sync::{Events, Level, Mutex, WaitQueue, Waiter};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// `exit(2)` with this code (0..=255).
    Code(u8),
    /// Killed by this signal.
    Signal { signal: i32, core_dumped: bool },
}

impl ExitStatus {
    pub fn signal(signal: i32) -> ExitStatus {
        ExitStatus::Signal { signal, core_dumped: false }
    }
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
    pids: Arc<PidNamespace>,
    /// Who waits for signals of this group.
    pub signals: GroupSignals,
    /// Interval timers and POSIX timers.
    pub timers: crate::time::GroupTimers,
    pub(crate) state: Mutex<GroupState>,
    /// Notified when a child changes state (`wait4`, `vfork`), and when a thread of this group has ended.
    pub child_queue: Arc<WaitQueue>,
    /// Notified when this group exits: pidfds, and the sandbox's own waiters.
    pub exit_queue: Arc<WaitQueue>,
    /// Sent to the parent when the group ends: the low byte of `clone`'s flags, SIGCHLD after `execve`.
    pub(crate) exit_signal: AtomicI32,
    /// How often the group has called `execve` successfully.
    pub(crate) execs: AtomicU32,
    /// Made when RLIMIT_CPU first matters.
    pub(super) cpu_limit: OnceLock<Arc<CpuLimit>>,
}

/// What may change in a group.
#[derive(Debug)]
pub struct GroupState {
    /// Live tasks, the leader first as long as it lives.
    pub tasks: Vec<Arc<Task>>,
    pub rlimits: Rlimits,
    /// Set once the group is exiting: what its parent will see.
    pub exit_status: Option<ExitStatus>,
    /// No task is left: a zombie, or reaped.
    pub dead: bool,
    /// Descriptors that are closed when the process has ended: whoever polls their other ends learns of it.
    pub(crate) closed_at_end: Vec<OwnedFd>,
    /// Signals sent to the process.
    pub(crate) pending: Queue,
    pub(crate) actions: Arc<Actions>,
    pub(crate) stop: Stop,
    /// Counts SIGCONTs, so that a stop which was decided before one does not come after it.
    pub(crate) continues: u32,
    /// A stop or continue that `wait4` has not reported.
    pub(crate) event: Option<ChildEvent>,
    /// A CLD_STOPPED or CLD_CONTINUED that the next task to run is to tell the parent.
    pub(crate) notify_parent: Option<ChildEvent>,
    /// The task that is in `execve` and waits for all others to end.
    pub(crate) exec: Option<u64>,
    /// Ignores signals it has no handler for: a pid namespace's init.
    pub(crate) unkillable: bool,
    /// Use of tasks that have ended.
    pub(crate) ended: Usage,
    /// Use of children that were waited for.
    pub(crate) children: Usage,
    /// PR_SET_DUMPABLE.
    pub(crate) dumpable: i32,
    /// The `membarrier` commands that the program has registered by.
    pub(crate) membarrier: u32,
    /// `/proc/PID/oom_score_adj`, and its floor for the unprivileged.
    pub(crate) oom_score_adj: (i32, i32),
    /// Credentials and name of the last task, for a zombie's sake.
    pub(crate) zombie: Option<(Arc<Credentials>, Vec<u8>)>,
}

/// Job control.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stop {
    /// The signal that stops the group, from its dequeueing until SIGCONT.
    pub signal: Option<i32>,
    /// Tasks that have parked.
    pub parked: usize,
    /// All have.
    pub complete: bool,
}

/// What a parent may be told about a living child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildEvent {
    Stopped(i32),
    Continued,
}

impl ThreadGroup {
    pub(crate) fn new(
        id: u64,
        pid: i32,
        pids: Arc<PidNamespace>,
        actions: Arc<Actions>,
        rlimits: Rlimits,
    ) -> Arc<ThreadGroup> {
        let state = GroupState {
            tasks: Vec::new(),
            rlimits,
            exit_status: None,
            dead: false,
            closed_at_end: Vec::new(),
            pending: Queue::default(),
            actions,
            stop: Stop::default(),
            continues: 0,
            event: None,
            notify_parent: None,
            exec: None,
            unkillable: false,
            ended: Usage::default(),
            children: Usage::default(),
            dumpable: 1,
            membarrier: 0,
            oom_score_adj: (0, 0),
            zombie: None,
        };
        Arc::new(ThreadGroup {
            id,
            pid: AtomicI32::new(pid),
            pids,
            signals: GroupSignals::default(),
            timers: crate::time::GroupTimers::default(),
            state: Mutex::new(Level::Group, state),
            child_queue: WaitQueue::new(),
            exit_queue: WaitQueue::new(),
            exit_signal: AtomicI32::new(libc::SIGCHLD),
            execs: AtomicU32::new(0),
            cpu_limit: OnceLock::new(),
        })
    }
    /// The process id in the container's pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid.load(Ordering::Relaxed)
    }
    /// Once, when it gets its number.
    pub(crate) fn set_pid(&self, pid: i32) {
        self.pid.store(pid, Ordering::Relaxed);
    }
    pub fn pids(&self) -> &Arc<PidNamespace> {
        &self.pids
    }
    pub fn rlimit(&self, resource: Resource) -> Rlimit {
        self.state.lock().rlimits.get(resource)
    }
    /// Live tasks.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.state.lock().tasks.clone()
    }
    /// The task to ask about the whole process: the leader, or any other that lives. `None` for a zombie.
    pub fn any_task(&self) -> Option<Arc<Task>> {
        self.state.lock().tasks.first().cloned()
    }
    /// Whether no task is left.
    pub fn is_dead(&self) -> bool {
        self.state.lock().dead
    }
    /// Whether the leader has ended, though other tasks may live.
    pub fn leader_has_ended(&self) -> bool {
        let pid = self.pid();
        !self.state.lock().tasks.iter().any(|t| t.tid() == pid)
    }
    /// Stopped by job control.
    pub fn is_stopped(&self) -> bool {
        self.state.lock().stop.complete
    }
    /// The leader's credentials; a zombie's are those of its last task.
    pub fn credentials(&self) -> Option<Arc<Credentials>> {
        let state = self.state.lock();
        let zombie = || state.zombie.as_ref().map(|(creds, _)| creds.clone());
        state.tasks.first().map(|t| t.creds()).or_else(zombie)
    }
    /// The leader's `comm`; a zombie's is that of its last task.
    pub fn name(&self) -> Vec<u8> {
        let state = self.state.lock();
        let zombie = || state.zombie.as_ref().map_or(Vec::new(), |(_, name)| name.clone());
        state.tasks.first().map_or_else(zombie, |t| t.name())
    }
    /// Processor time of the group: its own, ended tasks included.
    pub fn cpu_times(&self) -> CpuTimes {
        self.usage().times
    }
    /// All that `getrusage(RUSAGE_SELF)` counts.
    pub fn usage(&self) -> Usage {
        let (mut usage, tasks) = {
            let state = self.state.lock();
            (state.ended, state.tasks.clone())
        };
        for task in tasks {
            usage.add(&task.usage());
        }
        usage
    }
    /// What `getrusage(RUSAGE_CHILDREN)` counts.
    pub fn children_usage(&self) -> Usage {
        self.state.lock().children
    }

    /// The group ends with `status`, unless it is ending already.
    pub fn kill_all(&self, status: ExitStatus) {
        self.state.lock().start_exit(status);
    }

    /// Closes `fd` when the process has ended, or now if it has: a pipe's end tells a poller without a thread that waits.
    pub fn close_at_end(&self, fd: OwnedFd) {
        let mut state = self.state.lock();
        if !state.dead {
            state.closed_at_end.push(fd);
        }
    }

    /// Waits on a host thread, which is not a task's, until the group is dead.
    pub fn wait_host(&self) -> ExitStatus {
        let waiter = Arc::new(Waiter::default());
        let _registration = self.exit_queue.register(Events::all(), waiter.clone());
        loop {
            {
                let state = self.state.lock();
                if state.dead {
                    return state.exit_status.unwrap_or(ExitStatus::Code(0));
                }
            }
            waiter.park(None);
        }
    }
}

impl GroupState {
    /// All tasks are told to end; the first status counts.
    pub(crate) fn start_exit(&mut self, status: ExitStatus) {
        if self.exit_status.is_none() {
            self.exit_status = Some(status);
        }
        for task in &self.tasks {
            task.interrupt(Work::KILL);
        }
    }
}

impl fmt::Debug for ThreadGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThreadGroup({})", self.pid())
    }
}
