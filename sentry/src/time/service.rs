//! The timer service: runs out timers that are not just a blocked task's deadline.
//!
//! One heap, ordered by the sandbox's monotonic clock, and one thread that starts with the first timer. The heap is derived
//! state: what a timer is (its clock, its absolute deadline, its interval) is plain data in the object that owns it, which
//! arms it here and decides, when told that time has come, what that means. So a checkpoint holds no heap, and a restore
//! arms anew.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use crate::kernel::Kernel;
use crate::sync::{Level, Mutex, Waiter};
use crate::time::Monotonic;

/// What a timer belongs to.
pub trait Expire: Send + Sync {
    /// A deadline that was armed has passed, perhaps not the latest one: the object looks at its own state. No lock is held.
    fn expire(self: Arc<Self>, kernel: &Arc<Kernel>);
}

/// A place in the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerKey {
    at: Monotonic,
    sequence: u64,
}

/// The timer service of a kernel.
pub struct TimerService {
    inner: Arc<Inner>,
}

struct Inner {
    heap: Mutex<Heap>,
    waiter: Waiter,
    stop: AtomicBool,
}

#[derive(Default)]
struct Heap {
    timers: BTreeMap<TimerKey, Weak<dyn Expire>>,
    next: u64,
    thread: Option<JoinHandle<()>>,
    /// The world is stopped: no thread is to be started.
    quiet: bool,
}

impl Default for TimerService {
    fn default() -> TimerService {
        let inner = Inner {
            heap: Mutex::new(Level::Timer, Heap::default()),
            waiter: Waiter::default(),
            stop: AtomicBool::new(false),
        };
        TimerService { inner: Arc::new(inner) }
    }
}

impl TimerService {
    /// Tells `target` when the monotonic clock reads `at`. The key is for [`TimerService::cancel`].
    pub fn arm(&self, kernel: &Arc<Kernel>, at: Monotonic, target: Weak<dyn Expire>) -> TimerKey {
        let mut heap = self.inner.heap.lock();
        let key = TimerKey { at, sequence: heap.next };
        heap.next += 1;
        heap.timers.insert(key, target);
        let first = heap.timers.first_key_value().is_some_and(|(k, _)| *k == key);
        if heap.thread.is_none() && !heap.quiet {
            self.start(kernel, &mut heap);
        } else if first {
            self.inner.waiter.unpark();
        }
        key
    }

    /// Forgets a timer. It may be running out at this very moment.
    pub fn cancel(&self, key: TimerKey) {
        let target = self.inner.heap.lock().timers.remove(&key);
        drop(target);
    }

    /// Ends the thread; timers stay, and run out after [`TimerService::resume`].
    pub fn quiesce(&self) {
        let thread = {
            let mut heap = self.inner.heap.lock();
            heap.quiet = true;
            heap.thread.take()
        };
        if let Some(thread) = thread {
            self.inner.stop.store(true, Ordering::SeqCst);
            self.inner.waiter.unpark();
            let _ = thread.join();
            self.inner.stop.store(false, Ordering::SeqCst);
        }
    }

    /// Starts the thread again where there are timers.
    pub fn resume(&self, kernel: &Arc<Kernel>) {
        let mut heap = self.inner.heap.lock();
        heap.quiet = false;
        if heap.thread.is_none() && !heap.timers.is_empty() {
            self.start(kernel, &mut heap);
        }
    }

    fn start(&self, kernel: &Arc<Kernel>, heap: &mut Heap) {
        let (inner, kernel) = (self.inner.clone(), Arc::downgrade(kernel));
        match std::thread::Builder::new().name("timers".into()).spawn(move || inner.run(&kernel)) {
            Ok(thread) => heap.thread = Some(thread),
            // The next timer tries again.
            Err(e) => tracing::error!("cannot start the timer thread: {e}"),
        }
    }
}

impl Drop for TimerService {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::SeqCst);
        self.inner.waiter.unpark();
    }
}

impl Inner {
    fn run(&self, kernel: &Weak<Kernel>) {
        while !self.stop.load(Ordering::SeqCst) {
            let deadline = {
                let Some(kernel) = kernel.upgrade() else { return };
                self.run_due(&kernel);
                let first = self.heap.lock().timers.first_key_value().map(|(key, _)| key.at);
                // A deadline that the host cannot name is too far away to matter.
                first.and_then(|at| kernel.clocks.instant(at))
            };
            self.waiter.park(deadline);
        }
    }

    fn run_due(&self, kernel: &Arc<Kernel>) {
        loop {
            let now = kernel.clocks.monotonic();
            let target = {
                let mut heap = self.heap.lock();
                match heap.timers.first_key_value() {
                    Some((key, _)) if key.at <= now => heap.timers.pop_first().map(|(_, target)| target),
                    _ => return,
                }
            };
            if let Some(target) = target.and_then(|t| t.upgrade()) {
                target.expire(kernel);
                crate::sync::run_deferred();
            }
        }
    }
}

impl fmt::Debug for TimerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimerService")
    }
}
