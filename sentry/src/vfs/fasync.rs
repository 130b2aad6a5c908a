//! Signals about readiness: SIGIO and SIGURG (`struct fown_struct`, `struct fasync_struct`), `fcntl(2)`.
//!
//! A file that O_ASYNC is set on, or a socket that has an owner, registers a [`Wake`] on its own wait queue. A wake-up comes
//! with locks held, so the signal is sent by [`crate::sync::run_deferred`], before the call that caused it returns.
//!
//! Invariants:
//! - The queue holds the [`Fasync`], never the other way round: the registration belongs to the open file and ends with it.
//! - Readiness to write is only told to whom it was refused before, as `SOCKWQ_ASYNC_NOSPACE` has it.

use std::sync::{Arc, Weak};

use quicksand_abi::Errno;
use quicksand_abi::signal::{SigInfo, code};

use super::OpenFile;
use super::inode::FileKind;
use crate::signal::send::{send_to_group, send_to_task};
use crate::sync::{Events, Level, Mutex, Registration, Wake, defer};
use crate::task::credentials::Credentials;
use crate::task::pid::PidNamespace;
use crate::task::{CurrentTask, Task};

/// Why a SIGIO is sent: its `si_code`, and the events that its `si_band` shows.
#[derive(Clone, Copy)]
struct Reason(i32, Events);

const POLL_IN: Reason = Reason(1, Events::READABLE);
const POLL_OUT: Reason = Reason(2, Events::WRITABLE.union(Events::WRBAND));
const POLL_ERR: Reason = Reason(4, Events::ERR);
const POLL_PRI: Reason = Reason(5, Events::PRI.union(Events::RDBAND));
const POLL_HUP: Reason = Reason(6, Events::HUP.union(Events::ERR));

/// Who gets the signals.
#[derive(Clone, Debug, Default)]
pub struct FileOwner {
    /// F_SETOWN: pid, or negative process group; zero is nobody.
    pub pid: i32,
    /// F_OWNER_TID: `pid` is a thread's.
    pub thread: bool,
    /// F_SETSIG.
    pub signal: i32,
    /// Where `pid` is looked up, and whose rights count.
    setter: Option<(Arc<PidNamespace>, Arc<Credentials>)>,
}

/// An open file's signals as data, for checkpoints.
#[derive(Clone, Debug, Default)]
pub(crate) struct SavedSignals {
    pub pid: i32,
    pub thread: bool,
    pub signal: i32,
    /// Whose rights count.
    pub setter: Option<Arc<Credentials>>,
    pub on: Option<i32>,
    pub urgent: bool,
    pub full: bool,
}

/// The part of an open file that is made when somebody first asks for signals.
pub(super) struct FileSignals {
    shared: Arc<Fasync>,
    registration: Mutex<Option<Registration>>,
}

struct Fasync {
    me: Weak<Fasync>,
    socket: bool,
    readable: bool,
    writable: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    owner: FileOwner,
    /// O_ASYNC is set, by this descriptor.
    on: Option<i32>,
    /// The owner has been told of urgent data that is still there.
    urgent: bool,
    /// Somebody wanted to write and could not.
    full: bool,
}

impl OpenFile {
    fn signals(&self) -> &FileSignals {
        self.signals.get_or_init(|| {
            let flags = self.flags();
            let shared = Arc::new_cyclic(|me| Fasync {
                me: me.clone(),
                socket: self.inode.kind == FileKind::Socket,
                readable: flags.can_read(),
                writable: flags.can_write(),
                state: Mutex::new(Level::Leaf, State::default()),
            });
            FileSignals { shared, registration: Mutex::new(Level::File, None) }
        })
    }

    /// Listens to the file's own readiness, from now on.
    fn listen(&self) {
        let signals = self.signals();
        let mut registration = signals.registration.lock();
        if registration.is_some() {
            return;
        }
        let Some(queue) = self.wait_queue() else { return };
        let events = Events::READABLE | Events::WRITABLE | Events::PRI;
        *registration = Some(queue.register(events, signals.shared.clone()));
    }

    /// Who gets signals about it, where anybody asked for them.
    pub(crate) fn saved_signals(&self) -> Option<SavedSignals> {
        let state = self.signals.get()?.shared.state.lock();
        Some(SavedSignals {
            pid: state.owner.pid,
            thread: state.owner.thread,
            signal: state.owner.signal,
            setter: state.owner.setter.as_ref().map(|(_, creds)| creds.clone()),
            on: state.on,
            urgent: state.urgent,
            full: state.full,
        })
    }

    /// For a restore: as [`OpenFile::saved_signals`] told. Numbers are those of `pids`.
    pub(crate) fn restore_signals(&self, pids: &Arc<PidNamespace>, saved: SavedSignals) {
        let SavedSignals { pid, thread, signal, setter, on, urgent, full } = saved;
        let setter = setter.map(|creds| (pids.clone(), creds));
        {
            let mut state = self.signals().shared.state.lock();
            *state = State { owner: FileOwner { pid, thread, signal, setter }, on, urgent, full };
        }
        if on.is_some() || pid != 0 && self.inode.kind == FileKind::Socket {
            self.listen();
        }
    }

    pub fn owner(&self) -> FileOwner {
        self.signals.get().map(|s| s.shared.state.lock().owner.clone()).unwrap_or_default()
    }

    /// F_SETSIG; the caller has checked the number.
    pub fn set_owner_signal(&self, signal: i32) {
        self.signals().shared.state.lock().owner.signal = signal;
    }

    /// F_SETOWN and its kin. ESRCH where nobody has that number; 0 is nobody.
    pub fn set_owner(&self, task: &CurrentTask, pid: i32, thread: bool) -> Result<(), Errno> {
        let pids = &task.container().pids;
        let known = match pid {
            0 => true,
            pid if pid < 0 => pids.lock().pgrps.contains_key(&pid.checked_neg().ok_or(Errno::EINVAL)?),
            pid if thread => pids.task(pid).is_some(),
            pid => pids.group(pid).is_some(),
        };
        if !known {
            return Err(Errno::ESRCH);
        }
        let setter = (pid != 0).then(|| (pids.clone(), task.creds()));
        let old = {
            let mut state = self.signals().shared.state.lock();
            let signal = state.owner.signal;
            std::mem::replace(&mut state.owner, FileOwner { pid, thread, signal, setter })
        };
        drop(old); // outside the lock: it may be the last reference to a namespace
        if pid != 0 && self.inode.kind == FileKind::Socket {
            self.listen();
        }
        Ok(())
    }

    /// O_ASYNC was set or cleared through `fd` (`f_op->fasync`).
    pub(super) fn set_async(&self, fd: i32, on: bool) {
        if !on && self.signals.get().is_none() {
            return;
        }
        self.signals().shared.state.lock().on = on.then_some(fd);
        if on {
            self.listen();
        }
    }

    /// A write had to be refused, or a connection is on its way: the owner hears of room.
    pub fn write_refused(&self, task: &CurrentTask) {
        let Some(signals) = self.signals.get() else { return };
        signals.shared.state.lock().full = true;
        // What came in between was no news then.
        if self.poll(task).contains(Events::OUT) {
            signals.shared.wake(Events::WRITABLE);
        }
    }

    /// Something was read: urgent data may be gone, and the owner hears of the next.
    pub fn was_read(&self, task: &CurrentTask) {
        let Some(signals) = self.signals.get() else { return };
        let urgent = signals.shared.state.lock().urgent;
        if urgent && !self.poll(task).contains(Events::PRI) {
            signals.shared.state.lock().urgent = false;
        }
    }
}

impl Wake for Fasync {
    fn wake(&self, events: Events) {
        if let Some(me) = self.me.upgrade() {
            defer(Box::new(move || me.deliver(events)));
        }
    }
}

impl Fasync {
    /// Sends what these events call for. With no lock held.
    fn deliver(&self, events: Events) {
        let (owner, on, urgent, reason) = {
            let mut state = self.state.lock();
            // A notification of everything says nothing about urgent data.
            let everything = events.contains(Events::NVAL);
            let urgent = self.socket && events.contains(Events::PRI) && !everything;
            let news = urgent && !state.urgent;
            if !everything {
                state.urgent = urgent;
            }
            let reason = self.reason(&mut state, events);
            (state.owner.clone(), state.on, news, reason)
        };
        if owner.pid == 0 {
            return;
        }
        if urgent {
            owner.send(|| SigInfo::kernel(libc::SIGURG), None);
        }
        let Some(fd) = on else { return };
        for reason in [urgent.then_some(POLL_PRI), reason].into_iter().flatten() {
            owner.send_io(fd, reason);
        }
    }

    /// What a SIGIO about these events says; `None` where there is none to send.
    fn reason(&self, state: &mut State, events: Events) -> Option<Reason> {
        if self.socket && events.contains(Events::NVAL) {
            return Some(POLL_HUP);
        }
        if self.socket && events.contains(Events::ERR) {
            return Some(POLL_ERR);
        }
        if self.socket && events.contains(Events::HUP) {
            return Some(POLL_HUP);
        }
        if self.readable && events.intersects(Events::READABLE | Events::HUP) {
            return Some(POLL_IN);
        }
        let room = self.writable && events.intersects(Events::WRITABLE | Events::ERR);
        if room && (!self.socket || std::mem::take(&mut state.full)) { Some(POLL_OUT) } else { None }
    }
}

impl FileOwner {
    /// `send_sigio_to_task`: F_SETSIG's signal says why; SIGIO does not.
    fn send_io(&self, fd: i32, Reason(why, band): Reason) {
        let plain = || SigInfo::kernel(libc::SIGIO);
        if self.signal == 0 {
            return self.send(plain, None);
        }
        // Signals whose codes mean something of their own are marked.
        let special = [
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGTRAP,
            libc::SIGCHLD,
            libc::SIGSYS,
        ];
        let why = if special.contains(&self.signal) { code::SI_SIGIO } else { why };
        let info = || SigInfo::poll(self.signal, why, i64::from(band.bits()), fd);
        self.send(info, Some(&plain));
    }

    /// Sends a signal to whom it may be sent to; `otherwise` where the queue takes no more.
    fn send(&self, info: impl Fn() -> SigInfo, otherwise: Option<&dyn Fn() -> SigInfo>) {
        let Some((pids, creds)) = &self.setter else { return };
        if self.thread {
            if let Some(task) = pids.task(self.pid).filter(|t| may_signal(creds, t))
                && send_to_task(&task, info()).is_err()
                && let Some(otherwise) = otherwise
            {
                let _ = send_to_task(&task, otherwise());
            }
            return;
        }
        let groups = match self.pid {
            pid if pid < 0 => pids.lock().members(pid.saturating_neg()),
            pid => pids.group(pid).into_iter().collect(),
        };
        for group in groups {
            if group.any_task().is_some_and(|t| may_signal(creds, &t))
                && send_to_group(&group, info()).is_err()
                && let Some(otherwise) = otherwise
            {
                // A standard signal is never over a limit.
                let _ = send_to_group(&group, otherwise());
            }
        }
    }
}

/// `sigio_perm`
fn may_signal(setter: &Credentials, target: &Task) -> bool {
    let target = target.creds();
    let ids = [target.suid, target.ruid];
    setter.euid == 0 || ids.contains(&setter.euid) || ids.contains(&setter.ruid)
}
