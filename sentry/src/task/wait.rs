//! `wait4(2)` and `waitid(2)`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quicksand_abi::signal::{SigInfo, code};
use quicksand_abi::{Errno, UserAddr};

use super::cputime::Usage;
use super::exit::{exit_code, reap};
use super::group::ChildEvent;
use super::pid::Proc;
use super::{CurrentTask, ThreadGroup};
use crate::sync::Events;
use crate::syscalls::{Blocked, SyscallResult};

const WNOHANG: u32 = libc::WNOHANG as u32;
const WUNTRACED: u32 = libc::WUNTRACED as u32;
const WEXITED: u32 = libc::WEXITED as u32;
const WCONTINUED: u32 = libc::WCONTINUED as u32;
const WNOWAIT: u32 = libc::WNOWAIT as u32;
const WNOTHREAD: u32 = libc::__WNOTHREAD as u32;
const WALL: u32 = libc::__WALL as u32;
const WCLONE: u32 = libc::__WCLONE as u32;

/// Whom to wait for.
#[derive(Debug)]
enum Which {
    Any,
    Pid(i32),
    Pgid(i32),
    Group(Arc<ThreadGroup>),
}

/// What was found.
#[derive(Debug)]
struct Found {
    pid: i32,
    uid: u32,
    code: i32,
    status: i32,
    /// The status word of `wait4`.
    word: i32,
    usage: Usage,
}

/// One look (`do_wait`, without the waiting). `None`: there are children, but nothing has happened to them.
fn look(task: &CurrentTask, which: &Which, options: u32) -> Result<Option<Found>, Errno> {
    let mut tables = task.pids().lock();
    let own = task.group().pid();
    let children = tables.procs.get(&own).map_or(Vec::new(), |p| p.children.clone());
    let mut any = false;
    for pid in children {
        let Some(proc) = tables.procs.get(&pid) else { continue };
        if !is_eligible(task, pid, proc, which, options) {
            continue;
        }
        let group = proc.group.clone();
        if group.is_dead() {
            if options & WEXITED == 0 {
                continue;
            }
            let (code, status) = exit_code(&group);
            let word = group.state.lock().exit_status.map_or(0, |s| s.to_wait_status());
            let found = describe(&group, pid, code, status, word);
            if options & WNOWAIT == 0 {
                reap(&mut tables, pid);
            }
            return Ok(Some(found));
        }
        any = true;
        let event = {
            let mut state = group.state.lock();
            let wanted = match state.event {
                Some(ChildEvent::Stopped(_)) => options & WUNTRACED != 0 && state.stop.complete,
                Some(ChildEvent::Continued) => options & WCONTINUED != 0,
                None => false,
            };
            match (wanted, options & WNOWAIT != 0) {
                (false, _) => None,
                (true, true) => state.event,
                (true, false) => state.event.take(),
            }
        };
        match event {
            Some(ChildEvent::Stopped(signal)) => {
                return Ok(Some(describe(&group, pid, code::CLD_STOPPED, signal, signal << 8 | 0x7f)));
            }
            Some(ChildEvent::Continued) => {
                return Ok(Some(describe(&group, pid, code::CLD_CONTINUED, libc::SIGCONT, 0xffff)));
            }
            None => {}
        }
    }
    if any { Ok(None) } else { Err(Errno::ECHILD) }
}

fn describe(group: &ThreadGroup, pid: i32, code: i32, status: i32, word: i32) -> Found {
    let uid = group.credentials().map_or(0, |c| c.ruid);
    let mut usage = group.usage();
    usage.add(&group.children_usage());
    Found { pid, uid, code, status, word, usage }
}

/// `eligible_child`.
fn is_eligible(task: &CurrentTask, pid: i32, proc: &Proc, which: &Which, options: u32) -> bool {
    let wanted = match which {
        Which::Any => true,
        Which::Pid(wanted) => pid == *wanted,
        Which::Pgid(pgid) => proc.pgid == *pgid,
        Which::Group(group) => Arc::ptr_eq(group, &proc.group),
    };
    if !wanted || (options & WNOTHREAD != 0 && proc.parent_task != task.id) {
        return false;
    }
    let clone_child = proc.group.exit_signal.load(Ordering::SeqCst) != libc::SIGCHLD;
    options & WALL != 0 || clone_child == (options & WCLONE != 0)
}

/// Looks, and waits where it may. `Ok(None)` only with WNOHANG.
fn wait(
    task: &CurrentTask,
    which: &Which,
    options: u32,
) -> Result<Option<Found>, crate::syscalls::SyscallError> {
    match look(task, which, options)? {
        Some(found) => Ok(Some(found)),
        None if options & WNOHANG != 0 => Ok(None),
        None => Err(Blocked::on(task.group().child_queue.clone(), Events::IN).into()),
    }
}

/// `wait4(2)`.
pub fn sys_wait4(
    task: &CurrentTask,
    pid: i32,
    status: UserAddr,
    options: u32,
    rusage: UserAddr,
) -> SyscallResult {
    if options & !(WNOHANG | WUNTRACED | WCONTINUED | WNOTHREAD | WCLONE | WALL) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let which = match pid {
        i32::MIN => return Err(Errno::ESRCH.into()),
        -1 => Which::Any,
        0 => Which::Pgid(task.pids().pgid(task.group())),
        pid if pid < 0 => Which::Pgid(-pid),
        pid => Which::Pid(pid),
    };
    let Some(found) = wait(task, &which, options | WEXITED)? else { return Ok(0) };
    if !status.is_null() {
        task.write_object(status, &found.word)?;
    }
    if !rusage.is_null() {
        task.write_object(rusage, &found.usage.to_rusage())?;
    }
    Ok(found.pid as usize)
}

/// `waitid(2)`.
pub fn sys_waitid(
    task: &CurrentTask,
    kind: i32,
    id: i32,
    info: UserAddr,
    options: u32,
    rusage: UserAddr,
) -> SyscallResult {
    let events = WEXITED | WUNTRACED | WCONTINUED;
    if options & !(events | WNOHANG | WNOWAIT | WNOTHREAD | WCLONE | WALL) != 0 || options & events == 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut nonblocking = false;
    let which = match kind {
        0 => Which::Any,
        1 if id > 0 => Which::Pid(id),
        2 if id == 0 => Which::Pgid(task.pids().pgid(task.group())),
        2 if id > 0 => Which::Pgid(id),
        3 if id >= 0 => {
            let (group, file_nonblocking) = super::pidfd::group_of(task, crate::syscalls::Fd(id))?;
            nonblocking = file_nonblocking;
            Which::Group(group)
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    let found = match wait(task, &which, options) {
        Err(crate::syscalls::SyscallError::Blocked(_)) if nonblocking => return Err(Errno::EAGAIN.into()),
        other => other?,
    };
    if let Some(found) = &found
        && !rusage.is_null()
    {
        task.write_object(rusage, &found.usage.to_rusage())?;
    }
    if !info.is_null() {
        // Only these fields are written: the rest of the caller's structure stays as it was.
        let answer = match &found {
            Some(f) => SigInfo::child(libc::SIGCHLD, f.code, f.pid, f.uid, f.status, 0, 0),
            None => SigInfo::new(0, 0),
        };
        let bytes = zerocopy::IntoBytes::as_bytes(&answer);
        task.write_bytes(info, &bytes[..12])?;
        let union_at = info.checked_add(16).ok_or(Errno::EFAULT)?;
        task.write_bytes(union_at, &bytes[16..28])?;
    }
    Ok(0)
}
