//! Time: clocks, sleeping, interval timers, POSIX timers, timerfd.
//!
//! All waiting in the Sentry is against the sandbox's monotonic clock. It is the host's CLOCK_MONOTONIC plus an offset
//! that a restore sets so that the guest never sees it go back.

pub mod clock;

pub use clock::{Clocks, Monotonic, Realtime};
