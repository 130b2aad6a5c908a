//! The host stack: internet sockets over sockets of the host, made in the network namespace of the Sentry's own process.
//!
//! Every host socket is non-blocking. Data passes through the Sentry's memory; addresses, options and control messages
//! pass as bytes, by allow-list. What of a socket can be saved: its family, type, protocol and addresses; connections
//! cannot, for their other end knows the host's.

mod options;
mod routes;
mod saved;

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use quicksand_abi::socket::{CMSG_HDR_LEN, CMsgHdr, cmsg_align};
use quicksand_abi::{Errno, UserAddr};
use quicksand_host::socket as host;
use quicksand_host::socket::IntRequest;
use rustix::event::{PollFd, PollFlags};
use zerocopy::{FromBytes, IntoBytes};

use super::address::Address;
use super::control::Other;
use super::socket::{Incoming, MsgFlags, Outgoing, Shutdown, SocketOps};
use super::stack::{Counters, Interface, InterfaceAddress, Route, SocketSummary, Stack};
use crate::fs::ioctl;
use crate::host_poll::{self, HostInterest};
use crate::sync::{Events, Level, Mutex, WaitQueue};
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;
use crate::task::credentials::Caps;
use crate::vfs::IoDst;

/// What one try moves at most; also more than the largest datagram.
const CHUNK: usize = 64 << 10;
/// Room for control messages.
const CONTROL: usize = 1024;

thread_local! {
    /// The memory that data passes through. Kept, for clearing it each time costs more than a small message.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the calling thread's scratch memory: at least [`CHUNK`] bytes, of any content.
fn with_scratch<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut scratch = SCRATCH.take();
    scratch.resize(CHUNK, 0);
    let result = f(&mut scratch);
    SCRATCH.set(scratch);
    result
}

/// The host's stack.
pub struct HostStack {
    sockets: Mutex<Vec<Weak<HostSocket>>>,
    counts: Arc<Counts>,
}

/// States of a TCP socket, as Linux numbers them.
mod tcp_state {
    pub(super) const ESTABLISHED: u8 = 1;
    pub(super) const CLOSE: u8 = 7;
    pub(super) const CLOSE_WAIT: u8 = 8;
    pub(super) const LAST_ACK: u8 = 9;
    pub(super) const LISTEN: u8 = 10;
    pub(super) const CLOSING: u8 = 11;
}

/// What its sockets have done.
#[derive(Default)]
struct Counts {
    active_opens: AtomicU64,
    passive_opens: AtomicU64,
    /// Of IPv4 and IPv6.
    datagrams_in: [AtomicU64; 2],
    datagrams_out: [AtomicU64; 2],
}

impl Default for HostStack {
    fn default() -> HostStack {
        HostStack { sockets: Mutex::new(Level::Leaf, Vec::new()), counts: Arc::default() }
    }
}

impl HostStack {
    fn add(&self, socket: HostSocket) -> Arc<HostSocket> {
        let socket = Arc::new(socket);
        let mut sockets = self.sockets.lock();
        if sockets.len() == sockets.capacity() {
            sockets.retain(|s| s.strong_count() > 0);
        }
        sockets.push(Arc::downgrade(&socket));
        socket
    }
}

impl fmt::Debug for HostStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostStack")
    }
}

impl Stack for HostStack {
    fn socket(
        &self,
        task: &CurrentTask,
        family: i32,
        kind: i32,
        protocol: i32,
    ) -> Result<Arc<dyn SocketOps>, Errno> {
        let supported = match (kind, protocol) {
            (libc::SOCK_STREAM, 0 | libc::IPPROTO_TCP) => true,
            (libc::SOCK_DGRAM, 0 | libc::IPPROTO_UDP | libc::IPPROTO_UDPLITE) => true,
            (libc::SOCK_DGRAM, libc::IPPROTO_ICMP) => family == libc::AF_INET,
            (libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6) => family == libc::AF_INET6,
            (libc::SOCK_STREAM | libc::SOCK_DGRAM, _) => false,
            (libc::SOCK_RAW, 0) => false,
            (libc::SOCK_RAW, _) => {
                if task.creds().has(Caps::NET_RAW) {
                    task.kernel().log_unsupported("raw internet sockets", Errno::EPERM);
                }
                return Err(Errno::EPERM);
            }
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        };
        if !supported {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let fd = host::socket(family, kind, protocol)?;
        let protocol = match (kind, protocol) {
            (libc::SOCK_STREAM, 0) => libc::IPPROTO_TCP,
            (libc::SOCK_DGRAM, 0) => libc::IPPROTO_UDP,
            (_, protocol) => protocol,
        };
        Ok(self.add(HostSocket::new(fd, family, kind, protocol, self.counts.clone())))
    }

    fn interfaces(&self) -> Result<Vec<Interface>, Errno> {
        routes::interfaces()
    }
    fn addresses(&self) -> Result<Vec<InterfaceAddress>, Errno> {
        routes::addresses()
    }
    fn routes(&self) -> Result<Vec<Route>, Errno> {
        routes::routes()
    }
    fn find_route(&self, wanted: &Route) -> Result<Route, Errno> {
        routes::find_route(wanted)
    }

    fn sockets(&self) -> Vec<SocketSummary> {
        let sockets = self.sockets.lock().clone();
        sockets.iter().filter_map(Weak::upgrade).filter_map(|s| s.summary()).collect()
    }

    fn counters(&self, family: i32) -> Counters {
        let (counts, six) = (&self.counts, usize::from(family == libc::AF_INET6));
        Counters {
            active_opens: counts.active_opens.load(Ordering::Relaxed),
            passive_opens: counts.passive_opens.load(Ordering::Relaxed),
            datagrams_in: counts.datagrams_in[six].load(Ordering::Relaxed),
            datagrams_out: counts.datagrams_out[six].load(Ordering::Relaxed),
        }
    }
}

/// A socket of the host.
pub struct HostSocket {
    fd: Arc<OwnedFd>,
    family: i32,
    kind: i32,
    protocol: i32,
    queue: Arc<WaitQueue>,
    /// Made when somebody first waits.
    interest: OnceLock<Option<HostInterest>>,
    counts: Arc<Counts>,
    /// The inode number of its open file and its owner, for `/proc/net`.
    ino: AtomicU64,
    uid: AtomicU32,
}

impl HostSocket {
    fn new(fd: OwnedFd, family: i32, kind: i32, protocol: i32, counts: Arc<Counts>) -> HostSocket {
        HostSocket {
            fd: Arc::new(fd),
            family,
            kind,
            protocol,
            queue: WaitQueue::new(),
            interest: OnceLock::new(),
            counts,
            ino: AtomicU64::new(0),
            uid: AtomicU32::new(0),
        }
    }

    /// Sends what the host takes of a message.
    fn put_out(&self, task: &CurrentTask, message: &mut Outgoing<'_, '_>) -> Result<usize, Errno> {
        if message.flags.contains(MsgFlags::FASTOPEN) {
            task.kernel().log_unsupported("MSG_FASTOPEN", Errno::EOPNOTSUPP);
            return Err(Errno::EOPNOTSUPP);
        }
        let stream = self.is_stream();
        let control = pack(task, &message.control, stream)?;
        let want = message.src.remaining();
        if !stream && want > CHUNK {
            return Err(Errno::EMSGSIZE);
        }
        with_scratch(|scratch| {
            let want = want.min(CHUNK);
            let mut taken = 0;
            while taken < want {
                match message.src.take(&mut scratch[taken..want]) {
                    Ok(0) => break,
                    Ok(n) => taken += n,
                    // What a stream could reach is sent; a datagram is whole or not at all.
                    Err(_) if stream && taken > 0 => break,
                    Err(e) => {
                        message.src.unread(taken);
                        return Err(e);
                    }
                }
            }
            let sent =
                host::send(self.fd(), &scratch[..taken], message.to, &control, host_flags(message.flags));
            match sent {
                Ok(sent) => {
                    self.count(&self.counts.datagrams_out);
                    message.src.unread(taken.saturating_sub(sent));
                }
                Err(_) => message.src.unread(taken),
            }
            sent
        })
    }
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What of a TCP or UDP socket `/proc/net` shows.
    fn summary(&self) -> Option<SocketSummary> {
        let local = host::local_address(self.fd()).ok()?;
        let remote = host::peer_address(self.fd()).ok();
        let (state, waiting) = if self.kind == libc::SOCK_STREAM {
            // `struct tcp_info`: the state, and at byte 24 the connections that wait for `accept`.
            let info = host::get_option(self.fd(), libc::IPPROTO_TCP, libc::TCP_INFO, 28).ok()?;
            let waiting = info.get(24..28).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
            (*info.first()?, waiting)
        } else {
            (if remote.is_some() { tcp_state::ESTABLISHED } else { tcp_state::CLOSE }, 0)
        };
        let (send_queue, receive_queue) =
            if state == tcp_state::LISTEN { (0, waiting) } else { self.queued(state) };
        Some(SocketSummary {
            family: self.family,
            kind: self.kind,
            protocol: self.protocol,
            local,
            remote,
            state,
            inode: self.ino.load(Ordering::Relaxed),
            uid: self.uid.load(Ordering::Relaxed),
            send_queue,
            receive_queue,
        })
    }

    /// Bytes that wait to be sent and to be read: of a stream in sequence numbers, of other sockets in memory.
    fn queued(&self, state: u8) -> (u32, u32) {
        use tcp_state::{CLOSE_WAIT, CLOSING, LAST_ACK};
        if self.kind != libc::SOCK_STREAM {
            // SK_MEMINFO_RMEM_ALLOC and SK_MEMINFO_WMEM_ALLOC.
            let info =
                host::get_option(self.fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, 36).unwrap_or_default();
            let word = |i: usize| info.get(i * 4..i * 4 + 4).and_then(|b| b.try_into().ok());
            return (word(2).map_or(0, u32::from_ne_bytes), word(0).map_or(0, u32::from_ne_bytes));
        }
        let bytes = |request| host::query(self.fd(), request).map_or(0, |n| u32::try_from(n).unwrap_or(0));
        let (out, unread) = (bytes(IntRequest::BytesOut), bytes(IntRequest::BytesIn));
        // The peer's FIN counts for one until it is read.
        let fin = unread > 0 && matches!(state, CLOSE_WAIT | LAST_ACK | CLOSING);
        (out, unread + u32::from(fin))
    }

    /// Counts one more datagram that went `way`.
    fn count(&self, way: &[AtomicU64; 2]) {
        if self.protocol == libc::IPPROTO_UDP {
            way[usize::from(self.family == libc::AF_INET6)].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn int(&self, task: &CurrentTask, arg: u64, request: IntRequest) -> SyscallResult {
        let value = host::query(self.fd(), request)?;
        task.write_object(UserAddr(arg), &value)?;
        Ok(0)
    }
}

/// The flags that the host is asked with. Waiting, signals and descriptors are the Sentry's business.
const PASSED: MsgFlags = MsgFlags::OOB
    .union(MsgFlags::PEEK)
    .union(MsgFlags::DONTROUTE)
    .union(MsgFlags::TRUNC)
    .union(MsgFlags::EOR)
    .union(MsgFlags::CONFIRM)
    .union(MsgFlags::ERRQUEUE)
    .union(MsgFlags::MORE);

fn host_flags(flags: MsgFlags) -> i32 {
    (flags & PASSED).bits() as i32 | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL
}

impl SocketOps for HostSocket {
    fn family(&self) -> i32 {
        self.family
    }
    fn kind(&self) -> i32 {
        self.kind
    }
    fn protocol(&self) -> i32 {
        self.protocol
    }

    fn queue(&self) -> Arc<WaitQueue> {
        self.interest.get_or_init(|| {
            let events = Events::IN | Events::OUT | Events::PRI | Events::RDHUP;
            let registered = host_poll::register(self.fd.clone(), events, self.queue.clone());
            registered.inspect_err(|e| tracing::error!("cannot poll a host socket: {e}")).ok()
        });
        self.queue.clone()
    }

    fn opened(&self, ino: u64, uid: u32) {
        self.ino.store(ino, Ordering::Relaxed);
        self.uid.store(uid, Ordering::Relaxed);
    }

    fn poll(&self, _: &CurrentTask) -> Events {
        let wanted = PollFlags::IN | PollFlags::OUT | PollFlags::PRI | PollFlags::RDHUP;
        let mut fds = [PollFd::from_borrowed_fd(self.fd(), wanted)];
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        if rustix::event::poll(&mut fds, Some(&now)).is_err() {
            return Events::empty();
        }
        let found = Events::from_bits_truncate(u32::from(fds[0].revents().bits()));
        let mut events = found;
        if found.contains(Events::IN) {
            events |= Events::READABLE;
        }
        if found.contains(Events::OUT) {
            events |= Events::WRITABLE;
        }
        events
    }

    fn bind(&self, _: &CurrentTask, address: &[u8]) -> Result<(), Errno> {
        host::bind(self.fd(), address)
    }

    /// Calling again says how far a connection is: done, EALREADY, or why it failed.
    fn connect(&self, _: &CurrentTask, address: &[u8], again: bool) -> Result<(), Errno> {
        let result = host::connect(self.fd(), address);
        if self.is_stream() && !again && matches!(result, Ok(()) | Err(Errno::EINPROGRESS)) {
            self.counts.active_opens.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn listen(&self, _: &CurrentTask, backlog: i32) -> Result<(), Errno> {
        rustix::net::listen(&*self.fd, backlog).map_err(|e| Errno::from_raw(e.raw_os_error()))
    }

    fn is_listening(&self) -> bool {
        let value = host::get_option(self.fd(), libc::SOL_SOCKET, libc::SO_ACCEPTCONN, 4);
        value.is_ok_and(|value| value.first().is_some_and(|byte| *byte != 0))
    }

    fn accept(&self, task: &CurrentTask) -> Result<(Arc<dyn SocketOps>, Address), Errno> {
        let (fd, peer) = host::accept(self.fd())?;
        let counts = self.counts.clone();
        counts.passive_opens.fetch_add(1, Ordering::Relaxed);
        let socket = HostSocket::new(fd, self.family, self.kind, self.protocol, counts);
        Ok((task.kernel().net.host.add(socket), peer))
    }

    fn local_address(&self) -> Result<Address, Errno> {
        host::local_address(self.fd())
    }
    fn peer_address(&self) -> Result<Address, Errno> {
        host::peer_address(self.fd())
    }

    fn send(&self, task: &CurrentTask, message: &mut Outgoing<'_, '_>) -> Result<usize, Errno> {
        let sent = self.put_out(task, message);
        if sent.is_ok() {
            task.kernel().has_put_out();
        }
        sent
    }

    fn receive(&self, _: &CurrentTask, dst: &mut IoDst<'_>, flags: MsgFlags) -> Result<Incoming, Errno> {
        with_scratch(|scratch| {
            let want = dst.remaining().min(CHUNK);
            let mut control = [0; CONTROL];
            let got = host::receive(self.fd(), &mut scratch[..want], &mut control, host_flags(flags))?;
            if !flags.intersects(MsgFlags::PEEK | MsgFlags::ERRQUEUE) {
                self.count(&self.counts.datagrams_in);
            }
            let data = &scratch[..got.len.min(want)];
            // A stream with MSG_TRUNC throws data away, and puts none.
            let thrown_away = self.is_stream() && flags.contains(MsgFlags::TRUNC);
            let mut put = 0;
            while put < data.len() && !thrown_away {
                match dst.put(&data[put..]) {
                    Ok(n) => put += n,
                    Err(e) if put == 0 => return Err(e),
                    Err(_) => break,
                }
            }
            let whole = put == data.len() || thrown_away;
            let mut incoming = Incoming {
                len: if whole { got.len } else { put },
                from: Some(got.address).filter(|a| !a.is_empty()),
                flags: MsgFlags::from_bits_truncate(got.flags as u32),
                ..Incoming::default()
            };
            incoming.flags &=
                MsgFlags::TRUNC | MsgFlags::CTRUNC | MsgFlags::EOR | MsgFlags::ERRQUEUE | MsgFlags::OOB;
            incoming.control.others = unpack(&control[..got.control_len]);
            Ok(incoming)
        })
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), Errno> {
        let how = match (how.read, how.write) {
            (true, true) => rustix::net::Shutdown::Both,
            (true, false) => rustix::net::Shutdown::Read,
            _ => rustix::net::Shutdown::Write,
        };
        rustix::net::shutdown(&*self.fd, how).map_err(|e| Errno::from_raw(e.raw_os_error()))?;
        self.queue.notify_all();
        Ok(())
    }

    fn get_option(&self, task: &CurrentTask, level: i32, name: i32, room: usize) -> Result<Vec<u8>, Errno> {
        options::get(task, self, level, name, room)
    }
    fn set_option(&self, task: &CurrentTask, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        options::set(task, self.fd(), level, name, value)
    }

    fn ioctl(&self, task: &CurrentTask, cmd: u32, arg: u64) -> SyscallResult {
        match cmd {
            ioctl::FIONREAD => self.int(task, arg, IntRequest::BytesIn),
            ioctl::TIOCOUTQ => self.int(task, arg, IntRequest::BytesOut),
            ioctl::SIOCOUTQNSD => self.int(task, arg, IntRequest::BytesNotSent),
            ioctl::SIOCATMARK => self.int(task, arg, IntRequest::AtMark),
            _ => super::interface::ioctl(task, cmd, UserAddr(arg)),
        }
    }
}

impl fmt::Debug for HostSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostSocket(family {}, type {})", self.family, self.kind)
    }
}

/// The control messages that a guest may send, as bytes. EINVAL for others, as for what a protocol does not know.
fn pack(task: &CurrentTask, control: &super::control::Control, stream: bool) -> Result<Vec<u8>, Errno> {
    // Descriptors and credentials mean nothing here: Linux passes over them as well.
    let mut out = Vec::new();
    for message in &control.others {
        // What no protocol looks at is passed over: a stream's looks at the socket's own level only.
        let known = match message.level {
            libc::SOL_SOCKET => true,
            libc::IPPROTO_IP | libc::IPPROTO_IPV6 | libc::SOL_UDP => !stream,
            _ => false,
        };
        if !known {
            continue;
        }
        let allowed = matches!(
            (message.level, message.kind),
            (libc::IPPROTO_IP, libc::IP_PKTINFO | libc::IP_TTL | libc::IP_TOS)
                | (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO | libc::IPV6_HOPLIMIT | libc::IPV6_TCLASS)
                | (libc::SOL_SOCKET, libc::SO_TIMESTAMPING | libc::SO_PRIORITY)
                | (libc::SOL_UDP, libc::UDP_SEGMENT)
        );
        if !allowed {
            let what = format!("sending control message {}:{}", message.level, message.kind);
            task.kernel().log_unsupported(&what, Errno::EINVAL);
            return Err(Errno::EINVAL);
        }
        let len = CMSG_HDR_LEN + message.data.len();
        let header = CMsgHdr { len: len as u64, level: message.level, kind: message.kind };
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&message.data);
        out.resize(cmsg_align(out.len()), 0);
    }
    Ok(out)
}

/// Splits the host's control messages.
fn unpack(mut bytes: &[u8]) -> Vec<Other> {
    let mut out = Vec::new();
    while let Ok((header, _)) = CMsgHdr::read_from_prefix(bytes) {
        let len = usize::try_from(header.len).unwrap_or(0);
        let Some(data) = bytes.get(CMSG_HDR_LEN..len) else { break };
        // An internet socket has no descriptors to give.
        if (header.level, header.kind) != (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            out.push(Other { level: header.level, kind: header.kind, data: data.to_vec() });
        }
        bytes = bytes.get(cmsg_align(len)..).unwrap_or_default();
    }
    out
}

pub(crate) use saved::{DeadSocket, Saved};

/// The host socket behind a socket, where it is one.
pub fn host_socket(ops: &dyn SocketOps) -> Option<&HostSocket> {
    (ops as &dyn Any).downcast_ref()
}
