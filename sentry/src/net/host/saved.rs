//! Internet sockets as data, for checkpoints: what they are bound to, and their options. A connection cannot be saved, for its
//! other end knows the host's socket: what stands for it after a restore is a [`DeadSocket`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quicksand_abi::Errno;
use quicksand_host::socket as host;

use super::{HostSocket, tcp_state};
use crate::net::address::Address;
use crate::net::socket::{Incoming, MsgFlags, Outgoing, Shutdown, SocketOps};
use crate::sync::{Events, WaitQueue};
use crate::task::CurrentTask;
use crate::vfs::IoDst;

/// A socket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Saved {
    pub family: i32,
    pub kind: i32,
    pub protocol: i32,
    pub local: Option<Vec<u8>>,
    pub listening: Option<i32>,
    pub remote: Option<Vec<u8>>,
    /// It was connected by TCP.
    pub reset: bool,
    pub options: Vec<(i32, i32, Vec<u8>)>,
}

/// Options that are carried over where they can be: level and name.
const OPTIONS: &[(i32, i32)] = &[
    (libc::SOL_SOCKET, libc::SO_REUSEADDR),
    (libc::SOL_SOCKET, libc::SO_REUSEPORT),
    (libc::SOL_SOCKET, libc::SO_BROADCAST),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE),
    (libc::SOL_SOCKET, libc::SO_LINGER),
    (libc::SOL_SOCKET, libc::SO_PRIORITY),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
];

/// Whether a `sockaddr` has a port.
fn has_port(address: &[u8]) -> bool {
    address.get(2..4).is_some_and(|port| port != [0, 0])
}

impl HostSocket {
    pub(crate) fn saved(&self) -> Saved {
        // `struct tcp_info`: the state, and at byte 28 the backlog of a socket that listens.
        let info = match self.kind {
            libc::SOCK_STREAM => host::get_option(self.fd(), libc::IPPROTO_TCP, libc::TCP_INFO, 32),
            _ => Err(Errno::EOPNOTSUPP),
        };
        let info = info.unwrap_or_default();
        let state = info.first().copied().unwrap_or(tcp_state::CLOSE);
        let backlog = info.get(28..32).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
        let listens = state == tcp_state::LISTEN;
        let stream = self.kind == libc::SOCK_STREAM;
        let option = |(level, name): &(i32, i32)| {
            let value = host::get_option(self.fd(), *level, *name, 16).ok()?;
            Some((*level, *name, value))
        };
        Saved {
            family: self.family,
            kind: self.kind,
            protocol: self.protocol,
            local: host::local_address(self.fd()).ok().filter(|address| has_port(address)),
            listening: listens.then_some(backlog),
            remote: host::peer_address(self.fd()).ok().filter(|_| !stream),
            reset: stream && !listens && state != tcp_state::CLOSE,
            options: OPTIONS.iter().filter_map(option).collect(),
        }
    }

    /// A socket from its data.
    pub(crate) fn restored(task: &CurrentTask, saved: &Saved) -> Result<Arc<dyn SocketOps>, Errno> {
        let stack = task.kernel().net.stack();
        let socket = stack.socket(task, saved.family, saved.kind, saved.protocol)?;
        for (level, name, value) in &saved.options {
            if OPTIONS.contains(&(*level, *name)) {
                // Most are at their default, and some cannot be set on every kind of socket.
                let _ = socket.set_option(task, *level, *name, value);
            }
        }
        if let Some(local) = &saved.local {
            socket.bind(task, local)?;
        }
        if let Some(backlog) = saved.listening {
            socket.listen(task, backlog)?;
        }
        if let Some(remote) = &saved.remote {
            socket.connect(task, remote, false)?;
        }
        Ok(socket)
    }
}

/// A TCP connection that ended with a checkpoint: ECONNRESET once, then the end of the stream.
#[derive(Debug)]
pub(crate) struct DeadSocket {
    family: i32,
    local: Vec<u8>,
    /// Nobody has seen the reset.
    fresh: AtomicBool,
    queue: Arc<WaitQueue>,
}

impl DeadSocket {
    pub(crate) fn new(family: i32, local: Vec<u8>) -> DeadSocket {
        DeadSocket { family, local, fresh: AtomicBool::new(true), queue: WaitQueue::new() }
    }
    fn take_error(&self) -> bool {
        self.fresh.swap(false, Ordering::Relaxed)
    }
}

impl SocketOps for DeadSocket {
    fn family(&self) -> i32 {
        self.family
    }
    fn kind(&self) -> i32 {
        libc::SOCK_STREAM
    }
    fn protocol(&self) -> i32 {
        libc::IPPROTO_TCP
    }
    fn queue(&self) -> Arc<WaitQueue> {
        self.queue.clone()
    }
    fn poll(&self, _: &CurrentTask) -> Events {
        let error = if self.fresh.load(Ordering::Relaxed) { Events::ERR } else { Events::empty() };
        error | Events::HUP | Events::RDHUP | Events::READABLE | Events::WRITABLE
    }
    fn local_address(&self) -> Result<Address, Errno> {
        Ok(self.local.clone())
    }
    fn send(&self, _: &CurrentTask, _: &mut Outgoing<'_, '_>) -> Result<usize, Errno> {
        Err(if self.take_error() { Errno::ECONNRESET } else { Errno::EPIPE })
    }
    fn receive(&self, _: &CurrentTask, _: &mut IoDst<'_>, _: MsgFlags) -> Result<Incoming, Errno> {
        if self.take_error() { Err(Errno::ECONNRESET) } else { Ok(Incoming::default()) }
    }
    fn shutdown(&self, _: Shutdown) -> Result<(), Errno> {
        Err(Errno::ENOTCONN)
    }
    fn get_option(&self, _: &CurrentTask, level: i32, name: i32, _: usize) -> Result<Vec<u8>, Errno> {
        let value = match (level, name) {
            (libc::SOL_SOCKET, libc::SO_ERROR) if self.take_error() => libc::ECONNRESET,
            _ => 0,
        };
        Ok(value.to_ne_bytes().to_vec())
    }
    fn set_option(&self, _: &CurrentTask, _: i32, _: i32, _: &[u8]) -> Result<(), Errno> {
        Ok(())
    }
}
