//! `futex(2)`.
//!
//! Waiters stand in hash buckets by what their word *is*: an address in one address space, or a place in shared memory. A
//! waiter is queued under its bucket's lock after the word was found to hold the expected value under that same lock;
//! wakers take the lock too, so no wake-up is lost. A queued waiter knows its bucket, which a requeue changes.
//!
//! Futexes with an owner (FUTEX_LOCK_PI and its kin) are in [`super::futex_pi`].

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use quicksand_abi::{Errno, Timespec, UserAddr};

use super::CurrentTask;
use super::futex_pi::{self, PiWaiter};
use crate::mm::MemoryManager;
use crate::mm::maps::FutexKey as Key;
use crate::sync::{Level, Mutex, MutexGuard, Waiter};
use crate::syscalls::{Blocked, OnSignal, Resume, SyscallError, SyscallResult, WakeReason};
use crate::time::Monotonic;

const BUCKETS: usize = 256;

const PRIVATE: u32 = 128;
const CLOCK_REALTIME: u32 = 256;
pub(super) const MATCH_ANY: u32 = u32::MAX;

pub(super) const WAITERS: u32 = 0x8000_0000;
pub(super) const OWNER_DIED: u32 = 0x4000_0000;
pub(super) const TID_MASK: u32 = 0x3fff_ffff;

/// A task that waits, as its wakers see it.
#[derive(Debug)]
pub(crate) struct FutexWaiter {
    bitset: u32,
    waiter: Arc<Waiter>,
    /// Waits to own the futex, rather than for a wake-up.
    pub(super) pi: Option<PiWaiter>,
    /// Where it is queued. Changes under the locks of both buckets.
    bucket: AtomicUsize,
    /// Set when it was taken out of its bucket to be woken.
    pub(super) woken: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub key: Key,
    pub waiter: Arc<FutexWaiter>,
}

pub(super) type Bucket = Vec<Entry>;

/// All futexes of a sandbox.
pub struct FutexTable {
    buckets: Box<[Mutex<Bucket>]>,
    /// How many waiters want to own a futex: nearly always none.
    pub(super) pi_waiters: AtomicUsize,
}

impl Default for FutexTable {
    fn default() -> FutexTable {
        let buckets = (0..BUCKETS).map(|_| Mutex::new(Level::Futex, Vec::new())).collect();
        FutexTable { buckets, pi_waiters: AtomicUsize::new(0) }
    }
}

impl fmt::Debug for FutexTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FutexTable")
    }
}

pub(super) fn index_of(key: &Key) -> usize {
    let mut hasher = std::hash::DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() as usize % BUCKETS
}

impl FutexWaiter {
    /// A waiter of `task` that will be queued in the bucket `index`.
    pub(super) fn new(
        task: &CurrentTask,
        bitset: u32,
        index: usize,
        pi: Option<PiWaiter>,
    ) -> Arc<FutexWaiter> {
        Arc::new(FutexWaiter {
            bitset,
            waiter: task.waiter.clone(),
            pi,
            bucket: AtomicUsize::new(index),
            woken: AtomicBool::new(false),
        })
    }
    pub(super) fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.waiter.unpark();
    }
}

impl FutexTable {
    pub(super) fn lock(&self, index: usize) -> MutexGuard<'_, Bucket> {
        self.buckets[index].lock()
    }
    /// The numbers of all buckets.
    pub(super) fn indices(&self) -> std::ops::Range<usize> {
        0..self.buckets.len()
    }

    /// Wakes up to `count` waiters of `key` that wait for a bit of `bitset`.
    fn wake(&self, key: &Key, count: i32, bitset: u32) -> Result<usize, Errno> {
        wake_in(&mut self.lock(index_of(key)), key, count, bitset)
    }

    /// Both buckets of two keys, locked in the order of their numbers; one guard where they are the same bucket.
    fn lock_two(&self, a: usize, b: usize) -> (MutexGuard<'_, Bucket>, Option<MutexGuard<'_, Bucket>>) {
        let first = self.lock(a.min(b));
        // Every thread takes two buckets in this order, so they cannot wait for each other.
        let second = (a != b).then(|| self.buckets[a.max(b)].lock_second());
        (first, second)
    }

    /// Takes a waiter out; false where a waker has done so.
    pub(super) fn remove(&self, waiter: &Arc<FutexWaiter>) -> bool {
        loop {
            let index = waiter.bucket.load(Ordering::SeqCst);
            let mut bucket = self.lock(index);
            if waiter.bucket.load(Ordering::SeqCst) != index {
                continue;
            }
            let found = bucket.iter().position(|e| Arc::ptr_eq(&e.waiter, waiter));
            if found.is_some() && waiter.pi.is_some() {
                self.pi_waiters.fetch_sub(1, Ordering::SeqCst);
            }
            return found.map(|i| bucket.remove(i)).is_some();
        }
    }
}

/// As Linux, wakes one even where `count` is not positive. EINVAL at a waiter that wants to own the futex.
fn wake_in(bucket: &mut Bucket, key: &Key, count: i32, bitset: u32) -> Result<usize, Errno> {
    let limit = count.max(1) as usize;
    let mut woken = 0;
    let mut i = 0;
    while i < bucket.len() && woken < limit {
        if bucket[i].key == *key && bucket[i].waiter.pi.is_some() {
            return Err(Errno::EINVAL);
        }
        if bucket[i].key == *key && bucket[i].waiter.bitset & bitset != 0 {
            bucket.remove(i).waiter.wake();
            woken += 1;
        } else {
            i += 1;
        }
    }
    Ok(woken)
}

/// `futex(2)`. The fourth argument is a timeout or a number.
pub fn sys_futex(
    task: &CurrentTask,
    addr: UserAddr,
    op: u32,
    val: u32,
    timeout: UserAddr,
    addr2: UserAddr,
    val3: u32,
) -> SyscallResult {
    let private = op & PRIVATE != 0;
    let command = (op & !(PRIVATE | CLOCK_REALTIME)) as i32;
    let val2 = timeout.0 as u32 as i32;
    if op & CLOCK_REALTIME != 0
        && !matches!(command, libc::FUTEX_WAIT_BITSET | libc::FUTEX_WAIT_REQUEUE_PI | libc::FUTEX_LOCK_PI2)
    {
        return Err(Errno::ENOSYS.into());
    }
    match command {
        libc::FUTEX_WAIT => wait(task, addr, private, val, MATCH_ANY, timeout, Clock::Relative),
        libc::FUTEX_WAIT_BITSET => {
            let clock = if op & CLOCK_REALTIME != 0 { Clock::Realtime } else { Clock::Monotonic };
            wait(task, addr, private, val, val3, timeout, clock)
        }
        libc::FUTEX_WAKE => wake(task, addr, private, val as i32, MATCH_ANY),
        libc::FUTEX_WAKE_BITSET => wake(task, addr, private, val as i32, val3),
        libc::FUTEX_REQUEUE => requeue(task, addr, addr2, private, val as i32, val2, None),
        libc::FUTEX_CMP_REQUEUE => requeue(task, addr, addr2, private, val as i32, val2, Some(val3)),
        libc::FUTEX_WAKE_OP => wake_op(task, addr, addr2, private, val as i32, val2, val3),
        libc::FUTEX_LOCK_PI => futex_pi::lock(task, addr, private, timeout, Clock::Realtime),
        libc::FUTEX_LOCK_PI2 => {
            let clock = if op & CLOCK_REALTIME != 0 { Clock::Realtime } else { Clock::Monotonic };
            futex_pi::lock(task, addr, private, timeout, clock)
        }
        libc::FUTEX_TRYLOCK_PI => futex_pi::try_lock(task, addr, private),
        libc::FUTEX_UNLOCK_PI => futex_pi::unlock(task, addr, private),
        libc::FUTEX_WAIT_REQUEUE_PI | libc::FUTEX_CMP_REQUEUE_PI => {
            task.kernel().log_unsupported("futex: requeueing to a futex with an owner", Errno::ENOSYS);
            Err(Errno::ENOSYS.into())
        }
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// What a timeout is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    Relative,
    Monotonic,
    Realtime,
}

pub(super) fn deadline(
    task: &CurrentTask,
    timeout: UserAddr,
    clock: Clock,
) -> Result<Option<Monotonic>, Errno> {
    if timeout.is_null() {
        return Ok(None);
    }
    let span = task.read_object::<Timespec>(timeout)?.to_duration()?;
    let clocks = &task.kernel().clocks;
    let at = Monotonic::default().saturating_add(span);
    Ok(Some(match clock {
        Clock::Relative => clocks.monotonic().saturating_add(span),
        Clock::Monotonic => at,
        Clock::Realtime => {
            let shifted = i128::from(at.0) - i128::from(clocks.monotonic_to_realtime_ns());
            Monotonic(u64::try_from(shifted.max(0)).unwrap_or(u64::MAX))
        }
    }))
}

fn wait(
    task: &CurrentTask,
    addr: UserAddr,
    private: bool,
    val: u32,
    bitset: u32,
    timeout: UserAddr,
    clock: Clock,
) -> SyscallResult {
    let deadline = match task.take_resume() {
        Resume::Futex { deadline } => return go_on_waiting(task, deadline),
        Resume::Deadline(deadline) => deadline,
        _ => deadline(task, timeout, clock)?,
    };
    if bitset == 0 {
        return Err(Errno::EINVAL.into());
    }
    let mm = task.mm();
    let key = mm.futex_key(addr, private)?;
    let index = index_of(&key);
    let waiter = FutexWaiter::new(task, bitset, index, None);
    {
        let mut bucket = task.kernel().futexes.lock(index);
        if mm.load_u32(addr)? != val {
            return Err(Errno::EAGAIN.into());
        }
        bucket.push(Entry { key, waiter: waiter.clone() });
    }
    *task.futex.borrow_mut() = vec![waiter];
    Err(queued(deadline))
}

/// The wait of whoever is queued.
pub(super) fn queued(deadline: Option<Monotonic>) -> SyscallError {
    Blocked::until(deadline).resume(Resume::Futex { deadline }).on_signal(OnSignal::CallAgain).into()
}

/// How a queued wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// By a waker: which of the waiters it took, the last where it was several.
    Woken(usize),
    TimedOut,
    Interrupted,
}

/// A waiter that was queued is called again: `None` where it goes on waiting, else it is queued nowhere any more.
pub(super) fn wait_ended(task: &CurrentTask) -> Option<Ended> {
    let reason = task.wake_reason();
    {
        let waiters = task.futex.borrow();
        let woken = waiters.iter().any(|w| w.woken.load(Ordering::SeqCst));
        if !woken && !waiters.is_empty() && !matches!(reason, WakeReason::Timeout | WakeReason::Interrupted) {
            return None;
        }
    }
    let waiters = task.futex.take();
    let mut taken = None;
    for (i, waiter) in waiters.iter().enumerate() {
        if !task.kernel().futexes.remove(waiter) {
            taken = Some(i);
        }
    }
    Some(match (taken, reason) {
        (Some(i), _) => Ended::Woken(i),
        (None, WakeReason::Timeout) => Ended::TimedOut,
        (None, _) => Ended::Interrupted,
    })
}

fn go_on_waiting(task: &CurrentTask, deadline: Option<Monotonic>) -> SyscallResult {
    match wait_ended(task) {
        None => Err(queued(deadline)),
        Some(Ended::Woken(_)) => Ok(0),
        Some(Ended::TimedOut) => Err(Errno::ETIMEDOUT.into()),
        // Restarted from the start; with a timeout, the deadline stays what it was.
        Some(Ended::Interrupted) => Err(match deadline {
            None => Blocked::until(None).on_signal(OnSignal::Restart),
            Some(_) => {
                Blocked::until(deadline).resume(Resume::Deadline(deadline)).on_signal(OnSignal::RestartBlock)
            }
        }
        .into()),
    }
}

/// Before the task ends: nobody may wake it any more.
pub(crate) fn cancel_wait(task: &CurrentTask) {
    for waiter in task.futex.take() {
        // Where it was just made an owner, `futex_pi::release_owned` passes that on.
        task.kernel().futexes.remove(&waiter);
    }
}

fn wake(task: &CurrentTask, addr: UserAddr, private: bool, count: i32, bitset: u32) -> SyscallResult {
    if bitset == 0 {
        return Err(Errno::EINVAL.into());
    }
    let key = task.mm().futex_key(addr, private)?;
    Ok(task.kernel().futexes.wake(&key, count, bitset)?)
}

/// The wake-up of a word that a task has left behind; whether anybody waits for it does not matter.
pub(super) fn wake_all_kinds(task: &CurrentTask, addr: UserAddr) -> SyscallResult {
    wake(task, addr, false, 1, MATCH_ANY)
}

fn requeue(
    task: &CurrentTask,
    addr: UserAddr,
    addr2: UserAddr,
    private: bool,
    nr_wake: i32,
    nr_requeue: i32,
    expected: Option<u32>,
) -> SyscallResult {
    if nr_wake < 0 || nr_requeue < 0 {
        return Err(Errno::EINVAL.into());
    }
    let mm = task.mm();
    let (from, to) = (mm.futex_key(addr, private)?, mm.futex_key(addr2, private)?);
    let (from_index, to_index) = (index_of(&from), index_of(&to));
    let (mut low, mut high) = task.kernel().futexes.lock_two(from_index, to_index);
    if let Some(expected) = expected
        && mm.load_u32(addr)? != expected
    {
        return Err(Errno::EAGAIN.into());
    }
    let mut nothing = Vec::new();
    let source = if from_index <= to_index { &mut *low } else { high.as_deref_mut().unwrap_or(&mut nothing) };
    if source.iter().any(|e| e.key == from && e.waiter.pi.is_some()) {
        return Err(Errno::EINVAL.into());
    }
    let (mut count, mut i) = (0_i64, 0);
    let mut moved = Vec::new();
    let (wakes, requeues) = (i64::from(nr_wake), i64::from(nr_requeue));
    while i < source.len() && count < wakes + requeues {
        if source[i].key != from {
            i += 1;
            continue;
        }
        count += 1;
        if count <= wakes {
            source.remove(i).waiter.wake();
        } else if from == to {
            i += 1;
        } else {
            moved.push(source.remove(i).waiter);
        }
    }
    let target = if from_index < to_index { high.as_deref_mut() } else { Some(&mut *low) };
    if let Some(target) = target {
        for waiter in moved {
            waiter.bucket.store(to_index, Ordering::SeqCst);
            target.push(Entry { key: to, waiter });
        }
    }
    Ok(count as usize)
}

/// FUTEX_WAKE_OP: changes the second word, wakes waiters of the first, and of the second where its old value passes.
fn wake_op(
    task: &CurrentTask,
    addr: UserAddr,
    addr2: UserAddr,
    private: bool,
    count: i32,
    count2: i32,
    encoded: u32,
) -> SyscallResult {
    let mm = task.mm();
    let (key, key2) = (mm.futex_key(addr, private)?, mm.futex_key(addr2, private)?);
    let (a, b) = (index_of(&key), index_of(&key2));
    let (mut low, mut high) = task.kernel().futexes.lock_two(a, b);
    let old = apply_op(&mm, addr2, encoded)?;
    let argument = sign_extend(encoded & 0xfff);
    let passes = match (encoded >> 24) & 15 {
        0 => old == argument,
        1 => old != argument,
        2 => old < argument,
        3 => old <= argument,
        4 => old > argument,
        5 => old >= argument,
        _ => return Err(Errno::ENOSYS.into()),
    };
    let mut nothing = Vec::new();
    let mut woken = {
        let first = if a <= b { &mut *low } else { high.as_deref_mut().unwrap_or(&mut nothing) };
        wake_in(first, &key, count, MATCH_ANY)?
    };
    if passes {
        let second = if b <= a { &mut *low } else { high.as_deref_mut().unwrap_or(&mut nothing) };
        woken += wake_in(second, &key2, count2, MATCH_ANY)?;
    }
    Ok(woken)
}

fn sign_extend(twelve_bits: u32) -> i32 {
    ((twelve_bits << 20) as i32) >> 20
}

fn apply_op(mm: &MemoryManager, addr: UserAddr, encoded: u32) -> Result<i32, Errno> {
    let op = (encoded >> 28) & 7;
    let mut argument = sign_extend((encoded >> 12) & 0xfff);
    if encoded & (8 << 28) != 0 {
        // FUTEX_OP_ARG_SHIFT: Linux masks what is out of range.
        argument = 1_i32.wrapping_shl(argument as u32 & 31);
    }
    let mut old = mm.load_u32(addr)?;
    loop {
        let argument = argument as u32;
        let new = match op {
            0 => argument,
            1 => old.wrapping_add(argument),
            2 => old | argument,
            3 => old & !argument,
            4 => old ^ argument,
            _ => return Err(Errno::ENOSYS),
        };
        let found = mm.compare_exchange_u32(addr, old, new)?;
        if found == old {
            return Ok(old as i32);
        }
        old = found;
    }
}
