//! Sending and receiving.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quicksand_abi::Errno;

use super::names::Name;
use super::queue::Message;
use super::{State, UnixSocket};
use crate::net::control::{Control, own_credentials};
use crate::net::socket::{Incoming, MsgFlags, Outgoing, SocketFile};
use crate::sync::Events;
use crate::task::CurrentTask;
use crate::vfs::{IoDst, IoSrc, OpenFile};

/// Largest piece that a stream is cut into (`SKB_MAX_ALLOC` and page fragments).
const MAX_PIECE: usize = 32 << 10;

/// Whether a file is a Unix socket: sent through one, it can form a cycle.
pub(super) fn unix_socket_of(file: &OpenFile) -> Option<&UnixSocket> {
    let socket = file.ops_as::<SocketFile>()?;
    (&*socket.ops as &dyn std::any::Any).downcast_ref::<UnixSocket>()
}

impl UnixSocket {
    pub(super) fn send_message(
        &self,
        task: &CurrentTask,
        message: &mut Outgoing<'_, '_>,
    ) -> Result<usize, Errno> {
        message.control.check_local(true)?;
        if message.flags.contains(MsgFlags::OOB) {
            task.kernel().log_unsupported("MSG_OOB on a Unix socket", Errno::EOPNOTSUPP);
            return Err(Errno::EOPNOTSUPP);
        }
        match self.kind {
            libc::SOCK_STREAM => self.send_stream(task, message),
            libc::SOCK_DGRAM => self.send_datagram(task, message),
            _ => {
                if self.state.lock().peer.is_none() {
                    return Err(Errno::ENOTCONN);
                }
                message.to = None;
                self.send_datagram(task, message)
            }
        }
    }

    fn send_stream(&self, task: &CurrentTask, message: &mut Outgoing<'_, '_>) -> Result<usize, Errno> {
        let peer = {
            let mut state = self.state.lock();
            let Some(peer) = state.peer.clone() else {
                return Err(if message.to.is_some() { Errno::EOPNOTSUPP } else { Errno::ENOTCONN });
            };
            if message.to.is_some() {
                return Err(Errno::EISCONN);
            }
            if state.shutdown.write {
                return Err(Errno::EPIPE);
            }
            if let Some(e) = state.error.take() {
                return Err(e);
            }
            peer
        };
        let mut sent = 0;
        while message.src.remaining() > 0 {
            let half_buffer = (self.account.limit() / 2).saturating_sub(64).max(1);
            let piece = message.src.remaining().min(half_buffer).min(MAX_PIECE);
            match self.send_piece(task, &peer, message, piece) {
                Ok(n) => sent += n,
                Err(e) if sent == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    fn send_piece(
        &self,
        task: &CurrentTask,
        peer: &Arc<UnixSocket>,
        message: &mut Outgoing<'_, '_>,
        len: usize,
    ) -> Result<usize, Errno> {
        let charge = self.account.charge(len).ok_or(Errno::EAGAIN)?;
        let data = take_all(message.src, len)?;
        let mut piece = Message::new(data, charge);
        self.attach(task, &mut piece, &mut message.control);
        let undelivered = {
            let mut state = peer.state.lock();
            if state.dead || state.shutdown.read {
                Some(piece)
            } else {
                state.incoming.push_back(piece);
                None
            }
        };
        if let Some(piece) = undelivered {
            message.src.unread(len);
            self.detach(&piece);
            return Err(Errno::EPIPE);
        }
        peer.queue.notify(Events::READABLE);
        Ok(len)
    }

    /// Datagrams and sequenced packets.
    fn send_datagram(&self, task: &CurrentTask, message: &mut Outgoing<'_, '_>) -> Result<usize, Errno> {
        let packets = self.is_connected_kind();
        let peer = match message.to {
            Some(address) => {
                let name = Name::parse(address)?.ok_or(Errno::EINVAL)?;
                Some(self.net.unix.find(task, &name)?)
            }
            None => self.state.lock().peer.clone(),
        };
        let peer = peer.ok_or(Errno::ENOTCONN)?;
        if self.state.lock().options.pass_credentials {
            self.autobind()?;
        }
        let len = message.src.remaining();
        if len > self.account.limit().saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        self.check_send(&peer, packets, message.to.is_some())?;
        if !packets && !peer.has_room_for(self) {
            return Err(Errno::EAGAIN);
        }
        let charge = self.account.charge(len).ok_or(Errno::EAGAIN)?;
        let data = take_all(message.src, len)?;
        let mut datagram = Message::new(data, charge);
        datagram.eor = packets && message.flags.contains(MsgFlags::EOR);
        datagram.from = self.state.lock().name.clone();
        self.attach(task, &mut datagram, &mut message.control);
        let undelivered = {
            let mut state = peer.state.lock();
            if state.dead {
                Some(datagram)
            } else {
                state.incoming.push_back(datagram);
                None
            }
        };
        if let Some(datagram) = undelivered {
            self.detach(&datagram);
            return Err(if packets { Errno::EPIPE } else { Errno::ECONNREFUSED });
        }
        peer.queue.notify(Events::READABLE);
        Ok(len)
    }

    fn check_send(&self, peer: &Arc<UnixSocket>, packets: bool, by_name: bool) -> Result<(), Errno> {
        {
            let mut state = self.state.lock();
            if state.shutdown.write {
                return Err(Errno::EPIPE);
            }
            if let Some(e) = state.error.take() {
                return Err(e);
            }
        }
        let (dead, shut) = {
            let state = peer.state.lock();
            (state.dead, state.shutdown.read)
        };
        if dead && !packets {
            // Nobody is there any more: the socket is connected no longer.
            if !by_name {
                let old = self.state.lock().peer.take();
                drop(old);
            }
            return Err(Errno::ECONNREFUSED);
        }
        if !packets && !self.may_send_to(peer) {
            return Err(Errno::EPERM);
        }
        if shut || dead { Err(Errno::EPIPE) } else { Ok(()) }
    }

    /// Puts credentials and descriptors onto a message. Descriptors go with the first piece only.
    fn attach(&self, task: &CurrentTask, message: &mut Message, control: &mut Control) {
        message.credentials = Some(control.credentials.unwrap_or_else(|| own_credentials(task)));
        message.rights = std::mem::take(&mut control.rights);
        let sockets = message.rights.iter().filter(|f| unix_socket_of(f).is_some()).count();
        self.net.unix.in_flight.fetch_add(sockets, Ordering::Relaxed);
    }

    /// A message's descriptors are in flight no longer.
    pub(super) fn detach(&self, message: &Message) {
        self.landed(&message.rights);
    }
    fn landed(&self, rights: &[Arc<OpenFile>]) {
        let sockets = rights.iter().filter(|f| unix_socket_of(f).is_some()).count();
        self.net.unix.in_flight.fetch_sub(sockets, Ordering::Relaxed);
    }

    pub(super) fn receive_message(
        &self,
        task: &CurrentTask,
        dst: &mut IoDst<'_>,
        flags: MsgFlags,
    ) -> Result<Incoming, Errno> {
        if flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        if flags.contains(MsgFlags::ERRQUEUE) {
            return Err(Errno::EOPNOTSUPP);
        }
        match self.kind {
            libc::SOCK_STREAM => self.receive_stream(task, dst, flags),
            _ => self.receive_packet(dst, flags),
        }
    }

    /// What to answer when the queue is empty.
    fn nothing(&self, state: &mut State) -> Result<Incoming, Errno> {
        if let Some(e) = state.error.take() {
            return Err(e);
        }
        if state.shutdown.read { Ok(Incoming::default()) } else { Err(Errno::EAGAIN) }
    }

    fn receive_stream(
        &self,
        task: &CurrentTask,
        dst: &mut IoDst<'_>,
        flags: MsgFlags,
    ) -> Result<Incoming, Errno> {
        let peek = flags.contains(MsgFlags::PEEK);
        let mut done = Vec::new();
        let mut incoming = Incoming::default();
        let data = {
            let mut state = self.state.lock();
            if state.peer.is_none() && !state.dead {
                return Err(Errno::EINVAL);
            }
            if state.incoming.is_empty() {
                return self.nothing(&mut state);
            }
            let separate = state.options.pass_credentials;
            gather(&mut state, dst.remaining(), peek, separate, &mut incoming, &mut done)
        };
        if !peek {
            self.landed(&incoming.control.rights);
        }
        let put = put_all(dst, &data);
        let put = match put {
            Ok(put) => put,
            Err(e) => {
                self.put_back(task, &data, done);
                return Err(e);
            }
        };
        if put < data.len() && !peek {
            self.put_back(task, &data[put..], Vec::new());
        }
        drop(done); // outside the lock: charges wake the sender, descriptors close
        incoming.len = put;
        Ok(incoming)
    }

    /// What a faulting reader could not take is read again later.
    fn put_back(&self, task: &CurrentTask, data: &[u8], _done: Vec<Message>) {
        if data.is_empty() {
            return;
        }
        // Charged to the reader itself: the sender has been told that it was read.
        if let Some(charge) = self.account.charge(data.len()) {
            let mut piece = Message::new(data.to_vec(), charge);
            piece.credentials = Some(own_credentials(task));
            self.state.lock().incoming.push_front(piece);
        }
    }

    /// Datagrams and sequenced packets: one whole message.
    fn receive_packet(&self, dst: &mut IoDst<'_>, flags: MsgFlags) -> Result<Incoming, Errno> {
        let peek = flags.contains(MsgFlags::PEEK);
        let mut incoming = Incoming::default();
        let mut taken = None;
        let (data, blocked) = {
            let mut state = self.state.lock();
            if self.is_connected_kind() && state.peer.is_none() && !state.dead {
                return Err(Errno::ENOTCONN);
            }
            if state.incoming.is_empty() {
                return self.nothing(&mut state);
            }
            let pass = state.options.pass_credentials;
            let data = if peek {
                let Some(first) = state.incoming.front() else { return Err(Errno::EAGAIN) };
                describe(first, &mut incoming, pass);
                incoming.control.rights = first.rights.clone();
                first.bytes().to_vec()
            } else {
                let Some(mut first) = state.incoming.pop_front() else { return Err(Errno::EAGAIN) };
                describe(&first, &mut incoming, pass);
                incoming.control.rights = std::mem::take(&mut first.rights);
                let data = first.bytes().to_vec();
                taken = Some(first);
                data
            };
            let blocked = if peek { Vec::new() } else { std::mem::take(&mut state.blocked) };
            (data, blocked)
        };
        UnixSocket::wake_blocked(blocked);
        if !peek {
            self.landed(&incoming.control.rights);
        }
        drop(taken);
        let fits = data.len().min(dst.remaining());
        if fits < data.len() {
            incoming.flags |= MsgFlags::TRUNC;
        }
        let put = put_all(dst, &data[..fits])?;
        if put < fits {
            return Err(Errno::EFAULT);
        }
        incoming.len = if flags.contains(MsgFlags::TRUNC) { data.len() } else { put };
        Ok(incoming)
    }
}

/// Collects up to `max` bytes of a stream: pieces with other credentials are kept apart where the reader is shown them,
/// and nothing is read beyond a piece with descriptors.
fn gather(
    state: &mut State,
    max: usize,
    peek: bool,
    separate: bool,
    incoming: &mut Incoming,
    done: &mut Vec<Message>,
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    let mut credentials = None;
    // Also with nothing to read into, the first piece's descriptors are handed over, as Linux does.
    while (out.len() < max || at == 0 && max == 0 && out.is_empty())
        && let Some(piece) = state.incoming.get_mut(at)
    {
        if at > 0 || !out.is_empty() {
            if separate && credentials != Some(piece.credentials) {
                break;
            }
        } else {
            describe(piece, incoming, separate);
        }
        if max == 0 {
            break;
        }
        credentials = Some(piece.credentials);
        let n = piece.len().min(max - out.len());
        out.extend_from_slice(&piece.bytes()[..n]);
        let rights = piece.has_rights();
        if rights && incoming.control.rights.is_empty() {
            incoming.control.rights =
                if peek { piece.rights.clone() } else { std::mem::take(&mut piece.rights) };
        }
        if peek {
            at += 1;
        } else {
            piece.consume(n);
            if piece.len() == 0 {
                done.extend(state.incoming.pop_front());
            }
        }
        if rights {
            break;
        }
    }
    out
}

fn describe(message: &Message, incoming: &mut Incoming, pass_credentials: bool) {
    incoming.from = message.from.as_ref().map(|name| Name::to_address(Some(name)));
    if pass_credentials {
        incoming.control.credentials = message.credentials;
    }
    if message.eor {
        incoming.flags |= MsgFlags::EOR;
    }
}

/// Exactly `len` bytes; EFAULT where not all of them can be reached.
fn take_all(src: &mut IoSrc<'_>, len: usize) -> Result<Vec<u8>, Errno> {
    let mut data = Vec::new();
    data.try_reserve_exact(len).map_err(|_| Errno::ENOBUFS)?;
    data.resize(len, 0);
    let mut taken = 0;
    while taken < len {
        match src.take(&mut data[taken..]) {
            Ok(0) => break,
            Ok(n) => taken += n,
            Err(e) => {
                src.unread(taken);
                return Err(e);
            }
        }
    }
    Ok(data)
}

/// As much as can be put; EFAULT where not one byte could.
fn put_all(dst: &mut IoDst<'_>, data: &[u8]) -> Result<usize, Errno> {
    let mut put = 0;
    while put < data.len() && dst.remaining() > 0 {
        match dst.put(&data[put..]) {
            Ok(n) => put += n,
            Err(e) if put == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(put)
}
