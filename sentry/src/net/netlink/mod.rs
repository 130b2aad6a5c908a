//! Netlink sockets, `netlink(7)`: NETLINK_ROUTE, for what programs ask of it: interfaces, addresses, routes.
//!
//! A request is answered while it is sent: the answer's datagrams wait in the socket's queue. Nothing can be changed from
//! inside (EPERM), and there is nobody to hear from (multicast groups are joined in silence).

mod route;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use quicksand_abi::Errno;
use quicksand_abi::netlink::{
    NLM_F_ACK, NLM_F_CAPPED, NLM_F_REQUEST, NLMSG_ERROR, NLMSG_MIN_TYPE, NlMsgHdr, SockaddrNl, align,
    messages,
};
use quicksand_abi::socket::Ucred;
use zerocopy::{FromBytes, IntoBytes};

use super::address::Address;
use super::socket::{Incoming, MsgFlags, Outgoing, SocketOps};
use crate::fs::ioctl;
use crate::sync::{Events, Level, Mutex, WaitQueue};
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;
use crate::task::credentials::Caps;
use crate::vfs::IoDst;
use route::Answered;

/// Longest request that is read.
const MAX_REQUEST: usize = 64 << 10;
/// Longest datagram of an answer: some programs read into one page.
const MAX_ANSWER: usize = 3 << 10;
/// Answers that wait at most; a program that never reads gets ENOBUFS.
const MAX_WAITING: usize = 1024;

const SOL_NETLINK: i32 = 270;
const NETLINK_CAP_ACK: i32 = 10;
const NETLINK_GET_STRICT_CHK: i32 = 12;
/// Default size of the buffers, and the most that can be asked for (`net.core.rmem_max`).
const BUFFER: i32 = 212_992;
/// The smallest buffers, `SOCK_MIN_RCVBUF` and `SOCK_MIN_SNDBUF`.
const MIN_RECEIVE_BUFFER: i32 = 2304;
const MIN_SEND_BUFFER: i32 = 4608;

/// A netlink socket.
pub struct NetlinkSocket {
    kind: i32,
    state: Mutex<State>,
    queue: Arc<WaitQueue>,
}

#[derive(Default)]
struct State {
    /// Where the port is given back.
    net: Option<Arc<super::NetNamespace>>,
    /// The port; 0 until it is bound.
    port: u32,
    groups: u32,
    peer: u32,
    incoming: VecDeque<Vec<u8>>,
    pass_credentials: bool,
    overrun: bool,
    /// The SOL_NETLINK switches that are on, a bit each.
    switches: u32,
    /// SO_RCVBUF and SO_SNDBUF, where they were set. Nothing here depends on them: what waits is counted in datagrams.
    buffers: [Option<i32>; 2],
}

/// A socket as data, for checkpoints.
#[derive(Clone, Debug, Default)]
pub(crate) struct Saved {
    pub kind: i32,
    pub port: u32,
    pub groups: u32,
    pub incoming: Vec<Vec<u8>>,
    pub pass_credentials: bool,
    pub overrun: bool,
    pub switches: u32,
    pub buffers: [Option<i32>; 2],
}

impl State {
    fn has(&self, switch: i32) -> bool {
        self.switches & 1 << switch != 0
    }
}

impl NetlinkSocket {
    pub fn new(task: &CurrentTask, kind: i32, protocol: i32) -> Result<Arc<NetlinkSocket>, Errno> {
        if kind != libc::SOCK_RAW && kind != libc::SOCK_DGRAM {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        if protocol != libc::NETLINK_ROUTE {
            let what = format!("netlink protocol {protocol}");
            task.kernel().log_unsupported(&what, Errno::EPROTONOSUPPORT);
            return Err(Errno::EPROTONOSUPPORT);
        }
        let net = Some(task.kernel().net.clone());
        let state = Mutex::new(Level::Socket, State { net, ..State::default() });
        Ok(Arc::new(NetlinkSocket { kind, state, queue: WaitQueue::new() }))
    }

    pub(crate) fn saved(&self) -> Saved {
        let state = self.state.lock();
        Saved {
            kind: self.kind,
            port: state.port,
            groups: state.groups,
            incoming: state.incoming.iter().cloned().collect(),
            pass_credentials: state.pass_credentials,
            overrun: state.overrun,
            switches: state.switches,
            buffers: state.buffers,
        }
    }

    /// A socket from its data. EADDRINUSE where its port is taken.
    pub(crate) fn restored(task: &CurrentTask, saved: Saved) -> Result<Arc<NetlinkSocket>, Errno> {
        let socket = NetlinkSocket::new(task, saved.kind, libc::NETLINK_ROUTE)?;
        if saved.incoming.len() > MAX_WAITING {
            return Err(Errno::EINVAL);
        }
        if saved.port != 0 && !task.kernel().net.netlink_ports.claim(saved.port) {
            return Err(Errno::EADDRINUSE);
        }
        let mut state = socket.state.lock();
        state.port = saved.port;
        state.groups = saved.groups;
        state.incoming = saved.incoming.into();
        state.pass_credentials = saved.pass_credentials;
        state.overrun = saved.overrun;
        state.switches = saved.switches;
        state.buffers = saved.buffers;
        drop(state);
        Ok(socket)
    }

    /// Gives the socket a port where it has none: the process's number, or a negative one where that is taken.
    fn autobind(&self, task: &CurrentTask) -> u32 {
        static NEXT: AtomicI32 = AtomicI32::new(-4096);
        let mut state = self.state.lock();
        if state.port == 0 {
            let ports = &task.kernel().net.netlink_ports;
            let own = task.group().pid() as u32;
            state.port = if ports.claim(own) {
                own
            } else {
                loop {
                    let port = NEXT.fetch_sub(1, Ordering::Relaxed) as u32;
                    if ports.claim(port) {
                        break port;
                    }
                }
            };
        }
        state.port
    }

    /// Answers all requests of one datagram (`netlink_rcv_skb`).
    fn answer(&self, task: &CurrentTask, bytes: &[u8], port: u32) -> Vec<Vec<u8>> {
        let (strict, capped) = {
            let state = self.state.lock();
            (state.has(NETLINK_GET_STRICT_CHK), state.has(NETLINK_CAP_ACK))
        };
        let mut out = Vec::new();
        for (header, payload) in messages(bytes) {
            // Control messages and what is no request are passed over, but acknowledged.
            let result = if header.flags & NLM_F_REQUEST == 0 || header.kind < NLMSG_MIN_TYPE {
                Ok(Answered::Single)
            } else {
                route::answer(task, &header, payload, port, strict, &mut out)
            };
            let code = match result {
                Ok(Answered::Dump) => continue,
                Ok(Answered::Single) if header.flags & NLM_F_ACK == 0 => continue,
                Ok(Answered::Single) => 0,
                Err(e) => -e.raw(),
            };
            let payload = if code == 0 || capped { None } else { Some(payload) };
            out.push(error_message(&header, payload, code, port));
        }
        out
    }
}

/// NLMSG_ERROR: a code, and the request that it is about (of one that is capped, only the header).
fn error_message(request: &NlMsgHdr, payload: Option<&[u8]>, code: i32, port: u32) -> Vec<u8> {
    let flags = if payload.is_none() { NLM_F_CAPPED } else { 0 };
    let payload = payload.unwrap_or_default();
    let len = size_of::<NlMsgHdr>() * 2 + 4 + payload.len();
    let header = NlMsgHdr { len: len as u32, kind: NLMSG_ERROR, flags, seq: request.seq, pid: port };
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(&code.to_ne_bytes());
    out.extend_from_slice(request.as_bytes());
    out.extend_from_slice(payload);
    out.resize(align(out.len()), 0);
    out
}

fn address(port: u32, groups: u32) -> Address {
    SockaddrNl { family: libc::AF_NETLINK as u16, pad: 0, pid: port, groups }.as_bytes().to_vec()
}

fn parse(address: &[u8]) -> Result<SockaddrNl, Errno> {
    let (parsed, _) = SockaddrNl::read_from_prefix(address).map_err(|_| Errno::EINVAL)?;
    if i32::from(parsed.family) != libc::AF_NETLINK {
        return Err(Errno::EINVAL);
    }
    Ok(parsed)
}

impl SocketOps for NetlinkSocket {
    fn family(&self) -> i32 {
        libc::AF_NETLINK
    }
    fn kind(&self) -> i32 {
        self.kind
    }
    fn protocol(&self) -> i32 {
        libc::NETLINK_ROUTE
    }
    fn queue(&self) -> Arc<WaitQueue> {
        self.queue.clone()
    }

    fn poll(&self, _: &CurrentTask) -> Events {
        let state = self.state.lock();
        let mut events = Events::WRITABLE | Events::WRBAND;
        if !state.incoming.is_empty() {
            events |= Events::READABLE;
        }
        if state.overrun {
            events |= Events::ERR;
        }
        events
    }

    fn release(&self) {
        let mut state = self.state.lock();
        let port = std::mem::take(&mut state.port);
        if let Some(net) = state.net.take().filter(|_| port != 0) {
            net.netlink_ports.free(port);
        }
    }

    fn bind(&self, task: &CurrentTask, address: &[u8]) -> Result<(), Errno> {
        let wanted = parse(address)?;
        if wanted.pid == 0 {
            self.autobind(task);
        } else {
            let mut state = self.state.lock();
            if state.port != 0 && state.port != wanted.pid {
                return Err(Errno::EINVAL);
            }
            if state.port == 0 && !task.kernel().net.netlink_ports.claim(wanted.pid) {
                return Err(Errno::EADDRINUSE);
            }
            state.port = wanted.pid;
        }
        self.state.lock().groups = wanted.groups;
        Ok(())
    }

    fn connect(&self, task: &CurrentTask, address: &[u8], _: bool) -> Result<(), Errno> {
        if super::address::family(address) == Some(libc::AF_UNSPEC) {
            self.state.lock().peer = 0;
            return Ok(());
        }
        let to = parse(address)?;
        if to.pid != 0 || to.groups != 0 {
            return Err(Errno::EPERM);
        }
        self.autobind(task);
        self.state.lock().peer = to.pid;
        Ok(())
    }

    fn local_address(&self) -> Result<Address, Errno> {
        let state = self.state.lock();
        Ok(address(state.port, state.groups))
    }
    fn peer_address(&self) -> Result<Address, Errno> {
        Ok(address(self.state.lock().peer, 0))
    }

    fn send(&self, task: &CurrentTask, message: &mut Outgoing<'_, '_>) -> Result<usize, Errno> {
        if message.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        message.control.check_local(false)?;
        if let Some(to) = message.to {
            let to = parse(to)?;
            // To the kernel only: there is nobody else.
            if to.groups != 0 {
                return Err(Errno::EPERM);
            }
            if to.pid != 0 {
                return Err(Errno::ECONNREFUSED);
            }
        }
        let port = self.autobind(task);
        let len = message.src.remaining();
        if len > MAX_REQUEST {
            return Err(Errno::EMSGSIZE);
        }
        let mut bytes = vec![0; len];
        let mut taken = 0;
        while taken < len {
            match message.src.take(&mut bytes[taken..])? {
                0 => break,
                n => taken += n,
            }
        }
        let answers = self.answer(task, &bytes, port);
        {
            let mut state = self.state.lock();
            if state.incoming.len() + answers.len() > MAX_WAITING {
                state.overrun = true;
            } else {
                state.incoming.extend(answers);
            }
        }
        self.queue.notify(Events::READABLE);
        Ok(len)
    }

    fn receive(&self, _: &CurrentTask, dst: &mut IoDst<'_>, flags: MsgFlags) -> Result<Incoming, Errno> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let peek = flags.contains(MsgFlags::PEEK);
        let (data, pass_credentials) = {
            let mut state = self.state.lock();
            if std::mem::take(&mut state.overrun) {
                return Err(Errno::ENOBUFS);
            }
            let data = if peek { state.incoming.front().cloned() } else { state.incoming.pop_front() };
            (data.ok_or(Errno::EAGAIN)?, state.pass_credentials)
        };
        let fits = data.len().min(dst.remaining());
        let mut put = 0;
        while put < fits {
            put += dst.put(&data[put..fits])?;
        }
        let mut incoming = Incoming {
            len: if flags.contains(MsgFlags::TRUNC) { data.len() } else { put },
            from: Some(address(0, 0)),
            ..Incoming::default()
        };
        if fits < data.len() {
            incoming.flags |= MsgFlags::TRUNC;
        }
        if pass_credentials {
            incoming.control.credentials = Some(Ucred::default());
        }
        Ok(incoming)
    }

    fn get_option(&self, task: &CurrentTask, level: i32, name: i32, _: usize) -> Result<Vec<u8>, Errno> {
        let int = |value: i32| Ok(value.to_ne_bytes().to_vec());
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => int(self.state.lock().buffers[0].unwrap_or(BUFFER)),
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => int(self.state.lock().buffers[1].unwrap_or(BUFFER)),
            // Packet info, broadcast errors, overruns, capped and extended acknowledgements, strict checks.
            (SOL_NETLINK, 3..=5 | 10..=12) => int(i32::from(self.state.lock().has(name))),
            (libc::SOL_SOCKET, libc::SO_ERROR | libc::SO_ACCEPTCONN) => int(0),
            (libc::SOL_SOCKET, libc::SO_PASSCRED) => int(i32::from(self.state.lock().pass_credentials)),
            _ => {
                let what = format!("netlink socket option {level}:{name}");
                task.kernel().log_unsupported(&what, Errno::ENOPROTOOPT);
                Err(Errno::ENOPROTOOPT)
            }
        }
    }

    fn set_option(&self, task: &CurrentTask, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let number = match i32::read_from_prefix(value) {
            Ok((number, _)) => number,
            // As Linux: what is too short counts as zero here.
            Err(_) if level == SOL_NETLINK => 0,
            Err(_) => return Err(Errno::EINVAL),
        };
        match (level, name) {
            (libc::SOL_SOCKET, libc::SO_PASSCRED) => self.state.lock().pass_credentials = number != 0,
            (libc::SOL_SOCKET, libc::SO_RCVBUF | libc::SO_SNDBUF) => {
                let send = name == libc::SO_SNDBUF;
                let least = if send { MIN_SEND_BUFFER } else { MIN_RECEIVE_BUFFER };
                // As an unsigned number, as Linux takes it.
                let wanted = i32::try_from(number as u32).unwrap_or(i32::MAX).min(BUFFER);
                self.state.lock().buffers[usize::from(send)] = Some((wanted * 2).max(least));
            }
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE | libc::SO_SNDBUFFORCE) => {
                if !task.creds().has(Caps::NET_ADMIN) {
                    return Err(Errno::EPERM);
                }
                let send = name == libc::SO_SNDBUFFORCE;
                let least = if send { MIN_SEND_BUFFER } else { MIN_RECEIVE_BUFFER };
                let value = number.max(0).saturating_mul(2).max(least);
                self.state.lock().buffers[usize::from(send)] = Some(value);
            }
            // Memberships: what is never sent to a group is never missed.
            (SOL_NETLINK, 1 | 2 | 8) => {}
            (SOL_NETLINK, 3..=5 | 10..=12) => {
                let mut state = self.state.lock();
                state.switches &= !(1 << name);
                state.switches |= u32::from(number != 0) << name;
            }
            _ => {
                let what = format!("netlink socket option {level}:{name}");
                task.kernel().log_unsupported(&what, Errno::ENOPROTOOPT);
                return Err(Errno::ENOPROTOOPT);
            }
        }
        Ok(())
    }

    fn ioctl(&self, task: &CurrentTask, cmd: u32, arg: u64) -> SyscallResult {
        match cmd {
            ioctl::FIONREAD => {
                let len = self.state.lock().incoming.front().map_or(0, Vec::len);
                ioctl::put_int(task, arg, len)
            }
            _ => super::interface::ioctl(task, cmd, quicksand_abi::UserAddr(arg)),
        }
    }
}

/// The ports of netlink sockets that are taken.
#[derive(Debug)]
pub struct Ports(Mutex<std::collections::HashSet<u32>>);

impl Default for Ports {
    fn default() -> Ports {
        Ports(Mutex::new(Level::Leaf, std::collections::HashSet::new()))
    }
}

impl Ports {
    fn claim(&self, port: u32) -> bool {
        self.0.lock().insert(port)
    }
    fn free(&self, port: u32) {
        self.0.lock().remove(&port);
    }
}

impl fmt::Debug for NetlinkSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetlinkSocket")
    }
}
