//! Times: `timespec`, `timeval`, `itimerspec`, `itimerval`.

use std::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Errno;

/// `struct __kernel_timespec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timespec {
    pub sec: i64,
    pub nsec: i64,
}

impl Timespec {
    pub fn from_duration(d: Duration) -> Timespec {
        Timespec { sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nsec: i64::from(d.subsec_nanos()) }
    }
    pub fn from_nanos(ns: i64) -> Timespec {
        Timespec { sec: ns.div_euclid(1_000_000_000), nsec: ns.rem_euclid(1_000_000_000) }
    }
    pub const ZERO: Timespec = Timespec { sec: 0, nsec: 0 };

    pub fn is_zero(self) -> bool {
        self == Timespec::ZERO
    }
    /// `timespec64_valid`: not negative, nanoseconds in range.
    pub fn is_valid(self) -> bool {
        self.sec >= 0 && (0..1_000_000_000).contains(&self.nsec)
    }
    /// As nanoseconds, saturating at about 292 years as the kernel's `ktime_t` does. The time is valid.
    pub fn to_ns(self) -> i64 {
        self.sec.saturating_mul(1_000_000_000).saturating_add(self.nsec)
    }
    /// As a span of time: EINVAL where it is negative or its nanoseconds are no fraction of a second.
    pub fn to_duration(self) -> Result<Duration, Errno> {
        match (u64::try_from(self.sec), u32::try_from(self.nsec)) {
            (Ok(sec), Ok(nsec)) if nsec < 1_000_000_000 => Ok(Duration::new(sec, nsec)),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// `struct timeval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timeval {
    pub sec: i64,
    pub usec: i64,
}

impl Timeval {
    pub fn from_duration(d: Duration) -> Timeval {
        Timeval { sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), usec: i64::from(d.subsec_micros()) }
    }
    /// Rounds down.
    pub fn from_ns(ns: i64) -> Timeval {
        let t = Timespec::from_nanos(ns);
        Timeval { sec: t.sec, usec: t.nsec / 1000 }
    }
    /// Not negative, microseconds in range.
    pub fn is_valid(self) -> bool {
        self.sec >= 0 && (0..1_000_000).contains(&self.usec)
    }
    /// As nanoseconds, saturating. The time is valid.
    pub fn to_ns(self) -> i64 {
        self.sec.saturating_mul(1_000_000_000).saturating_add(self.usec.saturating_mul(1000))
    }
    /// As a span of time: EINVAL where it is negative or its microseconds are no fraction of a second.
    pub fn to_duration(self) -> Result<Duration, Errno> {
        match (u64::try_from(self.sec), u32::try_from(self.usec)) {
            (Ok(sec), Ok(usec)) if usec < 1_000_000 => Ok(Duration::new(sec, usec * 1000)),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// `struct itimerspec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Itimerspec {
    pub interval: Timespec,
    pub value: Timespec,
}

/// `struct itimerval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Itimerval {
    pub interval: Timeval,
    pub value: Timeval,
}

/// `struct timezone`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timezone {
    pub minutes_west: i32,
    pub dst_time: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_go_there_and_back() {
        assert_eq!(Timespec::from_nanos(-1), Timespec { sec: -1, nsec: 999_999_999 });
        assert_eq!(Timespec { sec: i64::MAX, nsec: 0 }.to_ns(), i64::MAX);
        assert_eq!(Timeval::from_ns(1_999_999), Timeval { sec: 0, usec: 1999 });
        assert!(!Timespec { sec: 0, nsec: 1_000_000_000 }.is_valid());
    }
}
