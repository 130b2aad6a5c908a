//! `inotify(7)`: a queue of what happened to watched files.
//!
//! An instance pins what it watches by its dentry, so that a file keeps its inode meanwhile. Equal events in a row are one.
//! A file that is unlinked while it is open is reported as deleted at once, where Linux waits for the last close.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use quicksand_abi::{Errno, UserAddr};

use super::ioctl;
use crate::sync::{Events, Level, Mutex, WaitQueue};
use crate::syscalls::{Fd, SyscallResult};
use crate::task::CurrentTask;
use crate::vfs::notify::{ISDIR, Watcher};
use crate::vfs::perm::{self, Access};
use crate::vfs::walk::{WalkFlags, Walker};
use crate::vfs::{Dentry, FdFlags, FileOps, IoDst, OpenFile, OpenFlags};

const IN_ALL_EVENTS: u32 = 0xfff;
const IN_Q_OVERFLOW: u32 = 0x4000;
const IN_IGNORED: u32 = 0x8000;
const IN_ONLYDIR: u32 = 0x0100_0000;
const IN_DONT_FOLLOW: u32 = 0x0200_0000;
const IN_EXCL_UNLINK: u32 = 0x0400_0000;
const IN_MASK_CREATE: u32 = 0x1000_0000;
const IN_MASK_ADD: u32 = 0x2000_0000;
const IN_ONESHOT: u32 = 0x8000_0000;
/// What `inotify_add_watch` takes (ALL_INOTIFY_BITS); IN_UNMOUNT among them.
const KNOWN: u32 = IN_ALL_EVENTS
    | 0x2000
    | IN_Q_OVERFLOW
    | IN_IGNORED
    | IN_ONLYDIR
    | IN_DONT_FOLLOW
    | IN_EXCL_UNLINK
    | IN_MASK_CREATE
    | IN_MASK_ADD
    | ISDIR
    | IN_ONESHOT;

/// `/proc/sys/fs/inotify/max_queued_events` and `max_user_watches`, the latter for each instance.
const MAX_QUEUED: usize = 16384;
const MAX_WATCHES: usize = 65536;
/// `struct inotify_event` without its name.
const HEADER: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    wd: i32,
    mask: u32,
    cookie: u32,
    /// With its NUL and padding; empty for none.
    name: Vec<u8>,
}

impl Event {
    fn new(wd: i32, mask: u32, cookie: u32, name: &[u8]) -> Event {
        let mut name = name.to_vec();
        if !name.is_empty() {
            name.resize((name.len() + 1).next_multiple_of(HEADER), 0);
        }
        Event { wd, mask, cookie, name }
    }
    fn len(&self) -> usize {
        HEADER + self.name.len()
    }
}

/// What an instance and its watches share.
struct Queue {
    events: Mutex<VecDeque<Event>>,
    readers: Arc<WaitQueue>,
}

impl Queue {
    fn push(&self, event: Event) {
        {
            let mut events = self.events.lock();
            if events.back() == Some(&event) {
                return;
            }
            match events.len() {
                n if n < MAX_QUEUED => events.push_back(event),
                MAX_QUEUED => events.push_back(Event::new(-1, IN_Q_OVERFLOW, 0, b"")),
                _ => return,
            }
        }
        self.readers.notify(Events::READABLE);
    }
}

/// One watched file.
struct Watch {
    wd: i32,
    mask: AtomicU32,
    queue: Arc<Queue>,
    instance: Weak<Instance>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({})", self.wd)
    }
}

impl Watcher for Watch {
    fn event(&self, mask: u32, cookie: u32, name: &[u8]) {
        let wanted = self.mask.load(Ordering::SeqCst);
        if mask & wanted & IN_ALL_EVENTS == 0 {
            return;
        }
        self.queue.push(Event::new(self.wd, mask & (IN_ALL_EVENTS | ISDIR), cookie, name));
        if wanted & IN_ONESHOT != 0
            && let Some(instance) = self.instance.upgrade()
        {
            // Another event may have been first.
            let _ = instance.remove(self.wd);
        }
    }
    fn gone(&self) {
        if let Some(instance) = self.instance.upgrade() {
            let _ = instance.forget(self.wd);
        }
    }
}

/// What is behind an inotify descriptor.
struct Instance {
    queue: Arc<Queue>,
    watches: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    last: i32,
    by_wd: BTreeMap<i32, (Arc<Dentry>, Arc<Watch>)>,
}

impl Instance {
    /// Takes a watch out of the instance; the file may still know it.
    fn forget(&self, wd: i32) -> Result<(Arc<Dentry>, Arc<Watch>), Errno> {
        let taken = self.watches.lock().by_wd.remove(&wd).ok_or(Errno::EINVAL)?;
        self.queue.push(Event::new(wd, IN_IGNORED, 0, b""));
        Ok(taken)
    }
    fn remove(&self, wd: i32) -> Result<(), Errno> {
        let (dentry, watch) = self.forget(wd)?;
        let watch: Arc<dyn Watcher> = watch;
        dentry.inode.watches.remove(&watch);
        Ok(())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        for (_, (dentry, watch)) in std::mem::take(&mut self.watches.get_mut().by_wd) {
            let watch: Arc<dyn Watcher> = watch;
            dentry.inode.watches.remove(&watch);
        }
    }
}

/// The open file.
pub(crate) struct InotifyFile(Arc<Instance>);

/// An instance as data, for checkpoints.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    /// Watch descriptor, mask, cookie, name with its padding.
    pub events: Vec<(i32, u32, u32, Vec<u8>)>,
    pub last: i32,
    /// Watch descriptor, mask, what is watched.
    pub watches: Vec<(i32, u32, Arc<Dentry>)>,
}

impl InotifyFile {
    pub(crate) fn saved(&self) -> Saved {
        let events = self.0.queue.events.lock().clone();
        let watched = self.0.watches.lock();
        let watch = |(wd, (dentry, watch)): (&i32, &(Arc<Dentry>, Arc<Watch>))| {
            (*wd, watch.mask.load(Ordering::SeqCst), dentry.clone())
        };
        Saved {
            events: events.into_iter().map(|e| (e.wd, e.mask, e.cookie, e.name)).collect(),
            last: watched.last,
            watches: watched.by_wd.iter().map(watch).collect(),
        }
    }

    /// An instance from its data. EINVAL where they make no sense.
    pub(crate) fn restored(saved: Saved) -> Result<InotifyFile, Errno> {
        let made = InotifyFile::new();
        let sound = |name: &[u8]| name.len().is_multiple_of(HEADER) && name.len() <= 272;
        if saved.events.len() > MAX_QUEUED + 1
            || saved.watches.len() > MAX_WATCHES
            || !saved.events.iter().all(|(.., name)| sound(name))
        {
            return Err(Errno::EINVAL);
        }
        let event = |(wd, mask, cookie, name)| Event { wd, mask, cookie, name };
        *made.0.queue.events.lock() = saved.events.into_iter().map(event).collect();
        let mut added = Vec::new();
        {
            let mut watched = made.0.watches.lock();
            watched.last = saved.last.max(0);
            for (wd, mask, dentry) in saved.watches {
                let mask = mask & (IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK);
                let watch = Arc::new(Watch {
                    wd,
                    mask: AtomicU32::new(mask),
                    queue: made.0.queue.clone(),
                    instance: Arc::downgrade(&made.0),
                });
                if wd <= 0 || watched.by_wd.insert(wd, (dentry.clone(), watch.clone())).is_some() {
                    return Err(Errno::EINVAL);
                }
                added.push((dentry, watch));
            }
        }
        for (dentry, watch) in added {
            dentry.inode.watches.add(watch);
        }
        Ok(made)
    }

    fn new() -> InotifyFile {
        let queue = Queue { events: Mutex::new(Level::Leaf, VecDeque::new()), readers: WaitQueue::new() };
        let watches = Mutex::new(Level::Leaf, Watched::default());
        InotifyFile(Arc::new(Instance { queue: Arc::new(queue), watches }))
    }
}

impl fmt::Debug for InotifyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InotifyFile")
    }
}

impl FileOps for InotifyFile {
    fn read(&self, _: &OpenFile, _: &CurrentTask, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        let mut taken = Vec::new();
        {
            let mut events = self.0.queue.events.lock();
            let mut room = dst.remaining();
            let first = events.front().ok_or(Errno::EAGAIN)?.len();
            if first > room {
                return Err(Errno::EINVAL);
            }
            while let Some(event) = events.front().filter(|e| e.len() <= room) {
                room -= event.len();
                taken.extend(events.pop_front());
            }
        }
        let mut bytes = Vec::new();
        for event in taken {
            bytes.extend_from_slice(&event.wd.to_ne_bytes());
            bytes.extend_from_slice(&event.mask.to_ne_bytes());
            bytes.extend_from_slice(&event.cookie.to_ne_bytes());
            bytes.extend_from_slice(&(event.name.len() as u32).to_ne_bytes());
            bytes.extend_from_slice(&event.name);
        }
        match dst.put(&bytes)? {
            n if n == bytes.len() => Ok(n),
            _ => Err(Errno::EFAULT),
        }
    }
    fn is_stream(&self) -> bool {
        true
    }
    fn poll(&self, _: &OpenFile, _: &CurrentTask) -> Events {
        if self.0.queue.events.lock().is_empty() { Events::empty() } else { Events::READABLE }
    }
    fn wait_queue(&self, _: &OpenFile) -> Option<Arc<WaitQueue>> {
        Some(self.0.queue.readers.clone())
    }
    fn ioctl(&self, _: &OpenFile, task: &CurrentTask, cmd: u32, arg: u64) -> SyscallResult {
        match cmd {
            ioctl::FIONREAD => {
                let len = self.0.queue.events.lock().iter().map(Event::len).sum();
                ioctl::put_int(task, arg, len)
            }
            _ => Err(Errno::ENOTTY.into()),
        }
    }
    fn fdinfo(&self, _: &OpenFile) -> String {
        let watches: Vec<(i32, u64, u32)> = {
            let watched = self.0.watches.lock();
            let line = |(wd, (dentry, watch)): (&i32, &(Arc<Dentry>, Arc<Watch>))| {
                (*wd, dentry.inode.ino, watch.mask.load(Ordering::SeqCst))
            };
            watched.by_wd.iter().map(line).collect()
        };
        let line = |(wd, ino, mask): &(i32, u64, u32)| {
            format!("inotify wd:{wd:x} ino:{ino:x} sdev:0 mask:{:x} ignored_mask:0 \n", mask & IN_ALL_EVENTS)
        };
        watches.iter().map(line).collect()
    }
}

/// `inotify_init(2)`.
pub fn sys_inotify_init(task: &CurrentTask) -> SyscallResult {
    sys_inotify_init1(task, 0)
}

/// `inotify_init1(2)`.
pub fn sys_inotify_init1(task: &CurrentTask, flags: i32) -> SyscallResult {
    if flags & !(libc::O_NONBLOCK | libc::O_CLOEXEC) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let ops = InotifyFile::new();
    let nonblock = OpenFlags::from_bits_retain((flags & libc::O_NONBLOCK) as u32);
    let file = task.kernel().anon.file("inotify", Box::new(ops), nonblock);
    let cloexec = flags & libc::O_CLOEXEC != 0;
    let fd_flags = if cloexec { FdFlags::CLOEXEC } else { FdFlags::empty() };
    Ok(task.install_fd(file, fd_flags)?.0 as usize)
}

fn instance_of(file: &OpenFile) -> Result<Arc<Instance>, Errno> {
    file.ops_as::<InotifyFile>().map(|f| f.0.clone()).ok_or(Errno::EINVAL)
}

/// `inotify_add_watch(2)`.
pub fn sys_inotify_add_watch(task: &CurrentTask, fd: Fd, path: UserAddr, mask: u32) -> SyscallResult {
    if mask & KNOWN == 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = task.file(fd)?;
    if mask & IN_MASK_ADD != 0 && mask & IN_MASK_CREATE != 0 {
        return Err(Errno::EINVAL.into());
    }
    let instance = instance_of(&file)?;
    let path = task.read_path(path)?;
    let mut flags = WalkFlags::empty();
    flags.set(WalkFlags::FOLLOW, mask & IN_DONT_FOLLOW == 0);
    flags.set(WalkFlags::DIRECTORY, mask & IN_ONLYDIR != 0);
    let place = Walker::new(task, Fd::CWD, &path, flags)?.finish()?;
    let dentry = place.dentry;
    perm::check(&task.creds(), &dentry.inode, Access::READ)?;
    let kept = mask & (IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK);
    let watch = {
        let mut watched = instance.watches.lock();
        let found = watched.by_wd.values().find(|(d, _)| Arc::ptr_eq(&d.inode, &dentry.inode));
        if let Some((_, watch)) = found {
            if mask & IN_MASK_CREATE != 0 {
                return Err(Errno::EEXIST.into());
            }
            let before = if mask & IN_MASK_ADD != 0 { watch.mask.load(Ordering::SeqCst) } else { 0 };
            watch.mask.store(before | kept, Ordering::SeqCst);
            return Ok(watch.wd as usize);
        }
        if watched.by_wd.len() >= MAX_WATCHES {
            return Err(Errno::ENOSPC.into());
        }
        // Ascending, and around after the highest number, past those in use.
        let mut wd = watched.last;
        loop {
            wd = if wd == i32::MAX { 1 } else { wd + 1 };
            if !watched.by_wd.contains_key(&wd) {
                break;
            }
        }
        watched.last = wd;
        let watch = Arc::new(Watch {
            wd,
            mask: AtomicU32::new(kept),
            queue: instance.queue.clone(),
            instance: Arc::downgrade(&instance),
        });
        watched.by_wd.insert(wd, (dentry.clone(), watch.clone()));
        watch
    };
    let wd = watch.wd;
    dentry.inode.watches.add(watch);
    Ok(wd as usize)
}

/// `inotify_rm_watch(2)`.
pub fn sys_inotify_rm_watch(task: &CurrentTask, fd: Fd, wd: i32) -> SyscallResult {
    instance_of(&*task.file(fd)?)?.remove(wd)?;
    Ok(0)
}
