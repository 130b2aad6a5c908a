//! A terminal of the host as the guest's terminal.
//!
//! The host's line discipline does the editing and echo; settings and the window size go straight to it, through the
//! list of calls in `quicksand_host::tty`. What belongs to processes (controlling terminal, foreground group) is the
//! Sentry's own, because the host knows nothing of the guest's processes.

use std::fmt;
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock, Weak};

use quicksand_abi::tty::{self, Termios, Termios2, Winsize, ioctl as cmd};
use quicksand_abi::{Errno, UserAddr};
use quicksand_host::tty as host;

use super::Shared;
use super::file::{read_stream, write_stream};
use crate::fs::ioctl::put_int;
use crate::fs::pseudo;
use crate::fs::tty::devpts::DevPts;
use crate::fs::tty::job::{self, Terminal};
use crate::kernel::Kernel;
use crate::sync::{Events, Level, Mutex, WaitQueue};
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;
use crate::vfs::{Attr, DeviceId, FileOps, Inode, InodeOps, IoDst, IoSrc, OpenFile, OpenFlags, SetAttr};

/// A terminal of the host, as sessions know it.
pub struct HostTerminal {
    id: u64,
    shared: Arc<Shared>,
    device: DeviceId,
    /// Its name in a devpts, where it has one.
    name: OnceLock<(Weak<DevPts>, u32)>,
    kernel: Weak<Kernel>,
}

impl HostTerminal {
    pub(super) fn new(shared: Arc<Shared>, device: DeviceId, kernel: &Arc<Kernel>) -> Arc<HostTerminal> {
        let id = kernel.terminals.allocate();
        let terminal = Arc::new(HostTerminal {
            id,
            shared,
            device,
            name: OnceLock::new(),
            kernel: Arc::downgrade(kernel),
        });
        let registered: Arc<dyn Terminal> = terminal.clone();
        kernel.terminals.register(&registered);
        terminal
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
        job::opened(self.id, flags, task);
        Ok(Box::new(HostTty::new(self)))
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
}

impl HostTty {
    pub(super) fn new(terminal: Arc<HostTerminal>) -> HostTty {
        HostTty { terminal }
    }
    /// The terminal's number in the sandbox.
    pub fn terminal_id(&self) -> u64 {
        self.terminal.id
    }
    fn shared(&self) -> &Shared {
        &self.terminal.shared
    }
    fn put(&self, task: &CurrentTask, src: &mut IoSrc<'_>) -> Result<usize, Errno> {
        // Asked only where it matters: nobody sets TOSTOP.
        if self.is_background(task) && host::termios(self.shared().fd.as_fd())?.lflag & tty::TOSTOP != 0 {
            job::check_background(self.terminal.id, task, libc::SIGTTOU)?;
        }
        write_stream(self.shared(), task, src)
    }
    fn is_background(&self, task: &CurrentTask) -> bool {
        let pids = task.pids();
        let foreground = pids.foreground_pgrp(self.terminal.id);
        foreground != 0 && foreground != pids.pgid(task.group())
    }
}

impl FileOps for HostTty {
    fn read(&self, _: &OpenFile, task: &CurrentTask, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        job::check_background(self.terminal.id, task, libc::SIGTTIN)?;
        read_stream(self.shared(), dst)
    }
    fn write(&self, _: &OpenFile, task: &CurrentTask, src: &mut IoSrc<'_>, _: u64) -> Result<usize, Errno> {
        self.put(task, src)
    }
    fn append(&self, _: &OpenFile, task: &CurrentTask, src: &mut IoSrc<'_>) -> Result<(usize, u64), Errno> {
        self.put(task, src).map(|n| (n, 0))
    }
    fn is_stream(&self) -> bool {
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
        if CHANGES.contains(&command) {
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
            cmd::TIOCGWINSZ => task.write_object(at, &host::winsize(fd)?)?,
            cmd::TIOCSWINSZ => {
                let value: Winsize = task.read_object(at)?;
                host::set_winsize(fd, &value)?;
            }
            cmd::FIONREAD => {
                let n = rustix::io::ioctl_fionread(fd).map_err(quicksand_gofer::hostfs::errno)?;
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

/// Calls that stop a caller in the background (`tty_check_change`).
const CHANGES: [u32; 10] = [
    cmd::TCSETS,
    cmd::TCSETSW,
    cmd::TCSETSF,
    cmd::TCSETS2,
    cmd::TCSETSW2,
    cmd::TCSETSF2,
    cmd::TCSBRK,
    cmd::TCSBRKP,
    cmd::TCXONC,
    cmd::TCFLSH,
];

fn when(command: u32) -> host::When {
    match command {
        cmd::TCSETSW | cmd::TCSETSW2 => host::When::Drain,
        cmd::TCSETSF | cmd::TCSETSF2 => host::When::Flush,
        _ => host::When::Now,
    }
}
