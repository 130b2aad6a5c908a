//! A terminal of the host as the guest's terminal.
//!
//! The host's line discipline does the editing and echo; settings and the window size go straight to it, through the
//! list of calls in `quicksand_host::tty`. What belongs to processes (controlling terminal, foreground group) is the
//! Sentry's own, because the host knows nothing of the guest's processes.

use std::os::fd::AsFd;
use std::sync::Arc;

use quicksand_abi::tty::{Termios, Termios2, Winsize, ioctl as cmd};
use quicksand_abi::{Errno, UserAddr};
use quicksand_host::tty as host;

use super::Shared;
use super::file::{read_stream, write_stream};
use crate::fs::ioctl::put_int;
use crate::sync::{Events, WaitQueue};
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;
use crate::vfs::{FileOps, IoDst, IoSrc, OpenFile};

/// An open host terminal.
#[derive(Debug)]
pub struct HostTty {
    shared: Arc<Shared>,
}

impl HostTty {
    pub fn new(shared: Arc<Shared>) -> HostTty {
        HostTty { shared }
    }
}

impl FileOps for HostTty {
    fn read(&self, _: &OpenFile, _: &CurrentTask, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        read_stream(&self.shared, dst)
    }
    fn write(&self, _: &OpenFile, task: &CurrentTask, src: &mut IoSrc<'_>, _: u64) -> Result<usize, Errno> {
        write_stream(&self.shared, task, src)
    }
    fn append(&self, _: &OpenFile, task: &CurrentTask, src: &mut IoSrc<'_>) -> Result<(usize, u64), Errno> {
        write_stream(&self.shared, task, src).map(|n| (n, 0))
    }
    fn is_stream(&self) -> bool {
        true
    }
    fn poll(&self, _: &OpenFile, _: &CurrentTask) -> Events {
        self.shared.ready()
    }
    fn wait_queue(&self, _: &OpenFile) -> Option<Arc<WaitQueue>> {
        self.shared.wait_queue()
    }

    fn ioctl(&self, _: &OpenFile, task: &CurrentTask, command: u32, arg: u64) -> SyscallResult {
        let fd = self.shared.fd.as_fd();
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

fn when(command: u32) -> host::When {
    match command {
        cmd::TCSETSW | cmd::TCSETSW2 => host::When::Drain,
        cmd::TCSETSF | cmd::TCSETSF2 => host::When::Flush,
        _ => host::When::Now,
    }
}
