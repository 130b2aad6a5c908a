//! The end of tasks and processes (`do_exit`, `exit_notify`, `release_task`).
//!
//! A task ends in its own loop, in this order: user memory it promised to clear, its files (so that readers of its pipes
//! see the end before the parent hears of it), its mappings, then its place in the process tree; at last the host gets the
//! pages back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quicksand_abi::signal::{SA_NOCLDWAIT, SIG_IGN, SigInfo, code};

use super::cputime::Usage;
use super::group::ExitStatus;
use super::pid::Tables;
use super::{CurrentTask, Task, ThreadGroup, Work, futex, futex_pi, robust};
use crate::signal::{send_to_group, stop};
use crate::sync::{Events, Waiter, defer};
use crate::syscalls::{SyscallError, SyscallResult};
use crate::vfs::FdTable;

/// `exit(2)`: this task only.
pub fn sys_exit(task: &CurrentTask, status: i32) -> SyscallResult {
    task.exiting.set(Some(ExitStatus::Code(status as u8)));
    Err(SyscallError::NoReturn)
}

/// `exit_group(2)`.
pub fn sys_exit_group(task: &CurrentTask, status: i32) -> SyscallResult {
    let status = ExitStatus::Code(status as u8);
    task.group().kill_all(status);
    task.exiting.set(Some(status));
    Err(SyscallError::NoReturn)
}

/// Ends the task. The last thing its host thread does.
pub(super) fn exit_task(current: CurrentTask) {
    let status = current.exiting.get().unwrap_or(ExitStatus::Code(0));
    futex::cancel_wait(&current);
    robust::release_on_exit(&current);
    futex_pi::release_owned(&current);
    drop(current.pending_exec.take());
    let task = current.task().clone();
    leave_vfork(&task);
    // The peak of its memory, while it has any; where others go on using that, they will tell.
    let max_rss = if current.shares_mm() { 0 } else { current.mm().peak_resident_bytes() / 1024 };
    current.set_files(Arc::new(FdTable::default()));
    // The pages go last: the host takes its time over them, and nobody waits for that.
    let pages = current.mm().space.clone();
    // The context goes before the address space it ran in; both before anybody is told.
    drop(current);
    let (mm, files, fs) = {
        let mut state = task.state.lock();
        (state.mm.take(), state.files.take(), state.fs.take())
    };
    drop((mm, files, fs));
    let group = task.group().clone();
    if group.pid() == 1 {
        end_namespace(&task, status);
    }
    task.cpu.stop();
    leave_tree(&task, status, max_rss);
    group.child_queue.notify(Events::IN);
    group.pids().gone.notify(Events::IN);
    drop(pages);
}

/// Lets the parent that sits in `vfork(2)` go on: the task has its own memory now, or none.
pub(super) fn leave_vfork(task: &Task) {
    let parent = task.state.lock().vfork_parent.take();
    if let Some(parent) = parent {
        parent.child_queue.notify(Events::IN);
    }
}

/// The last task of init kills everybody else, and goes only when they have gone (`zap_pid_ns_processes`).
fn end_namespace(task: &Arc<Task>, status: ExitStatus) {
    let group = task.group();
    let last = {
        let mut state = group.state.lock();
        let last = state.tasks.len() == 1;
        if last {
            // Children that end from now on are not waited for by anybody.
            state.exit_status.get_or_insert(status);
        }
        last
    };
    if !last {
        return;
    }
    let waiter = Arc::new(Waiter::default());
    let _registration = group.pids().gone.register(Events::all(), waiter.clone());
    loop {
        let others: Vec<Arc<ThreadGroup>> = {
            let mut tables = group.pids().lock();
            tables.dying = true;
            let alive = tables.procs.values().filter(|p| p.group.id != group.id && !p.group.is_dead());
            alive.map(|p| p.group.clone()).collect()
        };
        if others.is_empty() {
            return;
        }
        for other in others {
            other.kill_all(ExitStatus::signal(libc::SIGKILL));
        }
        waiter.park(None);
    }
}

/// Takes a task out of its group and namespace; the last one makes the process a zombie.
fn leave_tree(task: &Arc<Task>, own_status: ExitStatus, max_rss: u64) {
    let group = task.group();
    let usage = Usage { max_rss, ..task.usage() };
    let (creds, name) = {
        let state = task.state.lock();
        (state.creds.clone(), state.name.clone())
    };
    let mut tables = group.pids().lock();
    let (last, event) = {
        let mut state = group.state.lock();
        state.tasks.retain(|t| t.id != task.id);
        state.ended.add(&usage);
        let last = state.tasks.is_empty();
        if last {
            state.exit_status.get_or_insert(own_status);
            state.dead = true;
            state.zombie = Some((creds.clone(), name));
            (true, None)
        } else {
            // What this task was to take is offered to the others.
            let pending = state.pending.set();
            crate::signal::send::wake_one(&state, pending, None);
            (last, stop::complete_stop(&mut state))
        }
    };
    tables.tasks.remove(&task.tid());
    if task.tid() == group.pid()
        && let Some(proc) = tables.procs.get_mut(&group.pid())
    {
        proc.ended_leader = Some(task.clone());
    }
    orphan_children_of_task(&mut tables, task, last);
    if last {
        crate::ipc::sem::undo_all(task);
        if let Some(proc) = tables.procs.get_mut(&group.pid()) {
            proc.zombie_uid = creds.ruid;
        }
        process_ended(&mut tables, group);
    } else {
        tables.uncount_user(creds.ruid);
    }
    drop(tables);
    crate::sync::run_deferred();
    if let Some(event) = event {
        stop::tell_parent(group, event);
    }
    if last {
        group.exit_queue.notify_all();
        let told = std::mem::take(&mut group.state.lock().closed_at_end);
        drop(told);
    }
}

/// PDEATHSIG for the children this very task made; they belong to another task of the process from now on.
fn orphan_children_of_task(tables: &mut Tables, task: &Task, last: bool) {
    let pid = task.group().pid();
    let Some(children) = tables.procs.get(&pid).map(|p| p.children.clone()) else { return };
    let heir = if last { 0 } else { task.group().any_task().map_or(0, |t| t.id) };
    for child in children {
        let Some(proc) = tables.procs.get_mut(&child).filter(|p| p.parent_task == task.id) else { continue };
        proc.parent_task = heir;
        for thread in proc.group.tasks() {
            let signal = thread.state.lock().pdeath_signal;
            if signal != 0 {
                let info = SigInfo::user(signal, code::SI_USER, pid, task.creds().ruid);
                // Over RLIMIT_SIGPENDING the signal is lost, as in Linux.
                let _ = send_to_group(&proc.group, info);
            }
        }
    }
}

/// The process is a zombie now: its children get another parent, and its parent is told.
fn process_ended(tables: &mut Tables, group: &Arc<ThreadGroup>) {
    let pid = group.pid();
    let Some(proc) = tables.procs.get_mut(&pid) else { return };
    let (pgid, sid, parent) = (proc.pgid, proc.sid, proc.parent);
    let children = std::mem::take(&mut proc.children);
    // Its own group may be orphaned by its going.
    if let Some(parent) = tables.procs.get(&parent)
        && parent.pgid != pgid
        && parent.sid == sid
    {
        hang_up_if_orphaned(tables, pgid, Some(pid));
    }
    let reaper = find_reaper(tables, pid, parent);
    for child in children {
        let Some(proc) = tables.procs.get_mut(&child) else { continue };
        let (child_pgid, child_sid) = (proc.pgid, proc.sid);
        proc.parent = reaper;
        proc.parent_task = 0;
        let child_group = proc.group.clone();
        child_group.tasks().iter().for_each(|task| task.answers.invalidate());
        child_group.exit_signal.store(libc::SIGCHLD, Ordering::SeqCst);
        match tables.procs.get_mut(&reaper) {
            Some(reaper) => {
                reaper.children.push(child);
                if child_group.is_dead() {
                    tell_parent(tables, &child_group);
                }
            }
            // Nobody will wait for it.
            None if child_group.is_dead() => {
                tables.remove_process(child);
            }
            None => {}
        }
        if child_pgid != pgid && child_sid == sid {
            hang_up_if_orphaned(tables, child_pgid, None);
        }
    }
    if sid == pid {
        hang_up_session(tables, sid);
    }
    tell_parent(tables, group);
}

/// Who adopts: the nearest ancestor that is a subreaper, else init, else nobody.
fn find_reaper(tables: &Tables, pid: i32, parent: i32) -> i32 {
    let mut ancestor = parent;
    while let Some(proc) = tables.procs.get(&ancestor) {
        if proc.subreaper && !proc.group.is_dead() {
            return ancestor;
        }
        ancestor = proc.parent;
    }
    match tables.procs.get(&1) {
        Some(init) if pid != 1 && !init.group.is_dead() => 1,
        _ => 0,
    }
}

/// A newly orphaned group with stopped members gets SIGHUP and SIGCONT.
fn hang_up_if_orphaned(tables: &Tables, pgid: i32, without: Option<i32>) {
    if !tables.is_orphaned(pgid, without) {
        return;
    }
    let members = tables.members(pgid);
    if members.iter().any(|m| m.state.lock().stop.signal.is_some()) {
        for member in members {
            for signal in [libc::SIGHUP, libc::SIGCONT] {
                // Standard signals: no limit applies.
                let _ = send_to_group(&member, SigInfo::kernel(signal));
            }
        }
    }
}

/// A session leader has ended: its terminal lets go of the session (`disassociate_ctty`).
fn hang_up_session(tables: &mut Tables, sid: i32) {
    let Some(session) = tables.sessions.get_mut(&sid) else { return };
    let had_tty = session.tty.take().is_some();
    // It stays when the terminal was hung up before: that group hears of it now (`tty_old_pgrp`).
    let foreground = std::mem::take(&mut session.foreground);
    if tables.pgrps.get(&foreground).is_none_or(|group| group.sid != sid) {
        return;
    }
    let signals: &[i32] = if had_tty { &[libc::SIGHUP] } else { &[libc::SIGHUP, libc::SIGCONT] };
    for member in tables.members(foreground) {
        for signal in signals.iter().copied() {
            // Standard signals: no limit applies.
            let _ = send_to_group(&member, SigInfo::kernel(signal));
        }
    }
}

/// Tells the parent that `group` is a zombie, or reaps it at once where the parent does not care (`do_notify_parent`).
fn tell_parent(tables: &mut Tables, group: &Arc<ThreadGroup>) {
    let pid = group.pid();
    let Some(parent) = tables.procs.get(&pid).map(|p| p.parent) else { return };
    let Some(parent) = tables.procs.get(&parent).map(|p| p.group.clone()) else {
        // The host started it, and hears of it by `exit_queue`.
        reap(tables, pid);
        return;
    };
    let signal = group.exit_signal.load(Ordering::SeqCst);
    let action = parent.state.lock().actions.get(libc::SIGCHLD);
    let dying = parent.state.lock().exit_status.is_some() && parent.pid() == 1;
    let ignored = signal == libc::SIGCHLD && action.handler == SIG_IGN;
    if signal != 0 && !ignored {
        let (code, status) = exit_code(group);
        let uid = group.credentials().map_or(0, |c| c.ruid);
        let (utime, stime) = group.cpu_times().ticks();
        let info = SigInfo::child(signal, code, pid, uid, status, utime, stime);
        // Where a real-time exit signal is over the limit it is lost, as in Linux.
        let _ = send_to_group(&parent, info);
    }
    if ignored || dying || (signal == libc::SIGCHLD && action.flags & SA_NOCLDWAIT != 0) {
        reap(tables, pid);
    }
    // Once the tables are free: whoever is woken looks at them first.
    defer(Box::new(move || parent.child_queue.notify(Events::IN)));
}

/// `si_code` and `si_status` of a dead group.
pub(super) fn exit_code(group: &ThreadGroup) -> (i32, i32) {
    match group.state.lock().exit_status {
        Some(ExitStatus::Code(status)) => (code::CLD_EXITED, i32::from(status)),
        Some(ExitStatus::Signal { signal, core_dumped: false }) => (code::CLD_KILLED, signal),
        Some(ExitStatus::Signal { signal, core_dumped: true }) => (code::CLD_DUMPED, signal),
        None => (code::CLD_EXITED, 0),
    }
}

/// Takes back a task that never ran.
pub(crate) fn abandon(task: &Arc<Task>) {
    let group = task.group();
    let uid = task.creds().ruid;
    leave_vfork(task);
    let (mm, files, fs) = {
        let mut state = task.state.lock();
        (state.mm.take(), state.files.take(), state.fs.take())
    };
    let mut tables = group.pids().lock();
    let last = {
        let mut state = group.state.lock();
        state.tasks.retain(|t| t.id != task.id);
        state.tasks.is_empty()
    };
    tables.tasks.remove(&task.tid());
    if last {
        if let Some(proc) = tables.procs.get_mut(&group.pid()) {
            proc.zombie_uid = uid;
        }
        tables.remove_process(group.pid());
    } else {
        tables.uncount_user(uid);
    }
    drop(tables);
    drop((mm, files, fs));
}

/// Takes a zombie out of the tree; its parent's account gets what it used.
pub(super) fn reap(tables: &mut Tables, pid: i32) {
    let Some(proc) = tables.remove_process(pid) else { return };
    let used = {
        let state = proc.group.state.lock();
        let mut used = state.ended;
        used.add(&state.children);
        used
    };
    if let Some(parent) = tables.procs.get(&proc.parent) {
        parent.group.state.lock().children.add(&used);
    }
}

/// Ends all tasks of the group but `task`: for `execve(2)`. True when no other is left.
pub(super) fn end_other_tasks(task: &CurrentTask) -> bool {
    let state = task.group().state.lock();
    for other in state.tasks.iter().filter(|t| t.id != task.id) {
        other.interrupt(Work::KILL);
    }
    state.tasks.len() <= 1
}
