//! Unix sockets as data, for checkpoints.

use std::collections::VecDeque;
use std::sync::Arc;

use quicksand_abi::Errno;
use quicksand_abi::socket::Ucred;

use super::names::{Binding, Name};
use super::queue::Message;
use super::{Listener, PeerCredentials, UnixSocket};
use crate::net::socket::{Shutdown, SocketOps};
use crate::task::CurrentTask;
use crate::vfs::Path;

/// A message that waits: bytes, whether a record ends, the sender's pid, uid and gid.
pub(crate) type SavedMessage = (Vec<u8>, bool, Option<(i32, u32, u32)>);

/// A socket, apart from who its peer is.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    pub kind: i32,
    /// As `getsockname(2)` gives it.
    pub name: Vec<u8>,
    /// The node that it is bound to.
    pub node: Option<Path>,
    pub bound: bool,
    pub listening: Option<usize>,
    pub peer: Option<Arc<UnixSocket>>,
    /// It had a peer, which has closed.
    pub orphan: bool,
    pub shutdown: (bool, bool),
    pub pass_credentials: bool,
    pub peer_credentials: Option<(i32, u32, u32, Vec<u32>)>,
    pub messages: Vec<SavedMessage>,
}

impl UnixSocket {
    /// Its number in the sandbox.
    pub(crate) fn number(&self) -> u64 {
        self.id
    }

    /// The socket as data; an error says, after "a Unix socket", why it has no form as data.
    pub(crate) fn saved(&self) -> Result<Saved, &'static str> {
        let name = self.local_address().unwrap_or_default();
        let (mut saved, peer) = {
            let state = self.state.lock();
            if state.listener.as_ref().is_some_and(|listener| !listener.pending.is_empty()) {
                return Err("has connections that nobody has accepted");
            }
            if state.incoming.iter().any(Message::has_rights) {
                return Err("has descriptors on their way to it");
            }
            if state.error.is_some() {
                return Err("has an error that nobody has seen");
            }
            let ids = |c: &Ucred| (c.pid, c.uid, c.gid);
            let saved = Saved {
                kind: self.kind,
                name,
                node: match &state.binding {
                    Some(Binding::Node(path)) => Some(path.clone()),
                    _ => None,
                },
                bound: state.binding.is_some(),
                listening: state.listener.as_ref().map(|listener| listener.backlog),
                peer: None,
                orphan: false,
                shutdown: (state.shutdown.read, state.shutdown.write),
                pass_credentials: state.options.pass_credentials,
                peer_credentials: state
                    .peer_credentials
                    .as_ref()
                    .map(|c| (c.ids.pid, c.ids.uid, c.ids.gid, c.groups.clone())),
                messages: state
                    .incoming
                    .iter()
                    .map(|m| (m.bytes().to_vec(), m.eor, m.credentials.as_ref().map(ids)))
                    .collect(),
            };
            (saved, state.peer.clone())
        };
        if let Some(peer) = peer {
            let dead = peer.state.lock().dead;
            saved.orphan = dead;
            saved.peer = Some(peer).filter(|_| !dead);
        }
        Ok(saved)
    }

    /// A socket from its data, without its peer and its messages. EINVAL where the data make no sense.
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
        let own = PeerCredentials::of(task);
        let mut state = socket.state.lock();
        if !saved.bound {
            state.name = name;
        }
        if let Some(backlog) = saved.listening {
            let credentials = own;
            state.listener = Some(Listener { pending: VecDeque::new(), backlog, credentials });
        }
        state.shutdown = Shutdown { read: saved.shutdown.0, write: saved.shutdown.1 };
        state.options.pass_credentials = saved.pass_credentials;
        state.peer_credentials = saved.peer_credentials.as_ref().map(|(pid, uid, gid, groups)| {
            PeerCredentials { ids: Ucred { pid: *pid, uid: *uid, gid: *gid }, groups: groups.clone() }
        });
        drop(state);
        Ok(socket)
    }

    /// The second half of [`UnixSocket::restored`]: its peer, and what it has sent to this socket.
    pub(crate) fn restore_peer(
        &self,
        task: &CurrentTask,
        peer: Option<Arc<UnixSocket>>,
        saved: &Saved,
    ) -> Result<(), Errno> {
        let peer = match peer {
            None if saved.orphan => {
                let closed = UnixSocket::new(task, saved.kind, 0)?;
                closed.release();
                Some(closed)
            }
            other => other,
        };
        let mut messages = VecDeque::new();
        for (bytes, eor, credentials) in &saved.messages {
            // Whose sender is not known any more costs nobody.
            let account = peer.as_ref().map_or(&self.account, |peer| &peer.account);
            let mut message = Message::new(bytes.clone(), account.charge_anyway(bytes.len()));
            message.eor = *eor;
            message.credentials = credentials.map(|(pid, uid, gid)| Ucred { pid, uid, gid });
            messages.push_back(message);
        }
        let old = {
            let mut state = self.state.lock();
            state.incoming = messages;
            std::mem::replace(&mut state.peer, peer)
        };
        drop(old);
        Ok(())
    }
}
