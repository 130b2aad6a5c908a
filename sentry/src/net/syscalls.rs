//! Making and connecting sockets, their names and options.

use std::sync::Arc;
use std::time::Duration;

use quicksand_abi::socket::{SO_RCVTIMEO_NEW, SO_SNDTIMEO_NEW};
use quicksand_abi::{Errno, Timeval, UserAddr};
use zerocopy::{FromBytes, IntoBytes};

use super::address::{read_address, write_address};
use super::socket::{Shutdown, SocketFile, SocketOps, fd_flags, install, new_file};
use super::unix::UnixSocket;
use crate::sync::Events;
use crate::syscalls::{Blocked, Fd, OnSignal, Resume, SyscallError, SyscallResult, WakeReason};
use crate::task::CurrentTask;
use crate::vfs::{OpenFile, OpenFlags};

/// One past the highest family (`AF_MAX`), and the highest type (`SOCK_MAX`).
const AF_MAX: i32 = 46;
const SOCK_MAX: i32 = 11;
/// The part of a `type` argument that is the type.
const SOCK_TYPE_MASK: i32 = 0xf;

/// The socket behind a descriptor: ENOTSOCK where it is something else.
pub(super) fn socket_file(task: &CurrentTask, fd: Fd) -> Result<Arc<OpenFile>, Errno> {
    let file = task.file(fd)?;
    match file.ops_as::<SocketFile>() {
        Some(_) => Ok(file),
        None => Err(Errno::ENOTSOCK),
    }
}

/// The socket of an open file that [`socket_file`] found.
pub(super) fn socket_of(file: &OpenFile) -> Result<&SocketFile, Errno> {
    file.ops_as::<SocketFile>().ok_or(Errno::ENOTSOCK)
}

/// Splits a `type` argument into type and flags; EINVAL for flags that there are not.
fn split_kind(kind: i32) -> Result<(i32, i32), Errno> {
    let flags = kind & !SOCK_TYPE_MASK;
    if flags & !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    Ok((kind & SOCK_TYPE_MASK, flags))
}

fn check_family(family: i32, kind: i32) -> Result<(), Errno> {
    if !(0..AF_MAX).contains(&family) {
        return Err(Errno::EAFNOSUPPORT);
    }
    if !(0..SOCK_MAX).contains(&kind) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// `socket(2)`
pub fn sys_socket(task: &CurrentTask, family: i32, kind: i32, protocol: i32) -> SyscallResult {
    let (kind, flags) = split_kind(kind)?;
    check_family(family, kind)?;
    let ops: Arc<dyn SocketOps> = match family {
        libc::AF_UNIX => UnixSocket::new(task, kind, protocol)?,
        _ => super::lambda::socket::wrap(task, task.kernel().net.socket(task, family, kind, protocol)?),
    };
    Ok(install(task, ops, flags)?.0 as usize)
}

/// `socketpair(2)`: Unix sockets only.
pub fn sys_socketpair(
    task: &CurrentTask,
    family: i32,
    kind: i32,
    protocol: i32,
    fds: UserAddr,
) -> SyscallResult {
    let (kind, flags) = split_kind(kind)?;
    check_family(family, kind)?;
    if family != libc::AF_UNIX {
        // A family that exists has sockets, but no pairs of them.
        let ops = task.kernel().net.socket(task, family, kind, protocol)?;
        ops.release();
        return Err(Errno::EOPNOTSUPP.into());
    }
    let [a, b] = UnixSocket::pair(task, kind, protocol)?;
    let a = new_file(task, a, OpenFlags::from_bits_retain(flags as u32));
    let b = new_file(task, b, OpenFlags::from_bits_retain(flags as u32));
    let a = task.install_fd(a, fd_flags(flags))?;
    let b = task.install_fd(b, fd_flags(flags)).inspect_err(|_| drop(task.files().remove(a)))?;
    if let Err(e) = task.write_array(fds, &[a.0, b.0]) {
        drop(task.files().remove(a));
        drop(task.files().remove(b));
        return Err(e.into());
    }
    Ok(0)
}

/// `bind(2)`
pub fn sys_bind(task: &CurrentTask, fd: Fd, addr: UserAddr, len: u32) -> SyscallResult {
    let file = socket_file(task, fd)?;
    let address = read_address(task, addr, len)?;
    socket_of(&file)?.ops.bind(task, &address)?;
    Ok(0)
}

/// `listen(2)`
pub fn sys_listen(task: &CurrentTask, fd: Fd, backlog: i32) -> SyscallResult {
    let file = socket_file(task, fd)?;
    let socket = socket_of(&file)?;
    socket.ops.listen(task, backlog)?;
    crate::entry::listens(task, socket);
    Ok(0)
}

/// The `Blocked` of a socket call, with its timeout; or the errno of one that may not wait (any longer).
pub(super) fn wait(
    task: &CurrentTask,
    file: &OpenFile,
    write: bool,
    nonblock: bool,
    bytes: usize,
    errno: Errno,
) -> Result<Blocked, SyscallError> {
    let socket = socket_of(file)?;
    let deadline = match task.take_resume() {
        Resume::Io { deadline, .. } => deadline,
        _ => {
            let timeout = socket.timeout_of(write);
            timeout.map(|t| task.kernel().clocks.monotonic().saturating_add(t))
        }
    };
    if nonblock || task.wake_reason() == WakeReason::Timeout {
        return Err(errno.into());
    }
    let events = if write { Events::WRITABLE } else { Events::READABLE | Events::RDHUP };
    // A call with a timeout is not restarted, for its time would start over.
    let on_signal = if deadline.is_some() { OnSignal::Interrupt } else { OnSignal::Restart };
    let resume = Resume::Io { bytes: bytes as u64, deadline };
    Ok(Blocked::on(socket.ops.queue(), events).deadline(deadline).resume(resume).on_signal(on_signal))
}

/// Puts back what [`CurrentTask::take_resume`] gave, for [`wait`] to go on from.
pub(super) fn progress(task: &CurrentTask) -> Option<usize> {
    let resume = task.take_resume();
    let bytes = match resume {
        Resume::Io { bytes, .. } => Some(bytes as usize),
        _ => None,
    };
    *task.resume.borrow_mut() = resume;
    bytes
}

/// `connect(2)`
pub fn sys_connect(task: &CurrentTask, fd: Fd, addr: UserAddr, len: u32) -> SyscallResult {
    let file = socket_file(task, fd)?;
    let address = read_address(task, addr, len)?;
    let again = progress(task).is_some();
    match socket_of(&file)?.ops.connect(task, &address, again) {
        Ok(()) => Ok(0),
        Err(e @ (Errno::EINPROGRESS | Errno::EALREADY | Errno::EAGAIN)) => {
            // A connection that is not there in time is still on its way.
            let errno = if again && e == Errno::EALREADY { Errno::EINPROGRESS } else { e };
            file.write_refused(task);
            Err(wait(task, &file, true, file.is_nonblocking(), 0, errno)?.into())
        }
        Err(e) => Err(e.into()),
    }
}

/// `accept(2)`
pub fn sys_accept(task: &CurrentTask, fd: Fd, addr: UserAddr, len: UserAddr) -> SyscallResult {
    sys_accept4(task, fd, addr, len, 0)
}

/// `accept4(2)`
pub fn sys_accept4(task: &CurrentTask, fd: Fd, addr: UserAddr, len: UserAddr, flags: i32) -> SyscallResult {
    if flags & !(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = socket_file(task, fd)?;
    let (ops, peer) = match socket_of(&file)?.ops.accept(task) {
        Ok(accepted) => accepted,
        Err(Errno::EAGAIN) => {
            return Err(wait(task, &file, false, file.is_nonblocking(), 0, Errno::EAGAIN)?.into());
        }
        Err(e) => return Err(e.into()),
    };
    // From here on the connection is owned: whatever fails closes it.
    let accepted = new_file(task, ops, OpenFlags::from_bits_retain(flags as u32));
    if !addr.is_null() {
        write_address(task, addr, len, &peer)?;
    }
    Ok(task.install_fd(accepted, fd_flags(flags))?.0 as usize)
}

/// `getsockname(2)`
pub fn sys_getsockname(task: &CurrentTask, fd: Fd, addr: UserAddr, len: UserAddr) -> SyscallResult {
    let file = socket_file(task, fd)?;
    let address = socket_of(&file)?.ops.local_address()?;
    write_address(task, addr, len, &address)?;
    Ok(0)
}

/// `getpeername(2)`
pub fn sys_getpeername(task: &CurrentTask, fd: Fd, addr: UserAddr, len: UserAddr) -> SyscallResult {
    let file = socket_file(task, fd)?;
    let address = socket_of(&file)?.ops.peer_address()?;
    write_address(task, addr, len, &address)?;
    Ok(0)
}

/// `shutdown(2)`
pub fn sys_shutdown(task: &CurrentTask, fd: Fd, how: i32) -> SyscallResult {
    let file = socket_file(task, fd)?;
    let how = match how {
        libc::SHUT_RD => Shutdown { read: true, write: false },
        libc::SHUT_WR => Shutdown { read: false, write: true },
        libc::SHUT_RDWR => Shutdown { read: true, write: true },
        _ => return Err(Errno::EINVAL.into()),
    };
    socket_of(&file)?.ops.shutdown(how)?;
    Ok(0)
}

/// Largest option value that is copied in; no option is larger.
const MAX_OPTION: usize = 64 << 10;

/// `setsockopt(2)`
pub fn sys_setsockopt(
    task: &CurrentTask,
    fd: Fd,
    level: i32,
    name: i32,
    value: UserAddr,
    len: u32,
) -> SyscallResult {
    let file = socket_file(task, fd)?;
    let len = usize::try_from(len as i32).map_err(|_| Errno::EINVAL)?;
    if len > MAX_OPTION {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = vec![0; len];
    task.read_bytes(value, &mut bytes)?;
    let socket = socket_of(&file)?;
    if level == libc::SOL_SOCKET {
        match name {
            libc::SO_RCVTIMEO | SO_RCVTIMEO_NEW => {
                socket.set_timeout(false, read_timeout(&bytes)?);
                return Ok(0);
            }
            libc::SO_SNDTIMEO | SO_SNDTIMEO_NEW => {
                socket.set_timeout(true, read_timeout(&bytes)?);
                return Ok(0);
            }
            _ => {}
        }
    }
    socket.ops.set_option(task, level, name, &bytes)?;
    Ok(0)
}

/// `sock_set_timeout`: zero waits for ever, a negative time not at all.
fn read_timeout(bytes: &[u8]) -> Result<Option<Duration>, Errno> {
    let (time, _) = Timeval::read_from_prefix(bytes).map_err(|_| Errno::EINVAL)?;
    if !(0..1_000_000).contains(&time.usec) {
        return Err(Errno::EDOM);
    }
    if time.sec < 0 {
        return Ok(Some(Duration::ZERO));
    }
    if time == Timeval::default() {
        return Ok(None);
    }
    Ok(Some(Duration::from_nanos(time.to_ns() as u64)))
}

/// `getsockopt(2)`
pub fn sys_getsockopt(
    task: &CurrentTask,
    fd: Fd,
    level: i32,
    name: i32,
    value: UserAddr,
    len: UserAddr,
) -> SyscallResult {
    let file = socket_file(task, fd)?;
    let room: i32 = task.read_object(len)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let socket = socket_of(&file)?;
    let timeout = |write: bool| {
        let span = socket.timeout_of(write).unwrap_or_default();
        Ok(Timeval::from_duration(span).as_bytes().to_vec())
    };
    let int = |value: i32| Ok(value.to_ne_bytes().to_vec());
    let bytes = match (level, name) {
        (libc::SOL_SOCKET, libc::SO_RCVTIMEO | SO_RCVTIMEO_NEW) => timeout(false),
        (libc::SOL_SOCKET, libc::SO_SNDTIMEO | SO_SNDTIMEO_NEW) => timeout(true),
        (libc::SOL_SOCKET, libc::SO_TYPE) => int(socket.ops.kind()),
        (libc::SOL_SOCKET, libc::SO_DOMAIN) => int(socket.ops.family()),
        (libc::SOL_SOCKET, libc::SO_PROTOCOL) => int(socket.ops.protocol()),
        _ => socket.ops.get_option(task, level, name, room.min(MAX_OPTION)),
    }?;
    if (level, name) == (libc::SOL_SOCKET, quicksand_abi::socket::SO_PEERGROUPS) && bytes.len() > room {
        task.write_object(len, &(bytes.len() as i32))?;
        return Err(Errno::ERANGE.into());
    }
    let shown = bytes.len().min(room);
    task.write_bytes(value, &bytes[..shown])?;
    task.write_object(len, &(shown as i32))?;
    Ok(0)
}
