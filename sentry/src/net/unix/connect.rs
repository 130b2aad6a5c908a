//! Connections: `listen`, `connect`, `accept`.

use std::collections::VecDeque;
use std::sync::Arc;

use quicksand_abi::Errno;
use quicksand_abi::socket::SOMAXCONN;

use super::names::Name;
use super::{Listener, MAX_DGRAM_QUEUE, PeerCredentials, State, UnixSocket};
use crate::net::address::{Address, family};
use crate::net::socket::{Shutdown, SocketOps};
use crate::sync::Events;
use crate::task::CurrentTask;

impl UnixSocket {
    /// `listen(2)`
    pub(super) fn start_listening(&self, task: &CurrentTask, backlog: i32) -> Result<(), Errno> {
        if !self.is_connected_kind() {
            return Err(Errno::EOPNOTSUPP);
        }
        let backlog = usize::try_from(backlog).unwrap_or(usize::MAX).min(SOMAXCONN as usize);
        // Asked for first: a task's lock comes before a socket's.
        let credentials = PeerCredentials::of(task);
        let blocked = {
            let mut state = self.state.lock();
            if state.name.is_none() || state.peer.is_some() {
                return Err(Errno::EINVAL);
            }
            state.peer_credentials = Some(credentials.clone());
            match &mut state.listener {
                Some(listener) => {
                    listener.backlog = backlog;
                    listener.credentials = credentials;
                }
                None => {
                    state.listener = Some(Listener { pending: VecDeque::new(), backlog, credentials });
                }
            }
            std::mem::take(&mut state.blocked)
        };
        UnixSocket::wake_blocked(blocked);
        Ok(())
    }

    /// `connect(2)`
    pub(super) fn connect_to(&self, task: &CurrentTask, address: &[u8]) -> Result<(), Errno> {
        if !self.is_connected_kind() {
            return self.connect_datagram(task, address);
        }
        let name = Name::parse(address)?.ok_or(Errno::EINVAL)?;
        if self.state.lock().options.pass_credentials {
            self.autobind()?;
        }
        let server = self.net.unix.find(task, &name)?;
        self.check_unconnected()?;
        if server.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        let half = UnixSocket::make(task, self.kind);
        let (name, options, server_credentials) = {
            let mut state = server.state.lock();
            let refused = state.dead || state.shutdown.read;
            let Some(listener) = state.listener.as_ref().filter(|_| !refused) else {
                return Err(Errno::ECONNREFUSED);
            };
            let credentials = listener.credentials.clone();
            if listener.pending.len() > listener.backlog {
                state.blocked.push(Arc::downgrade(&self.queue));
                return Err(Errno::EAGAIN);
            }
            (state.name.clone(), state.options.clone(), credentials)
        };
        let own_credentials = PeerCredentials::of(task);
        {
            let mut state = half.state.lock();
            state.name = name;
            state.options = options;
            state.peer = Some(self.own()?);
            state.peer_credentials = Some(own_credentials);
        }
        // Connected before the server can see it.
        {
            let mut state = self.state.lock();
            check_unconnected(&state)?;
            state.peer = Some(half.clone());
            state.peer_credentials = Some(server_credentials);
        }
        if !server.enqueue(&half) {
            // The server closed in the meantime.
            let lost = {
                let mut state = self.state.lock();
                state.peer_credentials = None;
                state.peer.take()
            };
            drop(lost);
            return Err(Errno::ECONNREFUSED);
        }
        server.queue.notify(Events::READABLE);
        self.queue.notify(Events::WRITABLE);
        Ok(())
    }

    /// Puts a connection into a listener's queue. False where it listens no longer.
    fn enqueue(&self, half: &Arc<UnixSocket>) -> bool {
        let mut state = self.state.lock();
        if state.dead || state.shutdown.read {
            return false;
        }
        match &mut state.listener {
            Some(listener) => listener.pending.push_back(half.clone()),
            None => return false,
        }
        true
    }

    fn check_unconnected(&self) -> Result<(), Errno> {
        check_unconnected(&self.state.lock())
    }

    /// A datagram socket's `connect` sets where datagrams go to, and from whom they come.
    fn connect_datagram(&self, task: &CurrentTask, address: &[u8]) -> Result<(), Errno> {
        let peer = match family(address) {
            Some(libc::AF_UNSPEC) => None,
            _ => {
                let name = Name::parse(address)?.ok_or(Errno::EINVAL)?;
                if self.state.lock().options.pass_credentials {
                    self.autobind()?;
                }
                let peer = self.net.unix.find(task, &name)?;
                if peer.kind != self.kind {
                    return Err(Errno::EPROTOTYPE);
                }
                if !self.may_send_to(&peer) {
                    return Err(Errno::EPERM);
                }
                Some(peer)
            }
        };
        let old = {
            let mut state = self.state.lock();
            std::mem::replace(&mut state.peer, peer)
        };
        self.queue.notify(Events::WRITABLE);
        drop(old);
        Ok(())
    }

    /// Whether a datagram socket takes messages from this one: it is connected to nobody else (`unix_may_send`).
    pub(super) fn may_send_to(&self, peer: &UnixSocket) -> bool {
        let theirs = peer.state.lock().peer.clone();
        theirs.is_none_or(|p| p.id == self.id)
    }

    /// Whether a datagram from `sender` fits into the queue (`unix_recvq_full`); the two ends of a connected pair are
    /// only bound by what is charged to them. Where it does not fit, the sender will be told.
    pub(super) fn has_room_for(&self, sender: &UnixSocket) -> bool {
        let mut state = self.state.lock();
        let paired = state.peer.as_ref().is_some_and(|p| p.id == sender.id);
        if paired || state.incoming.len() <= MAX_DGRAM_QUEUE || state.dead {
            return true;
        }
        if !state.blocked.iter().any(|q| q.as_ptr() == Arc::as_ptr(&sender.queue)) {
            state.blocked.push(Arc::downgrade(&sender.queue));
        }
        false
    }

    /// `accept(2)`
    pub(super) fn take_connection(&self) -> Result<(Arc<dyn SocketOps>, Address), Errno> {
        if !self.is_connected_kind() {
            return Err(Errno::EOPNOTSUPP);
        }
        let (half, blocked) = {
            let mut state = self.state.lock();
            let shut = state.shutdown.read;
            let listener = state.listener.as_mut().ok_or(Errno::EINVAL)?;
            match listener.pending.pop_front() {
                Some(half) => (half, std::mem::take(&mut state.blocked)),
                None if shut => return Err(Errno::EINVAL),
                None => return Err(Errno::EAGAIN),
            }
        };
        UnixSocket::wake_blocked(blocked);
        let client = half.state.lock().peer.clone();
        let name = client.and_then(|c| c.state.lock().name.clone());
        Ok((half, Name::to_address(name.as_ref())))
    }

    /// The listener closed before anybody accepted this half.
    pub(super) fn release_embryo(&self) {
        let mut state = {
            let mut state = self.state.lock();
            let shutdown = Shutdown { read: true, write: true };
            std::mem::replace(&mut *state, State { dead: true, shutdown, ..State::default() })
        };
        if let Some(client) = &state.peer {
            client.peer_gone(true);
        }
        self.net.unix.discard(std::mem::take(&mut state.incoming));
    }
}

fn check_unconnected(state: &State) -> Result<(), Errno> {
    if state.peer.is_some() {
        return Err(Errno::EISCONN);
    }
    if state.listener.is_some() {
        return Err(Errno::EINVAL);
    }
    Ok(())
}
