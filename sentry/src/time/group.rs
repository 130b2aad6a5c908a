//! The timers of a process: interval timers (`setitimer(2)`) and POSIX timers (`timer_create(2)`).
//!
//! All state is data: clocks, absolute deadlines, intervals, counts. The group has one place in the timer service's heap, for
//! whichever of its timers comes first; when that time has come, all timers are looked at. Timers on processor time are
//! looked at whenever they could have run out, no more often than Linux's tick.
//!
//! A POSIX timer's signal is queued once; expiries while it is pending are overruns, told when it is taken from the queue.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use quicksand_abi::SigInfo;
use quicksand_abi::signal::code;

use super::clock_id::{CpuClockId, CpuKind};
use super::service::{Expire, TimerKey};
use super::timer::{Schedule, TimerClock};
use super::{Monotonic, cpu};
use crate::kernel::Kernel;
use crate::signal::{send_to_group, send_to_task};
use crate::sync::{Level, Mutex};
use crate::task::{CpuTimes, ThreadGroup};

/// How often a processor-time timer is looked at, at most: a tick of 250 Hz.
const CPU_LOOK_NS: i64 = 4_000_000;

/// What a POSIX timer counts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PosixClock {
    Wall(TimerClock),
    /// With its number filled in.
    Cpu(CpuClockId),
}

/// What happens when a POSIX timer runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notify {
    /// SIGEV_NONE.
    Nothing,
    /// SIGEV_SIGNAL and SIGEV_THREAD_ID: the signal, its value, and the thread that gets it.
    Signal { signal: i32, value: u64, tid: Option<i32> },
}

/// A POSIX timer.
#[derive(Clone, Copy, Debug)]
pub(super) struct PosixTimer {
    pub(super) clock: PosixClock,
    pub(super) notify: Notify,
    pub(super) schedule: Schedule,
    /// Expiries since the signal that is pending was queued.
    pub(super) overrun: u64,
    /// `timer_getoverrun(2)`: of the last signal taken.
    pub(super) last_overrun: i32,
}

impl PosixTimer {
    pub(super) fn new(clock: PosixClock, notify: Notify) -> PosixTimer {
        PosixTimer { clock, notify, schedule: Schedule::default(), overrun: 0, last_overrun: 0 }
    }
    /// Set anew: what was missed before does not count.
    pub(super) fn set(&mut self, schedule: Schedule) {
        self.schedule = schedule;
        self.overrun = 0;
        self.last_overrun = 0;
    }
}

/// The timers of a thread group.
pub struct GroupTimers {
    pub(super) state: Mutex<Timers>,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    /// ITIMER_REAL, on the monotonic clock.
    pub(super) real: Schedule,
    /// ITIMER_VIRTUAL, on user time.
    pub(super) user: Schedule,
    /// ITIMER_PROF, on user and system time.
    pub(super) prof: Schedule,
    pub(super) posix: BTreeMap<i32, PosixTimer>,
    pub(super) next_id: i32,
    key: Option<TimerKey>,
}

impl Default for GroupTimers {
    fn default() -> GroupTimers {
        GroupTimers { state: Mutex::new(Level::Object, Timers::default()) }
    }
}

impl fmt::Debug for GroupTimers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupTimers")
    }
}

/// A signal that is due.
enum Due {
    Group(i32),
    Posix { id: i32, times: u64, signal: i32, value: u64, tid: Option<i32> },
}

impl GroupTimers {
    /// `execve(2)`: POSIX timers are gone, interval timers go on.
    pub fn exec(&self) {
        let old = std::mem::take(&mut self.state.lock().posix);
        drop(old);
    }

    /// A signal is taken from a queue: where it is a timer's, it says how many expiries it stands for.
    pub fn delivered(&self, info: &mut SigInfo) {
        if info.code != code::SI_TIMER {
            return;
        }
        let mut state = self.state.lock();
        if let Some(timer) = state.posix.get_mut(&info.pid()) {
            timer.last_overrun = i32::try_from(std::mem::take(&mut timer.overrun)).unwrap_or(i32::MAX);
            info.set_overrun(timer.last_overrun);
        }
    }
}

impl ThreadGroup {
    /// Arms the group's place in the heap for its next timer. To be called after every change.
    pub(super) fn rearm_timers(self: &Arc<Self>, kernel: &Arc<Kernel>) {
        let cpu_now = self.cpu_readings();
        let target: Weak<ThreadGroup> = Arc::downgrade(self);
        let mut state = self.timers.state.lock();
        if let Some(key) = state.key.take() {
            kernel.timers.cancel(key);
        }
        if let Some(at) = state.next_look(kernel, &cpu_now) {
            state.key = Some(kernel.timers.arm(kernel, at, target));
        }
    }

    /// What the processor-time clocks that timers count on read now. Not under the timers' lock: it asks the tasks.
    fn cpu_readings(self: &Arc<Self>) -> CpuReadings {
        let (own, clocks) = {
            let state = self.timers.state.lock();
            let own = state.user.next_ns.is_some() || state.prof.next_ns.is_some();
            let clocks: Vec<CpuClockId> = state.posix.values().filter_map(|t| t.cpu_clock()).collect();
            (own, clocks)
        };
        let times = if own { self.cpu_times() } else { CpuTimes::default() };
        let read = |c: CpuClockId| Some((c, cpu::group_now_ns(self, c)?));
        CpuReadings { times, clocks: clocks.into_iter().filter_map(read).collect() }
    }

    /// Whether a signal of POSIX timer `id` waits to be delivered.
    fn is_timer_pending(&self, id: i32) -> bool {
        let state = self.state.lock();
        state.pending.has_timer(id) || state.tasks.iter().any(|t| t.signals.pending.lock().has_timer(id))
    }

    fn fire(self: &Arc<Self>, due: Due) {
        match due {
            Due::Group(signal) => {
                let _ = send_to_group(self, SigInfo::kernel(signal));
            }
            Due::Posix { id, times, signal, value, tid } => {
                let pending = self.is_timer_pending(id);
                {
                    let mut state = self.timers.state.lock();
                    let Some(timer) = state.posix.get_mut(&id) else { return };
                    let more = if pending { times } else { times - 1 };
                    timer.overrun = timer.overrun.saturating_add(more);
                }
                if pending {
                    return;
                }
                let info = SigInfo::timer(signal, id, 0, value);
                // Over RLIMIT_SIGPENDING cannot be: a timer counts against it when it is made.
                let _ = match tid {
                    None => send_to_group(self, info),
                    Some(tid) => match self.tasks().iter().find(|t| t.tid() == tid) {
                        Some(task) => send_to_task(task, info),
                        // The thread has ended: nobody is told.
                        None => Ok(()),
                    },
                };
            }
        }
    }
}

impl Expire for ThreadGroup {
    fn expire(self: Arc<Self>, kernel: &Arc<Kernel>) {
        if self.is_dead() {
            return;
        }
        let cpu_now = self.cpu_readings();
        let due = self.timers.state.lock().take_due(kernel, &cpu_now);
        for due in due {
            self.fire(due);
        }
        self.rearm_timers(kernel);
    }
}

/// Processor-time clocks, read.
struct CpuReadings {
    times: CpuTimes,
    clocks: Vec<(CpuClockId, i64)>,
}

impl CpuReadings {
    fn of(&self, clock: CpuClockId) -> Option<i64> {
        self.clocks.iter().find(|(c, _)| *c == clock).map(|(_, now)| *now)
    }
    fn part(&self, kind: CpuKind) -> i64 {
        cpu::part_ns(&self.times, kind)
    }
}

impl PosixTimer {
    fn cpu_clock(&self) -> Option<CpuClockId> {
        match self.clock {
            PosixClock::Cpu(clock) if self.schedule.next_ns.is_some() => Some(clock),
            _ => None,
        }
    }
}

impl Timers {
    fn take_due(&mut self, kernel: &Arc<Kernel>, cpu_now: &CpuReadings) -> Vec<Due> {
        let clocks = &kernel.clocks;
        let mut due = Vec::new();
        if self.real.advance(TimerClock::Monotonic.now_ns(clocks)) > 0 {
            due.push(Due::Group(libc::SIGALRM));
        }
        if self.user.advance(cpu_now.part(CpuKind::Virtual)) > 0 {
            due.push(Due::Group(libc::SIGVTALRM));
        }
        if self.prof.advance(cpu_now.part(CpuKind::Prof)) > 0 {
            due.push(Due::Group(libc::SIGPROF));
        }
        for (id, timer) in &mut self.posix {
            let Notify::Signal { signal, value, tid } = timer.notify else { continue };
            let now = match timer.clock {
                PosixClock::Wall(clock) => clock.now_ns(clocks),
                PosixClock::Cpu(clock) => match cpu_now.of(clock) {
                    Some(now) => now,
                    None => continue,
                },
            };
            let times = timer.schedule.advance(now);
            if times > 0 {
                due.push(Due::Posix { id: *id, times, signal, value, tid });
            }
        }
        due
    }

    /// When to look at the timers next.
    fn next_look(&self, kernel: &Arc<Kernel>, cpu_now: &CpuReadings) -> Option<Monotonic> {
        let clocks = &kernel.clocks;
        let now = clocks.monotonic();
        let wall = |clock: TimerClock, schedule: &Schedule| {
            schedule.next_ns.map(|next| clock.to_monotonic(clocks, next))
        };
        // Several threads use time at once: half of what is left, and a tick at least.
        let cpu = |schedule: &Schedule, reading: i64| {
            let left = schedule.next_ns?.saturating_sub(reading);
            let look = (left / 2).clamp(CPU_LOOK_NS, 1_000_000_000);
            Some(Monotonic(now.0.saturating_add(look as u64)))
        };
        let mut looks = vec![
            wall(TimerClock::Monotonic, &self.real),
            cpu(&self.user, cpu_now.part(CpuKind::Virtual)),
            cpu(&self.prof, cpu_now.part(CpuKind::Prof)),
        ];
        for timer in self.posix.values().filter(|t| t.notify != Notify::Nothing) {
            looks.push(match timer.clock {
                PosixClock::Wall(clock) => {
                    let next = wall(clock, &timer.schedule);
                    // Expiries that nobody takes notice of are counted in steps.
                    let pause = Monotonic(now.0.saturating_add(1_000_000));
                    if timer.overrun > 0 { next.map(|at| at.max(pause)) } else { next }
                }
                PosixClock::Cpu(clock) => cpu_now.of(clock).and_then(|now| cpu(&timer.schedule, now)),
            });
        }
        looks.into_iter().flatten().min()
    }
}
