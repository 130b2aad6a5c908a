//! What descriptors lead to, as records.

use std::sync::Arc;

use super::records::{self as rec, FileBody, kind};
use super::save::Saver;
use super::save::{SaveError, unsupported};
use crate::fs::epoll::Epoll;
use crate::fs::eventfd::EventFd;
use crate::fs::pipe::PipeFile;
use crate::fs::signalfd::SignalFd;
use crate::fs::timerfd::TimerFd;
use crate::net::host::HostSocket;
use crate::net::lambda::socket::ApiSocket;
use crate::net::socket::{SocketFile, SocketOps};
use crate::net::unix::UnixSocket;
use crate::vfs::locks::LockOwner;
use crate::vfs::{FileKind, OpenFile, OpenFlags};

/// Major numbers of character devices that are memory (`/dev/null` and its like): they have no state.
const MEM_MAJOR: u32 = 1;

impl Saver<'_> {
    /// An open file, where it is met for the first time. `what` names it in an error.
    pub(super) fn file(&mut self, file: &Arc<OpenFile>, what: &str) -> Result<(), SaveError> {
        if !self.meets(kind::FILE, file.id) {
            return Ok(());
        }
        if file.has_signal_owner() {
            return unsupported(format!("{what} sends signals (O_ASYNC, F_SETOWN)"));
        }
        let (flocks, records) = file.inode.locks.get().map(|locks| locks.held()).unwrap_or_default();
        let flock = flocks.iter().find(|lock| lock.file == file.id).map(|lock| (lock.exclusive, lock.pid));
        let own = records.iter().filter(|lock| lock.owner == LockOwner::File(file.id));
        let locks = own.map(|lock| (lock.start, lock.end, lock.exclusive)).collect();
        let body = self.file_body(file, what)?;
        let offset = *file.offset.lock();
        let record = rec::File { flags: file.flags().bits(), offset, flock, locks, body };
        self.add(kind::FILE, file.id, &record)
    }

    fn file_body(&mut self, file: &Arc<OpenFile>, what: &str) -> Result<FileBody, SaveError> {
        if let Some(number) = self.stdio_number(file) {
            return Ok(FileBody::Stdio { number });
        }
        if let Some(end) = file.ops_as::<PipeFile>() {
            return self.pipe(file, end, what);
        }
        if let Some(event) = file.ops_as::<EventFd>() {
            let (count, semaphore) = event.state();
            return Ok(FileBody::EventFd { count, semaphore });
        }
        if let Some(timer) = file.ops_as::<TimerFd>() {
            let saved = timer.saved();
            return Ok(FileBody::TimerFd {
                clock_id: saved.clock_id,
                next_ns: saved.schedule.next_ns,
                interval_ns: saved.schedule.interval_ns,
                ticks: saved.ticks,
                settime_flags: saved.settime_flags,
            });
        }
        if let Some(signals) = file.ops_as::<SignalFd>() {
            return Ok(FileBody::SignalFd { mask: signals.mask() });
        }
        if let Some(epoll) = file.ops_as::<Epoll>() {
            let mut items = Vec::new();
            for (fd, watched, events, data) in epoll.watched() {
                self.file(&watched, &format!("descriptor {fd}, which {what} watches,"))?;
                items.push((fd, watched.id, events, data));
            }
            return Ok(FileBody::Epoll { items });
        }
        if let Some(socket) = file.ops_as::<SocketFile>() {
            return self.socket(socket, what);
        }
        let device = |wanted| matches!(file.inode.attr(), Ok(attr) if attr.rdev.major == wanted);
        match file.inode.kind {
            FileKind::Regular | FileKind::Directory => {}
            FileKind::CharDevice if device(MEM_MAJOR) => {}
            FileKind::Symlink if file.flags().contains(OpenFlags::PATH) => {}
            _ => {
                let name = file.path.display(&self.container.initial_fs().root());
                let name = String::from_utf8_lossy(&name).into_owned();
                return unsupported(format!("{what} is of a kind that images cannot hold yet: {name}"));
            }
        }
        let root = self.container.initial_fs().root();
        let deny_write = file.denies_write();
        // Of a memfd, not even the mount can be reached.
        if file.inode.kind == FileKind::Regular
            && file.path.text(&root).deleted
            && file.path.mount.root.inode.is_dir()
        {
            self.unnamed.insert(file.inode.id, file.clone());
            return Ok(FileBody::Unnamed { inode: file.inode.id, deny_write });
        }
        let path = self.path(&file.path, what)?;
        Ok(FileBody::Path { path, deny_write })
    }

    fn socket(&mut self, file: &SocketFile, what: &str) -> Result<FileBody, SaveError> {
        let nanos = |write| file.timeout_of(write).and_then(|t| u64::try_from(t.as_nanos()).ok());
        let timeouts = [nanos(false), nanos(true)];
        let ops: &dyn std::any::Any = &*file.ops;
        if let Some(socket) = ops.downcast_ref::<UnixSocket>() {
            self.unix(socket, what)?;
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
            return unsupported(format!("{what} is a netlink socket"));
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

    /// A Unix socket and, with it, its peer.
    fn unix(&mut self, socket: &UnixSocket, what: &str) -> Result<(), SaveError> {
        let id = socket.number();
        if !self.meets(kind::UNIX, id) {
            return Ok(());
        }
        let saved =
            socket.saved().map_err(|why| SaveError::Unsupported(format!("{what}, a Unix socket, {why}")))?;
        let node = saved.node.as_ref().map(|path| self.path(path, "a Unix socket's name")).transpose()?;
        let record = rec::Unix {
            kind: saved.kind,
            name: saved.name,
            node,
            bound: saved.bound,
            listening: saved.listening.map(|backlog| backlog as u64),
            peer: saved.peer.as_ref().map(|peer| peer.number()),
            orphan: saved.orphan,
            shut_read: saved.shutdown.0,
            shut_write: saved.shutdown.1,
            pass_credentials: saved.pass_credentials,
            peer_credentials: saved.peer_credentials,
            messages: saved.messages,
        };
        self.add(kind::UNIX, id, &record)?;
        match saved.peer {
            Some(peer) => self.unix(&peer, what),
            None => Ok(()),
        }
    }

    fn pipe(&mut self, file: &OpenFile, end: &PipeFile, what: &str) -> Result<FileBody, SaveError> {
        if !crate::fs::pipe::is_nameless(&file.inode) {
            return unsupported(format!("{what} is a FIFO"));
        }
        // A pipe has one inode, whose number is unique.
        let id = file.inode.ino;
        if self.meets(kind::PIPE, id) {
            let (slots, buffers) = end.pipe.contents();
            let slots = u32::try_from(slots).unwrap_or(u32::MAX);
            self.add(kind::PIPE, id, &rec::Pipe { slots, buffers })?;
        }
        Ok(FileBody::Pipe { pipe: id, read: end.is_reader(), write: end.is_writer() })
    }
}
