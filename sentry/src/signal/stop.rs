//! Job control: groups that stop and go on (`do_signal_stop`), and what their parents hear of it.
//!
//! The task that dequeues a stop signal marks the group; every task of it then parks in its loop. The stop is complete,
//! and reported, when all have. SIGCONT ends it at once, in the sender; one of the woken tasks reports that.

use quicksand_abi::signal::{SA_NOCLDSTOP, SIG_IGN, SigInfo, code};

use super::send::send_to_group;
use crate::sync::Events;
use crate::task::group::{ChildEvent, GroupState};
use crate::task::parked::Whereabouts;
use crate::task::{CurrentTask, ThreadGroup, Work};

impl CurrentTask {
    /// Begins a group stop, unless a SIGCONT came after `continues` was read.
    pub(super) fn start_stop(&self, signal: i32, continues: u32) {
        let mut state = self.group().state.lock();
        if state.continues != continues || state.stop.signal.is_some() || state.exit_status.is_some() {
            return;
        }
        state.stop.signal = Some(signal);
        for task in state.tasks.iter().filter(|t| t.id != self.id) {
            task.interrupt(Work::SIGNAL);
        }
        self.set_work(Work::SIGNAL);
    }

    /// Takes part in the group's stop until it ends or the task is killed.
    pub(super) fn park_stopped(&self) {
        let group = self.group();
        let (continues, event) = {
            let mut state = group.state.lock();
            if state.stop.signal.is_none() || self.has_work(Work::KILL) {
                return;
            }
            state.stop.parked += 1;
            (state.continues, complete_stop(&mut state))
        };
        if let Some(event) = event {
            tell_parent(group, event);
        }
        loop {
            if self.has_work(Work::KILL) || group.state.lock().continues != continues {
                break;
            }
            if self.has_work(Work::QUIESCE) {
                self.quiesce(Whereabouts::Stopped);
                continue;
            }
            self.waiter.park(None);
        }
        self.set_work(Work::SIGNAL);
    }
}

/// Marks the stop complete where every task has parked; the event is for [`tell_parent`], without the lock. Also called
/// when a task ends.
pub(crate) fn complete_stop(state: &mut GroupState) -> Option<ChildEvent> {
    let signal = state.stop.signal?;
    if state.stop.complete || state.stop.parked < state.tasks.len() || state.tasks.is_empty() {
        return None;
    }
    state.stop.complete = true;
    state.event = Some(ChildEvent::Stopped(signal));
    state.event
}

/// Tells the parent that a child stopped or went on (`do_notify_parent_cldstop`). No lock is held.
pub(crate) fn tell_parent(group: &ThreadGroup, event: ChildEvent) {
    let pids = group.pids();
    let tables = pids.lock();
    let Some(parent) = tables.procs.get(&group.pid()).map(|p| p.parent) else { return };
    let Some(parent) = tables.procs.get(&parent).map(|p| p.group.clone()) else { return };
    let (code, status) = match event {
        ChildEvent::Stopped(signal) => (code::CLD_STOPPED, signal),
        ChildEvent::Continued => (code::CLD_CONTINUED, libc::SIGCONT),
    };
    let action = parent.state.lock().actions.get(libc::SIGCHLD);
    if action.handler != SIG_IGN && action.flags & SA_NOCLDSTOP == 0 {
        let uid = group.any_task().map_or(0, |t| t.creds().ruid);
        let (utime, stime) = group.cpu_times().ticks();
        let info = SigInfo::child(libc::SIGCHLD, code, group.pid(), uid, status, utime, stime);
        // SIGCHLD is a standard signal: no limit applies.
        let _ = send_to_group(&parent, info);
    }
    drop(tables);
    parent.child_queue.notify(Events::IN);
}
