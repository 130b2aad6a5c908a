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
