//! Wait queues: how a blocked task learns that something changed.
//!
//! An object that can be waited for owns an `Arc<WaitQueue>` and calls [`WaitQueue::notify`] *after* it has changed its
//! state and dropped its own lock (or with that lock held: levels allow both). A task registers its [`Waiter`] on
//! every queue it waits for, tries its handler once more, and only then parks: a notification in between leaves the
//! waiter's flag set, so none is lost. `epoll` registers a [`Wake`] of its own.
//!
//! Nothing here is part of a checkpoint: a restored task calls its handler again, which says anew what it waits for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::lock::{Level, Mutex};

bitflags::bitflags! {
    /// Readiness, in the bits of `poll(2)` and `epoll(7)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Events: u32 {
        const IN = 0x001;
        const PRI = 0x002;
        const OUT = 0x004;
        const ERR = 0x008;
        const HUP = 0x010;
        const NVAL = 0x020;
        const RDNORM = 0x040;
        const RDBAND = 0x080;
        const WRNORM = 0x100;
        const WRBAND = 0x200;
        const MSG = 0x400;
        const RDHUP = 0x2000;
        const READABLE = 0x001 | 0x040;
        const WRITABLE = 0x004 | 0x100;
    }
}

/// Something that can be woken: a parked task, or an epoll instance's interest in a file.
pub trait Wake: Send + Sync {
    /// Called with the queue locked: must only take locks of level `Waiter` (epoll: `Leaf` comes before, so it keeps its
    /// ready list under `Waiter` level), and must not block.
    fn wake(&self, events: Events);
}

struct Entry {
    id: u64,
    events: Events,
    wake: Arc<dyn Wake>,
}

/// Those waiting for one object.
pub struct WaitQueue {
    entries: Mutex<Vec<Entry>>,
    /// Spares the lock on the common path where nobody waits.
    occupied: AtomicBool,
    next_id: AtomicU64,
}

impl Default for WaitQueue {
    fn default() -> WaitQueue {
        WaitQueue {
            entries: Mutex::new(Level::WaitQueue, Vec::new()),
            occupied: AtomicBool::new(false),
            next_id: AtomicU64::new(0),
        }
    }
}

impl WaitQueue {
    pub fn new() -> Arc<WaitQueue> {
        Arc::new(WaitQueue::default())
    }

    /// Registers interest in `events` (ERR and HUP always count) until the registration is dropped.
    pub fn register(self: &Arc<Self>, events: Events, wake: Arc<dyn Wake>) -> Registration {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut entries = self.entries.lock();
        entries.push(Entry { id, events: events | Events::ERR | Events::HUP, wake });
        self.occupied.store(true, Ordering::SeqCst);
        Registration { queue: self.clone(), id }
    }

    /// Wakes everybody who waits for any of `events`.
    pub fn notify(&self, events: Events) {
        // The notifier changed the object's state before this load, and a waiter looks at the state after its store in
        // `register`: with both sequentially consistent, at least one of the two sees the other.
        std::sync::atomic::fence(Ordering::SeqCst);
        if !self.occupied.load(Ordering::SeqCst) {
            return;
        }
        for entry in self.entries.lock().iter() {
            if entry.events.intersects(events) {
                entry.wake.wake(events);
            }
        }
    }

    /// As [`WaitQueue::notify`], from within a [`Wake`]: another queue is locked. That cannot deadlock where queues notify
    /// each other along a graph without cycles, as `epoll` instances do.
    pub fn notify_nested(&self, events: Events) {
        std::sync::atomic::fence(Ordering::SeqCst);
        if !self.occupied.load(Ordering::SeqCst) {
            return;
        }
        for entry in self.entries.lock_second().iter() {
            if entry.events.intersects(events) {
                entry.wake.wake(events);
            }
        }
    }

    /// Wakes everybody, whatever they wait for.
    pub fn notify_all(&self) {
        self.notify(Events::all());
    }

    pub fn is_empty(&self) -> bool {
        !self.occupied.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WaitQueue({})", if self.is_empty() { "empty" } else { "occupied" })
    }
}

/// Interest in a queue; dropping it ends the interest.
#[derive(Debug)]
pub struct Registration {
    queue: Arc<WaitQueue>,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let removed = {
            let mut entries = self.queue.entries.lock();
            let found = entries.iter().position(|e| e.id == self.id);
            let removed = found.map(|i| entries.swap_remove(i));
            if entries.is_empty() {
                self.queue.occupied.store(false, Ordering::SeqCst);
            }
            removed
        };
        drop(removed); // outside the lock: it may be the last reference to something that registers itself
    }
}

/// A task's parking place. The flag is a token, as `std::thread::park`'s: a wake-up before the park is not lost.
pub struct Waiter {
    woken: Mutex<bool>,
    condvar: parking_lot::Condvar,
}

impl Default for Waiter {
    fn default() -> Waiter {
        Waiter { woken: Mutex::new(Level::Waiter, false), condvar: parking_lot::Condvar::new() }
    }
}

impl Waiter {
    /// Sets the token and wakes the thread parked here, if any.
    pub fn unpark(&self) {
        let mut woken = self.woken.lock();
        *woken = true;
        self.condvar.notify_all();
    }

    /// Waits for the token, takes it, and returns true; false where `deadline` came first.
    pub fn park(&self, deadline: Option<Instant>) -> bool {
        let mut woken = self.woken.lock();
        while !*woken {
            match deadline {
                None => self.condvar.wait(woken.raw()),
                Some(at) => {
                    if self.condvar.wait_until(woken.raw(), at).timed_out() {
                        break;
                    }
                }
            }
        }
        std::mem::take(&mut *woken)
    }

    /// Takes the token if it is there.
    pub fn take(&self) -> bool {
        std::mem::take(&mut *self.woken.lock())
    }
}

impl Wake for Waiter {
    fn wake(&self, _: Events) {
        self.unpark();
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiter")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_before_the_park_is_not_lost() {
        let queue = WaitQueue::new();
        let waiter = Arc::new(Waiter::default());
        let registration = queue.register(Events::IN, waiter.clone());
        queue.notify(Events::OUT);
        assert!(!waiter.take());
        queue.notify(Events::IN);
        assert!(waiter.park(None));
        drop(registration);
        assert!(queue.is_empty());
    }
}
