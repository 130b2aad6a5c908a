//! Advisory file locks: `flock(2)`, POSIX record locks and open file description locks (`fcntl_locking(2)`).
//!
//! An inode's locks are made by its first lock. A lock belongs to an owner: `flock` and OFD locks to an open file, POSIX
//! locks to a descriptor table (Linux's `files_struct`). Waiting is on the inode's queue. POSIX locks look for
//! deadlocks: [`Waits`] knows which table waits for which.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use quicksand_abi::Errno;

use super::inode::Inode;
use crate::sync::{Events, Level, Mutex, WaitQueue};
use crate::task::Task;

/// The last byte a lock can cover (`OFFSET_MAX`).
pub const LAST: u64 = i64::MAX as u64;
/// How far a chain of waiting tables is followed (`MAX_DEADLK_ITERATIONS`).
const MAX_CHAIN: usize = 10;

/// Whose a record lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockOwner {
    /// POSIX: a descriptor table.
    Table(u64),
    /// OFD: an open file.
    File(u64),
}

/// A record lock: bytes `start..=end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub owner: LockOwner,
    pub start: u64,
    pub end: u64,
    pub exclusive: bool,
    /// The process that set it; -1 for OFD locks.
    pub pid: i32,
}

impl Record {
    fn overlaps(&self, other: &Record) -> bool {
        self.start <= other.end && other.start <= self.end
    }
    fn conflicts(&self, other: &Record) -> bool {
        self.owner != other.owner && (self.exclusive || other.exclusive) && self.overlaps(other)
    }
}

/// A whole-file lock of `flock(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flock {
    /// The open file's id.
    pub file: u64,
    pub exclusive: bool,
    pub pid: i32,
}

/// The locks of one inode.
#[derive(Debug)]
pub struct FileLocks {
    inner: Mutex<Inner>,
    queue: Arc<WaitQueue>,
}

#[derive(Debug, Default)]
struct Inner {
    flocks: Vec<Flock>,
    /// Sorted by owner and start; an owner's do not overlap.
    records: Vec<Record>,
}

impl Default for FileLocks {
    fn default() -> FileLocks {
        FileLocks { inner: Mutex::new(Level::FileLocks, Inner::default()), queue: WaitQueue::new() }
    }
}

impl FileLocks {
    /// All that are held.
    pub fn held(&self) -> (Vec<Flock>, Vec<Record>) {
        let inner = self.inner.lock();
        (inner.flocks.clone(), inner.records.clone())
    }
    /// For a restore: locks that were held, which never conflict.
    pub(crate) fn put_back(&self, flock: Option<Flock>, record: Option<Record>) {
        let mut inner = self.inner.lock();
        inner.flocks.extend(flock);
        inner.records.extend(record);
        let owner = |record: &Record| match record.owner {
            LockOwner::Table(id) => (0, id),
            LockOwner::File(id) => (1, id),
        };
        inner.records.sort_by_key(|record| (owner(record), record.start));
    }
}

/// The locks of an inode, made now where it has none yet.
pub fn of(inode: &Inode) -> &FileLocks {
    inode.locks.get_or_init(Box::default)
}

impl FileLocks {
    /// Notified when a lock is given up.
    pub fn queue(&self) -> &Arc<WaitQueue> {
        &self.queue
    }
    fn changed(&self) {
        self.queue.notify(Events::all());
    }

    /// Takes or converts the lock of an open file; EAGAIN where another's is in the way. As in Linux a conversion first gives
    /// up the old lock.
    pub fn flock(&self, lock: Flock) -> Result<(), Errno> {
        let mut inner = self.inner.lock();
        if inner.flocks.iter().any(|l| l.file == lock.file && l.exclusive == lock.exclusive) {
            return Ok(());
        }
        let before = inner.flocks.len();
        inner.flocks.retain(|l| l.file != lock.file);
        let released = inner.flocks.len() != before;
        let free = !inner.flocks.iter().any(|l| l.exclusive || lock.exclusive);
        if free {
            inner.flocks.push(lock);
        }
        drop(inner);
        if released {
            self.changed();
        }
        if free { Ok(()) } else { Err(Errno::EAGAIN) }
    }

    /// Gives up the `flock` of an open file.
    pub fn unflock(&self, file: u64) {
        let mut inner = self.inner.lock();
        let before = inner.flocks.len();
        inner.flocks.retain(|l| l.file != file);
        let released = inner.flocks.len() != before;
        drop(inner);
        if released {
            self.changed();
        }
    }

    /// A lock that would be in the way of `wanted`.
    pub fn conflict(&self, wanted: &Record) -> Option<Record> {
        let inner = self.inner.lock();
        inner.records.iter().find(|r| r.conflicts(wanted)).copied()
    }

    /// Takes `wanted`, replacing what the owner holds there; the lock in the way where there is one.
    pub fn set(&self, wanted: Record) -> Result<(), Record> {
        let mut inner = self.inner.lock();
        if let Some(other) = inner.records.iter().find(|r| r.conflicts(&wanted)) {
            return Err(*other);
        }
        // A lock made weaker lets others in.
        let weaker = !wanted.exclusive
            && inner.records.iter().any(|r| r.owner == wanted.owner && r.exclusive && r.overlaps(&wanted));
        inner.clear(wanted.owner, wanted.start, wanted.end);
        inner.insert(wanted);
        drop(inner);
        if weaker {
            self.changed();
        }
        Ok(())
    }

    /// Gives up what `owner` holds of `start..=end`.
    pub fn clear(&self, owner: LockOwner, start: u64, end: u64) {
        let released = self.inner.lock().clear(owner, start, end);
        if released {
            self.changed();
        }
    }

    /// Everything held, for `/proc/locks`.
    pub fn list(&self) -> (Vec<Flock>, Vec<Record>) {
        let inner = self.inner.lock();
        (inner.flocks.clone(), inner.records.clone())
    }
}

impl Inner {
    fn clear(&mut self, owner: LockOwner, start: u64, end: u64) -> bool {
        let mut released = false;
        let mut rest = Vec::new();
        self.records.retain_mut(|r| {
            if r.owner != owner || r.end < start || end < r.start {
                return true;
            }
            released = true;
            let old = *r;
            if old.start < start && end < old.end {
                rest.push(Record { start: end + 1, ..old });
            }
            if old.start < start {
                r.end = start - 1;
                return true;
            }
            if end < old.end {
                r.start = end + 1;
                return true;
            }
            false
        });
        self.records.extend(rest);
        released
    }

    /// Inserts where the owner holds nothing, joined with neighbours of the same kind.
    fn insert(&mut self, mut new: Record) {
        self.records.retain(|r| {
            let joins = r.owner == new.owner
                && r.exclusive == new.exclusive
                && (r.end.checked_add(1) == Some(new.start) || new.end.checked_add(1) == Some(r.start));
            if joins {
                new.start = new.start.min(r.start);
                new.end = new.end.max(r.end);
            }
            !joins
        });
        self.records.push(new);
    }
}

/// A descriptor of the table was closed: its POSIX locks on the file go, as POSIX has it.
pub fn release_posix(inode: &Inode, table: u64) {
    if let Some(locks) = inode.locks.get() {
        locks.clear(LockOwner::Table(table), 0, LAST);
    }
}

/// An open file ended: its `flock` and OFD locks go.
pub fn release_file(inode: &Inode, file: u64) {
    if let Some(locks) = inode.locks.get() {
        locks.unflock(file);
        locks.clear(LockOwner::File(file), 0, LAST);
    }
}

/// Who waits for whose POSIX locks.
pub struct Waits {
    /// By the waiting task's id.
    waits: Mutex<HashMap<u64, Wait>>,
}

struct Wait {
    task: Weak<Task>,
    table: u64,
    on: LockOwner,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits { waits: Mutex::new(Level::Leaf, HashMap::new()) }
    }
}

impl Waits {
    /// `task`, of descriptor table `table`, is about to wait for `on`: EDEADLK where `on` already waits, through others
    /// perhaps, for `table`.
    pub fn begin(&self, task: &Arc<Task>, table: u64, on: LockOwner) -> Result<(), Errno> {
        let mut waits = self.waits.lock();
        waits.remove(&task.id);
        waits.retain(|_, w| w.task.strong_count() > 0);
        let mut next = on;
        for _ in 0..MAX_CHAIN {
            if next == LockOwner::Table(table) {
                return Err(Errno::EDEADLK);
            }
            let LockOwner::Table(waiting) = next else { break };
            match waits.values().find(|w| w.table == waiting) {
                Some(wait) => next = wait.on,
                None => break,
            }
        }
        waits.insert(task.id, Wait { task: Arc::downgrade(task), table, on });
        Ok(())
    }
    /// `task` waits no more.
    pub fn end(&self, task: u64) {
        self.waits.lock().remove(&task);
    }
}

impl fmt::Debug for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(owner: u64, start: u64, end: u64, exclusive: bool) -> Record {
        Record { owner: LockOwner::Table(owner), start, end, exclusive, pid: 1 }
    }

    #[test]
    fn records_split_and_join() {
        let locks = FileLocks::default();
        locks.set(record(1, 0, 99, true)).unwrap();
        locks.clear(LockOwner::Table(1), 40, 59);
        assert_eq!(locks.list().1.len(), 2);
        assert!(locks.set(record(2, 30, 30, false)).is_err());
        locks.set(record(2, 40, 59, false)).unwrap();
        locks.clear(LockOwner::Table(2), 0, LAST);
        locks.set(record(1, 40, 59, true)).unwrap();
        assert_eq!(locks.list().1, [record(1, 0, 99, true)]);
        locks.set(record(1, 10, 19, false)).unwrap();
        assert_eq!(locks.list().1.len(), 3);
        assert!(locks.conflict(&record(2, 12, 14, false)).is_none());
        assert!(locks.conflict(&record(2, 12, 20, false)).is_some());
    }
}
