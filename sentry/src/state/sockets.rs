//! Sockets: between what they are and their records.
//!
//! A Unix socket leads to others: its peer, connections that wait, sockets under way in messages. How long such a chain is, a
//! guest decides; so each is noted, and looked at in turn, both ways.

use std::sync::Arc;
use std::time::Duration;

use quicksand_abi::Errno;

use super::records::{self as rec, FileBody, kind};
use super::restore::RestoreError;
use super::restore_files::Files;
use super::save::{SaveError, Saver, unsupported};
use crate::net::host::{self, HostSocket};
use crate::net::lambda::socket::ApiSocket;
use crate::net::netlink::{self, NetlinkSocket};
use crate::net::socket::{SocketFile, SocketOps};
use crate::net::unix::{self, UnixSocket};
use crate::vfs::walk::{WalkFlags, lookup_in};
use crate::vfs::{OpenFile, OpenFlags};

fn netlink(saved: netlink::Saved) -> rec::Netlink {
    rec::Netlink {
        kind: saved.kind,
        port: saved.port,
        groups: saved.groups,
        incoming: saved.incoming,
        pass_credentials: saved.pass_credentials,
        overrun: saved.overrun,
        switches: saved.switches,
        buffers: saved.buffers,
    }
}

impl Saver<'_> {
    /// A socket's open file.
    pub(super) fn socket(&mut self, file: &SocketFile, what: &str) -> Result<FileBody, SaveError> {
        let nanos = |write| file.timeout_of(write).and_then(|t| u64::try_from(t.as_nanos()).ok());
        let timeouts = [nanos(false), nanos(true)];
        let ops: &dyn std::any::Any = &*file.ops;
        if let Some(socket) = ops.downcast_ref::<UnixSocket>() {
            self.sockets.push((socket.own().map_err(|_| SaveError::Ended)?, what.to_owned()));
            return Ok(FileBody::Unix { socket: socket.number(), timeouts });
        }
        if let Some(dead) = ops.downcast_ref::<crate::net::host::DeadSocket>() {
            let socket = rec::Inet {
                family: crate::net::socket::SocketOps::family(dead),
                kind: libc::SOCK_STREAM,
                protocol: libc::IPPROTO_TCP,
                local: crate::net::socket::SocketOps::local_address(dead).ok(),
                listening: None,
                remote: None,
                reset: true,
                options: Vec::new(),
            };
            return Ok(FileBody::Inet { socket, timeouts });
        }
        if let Some(socket) = ops.downcast_ref::<NetlinkSocket>() {
            return Ok(FileBody::Netlink { socket: netlink(socket.saved()), timeouts });
        }
        if let Some(api) = ops.downcast_ref::<ApiSocket>() {
            let socket = self.inet(&**api.host(), what)?;
            return Ok(match api.connection() {
                Some(connection) => FileBody::Lambda { connection, socket, timeouts },
                None => FileBody::Inet { socket, timeouts },
            });
        }
        Ok(FileBody::Inet { socket: self.inet(&*file.ops, what)?, timeouts })
    }

    fn inet(&self, ops: &dyn SocketOps, what: &str) -> Result<rec::Inet, SaveError> {
        let ops: &dyn std::any::Any = ops;
        let Some(socket) = ops.downcast_ref::<HostSocket>() else {
            return unsupported(format!("{what} is a socket of an unknown kind"));
        };
        let saved = socket.saved();
        if saved.reset && self.options.refuse_connections {
            return unsupported(format!("{what} is a TCP connection"));
        }
        Ok(rec::Inet {
            family: saved.family,
            kind: saved.kind,
            protocol: saved.protocol,
            local: saved.local,
            listening: saved.listening,
            remote: saved.remote,
            reset: saved.reset,
            options: saved.options,
        })
    }

    /// The Unix sockets that were noted, and whatever they lead to.
    pub(super) fn sockets(&mut self) -> Result<(), SaveError> {
        while let Some((socket, what)) = self.sockets.pop() {
            if self.meets(kind::UNIX, socket.number()) {
                self.unix(&socket, &what)?;
            }
        }
        Ok(())
    }

    fn unix(&mut self, socket: &UnixSocket, what: &str) -> Result<(), SaveError> {
        let saved = socket.saved();
        let node = saved.node.as_ref().map(|path| self.path(path, "a Unix socket's name")).transpose()?;
        let mut messages = Vec::new();
        for message in saved.messages {
            for file in &message.rights {
                self.file(file, &format!("a descriptor that is under way to {what}"))?;
            }
            messages.push(rec::Message {
                bytes: message.bytes,
                eor: message.eor,
                credentials: message.credentials,
                from: message.from,
                sender: message.sender.as_ref().map(|sender| sender.number()),
                rights: message.rights.iter().map(|file| file.id).collect(),
            });
            self.sockets.extend(message.sender.map(|sender| (sender, what.to_owned())));
        }
        let record = rec::Unix {
            kind: saved.kind,
            name: saved.name,
            node,
            bound: saved.bound,
            listening: saved.listening.map(|(backlog, credentials)| (backlog as u64, credentials)),
            pending: saved.pending.iter().map(|half| half.number()).collect(),
            peer: saved.peer.as_ref().map(|peer| peer.number()),
            orphan: saved.orphan,
            shut_read: saved.shutdown.0,
            shut_write: saved.shutdown.1,
            error: saved.error,
            options: saved.options,
            send_buffer: saved.send_buffer as u64,
            peer_credentials: saved.peer_credentials,
            messages,
        };
        let others = saved.pending.into_iter().chain(saved.peer);
        self.sockets.extend(others.map(|other| (other, what.to_owned())));
        self.add(kind::UNIX, socket.number(), &record)
    }
}

impl Files<'_> {
    /// The open file of a socket.
    pub(super) fn socket(
        &self,
        ops: Arc<dyn SocketOps>,
        flags: OpenFlags,
        timeouts: &[Option<u64>; 2],
    ) -> Arc<OpenFile> {
        let file = crate::net::socket::new_file(self.task, ops, flags);
        if let Some(socket) = file.ops_as::<SocketFile>() {
            for (write, timeout) in [(false, timeouts[0]), (true, timeouts[1])] {
                socket.set_timeout(write, timeout.map(Duration::from_nanos));
            }
        }
        file
    }

    pub(super) fn inet(&self, record: &rec::Inet) -> Result<Arc<dyn SocketOps>, RestoreError> {
        let saved = host::Saved {
            family: record.family,
            kind: record.kind,
            protocol: record.protocol,
            local: record.local.clone(),
            listening: record.listening,
            remote: record.remote.clone(),
            reset: false,
            options: record.options.clone(),
        };
        HostSocket::restored(self.task, &saved).map_err(|errno| {
            let port = saved.local.as_ref().and_then(|a| Some(u16::from_be_bytes([*a.get(2)?, *a.get(3)?])));
            RestoreError::Socket(format!("an internet socket on port {} ({errno})", port.unwrap_or(0)))
        })
    }

    pub(super) fn netlink(&self, record: &rec::Netlink) -> Result<Arc<dyn SocketOps>, RestoreError> {
        let saved = netlink::Saved {
            kind: record.kind,
            port: record.port,
            groups: record.groups,
            incoming: record.incoming.clone(),
            pass_credentials: record.pass_credentials,
            overrun: record.overrun,
            switches: record.switches,
            buffers: record.buffers,
        };
        let socket = NetlinkSocket::restored(self.task, saved);
        let failed =
            |errno| RestoreError::Socket(format!("a netlink socket on port {} ({errno})", record.port));
        Ok(socket.map_err(failed)?)
    }

    /// A Unix socket by its number. What it leads to is made later, by [`Files::link_sockets`].
    pub(super) fn unix(&mut self, id: u64) -> Result<Arc<UnixSocket>, RestoreError> {
        if let Some(known) = self.unix.get(&id) {
            return Ok(known.clone());
        }
        let record: rec::Unix = self.image.records(kind::UNIX)?.read(id)?;
        let failed = |errno: Errno| RestoreError::Socket(format!("Unix socket {id} ({errno})"));
        let root = self.container.initial_fs().root();
        let node = record.node.as_ref().map(|path| lookup_in(&root, path, WalkFlags::empty()));
        let saved = unix::Saved {
            kind: record.kind,
            name: record.name.clone(),
            node: node.transpose().map_err(failed)?,
            bound: record.bound,
            listening: record.listening.clone().map(|(backlog, credentials)| {
                (usize::try_from(backlog).unwrap_or(0).min(libc::SOMAXCONN as usize), credentials)
            }),
            orphan: record.orphan,
            shutdown: (record.shut_read, record.shut_write),
            error: record.error,
            options: record.options,
            send_buffer: usize::try_from(record.send_buffer).unwrap_or(usize::MAX),
            peer_credentials: record.peer_credentials.clone(),
            ..unix::Saved::default()
        };
        let socket = UnixSocket::restored(self.task, &saved).map_err(failed)?;
        self.unix.insert(id, socket.clone());
        self.to_link.push((socket.clone(), saved, record));
        Ok(socket)
    }

    /// Gives a socket that was made its peer, connections and messages. False where none is left.
    pub(super) fn link_socket(&mut self) -> Result<bool, RestoreError> {
        let Some((socket, mut saved, record)) = self.to_link.pop() else { return Ok(false) };
        saved.peer = record.peer.map(|peer| self.unix(peer)).transpose()?;
        for half in &record.pending {
            saved.pending.push(self.unix(*half)?);
        }
        for message in record.messages {
            let mut rights = Vec::new();
            for file in message.rights {
                rights.push(self.get(file)?);
            }
            if rights.len() > quicksand_abi::socket::SCM_MAX_FD {
                return Err(RestoreError::Record("a message with too many descriptors".to_owned()));
            }
            saved.messages.push(unix::SavedMessage {
                bytes: message.bytes,
                eor: message.eor,
                credentials: message.credentials,
                from: message.from,
                sender: message.sender.map(|sender| self.unix(sender)).transpose()?,
                rights,
            });
        }
        let failed = |errno: Errno| RestoreError::Socket(format!("a Unix socket ({errno})"));
        socket.restore_links(self.task, saved).map_err(failed)?;
        Ok(true)
    }
}
