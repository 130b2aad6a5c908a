//! Processor-time clocks.

use std::sync::Arc;

use quicksand_abi::{Errno, Timespec, UserAddr};

use super::clock_id::{CpuClockId, CpuKind};
use super::sleep::read_span;
use crate::syscalls::{Blocked, OnSignal, Resume, SyscallResult, WakeReason};
use crate::task::{CpuTimes, CurrentTask, ThreadGroup};

/// How often a sleeper on a process's clock looks at it, at the least: that clock gives no notice.
const LOOK_NS: u64 = 1_000_000;

/// What the clock reads. EINVAL where there is no such process or thread; another process's thread is not told.
pub(super) fn now_ns(task: &CurrentTask, clock: CpuClockId) -> Result<i64, Errno> {
    let clock = resolve(task, clock)?;
    group_now_ns(task.group(), clock).ok_or(Errno::EINVAL)
}

/// Puts the caller's own number in the place of 0, and checks that the clock exists.
pub(super) fn resolve(task: &CurrentTask, clock: CpuClockId) -> Result<CpuClockId, Errno> {
    let pid = match (clock.pid, clock.per_thread) {
        (0, true) => task.tid(),
        (0, false) => task.group().pid(),
        (pid, _) => pid,
    };
    let clock = CpuClockId { pid, ..clock };
    group_now_ns(task.group(), clock).map(|_| clock).ok_or(Errno::EINVAL)
}

/// What a clock with its number filled in reads, seen from a process.
pub(super) fn group_now_ns(group: &Arc<ThreadGroup>, clock: CpuClockId) -> Option<i64> {
    let times = if clock.per_thread {
        let tasks = group.tasks();
        tasks.iter().find(|t| t.tid() == clock.pid)?.cpu.times()
    } else if clock.pid == group.pid() {
        group.cpu_times()
    } else {
        group.pids().group(clock.pid)?.cpu_times()
    };
    Some(part_ns(&times, clock.kind))
}

/// The part of the times that a clock tells.
pub(super) fn part_ns(times: &CpuTimes, kind: CpuKind) -> i64 {
    let part = match kind {
        CpuKind::Virtual => times.user,
        CpuKind::Prof | CpuKind::Sched => times.total(),
    };
    i64::try_from(part.as_nanos()).unwrap_or(i64::MAX)
}

/// `clock_nanosleep(2)` on a process's clock.
pub(super) fn nanosleep(
    task: &CurrentTask,
    clock: CpuClockId,
    absolute: bool,
    request: UserAddr,
    remaining: UserAddr,
) -> SyscallResult {
    let resume = task.take_resume();
    let now = now_ns(task, clock)?;
    let until = match resume {
        Resume::CpuSleep { until_ns } => until_ns,
        _ => {
            let span = read_span(task, request)?;
            if absolute { span } else { now.saturating_add(span) }
        }
    };
    if now >= until {
        return Ok(0);
    }
    let left = until - now;
    // Several threads may use the time at once, so it can come sooner than `left`; looking a bit later does no harm.
    let pause = u64::try_from(left).unwrap_or(LOOK_NS).clamp(LOOK_NS, 100 * LOOK_NS);
    let next_look = super::Monotonic(task.kernel().clocks.monotonic().0.saturating_add(pause));
    let blocked = Blocked::until(Some(next_look)).resume(Resume::CpuSleep { until_ns: until });
    if absolute {
        return Err(blocked.on_signal(OnSignal::RestartNoHandler).into());
    }
    if task.wake_reason() != WakeReason::Interrupted {
        return Err(blocked.on_signal(OnSignal::CallAgain).into());
    }
    if !remaining.is_null() {
        task.write_object(remaining, &Timespec::from_nanos(left))?;
    }
    Err(blocked.on_signal(OnSignal::RestartBlock).into())
}
