//! Futexes with an owner: FUTEX_LOCK_PI, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI, which glibc uses for mutexes of the protocol
//! PTHREAD_PRIO_INHERIT.
//!
//! The word holds the owner's thread id. A contender sets FUTEX_WAITERS and queues; the owner that unlocks hands the futex
//! over to the first in the queue, and one that ends does so with FUTEX_OWNER_DIED. The host schedules, so that nobody's
//! priority is raised.
//!
//! A task that ends sets `left_futexes` before it looks for futexes it owns, and contenders look at it with the bucket
//! locked: none can queue behind an owner that has looked already.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quicksand_abi::{Errno, UserAddr};

use super::futex::{
    Bucket, Clock, Ended, Entry, FutexWaiter, MATCH_ANY, OWNER_DIED, TID_MASK, WAITERS, deadline, index_of,
    queued, wait_ended,
};
use super::{CurrentTask, Task};
use crate::mm::MemoryManager;
use crate::mm::maps::FutexKey as Key;
use crate::syscalls::{Blocked, OnSignal, Resume, SyscallResult};

/// Who wants to own a futex, and where its word is for him.
pub(super) struct PiWaiter {
    task: Arc<Task>,
    mm: Arc<MemoryManager>,
    addr: UserAddr,
}

impl std::fmt::Debug for PiWaiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PiWaiter({:?} at {:?})", self.task, self.addr)
    }
}

/// FUTEX_LOCK_PI and FUTEX_LOCK_PI2.
pub(super) fn lock(
    task: &CurrentTask,
    addr: UserAddr,
    private: bool,
    timeout: UserAddr,
    clock: Clock,
) -> SyscallResult {
    let resume = task.take_resume();
    if let Resume::Futex { deadline } = resume {
        return match wait_ended(task) {
            None => Err(queued(deadline)),
            // The owner before has written our number.
            Some(Ended::Woken(_)) => Ok(0),
            Some(Ended::TimedOut) => Err(Errno::ETIMEDOUT.into()),
            Some(Ended::Interrupted) => Err(Blocked::until(None).on_signal(OnSignal::RestartAlways).into()),
        };
    }
    let deadline = match resume {
        // It waited before a checkpoint.
        Resume::Deadline(deadline) => deadline,
        _ => deadline(task, timeout, clock)?,
    };
    match acquire(task, addr, private, true)? {
        true => Ok(0),
        false => Err(queued(deadline)),
    }
}

/// FUTEX_TRYLOCK_PI.
pub(super) fn try_lock(task: &CurrentTask, addr: UserAddr, private: bool) -> SyscallResult {
    match acquire(task, addr, private, false)? {
        true => Ok(0),
        false => Err(Errno::EAGAIN.into()),
    }
}

/// Takes the futex if it is free; else queues, where `queue` says so, and answers false.
fn acquire(task: &CurrentTask, addr: UserAddr, private: bool, queue: bool) -> Result<bool, Errno> {
    let mm = task.mm();
    let key = mm.futex_key(addr, private)?;
    let index = index_of(&key);
    let futexes = &task.kernel().futexes;
    let tid = task.tid() as u32;
    loop {
        // The owner is looked up before the bucket is locked, as the lock order asks.
        let seen = mm.load_u32(addr)? & TID_MASK;
        let owner = if seen == 0 { None } else { task.pids().task(seen as i32) };
        let mut bucket = futexes.lock(index);
        let word = mm.load_u32(addr)?;
        if word & TID_MASK != seen {
            continue;
        }
        if seen == tid {
            return Err(Errno::EDEADLK);
        }
        let mut contenders = bucket.iter().filter(|e| e.key == key).peekable();
        let contended = contenders.peek().is_some();
        if contenders.any(|e| e.waiter.pi.is_none()) {
            // Somebody waits for a mere wake-up: the futex is used in two ways.
            return Err(Errno::EINVAL);
        }
        if seen == 0 {
            let new = (word & OWNER_DIED) | tid | if contended { WAITERS } else { 0 };
            if mm.compare_exchange_u32(addr, word, new)? == word {
                return Ok(true);
            }
            continue;
        }
        if owner.as_ref().is_none_or(|o| o.left_futexes.load(Ordering::SeqCst)) {
            // An owner that ended in between has changed the word, unless the number was never an owner's.
            if mm.load_u32(addr)? == word {
                return Err(Errno::ESRCH);
            }
            continue;
        }
        if mm.compare_exchange_u32(addr, word, word | WAITERS)? != word {
            continue;
        }
        if queue {
            let pi = PiWaiter { task: task.task().clone(), mm: mm.clone(), addr };
            let waiter = FutexWaiter::new(task, MATCH_ANY, index, Some(pi));
            futexes.pi_waiters.fetch_add(1, Ordering::SeqCst);
            bucket.push(Entry { key, waiter: waiter.clone() });
            drop(bucket);
            *task.futex.borrow_mut() = vec![waiter];
        }
        return Ok(false);
    }
}

/// FUTEX_UNLOCK_PI.
pub(super) fn unlock(task: &CurrentTask, addr: UserAddr, private: bool) -> SyscallResult {
    let mm = task.mm();
    let own = |word: u32| word & TID_MASK == task.tid() as u32;
    if !own(mm.load_u32(addr)?) {
        return Err(Errno::EPERM.into());
    }
    let key = mm.futex_key(addr, private)?;
    let index = index_of(&key);
    let futexes = &task.kernel().futexes;
    loop {
        let mut bucket = futexes.lock(index);
        let word = mm.load_u32(addr)?;
        if !own(word) {
            return Err(Errno::EPERM.into());
        }
        let new = match bucket.iter().find(|e| e.key == key) {
            Some(Entry { waiter, .. }) => match &waiter.pi {
                Some(pi) => pi.task.tid() as u32 | WAITERS,
                None => return Err(Errno::EINVAL.into()),
            },
            None => 0,
        };
        if mm.compare_exchange_u32(addr, word, new)? == word {
            let next = take_first(&mut bucket, &key);
            drop(bucket);
            if let Some(next) = next {
                futexes.pi_waiters.fetch_sub(1, Ordering::SeqCst);
                next.wake();
            }
            return Ok(0);
        }
    }
}

fn take_first(bucket: &mut Bucket, key: &Key) -> Option<Arc<FutexWaiter>> {
    let i = bucket.iter().position(|e| e.key == *key)?;
    Some(bucket.remove(i).waiter)
}

/// Before a task ends, or leaves its memory: whatever it owns and others wait for goes to the first of them (`exit_pi_state_list`).
pub(super) fn release_owned(task: &CurrentTask) {
    task.left_futexes.store(true, Ordering::SeqCst);
    let futexes = &task.kernel().futexes;
    if futexes.pi_waiters.load(Ordering::SeqCst) == 0 {
        return;
    }
    let tid = task.tid() as u32;
    for index in futexes.indices() {
        let mut handed = Vec::new();
        let mut bucket = futexes.lock(index);
        let mut i = 0;
        while i < bucket.len() {
            let first = bucket[..i].iter().all(|e| e.key != bucket[i].key);
            let pi = bucket[i].waiter.pi.as_ref();
            let pi = pi.filter(|pi| first && Arc::ptr_eq(pi.task.pids(), task.pids()));
            if pi.is_some_and(|pi| hand_over(pi, tid)) {
                handed.push(bucket.remove(i).waiter);
            } else {
                i += 1;
            }
        }
        drop(bucket);
        for waiter in handed {
            futexes.pi_waiters.fetch_sub(1, Ordering::SeqCst);
            waiter.wake();
        }
    }
}

/// Makes a waiter the owner of a futex whose owner `tid` ends. A word in memory that is gone is passed over.
fn hand_over(pi: &PiWaiter, tid: u32) -> bool {
    let Ok(mut word) = pi.mm.load_u32(pi.addr) else { return false };
    loop {
        // The robust list may have been gone through already.
        let abandoned = word & TID_MASK == 0 && word & OWNER_DIED != 0;
        if word & TID_MASK != tid && !abandoned {
            return false;
        }
        let new = pi.task.tid() as u32 | WAITERS | OWNER_DIED;
        match pi.mm.compare_exchange_u32(pi.addr, word, new) {
            Ok(found) if found == word => return true,
            Ok(found) => word = found,
            Err(_) => return false,
        }
    }
}
