//! Job control as terminals see it (`tty_ioctl(4)`; Linux's `tty_jobctrl.c`).
//!
//! Which terminal a session has, and which process group is in its foreground, stands in the pid namespace, by the
//! terminal's number. Here are the rules of ioctls, of opening, and of reading from the background; and the [`Registry`]
//! that leads from a number back to the terminal, for `/dev/tty`.

use std::any::Any;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use quicksand_abi::tty::ioctl::{self, TIOCGPGRP, TIOCGSID, TIOCNOTTY, TIOCSCTTY, TIOCSPGRP};
use quicksand_abi::{Errno, SigInfo, UserAddr};

use crate::signal;
use crate::sync::{Level, Mutex};
use crate::syscalls::{Blocked, OnSignal, SyscallResult};
use crate::task::credentials::Caps;
use crate::task::{CurrentTask, PidNamespace, ThreadGroup};
use crate::vfs::{DeviceId, FileOps, OpenFlags};

/// Something that can be a controlling terminal: a pty's slave, or the host's terminal.
pub trait Terminal: Any + Send + Sync + Debug {
    /// Its number in the pid namespace's tables, from [`Registry::register`].
    fn id(&self) -> u64;
    /// What another open file of the same terminal does, for `/dev/tty`.
    fn reopen(self: Arc<Self>, flags: OpenFlags, task: &CurrentTask) -> Result<Box<dyn FileOps>, Errno>;
    /// `tty_nr` in `/proc/PID/stat`.
    fn device(&self) -> DeviceId;
}

/// All terminals of a sandbox, by number.
#[derive(Debug)]
pub struct Registry {
    next: AtomicU64,
    terminals: Mutex<HashMap<u64, Weak<dyn Terminal>>>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry { next: AtomicU64::new(1), terminals: Mutex::new(Level::Leaf, HashMap::new()) }
    }
}

impl Registry {
    /// A number for a new terminal.
    pub fn allocate(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
    pub fn register(&self, terminal: &Arc<dyn Terminal>) {
        self.terminals.lock().insert(terminal.id(), Arc::downgrade(terminal));
    }
    pub fn unregister(&self, id: u64) {
        self.terminals.lock().remove(&id);
    }
    pub fn get(&self, id: u64) -> Option<Arc<dyn Terminal>> {
        self.terminals.lock().get(&id).and_then(Weak::upgrade)
    }
    /// The terminal of a type of its own that `is_it` recognizes.
    pub fn find<T: Terminal>(&self, is_it: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        // Taken out of the lock: dropping the last reference to a terminal unregisters it.
        let all: Vec<_> = self.terminals.lock().values().filter_map(Weak::upgrade).collect();
        all.into_iter().filter_map(|t| (t as Arc<dyn Any + Send + Sync>).downcast().ok()).find(|t| is_it(t))
    }
    /// The controlling terminal of a process, and the foreground process group (-1 for none), as `/proc/PID/stat` tells.
    pub fn of_group(&self, group: &ThreadGroup) -> Option<(Arc<dyn Terminal>, i32)> {
        let id = group.pids().controlling_tty(group)?;
        let foreground = group.pids().foreground_pgrp(id);
        Some((self.get(id)?, if foreground == 0 { -1 } else { foreground }))
    }
}

/// The other end is gone (`__tty_hangup`): the session's leader gets SIGHUP and SIGCONT, and the terminal controls nobody
/// any more. The foreground group is left to the leader, and told when that one ends.
pub fn hang_up(id: u64, pids: &Arc<PidNamespace>) {
    let Some(sid) = pids.tty_session(id) else { return };
    // First: a leader that hears of it finds no terminal any more.
    pids.lose_tty(sid);
    if let Some(leader) = pids.group(sid) {
        for number in [libc::SIGHUP, libc::SIGCONT] {
            // A leader that is gone needs no signal.
            let _ = signal::send_to_group(&leader, SigInfo::kernel(number));
        }
    }
}

/// Opening a terminal without O_NOCTTY: it becomes the controlling terminal of a session leader who has none, if it is free.
pub fn opened(id: u64, flags: OpenFlags, task: &CurrentTask) {
    if !flags.contains(OpenFlags::NOCTTY) && flags.can_read() {
        // Most openers lead no session; that is no error.
        let _ = task.pids().set_controlling_tty(task.group(), id, false);
    }
}

/// Whether `id` is the caller's controlling terminal.
fn is_controlling(id: u64, task: &CurrentTask) -> bool {
    task.pids().controlling_tty(task.group()) == Some(id)
}

/// What a read, a write with TOSTOP, or a change from a background process group gets (`__tty_check_change`): `Ok` to go on;
/// EIO where nobody could ever resume it; EAGAIN once the signal is sent: the caller's stop interrupts the call, which
/// restarts after SIGCONT.
pub fn check_background(id: u64, task: &CurrentTask, number: i32) -> Result<(), Errno> {
    let pids = task.pids();
    if !is_controlling(id, task) {
        return Ok(());
    }
    let foreground = pids.foreground_pgrp(id);
    let pgid = pids.pgid(task.group());
    if foreground == 0 || foreground == pgid {
        return Ok(());
    }
    if task.is_signal_blocked_or_ignored(number) {
        return if number == libc::SIGTTIN { Err(Errno::EIO) } else { Ok(()) };
    }
    if pids.is_orphaned_pgrp(pgid) {
        return Err(Errno::EIO);
    }
    signal::send_to_pgrp(pids, pgid, SigInfo::kernel(number));
    Err(Errno::EAGAIN)
}

/// Calls that stop a caller in the background: they change the terminal.
pub const CHANGES: [u32; 13] = [
    ioctl::TCSETS,
    ioctl::TCSETSW,
    ioctl::TCSETSF,
    ioctl::TCSETS2,
    ioctl::TCSETSW2,
    ioctl::TCSETSF2,
    ioctl::TCSETA,
    ioctl::TCSETAW,
    ioctl::TCSETAF,
    ioctl::TCFLSH,
    ioctl::TCXONC,
    ioctl::TCSBRK,
    ioctl::TCSBRKP,
];

/// As [`check_background`] for SIGTTOU, in a call that is not a read or write: waits for the stop.
pub fn check_change(id: u64, task: &CurrentTask) -> SyscallResult {
    match check_background(id, task, libc::SIGTTOU) {
        Ok(()) => Ok(0),
        Err(Errno::EAGAIN) => Err(Blocked::until(None).on_signal(OnSignal::Restart).into()),
        Err(e) => Err(e.into()),
    }
}

/// The job control ioctls of a terminal; `None` where `cmd` is none of them.
pub fn ioctl(id: u64, task: &CurrentTask, cmd: u32, arg: u64) -> Option<SyscallResult> {
    let addr = UserAddr(arg);
    let pids = task.pids();
    let controlling = || if is_controlling(id, task) { Ok(()) } else { Err(Errno::ENOTTY) };
    let result = || -> SyscallResult {
        match cmd {
            TIOCSCTTY => {
                let steal = arg == 1 && task.creds().has(Caps::SYS_ADMIN);
                pids.set_controlling_tty(task.group(), id, steal)?;
            }
            TIOCNOTTY => {
                controlling()?;
                if pids.is_session_leader(task.group()) {
                    pids.disassociate_tty(task.group().pid());
                }
            }
            TIOCGPGRP => {
                controlling()?;
                task.write_object(addr, &pids.foreground_pgrp(id))?;
            }
            TIOCSPGRP => {
                let pgid: i32 = task.read_object(addr)?;
                check_change(id, task)?;
                controlling()?;
                if pgid < 0 {
                    return Err(Errno::EINVAL.into());
                }
                pids.set_foreground_pgrp(id, pgid)?;
            }
            TIOCGSID => {
                controlling()?;
                task.write_object(addr, &pids.sid(task.group()))?;
            }
            _ => return Err(Errno::ENOTTY.into()),
        }
        Ok(0)
    };
    matches!(cmd, TIOCSCTTY | TIOCNOTTY | TIOCGPGRP | TIOCSPGRP | TIOCGSID).then(result)
}
