//! Unix sockets as data, for checkpoints.
//!
//! A socket is made in two steps: itself, then what leads to others (its peer, connections that wait, messages), when all are
//! there. So a chain of sockets, which a guest makes as long as it likes, is no recursion.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quicksand_abi::Errno;
use quicksand_abi::socket::Ucred;

use super::gc::count_sockets;
use super::names::{Binding, Name};
use super::options::{OPTIONS, Options};
use super::queue::Message;
use super::{Listener, PeerCredentials, UnixSocket};
use crate::net::socket::{Shutdown, SocketOps};
use crate::task::CurrentTask;
use crate::vfs::{OpenFile, Path};

/// Pid, uid, gid, and groups.
pub(crate) type SavedCredentials = (i32, u32, u32, Vec<u32>);

/// A message that waits.
#[derive(Debug, Default)]
pub(crate) struct SavedMessage {
    pub bytes: Vec<u8>,
    /// A record ends here.
    pub eor: bool,
    /// The sender's pid, uid and gid.
    pub credentials: Option<(i32, u32, u32)>,
    /// The sender's name, as an address.
    pub from: Option<Vec<u8>>,
    /// Whom it is charged to, where that socket is still there.
    pub sender: Option<Arc<UnixSocket>>,
    /// Descriptors under way.
    pub rights: Vec<Arc<OpenFile>>,
}

/// A socket.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    pub kind: i32,
    /// As `getsockname(2)` gives it.
    pub name: Vec<u8>,
    /// The node that it is bound to.
    pub node: Option<Path>,
    pub bound: bool,
    /// The backlog, and the credentials of `listen(2)`.
    pub listening: Option<(usize, SavedCredentials)>,
    /// Connections that nobody has accepted.
    pub pending: Vec<Arc<UnixSocket>>,
    pub peer: Option<Arc<UnixSocket>>,
    /// It had a peer, which has closed.
    pub orphan: bool,
    pub shutdown: (bool, bool),
    pub error: Option<i32>,
    pub options: [i64; OPTIONS],
    pub send_buffer: usize,
    pub peer_credentials: Option<SavedCredentials>,
    pub messages: Vec<SavedMessage>,
}

impl PeerCredentials {
    fn saved(&self) -> SavedCredentials {
        (self.ids.pid, self.ids.uid, self.ids.gid, self.groups.clone())
    }
    fn restored((pid, uid, gid, groups): &SavedCredentials) -> PeerCredentials {
        PeerCredentials { ids: Ucred { pid: *pid, uid: *uid, gid: *gid }, groups: groups.clone() }
    }
}

impl UnixSocket {
    /// Its number in the sandbox.
    pub(crate) fn number(&self) -> u64 {
        self.id
    }

    /// The socket as data.
    pub(crate) fn saved(&self) -> Saved {
        let name = self.local_address().unwrap_or_default();
        // Looked for before this one is locked; most sockets have nothing to be read.
        let others = match self.state.lock().incoming.is_empty() {
            true => Vec::new(),
            false => self.net.unix.sockets(),
        };
        let (mut saved, peer) = {
            let state = self.state.lock();
            let ids = |c: &Ucred| (c.pid, c.uid, c.gid);
            let message = |m: &Message| SavedMessage {
                bytes: m.bytes().to_vec(),
                eor: m.eor,
                credentials: m.credentials.as_ref().map(ids),
                from: m.from.as_ref().map(|name| Name::to_address(Some(name))),
                sender: others.iter().find(|s| m.is_charged_to(&s.account)).cloned(),
                rights: m.rights.clone(),
            };
            let listener = state.listener.as_ref();
            let saved = Saved {
                kind: self.kind,
                name,
                node: match &state.binding {
                    Some(Binding::Node(path)) => Some(path.clone()),
                    _ => None,
                },
                bound: state.binding.is_some(),
                listening: listener.map(|l| (l.backlog, l.credentials.saved())),
                pending: listener.map(|l| l.pending.iter().cloned().collect()).unwrap_or_default(),
                peer: None,
                orphan: false,
                shutdown: (state.shutdown.read, state.shutdown.write),
                error: state.error.map(Errno::raw),
                options: state.options.to_numbers(),
                send_buffer: self.account.limit(),
                peer_credentials: state.peer_credentials.as_ref().map(PeerCredentials::saved),
                messages: state.incoming.iter().map(message).collect(),
            };
            (saved, state.peer.clone())
        };
        if let Some(peer) = peer {
            let dead = peer.state.lock().dead;
            saved.orphan = dead;
            saved.peer = Some(peer).filter(|_| !dead);
        }
        for message in &mut saved.messages {
            let gone = message.sender.as_ref().is_some_and(|sender| sender.state.lock().dead);
            if gone {
                message.sender = None;
            }
        }
        saved
    }

    /// A socket from its data, without what leads to others. EINVAL where the data make no sense.
    pub(crate) fn restored(task: &CurrentTask, saved: &Saved) -> Result<Arc<UnixSocket>, Errno> {
        let socket = UnixSocket::new(task, saved.kind, 0)?;
        let name = Name::parse(&saved.name)?;
        if saved.bound {
            let name = name.clone().ok_or(Errno::EINVAL)?;
            let binding = match (&name, &saved.node) {
                (Name::Path(_), Some(path)) => {
                    socket.net.unix.bind_inode(&path.dentry.inode, &socket);
                    Binding::Node(path.clone())
                }
                (Name::Abstract(bytes), None) => {
                    socket.net.unix.bind_abstract(bytes, &socket)?;
                    Binding::Abstract(bytes.clone())
                }
                _ => return Err(Errno::EINVAL),
            };
            socket.set_name(name, binding)?;
        }
        let options = Options::from_numbers(&saved.options)?;
        socket.account.restore_limit(saved.send_buffer.min(i32::MAX as usize));
        let mut state = socket.state.lock();
        if !saved.bound {
            state.name = name;
        }
        if let Some((backlog, credentials)) = &saved.listening {
            if !socket.is_connected_kind() {
                return Err(Errno::EINVAL);
            }
            let credentials = PeerCredentials::restored(credentials);
            state.listener = Some(Listener { pending: VecDeque::new(), backlog: *backlog, credentials });
        }
        state.shutdown = Shutdown { read: saved.shutdown.0, write: saved.shutdown.1 };
        state.error = saved.error.map(Errno::from_raw);
        state.options = options;
        state.peer_credentials = saved.peer_credentials.as_ref().map(PeerCredentials::restored);
        drop(state);
        Ok(socket)
    }

    /// The second half of [`UnixSocket::restored`]: its peer, connections that wait, and what was sent to this socket. EINVAL where
    /// the sockets do not fit together.
    pub(crate) fn restore_links(&self, task: &CurrentTask, saved: Saved) -> Result<(), Errno> {
        let alike = |other: &Arc<UnixSocket>| other.kind == self.kind;
        let fit = saved.peer.iter().chain(&saved.pending).all(alike);
        if !fit || saved.listening.is_none() && !saved.pending.is_empty() {
            return Err(Errno::EINVAL);
        }
        let peer = match saved.peer {
            None if saved.orphan => {
                let closed = UnixSocket::new(task, saved.kind, 0)?;
                closed.release();
                Some(closed)
            }
            other => other,
        };
        let mut messages = VecDeque::new();
        for saved in saved.messages {
            // Whose sender is not known any more costs nobody.
            let account = saved.sender.as_ref().map_or(&self.account, |sender| &sender.account);
            let charge = account.charge_anyway(saved.bytes.len());
            let mut message = Message::new(saved.bytes, charge);
            message.eor = saved.eor;
            message.credentials = saved.credentials.map(|(pid, uid, gid)| Ucred { pid, uid, gid });
            message.from = saved.from.map(|name| Name::parse(&name)).transpose()?.flatten();
            self.net.unix.in_flight.fetch_add(count_sockets(&saved.rights), Ordering::Relaxed);
            message.rights = saved.rights;
            messages.push_back(message);
        }
        let old = {
            let mut state = self.state.lock();
            state.incoming = messages;
            if let Some(listener) = &mut state.listener {
                listener.pending = saved.pending.into();
            }
            std::mem::replace(&mut state.peer, peer)
        };
        drop(old);
        Ok(())
    }
}
