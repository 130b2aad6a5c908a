//! Dentries: names in directories.
//!
//! Invariants: a dentry with children is in memory as long as one of them is (children hold their parent). A removed
//! dentry stays usable for those who hold it, and says `is_unlinked`.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::inode::{FileName, Inode};
use crate::sync::{Level, Mutex};

/// A name that leads to an inode.
pub struct Dentry {
    pub inode: Arc<Inode>,
    place: Mutex<Place>,
    /// Cached children by name; also the lock under which this directory changes.
    pub children: Mutex<HashMap<Box<FileName>, Arc<Dentry>>>,
    unlinked: AtomicBool,
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
}

impl fmt::Debug for Dentry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dentry({:?})", String::from_utf8_lossy(&self.name()))
    }
}
