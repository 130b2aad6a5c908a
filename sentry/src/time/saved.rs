//! A process's timers as data, for checkpoints.

use std::sync::Arc;

use quicksand_abi::Errno;

use super::clock_id::{CpuClockId, CpuKind};
use super::group::{GroupTimers, Notify, PosixClock, PosixTimer};
use super::timer::{Schedule, TimerClock};
use crate::kernel::Kernel;
use crate::task::ThreadGroup;

/// All timers of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct SavedTimers {
    /// ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.
    pub interval: [Schedule; 3],
    pub posix: Vec<SavedPosix>,
    /// The number that `timer_create(2)` tries next.
    pub next_id: i32,
}

/// A POSIX timer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SavedPosix {
    pub id: i32,
    /// As `timer_create(2)` takes it; with a number where it is a process's or a thread's.
    pub clock: i32,
    /// Signal, value, and the thread that gets it.
    pub notify: Option<(i32, u64, Option<i32>)>,
    pub schedule: Schedule,
    pub overrun: u64,
    pub last_overrun: i32,
}

impl SavedTimers {
    pub(crate) fn is_empty(&self) -> bool {
        self.interval.iter().all(|s| s.next_ns.is_none()) && self.posix.is_empty() && self.next_id == 0
    }
}

impl PosixClock {
    fn to_raw(self) -> i32 {
        match self {
            PosixClock::Wall(TimerClock::Realtime) => libc::CLOCK_REALTIME,
            PosixClock::Wall(TimerClock::Monotonic) => libc::CLOCK_MONOTONIC,
            PosixClock::Wall(TimerClock::Boottime) => libc::CLOCK_BOOTTIME,
            PosixClock::Wall(TimerClock::Tai) => libc::CLOCK_TAI,
            PosixClock::Cpu(CpuClockId { pid, per_thread, kind }) => {
                let kind = match kind {
                    CpuKind::Prof => 0,
                    CpuKind::Virtual => 1,
                    CpuKind::Sched => 2,
                };
                (!pid << 3) | i32::from(per_thread) << 2 | kind
            }
        }
    }

    fn from_raw(raw: i32) -> Result<PosixClock, Errno> {
        match super::clock_id::ClockId::from_raw(raw)? {
            super::clock_id::ClockId::Timer(clock) => Ok(PosixClock::Wall(clock)),
            super::clock_id::ClockId::Cpu(clock) if clock.pid > 0 => Ok(PosixClock::Cpu(clock)),
            _ => Err(Errno::EINVAL),
        }
    }
}

impl GroupTimers {
    pub(crate) fn saved(&self) -> SavedTimers {
        let state = self.state.lock();
        let posix = state.posix.iter().map(|(id, timer)| SavedPosix {
            id: *id,
            clock: timer.clock.to_raw(),
            notify: match timer.notify {
                Notify::Nothing => None,
                Notify::Signal { signal, value, tid } => Some((signal, value, tid)),
            },
            schedule: timer.schedule,
            overrun: timer.overrun,
            last_overrun: timer.last_overrun,
        });
        SavedTimers {
            interval: [state.real, state.user, state.prof],
            posix: posix.collect(),
            next_id: state.next_id,
        }
    }
}

impl ThreadGroup {
    /// For a restore: the timers of a process whose threads are there, but do not run. EINVAL where the data make no sense.
    pub(crate) fn restore_timers(
        self: &Arc<Self>,
        kernel: &Arc<Kernel>,
        saved: &SavedTimers,
    ) -> Result<(), Errno> {
        {
            let mut state = self.timers.state.lock();
            let positive = |s: Schedule| Schedule { interval_ns: s.interval_ns.max(0), ..s };
            [state.real, state.user, state.prof] = saved.interval.map(positive);
            state.next_id = saved.next_id.max(0);
            for timer in &saved.posix {
                let notify = match timer.notify {
                    None => Notify::Nothing,
                    Some((signal, value, tid)) if crate::signal::is_valid(signal) => {
                        Notify::Signal { signal, value, tid }
                    }
                    Some(_) => return Err(Errno::EINVAL),
                };
                let mut made = PosixTimer::new(PosixClock::from_raw(timer.clock)?, notify);
                made.schedule = positive(timer.schedule);
                made.overrun = timer.overrun;
                made.last_overrun = timer.last_overrun.max(0);
                if timer.id < 0 || state.posix.insert(timer.id, made).is_some() {
                    return Err(Errno::EINVAL);
                }
            }
        }
        self.rearm_timers(kernel);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_have_numbers() {
        for raw in [0, 1, 7, 11, (!7 << 3) | 1, (!9 << 3) | 6, !300 << 3] {
            assert_eq!(PosixClock::from_raw(raw).map(PosixClock::to_raw), Ok(raw));
        }
        // Nobody's, a coarse one, none.
        for raw in [-6, 6, 99] {
            assert_eq!(PosixClock::from_raw(raw), Err(Errno::EINVAL));
        }
    }
}
