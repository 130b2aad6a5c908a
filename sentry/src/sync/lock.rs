//! Mutexes and read-write locks that know their place in the lock order.
//!
//! The order is the declaration order of [`Level`]: a thread may only take a lock whose level is higher than every
//! level it holds. Debug builds check that on every acquisition and panic with both levels named; release builds
//! compile to a plain `parking_lot` lock. Two locks of one level are never held together, except through
//! [`Mutex::lock_second`], whose caller says why that cannot deadlock (usually: ordered by address or parent first).

use std::fmt;
use std::ops::{Deref, DerefMut};

/// The lock order, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// The position of an open file, over a whole read, write or directory read (`f_pos_lock`).
    Position,
    /// A whole write to one regular file (`i_rwsem`); anything a file does may be done under it.
    InodeIo,
    /// Nesting of `epoll` instances is changed.
    EpollNesting,
    /// The items of an `epoll` instance: held while any file is polled. Nested instances come after those that watch them.
    EpollItems,
    /// The kernel's own tables (containers).
    Kernel,
    /// Changes to a mount namespace, one at a time.
    Namespace,
    /// Rename lock of a file system: directory moves are ordered by it.
    Rename,
    /// Children of a dentry, one directory's contents.
    Dentry,
    /// A mount namespace's table.
    Mounts,
    /// A pid namespace: pid numbers, process groups, sessions, the process tree.
    Pids,
    /// A thread group: its tasks, rlimits, shared signals, exit state (`sighand->siglock`).
    Group,
    /// The signal queue of one task.
    Signals,
    /// What a process does with each signal.
    SignalActions,
    /// A file-descriptor table.
    FdTable,
    /// `epoll` topology.
    Epoll,
    /// An open file description: its offset, its directory cursor.
    File,
    /// A socket, its queues.
    Socket,
    /// A pipe, tty, eventfd: one object's buffers.
    Object,
    /// File locks of one inode.
    FileLocks,
    /// An overlay inode's layers; the layers' own inodes come after.
    Overlay,
    /// An inode's attributes and contents.
    Inode,
    /// Futex buckets.
    Futex,
    /// The timer heap.
    Timer,
    /// A VMA tree. Late, because a copy to or from guest memory (made with an object's buffers locked) may have to grow
    /// a stack; no file is called with it held.
    Mm,
    /// The fields of one task. Late, because credentials are looked at everywhere; nothing is taken or dropped under it.
    Task,
    /// Events of host descriptors are being told to their wait queues.
    HostEvents,
    /// Private state of one file system or service that calls nothing while locked.
    Leaf,
    /// The entries of a wait queue. Waking takes `Waiter` locks under it.
    WaitQueue,
    /// A parked task's wake-up flag. Nothing is taken under it.
    Waiter,
}

#[cfg(debug_assertions)]
mod order {
    use super::Level;
    use std::cell::RefCell;

    thread_local! {
        static HELD: RefCell<Vec<Level>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn acquire(level: Level, second: bool) {
        HELD.with_borrow_mut(|held| {
            if let Some(max) = held.iter().max() {
                let fine = *max < level || (second && *max == level);
                assert!(fine, "lock order: taking {level:?} while holding {held:?}");
            }
            held.push(level);
        });
    }

    pub(super) fn release(level: Level) {
        // A thread that is being torn down may drop guards after its thread-locals.
        let _ = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            if let Some(i) = held.iter().rposition(|l| *l == level) {
                held.remove(i);
            }
        });
    }
}

#[cfg(not(debug_assertions))]
mod order {
    use super::Level;
    #[inline(always)]
    pub(super) fn acquire(_: Level, _: bool) {}
    #[inline(always)]
    pub(super) fn release(_: Level) {}
}

/// A mutex with a level.
pub struct Mutex<T> {
    level: Level,
    inner: parking_lot::Mutex<T>,
}

/// Holds a [`Mutex`] until dropped.
pub struct MutexGuard<'a, T> {
    level: Level,
    inner: parking_lot::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    pub const fn new(level: Level, value: T) -> Mutex<T> {
        Mutex { level, inner: parking_lot::Mutex::new(value) }
    }
    pub fn lock(&self) -> MutexGuard<'_, T> {
        order::acquire(self.level, false);
        MutexGuard { level: self.level, inner: self.inner.lock() }
    }
    /// Takes this lock while another of the same level is held. The caller argues why that cannot deadlock.
    pub fn lock_second(&self) -> MutexGuard<'_, T> {
        order::acquire(self.level, true);
        MutexGuard { level: self.level, inner: self.inner.lock() }
    }
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inner = self.inner.try_lock()?;
        order::acquire(self.level, true);
        Some(MutexGuard { level: self.level, inner })
    }
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }
}

impl<'a, T> MutexGuard<'a, T> {
    /// The parking_lot guard inside, for `Condvar::wait`.
    pub fn raw(&mut self) -> &mut parking_lot::MutexGuard<'a, T> {
        &mut self.inner
    }
}
impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}
impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}
impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        order::release(self.level);
    }
}
impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mutex({:?})", self.level)
    }
}
impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// A read-write lock with a level. Read guards count for the order as write guards do.
pub struct RwLock<T> {
    level: Level,
    inner: parking_lot::RwLock<T>,
}

/// Holds an [`RwLock`] for reading.
pub struct ReadGuard<'a, T> {
    level: Level,
    inner: parking_lot::RwLockReadGuard<'a, T>,
}

/// Holds an [`RwLock`] for writing.
pub struct WriteGuard<'a, T> {
    level: Level,
    inner: parking_lot::RwLockWriteGuard<'a, T>,
}

impl<T> RwLock<T> {
    pub const fn new(level: Level, value: T) -> RwLock<T> {
        RwLock { level, inner: parking_lot::RwLock::new(value) }
    }
    pub fn read(&self) -> ReadGuard<'_, T> {
        order::acquire(self.level, false);
        ReadGuard { level: self.level, inner: self.inner.read() }
    }
    pub fn write(&self) -> WriteGuard<'_, T> {
        order::acquire(self.level, false);
        WriteGuard { level: self.level, inner: self.inner.write() }
    }
    /// As [`Mutex::lock_second`].
    pub fn read_second(&self) -> ReadGuard<'_, T> {
        order::acquire(self.level, true);
        ReadGuard { level: self.level, inner: self.inner.read() }
    }
    /// As [`Mutex::lock_second`].
    pub fn write_second(&self) -> WriteGuard<'_, T> {
        order::acquire(self.level, true);
        WriteGuard { level: self.level, inner: self.inner.write() }
    }
}
impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}
impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}
impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}
impl<T> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        order::release(self.level);
    }
}
impl<T> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        order::release(self.level);
    }
}
impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RwLock({:?})", self.level)
    }
}
impl<T> fmt::Debug for ReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadGuard({:?})", self.level)
    }
}
impl<T> fmt::Debug for WriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteGuard({:?})", self.level)
    }
}
