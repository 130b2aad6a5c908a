//! `futex(2)`, robust lists, and `set_tid_address(2)`'s word.
//!
//! Waiters stand in hash buckets by what their word *is*: an address in one address space, or a place in shared memory. A
//! waiter is queued under its bucket's lock after the word was found to hold the expected value under that same lock;
//! wakers take the lock too, so no wake-up is lost. A queued waiter knows its bucket, which a requeue changes.
//!
//! PI futexes answer ENOSYS, which glibc reports as "not supported" for priority-inheriting mutexes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use quicksand_abi::task::RobustListHead;
use quicksand_abi::{Errno, Timespec, UserAddr};

use super::CurrentTask;
use crate::mm::MemoryManager;
use crate::mm::maps::FutexKey as Key;
use crate::sync::{Level, Mutex, MutexGuard, Waiter};
use crate::syscalls::{Blocked, OnSignal, Resume, SyscallResult, WakeReason};
use crate::time::Monotonic;

const BUCKETS: usize = 256;

const PRIVATE: u32 = 128;
const CLOCK_REALTIME: u32 = 256;
const MATCH_ANY: u32 = u32::MAX;

const WAITERS: u32 = 0x8000_0000;
const OWNER_DIED: u32 = 0x4000_0000;
const TID_MASK: u32 = 0x3fff_ffff;
/// ROBUST_LIST_LIMIT.
const ROBUST_LIMIT: usize = 2048;

/// A task that waits, as its wakers see it.
#[derive(Debug)]
pub(crate) struct FutexWaiter {
    bitset: u32,
    waiter: Arc<Waiter>,
    /// Where it is queued. Changes under the locks of both buckets.
    bucket: AtomicUsize,
    /// Set when it was taken out of its bucket to be woken.
    woken: AtomicBool,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    waiter: Arc<FutexWaiter>,
}

type Bucket = Vec<Entry>;

/// All futexes of a sandbox.
pub struct FutexTable {
    buckets: Box<[Mutex<Bucket>]>,
}

impl Default for FutexTable {
    fn default() -> FutexTable {
        FutexTable { buckets: (0..BUCKETS).map(|_| Mutex::new(Level::Futex, Vec::new())).collect() }
    }
}

impl fmt::Debug for FutexTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FutexTable")
    }
}

fn index_of(key: &Key) -> usize {
    let mut hasher = std::hash::DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() as usize % BUCKETS
}

impl FutexWaiter {
    fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.waiter.unpark();
    }
}

impl FutexTable {
    fn lock(&self, index: usize) -> MutexGuard<'_, Bucket> {
        self.buckets[index].lock()
    }

    /// Wakes up to `count` waiters of `key` that wait for a bit of `bitset`.
    fn wake(&self, key: &Key, count: i32, bitset: u32) -> usize {
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
    fn remove(&self, waiter: &Arc<FutexWaiter>) -> bool {
        loop {
            let index = waiter.bucket.load(Ordering::SeqCst);
            let mut bucket = self.lock(index);
            if waiter.bucket.load(Ordering::SeqCst) != index {
                continue;
            }
            let found = bucket.iter().position(|e| Arc::ptr_eq(&e.waiter, waiter));
            return found.map(|i| bucket.remove(i)).is_some();
        }
    }
}

/// As Linux, wakes one even where `count` is not positive.
fn wake_in(bucket: &mut Bucket, key: &Key, count: i32, bitset: u32) -> usize {
    let limit = count.max(1) as usize;
    let mut woken = 0;
    let mut i = 0;
    while i < bucket.len() && woken < limit {
        if bucket[i].key == *key && bucket[i].waiter.bitset & bitset != 0 {
            bucket.remove(i).waiter.wake();
            woken += 1;
        } else {
            i += 1;
        }
    }
    woken
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
        libc::FUTEX_LOCK_PI
        | libc::FUTEX_UNLOCK_PI
        | libc::FUTEX_TRYLOCK_PI
        | libc::FUTEX_LOCK_PI2
        | libc::FUTEX_WAIT_REQUEUE_PI
        | libc::FUTEX_CMP_REQUEUE_PI => {
            task.kernel().log_unsupported("futex: priority inheritance", Errno::ENOSYS);
            Err(Errno::ENOSYS.into())
        }
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// What a timeout is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clock {
    Relative,
    Monotonic,
    Realtime,
}

fn deadline(task: &CurrentTask, timeout: UserAddr, clock: Clock) -> Result<Option<Monotonic>, Errno> {
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
        Resume::Futex { waiter: _, deadline } => return go_on_waiting(task, deadline),
        Resume::Deadline(deadline) => deadline,
        _ => deadline(task, timeout, clock)?,
    };
    if bitset == 0 {
        return Err(Errno::EINVAL.into());
    }
    let mm = task.mm();
    let key = mm.futex_key(addr, private)?;
    let index = index_of(&key);
    let waiter = Arc::new(FutexWaiter {
        bitset,
        waiter: task.waiter.clone(),
        bucket: AtomicUsize::new(index),
        woken: AtomicBool::new(false),
    });
    {
        let mut bucket = task.kernel().futexes.lock(index);
        if mm.load_u32(addr)? != val {
            return Err(Errno::EAGAIN.into());
        }
        bucket.push(Entry { key, waiter: waiter.clone() });
    }
    *task.futex.borrow_mut() = Some(waiter);
    Err(queued(deadline, OnSignal::CallAgain))
}

fn queued(deadline: Option<Monotonic>, on_signal: OnSignal) -> crate::syscalls::SyscallError {
    let resume = Resume::Futex { waiter: 0, deadline };
    Blocked::until(deadline).resume(resume).on_signal(on_signal).into()
}

/// A waiter that was queued is called again.
fn go_on_waiting(task: &CurrentTask, deadline: Option<Monotonic>) -> SyscallResult {
    let Some(waiter) = task.futex.borrow().clone() else { return Ok(0) };
    let reason = task.wake_reason();
    if !waiter.woken.load(Ordering::SeqCst) {
        if !matches!(reason, WakeReason::Timeout | WakeReason::Interrupted) {
            return Err(queued(deadline, OnSignal::CallAgain));
        }
        if task.kernel().futexes.remove(&waiter) {
            *task.futex.borrow_mut() = None;
            if reason == WakeReason::Timeout {
                return Err(Errno::ETIMEDOUT.into());
            }
            // Restarted from the start; with a timeout, the deadline stays what it was.
            let blocked = match deadline {
                None => Blocked::until(None).on_signal(OnSignal::Restart),
                Some(_) => Blocked::until(deadline)
                    .resume(Resume::Deadline(deadline))
                    .on_signal(OnSignal::RestartBlock),
            };
            return Err(blocked.into());
        }
    }
    *task.futex.borrow_mut() = None;
    Ok(0)
}

/// Before the task ends: nobody may wake it any more.
pub(crate) fn cancel_wait(task: &CurrentTask) {
    if let Some(waiter) = task.futex.take() {
        task.kernel().futexes.remove(&waiter);
    }
}

fn wake(task: &CurrentTask, addr: UserAddr, private: bool, count: i32, bitset: u32) -> SyscallResult {
    if bitset == 0 {
        return Err(Errno::EINVAL.into());
    }
    let key = task.mm().futex_key(addr, private)?;
    Ok(task.kernel().futexes.wake(&key, count, bitset))
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
        wake_in(first, &key, count, MATCH_ANY)
    };
    if passes {
        let second = if b <= a { &mut *low } else { high.as_deref_mut().unwrap_or(&mut nothing) };
        woken += wake_in(second, &key2, count2, MATCH_ANY);
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

/// `set_robust_list(2)`.
pub fn sys_set_robust_list(task: &CurrentTask, head: UserAddr, len: usize) -> SyscallResult {
    if len != size_of::<RobustListHead>() {
        return Err(Errno::EINVAL.into());
    }
    task.state.lock().robust_list = head;
    Ok(0)
}

/// `get_robust_list(2)`.
pub fn sys_get_robust_list(task: &CurrentTask, pid: i32, head: UserAddr, len: UserAddr) -> SyscallResult {
    let list = if pid == 0 {
        task.state.lock().robust_list
    } else {
        let other = task.pids().task(pid).ok_or(Errno::ESRCH)?;
        super::sched::check_same_user(task, &other)?;
        other.state.lock().robust_list
    };
    task.write_object(len, &(size_of::<RobustListHead>() as u64))?;
    task.write_object(head, &list.0)?;
    Ok(0)
}

/// `set_tid_address(2)`.
pub fn sys_set_tid_address(task: &CurrentTask, addr: UserAddr) -> SyscallResult {
    task.state.lock().clear_child_tid = addr;
    Ok(task.tid() as usize)
}

/// Keeps the promises made in user memory when a task leaves it (`mm_release`): the robust futexes it holds are marked,
/// and the word of CLONE_CHILD_CLEARTID is cleared. Memory that cannot be reached is passed over.
pub(super) fn release_on_exit(task: &CurrentTask) {
    let (robust, clear) = {
        let mut state = task.state.lock();
        (std::mem::take(&mut state.robust_list), std::mem::take(&mut state.clear_child_tid))
    };
    if !robust.is_null() {
        let _ = walk_robust_list(task, robust);
    }
    // Nobody is there to wait in memory that goes with its only task.
    if !clear.is_null() && task.shares_mm() && task.write_object(clear, &0_u32).is_ok() {
        let _ = wake(task, clear, false, 1, MATCH_ANY);
    }
}

fn walk_robust_list(task: &CurrentTask, at: UserAddr) -> Result<(), Errno> {
    let head: RobustListHead = task.read_object(at)?;
    let word_of = |entry: u64| UserAddr((entry & !1).wrapping_add_signed(head.futex_offset));
    let mut entry = head.list;
    let mut broken = Ok(());
    for _ in 0..ROBUST_LIMIT {
        if entry & !1 == at.0 {
            break;
        }
        // Read before the futex is given away: its new owner may unlink it.
        let next = task.read_object::<u64>(UserAddr(entry & !1));
        if entry & !1 != head.list_op_pending & !1
            && let Err(e) = owner_died(task, word_of(entry), entry & 1 != 0, false)
        {
            return Err(e);
        }
        match next {
            Ok(next) => entry = next,
            Err(e) => {
                broken = Err(e);
                break;
            }
        }
    }
    if head.list_op_pending & !1 != 0 {
        owner_died(task, word_of(head.list_op_pending), head.list_op_pending & 1 != 0, true)?;
    }
    broken
}

/// `handle_futex_death`.
fn owner_died(task: &CurrentTask, addr: UserAddr, pi: bool, pending: bool) -> Result<(), Errno> {
    if !addr.0.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let mm = task.mm();
    let mut word = mm.load_u32(addr)?;
    loop {
        if pending && !pi && word == 0 {
            let _ = wake(task, addr, false, 1, MATCH_ANY);
            return Ok(());
        }
        if word & TID_MASK != task.tid() as u32 {
            return Ok(());
        }
        let found = mm.compare_exchange_u32(addr, word, (word & WAITERS) | OWNER_DIED)?;
        if found == word {
            break;
        }
        word = found;
    }
    if !pi && word & WAITERS != 0 {
        let _ = wake(task, addr, false, 1, MATCH_ANY);
    }
    Ok(())
}
