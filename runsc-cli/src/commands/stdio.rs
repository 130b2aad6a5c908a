//! The standard streams that a program in a sandbox gets.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::console::{self, Pty};
use crate::error::{Context, Result};
use crate::fail;
use crate::spec::Process;

/// Streams for a program, and our end of its terminal where we keep it.
#[derive(Debug)]
pub struct Streams {
    pub stdio: [OwnedFd; 3],
    /// They are a terminal of their own.
    pub terminal: bool,
    /// Its other end, for us to relay; `None` where a console socket got it, or there is no terminal.
    pub master: Option<OwnedFd>,
}

impl Streams {
    /// Our standard output stays ours: what would go there goes to standard error.
    pub fn keep_output(&mut self) -> Result<()> {
        self.stdio[1] = self.stdio[2].try_clone().context("standard streams")?;
        Ok(())
    }
}

/// Our own streams.
pub fn inherited() -> Result<Streams> {
    let copy = |fd: BorrowedFd<'_>| match console::reopen(fd) {
        Some(terminal) => Ok(terminal),
        None => fd.try_clone_to_owned().context("standard streams"),
    };
    let (i, o, e) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let stdio = [copy(i.as_fd())?, copy(o.as_fd())?, copy(e.as_fd())?];
    Ok(Streams { stdio, terminal: false, master: None })
}

/// Streams for `process`: a new terminal where it wants one, else our own. With a console socket the engine gets the
/// terminal's other end; without, we keep it, which `detach` forbids.
pub fn for_process(process: &Process, console_socket: Option<&Path>, detach: bool) -> Result<Streams> {
    if !process.terminal {
        if console_socket.is_some() {
            fail!("--console-socket is given, and the process has no terminal (process.terminal is false)");
        }
        return inherited();
    }
    let pty = Pty::open(process.console_size)?;
    let master = match console_socket {
        Some(socket) => {
            console::send_master(socket, pty.master.as_fd())?;
            None
        }
        None if detach => fail!("a detached process with a terminal needs --console-socket"),
        None => {
            console::copy_size(std::io::stdin().as_fd(), pty.slave.as_fd());
            Some(pty.master)
        }
    };
    let copy = || pty.slave.try_clone().context("the terminal");
    Ok(Streams { stdio: [copy()?, copy()?, copy()?], terminal: true, master })
}
