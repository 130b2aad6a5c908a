//! Sending signals: from a cause to a queue (`__send_signal_locked`, `complete_signal`).

use quicksand_abi::Errno;
use quicksand_abi::signal::{SIG_DFL, SIGRTMIN, SigInfo, code};

use super::SignalSet;
use crate::sync::Events;
use crate::task::group::{ChildEvent, ExitStatus, GroupState, Stop};
use crate::task::pid::PidNamespace;
use crate::task::{Resource, Task, ThreadGroup, Work};

/// Who sends, where that matters for a pid namespace's init.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A process of the same pid namespace.
    Inside,
    /// The kernel or the host: SIGKILL and SIGSTOP reach init too.
    Above,
}

/// Sends a signal to a process, on the kernel's behalf. EAGAIN where a real-time signal is over RLIMIT_SIGPENDING.
pub fn send_to_group(group: &ThreadGroup, info: SigInfo) -> Result<(), Errno> {
    send(group, None, info, Origin::Above)
}

/// Sends a signal to one task, on the kernel's behalf.
pub fn send_to_task(task: &Task, info: SigInfo) -> Result<(), Errno> {
    send(task.group(), Some(task), info, Origin::Above)
}

/// Sends a signal to all members of a process group, on the kernel's behalf (a terminal's).
pub fn send_to_pgrp(pids: &PidNamespace, pgid: i32, info: SigInfo) {
    let members = pids.lock().members(pgid);
    for group in members {
        // A terminal's signals are standard ones: they are never over a limit.
        let _ = send_to_group(&group, info);
    }
}

pub(crate) fn send(
    group: &ThreadGroup,
    target: Option<&Task>,
    info: SigInfo,
    origin: Origin,
) -> Result<(), Errno> {
    let mut state = group.state.lock();
    send_locked(group, &mut state, target, info, origin)
}

/// With the group locked.
pub(crate) fn send_locked(
    group: &ThreadGroup,
    state: &mut GroupState,
    target: Option<&Task>,
    info: SigInfo,
    origin: Origin,
) -> Result<(), Errno> {
    let signal = info.signo;
    if state.dead || state.tasks.is_empty() {
        return Ok(());
    }
    if crate::entry::signalled(group, &state.tasks, &info) {
        return Ok(());
    }
    if !prepare(state, signal) || is_ignored(state, target, signal, origin) {
        return Ok(());
    }
    if signal == libc::SIGKILL {
        state.start_exit(ExitStatus::signal(signal));
        return Ok(());
    }
    let info = match within_limit(state, &info) {
        true => info,
        // As Linux: a queued value must not be lost in silence, the mere fact that somebody called `kill` may lose its details.
        false if signal >= SIGRTMIN && info.code != code::SI_USER => return Err(Errno::EAGAIN),
        false if pending_set(state, target).contains(signal) => return Ok(()),
        false => SigInfo::user(signal, code::SI_USER, 0, 0),
    };
    let queued = match target {
        Some(task) => task.signals.pending.lock().push(info),
        None => state.pending.push(info),
    };
    if !queued {
        return Ok(());
    }
    group.signals.queue.notify(Events::IN);
    match target {
        Some(task) if !task.signals.blocked().contains(signal) => task.interrupt(Work::SIGNAL),
        Some(_) => {}
        None => wake_one(state, SignalSet::of(signal), None),
    }
    Ok(())
}

/// Whether RLIMIT_SIGPENDING leaves room. The kernel's own signals, and standard ones sent by `kill`, are above it.
fn within_limit(state: &GroupState, info: &SigInfo) -> bool {
    if info.code == code::SI_KERNEL || (info.signo < SIGRTMIN && info.code >= 0) {
        return true;
    }
    let own: usize = state.tasks.iter().map(|t| t.signals.pending.lock().len()).sum();
    ((state.pending.len() + own) as u64) < state.rlimits.get(Resource::Sigpending).soft
}

fn pending_set(state: &GroupState, target: Option<&Task>) -> SignalSet {
    target.map_or(state.pending.set(), |task| task.signals.pending_set())
}

/// Tells one task that does not block any of `signals` (other than `except`) to look.
pub(crate) fn wake_one(state: &GroupState, signals: SignalSet, except: Option<u64>) {
    let wants = |t: &&std::sync::Arc<Task>| {
        Some(t.id) != except && !signals.without(t.signals.blocked()).is_empty() && !t.has_work(Work::KILL)
    };
    if let Some(task) = state.tasks.iter().find(wants) {
        task.interrupt(Work::SIGNAL);
    }
}

/// What a signal does before anything is queued (`prepare_signal`): stop and continue signals cancel each other. False
/// where the group is past caring.
fn prepare(state: &mut GroupState, signal: i32) -> bool {
    if state.exit_status.is_some() {
        return false;
    }
    if SignalSet::STOP.contains(signal) {
        discard_everywhere(state, SignalSet::of(libc::SIGCONT));
    } else if signal == libc::SIGCONT {
        discard_everywhere(state, SignalSet::STOP);
        resume(state);
    }
    true
}

fn discard_everywhere(state: &mut GroupState, set: SignalSet) {
    state.pending.discard(set);
    for task in &state.tasks {
        task.signals.pending.lock().discard(set);
    }
}

/// Ends a job-control stop, whether complete or under way.
fn resume(state: &mut GroupState) {
    state.continues = state.continues.wrapping_add(1);
    let stop = std::mem::take::<Stop>(&mut state.stop);
    let Some(signal) = stop.signal else { return };
    state.notify_parent =
        Some(if stop.complete { ChildEvent::Continued } else { ChildEvent::Stopped(signal) });
    if stop.complete {
        state.event = Some(ChildEvent::Continued);
    }
    for task in &state.tasks {
        task.interrupt(Work::SIGNAL);
    }
}

/// `sig_ignored`: blocked signals are kept, for they may be unblocked or waited for when the action is another.
fn is_ignored(state: &GroupState, target: Option<&Task>, signal: i32, origin: Origin) -> bool {
    let blocked = match target.or(state.tasks.first().map(|t| &**t)) {
        Some(task) => task.signals.blocked().contains(signal),
        None => false,
    };
    if blocked {
        return false;
    }
    let kernel_only = SignalSet::UNBLOCKABLE.contains(signal);
    if state.unkillable
        && state.actions.get(signal).handler == SIG_DFL
        && !(origin == Origin::Above && kernel_only)
    {
        return true;
    }
    state.actions.is_ignored(signal)
}
