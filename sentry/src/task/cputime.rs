//! Processor time and resource usage.
//!
//! A task's total is the CPU time of the host thread that runs it. How it divides into user and system time is told by
//! the time spent inside and outside guest code, measured at each crossing; as in Linux's `cputime_adjust`, the exact total
//! is split in that proportion.
//!
//! Where the platform runs guest code on threads that are not ours, their clocks are out of sight: the time spent inside guest
//! code then counts as user time, as if it had always had a processor, and the host thread's is system time.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use quicksand_abi::task::{CLOCK_TICKS, Rusage};

use super::Task;

/// User and system time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    pub user: Duration,
    pub system: Duration,
}

impl CpuTimes {
    pub fn total(&self) -> Duration {
        self.user + self.system
    }
    /// In USER_HZ ticks.
    pub fn ticks(&self) -> (i64, i64) {
        let ticks = |d: Duration| (d.as_nanos() / u128::from(1_000_000_000 / CLOCK_TICKS)) as i64;
        (ticks(self.user), ticks(self.system))
    }
}

/// What `getrusage(2)` counts, as far as we do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub times: CpuTimes,
    /// KiB.
    pub max_rss: u64,
    /// Faults that the Sentry served.
    pub faults: u64,
    /// Waits in system calls.
    pub voluntary_switches: u64,
}

impl Usage {
    pub fn add(&mut self, other: &Usage) {
        self.times.user += other.times.user;
        self.times.system += other.times.system;
        self.max_rss = self.max_rss.max(other.max_rss);
        self.faults += other.faults;
        self.voluntary_switches += other.voluntary_switches;
    }
    /// As numbers: user and system time in nanoseconds, the largest size, faults, waits.
    pub(crate) fn to_numbers(self) -> [u64; 5] {
        let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        let (user, system) = (ns(self.times.user), ns(self.times.system));
        [user, system, self.max_rss, self.faults, self.voluntary_switches]
    }
    /// From [`Usage::to_numbers`].
    pub(crate) fn from_numbers([user, system, max_rss, faults, voluntary_switches]: [u64; 5]) -> Usage {
        // No program has run for centuries: sums stay sums.
        let time = |ns: u64| Duration::from_nanos(ns.min(1 << 60));
        let times = CpuTimes { user: time(user), system: time(system) };
        let small = |n: u64| n.min(1 << 60);
        let (faults, voluntary_switches) = (small(faults), small(voluntary_switches));
        Usage { times, max_rss, faults, voluntary_switches }
    }
    pub fn to_rusage(&self) -> Rusage {
        let (user, system) = (self.times.user, self.times.system);
        Rusage {
            utime_sec: user.as_secs() as i64,
            utime_usec: i64::from(user.subsec_micros()),
            stime_sec: system.as_secs() as i64,
            stime_usec: i64::from(system.subsec_micros()),
            maxrss: self.max_rss as i64,
            minflt: self.faults as i64,
            nvcsw: self.voluntary_switches as i64,
            ..Rusage::default()
        }
    }
}

/// A task's clock.
#[derive(Debug, Default)]
pub struct CpuClock {
    /// The host thread that runs the task; 0 when none does.
    host_tid: AtomicI32,
    /// What that thread had used before it began with this task.
    base_ns: AtomicU64,
    /// Used on earlier host threads.
    earlier_ns: AtomicU64,
    /// User and system time used before a restore.
    before_ns: [AtomicU64; 2],
    /// Wall time inside guest code, and in the Sentry without waiting.
    guest_wall_ns: AtomicU64,
    sentry_wall_ns: AtomicU64,
    /// Guest code has clocks of its own, which cannot be read.
    guest_is_apart: AtomicBool,
    /// When guest code that is apart was last entered, by the monotonic clock; 0 outside of it.
    entered_ns: AtomicU64,
    pub(crate) waits: AtomicU64,
    pub(crate) faults: AtomicU64,
}

impl CpuClock {
    /// The calling thread begins to run the task; `guest_is_apart`: not its guest code.
    pub(crate) fn start(&self, guest_is_apart: bool) {
        self.guest_is_apart.store(guest_is_apart, Ordering::Relaxed);
        self.base_ns.store(own_ns(), Ordering::Relaxed);
        self.host_tid.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
    }
    /// For a restore: what the task has used so far.
    pub(crate) fn go_on_from(&self, usage: &Usage) {
        let [user, system, _, faults, waits] = usage.to_numbers();
        self.before_ns[0].store(user, Ordering::Relaxed);
        self.before_ns[1].store(system, Ordering::Relaxed);
        self.faults.store(faults, Ordering::Relaxed);
        self.waits.store(waits, Ordering::Relaxed);
    }
    /// The calling thread, which ran the task, does so no longer.
    pub(crate) fn stop(&self) {
        let used = own_ns().saturating_sub(self.base_ns.load(Ordering::Relaxed));
        self.host_tid.store(0, Ordering::Release);
        self.earlier_ns.fetch_add(used, Ordering::Relaxed);
    }
    pub(crate) fn enter_guest(&self) {
        if self.guest_is_apart.load(Ordering::Relaxed) {
            self.entered_ns.store(monotonic_ns(), Ordering::Relaxed);
        }
    }
    pub(crate) fn add_guest(&self, wall: Duration) {
        self.entered_ns.store(0, Ordering::Relaxed);
        self.guest_wall_ns.fetch_add(wall.as_nanos() as u64, Ordering::Relaxed);
    }
    pub(crate) fn add_sentry(&self, wall: Duration) {
        self.sentry_wall_ns.fetch_add(wall.as_nanos() as u64, Ordering::Relaxed);
    }
    /// The host thread that runs the task, where one does.
    pub fn host_tid(&self) -> Option<i32> {
        Some(self.host_tid.load(Ordering::Acquire)).filter(|tid| *tid != 0)
    }
    /// Processor time used so far.
    pub fn times(&self) -> CpuTimes {
        let CpuTimes { user, system } = self.times_here();
        let before = |part: usize| Duration::from_nanos(self.before_ns[part].load(Ordering::Relaxed));
        CpuTimes { user: user + before(0), system: system + before(1) }
    }
    /// Since the restore, where there was one.
    fn times_here(&self) -> CpuTimes {
        let mut total = self.earlier_ns.load(Ordering::Relaxed);
        if let Some(tid) = self.host_tid() {
            // A thread that has just ended has no clock: its time is in `earlier_ns` by then, or will be.
            if let Some(now) = quicksand_host::thread_cpu_ns(tid) {
                total += now.saturating_sub(self.base_ns.load(Ordering::Relaxed));
            }
        }
        if self.guest_is_apart.load(Ordering::Relaxed) {
            let now = match self.entered_ns.load(Ordering::Relaxed) {
                0 => 0,
                entered => monotonic_ns().saturating_sub(entered),
            };
            let user = self.guest_wall_ns.load(Ordering::Relaxed).saturating_add(now);
            return CpuTimes { user: Duration::from_nanos(user), system: Duration::from_nanos(total) };
        }
        let guest = u128::from(self.guest_wall_ns.load(Ordering::Relaxed));
        let sentry = u128::from(self.sentry_wall_ns.load(Ordering::Relaxed));
        let user = match guest + sentry {
            0 => total,
            wall => (u128::from(total) * guest / wall) as u64,
        };
        CpuTimes { user: Duration::from_nanos(user), system: Duration::from_nanos(total - user) }
    }
}

fn monotonic_ns() -> u64 {
    nanoseconds(rustix::time::ClockId::Monotonic)
}

/// The calling thread's CPU time.
fn own_ns() -> u64 {
    nanoseconds(rustix::time::ClockId::ThreadCPUTime)
}

fn nanoseconds(clock: rustix::time::ClockId) -> u64 {
    let t = rustix::time::clock_gettime(clock);
    (t.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(t.tv_nsec as u64)
}

impl Task {
    /// What this task alone has used.
    pub fn usage(&self) -> Usage {
        Usage {
            times: self.cpu.times(),
            max_rss: self.mm_opt().map_or(0, |mm| mm.peak_resident_bytes() / 1024),
            faults: self.cpu.faults.load(Ordering::Relaxed),
            voluntary_switches: self.cpu.waits.load(Ordering::Relaxed),
        }
    }
}
