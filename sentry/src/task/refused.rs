//! Calls that reach for the machine itself (swap, modules, I/O ports, rebooting, the clock's discipline, ...). Linux asks for
//! a capability first, so that a program without it is told EPERM; with it, the call is one that is not here.

use quicksand_abi::{Errno, UserAddr};

use super::CurrentTask;
use super::credentials::Caps;
use crate::syscalls::{Fd, SyscallResult};

/// EPERM without `caps`, else ENOSYS, logged once by name.
fn refuse(task: &CurrentTask, name: &str, caps: Caps) -> SyscallResult {
    if !task.creds().effective.intersects(caps) {
        return Err(Errno::EPERM.into());
    }
    task.kernel().log_unsupported(name, Errno::ENOSYS);
    Err(Errno::ENOSYS.into())
}

/// `swapon(2)`.
pub fn sys_swapon(task: &CurrentTask) -> SyscallResult {
    refuse(task, "swapon", Caps::SYS_ADMIN)
}
/// `swapoff(2)`.
pub fn sys_swapoff(task: &CurrentTask) -> SyscallResult {
    refuse(task, "swapoff", Caps::SYS_ADMIN)
}
/// `reboot(2)`.
pub fn sys_reboot(task: &CurrentTask) -> SyscallResult {
    refuse(task, "reboot", Caps::SYS_BOOT)
}
/// `init_module(2)`.
pub fn sys_init_module(task: &CurrentTask) -> SyscallResult {
    refuse(task, "init_module", Caps::SYS_MODULE)
}
/// `finit_module(2)`.
pub fn sys_finit_module(task: &CurrentTask) -> SyscallResult {
    refuse(task, "finit_module", Caps::SYS_MODULE)
}
/// `delete_module(2)`.
pub fn sys_delete_module(task: &CurrentTask) -> SyscallResult {
    refuse(task, "delete_module", Caps::SYS_MODULE)
}
/// `acct(2)`.
pub fn sys_acct(task: &CurrentTask) -> SyscallResult {
    refuse(task, "acct", Caps::SYS_PACCT)
}
/// `vhangup(2)`.
pub fn sys_vhangup(task: &CurrentTask) -> SyscallResult {
    refuse(task, "vhangup", Caps::SYS_TTY_CONFIG)
}
/// `open_by_handle_at(2)`: no file system gives handles away.
pub fn sys_open_by_handle_at(task: &CurrentTask) -> SyscallResult {
    refuse(task, "open_by_handle_at", Caps::DAC_READ_SEARCH)
}

/// `iopl(2)`: giving rights back is always possible, for nobody has any.
pub fn sys_iopl(task: &CurrentTask, level: u32) -> SyscallResult {
    match level {
        0 => Ok(0),
        1..=3 => refuse(task, "iopl", Caps::SYS_RAWIO),
        _ => Err(Errno::EINVAL.into()),
    }
}
/// `ioperm(2)`.
pub fn sys_ioperm(task: &CurrentTask, from: u64, count: u64, on: i32) -> SyscallResult {
    let end = from.checked_add(count).ok_or(Errno::EINVAL)?;
    if end <= from || end > 65536 {
        return Err(Errno::EINVAL.into());
    }
    if on == 0 { Ok(0) } else { refuse(task, "ioperm", Caps::SYS_RAWIO) }
}

/// `rseq(2)`. A restartable sequence has to be aborted when its thread is preempted, which the host does behind the
/// Sentry's back. Libraries ask at every start, and do without: this is not worth a line in the log.
pub fn sys_rseq(_task: &CurrentTask) -> SyscallResult {
    Err(Errno::ENOSYS.into())
}

/// `struct timex`, whose size is what counts: its fields are read by the places below.
const TIMEX_LEN: usize = 208;
const ADJ_OFFSET_SS_READ: u32 = 0xa001;
/// The clock is not known to be synchronised.
const TIME_ERROR: usize = 5;
const STA_UNSYNC: i32 = 0x40;

/// `adjtimex(2)`.
pub fn sys_adjtimex(task: &CurrentTask, at: UserAddr) -> SyscallResult {
    sys_clock_adjtime(task, libc::CLOCK_REALTIME, at)
}

/// `clock_adjtime(2)`: the clock's discipline is the host's. It can be looked at (as that of a clock that nobody keeps
/// in step), and never changed.
pub fn sys_clock_adjtime(task: &CurrentTask, clock: i32, at: UserAddr) -> SyscallResult {
    let mut timex: [u8; TIMEX_LEN] = task.read_object(at)?;
    match clock {
        libc::CLOCK_REALTIME => {}
        1..=15 => return Err(Errno::EOPNOTSUPP.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    let modes = u32::from_ne_bytes([timex[0], timex[1], timex[2], timex[3]]);
    if modes != 0 && modes != ADJ_OFFSET_SS_READ {
        return Err(Errno::EPERM.into());
    }
    let now = task.kernel().clocks.realtime().0;
    timex[8..].fill(0);
    let mut put = |at: usize, value: i64| timex[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    // offset, freq, maxerror, esterror, status, constant, precision, tolerance, time, tick, ...
    put(24, 16_000_000);
    put(32, 16_000_000);
    put(40, i64::from(STA_UNSYNC));
    put(48, 2);
    put(56, 1);
    put(64, 500 << 16);
    put(72, now.div_euclid(1_000_000_000));
    put(80, now.rem_euclid(1_000_000_000) / 1000);
    put(88, 10_000);
    task.write_object(at, &timex)?;
    Ok(TIME_ERROR)
}

/// `ustat(2)`: EINVAL for a device that nothing is mounted from, and no device is.
pub fn sys_ustat(_task: &CurrentTask, _dev: u32, _buf: UserAddr) -> SyscallResult {
    Err(Errno::EINVAL.into())
}

/// `perf_event_open(2)`: as under `perf_event_paranoid` of 3, whoever asks without the capability.
pub fn sys_perf_event_open(
    task: &CurrentTask,
    attr: UserAddr,
    _pid: i32,
    _cpu: i32,
    _group: Fd,
    _flags: u64,
) -> SyscallResult {
    let _: u64 = task.read_object(attr)?;
    if !task.creds().effective.intersects(Caps::PERFMON | Caps::SYS_ADMIN) {
        return Err(Errno::EACCES.into());
    }
    task.kernel().log_unsupported("perf_event_open", Errno::ENOENT);
    Err(Errno::ENOENT.into())
}
