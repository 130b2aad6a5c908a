//! Delivery: what the receiving task's loop does with pending signals (`get_signal`, `handle_signal`).
//!
//! Runs before each return to guest code when `Work::SIGNAL` is set, and decides there what becomes of a system call that a
//! signal interrupted: restarted, continued through `restart_syscall`, or ended with EINTR.

use quicksand_abi::Errno;
use quicksand_abi::signal::{SA_NODEFER, SA_RESETHAND, SA_RESTART, SIG_DFL, SIG_IGN, SigAction, SigInfo};

use super::SignalSet;
use super::send::{Origin, send_locked, wake_one};
use crate::syscalls::OnSignal;
use crate::task::group::{ExitStatus, GroupState};
use crate::task::{CurrentTask, Work};

const NR_RESTART_SYSCALL: u64 = 219;

impl CurrentTask {
    /// Whether a signal, a stop or the end of the group waits for this task. Clears `Work::SIGNAL` where none does.
    pub(crate) fn signal_pending(&self) -> bool {
        self.clear_work(Work::SIGNAL);
        let state = self.group().state.lock();
        let pending = self.is_signal_pending(&state);
        if pending {
            self.set_work(Work::SIGNAL);
        }
        pending
    }

    fn is_signal_pending(&self, state: &GroupState) -> bool {
        let wanted = state.pending.set().union(self.signals.pending_set());
        !wanted.without(self.signals.blocked()).is_empty()
            || state.exit_status.is_some()
            || state.stop.signal.is_some()
            || state.notify_parent.is_some()
            || self.has_work(Work::KILL)
    }

    /// Replaces the blocked set (`set_current_blocked`). What only this task could take is offered to others.
    pub fn set_blocked(&self, set: SignalSet) {
        let state = self.group().state.lock();
        let old = self.signals.blocked();
        self.signals.set_blocked(set);
        let set = self.signals.blocked();
        let newly_blocked = set.without(old).intersect(state.pending.set());
        if !newly_blocked.is_empty() {
            wake_one(&state, newly_blocked, Some(self.id));
        }
        if !old.without(set).is_empty() && self.is_signal_pending(&state) {
            self.set_work(Work::SIGNAL);
        }
    }

    /// Runs the rest of the current call under `set` (`ppoll`, `pselect`, `epoll_pwait`, `sigsuspend`): the old mask
    /// comes back when the call ends, or after the handler that interrupted it. To be called at each call of the handler:
    /// only the first one counts.
    pub fn set_temporary_mask(&self, set: SignalSet) {
        if self.saved_mask.get().is_none() {
            self.saved_mask.set(Some(self.signals.blocked().0));
            self.set_blocked(set);
        }
    }

    pub(crate) fn restore_saved_mask(&self) {
        if let Some(mask) = self.saved_mask.take() {
            self.set_blocked(SignalSet(mask));
        }
    }

    /// A signal that the task's own instruction caused (`force_sig_info`): it cannot be blocked or ignored.
    pub fn force_signal(&self, info: SigInfo) {
        self.force(info, false);
    }

    /// As [`CurrentTask::force_signal`]; `fatal` also takes a handler away.
    pub(crate) fn force(&self, info: SigInfo, fatal: bool) {
        let group = self.group();
        let mut state = group.state.lock();
        let signal = info.signo;
        let blocked = self.signals.blocked();
        let action = state.actions.get(signal);
        if fatal || blocked.contains(signal) || action.handler == SIG_IGN {
            state.actions.set(signal, SigAction { handler: SIG_DFL, ..action });
            self.signals.set_blocked(blocked.without(SignalSet::of(signal)));
        }
        if state.actions.get(signal).handler == SIG_DFL {
            state.unkillable = false;
        }
        // A synchronous signal is a standard one: no limit applies.
        let _ = send_locked(group, &mut state, Some(self), info, Origin::Above);
        self.set_work(Work::SIGNAL);
    }

    /// Acts on everything that is pending, builds handler frames, and settles an interrupted call. The loop ends
    /// where this has set `exiting`.
    pub(crate) fn deliver_signals(&self) {
        while let Some((info, action)) = self.next_signal() {
            self.settle_restart(Some(action.flags));
            let mask = self.saved_mask.take().map_or(self.signals.blocked(), SignalSet);
            if self.push_frame(&info, &action, mask).is_err() {
                self.set_blocked(mask);
                self.force(SigInfo::kernel(libc::SIGSEGV), info.signo == libc::SIGSEGV);
                continue;
            }
            let mut blocked = self.signals.blocked().union(SignalSet(action.mask));
            if action.flags & SA_NODEFER == 0 {
                blocked = blocked.with(info.signo);
            }
            self.set_blocked(blocked);
        }
        self.settle_restart(None);
        if self.exiting.get().is_none() {
            self.restore_saved_mask();
        }
    }

    /// What becomes of the interrupted call: `handler` holds the flags of the handler that runs first.
    fn settle_restart(&self, handler: Option<u64>) {
        let Some(restart) = self.restart.take() else { return };
        let mut regs = self.regs.borrow_mut();
        let again = match (restart, handler) {
            (OnSignal::RestartAlways, _) => true,
            (OnSignal::Restart, Some(flags)) => flags & SA_RESTART != 0,
            (_, Some(_)) => false,
            (OnSignal::Restart | OnSignal::RestartNoHandler, None) => true,
            (OnSignal::RestartBlock, None) => {
                regs.orig_rax = NR_RESTART_SYSCALL;
                true
            }
            (_, None) => false,
        };
        if again {
            regs.rax = regs.orig_rax;
            regs.rip = regs.rip.wrapping_sub(2);
        } else {
            regs.rax = Errno::EINTR.to_return();
        }
    }

    /// The next signal that a handler is to get. What has a default effect takes effect here.
    fn next_signal(&self) -> Option<(SigInfo, SigAction)> {
        let group = self.group();
        loop {
            self.clear_work(Work::SIGNAL);
            let mut state = group.state.lock();
            if self.has_work(Work::KILL) || state.exit_status.is_some() {
                let status = state.exit_status.unwrap_or(ExitStatus::signal(libc::SIGKILL));
                self.exiting.set(Some(status));
                return None;
            }
            if let Some(event) = state.notify_parent.take() {
                drop(state);
                super::stop::tell_parent(group, event);
                continue;
            }
            if state.stop.signal.is_some() {
                drop(state);
                self.park_stopped();
                continue;
            }
            let wanted = SignalSet(!self.signals.blocked().0);
            let own = self.signals.pending.lock().take(wanted);
            let mut info = own.or_else(|| state.pending.take(wanted))?;
            group.timers.delivered(&mut info);
            let signal = info.signo;
            let action = state.actions.get(signal);
            if action.handler != SIG_DFL && action.handler != SIG_IGN {
                if action.flags & SA_RESETHAND != 0 {
                    state.actions.set(signal, SigAction { handler: SIG_DFL, ..action });
                }
                return Some((info, action));
            }
            let ignored = action.handler == SIG_IGN
                || SignalSet::IGNORED.contains(signal)
                || (state.unkillable && !SignalSet::UNBLOCKABLE.contains(signal));
            if ignored {
                continue;
            }
            if SignalSet::STOP.contains(signal) {
                let continues = state.continues;
                drop(state);
                let tty = signal != libc::SIGSTOP;
                if !(tty && self.pids().is_own_pgrp_orphaned(group)) {
                    self.start_stop(signal, continues);
                }
                continue;
            }
            state.start_exit(ExitStatus::signal(signal));
            self.exiting.set(state.exit_status);
            return None;
        }
    }
}
