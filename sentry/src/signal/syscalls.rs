//! The signal calls: `rt_sigaction(2)`, masks, waiting, alternate stacks, and everything of `kill(2)`'s family.

use std::sync::Arc;

use quicksand_abi::signal::{
    MINSIGSTKSZ, SA_ALL, SA_EXPOSE_TAGBITS, SIG_DFL, SIG_IGN, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK,
    SigAction, SigInfo, StackT, code,
};
use quicksand_abi::{Errno, Timespec, UserAddr};

use super::SignalSet;
use super::send::{Origin, send};
use crate::sync::Events;
use crate::syscalls::{Blocked, OnSignal, Resume, SyscallResult, WakeReason};
use crate::task::credentials::Caps;
use crate::task::{CurrentTask, Task, ThreadGroup};

const SIGSET_SIZE: usize = 8;

fn check_set_size(size: usize) -> Result<(), Errno> {
    if size == SIGSET_SIZE { Ok(()) } else { Err(Errno::EINVAL) }
}

/// `rt_sigaction(2)`.
pub fn sys_rt_sigaction(
    task: &CurrentTask,
    sig: i32,
    act: UserAddr,
    old: UserAddr,
    size: usize,
) -> SyscallResult {
    check_set_size(size)?;
    let new = if act.is_null() { None } else { Some(task.read_object::<SigAction>(act)?) };
    if !super::is_valid(sig) || (new.is_some() && SignalSet::UNBLOCKABLE.contains(sig)) {
        return Err(Errno::EINVAL.into());
    }
    let previous = {
        let mut state = task.group().state.lock();
        match new {
            None => state.actions.get(sig),
            Some(mut new) => {
                new.flags &= SA_ALL | SA_EXPOSE_TAGBITS;
                new.mask = SignalSet(new.mask).without(SignalSet::UNBLOCKABLE).0;
                let previous = state.actions.set(sig, new);
                let ignored =
                    new.handler == SIG_IGN || (new.handler == SIG_DFL && SignalSet::IGNORED.contains(sig));
                if ignored {
                    // POSIX: what is pending and now ignored is discarded.
                    state.pending.discard(SignalSet::of(sig));
                    for other in &state.tasks {
                        other.signals.pending.lock().discard(SignalSet::of(sig));
                    }
                }
                previous
            }
        }
    };
    if !old.is_null() {
        task.write_object(old, &previous)?;
    }
    Ok(0)
}

/// `rt_sigprocmask(2)`.
pub fn sys_rt_sigprocmask(
    task: &CurrentTask,
    how: i32,
    set: UserAddr,
    old: UserAddr,
    size: usize,
) -> SyscallResult {
    check_set_size(size)?;
    let previous = task.signals.blocked();
    if !set.is_null() {
        let new = SignalSet(task.read_object::<u64>(set)?).without(SignalSet::UNBLOCKABLE);
        let mask = match how {
            libc::SIG_BLOCK => previous.union(new),
            libc::SIG_UNBLOCK => previous.without(new),
            libc::SIG_SETMASK => new,
            _ => return Err(Errno::EINVAL.into()),
        };
        if mask != previous {
            task.set_blocked(mask);
        }
    }
    if !old.is_null() {
        task.write_object(old, &previous.0)?;
    }
    Ok(0)
}

/// `rt_sigpending(2)`: a shorter set than ours is allowed.
pub fn sys_rt_sigpending(task: &CurrentTask, set: UserAddr, size: usize) -> SyscallResult {
    if size > SIGSET_SIZE {
        return Err(Errno::EINVAL.into());
    }
    let pending = task.group().state.lock().pending.set();
    let pending = pending.union(task.signals.pending_set()).intersect(task.signals.blocked());
    task.write_bytes(set, &pending.0.to_ne_bytes()[..size])?;
    Ok(0)
}

/// `rt_sigsuspend(2)`.
pub fn sys_rt_sigsuspend(task: &CurrentTask, set: UserAddr, size: usize) -> SyscallResult {
    check_set_size(size)?;
    if task.wake_reason() == WakeReason::First {
        let set = task.read_object::<u64>(set)?;
        task.set_temporary_mask(SignalSet(set));
    }
    Err(Blocked::until(None).into())
}

/// `pause(2)`.
pub fn sys_pause(_task: &CurrentTask) -> SyscallResult {
    Err(Blocked::until(None).into())
}

impl CurrentTask {
    /// Takes a pending signal that is in `set`: the task's own first, then the group's.
    pub fn dequeue_signal(&self, set: SignalSet) -> Option<SigInfo> {
        let set = set.without(SignalSet::UNBLOCKABLE);
        let mut state = self.group().state.lock();
        let own = self.signals.pending.lock().take(set);
        let mut info = own.or_else(|| state.pending.take(set))?;
        self.group().timers.delivered(&mut info);
        Some(info)
    }
    /// What is pending for this task or its group, blocked or not (signalfd's readiness).
    pub fn pending_signals(&self) -> SignalSet {
        self.group().state.lock().pending.set().union(self.signals.pending_set())
    }
}

/// `rt_sigtimedwait(2)`.
pub fn sys_rt_sigtimedwait(
    task: &CurrentTask,
    set: UserAddr,
    info: UserAddr,
    timeout: UserAddr,
    size: usize,
) -> SyscallResult {
    check_set_size(size)?;
    let wanted = SignalSet(task.read_object::<u64>(set)?);
    let resume = task.take_resume();
    let deadline = match resume {
        Resume::Deadline(deadline) => deadline,
        _ if timeout.is_null() => None,
        _ => {
            let span = task.read_object::<Timespec>(timeout)?.to_duration()?;
            Some(task.kernel().clocks.monotonic().saturating_add(span))
        }
    };
    if let Some(signal) = task.dequeue_signal(wanted) {
        if !info.is_null() {
            task.write_object(info, &signal)?;
        }
        return Ok(signal.signo as usize);
    }
    match task.wake_reason() {
        WakeReason::Interrupted => return Err(Errno::EINTR.into()),
        WakeReason::Timeout => return Err(Errno::EAGAIN.into()),
        WakeReason::First | WakeReason::Event => {}
    }
    if deadline.is_some_and(|d| d <= task.kernel().clocks.monotonic()) {
        return Err(Errno::EAGAIN.into());
    }
    Err(Blocked::on(task.group().signals.queue.clone(), Events::IN)
        .deadline(deadline)
        .resume(Resume::Deadline(deadline))
        .on_signal(OnSignal::CallAgain)
        .into())
}

/// `sigaltstack(2)`.
pub fn sys_sigaltstack(task: &CurrentTask, new: UserAddr, old: UserAddr) -> SyscallResult {
    let sp = task.regs.borrow().rsp;
    let current = task.altstack.get();
    let new = if new.is_null() { None } else { Some(task.read_object::<StackT>(new)?) };
    if let Some(new) = new {
        set_altstack(task, &new, sp, true)?;
    }
    if !old.is_null() {
        let mode = if current.size == 0 {
            SS_DISABLE
        } else if current.flags & SS_AUTODISARM == 0 && sp > current.sp && sp - current.sp <= current.size {
            SS_ONSTACK
        } else {
            0
        };
        let shown = StackT { flags: mode | (current.flags & SS_AUTODISARM), ..current };
        task.write_object(old, &shown)?;
    }
    Ok(0)
}

/// The rules of `do_sigaltstack`. `checked` is false for `rt_sigreturn`, which puts back what was there.
pub(super) fn set_altstack(task: &CurrentTask, new: &StackT, sp: u64, checked: bool) -> Result<(), Errno> {
    if task.on_altstack(sp) {
        return Err(Errno::EPERM);
    }
    let mode = new.flags & !SS_AUTODISARM;
    if mode != SS_DISABLE && mode != SS_ONSTACK && mode != 0 {
        return Err(Errno::EINVAL);
    }
    if mode == SS_DISABLE {
        task.altstack.set(StackT { sp: 0, flags: new.flags, pad: 0, size: 0 });
        return Ok(());
    }
    if checked && new.size < MINSIGSTKSZ {
        return Err(Errno::ENOMEM);
    }
    task.altstack.set(StackT { pad: 0, ..*new });
    Ok(())
}

/// `kill_ok_by_cred`, and SIGCONT within a session.
fn may_signal(
    task: &CurrentTask,
    group: &Arc<ThreadGroup>,
    target: Option<&Task>,
    sig: i32,
) -> Result<(), Errno> {
    if Arc::ptr_eq(task.group(), group) {
        return Ok(());
    }
    let own = task.creds();
    let other = match target {
        Some(target) => Some(target.creds()),
        None => group.credentials(),
    };
    let Some(other) = other else { return Ok(()) };
    let alike =
        own.euid == other.suid || own.euid == other.ruid || own.ruid == other.suid || own.ruid == other.ruid;
    if alike || own.has(Caps::KILL) {
        return Ok(());
    }
    if sig == libc::SIGCONT && task.pids().same_session(task.group(), group) {
        return Ok(());
    }
    Err(Errno::EPERM)
}

/// Checks and sends; signal 0 only checks.
pub(crate) fn signal_group(
    task: &CurrentTask,
    group: &Arc<ThreadGroup>,
    sig: i32,
    info: SigInfo,
) -> Result<(), Errno> {
    if !(0..=quicksand_abi::signal::NSIG).contains(&sig) {
        return Err(Errno::EINVAL);
    }
    // Timers and other things of the kernel's send without asking; here it is always a process that sends.
    may_signal(task, group, None, sig)?;
    if sig == 0 { Ok(()) } else { send(group, None, info, Origin::Inside) }
}

fn from_self(task: &CurrentTask, sig: i32, code: i32) -> SigInfo {
    SigInfo::user(sig, code, task.group().pid(), task.creds().ruid)
}

/// `kill(2)`.
pub fn sys_kill(task: &CurrentTask, pid: i32, sig: i32) -> SyscallResult {
    let info = from_self(task, sig, code::SI_USER);
    let pids = task.pids();
    if pid > 0 {
        let group = pids.group(pid).ok_or(Errno::ESRCH)?;
        signal_group(task, &group, sig, info)?;
        return Ok(0);
    }
    if pid == i32::MIN {
        return Err(Errno::ESRCH.into());
    }
    if pid == -1 {
        let all = pids.processes();
        let others = all.iter().filter(|p| p.pid > 1 && !Arc::ptr_eq(&p.group, task.group()));
        // As Linux counts: what may not be signalled is passed over in silence.
        let mut result = Err(Errno::ESRCH);
        for other in others {
            match signal_group(task, &other.group, sig, info) {
                Err(Errno::EPERM) if result.is_err() => result = Ok(()),
                Err(Errno::EPERM) => {}
                sent => result = sent,
            }
        }
        result?;
        return Ok(0);
    }
    let pgid = if pid == 0 { pids.pgid(task.group()) } else { -pid };
    let members = pids.lock().members(pgid);
    let mut result = Err(Errno::ESRCH);
    for group in &members {
        let sent = signal_group(task, group, sig, info);
        if result.is_err() {
            result = sent;
        }
    }
    result?;
    Ok(0)
}

fn signal_thread(task: &CurrentTask, tgid: i32, tid: i32, sig: i32, info: SigInfo) -> Result<(), Errno> {
    let target = task.pids().task(tid).ok_or(Errno::ESRCH)?;
    if tgid > 0 && target.group().pid() != tgid {
        return Err(Errno::ESRCH);
    }
    if !(0..=quicksand_abi::signal::NSIG).contains(&sig) {
        return Err(Errno::EINVAL);
    }
    may_signal(task, target.group(), Some(&target), sig)?;
    if sig == 0 {
        return Ok(());
    }
    match send(target.group(), Some(&target), info, Origin::Inside) {
        // A thread that is just exiting has seen the signal, so to speak.
        Err(e) if target.mm_opt().is_some() => Err(e),
        _ => Ok(()),
    }
}

/// `tkill(2)`.
pub fn sys_tkill(task: &CurrentTask, tid: i32, sig: i32) -> SyscallResult {
    if tid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    signal_thread(task, 0, tid, sig, from_self(task, sig, code::SI_TKILL))?;
    Ok(0)
}

/// `tgkill(2)`.
pub fn sys_tgkill(task: &CurrentTask, tgid: i32, tid: i32, sig: i32) -> SyscallResult {
    if tid <= 0 || tgid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    signal_thread(task, tgid, tid, sig, from_self(task, sig, code::SI_TKILL))?;
    Ok(0)
}

/// Reads the caller's siginfo; only a signal to oneself may claim to come from the kernel or from `kill`.
pub(crate) fn read_siginfo(task: &CurrentTask, at: UserAddr, sig: i32, to: i32) -> Result<SigInfo, Errno> {
    let mut info = task.read_object::<SigInfo>(at)?;
    info.signo = sig;
    if (info.code >= 0 || info.code == code::SI_TKILL) && task.group().pid() != to {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

/// `rt_sigqueueinfo(2)`.
pub fn sys_rt_sigqueueinfo(task: &CurrentTask, pid: i32, sig: i32, info: UserAddr) -> SyscallResult {
    let info = read_siginfo(task, info, sig, pid)?;
    let group = task.pids().group(pid).ok_or(Errno::ESRCH)?;
    signal_group(task, &group, sig, info)?;
    Ok(0)
}

/// `rt_tgsigqueueinfo(2)`.
pub fn sys_rt_tgsigqueueinfo(
    task: &CurrentTask,
    tgid: i32,
    tid: i32,
    sig: i32,
    info: UserAddr,
) -> SyscallResult {
    let mut info = task.read_object::<SigInfo>(info)?;
    info.signo = sig;
    if tid <= 0 || tgid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    // Here Linux compares the thread, not the process.
    if (info.code >= 0 || info.code == code::SI_TKILL) && task.tid() != tid {
        return Err(Errno::EPERM.into());
    }
    signal_thread(task, tgid, tid, sig, info)?;
    Ok(0)
}
