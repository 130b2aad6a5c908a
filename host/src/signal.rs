//! Signals of our own processes, as descriptors.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use quicksand_abi::Errno;

/// A `signalfd(2)`. The signals that it takes are blocked in the thread that made it, and in threads started after.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

/// A signal that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub signal: i32,
    /// Who sent it, 0 where the kernel did.
    pub sender: u32,
    /// `si_code`.
    pub code: i32,
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: a signal set is plain integers; `sigemptyset` then gives it a defined value, and `sigaddset` refuses what
    // is no signal.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

impl SignalFd {
    /// Blocks `signals` and takes them through a descriptor from now on.
    pub fn new(signals: &[i32]) -> Result<SignalFd, Errno> {
        let set = set_of(signals);
        // SAFETY: the set is valid; no old mask is asked for. Blocking signals touches no memory.
        let blocked = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if blocked != 0 {
            return Err(Errno::from_raw(blocked));
        }
        // SAFETY: the set is valid.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(Errno::from(std::io::Error::last_os_error()));
        }
        // SAFETY: a new descriptor, which nobody else knows.
        Ok(SignalFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal; `None` where there is none now.
    pub fn take(&self) -> Result<Option<Taken>, Errno> {
        // SAFETY: the structure is plain integers, all of which may be zero.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the kernel writes at most `size` bytes to a structure of that size that may hold any bits.
        let n = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut info).cast(), size) };
        if n < 0 {
            let error = Errno::from(std::io::Error::last_os_error());
            return if error == Errno::EAGAIN || error == Errno::EINTR { Ok(None) } else { Err(error) };
        }
        let signal = i32::try_from(info.ssi_signo).unwrap_or(0);
        Ok(Some(Taken { signal, sender: info.ssi_pid, code: info.ssi_code }))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Unblocks every signal in this thread.
pub fn unblock_all() -> Result<(), Errno> {
    let set = set_of(&[]);
    // SAFETY: the set is valid; no old mask is asked for. Our processes install handlers only through code that expects
    // to be interrupted anywhere.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(Errno::from_raw(error)),
    }
}

/// Ignores a signal, in this process and those that it forks.
pub fn ignore(signal: i32) -> Result<(), Errno> {
    // SAFETY: no handler is installed, so no code of ours will run in one.
    let before = unsafe { libc::signal(signal, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(Errno::from(std::io::Error::last_os_error())) } else { Ok(()) }
}
