//! The sandbox's clocks, as values.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use super::timekeeper::Timekeeper;

/// A point on the sandbox's CLOCK_MONOTONIC, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(pub u64);

/// A point on the sandbox's CLOCK_REALTIME: nanoseconds since 1970, negative before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Realtime(pub i64);

impl Monotonic {
    /// Saturates far in the future (584 years).
    pub fn saturating_add(self, d: Duration) -> Monotonic {
        Monotonic(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
    /// Zero where `earlier` is later.
    pub fn saturating_since(self, earlier: Monotonic) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Reads the clocks: by the [`Timekeeper`], so that system calls and the vDSO agree.
#[derive(Debug, Default)]
pub struct Clocks {
    pub keeper: Timekeeper,
    /// What the monotonic clock is shifted by from the host's; zero until a restore sets it.
    monotonic_offset_ns: AtomicI64,
}

impl Clocks {
    pub fn monotonic(&self) -> Monotonic {
        Monotonic(self.keeper.monotonic_ns())
    }
    pub fn realtime(&self) -> Realtime {
        Realtime(self.keeper.realtime_ns())
    }
    /// The host's real time: for what is made before there are clocks.
    pub fn host_realtime() -> Realtime {
        Realtime(host_ns(rustix::time::ClockId::Realtime))
    }
    /// CLOCK_MONOTONIC_RAW: shifted as the monotonic clock is.
    pub fn monotonic_raw_ns(&self) -> i64 {
        let host = host_ns(rustix::time::ClockId::MonotonicRaw);
        host.saturating_add(self.monotonic_offset_ns.load(Ordering::Relaxed))
    }
    /// CLOCK_MONOTONIC_COARSE.
    pub fn monotonic_coarse_ns(&self) -> i64 {
        self.keeper.monotonic_coarse_ns() as i64
    }
    /// CLOCK_REALTIME_COARSE.
    pub fn realtime_coarse_ns(&self) -> i64 {
        self.keeper.realtime_coarse_ns()
    }
    /// CLOCK_BOOTTIME: shifted as the monotonic clock is, so that it is never behind it.
    pub fn boottime_ns(&self) -> i64 {
        self.keeper.boottime_ns() as i64
    }
    /// CLOCK_TAI: whole seconds away from the real time.
    pub fn tai_ns(&self) -> i64 {
        let realtime = self.realtime().0;
        match rustix::time::clock_gettime_dynamic(rustix::time::DynamicClockId::Tai) {
            Ok(t) => {
                let tai = t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec);
                let apart = tai.saturating_sub(host_ns(rustix::time::ClockId::Realtime));
                let seconds = apart.saturating_add(500_000_000).div_euclid(1_000_000_000);
                realtime.saturating_add(seconds.saturating_mul(1_000_000_000))
            }
            // Every kernel since 3.10 has it; without leap seconds it is the real time.
            Err(_) => realtime,
        }
    }
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC now, in nanoseconds.
    pub fn monotonic_to_realtime_ns(&self) -> i64 {
        self.realtime().0.saturating_sub(self.monotonic().0 as i64)
    }
    /// The host instant at which the monotonic clock reads `at`; `None` when that is too far for the host to say. A
    /// little later than that, so that the clock has certainly passed `at` when somebody who slept until then looks.
    pub fn instant(&self, at: Monotonic) -> Option<Instant> {
        /// More than the timekeeper tolerates as its own error.
        const MARGIN: Duration = Duration::from_micros(2);
        Instant::now().checked_add(at.saturating_since(self.monotonic()))?.checked_add(MARGIN)
    }
    /// For a restore: shifts the monotonic clock.
    pub fn set_monotonic_offset_ns(&self, ns: i64) {
        self.monotonic_offset_ns.store(ns, Ordering::Relaxed);
        self.keeper.set_offset_ns(ns);
    }
}

fn host_ns(clock: rustix::time::ClockId) -> i64 {
    let t = rustix::time::clock_gettime(clock);
    t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec)
}
