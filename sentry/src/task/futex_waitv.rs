//! `futex_waitv(2)`: waits for any of several futexes.

use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr};

use super::CurrentTask;
use super::futex::{Clock, Ended, Entry, FutexWaiter, MATCH_ANY, deadline, index_of, queued, wait_ended};
use crate::syscalls::{Blocked, OnSignal, Resume, SyscallResult};

/// FUTEX_WAITV_MAX.
const MAX: u32 = 128;
/// FUTEX2_SIZE_U32 (FUTEX_32), which has to be given, and FUTEX2_PRIVATE.
const SIZE_U32: u32 = 2;
const PRIVATE: u32 = 128;
/// 64-bit words in `struct futex_waitv`: value, address, flags and a reserved half.
const WORDS: usize = 3;

/// `futex_waitv(2)`: the index of a futex that was woken.
pub fn sys_futex_waitv(
    task: &CurrentTask,
    waiters: UserAddr,
    count: u32,
    flags: u32,
    timeout: UserAddr,
    clock: i32,
) -> SyscallResult {
    let resume = task.take_resume();
    if let Resume::Futex { deadline } = resume {
        return match wait_ended(task) {
            None => Err(queued(deadline)),
            Some(Ended::Woken(index)) => Ok(index),
            Some(Ended::TimedOut) => Err(Errno::ETIMEDOUT.into()),
            // The timeout is absolute.
            Some(Ended::Interrupted) => Err(Blocked::until(None).on_signal(OnSignal::Restart).into()),
        };
    }
    if flags != 0 || count == 0 || count > MAX || waiters.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let deadline = if let Resume::Deadline(deadline) = resume {
        // It waited before a checkpoint.
        deadline
    } else if timeout.is_null() {
        None
    } else {
        let clock = match clock {
            libc::CLOCK_REALTIME => Clock::Realtime,
            libc::CLOCK_MONOTONIC => Clock::Monotonic,
            _ => return Err(Errno::EINVAL.into()),
        };
        deadline(task, timeout, clock)?
    };
    let words: Vec<u64> = task.read_array(waiters, count as usize * WORDS)?;
    let wanted = words.chunks_exact(WORDS).map(|w| {
        let (flags, reserved) = (w[2] as u32, w[2] >> 32);
        if reserved != 0 || flags & !(SIZE_U32 | PRIVATE) != 0 || flags & SIZE_U32 == 0 {
            return Err(Errno::EINVAL);
        }
        Ok((w[0] as u32, UserAddr(w[1]), flags & PRIVATE != 0))
    });
    let wanted = wanted.collect::<Result<Vec<_>, Errno>>()?;
    match queue_all(task, &wanted) {
        Ok(()) => Err(queued(deadline)),
        // Nothing is left queued. Whoever was woken meanwhile has to be told.
        Err(e) => {
            let mut woken = None;
            for (i, waiter) in task.futex.take().iter().enumerate() {
                if !task.kernel().futexes.remove(waiter) {
                    woken = Some(i);
                }
            }
            Ok(woken.ok_or(e)?)
        }
    }
}

/// Queues a waiter for each futex, as long as they hold the expected values.
fn queue_all(task: &CurrentTask, wanted: &[(u32, UserAddr, bool)]) -> Result<(), Errno> {
    let mm = task.mm();
    let keys = wanted.iter().map(|(_, addr, private)| mm.futex_key(*addr, *private));
    let keys = keys.collect::<Result<Vec<_>, Errno>>()?;
    for (key, (value, addr, _)) in keys.into_iter().zip(wanted) {
        let index = index_of(&key);
        let waiter = FutexWaiter::new(task, MATCH_ANY, index, None);
        {
            let mut bucket = task.kernel().futexes.lock(index);
            if mm.load_u32(*addr)? != *value {
                return Err(Errno::EAGAIN);
            }
            bucket.push(Entry { key, waiter: Arc::clone(&waiter) });
        }
        task.futex.borrow_mut().push(waiter);
    }
    Ok(())
}
