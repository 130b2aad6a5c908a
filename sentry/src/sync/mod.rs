//! Locks with levels, wait queues, and work that waits for locks to be let go.

mod deferred;
pub mod lock;
pub mod wait;

pub use deferred::{defer, run_deferred};
pub use lock::{Level, Mutex, MutexGuard, RwLock};
pub use wait::{Events, Registration, WaitQueue, Waiter, Wake};
