//! `setitimer(2)`, `getitimer(2)`, `alarm(2)`.

use quicksand_abi::time::Itimerval;
use quicksand_abi::{Errno, Timespec, Timeval, UserAddr};

use super::clock_id::CpuKind;
use super::cpu;
use super::timer::{Schedule, TimerClock};
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;

/// Which interval timer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Real,
    Virtual,
    Prof,
}

impl Which {
    fn from_raw(raw: i32) -> Result<Which, Errno> {
        match raw {
            0 => Ok(Which::Real),
            1 => Ok(Which::Virtual),
            2 => Ok(Which::Prof),
            _ => Err(Errno::EINVAL),
        }
    }
    fn now_ns(self, task: &CurrentTask) -> i64 {
        match self {
            Which::Real => TimerClock::Monotonic.now_ns(&task.kernel().clocks),
            Which::Virtual => cpu::part_ns(&task.group().cpu_times(), CpuKind::Virtual),
            Which::Prof => cpu::part_ns(&task.group().cpu_times(), CpuKind::Prof),
        }
    }
}

/// Reads a timer, and sets it where there is a new schedule.
fn access(task: &CurrentTask, which: Which, new: Option<(i64, i64)>) -> Itimerval {
    let now = which.now_ns(task);
    let old = {
        let mut state = task.group().timers.state.lock();
        let schedule = match which {
            Which::Real => &mut state.real,
            Which::Virtual => &mut state.user,
            Which::Prof => &mut state.prof,
        };
        let old = *schedule;
        if let Some((value, interval)) = new {
            let next_ns = (value > 0).then(|| now.saturating_add(value));
            *schedule = Schedule { next_ns, interval_ns: if value > 0 { interval } else { 0 } };
        }
        old
    };
    if new.is_some() {
        task.group().rearm_timers(task.kernel());
    }
    // An armed timer never shows zero.
    let left = match old.left(now) {
        Timespec { sec: 0, nsec: 1..1000 } => Timespec { sec: 0, nsec: 1000 },
        left => left,
    };
    Itimerval {
        interval: Timeval::from_ns(old.interval_ns),
        value: Timeval { sec: left.sec, usec: left.nsec / 1000 },
    }
}

/// `getitimer(2)`
pub fn sys_getitimer(task: &CurrentTask, which: i32, value: UserAddr) -> SyscallResult {
    let current = access(task, Which::from_raw(which)?, None);
    task.write_object(value, &current)?;
    Ok(0)
}

/// `setitimer(2)`: without a new value the timer is disarmed.
pub fn sys_setitimer(task: &CurrentTask, which: i32, new: UserAddr, old: UserAddr) -> SyscallResult {
    let spec = if new.is_null() { Itimerval::default() } else { task.read_object::<Itimerval>(new)? };
    if !spec.value.is_valid() || !spec.interval.is_valid() {
        return Err(Errno::EINVAL.into());
    }
    let which = Which::from_raw(which)?;
    let was = access(task, which, Some((spec.value.to_ns(), spec.interval.to_ns())));
    if !old.is_null() {
        task.write_object(old, &was)?;
    }
    Ok(0)
}

/// `alarm(2)`: returns the seconds that were left, rounded, but never an armed timer as zero.
pub fn sys_alarm(task: &CurrentTask, seconds: u32) -> SyscallResult {
    let value = i64::from(seconds.min(i32::MAX as u32)) * 1_000_000_000;
    let was = access(task, Which::Real, Some((value, 0))).value;
    let round_up = was.usec >= 500_000 || (was.sec == 0 && was.usec > 0);
    Ok((was.sec + i64::from(round_up)) as usize)
}
