//! Timers, job control and use of processor time: between what they are and their records.

use std::sync::Arc;

use quicksand_abi::Errno;
use quicksand_abi::signal::NSIG;

use super::records as rec;
use super::restore::RestoreError;
use crate::kernel::Kernel;
use crate::task::ThreadGroup;
use crate::task::group::{ChildEvent, GroupState, Stop};
use crate::time::timer::Schedule;
use crate::time::{SavedPosix, SavedTimers};

fn schedule(s: Schedule) -> rec::Schedule {
    rec::Schedule { next_ns: s.next_ns, interval_ns: s.interval_ns }
}
fn schedule_from(s: rec::Schedule) -> Schedule {
    Schedule { next_ns: s.next_ns, interval_ns: s.interval_ns.max(0) }
}

pub(super) fn timers(saved: &SavedTimers) -> rec::Timers {
    let posix = |timer: &SavedPosix| rec::PosixTimer {
        id: timer.id,
        clock: timer.clock,
        notify: timer.notify,
        schedule: schedule(timer.schedule),
        overrun: timer.overrun,
        last_overrun: timer.last_overrun,
    };
    rec::Timers {
        interval: saved.interval.map(schedule),
        posix: saved.posix.iter().map(posix).collect(),
        next_id: saved.next_id,
    }
}

/// Sets the timers of a process, and arms them.
pub(super) fn restore_timers(
    kernel: &Arc<Kernel>,
    group: &Arc<ThreadGroup>,
    record: &rec::Timers,
) -> Result<(), RestoreError> {
    let posix = |timer: &rec::PosixTimer| SavedPosix {
        id: timer.id,
        clock: timer.clock,
        notify: timer.notify,
        schedule: schedule_from(timer.schedule),
        overrun: timer.overrun,
        last_overrun: timer.last_overrun,
    };
    let saved = SavedTimers {
        interval: record.interval.map(schedule_from),
        posix: record.posix.iter().map(posix).collect(),
        next_id: record.next_id,
    };
    if saved.is_empty() {
        return Ok(());
    }
    let wrong = |_: Errno| RestoreError::Record(format!("process {}: a timer", group.pid()));
    group.restore_timers(kernel, &saved).map_err(wrong)
}

fn event(event: Option<ChildEvent>) -> Option<i32> {
    event.map(|event| match event {
        ChildEvent::Stopped(signal) => signal,
        ChildEvent::Continued => 0,
    })
}
fn event_from(code: Option<i32>) -> Option<ChildEvent> {
    code.map(|code| match code {
        0 => ChildEvent::Continued,
        signal => ChildEvent::Stopped(signal.clamp(1, NSIG)),
    })
}

pub(super) fn job(state: &GroupState) -> rec::Job {
    rec::Job {
        signal: state.stop.signal,
        complete: state.stop.complete,
        event: event(state.event),
        notify_parent: event(state.notify_parent),
    }
}

/// Puts job control back. The threads find out that they are stopped before they run anything, and count themselves.
pub(super) fn restore_job(state: &mut GroupState, record: &rec::Job) {
    let signal = record.signal.map(|signal| signal.clamp(1, NSIG));
    state.stop = Stop { signal, parked: 0, complete: signal.is_some() && record.complete };
    state.event = event_from(record.event);
    state.notify_parent = event_from(record.notify_parent);
}
