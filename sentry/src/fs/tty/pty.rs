//! Pseudoterminal pairs: the state that both ends share, and what each end does (`pty(7)`, `ioctl_tty(2)`).
//!
//! The master's side lives as long as its one open file description; dropping that hangs the slave up. The slave's side
//! lives as long as anybody has it open.

use std::sync::{Arc, Weak};

use quicksand_abi::tty::{self, Termio, Termios, Termios2, Winsize, ioctl};
use quicksand_abi::{Errno, UserAddr};

use super::devpts::DevPts;
use super::job::{self, Terminal};
use super::ldisc::{Effects, Hurry, LineDiscipline};
use super::{merge_termio, to_termio};
use crate::kernel::Kernel;
use crate::sync::{Events, Level, Mutex, WaitQueue};
use crate::syscalls::SyscallResult;
use crate::task::{CurrentTask, PidNamespace};
use crate::vfs::{DeviceId, FileOps, IoDst, IoSrc, OpenFile, OpenFlags, ReadTimer};

/// UNIX98_PTY_SLAVE_MAJOR.
pub(super) const SLAVE_MAJOR: u32 = 136;
/// B38400's speed, which ptys report.
const SPEED: u32 = 38_400;

/// A pair.
#[derive(Debug)]
pub(crate) struct Pty {
    pub index: u32,
    /// Its number among terminals.
    pub(super) id: u64,
    kernel: Arc<Kernel>,
    /// Of whoever opened the master: its sessions are those that the terminal can control.
    pids: Arc<PidNamespace>,
    /// Where its slave has its name.
    pub(super) devpts: Weak<DevPts>,
    pub(super) state: Mutex<State>,
    /// Those who wait at the master: its input is there, or its output has room.
    master_queue: Arc<WaitQueue>,
    slave_queue: Arc<WaitQueue>,
}

#[derive(Debug)]
pub(super) struct State {
    pub ldisc: LineDiscipline,
    pub winsize: Winsize,
    /// TIOCSPTLCK: the slave cannot be opened until `unlockpt`.
    pub locked: bool,
    /// The master was closed.
    pub hung_up: bool,
    /// Open file descriptions of the slave.
    pub slaves: usize,
    /// The last slave was closed: the master reads EIO until one is opened again.
    pub other_closed: bool,
    /// TIOCEXCL.
    pub exclusive: bool,
    /// TIOCPKT.
    pub packet: bool,
    /// Packet mode's pending status byte.
    pub packet_status: u8,
}

impl Pty {
    pub(super) fn new(index: u32, task: &CurrentTask, devpts: &Arc<DevPts>) -> Arc<Pty> {
        Pty::with_index(index, task.kernel(), task.pids(), devpts)
    }
    pub(super) fn with_index(
        index: u32,
        kernel: &Arc<Kernel>,
        pids: &Arc<PidNamespace>,
        devpts: &Arc<DevPts>,
    ) -> Arc<Pty> {
        let state = State {
            ldisc: LineDiscipline::new(),
            winsize: Winsize::default(),
            locked: true,
            hung_up: false,
            slaves: 0,
            other_closed: false,
            exclusive: false,
            packet: false,
            packet_status: 0,
        };
        let pty = Arc::new(Pty {
            index,
            id: kernel.terminals.allocate(),
            kernel: kernel.clone(),
            pids: pids.clone(),
            devpts: Arc::downgrade(devpts),
            state: Mutex::new(Level::Object, state),
            master_queue: WaitQueue::new(),
            slave_queue: WaitQueue::new(),
        });
        let terminal: Arc<dyn Terminal> = pty.clone();
        pty.kernel.terminals.register(&terminal);
        pty
    }

    /// Opens the slave.
    pub(super) fn open_slave(
        self: &Arc<Self>,
        flags: OpenFlags,
        task: &CurrentTask,
    ) -> Result<Box<dyn FileOps>, Errno> {
        {
            let mut state = self.state.lock();
            if state.locked || state.hung_up {
                return Err(Errno::EIO);
            }
            if state.exclusive && !task.creds().has(crate::task::credentials::Caps::SYS_ADMIN) {
                return Err(Errno::EBUSY);
            }
            state.slaves += 1;
            state.other_closed = false;
        }
        let slave = Box::new(Slave { pty: self.clone() });
        job::opened(self.id, flags, task);
        Ok(slave)
    }

    fn winsize(&self) -> Winsize {
        self.state.lock().winsize
    }

    fn set_winsize(&self, task: &CurrentTask, addr: UserAddr) -> SyscallResult {
        let new: Winsize = task.read_object(addr)?;
        let changed = std::mem::replace(&mut self.state.lock().winsize, new) != new;
        if changed {
            self.pids.signal_foreground(self.id, libc::SIGWINCH);
        }
        Ok(0)
    }

    /// What both ends answer alike. The settings asked for at the master are the slave's, as on Linux.
    fn common_ioctl(self: &Arc<Self>, task: &CurrentTask, cmd: u32, arg: u64) -> SyscallResult {
        let addr = UserAddr(arg);
        let termios = || self.state.lock().ldisc.termios();
        match cmd {
            ioctl::TCGETS => task.write_object(addr, &termios())?,
            ioctl::TCGETS2 => {
                task.write_object(addr, &Termios2 { termios: termios(), ispeed: SPEED, ospeed: SPEED })?;
            }
            ioctl::TCGETA => task.write_object(addr, &to_termio(&termios()))?,
            ioctl::TCSETS | ioctl::TCSETSW | ioctl::TCSETSF => {
                let new: Termios = task.read_object(addr)?;
                self.set_termios(task, new, cmd == ioctl::TCSETSF)?;
            }
            ioctl::TCSETS2 | ioctl::TCSETSW2 | ioctl::TCSETSF2 => {
                let new: Termios2 = task.read_object(addr)?;
                self.set_termios(task, new.termios, cmd == ioctl::TCSETSF2)?;
            }
            ioctl::TCSETA | ioctl::TCSETAW | ioctl::TCSETAF => {
                let new: Termio = task.read_object(addr)?;
                self.set_termios(task, merge_termio(termios(), &new), cmd == ioctl::TCSETAF)?;
            }
            ioctl::TIOCGWINSZ => task.write_object(addr, &self.winsize())?,
            ioctl::TIOCSWINSZ => return self.set_winsize(task, addr),
            ioctl::TIOCEXCL => self.state.lock().exclusive = true,
            ioctl::TIOCNXCL => self.state.lock().exclusive = false,
            ioctl::TIOCGEXCL => {
                let value = i32::from(self.state.lock().exclusive);
                task.write_object(addr, &value)?;
            }
            // Nothing drains slowly here, and a break means nothing to a pty.
            ioctl::TCSBRK | ioctl::TCSBRKP => {}
            ioctl::TIOCGETD => task.write_object(addr, &0i32)?,
            ioctl::TIOCSETD => {
                let line: i32 = task.read_object(addr)?;
                if line != 0 {
                    return Err(Errno::EINVAL.into());
                }
            }
            ioctl::TIOCSTI => return Err(Errno::EIO.into()), // as with dev.tty.legacy_tiocsti=0
            _ => return Err(Errno::ENOTTY.into()),
        }
        Ok(0)
    }

    fn set_termios(&self, _task: &CurrentTask, new: Termios, flush: bool) -> Result<(), Errno> {
        {
            let mut state = self.state.lock();
            if flush {
                state.ldisc.flush_input();
            }
            state.ldisc.set_termios(new);
        }
        self.slave_queue.notify_all();
        self.master_queue.notify_all();
        Ok(())
    }

    fn flush(&self, which: u64) -> SyscallResult {
        {
            let mut state = self.state.lock();
            match which {
                0 => state.ldisc.flush_input(),
                1 => state.ldisc.output.clear(),
                2 => {
                    state.ldisc.flush_input();
                    state.ldisc.output.clear();
                }
                _ => return Err(Errno::EINVAL.into()),
            }
            let status = [1, 2, 3][which as usize]; // TIOCPKT_FLUSHREAD, TIOCPKT_FLUSHWRITE
            state.note(status);
        }
        self.slave_queue.notify_all();
        self.master_queue.notify_all();
        Ok(0)
    }

    /// `tcflow(3)` at the slave.
    fn flow(&self, which: u64) -> SyscallResult {
        match which {
            0 | 1 => {
                let stop = which == 0;
                let mut state = self.state.lock();
                state.ldisc.stopped = stop;
                state.note(if stop { 4 } else { 8 }); // TIOCPKT_STOP, TIOCPKT_START
            }
            // Send a STOP or START character to the other end: it would be input there.
            2 | 3 => {}
            _ => return Err(Errno::EINVAL.into()),
        }
        self.slave_queue.notify_all();
        self.master_queue.notify_all();
        Ok(0)
    }
}

impl State {
    fn note(&mut self, status: u8) {
        if self.packet {
            self.packet_status |= status;
        }
    }
}

impl Terminal for Pty {
    fn id(&self) -> u64 {
        self.id
    }
    fn reopen(self: Arc<Self>, flags: OpenFlags, task: &CurrentTask) -> Result<Box<dyn FileOps>, Errno> {
        self.open_slave(flags | OpenFlags::NOCTTY, task)
    }
    fn device(&self) -> DeviceId {
        DeviceId::new(SLAVE_MAJOR, self.index)
    }
}

/// The master's end.
#[derive(Debug)]
pub(super) struct Master {
    pub pty: Arc<Pty>,
    devpts: Arc<DevPts>,
}

impl Master {
    pub(super) fn new(pty: Arc<Pty>, devpts: Arc<DevPts>) -> Master {
        Master { pty, devpts }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.devpts.remove(self.pty.index);
        self.pty.state.lock().hung_up = true;
        job::hang_up(self.pty.id, &self.pty.pids);
        self.pty.kernel.terminals.unregister(self.pty.id);
        self.pty.slave_queue.notify_all();
    }
}

impl FileOps for Master {
    fn read(&self, _: &OpenFile, _: &CurrentTask, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let mut state = self.pty.state.lock();
        if state.packet && state.packet_status != 0 {
            let status = std::mem::take(&mut state.packet_status);
            return dst.put(&[status]);
        }
        if state.ldisc.output.is_empty() {
            return Err(if state.other_closed { Errno::EIO } else { Errno::EAGAIN });
        }
        let mut header = 0;
        if state.packet {
            header = dst.put(&[0])?;
        }
        let n = dst.remaining().min(state.ldisc.output.len());
        let bytes: Vec<u8> = state.ldisc.output.drain(..n).collect();
        drop(state);
        let put = dst.put(&bytes)?;
        self.pty.slave_queue.notify(Events::WRITABLE);
        Ok(header + put)
    }

    fn write(&self, _: &OpenFile, _: &CurrentTask, src: &mut IoSrc<'_>, _: u64) -> Result<usize, Errno> {
        let mut buf = [0; 512];
        let mut written = 0;
        while src.remaining() > 0 {
            let room = self.pty.state.lock().ldisc.room().min(buf.len());
            if room == 0 {
                return if written > 0 { Ok(written) } else { Err(Errno::EAGAIN) };
            }
            let n = match src.take(&mut buf[..room]) {
                Ok(n) => n,
                Err(e) => return if written > 0 { Ok(written) } else { Err(e) },
            };
            let mut signals = Vec::new();
            {
                let mut state = self.pty.state.lock();
                for byte in &buf[..n] {
                    let Effects { signal, flushed, stopped } = state.ldisc.receive(*byte);
                    signals.extend(signal);
                    if flushed {
                        state.note(3);
                    }
                    match stopped {
                        Some(true) => state.note(4),
                        Some(false) => state.note(8),
                        None => {}
                    }
                }
            }
            for signal in signals {
                self.pty.pids.signal_foreground(self.pty.id, signal);
            }
            written += n;
            self.pty.slave_queue.notify(Events::READABLE | Events::WRITABLE);
            self.pty.master_queue.notify(Events::READABLE); // echo
        }
        Ok(written)
    }

    fn is_stream(&self) -> bool {
        true
    }
    fn can_splice(&self, _: bool) -> bool {
        true
    }

    fn poll(&self, _: &OpenFile, _: &CurrentTask) -> Events {
        let state = self.pty.state.lock();
        let mut events = Events::empty();
        if !state.ldisc.output.is_empty() {
            events |= Events::READABLE;
        }
        if state.packet && state.packet_status != 0 {
            events |= Events::READABLE | Events::PRI;
        }
        if state.other_closed {
            events |= Events::HUP;
        }
        if state.ldisc.room() > 0 {
            events |= Events::WRITABLE;
        }
        events
    }

    fn wait_queue(&self, _: &OpenFile) -> Option<Arc<WaitQueue>> {
        Some(self.pty.master_queue.clone())
    }

    fn ioctl(&self, _: &OpenFile, task: &CurrentTask, cmd: u32, arg: u64) -> SyscallResult {
        let addr = UserAddr(arg);
        match cmd {
            ioctl::TIOCGPTN => task.write_object(addr, &self.pty.index)?,
            ioctl::TIOCSPTLCK => {
                let lock: i32 = task.read_object(addr)?;
                self.pty.state.lock().locked = lock != 0;
            }
            ioctl::TIOCGPTLCK => {
                let locked = i32::from(self.pty.state.lock().locked);
                task.write_object(addr, &locked)?;
            }
            ioctl::TIOCPKT => {
                let on: i32 = task.read_object(addr)?;
                let mut state = self.pty.state.lock();
                state.packet = on != 0;
                state.packet_status = 0;
            }
            ioctl::TIOCGPKT => {
                let on = i32::from(self.pty.state.lock().packet);
                task.write_object(addr, &on)?;
            }
            ioctl::TIOCGPTPEER => return self.devpts.open_peer(&self.pty, task, arg as u32),
            ioctl::FIONREAD => {
                let n = self.pty.state.lock().ldisc.output.len() as i32;
                task.write_object(addr, &n)?;
            }
            ioctl::TIOCOUTQ => task.write_object(addr, &0i32)?,
            ioctl::TCFLSH => return self.pty.flush(arg),
            // The master may ask and set the foreground group of the slave's session without being of it.
            ioctl::TIOCGPGRP => task.write_object(addr, &self.pty.pids.foreground_pgrp(self.pty.id))?,
            ioctl::TIOCGSID => {
                let sid = self.pty.pids.tty_session(self.pty.id).ok_or(Errno::ENOTTY)?;
                task.write_object(addr, &sid)?;
            }
            _ => return self.pty.common_ioctl(task, cmd, arg),
        }
        Ok(0)
    }
}

/// A slave's end: one per open file description.
#[derive(Debug)]
pub(super) struct Slave {
    pub pty: Arc<Pty>,
}

impl Drop for Slave {
    fn drop(&mut self) {
        let last = {
            let mut state = self.pty.state.lock();
            state.slaves -= 1;
            state.other_closed = state.slaves == 0;
            state.other_closed
        };
        if last {
            self.pty.master_queue.notify_all();
        }
    }
}

impl FileOps for Slave {
    fn read(&self, file: &OpenFile, task: &CurrentTask, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        if self.pty.state.lock().hung_up {
            return Ok(0);
        }
        job::check_background(self.pty.id, task, libc::SIGTTIN)?;
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let hurry = Hurry::of(task, file);
        let bytes = {
            let mut state = self.pty.state.lock();
            match state.ldisc.read(dst.remaining(), hurry) {
                Some(bytes) => bytes,
                None if state.hung_up => return Ok(0),
                None => return Err(Errno::EAGAIN),
            }
        };
        self.pty.master_queue.notify(Events::WRITABLE);
        dst.put(&bytes)
    }

    fn write(&self, _: &OpenFile, task: &CurrentTask, src: &mut IoSrc<'_>, _: u64) -> Result<usize, Errno> {
        if self.pty.state.lock().ldisc.termios().lflag & tty::TOSTOP != 0 {
            job::check_background(self.pty.id, task, libc::SIGTTOU)?;
        }
        let mut buf = [0; 1024];
        let mut written = 0;
        while src.remaining() > 0 {
            {
                let state = self.pty.state.lock();
                if state.hung_up {
                    return Err(Errno::EIO);
                }
                if !state.ldisc.writable() {
                    break;
                }
            }
            let n = match src.take(&mut buf) {
                Ok(n) => n,
                Err(e) => return if written > 0 { Ok(written) } else { Err(e) },
            };
            let taken = self.pty.state.lock().ldisc.write(&buf[..n]);
            src.unread(n - taken);
            written += taken;
            self.pty.master_queue.notify(Events::READABLE);
            if taken < n {
                break;
            }
        }
        if written == 0 && src.remaining() > 0 { Err(Errno::EAGAIN) } else { Ok(written) }
    }

    fn read_timer(&self, _: &OpenFile) -> Option<ReadTimer> {
        self.pty.state.lock().ldisc.read_timer()
    }

    fn is_stream(&self) -> bool {
        true
    }
    fn can_splice(&self, _: bool) -> bool {
        true
    }

    fn poll(&self, _: &OpenFile, _: &CurrentTask) -> Events {
        let state = self.pty.state.lock();
        if state.hung_up {
            return Events::READABLE | Events::WRITABLE | Events::HUP | Events::ERR;
        }
        let mut events = Events::empty();
        if state.ldisc.readable() {
            events |= Events::READABLE;
        }
        if state.ldisc.writable() {
            events |= Events::WRITABLE;
        }
        events
    }

    fn wait_queue(&self, _: &OpenFile) -> Option<Arc<WaitQueue>> {
        Some(self.pty.slave_queue.clone())
    }

    fn ioctl(&self, _: &OpenFile, task: &CurrentTask, cmd: u32, arg: u64) -> SyscallResult {
        if self.pty.state.lock().hung_up {
            return Err(Errno::EIO.into());
        }
        if let Some(result) = job::ioctl(self.pty.id, task, cmd, arg) {
            return result;
        }
        if job::CHANGES.contains(&cmd) {
            job::check_change(self.pty.id, task)?;
        }
        match cmd {
            ioctl::FIONREAD => {
                let n = self.pty.state.lock().ldisc.input_len() as i32;
                task.write_object(UserAddr(arg), &n)?;
                Ok(0)
            }
            ioctl::TIOCOUTQ => {
                task.write_object(UserAddr(arg), &0i32)?;
                Ok(0)
            }
            ioctl::TCFLSH => self.pty.flush(arg),
            ioctl::TCXONC => self.pty.flow(arg),
            _ => self.pty.common_ioctl(task, cmd, arg),
        }
    }
}
