//! Locks with levels, and wait queues.

pub mod lock;
pub mod wait;

pub use lock::{Level, Mutex, MutexGuard, RwLock};
pub use wait::{Events, Registration, WaitQueue, Waiter, Wake};
