//! Unix sockets, `unix(7)`: stream, datagram and sequenced-packet, wholly inside the Sentry.
//!
//! As in Linux, a message lies in its receiver's queue and is charged to its sender until it is read: that is what makes a
//! sender wait. A connection is two sockets that are each other's peer; `connect` makes the server's half at once and
//! puts it into the listener's queue, `accept` only takes it out.
//!
//! Invariants:
//! - Never are two sockets' states locked at once: what concerns both is done one after the other.
//! - Nothing that may be the last reference to a file (a message, a socket) is dropped with a socket locked.
//! - A socket is torn down by [`UnixSocket::release`] when its open file closes, not when its memory is freed: peers hold
//!   each other.

mod connect;
mod gc;
mod names;
mod options;
mod queue;
mod saved;
mod transfer;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use quicksand_abi::socket::Ucred;
use quicksand_abi::{Errno, UserAddr};

use super::address::Address;
use super::socket::{Incoming, MsgFlags, Outgoing, Shutdown, SocketOps};
use crate::fs::ioctl;
use crate::sync::{Events, Level, Mutex, WaitQueue};
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;
use crate::vfs::IoDst;

pub use names::UnixTable;
use names::{Binding, Name};
use queue::{Account, Message};
pub(crate) use saved::{Saved, SavedMessage};

/// Datagrams that wait in one queue at most (`net.unix.max_dgram_qlen`).
const MAX_DGRAM_QUEUE: usize = 10;

/// A Unix socket.
pub struct UnixSocket {
    /// SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
    kind: i32,
    /// Unique in the sandbox, never reused.
    id: u64,
    /// The inode number of its open file; 0 before `accept`.
    ino: AtomicU64,
    me: Weak<UnixSocket>,
    /// The tables it is in.
    net: Arc<super::NetNamespace>,
    state: Mutex<State>,
    queue: Arc<WaitQueue>,
    /// What it has sent and nobody has read.
    account: Arc<Account>,
}

/// What the lock covers.
#[derive(Default)]
struct State {
    name: Option<Name>,
    binding: Option<Binding>,
    peer: Option<Arc<UnixSocket>>,
    listener: Option<Listener>,
    incoming: VecDeque<Message>,
    shutdown: Shutdown,
    /// Its file is closed.
    dead: bool,
    /// Reported once (SO_ERROR).
    error: Option<Errno>,
    peer_credentials: Option<PeerCredentials>,
    /// Queues of sockets that wait for room in this one's queue.
    blocked: Vec<Weak<WaitQueue>>,
    options: options::Options,
}

/// A listening socket's part.
struct Listener {
    pending: VecDeque<Arc<UnixSocket>>,
    backlog: usize,
    /// Those of `listen`: what a client sees as its peer's.
    credentials: PeerCredentials,
}

/// SO_PEERCRED and SO_PEERGROUPS.
#[derive(Clone, Debug)]
struct PeerCredentials {
    ids: Ucred,
    groups: Vec<u32>,
}

impl PeerCredentials {
    fn of(task: &CurrentTask) -> PeerCredentials {
        let creds = task.creds();
        let ids = Ucred { pid: task.group().pid(), uid: creds.euid, gid: creds.egid };
        PeerCredentials { ids, groups: creds.groups.clone() }
    }
}

impl UnixSocket {
    /// A new socket. ESOCKTNOSUPPORT and EPROTONOSUPPORT as `unix_create`.
    pub fn new(task: &CurrentTask, kind: i32, protocol: i32) -> Result<Arc<UnixSocket>, Errno> {
        if protocol != 0 && protocol != libc::PF_UNIX {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let kind = match kind {
            libc::SOCK_STREAM | libc::SOCK_DGRAM | libc::SOCK_SEQPACKET => kind,
            // Believed to be a datagram socket by old programs.
            libc::SOCK_RAW => libc::SOCK_DGRAM,
            _ => return Err(Errno::ESOCKTNOSUPPORT),
        };
        Ok(UnixSocket::make(task, kind))
    }

    fn make(task: &CurrentTask, kind: i32) -> Arc<UnixSocket> {
        let kernel = task.kernel();
        let queue = WaitQueue::new();
        let socket = Arc::new_cyclic(|me| UnixSocket {
            kind,
            me: me.clone(),
            id: kernel.next_id(),
            ino: AtomicU64::new(0),
            net: kernel.net.clone(),
            state: Mutex::new(Level::Socket, State::default()),
            account: Account::new(queue.clone()),
            queue,
        });
        kernel.net.unix.add(&socket);
        socket
    }

    /// Two sockets connected to each other, `socketpair(2)`.
    pub fn pair(task: &CurrentTask, kind: i32, protocol: i32) -> Result<[Arc<UnixSocket>; 2], Errno> {
        let a = UnixSocket::new(task, kind, protocol)?;
        let b = UnixSocket::new(task, kind, protocol)?;
        let credentials = PeerCredentials::of(task);
        for (own, peer) in [(&a, &b), (&b, &a)] {
            let mut state = own.state.lock();
            state.peer = Some(peer.clone());
            state.peer_credentials = Some(credentials.clone());
        }
        Ok([a, b])
    }

    /// Whether connections are made, rather than datagrams sent.
    fn is_connected_kind(&self) -> bool {
        self.kind != libc::SOCK_DGRAM
    }

    /// Tells those that wait for room in this socket's queue.
    fn wake_blocked(blocked: Vec<Weak<WaitQueue>>) {
        for queue in blocked.iter().filter_map(Weak::upgrade) {
            queue.notify(Events::WRITABLE);
        }
    }

    /// A peer of this connected socket has closed.
    fn peer_gone(&self, reset: bool) {
        {
            let mut state = self.state.lock();
            state.shutdown = Shutdown { read: true, write: true };
            if reset {
                state.error = Some(Errno::ECONNRESET);
            }
        }
        self.queue.notify_all();
    }
}

impl SocketOps for UnixSocket {
    fn family(&self) -> i32 {
        libc::AF_UNIX
    }
    fn kind(&self) -> i32 {
        self.kind
    }
    fn protocol(&self) -> i32 {
        0
    }
    fn queue(&self) -> Arc<WaitQueue> {
        self.queue.clone()
    }
    fn opened(&self, ino: u64, _: u32) {
        self.ino.store(ino, Ordering::Relaxed);
    }

    fn poll(&self, _: &CurrentTask) -> Events {
        let mut events = Events::empty();
        let peer = {
            let state = self.state.lock();
            if state.error.is_some() {
                events |= Events::ERR;
            }
            if state.shutdown == (Shutdown { read: true, write: true }) {
                events |= Events::HUP;
            }
            if state.shutdown.read {
                events |= Events::RDHUP | Events::READABLE;
            }
            let pending = state.listener.as_ref().is_some_and(|l| !l.pending.is_empty());
            if !state.incoming.is_empty() || pending {
                events |= Events::READABLE;
            }
            let open = state.peer.is_some() || state.listener.is_some();
            if self.is_connected_kind() && !open && !state.dead {
                events |= Events::HUP;
            }
            if state.listener.is_some() {
                return events;
            }
            state.peer.clone()
        };
        let mut writable = self.account.is_writable();
        if !self.is_connected_kind()
            && let Some(peer) = peer
        {
            writable &= peer.has_room_for(self);
        }
        if writable {
            events |= Events::WRITABLE | Events::WRBAND;
        }
        events
    }

    fn release(&self) {
        let (mut state, was_listening) = {
            let mut state = self.state.lock();
            state.dead = true;
            state.shutdown = Shutdown { read: true, write: true };
            let taken = State { dead: true, shutdown: state.shutdown, ..State::default() };
            let listening = state.listener.is_some();
            (std::mem::replace(&mut *state, taken), listening)
        };
        let unread = !state.incoming.is_empty();
        if self.is_connected_kind()
            && !was_listening
            && let Some(peer) = &state.peer
        {
            peer.peer_gone(unread);
        }
        if let Some(listener) = &state.listener {
            for embryo in &listener.pending {
                embryo.release_embryo();
            }
        }
        UnixSocket::wake_blocked(state.blocked.clone());
        if let Some(binding) = &state.binding {
            self.net.unix.unbind(binding);
        }
        self.net.unix.discard(std::mem::take(&mut state.incoming));
        drop(state);
        self.queue.notify_all();
        self.net.unix.closed();
    }

    fn bind(&self, task: &CurrentTask, address: &[u8]) -> Result<(), Errno> {
        self.bind_name(task, address)
    }
    fn connect(&self, task: &CurrentTask, address: &[u8], _: bool) -> Result<(), Errno> {
        self.connect_to(task, address)
    }
    fn listen(&self, task: &CurrentTask, backlog: i32) -> Result<(), Errno> {
        self.start_listening(task, backlog)
    }
    fn is_listening(&self) -> bool {
        self.state.lock().listener.is_some()
    }
    fn accept(&self, _: &CurrentTask) -> Result<(Arc<dyn SocketOps>, Address), Errno> {
        self.take_connection()
    }

    fn local_address(&self) -> Result<Address, Errno> {
        Ok(Name::to_address(self.state.lock().name.as_ref()))
    }
    fn peer_address(&self) -> Result<Address, Errno> {
        let peer = self.state.lock().peer.clone().ok_or(Errno::ENOTCONN)?;
        let name = peer.state.lock().name.clone();
        Ok(Name::to_address(name.as_ref()))
    }

    fn send(&self, task: &CurrentTask, message: &mut Outgoing<'_, '_>) -> Result<usize, Errno> {
        self.send_message(task, message)
    }
    fn receive(&self, task: &CurrentTask, dst: &mut IoDst<'_>, flags: MsgFlags) -> Result<Incoming, Errno> {
        self.receive_message(task, dst, flags)
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), Errno> {
        let (peer, blocked) = {
            let mut state = self.state.lock();
            state.shutdown.read |= how.read;
            state.shutdown.write |= how.write;
            (state.peer.clone(), std::mem::take(&mut state.blocked))
        };
        self.queue.notify_all();
        UnixSocket::wake_blocked(blocked);
        if self.is_connected_kind()
            && let Some(peer) = peer
        {
            {
                let mut state = peer.state.lock();
                state.shutdown.read |= how.write;
                state.shutdown.write |= how.read;
            }
            peer.queue.notify_all();
        }
        Ok(())
    }

    fn get_option(&self, task: &CurrentTask, level: i32, name: i32, _: usize) -> Result<Vec<u8>, Errno> {
        self.option(task, level, name)
    }
    fn set_option(&self, task: &CurrentTask, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        self.change_option(task, level, name, value)
    }

    fn ioctl(&self, task: &CurrentTask, cmd: u32, arg: u64) -> SyscallResult {
        match cmd {
            ioctl::FIONREAD => {
                let bytes = {
                    let state = self.state.lock();
                    if state.listener.is_some() {
                        return Err(Errno::EINVAL.into());
                    }
                    match self.kind {
                        libc::SOCK_DGRAM => state.incoming.front().map_or(0, Message::len),
                        _ => state.incoming.iter().map(Message::len).sum(),
                    }
                };
                ioctl::put_int(task, arg, bytes)
            }
            ioctl::TIOCOUTQ => ioctl::put_int(task, arg, self.account.used()),
            ioctl::SIOCATMARK => {
                task.write_object(UserAddr(arg), &0i32)?;
                Ok(0)
            }
            _ => super::interface::ioctl(task, cmd, UserAddr(arg)),
        }
    }
}

impl fmt::Debug for UnixSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnixSocket({})", self.id)
    }
}
