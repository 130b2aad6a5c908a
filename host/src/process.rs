//! Making processes: a `fork` that can put the child into new namespaces.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use quicksand_abi::Errno;

/// Which side of a [`fork`] this is.
#[derive(Debug)]
pub enum Fork {
    /// The caller; with the child's process id and a descriptor of it (`pidfd_open(2)`).
    Parent {
        pid: i32,
        pidfd: OwnedFd,
    },
    Child,
}

bitflags::bitflags! {
    /// Namespaces that a child gets for itself.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Namespaces: u64 {
        const USER = libc::CLONE_NEWUSER as u64;
        const PID = libc::CLONE_NEWPID as u64;
        const MOUNT = libc::CLONE_NEWNS as u64;
        const NETWORK = libc::CLONE_NEWNET as u64;
        const IPC = libc::CLONE_NEWIPC as u64;
        const UTS = libc::CLONE_NEWUTS as u64;
    }
}

/// `CLONE_INTO_CGROUP`, which does not fit into the type that the library gives it: there it is 0.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks a process that has one thread only; EDEADLK where it has more. The child runs on in a copy of the caller's
/// memory, inside new namespaces where some are asked for, and in the unified cgroup `cgroup` (a descriptor of its
/// directory) where one is given.
pub fn fork(namespaces: Namespaces, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork, Errno> {
    if threads()? != 1 {
        return Err(Errno::EDEADLK);
    }
    let mut pidfd: i32 = -1;
    // SAFETY: `clone_args` is plain integers, all of which may be zero.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces.bits() | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    }
    // SAFETY: without CLONE_VM the child has its own copy of memory, and goes on from here on a copy of this stack. The
    // process has one thread (checked above, and only this thread could start another), so no lock is held and no
    // structure is half changed by a thread that the child does not have. glibc is not told: what it keeps of the
    // process is its thread's number, which serves as an owner mark of its own locks and stays consistent in the child.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match result {
        0 => Ok(Fork::Child),
        pid if pid > 0 => {
            let pid = i32::try_from(pid).map_err(|_| Errno::EIO)?;
            // SAFETY: the kernel has just put a new descriptor there, which nobody else knows.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Fork::Parent { pid, pidfd })
        }
        _ => Err(Errno::from(std::io::Error::last_os_error())),
    }
}

/// How many threads this process has.
fn threads() -> Result<usize, Errno> {
    let stat = std::fs::read("/proc/self/stat")?;
    // The name in parentheses may hold anything; fields after the last one are numbers, the 18th of which is this.
    let after = stat.iter().rposition(|b| *b == b')').ok_or(Errno::EIO)?;
    let fields = String::from_utf8_lossy(&stat[after + 1..]);
    fields.split_ascii_whitespace().nth(17).and_then(|n| n.parse().ok()).ok_or(Errno::EIO)
}

/// A child made by [`spawn`].
#[derive(Debug)]
pub struct Child {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// Forks as [`fork`] does; the child closes every descriptor that `keep` does not list, runs `main` and exits with what it
/// returns. What the caller's frames own is neither used nor dropped in the child. `main` must only use descriptors
/// from `keep`: those it had otherwise are closed, and their numbers may come to name others.
pub fn spawn(
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    keep: &[RawFd],
    main: impl FnOnce() -> u8,
) -> Result<Child, Errno> {
    match fork(namespaces, cgroup)? {
        Fork::Parent { pid, pidfd } => Ok(Child { pid, pidfd }),
        Fork::Child => {
            close_others(keep);
            std::process::exit(i32::from(main()))
        }
    }
}

/// Ends the process with all its threads at once: no destructor runs and nothing that is buffered is written.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: `_exit` touches no memory of ours and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}

fn close_others(keep: &[RawFd]) {
    let mut numbers: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    numbers.sort_unstable();
    numbers.push(u32::MAX);
    let mut first: u32 = 0;
    for kept in numbers {
        if kept > first {
            // SAFETY: closing descriptors touches no memory. That nothing uses them afterwards is the contract of `spawn`.
            unsafe { libc::syscall(libc::SYS_close_range, first, kept - 1, 0) };
        }
        first = kept.saturating_add(1);
    }
}
