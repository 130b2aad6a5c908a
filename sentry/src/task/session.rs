//! Process groups, sessions, and what binds a terminal to a session.
//!
//! The terminal itself belongs to the tty layer. A session knows its controlling terminal by number only, and the
//! terminal's foreground group stands here, since only processes give it meaning.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quicksand_abi::{Errno, SigInfo};

use super::{CurrentTask, PidNamespace, ThreadGroup};
use crate::signal::send_to_pgrp;
use crate::syscalls::SyscallResult;

impl PidNamespace {
    /// The process group of a process; 0 once it is reaped.
    pub fn pgid(&self, group: &ThreadGroup) -> i32 {
        self.lock().procs.get(&group.pid()).map_or(0, |p| p.pgid)
    }
    /// The session of a process; 0 once it is reaped.
    pub fn sid(&self, group: &ThreadGroup) -> i32 {
        self.lock().procs.get(&group.pid()).map_or(0, |p| p.sid)
    }
    pub fn same_session(&self, a: &ThreadGroup, b: &ThreadGroup) -> bool {
        let tables = self.lock();
        match (tables.procs.get(&a.pid()), tables.procs.get(&b.pid())) {
            (Some(a), Some(b)) => a.sid == b.sid,
            _ => false,
        }
    }
    /// Whether a stop signal from a terminal would leave the process's group stopped for ever.
    pub fn is_own_pgrp_orphaned(&self, group: &ThreadGroup) -> bool {
        let tables = self.lock();
        tables.procs.get(&group.pid()).is_none_or(|p| tables.is_orphaned(p.pgid, None))
    }
    /// As [`PidNamespace::is_own_pgrp_orphaned`], by number.
    pub fn is_orphaned_pgrp(&self, pgid: i32) -> bool {
        self.lock().is_orphaned(pgid, None)
    }
    /// Whether the process leads its session.
    pub fn is_session_leader(&self, group: &ThreadGroup) -> bool {
        self.sid(group) == group.pid()
    }
    /// The session that a process group is in; `None` where there is no such group.
    pub fn pgrp_session(&self, pgid: i32) -> Option<i32> {
        self.lock().pgrps.get(&pgid).map(|p| p.sid)
    }

    // Terminals.

    /// The controlling terminal of a process's session.
    pub fn controlling_tty(&self, group: &ThreadGroup) -> Option<u64> {
        let tables = self.lock();
        let sid = tables.procs.get(&group.pid())?.sid;
        tables.sessions.get(&sid)?.tty
    }
    /// The session that `tty` controls.
    pub fn tty_session(&self, tty: u64) -> Option<i32> {
        self.lock().sessions.iter().find(|(_, s)| s.tty == Some(tty)).map(|(sid, _)| *sid)
    }
    /// Makes `tty` the controlling terminal of the session that `group` leads, with the leader's process group in the
    /// foreground. EPERM where it does not lead one or has another terminal, or the terminal has another session, unless
    /// `steal` takes it away from that one.
    pub fn set_controlling_tty(&self, group: &ThreadGroup, tty: u64, steal: bool) -> Result<(), Errno> {
        let mut tables = self.lock();
        let proc = tables.procs.get(&group.pid()).ok_or(Errno::EPERM)?;
        let (sid, pgid) = (proc.sid, proc.pgid);
        if sid != group.pid() {
            return Err(Errno::EPERM);
        }
        match tables.sessions.get(&sid).and_then(|s| s.tty) {
            Some(current) if current == tty => return Ok(()),
            Some(_) => return Err(Errno::EPERM),
            None => {}
        }
        if let Some(other) = tables.sessions.values_mut().find(|s| s.tty == Some(tty)) {
            if !steal {
                return Err(Errno::EPERM);
            }
            (other.tty, other.foreground) = (None, 0);
        }
        if let Some(session) = tables.sessions.get_mut(&sid) {
            (session.tty, session.foreground) = (Some(tty), pgid);
        }
        Ok(())
    }
    /// Parts a session from its terminal (TIOCNOTTY by its leader): the foreground group gets SIGHUP and SIGCONT.
    /// Returns the terminal.
    pub fn disassociate_tty(&self, sid: i32) -> Option<u64> {
        let (tty, foreground) = {
            let mut tables = self.lock();
            let session = tables.sessions.get_mut(&sid)?;
            (session.tty.take()?, std::mem::take(&mut session.foreground))
        };
        if foreground != 0 {
            send_to_pgrp(self, foreground, SigInfo::kernel(libc::SIGHUP));
            send_to_pgrp(self, foreground, SigInfo::kernel(libc::SIGCONT));
        }
        Some(tty)
    }
    /// The terminal is gone: its session is without. The foreground group is told when the leader ends, not now.
    pub fn lose_tty(&self, sid: i32) {
        if let Some(session) = self.lock().sessions.get_mut(&sid) {
            session.tty = None;
        }
    }
    /// The foreground process group of the terminal's session; 0 for none.
    pub fn foreground_pgrp(&self, tty: u64) -> i32 {
        self.lock().sessions.values().find(|s| s.tty == Some(tty)).map_or(0, |s| s.foreground)
    }
    /// `tcsetpgrp(3)`: ESRCH where there is no such group, EPERM where it is in another session.
    pub fn set_foreground_pgrp(&self, tty: u64, pgid: i32) -> Result<(), Errno> {
        let mut tables = self.lock();
        let sid = tables.pgrps.get(&pgid).ok_or(Errno::ESRCH)?.sid;
        match tables.sessions.get_mut(&sid) {
            Some(session) if session.tty == Some(tty) => {
                session.foreground = pgid;
                Ok(())
            }
            _ => Err(Errno::EPERM),
        }
    }
    /// A signal from the terminal to whoever is in its foreground.
    pub fn signal_foreground(&self, tty: u64, signal: i32) {
        let pgid = self.foreground_pgrp(tty);
        if pgid != 0 {
            send_to_pgrp(self, pgid, SigInfo::kernel(signal));
        }
    }
}

/// `setpgid(2)`.
pub fn sys_setpgid(task: &CurrentTask, pid: i32, pgid: i32) -> SyscallResult {
    let own = task.group().pid();
    let pid = if pid == 0 { own } else { pid };
    let pgid = if pgid == 0 { pid } else { pgid };
    if pgid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut tables = task.pids().lock();
    let own_sid = tables.procs.get(&own).ok_or(Errno::ESRCH)?.sid;
    // A number of a thread that leads nothing is refused as Linux does.
    if tables.tasks.get(&pid).is_some_and(|t| t.group().pid() != pid) {
        return Err(Errno::EINVAL.into());
    }
    let target = tables.procs.get(&pid).ok_or(Errno::ESRCH)?;
    if target.parent == own && pid != own {
        if target.sid != own_sid {
            return Err(Errno::EPERM.into());
        }
        if target.group.execs.load(Ordering::SeqCst) > 0 {
            return Err(Errno::EACCES.into());
        }
    } else if pid != own {
        return Err(Errno::ESRCH.into());
    }
    if target.sid == pid {
        return Err(Errno::EPERM.into());
    }
    if pgid != pid && tables.pgrps.get(&pgid).is_none_or(|p| p.sid != own_sid) {
        return Err(Errno::EPERM.into());
    }
    if target.pgid != pgid {
        let sid = target.sid;
        tables.join(pid, pgid, sid);
    }
    Ok(0)
}

/// `setsid(2)`.
pub fn sys_setsid(task: &CurrentTask) -> SyscallResult {
    let own = task.group().pid();
    let mut tables = task.pids().lock();
    let leads = tables.procs.get(&own).is_some_and(|p| p.sid == own);
    if leads || tables.pgrps.contains_key(&own) {
        return Err(Errno::EPERM.into());
    }
    tables.join(own, own, own);
    Ok(own as usize)
}

fn process(task: &CurrentTask, pid: i32) -> Result<Arc<ThreadGroup>, Errno> {
    if pid == 0 {
        return Ok(task.group().clone());
    }
    if let Some(group) = task.pids().group(pid) {
        return Ok(group);
    }
    // A thread's number will do.
    task.pids().task(pid).map(|t| t.group().clone()).ok_or(Errno::ESRCH)
}

/// `getpgid(2)`.
pub fn sys_getpgid(task: &CurrentTask, pid: i32) -> SyscallResult {
    Ok(task.pids().pgid(&*process(task, pid)?) as usize)
}

/// `getpgrp(2)`.
pub fn sys_getpgrp(task: &CurrentTask) -> SyscallResult {
    Ok(task.pids().pgid(task.group()) as usize)
}

/// `getsid(2)`.
pub fn sys_getsid(task: &CurrentTask, pid: i32) -> SyscallResult {
    Ok(task.pids().sid(&*process(task, pid)?) as usize)
}
