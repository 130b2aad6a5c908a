//! Open files from their records: each is made when it is first asked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use quicksand_abi::Errno;
use quicksand_abi::poll::EpollEvent;
use quicksand_checkpoint::Image;

use super::records::{self as rec, FileBody, kind};
use super::restore::RestoreError;
use crate::fs::epoll::Epoll;
use crate::fs::eventfd::EventFd;
use crate::fs::host::HostTty;
use crate::fs::inotify::{self, InotifyFile};
use crate::fs::pipe::{self, Pipe};
use crate::fs::signalfd::SignalFd;
use crate::fs::timerfd::{self, TimerFd};
use crate::fs::tmpfs::memfd;
use crate::fs::tty::RestoredPty;
use crate::kernel::Container;
use crate::net::host::DeadSocket;
use crate::net::lambda::socket::ApiSocket;
use crate::net::socket::SocketOps;
use crate::net::unix::{self, UnixSocket};
use crate::syscalls::SyscallError;
use crate::task::{CurrentTask, ThreadGroup};
use crate::time::timer::Schedule;
use crate::vfs::locks::{self, Flock, LockOwner, Record};
use crate::vfs::walk::{WalkFlags, lookup_in};
use crate::vfs::{FileKind, Inode, OpenFile, OpenFlags, Path, SavedSignals};

/// The open files of a container that is being restored.
pub(super) struct Files<'a> {
    pub(super) container: &'a Arc<Container>,
    pub(super) image: &'a Image,
    /// In whose name files are opened: what they may do was decided when they were first opened.
    pub(super) task: &'a CurrentTask,
    groups: &'a BTreeMap<i32, Arc<ThreadGroup>>,
    pub(super) stdio: [Arc<OpenFile>; 3],
    made: HashMap<u64, Arc<OpenFile>>,
    /// Files that were the container's terminal as all standard streams.
    consoles: HashSet<u64>,
    pipes: HashMap<u64, (Arc<Pipe>, Arc<Inode>)>,
    unnamed: HashMap<u64, Path>,
    /// With the seals that they are to have.
    memfds: HashMap<u64, (Path, u32)>,
    pub(super) ptys: HashMap<u64, RestoredPty>,
    /// Pairs whose master is open.
    pub(super) masters: HashSet<u64>,
    pub(super) unix: HashMap<u64, Arc<UnixSocket>>,
    /// Unix sockets that lead nowhere yet.
    pub(super) to_link: Vec<(Arc<UnixSocket>, unix::Saved, rec::Unix)>,
    /// Epoll instances that do not watch anything yet: what they watch may be, or lead to, themselves.
    to_watch: Vec<(Arc<OpenFile>, Vec<rec::Watched>)>,
}

/// What the container is given in the place of what it had.
pub(super) struct Given<'a> {
    pub stdio: [OwnedFd; 3],
    /// The standard streams are one terminal, which is to be the container's.
    pub terminal: bool,
    /// The terminal that the image's container had.
    pub console: Option<&'a rec::Console>,
}

impl<'a> Files<'a> {
    pub(super) fn new(
        container: &'a Arc<Container>,
        image: &'a Image,
        given: Given<'_>,
        task: &'a CurrentTask,
        groups: &'a BTreeMap<i32, Arc<ThreadGroup>>,
    ) -> Result<Files<'a>, RestoreError> {
        let import = |fd| crate::fs::host::import(&container.kernel, fd).map_err(RestoreError::Stdio);
        let [input, output, error] = given.stdio;
        let stdio = match container.devpts().filter(|_| given.terminal) {
            Some(devpts) => {
                let mut highest = 0;
                for id in super::restore::ids(image, kind::PTY)? {
                    let pty: rec::Pty = image.records(kind::PTY)?.read(id)?;
                    highest = highest.max(pty.index.saturating_add(1));
                }
                let file =
                    super::terminals::import_console(container, &devpts, input, given.console, highest)?;
                [file.clone(), file.clone(), file]
            }
            None => [import(input)?, import(output)?, import(error)?],
        };
        let console = stdio.iter().find_map(|file| file.ops_as::<HostTty>().map(HostTty::terminal_id));
        container.set_stdio(stdio.clone().map(Some), console);
        Ok(Files {
            container,
            image,
            task,
            groups,
            stdio,
            made: HashMap::new(),
            consoles: HashSet::new(),
            pipes: HashMap::new(),
            unnamed: HashMap::new(),
            memfds: HashMap::new(),
            ptys: HashMap::new(),
            masters: HashSet::new(),
            unix: HashMap::new(),
            to_link: Vec::new(),
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
        if let FileBody::Stdio { console: true, .. } = record.body {
            self.consoles.insert(id);
        }
        if let Some(signals) = &record.signals {
            let saved = SavedSignals {
                pid: signals.pid,
                thread: signals.thread,
                signal: signals.signal.clamp(0, quicksand_abi::signal::NSIG),
                setter: signals.setter.as_ref().map(|setter| Arc::new(super::restore::creds(setter))),
                on: signals.on,
                urgent: signals.urgent,
                full: signals.full,
            };
            file.restore_signals(&self.container.pids, saved);
        }
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
            FileBody::Stdio { number, .. } => {
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
            FileBody::Console { path } => self.console(path, flags),
            FileBody::Terminal { pty, master, path } => self.terminal(*pty, *master, path.as_deref(), flags),
            FileBody::Fifo { pipe, path, read, write, no_hup } => {
                self.fifo(*pipe, path.as_deref(), (*read, *write), *no_hup, flags)
            }
            FileBody::Memfd { memfd, writer, deny_write } => {
                let file = memfd::reopen(self.memfd(*memfd)?, flags);
                let held = match (*writer, *deny_write) {
                    (true, false) => file.hold_write_access(),
                    (false, true) => file.hold_deny_write(),
                    (false, false) => Ok(()),
                    (true, true) => Err(Errno::EINVAL),
                };
                held.map_err(|_| wrong("a memfd that is written and executed"))?;
                *file.offset.lock() = record.offset;
                Ok(file)
            }
            FileBody::Inotify { events, last, watches } => {
                let root = self.container.initial_fs().root();
                let mut found = Vec::new();
                for (wd, mask, path) in watches {
                    let shown = String::from_utf8_lossy(path);
                    let place = lookup_in(&root, path, WalkFlags::empty())
                        .map_err(|errno| RestoreError::Gone(format!("{shown} ({errno})")))?;
                    found.push((*wd, *mask, place.dentry));
                }
                let saved = inotify::Saved { events: events.clone(), last: *last, watches: found };
                let ops = InotifyFile::restored(saved).map_err(|_| wrong("what it watches"))?;
                Ok(self.container.kernel.anon.file("inotify", Box::new(ops), flags))
            }
            FileBody::PidFd { pid } => {
                let group = match *pid {
                    0 => self.reaped(),
                    pid => self.groups.get(&pid).cloned().ok_or_else(|| wrong("a process"))?,
                };
                let nonblocking = flags.contains(OpenFlags::NONBLOCK);
                Ok(crate::task::pidfd::new_file(&self.container.kernel, &group, nonblocking))
            }
            FileBody::Netlink { socket, timeouts } => {
                let ops = self.netlink(socket)?;
                Ok(self.socket(ops, flags, timeouts))
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
        while self.link_socket()? {}
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
            while self.link_socket()? {}
        }
        Ok(())
    }

    /// The open file that is to have the descriptor `fd`. Of a terminal that was all three standard streams, those are left where the
    /// container has no terminal now.
    pub(super) fn get_as(&mut self, fd: i32, id: u64) -> Result<Arc<OpenFile>, RestoreError> {
        let file = self.get(id)?;
        if self.consoles.contains(&id)
            && self.container.console().is_none()
            && let Some(stream) = usize::try_from(fd).ok().and_then(|fd| self.stdio.get(fd))
        {
            return Ok(stream.clone());
        }
        Ok(file)
    }

    /// Gives memfds their seals. Called when all mappings are there.
    pub(super) fn seal(&mut self) {
        for (place, seals) in self.memfds.values() {
            memfd::set_seals(&place.dentry.inode, *seals);
        }
    }

    fn memfd(&mut self, id: u64) -> Result<Path, RestoreError> {
        if let Some((known, _)) = self.memfds.get(&id) {
            return Ok(known.clone());
        }
        let record: rec::Memfd = self.image.records(kind::MEMFD)?.read(id)?;
        let place = super::trees::restore_memfd(id, &record, self.image)?;
        self.memfds.insert(id, (place.clone(), record.seals));
        Ok(place)
    }

    /// What a pidfd stands for whose process is gone.
    fn reaped(&self) -> Arc<ThreadGroup> {
        let (actions, limits) = (Arc::default(), crate::task::Rlimits::default());
        let pids = self.container.pids.clone();
        let group = ThreadGroup::new(self.container.kernel.next_id(), 0, pids, actions, limits);
        group.state.lock().dead = true;
        group
    }

    fn fifo(
        &mut self,
        id: u64,
        path: Option<&[u8]>,
        ends: (bool, bool),
        no_hup: bool,
        flags: OpenFlags,
    ) -> Result<Arc<OpenFile>, RestoreError> {
        let Some(path) = path else {
            // It has no name that anybody could open it by.
            let (pipe, inode) = self.pipe(id)?;
            return Ok(pipe::syscalls::restored_end(&pipe, &inode, ends, flags));
        };
        let shown = String::from_utf8_lossy(path);
        let place = lookup_in(&self.container.initial_fs().root(), path, WalkFlags::empty())
            .map_err(|errno| RestoreError::Gone(format!("{shown} ({errno})")))?;
        let inode = place.dentry.inode.clone();
        if inode.kind != FileKind::Fifo {
            return Err(RestoreError::Gone(format!("{shown} (another kind of file is there now)")));
        }
        let first = !self.pipes.contains_key(&id);
        let (pipe, _) = self.pipe(id)?;
        if first {
            self.container.kernel.fifos.adopt(&inode, &pipe);
            self.pipes.insert(id, (pipe.clone(), inode));
        }
        Ok(OpenFile::new(place, pipe::restored_ops(&pipe, ends, no_hup), flags))
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
