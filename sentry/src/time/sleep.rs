//! `nanosleep(2)` and `clock_nanosleep(2)`.
//!
//! A sleep is a `Blocked` with nothing to wait for but its deadline. A relative sleep that a signal interrupts is called once
//! more to write back what is left, and goes on (through `restart_syscall`) when no handler ran.

use std::time::Duration;

use quicksand_abi::{Errno, Timespec, UserAddr};

use super::timer::TimerClock;
use super::{ClockId, Monotonic};
use crate::syscalls::{Blocked, OnSignal, Resume, SyscallResult, WakeReason};
use crate::task::CurrentTask;

const TIMER_ABSTIME: u32 = 1;

/// `nanosleep(2)`: against the monotonic clock.
pub fn sys_nanosleep(task: &CurrentTask, request: UserAddr, remaining: UserAddr) -> SyscallResult {
    let deadline = first_deadline(task, || {
        let span = read_span(task, request)?;
        Ok(add(task.kernel().clocks.monotonic(), span))
    })?;
    sleep_until(task, deadline, OnInterrupt::WriteLeft(remaining))
}

/// `clock_nanosleep(2)`
pub fn sys_clock_nanosleep(
    task: &CurrentTask,
    clock: i32,
    flags: u32,
    request: UserAddr,
    remaining: UserAddr,
) -> SyscallResult {
    let absolute = flags & TIMER_ABSTIME != 0;
    let clock = match ClockId::from_raw(clock)? {
        ClockId::Timer(clock) => clock,
        ClockId::Cpu(cpu) if !cpu.per_thread => {
            return super::cpu::nanosleep(task, cpu, absolute, request, remaining);
        }
        _ => return Err(Errno::EOPNOTSUPP.into()),
    };
    let deadline = first_deadline(task, || {
        let span = read_span(task, request)?;
        let clocks = &task.kernel().clocks;
        if absolute {
            return Ok(clock.to_monotonic(clocks, span));
        }
        Ok(add(clocks.monotonic(), span))
    })?;
    if absolute {
        // The host's clock may have been set in the meantime: the deadline is worked out again at each look.
        let deadline = match clock {
            TimerClock::Monotonic => deadline,
            _ => {
                read_span(task, request).map_or(deadline, |at| clock.to_monotonic(&task.kernel().clocks, at))
            }
        };
        return sleep_until(task, deadline, OnInterrupt::Restart);
    }
    sleep_until(task, deadline, OnInterrupt::WriteLeft(remaining))
}

/// A valid time, in nanoseconds.
pub(super) fn read_span(task: &CurrentTask, addr: UserAddr) -> Result<i64, Errno> {
    let time: Timespec = task.read_object(addr)?;
    if !time.is_valid() {
        return Err(Errno::EINVAL);
    }
    Ok(time.to_ns())
}

/// The deadline of an earlier try, or a new one.
fn first_deadline(
    task: &CurrentTask,
    new: impl FnOnce() -> Result<Monotonic, Errno>,
) -> Result<Monotonic, Errno> {
    match task.take_resume() {
        Resume::Deadline(Some(at)) => Ok(at),
        _ => new(),
    }
}

fn add(now: Monotonic, ns: i64) -> Monotonic {
    now.saturating_add(Duration::from_nanos(u64::try_from(ns).unwrap_or(0)))
}

/// What an interrupted sleep does.
enum OnInterrupt {
    /// The call starts over with its own arguments, which name a point in time.
    Restart,
    /// What is left is written here, where that is not null, and the sleep goes on.
    WriteLeft(UserAddr),
}

fn sleep_until(task: &CurrentTask, deadline: Monotonic, on_interrupt: OnInterrupt) -> SyscallResult {
    let now = task.kernel().clocks.monotonic();
    if now >= deadline {
        return Ok(0);
    }
    let blocked = Blocked::until(Some(deadline)).resume(Resume::Deadline(Some(deadline)));
    let remaining = match on_interrupt {
        OnInterrupt::Restart => return Err(blocked.on_signal(OnSignal::RestartNoHandler).into()),
        OnInterrupt::WriteLeft(remaining) => remaining,
    };
    if task.wake_reason() != WakeReason::Interrupted {
        return Err(blocked.on_signal(OnSignal::CallAgain).into());
    }
    if !remaining.is_null() {
        let left = Timespec::from_duration(deadline.saturating_since(now));
        task.write_object(remaining, &left)?;
    }
    Err(blocked.on_signal(OnSignal::RestartBlock).into())
}
