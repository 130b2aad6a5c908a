//! Open files from their records: each is made when it is first asked for.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use quicksand_abi::Errno;
use quicksand_abi::poll::EpollEvent;
use quicksand_checkpoint::Image;

use super::records::{self as rec, FileBody, kind};
use super::restore::RestoreError;
use crate::fs::epoll::Epoll;
use crate::fs::eventfd::EventFd;
use crate::fs::pipe::{self, Pipe};
use crate::fs::signalfd::SignalFd;
use crate::fs::timerfd::{self, TimerFd};
use crate::kernel::Container;
use crate::net::host::{self, DeadSocket, HostSocket};
use crate::net::lambda::socket::ApiSocket;
use crate::net::socket::{SocketFile, SocketOps};
use crate::net::unix::{self, UnixSocket};
use crate::syscalls::SyscallError;
use crate::task::CurrentTask;
use crate::time::timer::Schedule;
use crate::vfs::locks::{self, Flock, LockOwner, Record};
use crate::vfs::walk::{WalkFlags, lookup_in};
use crate::vfs::{FileKind, Inode, OpenFile, OpenFlags, Path};

/// The open files of a container that is being restored.
pub(super) struct Files<'a> {
    container: &'a Arc<Container>,
    image: &'a Image,
    /// In whose name files are opened: what they may do was decided when they were first opened.
    task: &'a CurrentTask,
    stdio: [Arc<OpenFile>; 3],
    made: HashMap<u64, Arc<OpenFile>>,
    pipes: HashMap<u64, (Arc<Pipe>, Arc<Inode>)>,
    unnamed: HashMap<u64, Path>,
    unix: HashMap<u64, Arc<UnixSocket>>,
    /// Epoll instances that do not watch anything yet: what they watch may be, or lead to, themselves.
    to_watch: Vec<(Arc<OpenFile>, Vec<rec::Watched>)>,
}

impl<'a> Files<'a> {
    pub(super) fn new(
        container: &'a Arc<Container>,
        image: &'a Image,
        stdio: [OwnedFd; 3],
        task: &'a CurrentTask,
    ) -> Result<Files<'a>, RestoreError> {
        let import = |fd| crate::fs::host::import(&container.kernel, fd).map_err(RestoreError::Stdio);
        let [input, output, error] = stdio;
        let stdio = [import(input)?, import(output)?, import(error)?];
        container.set_stdio([&stdio[0], &stdio[1], &stdio[2]]);
        Ok(Files {
            container,
            image,
            task,
            stdio,
            made: HashMap::new(),
            pipes: HashMap::new(),
            unnamed: HashMap::new(),
            unix: HashMap::new(),
            to_watch: Vec::new(),
        })
    }

    /// The open file that had the number `id`.
    pub(super) fn get(&mut self, id: u64) -> Result<Arc<OpenFile>, RestoreError> {
        if let Some(file) = self.made.get(&id) {
            return Ok(file.clone());
        }
        let record: rec::File = self.image.records(kind::FILE)?.read(id)?;
        let file = self.make(id, &record)?;
        if let Some((exclusive, pid)) = record.flock {
            locks::of(&file.inode).put_back(Some(Flock { file: file.id, exclusive, pid }), None);
        }
        for (start, end, exclusive) in &record.locks {
            let (owner, start, end, exclusive) = (LockOwner::File(file.id), *start, *end, *exclusive);
            super::restore::put_back(&file, Record { owner, start, end, exclusive, pid: -1 })?;
        }
        self.made.insert(id, file.clone());
        Ok(file)
    }

    fn make(&mut self, id: u64, record: &rec::File) -> Result<Arc<OpenFile>, RestoreError> {
        let wrong = |what: &str| RestoreError::Record(format!("open file {id}: {what}"));
        let flags = OpenFlags::from_bits_truncate(record.flags);
        match &record.body {
            FileBody::Stdio { number } => {
                self.stdio.get(usize::from(*number)).cloned().ok_or_else(|| wrong("a standard stream"))
            }
            FileBody::Path { path, deny_write } => {
                let file = self.reopen(path, flags, *deny_write)?;
                *file.offset.lock() = record.offset;
                Ok(file)
            }
            FileBody::Unnamed { inode, deny_write } => {
                let place = match self.unnamed.get(inode) {
                    Some(place) => place.clone(),
                    None => {
                        let record: rec::Unnamed = self.image.records(kind::UNNAMED)?.read(*inode)?;
                        let place = super::trees::restore_unnamed(self.container, &record, self.image)?;
                        self.unnamed.insert(*inode, place.clone());
                        place
                    }
                };
                let file = crate::vfs::reopen(self.task, place, flags, *deny_write)
                    .map_err(|_| wrong("a removed file"))?;
                *file.offset.lock() = record.offset;
                Ok(file)
            }
            FileBody::Pipe { pipe, read, write } => {
                let (pipe, inode) = self.pipe(*pipe)?;
                Ok(pipe::syscalls::restored_end(&pipe, &inode, (*read, *write), flags))
            }
            FileBody::EventFd { count, semaphore } => {
                let kernel = &self.container.kernel;
                let ops = Box::new(EventFd::restored(kernel, *count, *semaphore));
                Ok(kernel.anon.file("eventfd", ops, flags))
            }
            FileBody::TimerFd { clock_id, next_ns, interval_ns, ticks, settime_flags } => {
                let kernel = &self.container.kernel;
                let schedule = Schedule { next_ns: *next_ns, interval_ns: (*interval_ns).max(0) };
                let (clock_id, ticks, settime_flags) = (*clock_id, *ticks, *settime_flags);
                let saved = timerfd::Saved { clock_id, schedule, ticks, settime_flags };
                let ops = TimerFd::restored(kernel, &saved).map_err(|_| wrong("a timer's clock"))?;
                Ok(kernel.anon.file("timerfd", Box::new(ops), flags))
            }
            FileBody::SignalFd { mask } => {
                let ops = Box::new(SignalFd::new(*mask));
                Ok(self.container.kernel.anon.file("signalfd", ops, flags))
            }
            FileBody::Epoll { items } => {
                let ops = Box::new(Epoll::default());
                let file = self.container.kernel.anon.file("eventpoll", ops, flags);
                self.to_watch.push((file.clone(), items.clone()));
                Ok(file)
            }
            FileBody::Unix { socket, timeouts } => {
                let ops = self.unix(*socket)?;
                Ok(self.socket(ops, flags, timeouts))
            }
            FileBody::Inet { socket, timeouts } => {
                let ops: Arc<dyn SocketOps> = match socket.reset {
                    true => {
                        Arc::new(DeadSocket::new(socket.family, socket.local.clone().unwrap_or_default()))
                    }
                    false => crate::net::lambda::socket::wrap(self.task, self.inet(socket)?),
                };
                Ok(self.socket(ops, flags, timeouts))
            }
            FileBody::Lambda { connection, socket, timeouts } => {
                let host = self.inet(socket)?;
                let api = self.container.runtime_api().cloned();
                let socket = api.and_then(|api| ApiSocket::restored(api, host, *connection));
                let socket = socket.ok_or_else(|| wrong("its connection to the Runtime API"))?;
                Ok(self.socket(Arc::new(socket), flags, timeouts))
            }
        }
    }

    /// Lets epoll instances watch again. Called when no file is being made.
    pub(super) fn watch(&mut self) -> Result<(), RestoreError> {
        while let Some((own, items)) = self.to_watch.pop() {
            for (fd, id, events, data) in items {
                let file = self.get(id)?;
                let epoll = own.ops_as::<Epoll>();
                let event = EpollEvent { events, data };
                let watched =
                    epoll.map_or(Err(Errno::EINVAL), |e| e.watch_again(&own, self.task, fd, &file, event));
                watched
                    .map_err(|_| RestoreError::Record(format!("what an epoll instance watches as {fd}")))?;
            }
        }
        Ok(())
    }

    fn socket(
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

    fn inet(&self, record: &rec::Inet) -> Result<Arc<dyn SocketOps>, RestoreError> {
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

    /// A Unix socket and, with it, its peer.
    fn unix(&mut self, id: u64) -> Result<Arc<UnixSocket>, RestoreError> {
        if let Some(known) = self.unix.get(&id) {
            return Ok(known.clone());
        }
        let record: rec::Unix = self.image.records(kind::UNIX)?.read(id)?;
        let failed = |errno: Errno| RestoreError::Socket(format!("Unix socket {id} ({errno})"));
        let root = self.container.initial_fs().root();
        let node = record.node.as_ref().map(|path| lookup_in(&root, path, WalkFlags::empty()));
        let saved = unix::Saved {
            kind: record.kind,
            name: record.name,
            node: node.transpose().map_err(failed)?,
            bound: record.bound,
            listening: record.listening.map(|backlog| usize::try_from(backlog).unwrap_or(0)),
            peer: None,
            orphan: record.orphan,
            shutdown: (record.shut_read, record.shut_write),
            pass_credentials: record.pass_credentials,
            peer_credentials: record.peer_credentials,
            messages: record.messages,
        };
        let socket = UnixSocket::restored(self.task, &saved).map_err(failed)?;
        self.unix.insert(id, socket.clone());
        // Each end leads to the other, and is known by now.
        let peer = record.peer.map(|peer| self.unix(peer)).transpose()?;
        socket.restore_peer(self.task, peer, &saved).map_err(failed)?;
        Ok(socket)
    }

    fn reopen(&self, path: &[u8], flags: OpenFlags, deny_write: bool) -> Result<Arc<OpenFile>, RestoreError> {
        let shown = String::from_utf8_lossy(path);
        let root = self.container.initial_fs().root();
        let place = lookup_in(&root, path, WalkFlags::empty())
            .map_err(|errno| RestoreError::Gone(format!("{shown} ({errno})")))?;
        let kind = place.dentry.inode.kind;
        let openable = matches!(kind, FileKind::Regular | FileKind::Directory | FileKind::CharDevice);
        if !openable && !flags.contains(OpenFlags::PATH) {
            return Err(RestoreError::Gone(format!("{shown} (another kind of file is there now)")));
        }
        crate::vfs::reopen(self.task, place, flags, deny_write).map_err(|error| match error {
            SyscallError::Errno(errno) => RestoreError::Gone(format!("{shown} ({errno})")),
            _ => RestoreError::Gone(format!("{shown} (it cannot be opened at once)")),
        })
    }

    fn pipe(&mut self, id: u64) -> Result<(Arc<Pipe>, Arc<Inode>), RestoreError> {
        if let Some(known) = self.pipes.get(&id) {
            return Ok(known.clone());
        }
        let record: rec::Pipe = self.image.records(kind::PIPE)?.read(id)?;
        let pipe = Pipe::restored(record.slots as usize, record.buffers)
            .map_err(|_| RestoreError::Record(format!("pipe {id}")))?;
        let inode = pipe::syscalls::restored_inode(self.task, &pipe);
        self.pipes.insert(id, (pipe.clone(), inode.clone()));
        Ok((pipe, inode))
    }
}
