//! Pid namespaces: numbers, the process tree, process groups and sessions.
//!
//! One lock guards the whole of it, as `tasklist_lock` does in Linux. The tables hold numbers, not references to each
//! other: a process knows the *pid* of its parent, of its group and of its session. Signals to a parent are sent with
//! the lock held (group locks come after it), so that a parent cannot go away in between.
//!
//! Invariants:
//! - `procs` holds every process that lives or is a zombie; `tasks` every live task. A leader's number stays taken as long
//!   as its process is in `procs`, also when the leader itself has ended.
//! - Every process but those that the host started (parent 0) is in its parent's `children`.
//! - A process group or session is in its table exactly as long as a process is in it; their numbers are not given out.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quicksand_abi::Errno;

use super::{Task, ThreadGroup};
use crate::sync::{Level, Mutex, MutexGuard, WaitQueue};

/// `/proc/sys/kernel/pid_max`: numbers are below it.
pub const PID_MAX: i32 = 4_194_304;
/// After a wrap, numbers start here (RESERVED_PIDS).
const RESERVED: i32 = 300;

/// The numbers and the process tree of one container.
pub struct PidNamespace {
    /// Unique in the sandbox; shown by `/proc/PID/ns/pid`.
    pub id: u64,
    tables: Mutex<Tables>,
    /// The container's limit on tasks (`pids.max`).
    limit: AtomicU64,
    /// Notified when a task has gone.
    pub(crate) gone: Arc<WaitQueue>,
}

/// What the lock guards.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    last: i32,
    pub tasks: HashMap<i32, Arc<Task>>,
    pub procs: BTreeMap<i32, Proc>,
    pub pgrps: HashMap<i32, ProcessGroup>,
    pub sessions: HashMap<i32, Session>,
    /// Tasks per real user id, zombies included.
    users: HashMap<u32, u64>,
    /// Init is exiting: no new tasks.
    pub dying: bool,
}

/// A process in the tree.
#[derive(Debug)]
pub(crate) struct Proc {
    pub group: Arc<ThreadGroup>,
    /// The leader once it has ended: its number stands for it until the process is reaped.
    pub ended_leader: Option<Arc<Task>>,
    /// 0 for what the host started, and for orphans of a dying namespace.
    pub parent: i32,
    /// The id of the task that made it: for PDEATHSIG and __WNOTHREAD.
    pub parent_task: u64,
    /// In order of birth.
    pub children: Vec<i32>,
    pub pgid: i32,
    pub sid: i32,
    /// PR_SET_CHILD_SUBREAPER.
    pub subreaper: bool,
    /// The real user that the process is counted for once it is a zombie.
    pub zombie_uid: u32,
}

/// A process group.
#[derive(Debug)]
pub(crate) struct ProcessGroup {
    pub sid: i32,
    pub members: Vec<i32>,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Processes in it.
    pub members: u32,
    /// The controlling terminal, by the number that the tty layer gave it.
    pub tty: Option<u64>,
    /// The terminal's foreground process group; 0 for none.
    pub foreground: i32,
}

/// A process, for lists.
#[derive(Clone, Debug)]
pub struct ProcessInfo {
    pub pid: i32,
    pub ppid: i32,
    pub group: Arc<ThreadGroup>,
}

impl PidNamespace {
    pub(crate) fn new(id: u64, limit: Option<u64>) -> Arc<PidNamespace> {
        Arc::new(PidNamespace {
            id,
            tables: Mutex::new(Level::Pids, Tables::default()),
            limit: AtomicU64::new(limit.unwrap_or(u64::MAX)),
            gone: WaitQueue::new(),
        })
    }
    pub(crate) fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock()
    }
    pub fn set_limit(&self, limit: Option<u64>) {
        self.limit.store(limit.unwrap_or(u64::MAX), Ordering::Relaxed);
    }
    pub fn limit(&self) -> Option<u64> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|l| *l != u64::MAX)
    }

    /// The task with this number. A leader that has ended can be asked about until its process is reaped.
    pub fn task(&self, tid: i32) -> Option<Arc<Task>> {
        let tables = self.lock();
        let ended = || tables.procs.get(&tid).and_then(|p| p.ended_leader.clone());
        tables.tasks.get(&tid).cloned().or_else(ended)
    }
    /// All live tasks.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.lock().tasks.values().cloned().collect()
    }
    /// The process with this number, zombies included.
    pub fn group(&self, pid: i32) -> Option<Arc<ThreadGroup>> {
        self.lock().procs.get(&pid).map(|p| p.group.clone())
    }
    /// All processes by number, zombies included.
    pub fn processes(&self) -> Vec<ProcessInfo> {
        let tables = self.lock();
        let info =
            |(pid, p): (&i32, &Proc)| ProcessInfo { pid: *pid, ppid: p.parent, group: p.group.clone() };
        tables.procs.iter().map(info).collect()
    }
    /// How many tasks there are.
    pub fn task_count(&self) -> usize {
        self.lock().tasks.len()
    }
    /// The number given out last.
    pub fn last_pid(&self) -> i32 {
        self.lock().last
    }
    /// The parent's number; 0 where the host is the parent.
    pub fn parent_pid(&self, group: &ThreadGroup) -> i32 {
        self.lock().procs.get(&group.pid()).map_or(0, |p| p.parent)
    }
    pub fn parent(&self, group: &ThreadGroup) -> Option<Arc<ThreadGroup>> {
        let tables = self.lock();
        let parent = tables.procs.get(&group.pid())?.parent;
        tables.procs.get(&parent).map(|p| p.group.clone())
    }
    /// Living children and zombies, in order of birth.
    pub fn children(&self, group: &ThreadGroup) -> Vec<i32> {
        self.lock().procs.get(&group.pid()).map_or(Vec::new(), |p| p.children.clone())
    }
}

/// Whose child a new process is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parentage {
    pub parent: i32,
    pub parent_task: u64,
    pub pgid: i32,
    pub sid: i32,
}

impl Tables {
    fn is_taken(&self, number: i32) -> bool {
        self.tasks.contains_key(&number)
            || self.procs.contains_key(&number)
            || self.pgrps.contains_key(&number)
            || self.sessions.contains_key(&number)
    }

    /// A free number: the next one after the last that was given out.
    pub(crate) fn allocate(&mut self) -> Result<i32, Errno> {
        let mut number = self.last;
        for _ in 0..PID_MAX {
            number = if number + 1 >= PID_MAX { RESERVED } else { number + 1 };
            if !self.is_taken(number) {
                self.last = number;
                return Ok(number);
            }
        }
        Err(Errno::EAGAIN)
    }
    /// This very number (`clone3`'s `set_tid`): EEXIST where it is taken.
    pub(crate) fn allocate_exact(&mut self, number: i32) -> Result<i32, Errno> {
        if !(1..PID_MAX).contains(&number) || (number != 1 && self.procs.is_empty()) {
            return Err(Errno::EINVAL);
        }
        if self.is_taken(number) { Err(Errno::EEXIST) } else { Ok(number) }
    }

    /// After a restore: the next number is the one after `last`.
    pub(crate) fn go_on_from(&mut self, last: i32) {
        self.last = last.clamp(0, PID_MAX - 1);
    }

    /// Tasks, and zombies whose leader has ended.
    pub(crate) fn count(&self) -> u64 {
        let leaderless = self.procs.keys().filter(|pid| !self.tasks.contains_key(pid)).count();
        (self.tasks.len() + leaderless) as u64
    }

    /// EAGAIN where one task more is over the container's limit or over the user's RLIMIT_NPROC (`None`: exempt).
    pub(crate) fn check_limits(&self, limit: u64, uid: u32, nproc: Option<u64>) -> Result<(), Errno> {
        if self.dying {
            return Err(Errno::ENOMEM);
        }
        // Zombies are few: counting them is only worth it close to the limit.
        if (self.tasks.len() + self.procs.len()) as u64 >= limit && self.count() >= limit {
            return Err(Errno::EAGAIN);
        }
        match nproc {
            Some(max) if self.user_count(uid) >= max => Err(Errno::EAGAIN),
            _ => Ok(()),
        }
    }
    pub(crate) fn user_count(&self, uid: u32) -> u64 {
        self.users.get(&uid).copied().unwrap_or(0)
    }
    pub(crate) fn count_user(&mut self, uid: u32) {
        *self.users.entry(uid).or_insert(0) += 1;
    }
    pub(crate) fn uncount_user(&mut self, uid: u32) {
        if let Some(n) = self.users.get_mut(&uid) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.users.remove(&uid);
            }
        }
    }

    /// Puts a new process into the tree.
    pub(crate) fn insert_process(&mut self, group: &Arc<ThreadGroup>, place: Parentage) {
        let pid = group.pid();
        let proc = Proc {
            group: group.clone(),
            ended_leader: None,
            parent: place.parent,
            parent_task: place.parent_task,
            children: Vec::new(),
            pgid: 0,
            sid: 0,
            subreaper: false,
            zombie_uid: 0,
        };
        self.procs.insert(pid, proc);
        if let Some(parent) = self.procs.get_mut(&place.parent) {
            parent.children.push(pid);
        }
        self.join(pid, place.pgid, place.sid);
    }

    /// Takes a reaped process out of the tree. Its children have been given away before.
    pub(crate) fn remove_process(&mut self, pid: i32) -> Option<Proc> {
        self.leave(pid);
        let proc = self.procs.remove(&pid)?;
        if let Some(parent) = self.procs.get_mut(&proc.parent) {
            parent.children.retain(|c| *c != pid);
        }
        self.uncount_user(proc.zombie_uid);
        Some(proc)
    }

    /// Moves a process into a group and session, which are made where they do not exist.
    pub(crate) fn join(&mut self, pid: i32, pgid: i32, sid: i32) {
        self.leave(pid);
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        (proc.pgid, proc.sid) = (pgid, sid);
        let new = || ProcessGroup { sid, members: Vec::new() };
        self.pgrps.entry(pgid).or_insert_with(new).members.push(pid);
        let new = || Session { members: 0, tty: None, foreground: 0 };
        self.sessions.entry(sid).or_insert_with(new).members += 1;
    }

    fn leave(&mut self, pid: i32) {
        let Some(proc) = self.procs.get(&pid) else { return };
        let (pgid, sid) = (proc.pgid, proc.sid);
        if let Some(pgrp) = self.pgrps.get_mut(&pgid) {
            pgrp.members.retain(|m| *m != pid);
            if pgrp.members.is_empty() {
                self.pgrps.remove(&pgid);
            }
        }
        if let Some(session) = self.sessions.get_mut(&sid) {
            session.members = session.members.saturating_sub(1);
            if session.members == 0 {
                self.sessions.remove(&sid);
            }
        }
    }

    /// Whether nobody in the group has a parent outside of it but inside the session: nobody could continue it. `without`
    /// is a process that is on its way out and does not count. No group may be locked.
    pub(crate) fn is_orphaned(&self, pgid: i32, without: Option<i32>) -> bool {
        let Some(pgrp) = self.pgrps.get(&pgid) else { return true };
        !pgrp.members.iter().any(|member| {
            let Some(proc) = self.procs.get(member) else { return false };
            let Some(parent) = self.procs.get(&proc.parent) else { return false };
            Some(*member) != without && !proc.group.is_dead() && parent.pgid != pgid && parent.sid == pgrp.sid
        })
    }

    /// The members of a process group.
    pub(crate) fn members(&self, pgid: i32) -> Vec<Arc<ThreadGroup>> {
        let members = self.pgrps.get(&pgid).map_or(&[][..], |p| &p.members);
        members.iter().filter_map(|m| self.procs.get(m)).map(|p| p.group.clone()).collect()
    }
}

impl fmt::Debug for PidNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PidNamespace({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_and_wrap() {
        let mut tables = Tables::default();
        assert_eq!(tables.allocate(), Ok(1));
        assert_eq!(tables.allocate(), Ok(2));
        tables.last = PID_MAX - 1;
        assert_eq!(tables.allocate(), Ok(RESERVED));
        assert_eq!(tables.allocate_exact(7), Err(Errno::EINVAL));
        assert_eq!(tables.allocate_exact(1), Ok(1));
    }
}
