//! Pending signals. Standard signals coalesce, real-time signals queue.

use std::collections::VecDeque;

use quicksand_abi::signal::{SIGRTMIN, SigInfo, code};

use super::SignalSet;

/// Signals that wait for delivery, oldest first.
#[derive(Debug, Default)]
pub struct Queue {
    set: SignalSet,
    list: VecDeque<SigInfo>,
}

impl Queue {
    pub fn set(&self) -> SignalSet {
        self.set
    }
    pub fn len(&self) -> usize {
        self.list.len()
    }
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
    /// All, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &SigInfo> {
        self.list.iter()
    }
    /// Queues a signal; false where it coalesced with one that is pending.
    pub fn push(&mut self, info: SigInfo) -> bool {
        if info.signo < SIGRTMIN && self.set.contains(info.signo) {
            return false;
        }
        self.set = self.set.with(info.signo);
        self.list.push_back(info);
        true
    }
    /// Takes the next signal that is in `wanted`: those that the task caused itself first, then by number, then by age.
    pub fn take(&mut self, wanted: SignalSet) -> Option<SigInfo> {
        let ready = self.set.intersect(wanted);
        let signal = ready.intersect(SignalSet::SYNCHRONOUS).first().or_else(|| ready.first())?;
        let at = self.list.iter().position(|i| i.signo == signal)?;
        let info = self.list.remove(at)?;
        if !self.list.iter().any(|i| i.signo == signal) {
            self.set = self.set.without(SignalSet::of(signal));
        }
        Some(info)
    }
    /// Drops all signals in `set`.
    pub fn discard(&mut self, set: SignalSet) {
        if !self.set.intersect(set).is_empty() {
            self.list.retain(|i| !set.contains(i.signo));
            self.set = self.set.without(set);
        }
    }
    /// Drops what POSIX timers have queued (`execve` ends them).
    pub fn discard_timers(&mut self) {
        self.list.retain(|i| i.code != code::SI_TIMER);
        self.set = self.list.iter().fold(SignalSet::EMPTY, |set, i| set.with(i.signo));
    }
    /// Whether a signal of POSIX timer `timer` is pending.
    pub fn has_timer(&self, timer: i32) -> bool {
        self.list.iter().any(|i| i.code == code::SI_TIMER && i.pid() == timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_signals_coalesce_and_real_time_signals_queue() {
        let mut queue = Queue::default();
        assert!(queue.push(SigInfo::kernel(libc::SIGUSR1)));
        assert!(!queue.push(SigInfo::kernel(libc::SIGUSR1)));
        assert!(queue.push(SigInfo::kernel(40)));
        assert!(queue.push(SigInfo::kernel(40)));
        assert!(queue.push(SigInfo::kernel(libc::SIGSEGV)));
        let all = SignalSet(u64::MAX);
        let order: Vec<i32> = std::iter::from_fn(|| queue.take(all)).map(|i| i.signo).collect();
        assert_eq!(order, [libc::SIGSEGV, libc::SIGUSR1, 40, 40]);
        assert!(queue.set().is_empty());
    }
}
