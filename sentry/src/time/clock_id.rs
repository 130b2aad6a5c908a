//! Clock numbers, as system calls name them.

use quicksand_abi::Errno;
use rustix::time::ClockId as HostClock;

use super::timer::TimerClock;
use crate::task::CurrentTask;

/// Whose processor time a clock tells, and which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuClockId {
    /// 0 for the caller.
    pub pid: i32,
    pub per_thread: bool,
    pub kind: CpuKind,
}

/// `CPUCLOCK_PROF`, `CPUCLOCK_VIRT`, `CPUCLOCK_SCHED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuKind {
    /// User and system time.
    Prof,
    /// User time.
    Virtual,
    /// What the scheduler counted.
    Sched,
}

/// A clock that `clock_gettime(2)` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockId {
    /// One that timers can count on.
    Timer(TimerClock),
    MonotonicRaw,
    RealtimeCoarse,
    MonotonicCoarse,
    /// CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM: there is no device that would wake the machine.
    Alarm,
    Cpu(CpuClockId),
}

impl ClockId {
    /// EINVAL where there is no such clock. Negative numbers hold a process or thread id, or a descriptor (PTP clocks,
    /// which a sandbox has none of).
    pub fn from_raw(raw: i32) -> Result<ClockId, Errno> {
        let own = |per_thread| Ok(ClockId::Cpu(CpuClockId { pid: 0, per_thread, kind: CpuKind::Sched }));
        match raw {
            libc::CLOCK_REALTIME => Ok(ClockId::Timer(TimerClock::Realtime)),
            libc::CLOCK_MONOTONIC => Ok(ClockId::Timer(TimerClock::Monotonic)),
            libc::CLOCK_PROCESS_CPUTIME_ID => own(false),
            libc::CLOCK_THREAD_CPUTIME_ID => own(true),
            libc::CLOCK_MONOTONIC_RAW => Ok(ClockId::MonotonicRaw),
            libc::CLOCK_REALTIME_COARSE => Ok(ClockId::RealtimeCoarse),
            libc::CLOCK_MONOTONIC_COARSE => Ok(ClockId::MonotonicCoarse),
            libc::CLOCK_BOOTTIME => Ok(ClockId::Timer(TimerClock::Boottime)),
            libc::CLOCK_REALTIME_ALARM | libc::CLOCK_BOOTTIME_ALARM => Ok(ClockId::Alarm),
            libc::CLOCK_TAI => Ok(ClockId::Timer(TimerClock::Tai)),
            _ if raw >= 0 => Err(Errno::EINVAL),
            _ => {
                let kind = match raw & 3 {
                    0 => CpuKind::Prof,
                    1 => CpuKind::Virtual,
                    2 => CpuKind::Sched,
                    _ => return Err(Errno::EINVAL),
                };
                Ok(ClockId::Cpu(CpuClockId { pid: !(raw >> 3), per_thread: raw & 4 != 0, kind }))
            }
        }
    }

    /// What it reads now. EINVAL where the process does not exist, or is none of the caller's business.
    pub fn now_ns(self, task: &CurrentTask) -> Result<i64, Errno> {
        let clocks = &task.kernel().clocks;
        Ok(match self {
            ClockId::Timer(clock) => clock.now_ns(clocks),
            ClockId::MonotonicRaw => clocks.monotonic_raw_ns(),
            ClockId::RealtimeCoarse => clocks.realtime_coarse_ns(),
            ClockId::MonotonicCoarse => clocks.monotonic_coarse_ns(),
            ClockId::Alarm => return Err(Errno::EINVAL),
            ClockId::Cpu(cpu) => super::cpu::now_ns(task, cpu)?,
        })
    }

    /// `clock_getres(2)`: coarse clocks tick as the host's do, all others are as fine as they can be.
    pub fn resolution_ns(self, task: &CurrentTask) -> Result<i64, Errno> {
        match self {
            ClockId::Alarm => Err(Errno::EINVAL),
            ClockId::RealtimeCoarse | ClockId::MonotonicCoarse => {
                let host = rustix::time::clock_getres(HostClock::MonotonicCoarse);
                Ok(host.tv_sec.saturating_mul(1_000_000_000).saturating_add(host.tv_nsec))
            }
            ClockId::Cpu(cpu) => super::cpu::now_ns(task, cpu).map(|_| 1),
            _ => Ok(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_numbers_name_processor_clocks() {
        let cpu = |pid, per_thread, kind| Ok(ClockId::Cpu(CpuClockId { pid, per_thread, kind }));
        assert_eq!(ClockId::from_raw(-6), cpu(0, false, CpuKind::Sched));
        assert_eq!(ClockId::from_raw(-2), cpu(0, true, CpuKind::Sched));
        assert_eq!(ClockId::from_raw((!7 << 3) | 1), cpu(7, false, CpuKind::Virtual));
        assert_eq!(ClockId::from_raw(-5), Err(Errno::EINVAL));
        assert_eq!(ClockId::from_raw(10), Err(Errno::EINVAL));
        assert_eq!(ClockId::from_raw(99), Err(Errno::EINVAL));
    }
}
