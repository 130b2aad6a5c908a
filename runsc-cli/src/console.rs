//! Terminals: the host pty behind a container's standard streams, and the relay to our own terminal.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType,
};
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios, Winsize};

use crate::error::{Context, Result};
use crate::spec::ConsoleSize;

/// A new pseudoterminal of the host.
#[derive(Debug)]
pub struct Pty {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

const NONBLOCK: u32 = rustix::fs::OFlags::NONBLOCK.bits();

impl Pty {
    pub fn open(size: Option<ConsoleSize>) -> Result<Pty> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).context("opening a terminal")?;
        rustix::pty::unlockpt(&master).context("unlocking the terminal")?;
        // Nobody but the Sentry has this end, and it never waits on the host.
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags | OpenptFlags::from_bits_retain(NONBLOCK))
            .context("opening the terminal's other end")?;
        if let Some(size) = size.filter(|s| s.height != 0 && s.width != 0) {
            let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(&slave, size).context("setting the terminal's size")?;
        }
        Ok(Pty { master, slave })
    }
}

/// Sends a pty's master through an engine's console socket.
pub fn send_master(socket: &Path, master: BorrowedFd<'_>) -> Result<()> {
    let doing = || format!("--console-socket {}", socket.display());
    let stream = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .context(doing())?;
    let address = SocketAddrUnix::new(socket).context(doing())?;
    // Whoever listens may have stopped to accept.
    let limit = Some(std::time::Duration::from_secs(10));
    rustix::net::sockopt::set_socket_timeout(&stream, rustix::net::sockopt::Timeout::Send, limit)
        .context(doing())?;
    rustix::net::connect(&stream, &address).context(doing())?;
    let fds = [master];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let name = b"/dev/console";
    rustix::net::sendmsg(&stream, &[IoSlice::new(name)], &mut control, SendFlags::NOSIGNAL)
        .context(doing())?;
    Ok(())
}

/// Our own terminal in raw mode, until dropped.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    pub fn enter(terminal: BorrowedFd<'_>) -> Result<RawMode> {
        let before = rustix::termios::tcgetattr(terminal).context("reading the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        let terminal = terminal.try_clone_to_owned().context("the terminal")?;
        rustix::termios::tcsetattr(&terminal, OptionalActions::Flush, &raw)
            .context("switching the terminal")?;
        Ok(RawMode { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may have gone away.
        let _ = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}

/// A terminal, opened once more without waiting: its open file may be shared with programs that rely on waiting. `None` where
/// it is no terminal, or cannot be opened.
pub fn reopen(terminal: BorrowedFd<'_>) -> Option<OwnedFd> {
    use rustix::fs::{OFlags, fcntl_getfl};
    if !is_terminal(terminal) {
        return None;
    }
    let mode = fcntl_getfl(terminal).ok()? & (OFlags::RWMODE | OFlags::APPEND);
    let path = format!("/proc/self/fd/{}", terminal.as_raw_fd());
    let flags = mode | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).ok()
}

/// Gives `to` the window size of `from`.
pub fn copy_size(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    if let Ok(size) = rustix::termios::tcgetwinsize(from) {
        // A terminal that has gone away has no size.
        let _ = rustix::termios::tcsetwinsize(to, size);
    }
}

/// Copies what is there from one descriptor to another; false at the end, or when either side is gone.
pub fn pump(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0u8; 16 * 1024];
    let got = match rustix::io::read(from, &mut buffer) {
        Ok(0) => return false,
        Ok(got) => got,
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return true,
        Err(_) => return false,
    };
    let mut rest = &buffer[..got];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(n) => rest = &rest[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => wait_writable(to),
            Err(_) => return false,
        }
    }
    true
}

fn wait_writable(fd: BorrowedFd<'_>) {
    let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::OUT)];
    // An error shows at the next write.
    let _ = rustix::event::poll(&mut fds, None);
}

/// Whether a descriptor is a terminal.
pub fn is_terminal(fd: impl AsFd) -> bool {
    rustix::termios::isatty(fd)
}
