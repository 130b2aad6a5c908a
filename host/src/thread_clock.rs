//! The CPU clock of one thread of this process.

/// CPU time used by thread `tid` of this process, in nanoseconds; `None` where there is no such thread.
pub fn thread_cpu_ns(tid: i32) -> Option<u64> {
    // The encoding of `clock_gettime(2)`: the thread's number inverted, CPUCLOCK_PERTHREAD and CPUCLOCK_SCHED.
    let clock: libc::clockid_t = (!tid << 3) | 4 | 2;
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid timespec that outlives the call, and the call writes nothing else; an unknown clock makes
    // it fail with EINVAL.
    let result = unsafe { libc::clock_gettime(clock, &mut t) };
    let ns = (t.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(t.tv_nsec as u64);
    (result == 0).then_some(ns)
}
