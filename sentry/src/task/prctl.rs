//! `prctl(2)` and `arch_prctl(2)`.

use quicksand_abi::{Errno, UserAddr};

use super::CurrentTask;
use super::credentials::{
    Caps, LAST_CAP, SECBIT_KEEP_CAPS, SECBIT_NO_CAP_AMBIENT_RAISE, SECUREBITS, SECUREBITS_LOCKS,
};
use super::exec::COMM_LEN;
use crate::syscalls::SyscallResult;

const PR_SET_MM: i32 = 35;
const PR_MPX: [i32; 2] = [43, 44];
const PR_SET_SPECULATION: i32 = 53;
const PR_GET_SPECULATION: i32 = 52;
const PR_SET_TAGGED_ADDR: i32 = 55;
const PR_GET_TAGGED_ADDR: i32 = 56;
const PR_SET_IO_FLUSHER: i32 = 57;
const PR_GET_IO_FLUSHER: i32 = 58;
const PR_SCHED_CORE: i32 = 62;
const PR_SET_VMA: i32 = 0x5356_4d41;

fn all_zero(args: &[u64]) -> Result<(), Errno> {
    if args.iter().all(|a| *a == 0) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// `prctl(2)`.
pub fn sys_prctl(
    task: &CurrentTask,
    option: i32,
    arg2: u64,
    arg3: u64,
    arg4: u64,
    arg5: u64,
) -> SyscallResult {
    match option {
        libc::PR_SET_PDEATHSIG => {
            if arg2 > quicksand_abi::signal::NSIG as u64 {
                return Err(Errno::EINVAL.into());
            }
            task.state.lock().pdeath_signal = arg2 as i32;
            Ok(0)
        }
        libc::PR_GET_PDEATHSIG => {
            let signal = task.state.lock().pdeath_signal;
            task.write_object(UserAddr(arg2), &signal)?;
            Ok(0)
        }
        libc::PR_GET_DUMPABLE => Ok(task.group().state.lock().dumpable as usize),
        libc::PR_SET_DUMPABLE => {
            if arg2 > 1 {
                return Err(Errno::EINVAL.into());
            }
            task.group().state.lock().dumpable = arg2 as i32;
            Ok(0)
        }
        libc::PR_SET_NAME => {
            let mut name = match task.read_cstring(UserAddr(arg2), COMM_LEN) {
                Err(Errno::ENAMETOOLONG) => {
                    let mut name = vec![0; COMM_LEN];
                    task.read_bytes(UserAddr(arg2), &mut name)?;
                    name
                }
                name => name?,
            };
            name.truncate(COMM_LEN);
            task.state.lock().name = name;
            Ok(0)
        }
        libc::PR_GET_NAME => {
            let mut name = [0; COMM_LEN + 1];
            let own = task.name();
            let n = own.len().min(COMM_LEN);
            name[..n].copy_from_slice(&own[..n]);
            task.write_bytes(UserAddr(arg2), &name)?;
            Ok(0)
        }
        libc::PR_GET_TIMING => Ok(0),
        libc::PR_SET_TIMING => {
            if arg2 == 0 {
                Ok(0)
            } else {
                Err(Errno::EINVAL.into())
            }
        }
        libc::PR_GET_ENDIAN | libc::PR_SET_ENDIAN | libc::PR_GET_FPEMU | libc::PR_SET_FPEMU => {
            Err(Errno::EINVAL.into())
        }
        libc::PR_GET_FPEXC | libc::PR_SET_FPEXC | libc::PR_GET_UNALIGN | libc::PR_SET_UNALIGN => {
            Err(Errno::EINVAL.into())
        }
        libc::PR_GET_TSC => {
            task.write_object(UserAddr(arg2), &libc::PR_TSC_ENABLE)?;
            Ok(0)
        }
        libc::PR_SET_TSC if arg2 == libc::PR_TSC_ENABLE as u64 => Ok(0),
        libc::PR_GET_SECCOMP => Ok(0),
        libc::PR_SET_SECCOMP => unsupported(task, "prctl(PR_SET_SECCOMP)"),
        libc::PR_SET_KEEPCAPS => {
            if arg2 > 1 {
                return Err(Errno::EINVAL.into());
            }
            let mut new = (*task.creds()).clone();
            if new.securebits & (SECBIT_KEEP_CAPS << 1) != 0 {
                return Err(Errno::EPERM.into());
            }
            new.securebits =
                (new.securebits & !SECBIT_KEEP_CAPS) | if arg2 == 1 { SECBIT_KEEP_CAPS } else { 0 };
            task.commit_creds(new);
            Ok(0)
        }
        libc::PR_GET_KEEPCAPS => Ok(usize::from(task.creds().securebits & SECBIT_KEEP_CAPS != 0)),
        libc::PR_GET_SECUREBITS => Ok(task.creds().securebits as usize),
        libc::PR_SET_SECUREBITS => set_securebits(task, arg2),
        libc::PR_CAPBSET_READ => {
            let cap = capability(arg2)?;
            Ok(usize::from(task.creds().bounding.contains(cap)))
        }
        libc::PR_CAPBSET_DROP => {
            if !task.creds().has(Caps::SETPCAP) {
                return Err(Errno::EPERM.into());
            }
            let cap = capability(arg2)?;
            let mut new = (*task.creds()).clone();
            new.bounding &= !cap;
            task.commit_creds(new);
            Ok(0)
        }
        libc::PR_CAP_AMBIENT => ambient(task, arg2, arg3, [arg4, arg5]),
        libc::PR_SET_TIMERSLACK => {
            // Zero, or anything negative, is the default.
            task.state.lock().timer_slack_ns = if (arg2 as i64) <= 0 { 50_000 } else { arg2 };
            Ok(0)
        }
        libc::PR_GET_TIMERSLACK => Ok(task.state.lock().timer_slack_ns as usize),
        libc::PR_TASK_PERF_EVENTS_DISABLE | libc::PR_TASK_PERF_EVENTS_ENABLE => Ok(0),
        libc::PR_MCE_KILL => {
            all_zero(&[arg4, arg5])?;
            match (arg2, arg3) {
                (0, 0) | (1, 0..=2) => Ok(0),
                _ => Err(Errno::EINVAL.into()),
            }
        }
        libc::PR_MCE_KILL_GET => {
            all_zero(&[arg2, arg3, arg4, arg5])?;
            Ok(libc::PR_MCE_KILL_DEFAULT as usize)
        }
        libc::PR_SET_CHILD_SUBREAPER => {
            let mut tables = task.pids().lock();
            if let Some(proc) = tables.procs.get_mut(&task.group().pid()) {
                proc.subreaper = arg2 != 0;
            }
            Ok(0)
        }
        libc::PR_GET_CHILD_SUBREAPER => {
            let set = task.pids().lock().procs.get(&task.group().pid()).is_some_and(|p| p.subreaper);
            task.write_object(UserAddr(arg2), &i32::from(set))?;
            Ok(0)
        }
        libc::PR_SET_NO_NEW_PRIVS => {
            if arg2 != 1 {
                return Err(Errno::EINVAL.into());
            }
            all_zero(&[arg3, arg4, arg5])?;
            task.state.lock().no_new_privs = true;
            Ok(0)
        }
        libc::PR_GET_NO_NEW_PRIVS => {
            all_zero(&[arg2, arg3, arg4, arg5])?;
            Ok(usize::from(task.state.lock().no_new_privs))
        }
        libc::PR_GET_TID_ADDRESS => {
            let addr = task.state.lock().clear_child_tid;
            task.write_object(UserAddr(arg2), &addr.0)?;
            Ok(0)
        }
        libc::PR_SET_THP_DISABLE => {
            all_zero(&[arg3, arg4, arg5])?;
            Ok(0)
        }
        libc::PR_GET_THP_DISABLE => {
            all_zero(&[arg2, arg3, arg4, arg5])?;
            Ok(0)
        }
        libc::PR_SET_PTRACER => Ok(0),
        PR_SET_IO_FLUSHER | PR_GET_IO_FLUSHER if !task.creds().has(Caps::SYS_RESOURCE) => {
            Err(Errno::EPERM.into())
        }
        PR_SET_MM => {
            if !task.creds().has(Caps::SYS_RESOURCE) {
                return Err(Errno::EPERM.into());
            }
            unsupported(task, "prctl(PR_SET_MM)")
        }
        PR_GET_SPECULATION | PR_SET_SPECULATION => Err(Errno::ENODEV.into()),
        PR_SET_TAGGED_ADDR | PR_GET_TAGGED_ADDR | PR_SCHED_CORE => Err(Errno::EINVAL.into()),
        PR_SET_VMA => {
            // PR_SET_VMA_ANON_NAME is the only one there is.
            if arg2 != 0 {
                return Err(Errno::EINVAL.into());
            }
            let name = if arg5 == 0 { None } else { Some(vma_name(task, UserAddr(arg5))?) };
            task.mm().set_anon_name(UserAddr(arg3), arg4, name.as_deref())?;
            Ok(0)
        }
        option if PR_MPX.contains(&option) => Err(Errno::EINVAL.into()),
        option => {
            task.kernel().log_unsupported(&format!("prctl({option})"), Errno::EINVAL);
            Err(Errno::EINVAL.into())
        }
    }
}

/// ANON_VMA_NAME_MAX_LEN, without the NUL.
const VMA_NAME_MAX: usize = 79;

/// A name of printable characters that cannot be mistaken for the syntax around it.
fn vma_name(task: &CurrentTask, at: UserAddr) -> Result<Vec<u8>, Errno> {
    let name = match task.read_cstring(at, VMA_NAME_MAX) {
        Err(Errno::ENAMETOOLONG) => return Err(Errno::EINVAL),
        name => name?,
    };
    let valid = |b: &u8| (0x20..0x7f).contains(b) && !b"\\`$[]".contains(b);
    if name.iter().all(valid) { Ok(name) } else { Err(Errno::EINVAL) }
}

fn unsupported(task: &CurrentTask, what: &str) -> SyscallResult {
    task.kernel().log_unsupported(what, Errno::EINVAL);
    Err(Errno::EINVAL.into())
}

fn capability(number: u64) -> Result<Caps, Errno> {
    if number > u64::from(LAST_CAP) { Err(Errno::EINVAL) } else { Ok(Caps::from_bits_truncate(1 << number)) }
}

fn set_securebits(task: &CurrentTask, bits: u64) -> SyscallResult {
    let mut new = (*task.creds()).clone();
    let Ok(bits) = u32::try_from(bits) else { return Err(Errno::EPERM.into()) };
    let old = new.securebits;
    let locked = (old & SECUREBITS_LOCKS) >> 1;
    let refused = locked & (old ^ bits) != 0 // a locked bit changes
        || old & SECUREBITS_LOCKS & !bits != 0 // a lock is taken off
        || bits & !SECUREBITS != 0
        || !new.has(Caps::SETPCAP);
    if refused {
        return Err(Errno::EPERM.into());
    }
    new.securebits = bits;
    task.commit_creds(new);
    Ok(0)
}

fn ambient(task: &CurrentTask, what: u64, cap: u64, rest: [u64; 2]) -> SyscallResult {
    let mut new = (*task.creds()).clone();
    if what == libc::PR_CAP_AMBIENT_CLEAR_ALL as u64 {
        all_zero(&[cap, rest[0], rest[1]])?;
        new.ambient = Caps::empty();
        task.commit_creds(new);
        return Ok(0);
    }
    all_zero(&rest)?;
    let cap = capability(cap)?;
    match i32::try_from(what) {
        Ok(libc::PR_CAP_AMBIENT_IS_SET) => return Ok(usize::from(new.ambient.contains(cap))),
        Ok(libc::PR_CAP_AMBIENT_RAISE) => {
            if !new.permitted.contains(cap)
                || !new.inheritable.contains(cap)
                || new.securebits & SECBIT_NO_CAP_AMBIENT_RAISE != 0
            {
                return Err(Errno::EPERM.into());
            }
            new.ambient |= cap;
        }
        Ok(libc::PR_CAP_AMBIENT_LOWER) => new.ambient &= !cap,
        _ => return Err(Errno::EINVAL.into()),
    }
    task.commit_creds(new);
    Ok(0)
}

const ARCH_SET_GS: i32 = 0x1001;
const ARCH_SET_FS: i32 = 0x1002;
const ARCH_GET_FS: i32 = 0x1003;
const ARCH_GET_GS: i32 = 0x1004;
const ARCH_GET_CPUID: i32 = 0x1011;
const ARCH_SET_CPUID: i32 = 0x1012;
const ARCH_GET_XCOMP_SUPP: i32 = 0x1021;
const ARCH_GET_XCOMP_PERM: i32 = 0x1022;

/// `arch_prctl(2)`.
pub fn sys_arch_prctl(task: &CurrentTask, code: i32, addr: UserAddr) -> SyscallResult {
    match code {
        ARCH_SET_FS | ARCH_SET_GS => {
            if addr >= UserAddr::TASK_SIZE {
                return Err(Errno::EPERM.into());
            }
            let mut regs = task.regs.borrow_mut();
            if code == ARCH_SET_FS {
                regs.fs_base = addr.0;
            } else {
                regs.gs_base = addr.0;
            }
            Ok(0)
        }
        ARCH_GET_FS | ARCH_GET_GS => {
            let regs = *task.regs.borrow();
            task.write_object(addr, if code == ARCH_GET_FS { &regs.fs_base } else { &regs.gs_base })?;
            Ok(0)
        }
        ARCH_GET_CPUID => Ok(1),
        ARCH_SET_CPUID => Err(Errno::ENODEV.into()),
        ARCH_GET_XCOMP_SUPP | ARCH_GET_XCOMP_PERM => {
            task.write_object(addr, &task.kernel().platform.xcr0())?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}
