//! Calls that only look at or set a value of the task, its process, or the system.

use std::sync::Arc;
use std::time::Duration;

use quicksand_abi::task::{Rlimit64, SysInfo, Tms, UtsName};
use quicksand_abi::{Errno, UserAddr};

use super::credentials::Caps;
use super::rlimit::{INFINITY, Rlimit};
use super::{CurrentTask, Resource, ThreadGroup, sched};
use crate::syscalls::{Fd, SyscallResult};

/// `uname -r`: new enough for every glibc; what it promises beyond that is not here answers ENOSYS.
pub const RELEASE: &str = "6.1.0-quicksand";
/// `uname -v`.
pub const VERSION: &str = concat!("#1 SMP Quicksand ", env!("CARGO_PKG_VERSION"));

pub fn sys_getpid(task: &CurrentTask) -> SyscallResult {
    Ok(task.group().pid() as usize)
}
pub fn sys_gettid(task: &CurrentTask) -> SyscallResult {
    Ok(task.tid() as usize)
}
pub fn sys_getppid(task: &CurrentTask) -> SyscallResult {
    Ok(task.pids().parent_pid(task.group()) as usize)
}

/// `restart_syscall(2)`: the loop puts the interrupted call in its place; where there is none, nothing restarts.
pub fn sys_restart_syscall(_task: &CurrentTask) -> SyscallResult {
    Err(Errno::EINTR.into())
}

pub fn sys_uname(task: &CurrentTask, buf: UserAddr) -> SyscallResult {
    let (host, domain) = task.container().names();
    let field = |text: &[u8]| {
        let mut out = [0; 65];
        let n = text.len().min(64);
        out[..n].copy_from_slice(&text[..n]);
        out
    };
    // Linux's UNAME26 personality.
    let old = task.state.lock().personality & 0x0002_0000 != 0;
    let release: &[u8] = if old { b"2.6.61" } else { RELEASE.as_bytes() };
    let name = UtsName {
        sysname: field(b"Linux"),
        nodename: field(&host),
        release: field(release),
        version: field(VERSION.as_bytes()),
        machine: field(b"x86_64"),
        domainname: field(&domain),
    };
    task.write_object(buf, &name)?;
    Ok(0)
}

fn read_name(task: &CurrentTask, at: UserAddr, len: i64) -> Result<Vec<u8>, Errno> {
    if !task.creds().has(Caps::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let len = usize::try_from(len).ok().filter(|n| *n <= 64).ok_or(Errno::EINVAL)?;
    task.read_array::<u8>(at, len)
}

pub fn sys_sethostname(task: &CurrentTask, name: UserAddr, len: i32) -> SyscallResult {
    task.container().set_hostname(read_name(task, name, len.into())?);
    Ok(0)
}
pub fn sys_setdomainname(task: &CurrentTask, name: UserAddr, len: i32) -> SyscallResult {
    task.container().set_domainname(read_name(task, name, len.into())?);
    Ok(0)
}

/// `getrandom(2)`: the host's generator, which never runs dry and never repeats in a clone.
pub fn sys_getrandom(task: &CurrentTask, buf: UserAddr, count: usize, flags: u32) -> SyscallResult {
    const NONBLOCK: u32 = 1;
    const RANDOM: u32 = 2;
    const INSECURE: u32 = 4;
    if flags & !(NONBLOCK | RANDOM | INSECURE) != 0 || flags & (RANDOM | INSECURE) == RANDOM | INSECURE {
        return Err(Errno::EINVAL.into());
    }
    let count = count.min(crate::vfs::io::MAX_RW_COUNT);
    let mut piece = [0; 4096];
    let mut done = 0;
    while done < count {
        let n = (count - done).min(piece.len());
        task.kernel().random(&mut piece[..n]);
        let at = buf.checked_add(done as u64).ok_or(Errno::EFAULT)?;
        if let Err(fault) = task.write_bytes(at, &piece[..n]) {
            done += fault.done;
            return if done == 0 { Err(Errno::EFAULT.into()) } else { Ok(done) };
        }
        done += n;
    }
    Ok(done)
}

pub fn sys_sysinfo(task: &CurrentTask, buf: UserAddr) -> SyscallResult {
    let host = rustix::system::sysinfo();
    let memory = task.kernel().machine.memory();
    let uptime = Duration::from_nanos(task.kernel().clocks.monotonic().0);
    let info = SysInfo {
        uptime: uptime.as_secs() as i64 + i64::from(uptime.subsec_nanos() > 0),
        loads: host.loads,
        totalram: memory.total,
        freeram: memory.free,
        sharedram: 0,
        bufferram: 0,
        totalswap: 0,
        freeswap: 0,
        procs: u16::try_from(task.pids().task_count()).unwrap_or(u16::MAX),
        mem_unit: 1,
        ..SysInfo::default()
    };
    task.write_object(buf, &info)?;
    Ok(0)
}

// Limits and usage.

fn read_limit(task: &CurrentTask, at: UserAddr) -> Result<Rlimit, Errno> {
    let raw: Rlimit64 = task.read_object(at)?;
    Ok(Rlimit { soft: raw.cur, hard: raw.max })
}

fn write_limit(task: &CurrentTask, at: UserAddr, limit: Rlimit) -> Result<(), Errno> {
    task.write_object(at, &Rlimit64 { cur: limit.soft, max: limit.hard })
}

/// `do_prlimit`: sets, checked, and tells the old.
fn change_limit(
    task: &CurrentTask,
    group: &Arc<ThreadGroup>,
    resource: Resource,
    new: Option<Rlimit>,
) -> Result<Rlimit, Errno> {
    let privileged = task.creds().has(Caps::SYS_RESOURCE);
    let mut state = group.state.lock();
    let old = state.rlimits.get(resource);
    let Some(new) = new else { return Ok(old) };
    if new.soft > new.hard {
        return Err(Errno::EINVAL);
    }
    if resource == Resource::Nofile && new.hard > crate::task::rlimit::NR_OPEN {
        return Err(Errno::EPERM);
    }
    if new.hard > old.hard && !privileged {
        return Err(Errno::EPERM);
    }
    state.rlimits.set(resource, new);
    let arm_cpu = resource == Resource::Cpu && new.soft != INFINITY;
    let mm = state.tasks.first().and_then(|t| t.mm_opt());
    drop(state);
    if resource == Resource::Stack
        && let Some(mm) = mm
    {
        mm.set_stack_limit(new.soft);
    }
    if arm_cpu {
        super::cpu_limit::arm(task.kernel(), group);
    }
    Ok(old)
}

pub fn sys_getrlimit(task: &CurrentTask, resource: u32, limit: UserAddr) -> SyscallResult {
    let resource = Resource::from_raw(resource).ok_or(Errno::EINVAL)?;
    write_limit(task, limit, task.group().rlimit(resource))?;
    Ok(0)
}

pub fn sys_setrlimit(task: &CurrentTask, resource: u32, limit: UserAddr) -> SyscallResult {
    let new = read_limit(task, limit)?;
    let resource = Resource::from_raw(resource).ok_or(Errno::EINVAL)?;
    change_limit(task, task.group(), resource, Some(new))?;
    Ok(0)
}

pub fn sys_prlimit64(
    task: &CurrentTask,
    pid: i32,
    resource: u32,
    new: UserAddr,
    old: UserAddr,
) -> SyscallResult {
    let resource_known = Resource::from_raw(resource);
    let new = if new.is_null() { None } else { Some(read_limit(task, new)?) };
    let group: Arc<ThreadGroup> = match pid {
        0 => task.group().clone(),
        pid => {
            let other = task.pids().task(pid).ok_or(Errno::ESRCH)?;
            let (own, theirs) = (task.creds(), other.creds());
            let same = [theirs.euid, theirs.suid, theirs.ruid].iter().all(|id| *id == own.ruid)
                && [theirs.egid, theirs.sgid, theirs.rgid].iter().all(|id| *id == own.rgid);
            if !Arc::ptr_eq(task.group(), other.group()) && !same && !own.has(Caps::SYS_RESOURCE) {
                return Err(Errno::EPERM.into());
            }
            other.group().clone()
        }
    };
    let previous = change_limit(task, &group, resource_known.ok_or(Errno::EINVAL)?, new)?;
    if !old.is_null() {
        write_limit(task, old, previous)?;
    }
    Ok(0)
}

pub fn sys_getrusage(task: &CurrentTask, who: i32, usage: UserAddr) -> SyscallResult {
    let used = match who {
        libc::RUSAGE_SELF => task.group().usage(),
        libc::RUSAGE_CHILDREN => task.group().children_usage(),
        libc::RUSAGE_THREAD => task.usage(),
        _ => return Err(Errno::EINVAL.into()),
    };
    task.write_object(usage, &used.to_rusage())?;
    Ok(0)
}

/// `times(2)`: answers ticks since boot.
pub fn sys_times(task: &CurrentTask, buf: UserAddr) -> SyscallResult {
    if !buf.is_null() {
        let (utime, stime) = task.group().cpu_times().ticks();
        let (cutime, cstime) = task.group().children_usage().times.ticks();
        task.write_object(buf, &Tms { utime, stime, cutime, cstime })?;
    }
    Ok((task.kernel().clocks.monotonic().0 / (1_000_000_000 / quicksand_abi::task::CLOCK_TICKS)) as usize)
}

/// `personality(2)`.
pub fn sys_personality(task: &CurrentTask, persona: u32) -> SyscallResult {
    let mut state = task.state.lock();
    let old = state.personality;
    if persona != u32::MAX {
        state.personality = persona;
    }
    Ok(old as usize)
}

// Refused by name.

/// `ptrace(2)`: nobody may be traced here.
pub fn sys_ptrace(task: &CurrentTask, _request: i32, _pid: i32, _addr: u64, _data: u64) -> SyscallResult {
    task.kernel().log_unsupported("ptrace", Errno::EPERM);
    Err(Errno::EPERM.into())
}

/// `kcmp(2)`.
pub fn sys_kcmp(task: &CurrentTask, pid1: i32, pid2: i32, kind: i32, fd1: u32, fd2: u32) -> SyscallResult {
    let (a, b) = (task.pids().task(pid1).ok_or(Errno::ESRCH)?, task.pids().task(pid2).ok_or(Errno::ESRCH)?);
    sched::check_same_user(task, &a)?;
    sched::check_same_user(task, &b)?;
    // Linux's order is of scrambled addresses: any total order will do.
    let order = |x: usize, y: usize| match x.cmp(&y) {
        std::cmp::Ordering::Equal => 0,
        std::cmp::Ordering::Less => 1,
        std::cmp::Ordering::Greater => 2,
    };
    // What a zombie has given up, all zombies have in common.
    let place = |at: Option<usize>| Ok(at.unwrap_or(0));
    let of = |t: &super::Task| -> Result<usize, Errno> {
        match kind {
            1 => place(t.mm_opt().map(|m| Arc::as_ptr(&m).addr())),
            2 => place(t.files_opt().map(|f| Arc::as_ptr(&f).addr())),
            3 => place(t.fs_opt().map(|f| Arc::as_ptr(&f).addr())),
            4 => Ok(Arc::as_ptr(&t.group().state.lock().actions).addr()),
            // No block I/O contexts, no semaphore undo lists: everybody has the same none.
            5 | 6 => Ok(0),
            _ => Err(Errno::EINVAL),
        }
    };
    if kind == 0 {
        let file = |t: &super::Task, fd: u32| -> Result<usize, Errno> {
            let file = t.files_opt().ok_or(Errno::EBADF)?.get(Fd(fd as i32))?;
            Ok(Arc::as_ptr(&file).addr())
        };
        return Ok(order(file(&a, fd1)?, file(&b, fd2)?));
    }
    Ok(order(of(&a)?, of(&b)?))
}

/// `syslog(2)`: an empty log.
pub fn sys_syslog(task: &CurrentTask, kind: i32, buf: UserAddr, len: i32) -> SyscallResult {
    const READ_ALL: i32 = 3;
    const SIZE_UNREAD: i32 = 9;
    const SIZE_BUFFER: i32 = 10;
    if !(0..=SIZE_BUFFER).contains(&kind) {
        return Err(Errno::EINVAL.into());
    }
    if !task.creds().effective.intersects(Caps::SYSLOG | Caps::SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    match kind {
        2..=4 if buf.is_null() || len < 0 => Err(Errno::EINVAL.into()),
        READ_ALL | SIZE_UNREAD => Ok(0),
        SIZE_BUFFER => Ok(1 << 17),
        _ => Ok(0),
    }
}

/// `seccomp(2)`: filters are not run inside a sandbox.
pub fn sys_seccomp(task: &CurrentTask, op: u32, flags: u32, _args: UserAddr) -> SyscallResult {
    const SET_MODE_STRICT: u32 = 0;
    const GET_ACTION_AVAIL: u32 = 2;
    if op > 3 || (op == SET_MODE_STRICT && flags != 0) {
        return Err(Errno::EINVAL.into());
    }
    let errno = if op == GET_ACTION_AVAIL { Errno::EOPNOTSUPP } else { Errno::EINVAL };
    task.kernel().log_unsupported("seccomp", errno);
    Err(errno.into())
}
