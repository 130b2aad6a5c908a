//! What every socket is, and the open file over it (`struct socket`).

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quicksand_abi::{Errno, UserAddr};

use super::address::Address;
use super::control::Control;
use crate::fs::{ioctl, send_sigpipe};
use crate::sync::{Events, WaitQueue};
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;
use crate::vfs::{FdFlags, FileOps, IoDst, IoSrc, OpenFile, OpenFlags};

bitflags::bitflags! {
    /// MSG_ flags.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MsgFlags: u32 {
        const OOB = 1;
        const PEEK = 2;
        const DONTROUTE = 4;
        const CTRUNC = 8;
        const TRUNC = 0x20;
        const DONTWAIT = 0x40;
        const EOR = 0x80;
        const WAITALL = 0x100;
        const CONFIRM = 0x800;
        const ERRQUEUE = 0x2000;
        const NOSIGNAL = 0x4000;
        const MORE = 0x8000;
        const WAITFORONE = 0x10000;
        const FASTOPEN = 0x2000_0000;
        const CMSG_CLOEXEC = 0x4000_0000;
        const CMSG_COMPAT = 0x8000_0000;
    }
}

/// A message on its way out.
#[derive(Debug)]
pub struct Outgoing<'a, 'b> {
    pub src: &'a mut IoSrc<'b>,
    pub to: Option<&'a [u8]>,
    pub flags: MsgFlags,
    pub control: Control,
}

/// What was received.
#[derive(Debug, Default)]
pub struct Incoming {
    /// Bytes put into the buffer; with MSG_TRUNC asked for, the message's true length.
    pub len: usize,
    pub from: Option<Address>,
    pub control: Control,
    /// MSG_TRUNC, MSG_EOR, MSG_CTRUNC, MSG_ERRQUEUE.
    pub flags: MsgFlags,
}

/// How a shutdown or a close affects the two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Shutdown {
    pub read: bool,
    pub write: bool,
}

/// What a socket of some family does. All are tries; EAGAIN waits on [`SocketOps::queue`]. Defaults are what Linux answers
/// where a protocol lacks an operation.
pub trait SocketOps: Any + Send + Sync + fmt::Debug {
    /// SO_DOMAIN.
    fn family(&self) -> i32;
    /// SO_TYPE.
    fn kind(&self) -> i32;
    /// SO_PROTOCOL.
    fn protocol(&self) -> i32;

    /// A byte stream: partial transfers are continued, MSG_WAITALL waits, EPIPE is a signal.
    fn is_stream(&self) -> bool {
        self.kind() == libc::SOCK_STREAM
    }
    fn queue(&self) -> Arc<WaitQueue>;
    /// The socket got its open file: the file's inode number, and who made it.
    fn opened(&self, _ino: u64, _uid: u32) {}
    fn poll(&self, task: &CurrentTask) -> Events;
    /// The last descriptor was closed.
    fn release(&self) {}

    fn bind(&self, _task: &CurrentTask, _address: &[u8]) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    /// `again` says that an earlier try of this call had to wait. EINPROGRESS and EALREADY wait like EAGAIN.
    fn connect(&self, _task: &CurrentTask, _address: &[u8], _again: bool) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    fn listen(&self, _task: &CurrentTask, _backlog: i32) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Connections can be accepted.
    fn is_listening(&self) -> bool {
        false
    }
    /// The connection, and its peer's address.
    fn accept(&self, _task: &CurrentTask) -> Result<(Arc<dyn SocketOps>, Address), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    fn local_address(&self) -> Result<Address, Errno>;
    fn peer_address(&self) -> Result<Address, Errno> {
        Err(Errno::ENOTCONN)
    }
    fn send(&self, task: &CurrentTask, message: &mut Outgoing<'_, '_>) -> Result<usize, Errno>;
    fn receive(&self, task: &CurrentTask, dst: &mut IoDst<'_>, flags: MsgFlags) -> Result<Incoming, Errno>;
    fn shutdown(&self, _how: Shutdown) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
    /// The option's value, at most `room` bytes of which the guest gets.
    fn get_option(
        &self,
        _task: &CurrentTask,
        _level: i32,
        _name: i32,
        _room: usize,
    ) -> Result<Vec<u8>, Errno> {
        Err(Errno::ENOPROTOOPT)
    }
    fn set_option(&self, _task: &CurrentTask, _level: i32, _name: i32, _value: &[u8]) -> Result<(), Errno> {
        Err(Errno::ENOPROTOOPT)
    }
    fn ioctl(&self, _task: &CurrentTask, _cmd: u32, _arg: u64) -> SyscallResult {
        Err(Errno::ENOTTY.into())
    }
}

/// An open socket.
pub struct SocketFile {
    pub ops: Arc<dyn SocketOps>,
    /// SO_RCVTIMEO and SO_SNDTIMEO in nanoseconds; `u64::MAX` for none.
    receive_timeout: AtomicU64,
    send_timeout: AtomicU64,
}

impl SocketFile {
    pub fn new(ops: Arc<dyn SocketOps>) -> SocketFile {
        SocketFile { ops, receive_timeout: AtomicU64::new(u64::MAX), send_timeout: AtomicU64::new(u64::MAX) }
    }
    /// `None` waits for ever.
    pub fn timeout_of(&self, write: bool) -> Option<Duration> {
        let timeout = if write { &self.send_timeout } else { &self.receive_timeout };
        Some(timeout.load(Ordering::Relaxed)).filter(|ns| *ns != u64::MAX).map(Duration::from_nanos)
    }
    pub fn set_timeout(&self, write: bool, timeout: Option<Duration>) {
        let ns = timeout.map_or(u64::MAX, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
        let field = if write { &self.send_timeout } else { &self.receive_timeout };
        field.store(ns, Ordering::Relaxed);
    }
}

/// Makes the open file of a socket. Of `flags`, O_NONBLOCK counts.
pub fn new_file(task: &CurrentTask, ops: Arc<dyn SocketOps>, flags: OpenFlags) -> Arc<OpenFile> {
    let inode = task.kernel().anon.socket_inode(task);
    ops.opened(inode.ino, task.creds().fsuid);
    let name = format!("socket:[{}]", inode.ino);
    let flags = OpenFlags::RDWR | (flags & OpenFlags::NONBLOCK);
    OpenFile::new_anonymous(inode, &name, Box::new(SocketFile::new(ops)), flags)
}

/// Makes the open file of a socket and installs it. Of `kind_flags`, SOCK_NONBLOCK and SOCK_CLOEXEC count.
pub fn install(
    task: &CurrentTask,
    ops: Arc<dyn SocketOps>,
    kind_flags: i32,
) -> Result<crate::syscalls::Fd, Errno> {
    let file = new_file(task, ops, OpenFlags::from_bits_retain(kind_flags as u32));
    task.install_fd(file, fd_flags(kind_flags))
}

/// SOCK_CLOEXEC as a descriptor's flag.
pub fn fd_flags(kind_flags: i32) -> FdFlags {
    if kind_flags & libc::SOCK_CLOEXEC != 0 { FdFlags::CLOEXEC } else { FdFlags::empty() }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.ops.release();
    }
}

impl FileOps for SocketFile {
    fn read(&self, file: &OpenFile, task: &CurrentTask, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        // What came with the message and was not asked for is dropped: descriptors are closed.
        let len = self.ops.receive(task, dst, MsgFlags::empty())?.len;
        file.was_read(task);
        Ok(len)
    }

    fn write(
        &self,
        file: &OpenFile,
        task: &CurrentTask,
        src: &mut IoSrc<'_>,
        _: u64,
    ) -> Result<usize, Errno> {
        let mut message = Outgoing { src, to: None, flags: MsgFlags::empty(), control: Control::default() };
        let result = self.ops.send(task, &mut message);
        if result == Err(Errno::EPIPE) && self.ops.is_stream() {
            send_sigpipe(task);
        }
        if result == Err(Errno::EAGAIN) {
            file.write_refused(task);
        }
        result
    }

    fn append(
        &self,
        file: &OpenFile,
        task: &CurrentTask,
        src: &mut IoSrc<'_>,
    ) -> Result<(usize, u64), Errno> {
        self.write(file, task, src, 0).map(|n| (n, 0))
    }

    fn writes_all(&self) -> bool {
        self.ops.is_stream()
    }

    fn can_splice(&self, _: bool) -> bool {
        true
    }

    fn timeout(&self, _: &OpenFile, write: bool) -> Option<Duration> {
        self.timeout_of(write)
    }

    fn is_stream(&self) -> bool {
        true
    }

    fn poll(&self, _: &OpenFile, task: &CurrentTask) -> Events {
        self.ops.poll(task)
    }

    fn wait_queue(&self, _: &OpenFile) -> Option<Arc<WaitQueue>> {
        Some(self.ops.queue())
    }

    fn ioctl(&self, file: &OpenFile, task: &CurrentTask, cmd: u32, arg: u64) -> SyscallResult {
        match cmd {
            ioctl::FIOSETOWN | ioctl::SIOCSPGRP => {
                let pid: i32 = task.read_object(UserAddr(arg))?;
                if pid == i32::MIN {
                    return Err(Errno::EINVAL.into());
                }
                file.set_owner(task, pid, false)?;
                Ok(0)
            }
            ioctl::FIOGETOWN | ioctl::SIOCGPGRP => {
                task.write_object(UserAddr(arg), &file.owner().pid)?;
                Ok(0)
            }
            _ => self.ops.ioctl(task, cmd, arg),
        }
    }
}

impl fmt::Debug for SocketFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SocketFile({:?})", self.ops)
    }
}
