//! Sending and receiving: `sendto`, `sendmsg`, `sendmmsg` and their counterparts.

use std::sync::Arc;

use quicksand_abi::socket::{MMsgHdr, MsgHdr};
use quicksand_abi::{Errno, Timespec, UserAddr};
use zerocopy::IntoBytes;

use super::address::{Address, read_address, write_address};
use super::control::{Control, ControlWriter};
use super::socket::{Incoming, MsgFlags, Outgoing};
use super::syscalls::{progress, socket_file, socket_of, wait};
use crate::fs::send_sigpipe;
use crate::syscalls::{Blocked, Fd, OnSignal, Resume, SyscallError, SyscallResult, WakeReason};
use crate::task::CurrentTask;
use crate::vfs::syscalls_rw::read_iovecs;
use crate::vfs::{FdFlags, IoDst, IoSrc, OpenFile};

/// Most messages of one `sendmmsg` or `recvmmsg` (`UIO_MAXIOV`).
const MAX_MESSAGES: u32 = 1024;

/// `sendto(2)`
pub fn sys_sendto(
    task: &CurrentTask,
    fd: Fd,
    buf: UserAddr,
    count: usize,
    flags: u32,
    addr: UserAddr,
    addr_len: u32,
) -> SyscallResult {
    let src = task.io_src(buf, count);
    let file = socket_file(task, fd)?;
    let to = if addr.is_null() { None } else { Some(read_address(task, addr, addr_len)?) };
    send(task, &file, src, to, MsgFlags::from_bits_retain(flags), Control::default())
}

/// `sendmsg(2)`
pub fn sys_sendmsg(task: &CurrentTask, fd: Fd, msg: UserAddr, flags: u32) -> SyscallResult {
    let flags = MsgFlags::from_bits_retain(flags);
    if flags.contains(MsgFlags::CMSG_COMPAT) {
        return Err(Errno::EINVAL.into());
    }
    let file = socket_file(task, fd)?;
    send_header(task, &file, msg, flags)
}

fn send_header(task: &CurrentTask, file: &Arc<OpenFile>, msg: UserAddr, flags: MsgFlags) -> SyscallResult {
    let header: MsgHdr = task.read_object(msg)?;
    if header.namelen < 0 {
        return Err(Errno::EINVAL.into());
    }
    let to = if header.name != 0 && header.namelen > 0 {
        // Longer ones are cut off here, unlike in `sendto`.
        let len = (header.namelen as u32).min(quicksand_abi::socket::MAX_ADDR_LEN as u32);
        Some(read_address(task, UserAddr(header.name), len)?)
    } else {
        None
    };
    let src = IoSrc::user_vec(task.mm(), message_ranges(task, &header)?);
    // What was sent with the first part is not sent again.
    let first = progress(task).unwrap_or(0) == 0;
    let control = if header.controllen > 0 && first {
        let local = matches!(socket_of(file)?.ops.family(), libc::AF_UNIX | libc::AF_NETLINK);
        Control::read(task, UserAddr(header.control), header.controllen, local)?
    } else {
        Control::default()
    };
    send(task, file, src, to, flags, control)
}

fn message_ranges(task: &CurrentTask, header: &MsgHdr) -> Result<Vec<crate::vfs::io::IoRange>, Errno> {
    let count = usize::try_from(header.iovlen).ok().filter(|n| *n <= MAX_MESSAGES as usize);
    read_iovecs(task, UserAddr(header.iov), count.ok_or(Errno::EMSGSIZE)?)
}

/// `sendmmsg(2)`: an error after the first message is not told.
pub fn sys_sendmmsg(task: &CurrentTask, fd: Fd, msgs: UserAddr, count: u32, flags: u32) -> SyscallResult {
    let flags = MsgFlags::from_bits_retain(flags);
    if flags.contains(MsgFlags::CMSG_COMPAT) {
        return Err(Errno::EINVAL.into());
    }
    let file = socket_file(task, fd)?;
    let mut sent = 0;
    for i in 0..u64::from(count.min(MAX_MESSAGES)) {
        let at = element(msgs, i)?;
        // Only the first may wait as it is: what was sent before must not be sent again.
        let flags = if sent > 0 { flags | MsgFlags::DONTWAIT } else { flags };
        match send_header(task, &file, at, flags) {
            Ok(n) => {
                write_length(task, at, n)?;
                sent += 1;
            }
            Err(e) if sent == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(sent)
}

fn element(msgs: UserAddr, i: u64) -> Result<UserAddr, Errno> {
    msgs.checked_add(i * size_of::<MMsgHdr>() as u64).ok_or(Errno::EFAULT)
}
fn write_length(task: &CurrentTask, at: UserAddr, n: usize) -> Result<(), Errno> {
    let at = at.checked_add(size_of::<MsgHdr>() as u64).ok_or(Errno::EFAULT)?;
    task.write_object(at, &(n as u32))
}

fn send(
    task: &CurrentTask,
    file: &Arc<OpenFile>,
    mut src: IoSrc<'_>,
    to: Option<Address>,
    flags: MsgFlags,
    control: Control,
) -> SyscallResult {
    let socket = socket_of(file)?;
    let stream = socket.ops.is_stream();
    let mut done = progress(task).unwrap_or(0);
    src.skip(done);
    let mut message = Outgoing { src: &mut src, to: to.as_deref(), flags, control };
    loop {
        match socket.ops.send(task, &mut message) {
            Ok(n) => {
                done += n;
                if !stream || message.src.remaining() == 0 || n == 0 {
                    return Ok(done);
                }
            }
            Err(Errno::EAGAIN) => {
                file.write_refused(task);
                let nonblock = file.is_nonblocking() || flags.contains(MsgFlags::DONTWAIT);
                return match wait(task, file, true, nonblock, done, Errno::EAGAIN) {
                    Ok(blocked) if done > 0 => Err(blocked.on_signal(OnSignal::Return(done)).into()),
                    Ok(blocked) => Err(blocked.into()),
                    Err(_) if done > 0 => Ok(done),
                    Err(e) => Err(e),
                };
            }
            Err(_) if done > 0 => return Ok(done),
            Err(e) => {
                if e == Errno::EPIPE && stream && !flags.contains(MsgFlags::NOSIGNAL) {
                    send_sigpipe(task);
                }
                return Err(e.into());
            }
        }
    }
}

/// `recvfrom(2)`
pub fn sys_recvfrom(
    task: &CurrentTask,
    fd: Fd,
    buf: UserAddr,
    count: usize,
    flags: u32,
    addr: UserAddr,
    addr_len: UserAddr,
) -> SyscallResult {
    let mut dst = task.io_dst(buf, count);
    let file = socket_file(task, fd)?;
    let incoming = receive(task, &file, &mut dst, MsgFlags::from_bits_retain(flags))?;
    if !addr.is_null() {
        match &incoming.from {
            Some(from) => write_address(task, addr, addr_len, from)?,
            None => write_no_address(task, addr_len)?,
        }
    }
    Ok(incoming.len)
}

/// A message without a sender's address: only the length is written.
fn write_no_address(task: &CurrentTask, addr_len: UserAddr) -> Result<(), Errno> {
    task.write_object(addr_len, &0i32)
}

/// `recvmsg(2)`
pub fn sys_recvmsg(task: &CurrentTask, fd: Fd, msg: UserAddr, flags: u32) -> SyscallResult {
    let flags = MsgFlags::from_bits_retain(flags);
    if flags.contains(MsgFlags::CMSG_COMPAT) {
        return Err(Errno::EINVAL.into());
    }
    let file = socket_file(task, fd)?;
    receive_header(task, &file, msg, flags)
}

fn receive_header(task: &CurrentTask, file: &Arc<OpenFile>, msg: UserAddr, flags: MsgFlags) -> SyscallResult {
    let header: MsgHdr = task.read_object(msg)?;
    if header.namelen < 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut dst = IoDst::user_vec(task.mm(), message_ranges(task, &header)?);
    let incoming = receive(task, file, &mut dst, flags)?;
    let mut out = header;
    out.flags = incoming.flags.bits();
    if header.name != 0 {
        let from = incoming.from.as_deref().unwrap_or_default();
        let shown = from.len().min(header.namelen as usize);
        task.write_bytes(UserAddr(header.name), &from[..shown])?;
        out.namelen = from.len() as i32;
    }
    let cloexec = flags.contains(MsgFlags::CMSG_CLOEXEC);
    let fd_flags = if cloexec { FdFlags::CLOEXEC } else { FdFlags::empty() };
    let room = usize::try_from(header.controllen).unwrap_or(usize::MAX);
    let mut writer = ControlWriter::new(task, UserAddr(header.control), room);
    if let Some(credentials) = &incoming.control.credentials {
        writer.put(libc::SOL_SOCKET, libc::SCM_CREDENTIALS, credentials.as_bytes())?;
    }
    for other in &incoming.control.others {
        writer.put(other.level, other.kind, &other.data)?;
    }
    writer.put_rights(incoming.control.rights, fd_flags)?;
    out.controllen = writer.used() as u64;
    if writer.truncated {
        out.flags |= MsgFlags::CTRUNC.bits();
    }
    if cloexec {
        // Linux shows the flag that it was called with.
        out.flags |= MsgFlags::CMSG_CLOEXEC.bits();
    }
    // The fields that the kernel changes; the rest of the header is the guest's.
    let at = |offset: u64| msg.checked_add(offset).ok_or(Errno::EFAULT);
    if header.name != 0 {
        task.write_object(at(8)?, &out.namelen)?;
    }
    task.write_object(at(40)?, &out.controllen)?;
    task.write_object(at(48)?, &out.flags)?;
    Ok(incoming.len)
}

/// `recvmmsg(2)`: waits for the first message; the timeout is looked at after each.
pub fn sys_recvmmsg(
    task: &CurrentTask,
    fd: Fd,
    msgs: UserAddr,
    count: u32,
    flags: u32,
    timeout: UserAddr,
) -> SyscallResult {
    let flags = MsgFlags::from_bits_retain(flags);
    if flags.contains(MsgFlags::CMSG_COMPAT) {
        return Err(Errno::EINVAL.into());
    }
    if !timeout.is_null() {
        let time: Timespec = task.read_object(timeout)?;
        if !time.is_valid() {
            return Err(Errno::EINVAL.into());
        }
    }
    let file = socket_file(task, fd)?;
    let resume = task.take_resume();
    let (mut received, deadline) = match resume {
        Resume::Messages { received, deadline } => (received, deadline),
        other => {
            *task.resume.borrow_mut() = other;
            let deadline = if timeout.is_null() {
                None
            } else {
                let time: Timespec = task.read_object(timeout)?;
                Some(task.kernel().clocks.monotonic().saturating_add(time.to_duration()?))
            };
            (0, deadline)
        }
    };
    let over = || deadline.is_some_and(|at| task.kernel().clocks.monotonic() >= at);
    while received < count.min(MAX_MESSAGES) {
        let at = element(msgs, u64::from(received))?;
        let dont_wait = received > 0 && flags.contains(MsgFlags::WAITFORONE);
        let one = if dont_wait { flags | MsgFlags::DONTWAIT } else { flags };
        match receive_header(task, &file, at, one - MsgFlags::WAITFORONE) {
            Ok(n) => {
                write_length(task, at, n)?;
                received += 1;
                if over() {
                    break;
                }
            }
            Err(SyscallError::Blocked(blocked)) if task.wake_reason() != WakeReason::Interrupted => {
                if received == 0 && deadline.is_none() {
                    return Err(SyscallError::Blocked(blocked));
                }
                let resume = Resume::Messages { received, deadline };
                let done = OnSignal::Return(received as usize);
                let on_signal = if received > 0 { done } else { blocked.on_signal };
                return Err(Blocked { resume, on_signal, ..*blocked }.into());
            }
            Err(e) if received == 0 => return Err(e),
            Err(_) => break,
        }
    }
    if !timeout.is_null()
        && let Some(at) = deadline
    {
        let left = at.saturating_since(task.kernel().clocks.monotonic());
        task.write_object(timeout, &Timespec::from_duration(left))?;
    }
    Ok(received as usize)
}

fn receive(
    task: &CurrentTask,
    file: &Arc<OpenFile>,
    dst: &mut IoDst<'_>,
    flags: MsgFlags,
) -> Result<Incoming, SyscallError> {
    let socket = socket_of(file)?;
    let waits_for_all = flags.contains(MsgFlags::WAITALL)
        && !flags.contains(MsgFlags::PEEK)
        && socket.ops.is_stream()
        && dst.remaining() > 0;
    let earlier = progress(task).unwrap_or(0);
    dst.skip(earlier);
    let mut total = Incoming { len: earlier, ..Incoming::default() };
    let nonblock = file.is_nonblocking() || flags.contains(MsgFlags::DONTWAIT);
    loop {
        match socket.ops.receive(task, dst, flags) {
            Ok(incoming) => {
                file.was_read(task);
                let ended = incoming.len == 0 || !incoming.control.is_empty();
                total = Incoming { len: total.len + incoming.len, ..incoming };
                if !waits_for_all || ended || dst.remaining() == 0 {
                    return Ok(total);
                }
            }
            Err(Errno::EAGAIN) => {
                let done = total.len;
                return match wait(task, file, false, nonblock, done, Errno::EAGAIN) {
                    Ok(blocked) if done > 0 => Err(blocked.on_signal(OnSignal::Return(done)).into()),
                    Ok(blocked) => Err(blocked.into()),
                    Err(_) if done > 0 => Ok(total),
                    Err(e) => Err(e),
                };
            }
            Err(_) if total.len > 0 => return Ok(total),
            Err(e) => return Err(e.into()),
        }
    }
}
