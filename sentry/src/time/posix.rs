//! POSIX timers, `timer_create(2)`.

use quicksand_abi::time::Itimerspec;
use quicksand_abi::{Errno, Timespec, UserAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::clock_id::ClockId;
use super::cpu;
use super::group::{Notify, PosixClock, PosixTimer};
use super::timer::{Schedule, check_spec};
use crate::syscalls::SyscallResult;
use crate::task::{CurrentTask, Resource};

const TIMER_ABSTIME: u32 = 1;

/// `struct sigevent`: what `timer_create` reads of it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SigEvent {
    value: u64,
    signal: i32,
    notify: i32,
    tid: i32,
    pad: [i32; 11],
}

/// `timer_create(2)`
pub fn sys_timer_create(task: &CurrentTask, clock: i32, event: UserAddr, out: UserAddr) -> SyscallResult {
    let event = if event.is_null() { None } else { Some(task.read_object::<SigEvent>(event)?) };
    let clock = match ClockId::from_raw(clock)? {
        ClockId::Timer(clock) => PosixClock::Wall(clock),
        ClockId::Cpu(clock) => PosixClock::Cpu(cpu::resolve(task, clock)?),
        _ => return Err(Errno::EOPNOTSUPP.into()),
    };
    let limit = task.group().rlimit(Resource::Sigpending).soft;
    let notify = event.map(|e| read_notify(task, &e)).transpose()?;
    let id = {
        let mut state = task.group().timers.state.lock();
        if state.posix.len() as u64 >= limit {
            return Err(Errno::EAGAIN.into());
        }
        let mut id = state.next_id;
        while state.posix.contains_key(&id) {
            id = id.checked_add(1).unwrap_or(0);
        }
        state.next_id = id.checked_add(1).unwrap_or(0);
        // Without an event: SIGALRM with the timer's number.
        let default = Notify::Signal { signal: libc::SIGALRM, value: id as u64, tid: None };
        state.posix.insert(id, PosixTimer::new(clock, notify.unwrap_or(default)));
        id
    };
    if let Err(e) = task.write_object(out, &id) {
        task.group().timers.state.lock().posix.remove(&id);
        return Err(e.into());
    }
    Ok(0)
}

/// `good_sigevent`
fn read_notify(task: &CurrentTask, event: &SigEvent) -> Result<Notify, Errno> {
    let tid = match event.notify {
        libc::SIGEV_NONE => return Ok(Notify::Nothing),
        libc::SIGEV_SIGNAL | libc::SIGEV_THREAD => None,
        libc::SIGEV_THREAD_ID => {
            let found = task.group().tasks().iter().any(|t| t.tid() == event.tid);
            Some(event.tid).filter(|_| found).ok_or(Errno::EINVAL)?.into()
        }
        _ => return Err(Errno::EINVAL),
    };
    if !crate::signal::is_valid(event.signal) {
        return Err(Errno::EINVAL);
    }
    Ok(Notify::Signal { signal: event.signal, value: event.value, tid })
}

/// What a timer's clock reads now. A thread's that has ended stands still.
fn now_ns(task: &CurrentTask, clock: PosixClock) -> i64 {
    match clock {
        PosixClock::Wall(clock) => clock.now_ns(&task.kernel().clocks),
        PosixClock::Cpu(clock) => cpu::group_now_ns(task.group(), clock).unwrap_or(0),
    }
}

fn clock_of(task: &CurrentTask, id: i32) -> Result<PosixClock, Errno> {
    let state = task.group().timers.state.lock();
    state.posix.get(&id).map(|t| t.clock).ok_or(Errno::EINVAL)
}

fn spec_of(timer: &mut PosixTimer, now: i64) -> Itimerspec {
    if timer.notify == Notify::Nothing {
        // Nobody is told, so it moves on when it is looked at.
        timer.schedule.advance(now);
    }
    Itimerspec { interval: Timespec::from_nanos(timer.schedule.interval_ns), value: timer.schedule.left(now) }
}

/// `timer_settime(2)`
pub fn sys_timer_settime(
    task: &CurrentTask,
    id: i32,
    flags: u32,
    new: UserAddr,
    old: UserAddr,
) -> SyscallResult {
    if new.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let mut spec: Itimerspec = task.read_object(new)?;
    check_spec(&spec)?;
    if spec.value.to_ns() == 0 {
        // Disarming forgets the interval too (unlike a timerfd's).
        spec.interval = spec.value;
    }
    let now = now_ns(task, clock_of(task, id)?);
    let was = {
        let mut state = task.group().timers.state.lock();
        let timer = state.posix.get_mut(&id).ok_or(Errno::EINVAL)?;
        let was = spec_of(timer, now);
        timer.set(Schedule::from_spec(&spec, flags & TIMER_ABSTIME != 0, now));
        was
    };
    task.group().rearm_timers(task.kernel());
    if !old.is_null() {
        task.write_object(old, &was)?;
    }
    Ok(0)
}

/// `timer_gettime(2)`
pub fn sys_timer_gettime(task: &CurrentTask, id: i32, value: UserAddr) -> SyscallResult {
    let now = now_ns(task, clock_of(task, id)?);
    let spec = {
        let mut state = task.group().timers.state.lock();
        spec_of(state.posix.get_mut(&id).ok_or(Errno::EINVAL)?, now)
    };
    task.write_object(value, &spec)?;
    Ok(0)
}

/// `timer_getoverrun(2)`
pub fn sys_timer_getoverrun(task: &CurrentTask, id: i32) -> SyscallResult {
    let state = task.group().timers.state.lock();
    let timer = state.posix.get(&id).ok_or(Errno::EINVAL)?;
    Ok(timer.last_overrun as usize)
}

/// `timer_delete(2)`
pub fn sys_timer_delete(task: &CurrentTask, id: i32) -> SyscallResult {
    task.group().timers.state.lock().posix.remove(&id).ok_or(Errno::EINVAL)?;
    task.group().rearm_timers(task.kernel());
    Ok(0)
}
