//! Reading and setting clocks.

use quicksand_abi::time::Timezone;
use quicksand_abi::{Errno, Timespec, Timeval, UserAddr};

use super::ClockId;
use super::timer::TimerClock;
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;

pub use super::itimer::{sys_alarm, sys_getitimer, sys_setitimer};
pub use super::posix::{
    sys_timer_create, sys_timer_delete, sys_timer_getoverrun, sys_timer_gettime, sys_timer_settime,
};
pub use super::sleep::{sys_clock_nanosleep, sys_nanosleep};

/// `clock_gettime(2)`
pub fn sys_clock_gettime(task: &CurrentTask, clock: i32, time: UserAddr) -> SyscallResult {
    let now = ClockId::from_raw(clock)?.now_ns(task)?;
    task.write_object(time, &Timespec::from_nanos(now))?;
    Ok(0)
}

/// `clock_getres(2)`
pub fn sys_clock_getres(task: &CurrentTask, clock: i32, resolution: UserAddr) -> SyscallResult {
    let ns = ClockId::from_raw(clock)?.resolution_ns(task)?;
    if !resolution.is_null() {
        task.write_object(resolution, &Timespec::from_nanos(ns))?;
    }
    Ok(0)
}

/// `clock_settime(2)`: the clock is the host's, and nobody inside may set it, whatever capabilities it has.
pub fn sys_clock_settime(task: &CurrentTask, clock: i32, time: UserAddr) -> SyscallResult {
    let clock = ClockId::from_raw(clock)?;
    // The kernel looks at whether the clock can be set at all first, and processor clocks say EPERM for themselves.
    let settable = match clock {
        ClockId::Timer(TimerClock::Realtime) | ClockId::Cpu(_) => true,
        ClockId::Timer(_)
        | ClockId::MonotonicRaw
        | ClockId::RealtimeCoarse
        | ClockId::MonotonicCoarse
        | ClockId::Alarm => false,
    };
    if !settable {
        return Err(Errno::EINVAL.into());
    }
    let time: Timespec = task.read_object(time)?;
    if !time.is_valid() {
        return Err(Errno::EINVAL.into());
    }
    Err(Errno::EPERM.into())
}

/// `gettimeofday(2)`
pub fn sys_gettimeofday(task: &CurrentTask, time: UserAddr, zone: UserAddr) -> SyscallResult {
    if !time.is_null() {
        let now = task.kernel().clocks.realtime();
        task.write_object(time, &Timeval::from_ns(now.0))?;
    }
    if !zone.is_null() {
        task.write_object(zone, &Timezone::default())?;
    }
    Ok(0)
}

/// `settimeofday(2)`: as [`sys_clock_settime`].
pub fn sys_settimeofday(task: &CurrentTask, time: UserAddr, zone: UserAddr) -> SyscallResult {
    if !time.is_null() {
        let time: Timeval = task.read_object(time)?;
        if !time.is_valid() {
            return Err(Errno::EINVAL.into());
        }
    }
    if !zone.is_null() {
        let _: Timezone = task.read_object(zone)?;
    }
    Err(Errno::EPERM.into())
}

/// `time(2)`
pub fn sys_time(task: &CurrentTask, out: UserAddr) -> SyscallResult {
    let seconds = task.kernel().clocks.realtime().0.div_euclid(1_000_000_000);
    if !out.is_null() {
        task.write_object(out, &seconds)?;
    }
    Ok(seconds as usize)
}
