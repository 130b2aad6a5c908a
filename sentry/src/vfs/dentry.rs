//! Dentries: names in directories.
//!
//! Invariants: a dentry with children is in memory as long as one of them is (children hold their parent). A removed
//! dentry stays usable for those who hold it, and says `is_unlinked`.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use quicksand_abi::Errno;

use super::inode::{FileName, Inode, Superblock};
use crate::sync::{Level, Mutex};
use crate::task::CurrentTask;

/// The cached children of a directory.
pub type Children = HashMap<Box<FileName>, Arc<Dentry>>;

/// A name that leads to an inode.
pub struct Dentry {
    pub inode: Arc<Inode>,
    place: Mutex<Place>,
    /// Cached children by name; also the lock under which this directory changes.
    pub children: Mutex<Children>,
    unlinked: AtomicBool,
    /// Of a file made by O_TMPFILE: it may be given a name though it has none.
    linkable: AtomicBool,
    /// How many mounts sit on this dentry, in any namespace: spares the mount table on most steps of a walk.
    pub mounted: AtomicU32,
}

struct Place {
    name: Box<FileName>,
    /// `None` for the root of a file system.
    parent: Option<Arc<Dentry>>,
}

impl Dentry {
    /// The root of a file system, or a nameless file (`name` is shown by `/proc/PID/fd`: `pipe:[5]`).
    pub fn new_root(inode: Arc<Inode>, name: &FileName) -> Arc<Dentry> {
        Dentry::make(inode, name, None)
    }
    /// A dentry below `parent`; the caller inserts it into `parent.children`.
    pub fn new_child(parent: &Arc<Dentry>, name: &FileName, inode: Arc<Inode>) -> Arc<Dentry> {
        Dentry::make(inode, name, Some(parent.clone()))
    }
    fn make(inode: Arc<Inode>, name: &FileName, parent: Option<Arc<Dentry>>) -> Arc<Dentry> {
        Arc::new(Dentry {
            inode,
            // Read with a directory's lock held (a rename below it), so it comes after `Dentry`.
            place: Mutex::new(Level::Leaf, Place { name: name.into(), parent }),
            children: Mutex::new(Level::Dentry, HashMap::new()),
            unlinked: AtomicBool::new(false),
            linkable: AtomicBool::new(false),
            mounted: AtomicU32::new(0),
        })
    }
    pub fn name(&self) -> Box<FileName> {
        self.place.lock().name.clone()
    }
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.place.lock().parent.clone()
    }
    /// After a rename.
    pub fn set_place(&self, parent: &Arc<Dentry>, name: &FileName) {
        let old = {
            let mut place = self.place.lock();
            std::mem::replace(&mut *place, Place { name: name.into(), parent: Some(parent.clone()) })
        };
        drop(old); // outside the lock: it may be the last reference to a parent
    }
    pub fn is_unlinked(&self) -> bool {
        self.unlinked.load(Ordering::Acquire)
    }
    pub fn set_unlinked(&self) {
        self.unlinked.store(true, Ordering::Release);
    }

    pub fn is_linkable(&self) -> bool {
        self.linkable.load(Ordering::Acquire)
    }
    pub fn set_linkable(&self) {
        self.linkable.store(true, Ordering::Release);
    }

    /// The child called `name`: from the cache, or from the file system. ENOENT where there is none.
    pub fn lookup(
        self: &Arc<Self>,
        name: &FileName,
        task: Option<&CurrentTask>,
    ) -> Result<Arc<Dentry>, Errno> {
        let (found, known) = {
            let mut children = self.children.lock();
            let before = children.len();
            (self.lookup_locked(&mut children, name, task)?, children.len() == before)
        };
        if !known {
            shrink(&self.inode.sb);
        }
        Ok(found)
    }

    /// As [`Dentry::lookup`], with this directory's lock held. A child of a directory that does not cache is looked up each
    /// time, unless something is mounted on it.
    pub fn lookup_locked(
        self: &Arc<Self>,
        children: &mut Children,
        name: &FileName,
        task: Option<&CurrentTask>,
    ) -> Result<Arc<Dentry>, Errno> {
        let caches = self.inode.ops.cache_children();
        if let Some(child) = children.get(name) {
            if child.mounted.load(Ordering::Acquire) > 0
                || (caches && child.inode.ops.revalidate(&child.inode))
            {
                return Ok(child.clone());
            }
            children.remove(name);
        }
        let inode = self.inode.ops.lookup(&self.inode, name, task)?;
        if !caches {
            // Whoever uses the file already and we must share one dentry, so that its removal and renaming are seen.
            let known = inode.alias.lock().upgrade();
            if let Some(child) = known
                && child.is_at(self, name)
            {
                return Ok(child);
            }
        }
        let child = Dentry::new_child(self, name, inode);
        self.remember(children, name, &child);
        Ok(child)
    }

    /// Whether this is the entry `name` of `parent`.
    fn is_at(&self, parent: &Arc<Dentry>, name: &FileName) -> bool {
        let place = self.place.lock();
        !self.is_unlinked()
            && *place.name == *name
            && place.parent.as_ref().is_some_and(|p| Arc::ptr_eq(p, parent))
    }

    /// Caches a child; where this directory's children may not be cached, only as long as somebody uses it.
    pub fn remember(self: &Arc<Self>, children: &mut Children, name: &FileName, child: &Arc<Dentry>) {
        if self.inode.ops.cache_children() {
            children.insert(name.into(), child.clone());
            self.inode.sb.cached.lock().push_back(Arc::downgrade(child));
        } else {
            *child.inode.alias.lock() = Arc::downgrade(child);
        }
    }

    /// Takes a dentry that nobody uses out of the cache; false where somebody does.
    fn evict(self: Arc<Self>) -> bool {
        let Some(parent) = self.parent() else { return true };
        let name = self.name();
        let mut children = parent.children.lock();
        if !children.get(&name).is_some_and(|c| Arc::ptr_eq(c, &self)) {
            // Renamed this moment, or removed and still open.
            return false;
        }
        // The cache's reference and ours. A new one could only come through the cache, which is locked; children hold one.
        if Arc::strong_count(&self) > 2 || self.mounted.load(Ordering::Acquire) > 0 {
            return false;
        }
        let removed = children.remove(&name);
        parent.inode.ops.forget(&parent.inode, &name, &self.inode);
        drop(children);
        drop(removed);
        true
    }

    /// Whether this is `other` or lies below it.
    pub fn is_below(self: &Arc<Self>, other: &Arc<Dentry>) -> bool {
        let mut at = self.clone();
        loop {
            if Arc::ptr_eq(&at, other) {
                return true;
            }
            match at.parent() {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    }

    /// Forgets every cached name below this dentry (what is mounted on stays): ends the cycle of parents and children when
    /// a file system goes away.
    pub fn prune(self: &Arc<Self>) {
        if self.children.lock().is_empty() {
            return;
        }
        let mut work = vec![self.clone()];
        while let Some(dir) = work.pop() {
            let taken: Vec<_> = {
                let mut children = dir.children.lock();
                children.extract_if(|_, c| c.mounted.load(Ordering::Acquire) == 0).map(|(_, c)| c).collect()
            };
            work.extend(taken);
        }
    }
}

/// How many names of one file system are cached.
const MAX_CACHED: usize = 16 << 10;
/// How many are looked at in one go.
const SHRINK_STEP: usize = 32;

/// Lets unused names go where more than [`MAX_CACHED`] are cached, those first that were cached first. The caller holds no
/// dentry's lock.
fn shrink(sb: &Superblock) {
    for _ in 0..SHRINK_STEP {
        let oldest = {
            let mut cached = sb.cached.lock();
            if cached.len() <= MAX_CACHED {
                return;
            }
            cached.pop_front()
        };
        let Some(dentry) = oldest.and_then(|weak| weak.upgrade()) else { continue };
        let weak = Arc::downgrade(&dentry);
        if !dentry.evict() {
            sb.cached.lock().push_back(weak);
        }
    }
}

impl Drop for Dentry {
    /// A chain of parents may be as deep as a guest made it: it is let go one by one, not by recursion.
    fn drop(&mut self) {
        let mut next = self.place.get_mut().parent.take();
        while let Some(mut dentry) = next.and_then(Arc::into_inner) {
            next = dentry.place.get_mut().parent.take();
        }
    }
}

impl fmt::Debug for Dentry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dentry({:?})", String::from_utf8_lossy(&self.name()))
    }
}
