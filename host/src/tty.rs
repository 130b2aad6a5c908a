//! Terminal calls with the kernel's own structures, for guests whose terminal is one of the host's.
//!
//! Only the calls listed here reach a host terminal: none of them can push input into it (`TIOCSTI`), change its
//! session, or touch anything but this terminal's settings.

use std::os::fd::{AsRawFd, BorrowedFd};

use quicksand_abi::Errno;
use quicksand_abi::tty::{Termios, Termios2, Winsize, ioctl};

fn last_error() -> Errno {
    Errno::from(std::io::Error::last_os_error())
}

/// When a change of settings takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Now,
    /// After all output has been sent.
    Drain,
    /// After all output has been sent; unread input is thrown away.
    Flush,
}

impl When {
    fn of(self, now: u32, drain: u32, flush: u32) -> u64 {
        u64::from(match self {
            When::Now => now,
            When::Drain => drain,
            When::Flush => flush,
        })
    }
}

/// Declares a call that fills or reads one structure.
macro_rules! structure_call {
    ($(#[$doc:meta])* get $name:ident -> $t:ty = $cmd:expr) => {
        $(#[$doc])*
        pub fn $name(fd: BorrowedFd<'_>) -> Result<$t, Errno> {
            let mut value: $t = zerocopy::FromZeros::new_zeroed();
            // SAFETY: for this command the kernel writes exactly one structure of this type, whose fields may hold any
            // bits, at the address, which is valid for writes for that long.
            let result = unsafe { libc::ioctl(fd.as_raw_fd(), u64::from($cmd), &raw mut value) };
            if result < 0 { Err(last_error()) } else { Ok(value) }
        }
    };
}

structure_call!(
    /// `TCGETS`.
    get termios -> Termios = ioctl::TCGETS
);
structure_call!(
    /// `TCGETS2`.
    get termios2 -> Termios2 = ioctl::TCGETS2
);
structure_call!(
    /// `TIOCGWINSZ`.
    get winsize -> Winsize = ioctl::TIOCGWINSZ
);
structure_call!(
    /// `TIOCOUTQ`: bytes not yet sent.
    get out_queue -> i32 = ioctl::TIOCOUTQ
);

/// `TCSETS`, `TCSETSW`, `TCSETSF`.
pub fn set_termios(fd: BorrowedFd<'_>, when: When, value: &Termios) -> Result<(), Errno> {
    let cmd = when.of(ioctl::TCSETS, ioctl::TCSETSW, ioctl::TCSETSF);
    // SAFETY: these commands read one `struct termios`, which the reference is valid for.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), cmd, std::ptr::from_ref(value)) };
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

/// `TCSETS2`, `TCSETSW2`, `TCSETSF2`.
pub fn set_termios2(fd: BorrowedFd<'_>, when: When, value: &Termios2) -> Result<(), Errno> {
    let cmd = when.of(ioctl::TCSETS2, ioctl::TCSETSW2, ioctl::TCSETSF2);
    // SAFETY: these commands read one `struct termios2`, which the reference is valid for.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), cmd, std::ptr::from_ref(value)) };
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

/// `TIOCSWINSZ`.
pub fn set_winsize(fd: BorrowedFd<'_>, value: &Winsize) -> Result<(), Errno> {
    // SAFETY: the command reads one `struct winsize`, which the reference is valid for.
    let result =
        unsafe { libc::ioctl(fd.as_raw_fd(), u64::from(ioctl::TIOCSWINSZ), std::ptr::from_ref(value)) };
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

/// Commands whose argument is a small number: flow control and flushing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    Break,
    Flow,
    Flush,
}

/// `TCSBRK`, `TCXONC`, `TCFLSH`.
pub fn control(fd: BorrowedFd<'_>, control: Control, value: i32) -> Result<(), Errno> {
    let cmd = match control {
        Control::Break => ioctl::TCSBRK,
        Control::Flow => ioctl::TCXONC,
        Control::Flush => ioctl::TCFLSH,
    };
    // SAFETY: the argument of these commands is a number, not an address.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), u64::from(cmd), libc::c_long::from(value)) };
    if result < 0 { Err(last_error()) } else { Ok(()) }
}
