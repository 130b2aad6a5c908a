//! Scheduling calls: policies, priorities, affinity. The host schedules; what is set here is remembered and told back, and
//! the rules about who may set it are Linux's.

use std::sync::Arc;

use quicksand_abi::task::SchedAttr;
use quicksand_abi::{Errno, Timespec, UserAddr};
use zerocopy::{FromZeros, IntoBytes};

use super::credentials::Caps;
use super::{CurrentTask, Resource, Task};
use crate::syscalls::SyscallResult;

const SCHED_OTHER: u32 = 0;
const SCHED_FIFO: u32 = 1;
const SCHED_RR: u32 = 2;
const SCHED_BATCH: u32 = 3;
const SCHED_IDLE: u32 = 5;
const SCHED_DEADLINE: u32 = 6;
const RESET_ON_FORK: u32 = 0x4000_0000;

/// What is set for one task.
#[derive(Clone, Copy, Debug)]
pub struct SchedState {
    pub policy: u32,
    /// Of a real-time policy; 0 otherwise.
    pub priority: u32,
    pub nice: i32,
    pub reset_on_fork: bool,
    /// Processors it may run on; those that do not exist are left out.
    pub affinity: u64,
    /// As `ioprio_set(2)` takes it; 0 where none was set.
    pub io_priority: u16,
}

impl Default for SchedState {
    fn default() -> SchedState {
        SchedState {
            policy: SCHED_OTHER,
            priority: 0,
            nice: 0,
            reset_on_fork: false,
            affinity: u64::MAX,
            io_priority: 0,
        }
    }
}

impl SchedState {
    pub(super) fn for_child(self) -> SchedState {
        match self.reset_on_fork {
            false => self,
            true if self.policy == SCHED_FIFO || self.policy == SCHED_RR => {
                SchedState { policy: SCHED_OTHER, priority: 0, nice: 0, reset_on_fork: false, ..self }
            }
            true => SchedState { nice: self.nice.max(0), reset_on_fork: false, ..self },
        }
    }
}

/// Processors that guests see: those that the Sentry may run on, at most 64.
pub fn cpu_count() -> u32 {
    static COUNT: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *COUNT.get_or_init(|| {
        let set = rustix::thread::sched_getaffinity(None);
        set.map_or(1, |s| s.count()).clamp(1, 64)
    })
}

fn existing_cpus() -> u64 {
    u64::MAX >> (64 - cpu_count())
}

fn find(task: &CurrentTask, pid: i32) -> Result<Arc<Task>, Errno> {
    match pid {
        0 => Ok(task.task().clone()),
        pid if pid < 0 => Err(Errno::EINVAL),
        pid => task.pids().task(pid).ok_or(Errno::ESRCH),
    }
}

/// `check_same_owner`.
fn same_owner(task: &CurrentTask, other: &Task) -> bool {
    let (own, theirs) = (task.creds(), other.creds());
    own.euid == theirs.euid || own.euid == theirs.ruid
}

/// Whether the caller may look into `other` as a debugger may (`ptrace_may_access`): EPERM.
pub(super) fn check_same_user(task: &CurrentTask, other: &Task) -> Result<(), Errno> {
    if Arc::ptr_eq(task.group(), other.group()) {
        return Ok(());
    }
    let (own, theirs) = (task.creds(), other.creds());
    let alike = [theirs.ruid, theirs.euid, theirs.suid].iter().all(|id| *id == own.ruid)
        && [theirs.rgid, theirs.egid, theirs.sgid].iter().all(|id| *id == own.rgid)
        && own.permitted.contains(theirs.permitted)
        && other.group().state.lock().dumpable == 1;
    if alike || own.has(Caps::SYS_PTRACE) { Ok(()) } else { Err(Errno::EPERM) }
}

pub fn sys_sched_yield(_task: &CurrentTask) -> SyscallResult {
    std::thread::yield_now();
    Ok(0)
}

pub fn sys_sched_getaffinity(task: &CurrentTask, pid: i32, len: u32, mask: UserAddr) -> SyscallResult {
    // Whole words, and enough of them for every processor.
    if !len.is_multiple_of(8) || u64::from(len) * 8 < u64::from(cpu_count()) {
        return Err(Errno::EINVAL.into());
    }
    let other = find(task, pid).map_err(|_| Errno::ESRCH)?;
    let bits = other.state.lock().sched.affinity & existing_cpus();
    task.write_object(mask, &bits)?;
    Ok(8)
}

pub fn sys_sched_setaffinity(task: &CurrentTask, pid: i32, len: u32, mask: UserAddr) -> SyscallResult {
    let mut bytes = [0; 8];
    let n = (len as usize).min(8);
    task.read_bytes(mask, &mut bytes[..n])?;
    let bits = u64::from_le_bytes(bytes);
    let other = find(task, pid).map_err(|_| Errno::ESRCH)?;
    if !same_owner(task, &other) && !task.creds().has(Caps::SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    if bits & existing_cpus() == 0 {
        return Err(Errno::EINVAL.into());
    }
    other.state.lock().sched.affinity = bits;
    Ok(0)
}

/// `getcpu(2)`. The third argument has had no meaning for long.
pub fn sys_getcpu(task: &CurrentTask, cpu: UserAddr, node: UserAddr, _cache: UserAddr) -> SyscallResult {
    let allowed = task.state.lock().sched.affinity & existing_cpus();
    let here = rustix::thread::sched_getcpu() as u32 % cpu_count();
    // Affinity is not enforced: claim an allowed processor.
    let shown = if allowed & (1 << here) != 0 { here } else { allowed.trailing_zeros() };
    if !cpu.is_null() {
        task.write_object(cpu, &shown)?;
    }
    if !node.is_null() {
        task.write_object(node, &0_u32)?;
    }
    Ok(0)
}

pub fn sys_sched_get_priority_max(_task: &CurrentTask, policy: u32) -> SyscallResult {
    match policy {
        SCHED_FIFO | SCHED_RR => Ok(99),
        SCHED_OTHER | SCHED_BATCH | SCHED_IDLE | SCHED_DEADLINE => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

pub fn sys_sched_get_priority_min(_task: &CurrentTask, policy: u32) -> SyscallResult {
    match policy {
        SCHED_FIFO | SCHED_RR => Ok(1),
        SCHED_OTHER | SCHED_BATCH | SCHED_IDLE | SCHED_DEADLINE => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

pub fn sys_sched_getscheduler(task: &CurrentTask, pid: i32) -> SyscallResult {
    let other = find(task, pid)?;
    let sched = other.state.lock().sched;
    Ok((sched.policy | if sched.reset_on_fork { RESET_ON_FORK } else { 0 }) as usize)
}

pub fn sys_sched_getparam(task: &CurrentTask, pid: i32, param: UserAddr) -> SyscallResult {
    if param.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let other = find(task, pid)?;
    let priority = other.state.lock().sched.priority;
    task.write_object(param, &priority)?;
    Ok(0)
}

/// `__sched_setscheduler`: the checks, then the change. `policy` `None` keeps the one there is.
fn set(
    task: &CurrentTask,
    pid: i32,
    policy: Option<u32>,
    priority: u32,
    nice: Option<i32>,
) -> Result<(), Errno> {
    let other = find(task, pid)?;
    let old = other.state.lock().sched;
    let reset = policy.map_or(old.reset_on_fork, |p| p & RESET_ON_FORK != 0);
    let policy = policy.map_or(old.policy, |p| p & !RESET_ON_FORK);
    let real_time = matches!(policy, SCHED_FIFO | SCHED_RR);
    if !real_time && !matches!(policy, SCHED_OTHER | SCHED_BATCH | SCHED_IDLE) {
        return Err(Errno::EINVAL);
    }
    if priority > 99 || real_time != (priority != 0) {
        return Err(Errno::EINVAL);
    }
    let nice = nice.unwrap_or(old.nice).clamp(-20, 19);
    if !task.creds().has(Caps::SYS_NICE) {
        let limits = other.group().state.lock().rlimits;
        let max_priority = limits.get(Resource::Rtprio).soft;
        if real_time
            && ((policy != old.policy && max_priority == 0)
                || (u64::from(priority) > u64::from(old.priority) && u64::from(priority) > max_priority))
        {
            return Err(Errno::EPERM);
        }
        if !real_time && nice < old.nice && !may_nice(limits.get(Resource::Nice).soft, nice) {
            return Err(Errno::EPERM);
        }
        if old.policy == SCHED_IDLE
            && policy != SCHED_IDLE
            && !may_nice(limits.get(Resource::Nice).soft, old.nice)
        {
            return Err(Errno::EPERM);
        }
        if !same_owner(task, &other) || (old.reset_on_fork && !reset) {
            return Err(Errno::EPERM);
        }
    }
    let mut state = other.state.lock();
    let nice = if real_time { old.nice } else { nice };
    state.sched = SchedState { policy, priority, nice, reset_on_fork: reset, ..old };
    Ok(())
}

fn may_nice(limit: u64, nice: i32) -> bool {
    (20 - nice) as u64 <= limit
}

pub fn sys_sched_setscheduler(task: &CurrentTask, pid: i32, policy: i32, param: UserAddr) -> SyscallResult {
    if policy < 0 || param.is_null() || pid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let priority = task.read_object::<u32>(param)?;
    set(task, pid, Some(policy as u32), priority, None)?;
    Ok(0)
}

pub fn sys_sched_setparam(task: &CurrentTask, pid: i32, param: UserAddr) -> SyscallResult {
    if param.is_null() || pid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let priority = task.read_object::<u32>(param)?;
    set(task, pid, None, priority, None)?;
    Ok(0)
}

pub fn sys_sched_rr_get_interval(task: &CurrentTask, pid: i32, interval: UserAddr) -> SyscallResult {
    let other = find(task, pid)?;
    let ns = match other.state.lock().sched.policy {
        SCHED_FIFO => 0,
        SCHED_RR => 100_000_000,
        _ => 4_000_000,
    };
    task.write_object(interval, &Timespec::from_nanos(ns))?;
    Ok(0)
}

const ATTR_SIZE_0: u32 = 48;

pub fn sys_sched_getattr(
    task: &CurrentTask,
    pid: i32,
    attr: UserAddr,
    size: u32,
    flags: u32,
) -> SyscallResult {
    if attr.is_null() || pid < 0 || !(ATTR_SIZE_0..=4096).contains(&size) || flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let other = find(task, pid)?;
    let sched = other.state.lock().sched;
    let known = size.min(size_of::<SchedAttr>() as u32);
    let answer = SchedAttr {
        size: known,
        policy: sched.policy,
        flags: u64::from(sched.reset_on_fork),
        nice: if sched.priority == 0 { sched.nice } else { 0 },
        priority: sched.priority,
        util_max: 1024,
        ..SchedAttr::default()
    };
    task.write_bytes(attr, &answer.as_bytes()[..known as usize])?;
    Ok(0)
}

pub fn sys_sched_setattr(task: &CurrentTask, pid: i32, attr: UserAddr, flags: u32) -> SyscallResult {
    if attr.is_null() || pid < 0 || flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let size = match task.read_object::<u32>(attr)? {
        0 => ATTR_SIZE_0,
        size => size,
    };
    if !(ATTR_SIZE_0..=4096).contains(&size) {
        task.write_object(attr, &(size_of::<SchedAttr>() as u32))?;
        return Err(Errno::E2BIG.into());
    }
    let mut bytes = vec![0; size as usize];
    task.read_bytes(attr, &mut bytes)?;
    let mut new = SchedAttr::new_zeroed();
    let known = bytes.len().min(size_of::<SchedAttr>());
    if bytes[known..].iter().any(|b| *b != 0) {
        return Err(Errno::E2BIG.into());
    }
    new.as_mut_bytes()[..known].copy_from_slice(&bytes[..known]);
    if new.policy as i32 <= -1 || new.flags & !1 != 0 {
        // SCHED_FLAG_KEEP_*, DL_*, UTIL_* belong to schedulers that are not here.
        return Err(Errno::EINVAL.into());
    }
    let reset = if new.flags & 1 != 0 { RESET_ON_FORK } else { 0 };
    set(task, pid, Some(new.policy | reset), new.priority, Some(new.nice))?;
    Ok(0)
}

/// The tasks that `getpriority` and `setpriority` mean.
fn priority_targets(task: &CurrentTask, which: i32, who: i32) -> Result<Vec<Arc<Task>>, Errno> {
    let pids = task.pids();
    match which {
        0 => Ok(vec![find(task, who).map_err(|_| Errno::ESRCH)?]),
        1 => {
            let pgid = if who == 0 { pids.pgid(task.group()) } else { who };
            let members = pids.lock().members(pgid);
            Ok(members.iter().flat_map(|g| g.tasks()).collect())
        }
        2 => {
            let uid = if who == 0 { task.creds().ruid } else { who as u32 };
            let tasks: Vec<Arc<Task>> = pids.lock().tasks.values().cloned().collect();
            Ok(tasks.into_iter().filter(|t| t.creds().ruid == uid).collect())
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `getpriority(2)`: the raw call answers 20 minus the nice value.
pub fn sys_getpriority(task: &CurrentTask, which: i32, who: i32) -> SyscallResult {
    let targets = priority_targets(task, which, who)?;
    let best = targets.iter().map(|t| 20 - t.state.lock().sched.nice).max();
    Ok(best.ok_or(Errno::ESRCH)? as usize)
}

pub fn sys_setpriority(task: &CurrentTask, which: i32, who: i32, priority: i32) -> SyscallResult {
    let nice = priority.clamp(-20, 19);
    let targets = priority_targets(task, which, who)?;
    let own = task.creds();
    let mut result = Err(Errno::ESRCH);
    for target in targets {
        let theirs = target.creds();
        let owner = theirs.ruid == own.euid || theirs.euid == own.euid;
        let limit = target.group().rlimit(Resource::Nice).soft;
        let mut state = target.state.lock();
        let set = if !owner && !own.has(Caps::SYS_NICE) {
            Err(Errno::EPERM)
        } else if nice < state.sched.nice && !may_nice(limit, nice) && !own.has(Caps::SYS_NICE) {
            Err(Errno::EACCES)
        } else {
            state.sched.nice = nice;
            Ok(())
        };
        // One failure is remembered; success only where nothing has failed before.
        if set.is_err() || result == Err(Errno::ESRCH) {
            result = set;
        }
    }
    result?;
    Ok(0)
}
