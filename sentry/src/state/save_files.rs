//! What descriptors lead to, as records.

use std::sync::Arc;

use super::records::{self as rec, FileBody, kind};
use super::save::{SaveError, Saver, creds, unsupported};
use crate::fs::epoll::Epoll;
use crate::fs::eventfd::EventFd;
use crate::fs::inotify::InotifyFile;
use crate::fs::pipe::PipeFile;
use crate::fs::signalfd::SignalFd;
use crate::fs::timerfd::TimerFd;
use crate::fs::tmpfs::memfd;
use crate::net::socket::SocketFile;
use crate::vfs::locks::LockOwner;
use crate::vfs::{FileKind, OpenFile, OpenFlags, Path};

/// Pipes that are FIFOs are numbered from here: nameless ones have lower numbers.
const FIRST_FIFO: u64 = 1 << 62;

/// Major numbers of character devices that are memory (`/dev/null` and its like): they have no state.
const MEM_MAJOR: u32 = 1;

impl Saver<'_> {
    /// An open file, where it is met for the first time. `what` names it in an error.
    pub(super) fn file(&mut self, file: &Arc<OpenFile>, what: &str) -> Result<(), SaveError> {
        if !self.meets(kind::FILE, file.id) {
            return Ok(());
        }
        let (flocks, records) = file.inode.locks.get().map(|locks| locks.held()).unwrap_or_default();
        let flock = flocks.iter().find(|lock| lock.file == file.id).map(|lock| (lock.exclusive, lock.pid));
        let own = records.iter().filter(|lock| lock.owner == LockOwner::File(file.id));
        let locks = own.map(|lock| (lock.start, lock.end, lock.exclusive)).collect();
        let body = self.file_body(file, what)?;
        let offset = *file.offset.lock();
        let signals = file.saved_signals().map(|saved| rec::FileSignals {
            pid: saved.pid,
            thread: saved.thread,
            signal: saved.signal,
            setter: saved.setter.as_deref().map(creds),
            on: saved.on,
            urgent: saved.urgent,
            full: saved.full,
        });
        let record = rec::File { flags: file.flags().bits(), offset, flock, locks, signals, body };
        self.add(kind::FILE, file.id, &record)
    }

    fn file_body(&mut self, file: &Arc<OpenFile>, what: &str) -> Result<FileBody, SaveError> {
        if let Some(number) = self.stdio_number(file) {
            return Ok(FileBody::Stdio { number, console: self.container.console().is_some() });
        }
        if let Some(end) = file.ops_as::<PipeFile>() {
            return self.pipe(file, end);
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
        if let Some(watches) = file.ops_as::<InotifyFile>() {
            return self.inotify(watches, what);
        }
        if let Some(group) = file.pidfd_group() {
            let pid = group.pid();
            let same = self.container.pids.group(pid).is_some_and(|there| Arc::ptr_eq(&there, &group));
            return Ok(FileBody::PidFd { pid: if same { pid } else { 0 } });
        }
        if let Some(body) = self.terminal(file, what)? {
            return Ok(body);
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
        if memfd::seals_of(&file.inode).is_some() {
            let writer = file.counts_as_writer();
            self.memfds.entry(file.inode.id).or_insert_with(|| file.clone());
            return Ok(FileBody::Memfd { memfd: file.inode.id, writer, deny_write });
        }
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

    fn inotify(&mut self, file: &InotifyFile, what: &str) -> Result<FileBody, SaveError> {
        let saved = file.saved();
        let root = self.container.initial_fs().root();
        let mut watches = Vec::new();
        for (wd, mask, dentry) in saved.watches {
            // Through any mount: a watch knows only the file.
            let mounts = self.container.initial_fs().namespace().mounts();
            let texts = mounts
                .iter()
                .filter(|m| Arc::ptr_eq(&m.root.inode.sb, &dentry.inode.sb))
                .map(|mount| Path::new(mount.clone(), dentry.clone()).text(&root));
            let mut found = texts.filter(|t| t.reachable && !t.deleted && t.text.starts_with(b"/"));
            let Some(text) = found.next() else {
                return unsupported(format!("{what} watches a file that cannot be reached by a path"));
            };
            watches.push((wd, mask, text.text));
        }
        Ok(FileBody::Inotify { events: saved.events, last: saved.last, watches })
    }

    fn pipe(&mut self, file: &OpenFile, end: &PipeFile) -> Result<FileBody, SaveError> {
        let named = !crate::fs::pipe::is_nameless(&file.inode);
        // A pipe has one inode, whose number is unique.
        let id = if named { FIRST_FIFO + file.inode.id } else { file.inode.ino };
        if self.meets(kind::PIPE, id) {
            let (slots, buffers) = end.pipe.contents();
            let slots = u32::try_from(slots).unwrap_or(u32::MAX);
            self.add(kind::PIPE, id, &rec::Pipe { slots, buffers })?;
        }
        let (read, write) = (end.is_reader(), end.is_writer());
        if !named {
            return Ok(FileBody::Pipe { pipe: id, read, write });
        }
        let text = file.path.text(&self.container.initial_fs().root());
        let there = text.reachable && !text.deleted && text.text.starts_with(b"/");
        let path = there.then_some(text.text);
        Ok(FileBody::Fifo { pipe: id, path, read, write, no_hup: end.shows_no_hup() })
    }
}
