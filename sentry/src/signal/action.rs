//! Signal actions: what a process does with each signal. Shared by groups that were cloned with CLONE_SIGHAND.

use std::fmt;
use std::sync::Arc;

use quicksand_abi::signal::{NSIG, SIG_DFL, SIG_IGN, SigAction};

use super::SignalSet;
use crate::sync::{Level, Mutex};

/// Linux's `sighand_struct`.
pub struct Actions {
    table: Mutex<[SigAction; NSIG as usize]>,
}

impl Default for Actions {
    fn default() -> Actions {
        Actions { table: Mutex::new(Level::SignalActions, [SigAction::default(); NSIG as usize]) }
    }
}

impl Actions {
    fn index(signal: i32) -> usize {
        // Callers have checked the number; a wrong one must not panic all the same.
        (signal.clamp(1, NSIG) - 1) as usize
    }
    pub fn get(&self, signal: i32) -> SigAction {
        self.table.lock()[Actions::index(signal)]
    }
    /// Returns the old one.
    pub fn set(&self, signal: i32, action: SigAction) -> SigAction {
        std::mem::replace(&mut self.table.lock()[Actions::index(signal)], action)
    }
    /// A copy, as `fork(2)` makes one.
    pub fn duplicate(&self) -> Arc<Actions> {
        Arc::new(Actions { table: Mutex::new(Level::SignalActions, *self.table.lock()) })
    }
    /// A copy for `execve(2)`: what is not ignored is back at its default.
    pub fn for_exec(&self) -> Arc<Actions> {
        self.copy(|a| if a.handler == SIG_IGN { SIG_IGN } else { SIG_DFL })
    }
    /// A copy for CLONE_CLEAR_SIGHAND, by the same rule.
    pub fn cleared(&self) -> Arc<Actions> {
        self.for_exec()
    }
    fn copy(&self, handler: impl Fn(&SigAction) -> u64) -> Arc<Actions> {
        let table = self.table.lock().map(|a| SigAction { handler: handler(&a), ..SigAction::default() });
        Arc::new(Actions { table: Mutex::new(Level::SignalActions, table) })
    }
    /// Whether an unblocked `signal` would have no effect.
    pub fn is_ignored(&self, signal: i32) -> bool {
        match self.get(signal).handler {
            SIG_IGN => true,
            SIG_DFL => SignalSet::IGNORED.contains(signal),
            _ => false,
        }
    }
    /// What is ignored and what is caught, for `/proc/PID/status`.
    pub fn ignored_and_caught(&self) -> (SignalSet, SignalSet) {
        let table = self.table.lock();
        let mut sets = (SignalSet::EMPTY, SignalSet::EMPTY);
        for (signal, action) in (1..).zip(table.iter()) {
            match action.handler {
                SIG_DFL => {}
                SIG_IGN => sets.0 = sets.0.with(signal),
                _ => sets.1 = sets.1.with(signal),
            }
        }
        sets
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ignored, caught) = self.ignored_and_caught();
        write!(f, "Actions(ignored {ignored:?}, caught {caught:?})")
    }
}
