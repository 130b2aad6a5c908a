//! Time: clocks, sleeping, interval timers, POSIX timers, timerfd.
//!
//! All waiting in the Sentry is against the sandbox's monotonic clock. It is the host's CLOCK_MONOTONIC plus an offset
//! that a restore sets so that the guest never sees it go back.

pub mod clock;
mod clock_id;
mod cpu;
pub mod group;
mod itimer;
mod posix;
mod saved;
pub mod service;
mod sleep;
pub mod syscalls;
pub mod timekeeper;
pub mod timer;

pub use clock::{Clocks, Monotonic, Realtime};
pub use clock_id::ClockId;
pub use group::GroupTimers;
pub(crate) use saved::{SavedPosix, SavedTimers};
pub use service::TimerService;
