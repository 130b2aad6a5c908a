//! The sandbox's clocks, as values.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

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

/// Reads the clocks. Offsets are applied to the host's; they are zero until a restore sets them.
#[derive(Debug, Default)]
pub struct Clocks {
    monotonic_offset_ns: AtomicI64,
    realtime_offset_ns: AtomicI64,
}

impl Clocks {
    pub fn monotonic(&self) -> Monotonic {
        let host = host_ns(rustix::time::ClockId::Monotonic);
        Monotonic(host.saturating_add(self.monotonic_offset_ns.load(Ordering::Relaxed)).max(0) as u64)
    }
    pub fn realtime(&self) -> Realtime {
        let host = host_ns(rustix::time::ClockId::Realtime);
        Realtime(host.saturating_add(self.realtime_offset_ns.load(Ordering::Relaxed)))
    }
    /// CLOCK_MONOTONIC_RAW: shifted as the monotonic clock is.
    pub fn monotonic_raw_ns(&self) -> i64 {
        self.shifted(rustix::time::ClockId::MonotonicRaw, &self.monotonic_offset_ns)
    }
    /// CLOCK_MONOTONIC_COARSE.
    pub fn monotonic_coarse_ns(&self) -> i64 {
        self.shifted(rustix::time::ClockId::MonotonicCoarse, &self.monotonic_offset_ns)
    }
    /// CLOCK_REALTIME_COARSE.
    pub fn realtime_coarse_ns(&self) -> i64 {
        self.shifted(rustix::time::ClockId::RealtimeCoarse, &self.realtime_offset_ns)
    }
    /// CLOCK_BOOTTIME: shifted as the monotonic clock is, so that it is never behind it.
    pub fn boottime_ns(&self) -> i64 {
        self.shifted(rustix::time::ClockId::Boottime, &self.monotonic_offset_ns)
    }
    /// CLOCK_TAI.
    pub fn tai_ns(&self) -> i64 {
        let offset = self.realtime_offset_ns.load(Ordering::Relaxed);
        match rustix::time::clock_gettime_dynamic(rustix::time::DynamicClockId::Tai) {
            Ok(t) => t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec).saturating_add(offset),
            // Every kernel since 3.10 has it; without leap seconds it is the real time.
            Err(_) => self.realtime().0,
        }
    }
    fn shifted(&self, clock: rustix::time::ClockId, offset: &AtomicI64) -> i64 {
        host_ns(clock).saturating_add(offset.load(Ordering::Relaxed))
    }
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC now, in nanoseconds.
    pub fn monotonic_to_realtime_ns(&self) -> i64 {
        self.realtime().0.saturating_sub(self.monotonic().0 as i64)
    }
    /// The host instant at which the monotonic clock reads `at`; `None` when that is too far for the host to say.
    pub fn instant(&self, at: Monotonic) -> Option<Instant> {
        Instant::now().checked_add(at.saturating_since(self.monotonic()))
    }
    /// For a restore: shifts the monotonic clock.
    pub fn set_monotonic_offset_ns(&self, ns: i64) {
        self.monotonic_offset_ns.store(ns, Ordering::Relaxed);
    }
}

fn host_ns(clock: rustix::time::ClockId) -> i64 {
    let t = rustix::time::clock_gettime(clock);
    t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec)
}
