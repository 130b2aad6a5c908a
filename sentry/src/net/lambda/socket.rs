//! TCP sockets of a container that has the Runtime API: sockets of the host, until one connects to the API's address.

use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

use quicksand_abi::{Errno, UserAddr};

use super::{Connection, Effects, MAX_CONNECTIONS, RuntimeApi};
use crate::fs::ioctl;
use crate::net::address::Address;
use crate::net::socket::{Incoming, MsgFlags, Outgoing, Shutdown, SocketOps};
use crate::sync::{Events, WaitQueue};
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;
use crate::vfs::IoDst;

/// What one try moves at most.
const CHUNK: usize = 64 << 10;

/// A socket that may be connected to the API. Options, and all else that a connection does not change, are the host
/// socket's.
#[derive(Debug)]
pub(crate) struct ApiSocket {
    api: Arc<RuntimeApi>,
    host: Arc<dyn SocketOps>,
    /// The connection's number.
    connection: OnceLock<u64>,
    queue: Arc<WaitQueue>,
}

impl ApiSocket {
    pub(crate) fn new(api: Arc<RuntimeApi>, host: Arc<dyn SocketOps>) -> ApiSocket {
        // Whoever waits before it connects waits on this one.
        let queue = host.queue();
        ApiSocket { api, host, connection: OnceLock::new(), queue }
    }
    /// The socket of a connection that the API had when it was saved. `None` where it has none of this number, or another socket
    /// has it.
    pub(crate) fn restored(
        api: Arc<RuntimeApi>,
        host: Arc<dyn SocketOps>,
        connection: u64,
    ) -> Option<ApiSocket> {
        let socket = ApiSocket::new(api, host);
        {
            let mut state = socket.api.state.lock();
            let live = state.connections.get_mut(&connection)?;
            // Each has a queue that nobody else holds until its socket is there.
            if Arc::strong_count(&live.queue) != 1 {
                return None;
            }
            live.queue = socket.queue.clone();
        }
        socket.connection.set(connection).ok()?;
        Some(socket)
    }
    pub(crate) fn host(&self) -> &Arc<dyn SocketOps> {
        &self.host
    }
    pub(crate) fn connection(&self) -> Option<u64> {
        self.connection.get().copied()
    }

    /// Whether an address is the API's. Sockets of IPv6 reach it by its mapped address.
    fn is_api(&self, address: &[u8]) -> bool {
        let ip = self.api.address.ip().octets();
        let port = self.api.address.port().to_be_bytes();
        if address.get(2..4) != Some(&port[..]) {
            return false;
        }
        match (self.host.family(), super::super::address::family(address)) {
            (libc::AF_INET, Some(libc::AF_INET)) => address.get(4..8) == Some(&ip[..]),
            (libc::AF_INET6, Some(libc::AF_INET6)) => {
                let mapped = Ipv4Addr::from(ip).to_ipv6_mapped().octets();
                address.get(8..24) == Some(&mapped[..])
            }
            _ => false,
        }
    }

    /// An address in the socket's family.
    fn address(&self, ip: Ipv4Addr, port: u16) -> Address {
        let family = self.host.family();
        let mut address = (family as u16).to_ne_bytes().to_vec();
        address.extend_from_slice(&port.to_be_bytes());
        if family == libc::AF_INET6 {
            address.extend_from_slice(&[0; 4]);
            address.extend_from_slice(&ip.to_ipv6_mapped().octets());
            address.extend_from_slice(&[0; 4]);
        } else {
            address.extend_from_slice(&ip.octets());
            address.extend_from_slice(&[0; 8]);
        }
        address
    }

    /// Runs `f` on the connection, where there is one.
    fn with<T>(&self, f: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        let id = self.connection.get()?;
        self.api.state.lock().connections.get_mut(id).map(f)
    }

    fn connect_to_api(&self) -> Result<(), Errno> {
        if self.host.peer_address().is_ok() || self.host.is_listening() {
            return Err(Errno::EISCONN);
        }
        let mut state = self.api.state.lock();
        if state.connections.len() >= MAX_CONNECTIONS {
            return Err(Errno::ECONNREFUSED);
        }
        let id = state.last_connection + 1;
        if self.connection.set(id).is_err() {
            return Err(Errno::EISCONN);
        }
        state.last_connection = id;
        // Of the range that Linux takes such ports from; nobody else can see it.
        let port = 32768 + u16::try_from(id % 28232).unwrap_or(0);
        let connection = Connection {
            reader: super::Reader::default(),
            output: Vec::new(),
            read: 0,
            poll: None,
            closing: false,
            continued: false,
            shut_read: false,
            shut_write: false,
            queue: self.queue.clone(),
            port,
        };
        state.connections.insert(id, connection);
        drop(state);
        self.queue.notify(Events::WRITABLE);
        Ok(())
    }

    fn send_to_api(
        &self,
        task: &CurrentTask,
        id: u64,
        message: &mut Outgoing<'_, '_>,
    ) -> Result<usize, Errno> {
        let room = {
            let state = self.api.state.lock();
            let connection = state.connections.get(&id).ok_or(Errno::EPIPE)?;
            if connection.shut_write {
                return Err(Errno::EPIPE);
            }
            connection.limit().saturating_sub(connection.reader.raw().len())
        };
        if room == 0 {
            return Err(Errno::EAGAIN);
        }
        let mut bytes = vec![0; message.src.remaining().min(CHUNK).min(room)];
        let taken = message.src.take(&mut bytes)?;
        let mut effects = Effects::default();
        let mut state = self.api.state.lock();
        if let Some(connection) = state.connections.get_mut(&id) {
            // What comes after the end is read over: a client says all that it has to before it looks for an answer.
            if !connection.closing {
                connection.reader.feed(&bytes[..taken]);
            }
            self.api.run(&mut state, id, task.container().entry(), &mut effects);
        }
        drop(state);
        if effects.carry_out()
            && let Some(watch) = task.container().entry()
        {
            watch.lambda_reached(task);
        }
        Ok(taken)
    }

    fn receive_from_api(&self, id: u64, dst: &mut IoDst<'_>, flags: MsgFlags) -> Result<Incoming, Errno> {
        let mut effects = Effects::default();
        let mut state = self.api.state.lock();
        let connection = state.connections.get_mut(&id).ok_or(Errno::ECONNRESET)?;
        if connection.unread() == 0 {
            let over = connection.closing || connection.shut_read;
            return if over { Ok(Incoming::default()) } else { Err(Errno::EAGAIN) };
        }
        let unread = &connection.output[connection.read..];
        let want = unread.len().min(dst.remaining());
        // With MSG_TRUNC a stream's bytes are thrown away.
        let got = match flags.contains(MsgFlags::TRUNC) {
            true => want,
            false => dst.put(&unread[..want])?,
        };
        if !flags.contains(MsgFlags::PEEK) {
            connection.read += got;
            if connection.unread() == 0 {
                (connection.output, connection.read) = (Vec::new(), 0);
            }
            // Requests that waited for room.
            self.api.run(&mut state, id, None, &mut effects);
        }
        drop(state);
        effects.carry_out();
        Ok(Incoming { len: got, ..Incoming::default() })
    }
}

impl SocketOps for ApiSocket {
    fn family(&self) -> i32 {
        self.host.family()
    }
    fn kind(&self) -> i32 {
        self.host.kind()
    }
    fn protocol(&self) -> i32 {
        self.host.protocol()
    }
    fn queue(&self) -> Arc<WaitQueue> {
        self.queue.clone()
    }
    fn opened(&self, ino: u64, uid: u32) {
        self.host.opened(ino, uid);
    }
    fn poll(&self, task: &CurrentTask) -> Events {
        self.with(|connection| connection.events()).unwrap_or_else(|| self.host.poll(task))
    }
    fn release(&self) {
        if let Some(id) = self.connection.get() {
            let mut state = self.api.state.lock();
            state.polls.retain(|poll| poll != id);
            let connection = state.connections.remove(id);
            drop(state);
            drop(connection);
        }
        self.host.release();
    }
    fn bind(&self, task: &CurrentTask, address: &[u8]) -> Result<(), Errno> {
        if self.connection.get().is_some() { Err(Errno::EINVAL) } else { self.host.bind(task, address) }
    }
    fn connect(&self, task: &CurrentTask, address: &[u8], again: bool) -> Result<(), Errno> {
        match self.connection.get() {
            Some(_) => Err(Errno::EISCONN),
            None if self.is_api(address) => self.connect_to_api(),
            None => self.host.connect(task, address, again),
        }
    }
    fn listen(&self, task: &CurrentTask, backlog: i32) -> Result<(), Errno> {
        if self.connection.get().is_some() { Err(Errno::EINVAL) } else { self.host.listen(task, backlog) }
    }
    fn is_listening(&self) -> bool {
        self.host.is_listening()
    }
    fn accept(&self, task: &CurrentTask) -> Result<(Arc<dyn SocketOps>, Address), Errno> {
        self.host.accept(task)
    }
    fn local_address(&self) -> Result<Address, Errno> {
        match self.with(|connection| connection.port) {
            Some(port) => Ok(self.address(Ipv4Addr::LOCALHOST, port)),
            None => self.host.local_address(),
        }
    }
    fn peer_address(&self) -> Result<Address, Errno> {
        match self.connection.get() {
            Some(_) => Ok(self.address(*self.api.address.ip(), self.api.address.port())),
            None => self.host.peer_address(),
        }
    }
    fn send(&self, task: &CurrentTask, message: &mut Outgoing<'_, '_>) -> Result<usize, Errno> {
        match self.connection.get() {
            Some(id) => self.send_to_api(task, *id, message),
            None => self.host.send(task, message),
        }
    }
    fn receive(&self, task: &CurrentTask, dst: &mut IoDst<'_>, flags: MsgFlags) -> Result<Incoming, Errno> {
        match self.connection.get() {
            Some(id) => self.receive_from_api(*id, dst, flags),
            None => self.host.receive(task, dst, flags),
        }
    }
    fn shutdown(&self, how: Shutdown) -> Result<(), Errno> {
        let shut = self.with(|connection| {
            connection.shut_read |= how.read;
            connection.shut_write |= how.write;
            // A client that says no more gets no answer to half a request.
            connection.closing |= how.write && connection.poll.is_none();
        });
        match shut {
            Some(()) => {
                self.queue.notify_all();
                Ok(())
            }
            None => self.host.shutdown(how),
        }
    }
    fn get_option(&self, task: &CurrentTask, level: i32, name: i32, room: usize) -> Result<Vec<u8>, Errno> {
        self.host.get_option(task, level, name, room)
    }
    fn set_option(&self, task: &CurrentTask, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        self.host.set_option(task, level, name, value)
    }
    fn ioctl(&self, task: &CurrentTask, cmd: u32, arg: u64) -> SyscallResult {
        let bytes = match cmd {
            ioctl::FIONREAD => self.with(|connection| connection.unread()),
            ioctl::TIOCOUTQ | ioctl::SIOCOUTQNSD => self.with(|_| 0),
            _ => None,
        };
        match bytes {
            Some(bytes) => {
                task.write_object(UserAddr(arg), &i32::try_from(bytes).unwrap_or(i32::MAX))?;
                Ok(0)
            }
            None => self.host.ioctl(task, cmd, arg),
        }
    }
}

/// A new internet socket, as a container with the API has them.
pub(crate) fn wrap(task: &CurrentTask, socket: Arc<dyn SocketOps>) -> Arc<dyn SocketOps> {
    match task.container().runtime_api() {
        Some(api)
            if matches!(socket.family(), libc::AF_INET | libc::AF_INET6)
                && socket.kind() == libc::SOCK_STREAM
                && socket.protocol() == libc::IPPROTO_TCP =>
        {
            Arc::new(ApiSocket::new(api.clone(), socket))
        }
        _ => socket,
    }
}
