//! System V semaphores: `semget(2)`, `semop(2)`, `semtimedop(2)`, `semctl(2)`.
//!
//! A call's operations take effect together or not at all. A caller that has to wait is noted in the set (for GETNCNT and
//! GETZCNT), and tries again whenever the set changes. What SEM_UNDO promises is kept per process, and done when its last
//! thread ends.

use std::collections::HashMap;
use std::sync::Arc;

use quicksand_abi::{Errno, Timespec, UserAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    IPC_INFO, IPC_NOWAIT, IPC_RMID, IPC_SET, IPC_STAT, Object, Owner, Perm64, READ, WRITE, now, read_perm,
};
use crate::sync::{Events, WaitQueue};
use crate::syscalls::{Blocked, OnSignal, Resume, SyscallResult, WakeReason};
use crate::task::{CurrentTask, Task};

/// SEMMSL, SEMMNS, SEMOPM, SEMMNI, SEMVMX: Linux's defaults.
pub(super) const MAX_PER_SET: i32 = 32000;
const MAX_SEMAPHORES: u64 = 1_024_000_000;
/// What there is memory for: beyond it, ENOMEM.
const MEMORY_FOR: u64 = 4_000_000;
const MAX_OPS: usize = 500;
const MAX_SETS: usize = 32000;
pub(super) const MAX_VALUE: i32 = 32767;

const SEM_UNDO: u32 = 0x1000;

const GETPID: i32 = 11;
const GETVAL: i32 = 12;
const GETALL: i32 = 13;
const GETNCNT: i32 = 14;
const GETZCNT: i32 = 15;
const SETVAL: i32 = 16;
const SETALL: i32 = 17;
const SEM_STAT: i32 = 18;
const SEM_INFO: i32 = 19;
const SEM_STAT_ANY: i32 = 20;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Semaphore {
    pub value: i32,
    /// Who changed it last.
    pub pid: i32,
}

/// What a waiting task waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    number: usize,
    for_zero: bool,
}

/// A set of semaphores.
#[derive(Debug)]
pub(crate) struct SemSet {
    pub(super) owner: Owner,
    pub(super) semaphores: Vec<Semaphore>,
    pub(super) otime: i64,
    pub(super) ctime: i64,
    /// By task id.
    pub(super) waiting: HashMap<u64, Waits>,
    /// By thread group id: what is added to each semaphore when the process ends.
    pub(super) undo: HashMap<u64, Vec<i32>>,
    pub(super) changed: Arc<WaitQueue>,
}

impl Object for SemSet {
    const LIMIT: usize = MAX_SETS;
    fn owner(&self) -> &Owner {
        &self.owner
    }
    fn check_size(&self, size: u64) -> Result<(), Errno> {
        if size > self.semaphores.len() as u64 { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

/// `struct sembuf`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SemOp {
    number: u16,
    op: i16,
    flags: i16,
}

impl SemOp {
    fn has(&self, flag: u32) -> bool {
        u32::from(self.flags as u16) & flag != 0
    }
}

/// `struct semid64_ds`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SemidDs {
    perm: Perm64,
    otime: i64,
    unused1: u64,
    ctime: i64,
    unused2: u64,
    nsems: u64,
    unused3: [u64; 2],
}

/// What a try of several operations comes to.
#[derive(Debug)]
enum Outcome {
    Done,
    Wait(Waits),
}

impl SemSet {
    fn try_ops(&mut self, ops: &[SemOp], group: u64, pid: i32) -> Result<Outcome, Errno> {
        let mut values: HashMap<usize, i32> = HashMap::new();
        let undoes = ops.iter().any(|op| op.has(SEM_UNDO));
        let mut undo = Vec::new();
        if undoes {
            undo = self.undo.get(&group).cloned().unwrap_or_default();
            undo.resize(self.semaphores.len(), 0);
        }
        for op in ops {
            let number = usize::from(op.number);
            let value = values.entry(number).or_insert(self.semaphores[number].value);
            let after = *value + i32::from(op.op);
            if after < 0 || op.op == 0 && *value != 0 {
                if op.has(IPC_NOWAIT) {
                    return Err(Errno::EAGAIN);
                }
                return Ok(Outcome::Wait(Waits { number, for_zero: op.op == 0 }));
            }
            if after > MAX_VALUE {
                return Err(Errno::ERANGE);
            }
            if op.has(SEM_UNDO) {
                let undone = undo[number] - i32::from(op.op);
                if !(-MAX_VALUE - 1..=MAX_VALUE).contains(&undone) {
                    return Err(Errno::ERANGE);
                }
                undo[number] = undone;
            }
            *value = after;
        }
        for (number, value) in values {
            self.semaphores[number] = Semaphore { value, pid };
        }
        if undoes {
            self.undo.insert(group, undo);
        }
        Ok(Outcome::Done)
    }
    fn forget_undo(&mut self, number: Option<usize>) {
        match number {
            None => self.undo.clear(),
            Some(number) => self.undo.values_mut().filter_map(|u| u.get_mut(number)).for_each(|u| *u = 0),
        }
    }
    fn notify(&self) {
        self.changed.notify(Events::IN);
    }
}

/// The end of a process: what it promised to undo is undone.
pub(crate) fn undo_all(task: &Task) {
    let (group, pid) = (task.group().id, task.group().pid());
    let mut objects = task.container().ipc.lock();
    for set in objects.semaphores.values_mut() {
        let Some(undo) = set.undo.remove(&group) else { continue };
        for (semaphore, by) in set.semaphores.iter_mut().zip(undo).filter(|(_, by)| *by != 0) {
            semaphore.value = (semaphore.value + by).clamp(0, MAX_VALUE);
            semaphore.pid = pid;
        }
        set.notify();
    }
}

/// `semget(2)`.
pub fn sys_semget(task: &CurrentTask, key: i32, count: i32, flags: u32) -> SyscallResult {
    if !(0..=MAX_PER_SET).contains(&count) {
        return Err(Errno::EINVAL.into());
    }
    let creds = task.creds();
    let ctime = now(task);
    let mut objects = task.container().ipc.lock();
    let total: u64 = objects.semaphores.iter().map(|(_, s)| s.semaphores.len() as u64).sum();
    Ok(objects.semaphores.find_or_make(&creds, key, flags, count as u64, |owner| {
        if count == 0 {
            return Err(Errno::EINVAL);
        }
        if total + count as u64 > MAX_SEMAPHORES {
            return Err(Errno::ENOSPC);
        }
        if total + count as u64 > MEMORY_FOR {
            return Err(Errno::ENOMEM);
        }
        Ok(SemSet {
            owner,
            semaphores: vec![Semaphore::default(); count as usize],
            otime: 0,
            ctime,
            waiting: HashMap::new(),
            undo: HashMap::new(),
            changed: WaitQueue::new(),
        })
    })?)
}

/// `semop(2)`.
pub fn sys_semop(task: &CurrentTask, id: i32, ops: UserAddr, count: usize) -> SyscallResult {
    sys_semtimedop(task, id, ops, count, UserAddr::NULL)
}

/// `semtimedop(2)`. Interrupted, it is never restarted.
pub fn sys_semtimedop(
    task: &CurrentTask,
    id: i32,
    ops: UserAddr,
    count: usize,
    timeout: UserAddr,
) -> SyscallResult {
    let first = task.wake_reason() == WakeReason::First;
    let deadline = match task.take_resume() {
        Resume::Deadline(deadline) => deadline,
        _ if timeout.is_null() => None,
        _ => {
            let span = task.read_object::<Timespec>(timeout)?.to_duration()?;
            Some(task.kernel().clocks.monotonic().saturating_add(span))
        }
    };
    if count == 0 || id < 0 {
        return Err(Errno::EINVAL.into());
    }
    if count > MAX_OPS {
        return Err(Errno::E2BIG.into());
    }
    let ops: Vec<SemOp> = task.read_array(ops, count)?;
    let creds = task.creds();
    let (group, pid, otime) = (task.group().id, task.group().pid(), now(task));
    let mut objects = task.container().ipc.lock();
    // A set that goes away while somebody waits.
    let gone = if first { Errno::EINVAL } else { Errno::EIDRM };
    let set = objects.semaphores.get(id).map_err(|e| if e == Errno::EIDRM { e } else { gone })?;
    set.waiting.remove(&task.id);
    if ops.iter().any(|op| usize::from(op.number) >= set.semaphores.len()) {
        return Err(Errno::EFBIG.into());
    }
    let alters = ops.iter().any(|op| op.op != 0);
    if first {
        set.owner.check(&creds, if alters { WRITE } else { READ })?;
    }
    match set.try_ops(&ops, group, pid)? {
        Outcome::Done => {
            set.otime = otime;
            if alters {
                set.notify();
            }
            Ok(0)
        }
        Outcome::Wait(waits) => match task.wake_reason() {
            WakeReason::Timeout => Err(Errno::EAGAIN.into()),
            WakeReason::Interrupted => Err(Errno::EINTR.into()),
            _ => {
                set.waiting.insert(task.id, waits);
                Err(Blocked::on(set.changed.clone(), Events::IN)
                    .deadline(deadline)
                    .resume(Resume::Deadline(deadline))
                    .on_signal(OnSignal::CallAgain)
                    .into())
            }
        },
    }
}

/// `semctl(2)`.
pub fn sys_semctl(task: &CurrentTask, id: i32, number: i32, command: i32, arg: u64) -> SyscallResult {
    if id < 0 {
        return Err(Errno::EINVAL.into());
    }
    match command {
        IPC_INFO | SEM_INFO => info(task, command, UserAddr(arg)),
        IPC_STAT | SEM_STAT | SEM_STAT_ANY => stat(task, id, command, UserAddr(arg)),
        IPC_SET | IPC_RMID => control(task, id, command, UserAddr(arg)),
        GETALL | SETALL => all(task, id, command, UserAddr(arg)),
        GETPID | GETVAL | GETNCNT | GETZCNT | SETVAL => one(task, id, number, command, arg as i32),
        _ => Err(Errno::EINVAL.into()),
    }
}

fn info(task: &CurrentTask, command: i32, buf: UserAddr) -> SyscallResult {
    let (sets, total, highest) = {
        let objects = task.container().ipc.lock();
        let total: usize = objects.semaphores.iter().map(|(_, s)| s.semaphores.len()).sum();
        (objects.semaphores.len() as i32, total as i32, objects.semaphores.highest())
    };
    // semmap, semmni, semmns, semmnu, semmsl, semopm, semume, semusz, semvmx, semaem.
    let (ops, most) = (MAX_OPS as i32, MAX_SEMAPHORES as i32);
    let (size, adjust) = if command == SEM_INFO { (sets, total) } else { (20, MAX_VALUE) };
    let answer = [most, MAX_SETS as i32, most, most, MAX_PER_SET, ops, ops, size, MAX_VALUE, adjust];
    task.write_object(buf, &answer)?;
    Ok(highest)
}

fn stat(task: &CurrentTask, id: i32, command: i32, buf: UserAddr) -> SyscallResult {
    let creds = task.creds();
    let mut objects = task.container().ipc.lock();
    let (id, set) = match command {
        IPC_STAT => (id, objects.semaphores.get(id)?),
        _ => objects.semaphores.at_place(id)?,
    };
    if command != SEM_STAT_ANY {
        set.owner.check(&creds, READ)?;
    }
    let answer = SemidDs {
        perm: set.owner.to_perm(id),
        otime: set.otime,
        ctime: set.ctime,
        nsems: set.semaphores.len() as u64,
        ..SemidDs::default()
    };
    drop(objects);
    task.write_object(buf, &answer)?;
    Ok(if command == IPC_STAT { 0 } else { id as usize })
}

fn control(task: &CurrentTask, id: i32, command: i32, buf: UserAddr) -> SyscallResult {
    let creds = task.creds();
    let new = if command == IPC_SET { Some(read_perm(task, buf)?) } else { None };
    let ctime = now(task);
    let mut objects = task.container().ipc.lock();
    let set = objects.semaphores.get(id)?;
    set.owner.check_control(&creds)?;
    match new {
        Some(new) => {
            set.owner.set(&new);
            set.ctime = ctime;
        }
        None => {
            if let Some(set) = objects.semaphores.remove(id) {
                set.notify();
            }
        }
    }
    Ok(0)
}

fn all(task: &CurrentTask, id: i32, command: i32, buf: UserAddr) -> SyscallResult {
    let creds = task.creds();
    let (count, values) = {
        let mut objects = task.container().ipc.lock();
        let set = objects.semaphores.get(id)?;
        set.owner.check(&creds, if command == SETALL { WRITE } else { READ })?;
        let values: Vec<u16> = set.semaphores.iter().map(|s| s.value as u16).collect();
        (set.semaphores.len(), values)
    };
    if command == GETALL {
        task.write_bytes(buf, values.as_bytes())?;
        return Ok(0);
    }
    let values: Vec<u16> = task.read_array(buf, count)?;
    if values.iter().any(|v| i32::from(*v) > MAX_VALUE) {
        return Err(Errno::ERANGE.into());
    }
    let (ctime, pid) = (now(task), task.group().pid());
    let mut objects = task.container().ipc.lock();
    let set = objects.semaphores.get(id).map_err(|_| Errno::EIDRM)?;
    for (semaphore, value) in set.semaphores.iter_mut().zip(values) {
        *semaphore = Semaphore { value: value.into(), pid };
    }
    set.forget_undo(None);
    set.ctime = ctime;
    set.notify();
    Ok(0)
}

fn one(task: &CurrentTask, id: i32, number: i32, command: i32, value: i32) -> SyscallResult {
    let creds = task.creds();
    let (ctime, pid) = (now(task), task.group().pid());
    if command == SETVAL && !(0..=MAX_VALUE).contains(&value) {
        return Err(Errno::ERANGE.into());
    }
    let mut objects = task.container().ipc.lock();
    let set = objects.semaphores.get(id)?;
    let semaphore = |set: &SemSet| {
        let number = usize::try_from(number).ok().filter(|n| *n < set.semaphores.len());
        number.ok_or(Errno::EINVAL)
    };
    if command == SETVAL {
        let number = semaphore(set)?;
        set.owner.check(&creds, WRITE)?;
        set.semaphores[number] = Semaphore { value, pid };
        set.forget_undo(Some(number));
        set.ctime = ctime;
        set.notify();
        return Ok(0);
    }
    set.owner.check(&creds, READ)?;
    let number = semaphore(set)?;
    let waiting =
        |for_zero| set.waiting.values().filter(|w| w.number == number && w.for_zero == for_zero).count();
    Ok(match command {
        GETPID => set.semaphores[number].pid as usize,
        GETVAL => set.semaphores[number].value as usize,
        GETNCNT => waiting(false),
        _ => waiting(true),
    })
}
