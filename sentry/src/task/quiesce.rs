//! The quiesce barrier: stops all tasks of a sandbox so that its state can be looked at as data.
//!
//! Whoever needs that calls [`Quiesce::stop`]. Every task loop finds `Work::QUIESCE` before it enters guest code or parks,
//! and waits at the barrier; handlers finish first, for they never wait inside. Tasks that are being killed do not stop but
//! end. When `stop` returns, each live task is described by its `Task`, its registers, and, where it is in a call, by
//! the `Blocked` it returned.
//!
//! For a checkpoint later: a task at the barrier leaves its registers, extended state, and blocked call in its `Task`, and
//! its host thread may then end ("transient single thread"); going on means starting a thread from those.

use std::sync::Arc;

use super::{Task, Work};
use crate::sync::{Level, Mutex};

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    /// It was a task that stopped the world, for whoever calls [`Quiesce::stop`] next.
    begun: bool,
    /// Task loops that exist.
    running: usize,
    /// Of these, how many wait here.
    arrived: usize,
}

/// The barrier of one sandbox.
pub struct Quiesce {
    state: Mutex<State>,
    changed: parking_lot::Condvar,
}

impl Default for Quiesce {
    fn default() -> Quiesce {
        Quiesce { state: Mutex::new(Level::Leaf, State::default()), changed: parking_lot::Condvar::new() }
    }
}

impl std::fmt::Debug for Quiesce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Quiesce")
    }
}

impl Quiesce {
    /// A task loop is about to begin.
    pub(super) fn enter(&self, task: &Task) {
        let mut state = self.state.lock();
        state.running += 1;
        if state.stopping {
            task.set_work(Work::QUIESCE);
        }
    }
    /// A task loop has ended.
    pub(super) fn leave(&self) {
        self.state.lock().running -= 1;
        self.changed.notify_all();
    }
    /// A task loop waits until the world goes on.
    pub(super) fn arrive(&self, _task: &Task) {
        let mut state = self.state.lock();
        if !state.stopping {
            return;
        }
        state.arrived += 1;
        self.changed.notify_all();
        while state.stopping {
            self.changed.wait(state.raw());
        }
        state.arrived -= 1;
        self.changed.notify_all();
    }
    /// Lets tasks that were stopped go on.
    pub(crate) fn release(&self) {
        let mut state = self.state.lock();
        (state.stopping, state.begun) = (false, false);
        drop(state);
        self.changed.notify_all();
    }
    /// From a task's thread: tasks stop from now on, as they come to the barrier; the next [`Quiesce::stop`] finds it so. False
    /// where the world is standing still already.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.state.lock();
        if state.stopping {
            return false;
        }
        (state.stopping, state.begun) = (true, true);
        true
    }
    /// Nobody will stop what [`Quiesce::begin`] began to.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        if state.begun {
            (state.stopping, state.begun) = (false, false);
        }
        drop(state);
        self.changed.notify_all();
    }
    /// Stops all tasks; they go on when the answer is dropped. `tasks` lists those that live: new ones stop by themselves.
    /// Not called from a task loop.
    pub(crate) fn stop(&self, tasks: &[Arc<Task>]) -> Quiesced<'_> {
        {
            let mut state = self.state.lock();
            while !state.begun && (state.stopping || state.arrived > 0) {
                self.changed.wait(state.raw());
            }
            (state.stopping, state.begun) = (true, false);
        }
        for task in tasks {
            task.interrupt(Work::QUIESCE);
        }
        let mut state = self.state.lock();
        while state.arrived < state.running {
            self.changed.wait(state.raw());
        }
        Quiesced { barrier: self }
    }
}

/// The world stands still as long as this lives.
#[derive(Debug)]
pub struct Quiesced<'a> {
    barrier: &'a Quiesce,
}

impl Quiesced<'_> {
    /// Lets the world stand still until [`Quiesce::release`].
    pub(crate) fn hold(self) {
        std::mem::forget(self);
    }
}

impl Drop for Quiesced<'_> {
    fn drop(&mut self) {
        self.barrier.release();
    }
}
