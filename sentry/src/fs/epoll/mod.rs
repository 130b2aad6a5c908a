//! `epoll(7)`.
//!
//! An instance holds items (Linux's `epitem`): interest in an open file under a descriptor number. Each item is registered
//! on the file's wait queue; a notification puts it on the ready list, and waiting looks at the files on that list once
//! more.
//!
//! Invariants:
//! - An item does not keep its file open. Items whose file is gone are ignored, and swept out as new ones are added.
//! - Instances may watch each other, without cycles and at most [`MAX_NESTING`] deep: so notifications and polls nest along a
//!   graph without cycles. Its edges change only under one lock.
//! - `Ready` is shared by the instance and its items, so that a notification needs neither: dropping an instance from
//!   within one cannot happen.

pub mod syscalls;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use quicksand_abi::Errno;
use quicksand_abi::poll::{EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT, EPOLLWAKEUP, EpollEvent};

use crate::sync::{Events, Level, Mutex, Registration, WaitQueue, Wake};
use crate::task::CurrentTask;
use crate::vfs::{FileOps, OpenFile};

/// `EP_MAX_NESTS`
const MAX_NESTING: usize = 4;
/// The bits of an item's events that are not readiness.
const PRIVATE_BITS: u32 = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE;

/// Held while an instance is added to another one, so that no cycle can form from two sides.
static NESTING: Mutex<()> = Mutex::new(Level::EpollNesting, ());

/// An epoll instance.
pub struct Epoll {
    /// By descriptor number and [`OpenFile::id`], as Linux keys them.
    items: Mutex<Items>,
    ready: Arc<Ready>,
    /// Instances that watch this one.
    watchers: Mutex<Vec<Weak<OpenFile>>>,
}

#[derive(Default)]
struct Items {
    map: BTreeMap<(i32, u64), Entry>,
    /// How large the map may grow before items of closed files are swept out.
    sweep_at: usize,
}

struct Entry {
    item: Arc<Item>,
    /// Ends with the entry. Not in the item: that would be a cycle through the queue.
    registration: Registration,
}

struct Item {
    fd: i32,
    file: Weak<OpenFile>,
    /// Readiness asked for, and the private bits.
    events: AtomicU32,
    data: AtomicU64,
    /// On the ready list. Changes under its lock only.
    queued: AtomicBool,
    ready: Arc<Ready>,
}

/// What may be ready.
struct Ready {
    list: Mutex<ReadyList>,
    /// Those who wait for the instance.
    queue: Arc<WaitQueue>,
}

#[derive(Default)]
struct ReadyList {
    items: VecDeque<Arc<Item>>,
    /// The instance is gone: items must not be kept alive by the list.
    closed: bool,
}

impl Ready {
    /// Puts an item at the end. False where it was there already.
    fn push(&self, item: &Arc<Item>) -> bool {
        let mut list = self.list.lock();
        if list.closed || item.queued.swap(true, Ordering::Relaxed) {
            return false;
        }
        list.items.push_back(item.clone());
        true
    }
    fn take_all(&self) -> VecDeque<Arc<Item>> {
        let mut list = self.list.lock();
        for item in &list.items {
            item.queued.store(false, Ordering::Relaxed);
        }
        std::mem::take(&mut list.items)
    }
    /// Puts items back before all others, in their order.
    fn put_back(&self, items: VecDeque<Arc<Item>>) {
        let mut list = self.list.lock();
        for item in items.into_iter().rev() {
            if !list.closed && !item.queued.swap(true, Ordering::Relaxed) {
                list.items.push_front(item);
            }
        }
    }
    fn is_empty(&self) -> bool {
        self.list.lock().items.is_empty()
    }
}

/// What a file's queue wakes.
struct ItemWake(Arc<Item>);

impl Wake for ItemWake {
    fn wake(&self, _: Events) {
        let item = &self.0;
        // A one-shot item that has fired is silent.
        if item.events.load(Ordering::Relaxed) & !PRIVATE_BITS != 0 {
            item.ready.push(item);
            item.ready.queue.notify_nested(Events::READABLE);
        }
    }
}

impl Item {
    fn interest(&self) -> u32 {
        self.events.load(Ordering::Relaxed)
    }
    /// What of the item's interest is ready now.
    fn poll(&self, task: &CurrentTask) -> Option<Events> {
        let file = self.file.upgrade()?;
        let found = file.poll(task) & wanted(self.interest());
        Some(found).filter(|f| !f.is_empty())
    }
}

fn wanted(interest: u32) -> Events {
    match interest & !PRIVATE_BITS {
        0 => Events::empty(),
        bits => Events::from_bits_retain(bits),
    }
}

impl Default for Epoll {
    fn default() -> Epoll {
        Epoll {
            items: Mutex::new(Level::EpollItems, Items::default()),
            ready: Arc::new(Ready {
                list: Mutex::new(Level::Waiter, ReadyList::default()),
                queue: WaitQueue::new(),
            }),
            watchers: Mutex::new(Level::Epoll, Vec::new()),
        }
    }
}

impl Epoll {
    /// EPOLL_CTL_ADD. `own` is this instance's open file.
    pub fn add(
        &self,
        own: &Arc<OpenFile>,
        task: &CurrentTask,
        fd: i32,
        file: &Arc<OpenFile>,
        event: EpollEvent,
    ) -> Result<(), Errno> {
        // Looked at first: a signalfd waits for whoever looked last.
        file.poll(task);
        let queue = file.wait_queue().ok_or(Errno::EPERM)?;
        let nested = file.ops_as::<Epoll>();
        let nesting = nested.map(|_| NESTING.lock());
        if let Some(inner) = nested {
            if self.items.lock().map.contains_key(&(fd, file.id)) {
                return Err(Errno::EEXIST);
            }
            let below = inner.depth_below(own.id, 0);
            if below > MAX_NESTING || below + 1 + self.depth_above(0) > MAX_NESTING {
                return Err(Errno::ELOOP);
            }
            inner.watchers.lock().push(Arc::downgrade(own));
        }
        let item = Arc::new(Item {
            fd,
            file: Arc::downgrade(file),
            events: AtomicU32::new(event.events | (Events::ERR | Events::HUP).bits()),
            data: AtomicU64::new(event.data),
            queued: AtomicBool::new(false),
            ready: self.ready.clone(),
        });
        {
            let mut items = self.items.lock();
            if items.map.contains_key(&(fd, file.id)) {
                return Err(Errno::EEXIST);
            }
            if items.map.len() >= items.sweep_at {
                items.map.retain(|_, entry| entry.item.file.strong_count() > 0);
                items.sweep_at = items.map.len() * 2 + 16;
            }
            let registration = queue.register(wanted(event.events), Arc::new(ItemWake(item.clone())));
            items.map.insert((fd, file.id), Entry { item: item.clone(), registration });
            self.look(task, &item);
        }
        drop(nesting);
        Ok(())
    }

    /// What is watched: descriptor number, open file, events with the private bits, data.
    pub fn watched(&self) -> Vec<(i32, Arc<OpenFile>, u32, u64)> {
        let items = self.items.lock();
        let entry = |entry: &Entry| {
            let item = &entry.item;
            Some((item.fd, item.file.upgrade()?, item.interest(), item.data.load(Ordering::Relaxed)))
        };
        items.map.values().filter_map(entry).collect()
    }

    /// For a restore: watches as [`Epoll::watched`] told. What is ready then is reported, once more perhaps.
    pub fn watch_again(
        &self,
        own: &Arc<OpenFile>,
        task: &CurrentTask,
        fd: i32,
        file: &Arc<OpenFile>,
        event: EpollEvent,
    ) -> Result<(), Errno> {
        self.add(own, task, fd, file, event)?;
        if let Some(entry) = self.items.lock().map.get(&(fd, file.id)) {
            // A one-shot item that has fired waits for nothing.
            entry.item.events.store(event.events, Ordering::Relaxed);
        }
        Ok(())
    }

    /// EPOLL_CTL_MOD.
    pub fn modify(
        &self,
        task: &CurrentTask,
        fd: i32,
        file: &Arc<OpenFile>,
        event: EpollEvent,
    ) -> Result<(), Errno> {
        file.poll(task);
        let queue = file.wait_queue().ok_or(Errno::EPERM)?;
        let mut items = self.items.lock();
        let entry = items.map.get_mut(&(fd, file.id)).ok_or(Errno::ENOENT)?;
        if entry.item.interest() & EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        let events = event.events | (Events::ERR | Events::HUP).bits();
        entry.item.events.store(events, Ordering::Relaxed);
        entry.item.data.store(event.data, Ordering::Relaxed);
        entry.registration = queue.register(wanted(event.events), Arc::new(ItemWake(entry.item.clone())));
        let item = entry.item.clone();
        self.look(task, &item);
        Ok(())
    }

    /// EPOLL_CTL_DEL.
    pub fn remove(&self, own: &Arc<OpenFile>, fd: i32, file: &Arc<OpenFile>) -> Result<(), Errno> {
        let entry = self.items.lock().map.remove(&(fd, file.id)).ok_or(Errno::ENOENT)?;
        entry.item.events.store(0, Ordering::Relaxed);
        if let Some(inner) = file.ops_as::<Epoll>() {
            let mut watchers = inner.watchers.lock();
            if let Some(at) = watchers.iter().position(|w| w.as_ptr() == Arc::as_ptr(own)) {
                watchers.swap_remove(at);
            }
        }
        Ok(())
    }

    /// Puts a new or changed item on the ready list if its file is ready now.
    fn look(&self, task: &CurrentTask, item: &Arc<Item>) {
        if item.poll(task).is_some() && self.ready.push(item) {
            self.ready.queue.notify(Events::READABLE);
        }
    }

    /// Before saying that nothing is ready: what the host knows of its descriptors may not have been told yet.
    fn catch_up(&self) {
        if self.ready.is_empty() {
            crate::host_poll::drain();
        }
    }

    /// Up to `max` events that are ready. Level-triggered items stay on the list. What `deliver` refuses stays, too.
    pub fn collect(
        &self,
        task: &CurrentTask,
        max: usize,
        mut deliver: impl FnMut(usize, EpollEvent) -> Result<(), Errno>,
    ) -> Result<usize, Errno> {
        let mut count = 0;
        let mut failed = None;
        let _items = self.items.lock();
        self.catch_up();
        let mut pending = self.ready.take_all();
        while count < max
            && let Some(item) = pending.pop_front()
        {
            let Some(found) = item.poll(task) else { continue };
            let event = EpollEvent { events: found.bits(), data: item.data.load(Ordering::Relaxed) };
            if let Err(e) = deliver(count, event) {
                pending.push_front(item);
                failed = Some(e);
                break;
            }
            count += 1;
            let interest = item.interest();
            if interest & EPOLLONESHOT != 0 {
                item.events.store(interest & PRIVATE_BITS, Ordering::Relaxed);
            } else if interest & EPOLLET == 0 {
                self.ready.push(&item);
            }
        }
        self.ready.put_back(pending);
        if !self.ready.is_empty() {
            // Others who wait may find the level-triggered rest.
            self.ready.queue.notify(Events::READABLE);
        }
        match failed {
            Some(e) if count == 0 => Err(e),
            _ => Ok(count),
        }
    }

    /// How deep instances nest below this one; more than [`MAX_NESTING`] where that is too deep or leads to `target`.
    fn depth_below(&self, target: u64, depth: usize) -> usize {
        if depth > MAX_NESTING {
            return MAX_NESTING + 1;
        }
        let children: Vec<_> = {
            let items = self.items.lock();
            items.map.values().filter_map(|e| e.item.file.upgrade()).collect()
        };
        let mut deepest = 0;
        for child in children {
            if child.id == target {
                return MAX_NESTING + 1;
            }
            if let Some(inner) = child.ops_as::<Epoll>() {
                deepest = deepest.max(inner.depth_below(target, depth + 1) + 1);
            }
        }
        deepest
    }

    /// How deep instances nest above this one.
    fn depth_above(&self, depth: usize) -> usize {
        if depth > MAX_NESTING {
            return MAX_NESTING + 1;
        }
        let watchers: Vec<_> = {
            let mut watchers = self.watchers.lock();
            watchers.retain(|w| w.strong_count() > 0);
            watchers.iter().filter_map(Weak::upgrade).collect()
        };
        let above = watchers.iter().filter_map(|file| file.ops_as::<Epoll>());
        above.map(|outer| outer.depth_above(depth + 1) + 1).max().unwrap_or(0)
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        let list = {
            let mut list = self.ready.list.lock();
            list.closed = true;
            std::mem::take(&mut list.items)
        };
        drop(list);
    }
}

impl FileOps for Epoll {
    /// Readable when an item is ready, by looking at the files on the ready list (`ep_eventpoll_poll`).
    fn poll(&self, _: &OpenFile, task: &CurrentTask) -> Events {
        // Second: the instance that watches this one may be looking. The graph has no cycles.
        let _items = self.items.lock_second();
        self.catch_up();
        let mut pending = self.ready.take_all();
        while let Some(first) = pending.front() {
            if first.poll(task).is_some() {
                break;
            }
            pending.pop_front();
        }
        let events = if pending.is_empty() { Events::empty() } else { Events::READABLE };
        self.ready.put_back(pending);
        events
    }

    fn wait_queue(&self, _: &OpenFile) -> Option<Arc<WaitQueue>> {
        Some(self.ready.queue.clone())
    }

    fn is_stream(&self) -> bool {
        true
    }
    fn seek(&self, _: &OpenFile, _: crate::vfs::SeekFrom) -> Result<u64, Errno> {
        Ok(0)
    }

    fn fdinfo(&self, _: &OpenFile) -> String {
        let mut out = String::new();
        let entries: Vec<_> = {
            let items = self.items.lock();
            items.map.values().map(|e| e.item.clone()).collect()
        };
        for item in entries {
            let Some(file) = item.file.upgrade() else { continue };
            let (events, data) = (item.interest(), item.data.load(Ordering::Relaxed));
            let (pos, ino, dev) = (*file.offset.lock(), file.inode.ino, file.inode.sb.dev.encode());
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "tfd: {:8} events: {events:8x} data: {data:16x}  pos:{pos} ino:{ino:x} sdev:{dev:x}",
                item.fd
            );
        }
        out
    }
}

impl fmt::Debug for Epoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Epoll")
    }
}
