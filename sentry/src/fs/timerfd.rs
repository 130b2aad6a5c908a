//! `timerfd_create(2)`: timers that are read.
//!
//! The count of expiries is worked out when somebody asks for it; the timer service only wakes those who wait for the next
//! one. An interval timer is armed there again when its count is read, as Linux does. The clock cannot be set from inside
//! (`clock_settime` is refused), so TFD_TIMER_CANCEL_ON_SET is accepted and never fires.

use std::fmt;
use std::sync::{Arc, Weak};

use quicksand_abi::time::Itimerspec;
use quicksand_abi::{Errno, Timespec, UserAddr};

use crate::kernel::Kernel;
use crate::sync::{Events, Level, Mutex, WaitQueue};
use crate::syscalls::{Fd, SyscallResult};
use crate::task::CurrentTask;
use crate::task::credentials::Caps;
use crate::time::service::{Expire, TimerKey};
use crate::time::timer::{Schedule, TimerClock, check_spec};
use crate::vfs::{FdFlags, FileOps, IoDst, OpenFile, OpenFlags, SeekFrom};

const TFD_TIMER_ABSTIME: u32 = 1;
const TFD_TIMER_CANCEL_ON_SET: u32 = 2;
const TFD_NONBLOCK: u32 = libc::TFD_NONBLOCK as u32;
const TFD_CLOEXEC: u32 = libc::TFD_CLOEXEC as u32;
/// `_IOW('T', 0, u64)`
const TFD_IOC_SET_TICKS: u32 = 0x4008_5400;

/// A timerfd, as the file holds it.
pub struct TimerFd {
    timer: Arc<Timer>,
    kernel: Arc<Kernel>,
}

struct Timer {
    clock: TimerClock,
    /// As given, for fdinfo.
    clock_id: i32,
    state: Mutex<State>,
    queue: Arc<WaitQueue>,
}

#[derive(Default)]
struct State {
    schedule: Schedule,
    /// Expiries counted and not read.
    ticks: u64,
    settime_flags: u32,
    key: Option<TimerKey>,
}

/// `timerfd_create(2)`
pub fn sys_timerfd_create(task: &CurrentTask, clock_id: i32, flags: u32) -> SyscallResult {
    let clock = clock_of(clock_id)?;
    if flags & !(TFD_NONBLOCK | TFD_CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let alarm = matches!(clock_id, libc::CLOCK_REALTIME_ALARM | libc::CLOCK_BOOTTIME_ALARM);
    if alarm && !task.creds().has(Caps::WAKE_ALARM) {
        return Err(Errno::EPERM.into());
    }
    let state = Mutex::new(Level::Object, State::default());
    let timer = Arc::new(Timer { clock, clock_id, state, queue: WaitQueue::new() });
    let ops = TimerFd { timer, kernel: task.kernel().clone() };
    let flags_kept = OpenFlags::RDWR | OpenFlags::from_bits_retain(flags & TFD_NONBLOCK);
    let file = task.kernel().anon.file("timerfd", Box::new(ops), flags_kept);
    let fd_flags = if flags & TFD_CLOEXEC != 0 { FdFlags::CLOEXEC } else { FdFlags::empty() };
    Ok(task.install_fd(file, fd_flags)?.0 as usize)
}

fn clock_of(clock_id: i32) -> Result<TimerClock, Errno> {
    match clock_id {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_ALARM => Ok(TimerClock::Realtime),
        libc::CLOCK_MONOTONIC => Ok(TimerClock::Monotonic),
        libc::CLOCK_BOOTTIME | libc::CLOCK_BOOTTIME_ALARM => Ok(TimerClock::Boottime),
        _ => Err(Errno::EINVAL),
    }
}

/// `timerfd_settime(2)`
pub fn sys_timerfd_settime(
    task: &CurrentTask,
    fd: Fd,
    flags: u32,
    new: UserAddr,
    old: UserAddr,
) -> SyscallResult {
    let spec: Itimerspec = task.read_object(new)?;
    if flags & !(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL.into());
    }
    check_spec(&spec)?;
    let file = task.file(fd)?;
    let timerfd = file.ops_as::<TimerFd>().ok_or(Errno::EINVAL)?;
    let was = timerfd.set(&spec, flags);
    if !old.is_null() {
        task.write_object(old, &was)?;
    }
    Ok(0)
}

/// `timerfd_gettime(2)`
pub fn sys_timerfd_gettime(task: &CurrentTask, fd: Fd, value: UserAddr) -> SyscallResult {
    let file = task.file(fd)?;
    let timerfd = file.ops_as::<TimerFd>().ok_or(Errno::EINVAL)?;
    let spec = timerfd.get();
    task.write_object(value, &spec)?;
    Ok(0)
}

/// A timerfd as data.
#[derive(Clone, Copy, Debug)]
pub struct Saved {
    pub clock_id: i32,
    pub schedule: Schedule,
    pub ticks: u64,
    pub settime_flags: u32,
}

impl TimerFd {
    pub fn saved(&self) -> Saved {
        let state = self.timer.state.lock();
        let (schedule, ticks, settime_flags) = (state.schedule, state.ticks, state.settime_flags);
        Saved { clock_id: self.timer.clock_id, schedule, ticks, settime_flags }
    }
    /// EINVAL for a clock that is none.
    pub fn restored(kernel: &Arc<Kernel>, saved: &Saved) -> Result<TimerFd, Errno> {
        let clock = clock_of(saved.clock_id)?;
        let state = State {
            schedule: saved.schedule,
            ticks: saved.ticks,
            settime_flags: saved.settime_flags,
            key: None,
        };
        let state = Mutex::new(Level::Object, state);
        let timer = Arc::new(Timer { clock, clock_id: saved.clock_id, state, queue: WaitQueue::new() });
        let timerfd = TimerFd { timer, kernel: kernel.clone() };
        timerfd.arm(&mut timerfd.timer.state.lock());
        Ok(timerfd)
    }

    fn now_ns(&self) -> i64 {
        self.timer.clock.now_ns(&self.kernel.clocks)
    }

    fn set(&self, spec: &Itimerspec, flags: u32) -> Itimerspec {
        let now = self.now_ns();
        let mut state = self.timer.state.lock();
        self.count(&mut state, now);
        let was = state.spec(now);
        state.schedule = Schedule::from_spec(spec, flags & TFD_TIMER_ABSTIME != 0, now);
        state.ticks = 0;
        state.settime_flags = flags;
        self.arm(&mut state);
        was
    }

    fn get(&self) -> Itimerspec {
        let now = self.now_ns();
        let mut state = self.timer.state.lock();
        self.count(&mut state, now);
        state.spec(now)
    }

    /// Adds what has run out to the count; an interval timer is armed for what comes next.
    fn count(&self, state: &mut State, now: i64) {
        let times = state.schedule.advance(now);
        state.ticks = state.ticks.saturating_add(times);
        if times > 0 {
            self.arm(state);
        }
    }

    fn arm(&self, state: &mut State) {
        let timers = &self.kernel.timers;
        if let Some(key) = state.key.take() {
            timers.cancel(key);
        }
        if let Some(next) = state.schedule.next_ns {
            let at = self.timer.clock.to_monotonic(&self.kernel.clocks, next);
            let target: Weak<Timer> = Arc::downgrade(&self.timer);
            state.key = Some(timers.arm(&self.kernel, at, target));
        }
    }
}

impl State {
    fn spec(&self, now: i64) -> Itimerspec {
        Itimerspec {
            interval: Timespec::from_nanos(self.schedule.interval_ns),
            value: self.schedule.left(now),
        }
    }
}

impl Expire for Timer {
    fn expire(self: Arc<Self>, kernel: &Arc<Kernel>) {
        let now = self.clock.now_ns(&kernel.clocks);
        {
            let mut state = self.state.lock();
            state.key = None;
            match state.schedule.next_ns {
                None => return,
                // The clock was set back on the host.
                Some(next) if next > now => {
                    let at = self.clock.to_monotonic(&kernel.clocks, next);
                    let target: Weak<Timer> = Arc::downgrade(&self);
                    state.key = Some(kernel.timers.arm(kernel, at, target));
                    return;
                }
                Some(_) => {}
            }
        }
        self.queue.notify(Events::READABLE);
    }
}

impl Drop for TimerFd {
    fn drop(&mut self) {
        let key = self.timer.state.lock().key.take();
        if let Some(key) = key {
            self.kernel.timers.cancel(key);
        }
    }
}

impl FileOps for TimerFd {
    fn read(&self, _: &OpenFile, _: &CurrentTask, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let now = self.now_ns();
        let ticks = {
            let mut state = self.timer.state.lock();
            self.count(&mut state, now);
            std::mem::take(&mut state.ticks)
        };
        if ticks == 0 {
            return Err(Errno::EAGAIN);
        }
        match dst.put(&ticks.to_ne_bytes()) {
            Ok(8) => Ok(8),
            _ => Err(Errno::EFAULT),
        }
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn seek(&self, _: &OpenFile, _: SeekFrom) -> Result<u64, Errno> {
        Ok(0)
    }

    fn poll(&self, _: &OpenFile, _: &CurrentTask) -> Events {
        let now = self.now_ns();
        let state = self.timer.state.lock();
        let ready = state.ticks > 0 || state.schedule.is_due(now);
        if ready { Events::IN } else { Events::empty() }
    }

    fn wait_queue(&self, _: &OpenFile) -> Option<Arc<WaitQueue>> {
        Some(self.timer.queue.clone())
    }

    fn ioctl(&self, _: &OpenFile, task: &CurrentTask, cmd: u32, arg: u64) -> SyscallResult {
        if cmd != TFD_IOC_SET_TICKS {
            return Err(Errno::ENOTTY.into());
        }
        let ticks: u64 = task.read_object(UserAddr(arg))?;
        if ticks == 0 {
            return Err(Errno::EINVAL.into());
        }
        self.timer.state.lock().ticks = ticks;
        self.timer.queue.notify(Events::READABLE);
        Ok(0)
    }

    fn fdinfo(&self, _: &OpenFile) -> String {
        let now = self.now_ns();
        let mut state = self.timer.state.lock();
        self.count(&mut state, now);
        let (ticks, flags, spec) = (state.ticks, state.settime_flags, state.spec(now));
        let show = |t: Timespec| format!("({}, {})", t.sec, t.nsec);
        format!(
            "clockid: {}\nticks: {ticks}\nsettime flags: {flags:02o}\nit_value: {}\nit_interval: {}\n",
            self.timer.clock_id,
            show(spec.value),
            show(spec.interval)
        )
    }
}

impl fmt::Debug for TimerFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimerFd")
    }
}
