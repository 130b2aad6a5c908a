//! What a timer is, as data: the clock it counts on, its next expiry, its interval. Shared by timerfds, interval timers and
//! POSIX timers.

use quicksand_abi::Errno;
use quicksand_abi::time::{Itimerspec, Timespec};

use super::{Clocks, Monotonic};

/// The clocks on which timers count, apart from processor time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerClock {
    Realtime,
    Monotonic,
    Boottime,
    Tai,
}

impl TimerClock {
    /// What the clock reads, in nanoseconds.
    pub fn now_ns(self, clocks: &Clocks) -> i64 {
        match self {
            TimerClock::Realtime => clocks.realtime().0,
            TimerClock::Monotonic => i64::try_from(clocks.monotonic().0).unwrap_or(i64::MAX),
            TimerClock::Boottime => clocks.boottime_ns(),
            TimerClock::Tai => clocks.tai_ns(),
        }
    }
    /// The monotonic time at which this clock will read `at_ns`, unless somebody sets it.
    pub fn to_monotonic(self, clocks: &Clocks, at_ns: i64) -> Monotonic {
        let left = u64::try_from(at_ns.saturating_sub(self.now_ns(clocks))).unwrap_or(0);
        Monotonic(clocks.monotonic().0.saturating_add(left))
    }
}

/// An armed or disarmed timer, in nanoseconds of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Schedule {
    /// The next expiry, absolute. `None` when disarmed.
    pub next_ns: Option<i64>,
    /// 0 for a timer that runs out once.
    pub interval_ns: i64,
}

impl Schedule {
    /// From a valid `itimerspec`, at a time `now_ns` of the clock.
    pub fn from_spec(spec: &Itimerspec, absolute: bool, now_ns: i64) -> Schedule {
        if spec.value.is_zero() {
            return Schedule { next_ns: None, interval_ns: spec.interval.to_ns() };
        }
        let value = spec.value.to_ns();
        let next = if absolute { value } else { now_ns.saturating_add(value) };
        Schedule { next_ns: Some(next), interval_ns: spec.interval.to_ns() }
    }

    /// How often it has run out by `now_ns` since it was last asked; moves on to the next expiry. A timer without an
    /// interval is disarmed by its expiry.
    pub fn advance(&mut self, now_ns: i64) -> u64 {
        let Some(next) = self.next_ns else { return 0 };
        if now_ns < next {
            return 0;
        }
        if self.interval_ns <= 0 {
            self.next_ns = None;
            return 1;
        }
        let times = (now_ns.saturating_sub(next) / self.interval_ns).saturating_add(1);
        self.next_ns = Some(next.saturating_add(times.saturating_mul(self.interval_ns)));
        times as u64
    }

    /// Whether an expiry has come that [`Schedule::advance`] has not counted.
    pub fn is_due(&self, now_ns: i64) -> bool {
        self.next_ns.is_some_and(|next| next <= now_ns)
    }

    /// Time to the next expiry: zero when disarmed, at least a nanosecond when armed.
    pub fn left(&self, now_ns: i64) -> Timespec {
        match self.next_ns {
            None => Timespec::ZERO,
            Some(next) => Timespec::from_nanos(next.saturating_sub(now_ns).max(1)),
        }
    }
}

/// EINVAL where one of the times is not a valid `timespec`.
pub fn check_spec(spec: &Itimerspec) -> Result<(), Errno> {
    if spec.value.is_valid() && spec.interval.is_valid() { Ok(()) } else { Err(Errno::EINVAL) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_timer_counts_what_it_missed() {
        let mut s = Schedule { next_ns: Some(100), interval_ns: 10 };
        assert_eq!(s.advance(99), 0);
        assert_eq!(s.advance(100), 1);
        assert_eq!(s.advance(135), 3);
        assert_eq!(s.next_ns, Some(140));
        assert_eq!(s.left(135).nsec, 5);
        let mut once = Schedule { next_ns: Some(100), interval_ns: 0 };
        assert_eq!(once.advance(1000), 1);
        assert_eq!(once, Schedule::default());
        let mut far = Schedule { next_ns: Some(i64::MIN), interval_ns: 1 };
        far.advance(i64::MAX);
    }
}
