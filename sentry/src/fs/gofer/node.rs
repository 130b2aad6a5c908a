//! Nodes: where in the host's tree a file is.
//!
//! A [`Node`] knows its parent and its name, as a dentry does, and so can always be reached again from the root. That is its
//! identity: descriptors are caches. Ten thousand cached dentries hold no descriptor at all, and after a restore nothing
//! is opened until it is used.
//!
//! Invariants: a node's `place` is changed only under the dentry locks of the directories concerned (renames through us).
//! Locks here are leaves, and never held together.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use quicksand_abi::Errno;
use quicksand_gofer::hostfs::{self, Stat};

use crate::sync::{Level, Mutex};
use crate::vfs::FileName;

/// A place in the host's tree, and what is cached of it.
#[derive(Debug)]
pub struct Node {
    /// Device and inode number on the host: what was found when the node was made.
    pub identity: (u32, u32, u64),
    /// The mount point of one of the host's kernel interfaces (proc, sysfs, …): shown as an empty directory.
    pub sealed: bool,
    place: Mutex<Option<Place>>,
    /// Directories: an `O_PATH` descriptor, kept as long as [`DirCache`] likes.
    dir: Mutex<Option<Arc<OwnedFd>>>,
    /// Whether `dir` was used since the cache last looked.
    recent: AtomicBool,
    /// What was last seen of it, where that cannot change behind our back.
    pub stat: Mutex<Option<Stat>>,
    /// Open descriptors of a regular file, shared by all open files of the guest.
    pub files: Mutex<OpenFds>,
}

#[derive(Clone, Debug)]
struct Place {
    parent: Arc<Node>,
    name: Box<FileName>,
}

/// Descriptors of a regular file that are open now.
#[derive(Debug, Default)]
pub struct OpenFds {
    pub read: Weak<OwnedFd>,
    pub write: Weak<OwnedFd>,
    /// Holds the last descriptor of a file that lost its name: there is no other way back to it.
    pub pinned: Option<Arc<OwnedFd>>,
}

/// A name in a directory; with an empty name, the root itself.
#[derive(Clone, Debug)]
pub struct At {
    pub dir: Arc<Node>,
    pub name: Box<FileName>,
}

impl Node {
    /// The root of a tree.
    pub fn root(stat: Stat) -> Arc<Node> {
        Node::make(stat, None, false)
    }
    pub fn child(parent: &Arc<Node>, name: &FileName, stat: Stat, sealed: bool) -> Arc<Node> {
        Node::make(stat, Some(Place { parent: parent.clone(), name: name.into() }), sealed)
    }
    fn make(stat: Stat, place: Option<Place>, sealed: bool) -> Arc<Node> {
        Arc::new(Node {
            identity: stat.identity(),
            sealed,
            place: Mutex::new(Level::Leaf, place),
            dir: Mutex::new(Level::Leaf, None),
            recent: AtomicBool::new(false),
            stat: Mutex::new(Level::Leaf, Some(stat)),
            files: Mutex::new(Level::Leaf, OpenFds::default()),
        })
    }
    pub fn is_root(&self) -> bool {
        self.place.lock().is_none()
    }
    pub fn parent(&self) -> Option<Arc<Node>> {
        self.place.lock().as_ref().map(|p| p.parent.clone())
    }
    /// After a rename, or when a further hard link was looked up.
    pub fn move_to(&self, parent: &Arc<Node>, name: &FileName) {
        let old = {
            let mut place = self.place.lock();
            if place.is_none() {
                return; // the root stays
            }
            place.replace(Place { parent: parent.clone(), name: name.into() })
        };
        drop(old); // outside the lock: it may be the last reference to a parent
    }
    /// How a backend is to find it.
    pub fn at(self: &Arc<Node>) -> At {
        match &*self.place.lock() {
            Some(place) => At { dir: place.parent.clone(), name: place.name.clone() },
            None => At { dir: self.clone(), name: Box::default() },
        }
    }
    /// The names that lead here from the root.
    pub fn path(self: &Arc<Node>) -> Vec<Box<FileName>> {
        let mut names = Vec::new();
        let mut node = self.clone();
        loop {
            let at = node.at();
            if at.name.is_empty() {
                break;
            }
            names.push(at.name);
            node = at.dir;
        }
        names.reverse();
        names
    }
    /// An open descriptor of the file, if there is one.
    pub fn any_fd(&self) -> Option<Arc<OwnedFd>> {
        let files = self.files.lock();
        files.write.upgrade().or_else(|| files.read.upgrade())
    }
    /// The last cached attributes.
    pub fn cached_stat(&self) -> Option<Stat> {
        *self.stat.lock()
    }
    pub fn set_stat(&self, stat: Option<Stat>) {
        *self.stat.lock() = stat;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A chain of parents that only this node held must not be dropped by recursion: a tree can be thousands deep.
        let mut next = self.place.get_mut().take().map(|p| p.parent);
        while let Some(parent) = next {
            next = Arc::into_inner(parent).and_then(|mut p| p.place.get_mut().take().map(|p| p.parent));
        }
    }
}

/// Directory descriptors that are kept open: at most [`DirCache::CAPACITY`], by the clock algorithm.
#[derive(Debug)]
pub struct DirCache {
    root: Arc<OwnedFd>,
    clock: Mutex<VecDeque<Weak<Node>>>,
}

impl DirCache {
    pub const CAPACITY: usize = 256;

    pub fn new(root: Arc<OwnedFd>) -> DirCache {
        DirCache { root, clock: Mutex::new(Level::Leaf, VecDeque::new()) }
    }

    /// An `O_PATH` descriptor of the directory `node`; opens whatever is missing on the way. ESTALE where another
    /// directory is in its place now.
    pub fn get(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>, Errno> {
        let mut missing = Vec::new();
        let mut at = node.clone();
        let mut fd = loop {
            if let Some(fd) = at.dir.lock().clone() {
                at.recent.store(true, Ordering::Relaxed);
                break fd;
            }
            let place = at.at();
            if place.name.is_empty() {
                break self.root.clone();
            }
            missing.push((at, place.name));
            at = place.dir;
        };
        while let Some((node, name)) = missing.pop() {
            let opened = Arc::new(hostfs::open_dir_path(fd.as_fd(), &name)?);
            if hostfs::stat_fd(opened.as_fd())?.identity() != node.identity {
                return Err(Errno::ESTALE);
            }
            *node.dir.lock() = Some(opened.clone());
            self.remember(&node);
            fd = opened;
        }
        Ok(fd)
    }

    fn remember(&self, node: &Arc<Node>) {
        // Nodes are dropped, and their descriptors closed, after the lock.
        let (mut evicted, mut spared) = (Vec::new(), Vec::new());
        {
            let mut clock = self.clock.lock();
            clock.push_back(Arc::downgrade(node));
            while clock.len() > DirCache::CAPACITY {
                let Some(oldest) = clock.pop_front() else { break };
                let Some(oldest) = oldest.upgrade() else { continue };
                // One round of second chances at most, whatever other threads mark meanwhile.
                if oldest.recent.swap(false, Ordering::Relaxed) && spared.len() < DirCache::CAPACITY {
                    clock.push_back(Arc::downgrade(&oldest));
                    spared.push(oldest);
                } else {
                    evicted.push(oldest);
                }
            }
        }
        for node in &evicted {
            let fd = node.dir.lock().take();
            drop(fd);
        }
    }
}
