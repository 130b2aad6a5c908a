//! A terminal of the host as the guest's terminal.
//!
//! The host's line discipline does the editing and echo; settings and the window size go straight to it, through the
//! list of calls in `quicksand_host::tty`. What belongs to processes (controlling terminal, foreground group) is the
//! Sentry's own, because the host knows nothing of the guest's processes.

use std::fmt;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use quicksand_abi::tty::{self, Termio, Termios, Termios2, Winsize, cc, ioctl as cmd};
use quicksand_abi::{Errno, UserAddr};
use quicksand_gofer::hostfs;
use quicksand_host::tty as host;

use super::Shared;
use super::file::{read_stream, write_stream};
use crate::fs::ioctl::put_int;
use crate::fs::pseudo;
use crate::fs::tty::devpts::DevPts;
use crate::fs::tty::job::{self, Terminal};
use crate::fs::tty::{Hurry, merge_termio, to_termio};
use crate::kernel::Kernel;
use crate::sync::{Events, Level, Mutex, WaitQueue};
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;
use crate::task::credentials::Caps;
use crate::vfs::{
    Attr, DeviceId, FileOps, Inode, InodeOps, IoDst, IoSrc, OpenFile, OpenFlags, ReadTimer, SetAttr,
};

/// A terminal of the host, as sessions know it.
pub struct HostTerminal {
    id: u64,
    shared: Arc<Shared>,
    device: DeviceId,
    /// Its name in a devpts, where it has one.
    name: OnceLock<(Weak<DevPts>, u32)>,
    /// TIOCEXCL.
    exclusive: AtomicBool,
    kernel: Weak<Kernel>,
}

impl HostTerminal {
    /// The terminal that is `device` on the host: all descriptors of it that were handed in are one to sessions.
    pub(super) fn of(shared: &Arc<Shared>, device: DeviceId, kernel: &Arc<Kernel>) -> Arc<HostTerminal> {
        let known = kernel.terminals.find(|t: &HostTerminal| t.name.get().is_none() && t.device == device);
        known.unwrap_or_else(|| HostTerminal::new(shared.clone(), device, kernel))
    }
    pub(super) fn new(shared: Arc<Shared>, device: DeviceId, kernel: &Arc<Kernel>) -> Arc<HostTerminal> {
        let id = kernel.terminals.allocate();
        let terminal = Arc::new(HostTerminal {
            id,
            shared,
            device,
            name: OnceLock::new(),
            exclusive: AtomicBool::new(false),
            kernel: Arc::downgrade(kernel),
        });
        let registered: Arc<dyn Terminal> = terminal.clone();
        kernel.terminals.register(&registered);
        terminal
    }
    /// Its settings, as the host has them.
    pub(crate) fn settings(&self) -> Option<Termios> {
        host::termios(self.shared.fd.as_fd()).ok()
    }
    /// For a restore: the settings that the terminal had before.
    pub(crate) fn restore_settings(&self, settings: &Termios) -> Result<(), Errno> {
        host::set_termios(self.shared.fd.as_fd(), host::When::Now, settings)
    }
    /// Its number and node in a devpts.
    pub(crate) fn place(&self) -> Option<(u32, Arc<Inode>)> {
        let (devpts, index) = self.name.get()?;
        Some((*index, devpts.upgrade()?.node(*index)?))
    }
    /// It is `index` of `devpts` now.
    pub(crate) fn set_name(&self, devpts: &Arc<DevPts>, index: u32) {
        // Named once, when it is made.
        let _ = self.name.set((Arc::downgrade(devpts), index));
    }
}

impl Terminal for HostTerminal {
    fn id(&self) -> u64 {
        self.id
    }
    fn reopen(self: Arc<Self>, flags: OpenFlags, task: &CurrentTask) -> Result<Box<dyn FileOps>, Errno> {
        if self.exclusive.load(Ordering::Relaxed) && !task.creds().has(Caps::SYS_ADMIN) {
            return Err(Errno::EBUSY);
        }
        job::opened(self.id, flags, task);
        let shared = self.shared.clone();
        Ok(Box::new(HostTty::new(self, shared)))
    }
    fn device(&self) -> DeviceId {
        // UNIX98_PTY_SLAVE_MAJOR.
        self.name.get().map_or(self.device, |(_, index)| DeviceId::new(136, *index))
    }
}

impl Drop for HostTerminal {
    fn drop(&mut self) {
        if let Some(kernel) = self.kernel.upgrade() {
            kernel.terminals.unregister(self.id);
        }
        if let Some((devpts, index)) = self.name.get()
            && let Some(devpts) = devpts.upgrade()
        {
            devpts.remove(*index);
        }
    }
}

impl fmt::Debug for HostTerminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostTerminal({})", self.id)
    }
}

/// The node of a host terminal in a devpts.
#[derive(Debug)]
pub struct HostSlave {
    terminal: Weak<HostTerminal>,
    attr: Mutex<Attr>,
}

impl HostSlave {
    pub(crate) fn new(terminal: &Arc<HostTerminal>, attr: Attr) -> HostSlave {
        HostSlave { terminal: Arc::downgrade(terminal), attr: Mutex::new(Level::Inode, attr) }
    }
}

impl InodeOps for HostSlave {
    fn attr(&self, _: &Inode) -> Result<Attr, Errno> {
        Ok(self.attr.lock().clone())
    }
    fn set_attr(&self, _: &Inode, set: &SetAttr) -> Result<(), Errno> {
        pseudo::change(&mut self.attr.lock(), set);
        Ok(())
    }
    fn opens_itself(&self) -> bool {
        true
    }
    fn open(&self, _: &Arc<Inode>, flags: OpenFlags, task: &CurrentTask) -> Result<Box<dyn FileOps>, Errno> {
        self.terminal.upgrade().ok_or(Errno::EIO)?.reopen(flags, task)
    }
}

/// An open host terminal.
#[derive(Debug)]
pub struct HostTty {
    terminal: Arc<HostTerminal>,
    /// The descriptor that was handed in.
    shared: Arc<Shared>,
}

impl HostTty {
    pub(super) fn new(terminal: Arc<HostTerminal>, shared: Arc<Shared>) -> HostTty {
        HostTty { terminal, shared }
    }
    /// What another open file of the same terminal does.
    pub(crate) fn another(&self) -> Box<dyn FileOps> {
        Box::new(HostTty::new(self.terminal.clone(), self.shared.clone()))
    }
    pub(crate) fn terminal(&self) -> &Arc<HostTerminal> {
        &self.terminal
    }
    /// The terminal's number in the sandbox.
    pub fn terminal_id(&self) -> u64 {
        self.terminal.id
    }
    fn shared(&self) -> &Shared {
        &self.shared
    }
    fn put(&self, file: &OpenFile, task: &CurrentTask, src: &mut IoSrc<'_>) -> Result<usize, Errno> {
        // Asked only where it matters: nobody sets TOSTOP.
        if self.is_background(task) && host::termios(self.shared().fd.as_fd())?.lflag & tty::TOSTOP != 0 {
            job::check_background(self.terminal.id, task, libc::SIGTTOU)?;
        }
        write_stream(self.shared(), file, task, src)
    }
    fn is_background(&self, task: &CurrentTask) -> bool {
        let pids = task.pids();
        let foreground = pids.foreground_pgrp(self.terminal.id);
        foreground != 0 && foreground != pids.pgid(task.group())
    }
    /// In non-canonical mode: the settings, and how many bytes of input there are.
    fn raw_input(&self) -> Option<(Termios, usize)> {
        let settings = host::termios(self.shared.fd.as_fd()).ok()?;
        let there = rustix::io::ioctl_fionread(&*self.shared.fd).ok()?;
        (settings.lflag & tty::ICANON == 0).then(|| (settings, usize::try_from(there).unwrap_or(usize::MAX)))
    }
}

impl FileOps for HostTty {
    fn read(&self, file: &OpenFile, task: &CurrentTask, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        job::check_background(self.terminal.id, task, libc::SIGTTIN)?;
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let ready = self.shared.ready();
        // The host's line discipline is asked for what it has, no more: so it does not wait, whatever VMIN and VTIME say.
        // That wait is ours. A terminal that has been hung up has no settings, and says so to a reader.
        if let Some((settings, there)) = self.raw_input()
            && !ready.contains(Events::HUP)
        {
            let (min, time) = (usize::from(settings.cc[cc::VMIN]), settings.cc[cc::VTIME]);
            if there == 0 && min == 0 && time == 0 {
                return Ok(0);
            }
            if there < Hurry::of(task, file).enough(min, dst.remaining()) {
                return Err(Errno::EAGAIN);
            }
            if there == 0 {
                return Ok(0);
            }
            let mut buffer = vec![0u8; dst.remaining().min(there).min(4096)];
            let got = rustix::io::read(&*self.shared.fd, &mut buffer[..]).map_err(hostfs::errno)?;
            return dst.put(&buffer[..got]);
        }
        read_stream(self.shared(), dst)
    }
    fn read_timer(&self, _: &OpenFile) -> Option<ReadTimer> {
        let (settings, there) = self.raw_input()?;
        Some(ReadTimer::new(settings.cc[cc::VMIN], settings.cc[cc::VTIME], there as u64))
    }
    fn can_splice(&self, _: bool) -> bool {
        true
    }
    fn write(
        &self,
        file: &OpenFile,
        task: &CurrentTask,
        src: &mut IoSrc<'_>,
        _: u64,
    ) -> Result<usize, Errno> {
        self.put(file, task, src)
    }
    fn append(
        &self,
        file: &OpenFile,
        task: &CurrentTask,
        src: &mut IoSrc<'_>,
    ) -> Result<(usize, u64), Errno> {
        self.put(file, task, src).map(|n| (n, 0))
    }
    fn is_stream(&self) -> bool {
        true
    }
    fn writes_all(&self) -> bool {
        true
    }
    fn poll(&self, _: &OpenFile, _: &CurrentTask) -> Events {
        self.shared().ready()
    }
    fn wait_queue(&self, _: &OpenFile) -> Option<Arc<WaitQueue>> {
        self.shared().wait_queue()
    }

    fn ioctl(&self, _: &OpenFile, task: &CurrentTask, command: u32, arg: u64) -> SyscallResult {
        if let Some(result) = job::ioctl(self.terminal.id, task, command, arg) {
            return result;
        }
        if job::CHANGES.contains(&command) {
            job::check_change(self.terminal.id, task)?;
        }
        let fd = self.shared().fd.as_fd();
        let at = UserAddr(arg);
        let number = arg as i32;
        match command {
            cmd::TCGETS => task.write_object(at, &host::termios(fd)?)?,
            cmd::TCGETS2 => task.write_object(at, &host::termios2(fd)?)?,
            cmd::TCSETS | cmd::TCSETSW | cmd::TCSETSF => {
                let value: Termios = task.read_object(at)?;
                host::set_termios(fd, when(command), &value)?;
            }
            cmd::TCSETS2 | cmd::TCSETSW2 | cmd::TCSETSF2 => {
                let value: Termios2 = task.read_object(at)?;
                host::set_termios2(fd, when(command), &value)?;
            }
            cmd::TCGETA => task.write_object(at, &to_termio(&host::termios(fd)?))?,
            cmd::TCSETA | cmd::TCSETAW | cmd::TCSETAF => {
                let value: Termio = task.read_object(at)?;
                host::set_termios(fd, when(command), &merge_termio(host::termios(fd)?, &value))?;
            }
            cmd::TIOCEXCL => self.terminal.exclusive.store(true, Ordering::Relaxed),
            cmd::TIOCNXCL => self.terminal.exclusive.store(false, Ordering::Relaxed),
            cmd::TIOCGEXCL => {
                return put_int(task, arg, usize::from(self.terminal.exclusive.load(Ordering::Relaxed)));
            }
            cmd::TIOCGETD => return put_int(task, arg, 0),
            cmd::TIOCSETD => {
                let line: i32 = task.read_object(at)?;
                if line != 0 {
                    return Err(Errno::EINVAL.into());
                }
            }
            // As with dev.tty.legacy_tiocsti=0: nobody types for the user.
            cmd::TIOCSTI => return Err(Errno::EIO.into()),
            cmd::TIOCGWINSZ => task.write_object(at, &host::winsize(fd)?)?,
            cmd::TIOCSWINSZ => {
                let value: Winsize = task.read_object(at)?;
                host::set_winsize(fd, &value)?;
            }
            cmd::FIONREAD => {
                let n = rustix::io::ioctl_fionread(fd).map_err(hostfs::errno)?;
                return put_int(task, arg, usize::try_from(n).unwrap_or(usize::MAX));
            }
            cmd::TIOCOUTQ => {
                return put_int(task, arg, usize::try_from(host::out_queue(fd)?).unwrap_or(0));
            }
            cmd::TCSBRK | cmd::TCSBRKP => host::control(fd, host::Control::Break, number)?,
            cmd::TCXONC => host::control(fd, host::Control::Flow, number)?,
            cmd::TCFLSH => host::control(fd, host::Control::Flush, number)?,
            _ => return Err(Errno::ENOTTY.into()),
        }
        Ok(0)
    }
}

fn when(command: u32) -> host::When {
    match command {
        cmd::TCSETSW | cmd::TCSETSW2 | cmd::TCSETAW => host::When::Drain,
        cmd::TCSETSF | cmd::TCSETSF2 | cmd::TCSETAF => host::When::Flush,
        _ => host::When::Now,
    }
}
