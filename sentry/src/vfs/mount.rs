//! Mounts, mount namespaces, and paths through them.
//!
//! A mount knows where it is mounted (`at`) and what is mounted on it (`children`). The two always agree, but for the
//! moment in which one of them is being changed under the namespace's `change` lock. `Dentry::mounted` counts the mounts
//! on a dentry, so that a walk looks at `children` only where there is something to find.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use quicksand_abi::Errno;

use super::dentry::Dentry;
use crate::sync::{Level, Mutex, MutexGuard, RwLock};

bitflags::bitflags! {
    /// Per-mount flags, in the bits of `mount(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MountFlags: u32 {
        const RDONLY = 1;
        const NOSUID = 2;
        const NODEV = 4;
        const NOEXEC = 8;
        const NOSYMFOLLOW = 256;
        const NOATIME = 1024;
        const NODIRATIME = 2048;
        const RELATIME = 1 << 21;
        /// Access times are kept to the letter. Never shown: it is what a mount without the others is.
        const STRICTATIME = 1 << 24;
    }
}

impl MountFlags {
    /// As `/proc/mounts` shows them, `rw` or `ro` first.
    pub fn to_options(self) -> String {
        const NAMES: [(MountFlags, &str); 7] = [
            (MountFlags::NOSUID, ",nosuid"),
            (MountFlags::NODEV, ",nodev"),
            (MountFlags::NOEXEC, ",noexec"),
            (MountFlags::NOATIME, ",noatime"),
            (MountFlags::NODIRATIME, ",nodiratime"),
            (MountFlags::RELATIME, ",relatime"),
            (MountFlags::NOSYMFOLLOW, ",nosymfollow"),
        ];
        let mut out = String::from(if self.contains(MountFlags::RDONLY) { "ro" } else { "rw" });
        for (flag, name) in NAMES {
            if self.contains(flag) {
                out.push_str(name);
            }
        }
        out
    }
}

/// A file system (or a part of one: a bind mount) at a place.
#[derive(Debug)]
pub struct Mount {
    /// `mnt_id` in `/proc/PID/mountinfo`.
    pub id: u64,
    /// What is mounted: a file system's root, or any dentry of one.
    pub root: Arc<Dentry>,
    /// Where; `None` for a namespace's root and for detached mounts.
    pub at: RwLock<Option<Path>>,
    pub flags: RwLock<MountFlags>,
    /// The source as `/proc/mounts` shows it.
    pub source: Box<[u8]>,
    /// Options of the file system as `/proc/mounts` shows them, after the per-mount ones.
    pub options: Box<[u8]>,
    /// What is mounted on this mount, in order: the last one at a dentry is on top.
    children: RwLock<Vec<Arc<Mount>>>,
    /// MNT_EXPIRE has marked it, and nobody has used it since.
    expired: AtomicBool,
}

/// `fs.mount-max`: how many mounts a guest may bring about. Those that `pivot_root` and boot need come on top.
const MOUNT_MAX: usize = 100_000;

/// Mounts that there are.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// ENOSPC where there would be too many with `more`.
pub fn check_room(more: usize) -> Result<(), Errno> {
    match LIVE.load(Ordering::Relaxed).saturating_add(more) > MOUNT_MAX {
        true => Err(Errno::ENOSPC),
        false => Ok(()),
    }
}

impl Mount {
    pub fn new(root: Arc<Dentry>, flags: MountFlags, source: &[u8], options: &[u8]) -> Arc<Mount> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(20);
        root.inode.sb.get_mount();
        LIVE.fetch_add(1, Ordering::Relaxed);
        Arc::new(Mount {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            root,
            at: RwLock::new(Level::Leaf, None),
            flags: RwLock::new(Level::Leaf, flags),
            source: source.into(),
            options: options.into(),
            children: RwLock::new(Level::Mounts, Vec::new()),
            expired: AtomicBool::new(false),
        })
    }
    /// Whether anybody but its place and `own` holders is using it: a working directory, an open file, a process's root.
    pub fn is_used(self: &Arc<Self>, own: usize) -> bool {
        let placed = usize::from(self.at.read().is_some());
        Arc::strong_count(self) > placed + own
    }
    /// MNT_EXPIRE: false the first time.
    pub fn mark_expired(&self) -> bool {
        self.expired.swap(true, Ordering::AcqRel)
    }
    pub fn flags(&self) -> MountFlags {
        *self.flags.read()
    }
    /// Where it is mounted.
    pub fn place(&self) -> Option<Path> {
        self.at.read().clone()
    }
    /// What is mounted on `dentry` of this mount, the topmost.
    pub fn child_at(&self, dentry: &Arc<Dentry>) -> Option<Arc<Mount>> {
        let children = self.children.read();
        let here = |m: &&Arc<Mount>| m.at.read().as_ref().is_some_and(|p| Arc::ptr_eq(&p.dentry, dentry));
        children.iter().rev().find(here).cloned()
    }
    /// Everything mounted directly on this mount.
    pub fn children(&self) -> Vec<Arc<Mount>> {
        self.children.read().clone()
    }
    /// This mount and everything below it, parents first.
    pub fn subtree(self: &Arc<Self>) -> Vec<Arc<Mount>> {
        let mut all = vec![self.clone()];
        let mut next = 0;
        while let Some(mount) = all.get(next) {
            let below = mount.children();
            all.extend(below);
            next += 1;
        }
        all
    }

    /// Mounts `self` at `at`, on top of whatever is there. The caller holds the namespace's `change` lock (or made the
    /// namespace and nobody knows it yet).
    pub fn attach(self: &Arc<Self>, at: Path) {
        // A parent that caches no names must find this dentry again.
        if let Some(parent) = at.dentry.parent() {
            let name = at.dentry.name();
            parent.children.lock().entry(name).or_insert_with(|| at.dentry.clone());
        }
        at.dentry.mounted.fetch_add(1, Ordering::AcqRel);
        let on = at.mount.clone();
        *self.at.write() = Some(at);
        on.children.write().push(self.clone());
    }
    /// Takes the mount from its place. What is mounted on it stays there.
    pub fn detach(self: &Arc<Self>) {
        let Some(at) = self.at.write().take() else { return };
        at.dentry.mounted.fetch_sub(1, Ordering::AcqRel);
        let removed = {
            let mut children = at.mount.children.write();
            let found = children.iter().position(|m| Arc::ptr_eq(m, self));
            found.map(|i| children.remove(i))
        };
        drop(removed);
    }
}

impl Drop for Mount {
    /// The last mount of a file system lets its cached names go: parents and children hold each other.
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Ordering::Relaxed);
        if self.root.inode.sb.put_mount() {
            let mut top = self.root.clone();
            while let Some(parent) = top.parent() {
                top = parent;
            }
            top.prune();
        }
    }
}

/// A place: a dentry seen through a mount.
#[derive(Clone, Debug)]
pub struct Path {
    pub mount: Arc<Mount>,
    pub dentry: Arc<Dentry>,
}

/// A path as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathText {
    pub text: Vec<u8>,
    /// Whether it hangs below the root it was asked for; otherwise it is shown from the top of what it hangs from.
    pub reachable: bool,
    /// Whether its name was removed.
    pub deleted: bool,
}

impl Path {
    pub fn new(mount: Arc<Mount>, dentry: Arc<Dentry>) -> Path {
        Path { mount, dentry }
    }
    /// The root of a mount.
    pub fn root_of(mount: &Arc<Mount>) -> Path {
        Path { mount: mount.clone(), dentry: mount.root.clone() }
    }
    pub fn same(&self, other: &Path) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.dentry, &other.dentry)
    }
    pub fn is_mount_root(&self) -> bool {
        Arc::ptr_eq(&self.mount.root, &self.dentry)
    }
    /// The top of whatever is mounted here.
    pub fn cross_mounts(mut self) -> Path {
        while self.dentry.mounted.load(Ordering::Acquire) > 0 {
            match self.mount.child_at(&self.dentry) {
                Some(mount) => self = Path::root_of(&mount),
                None => break,
            }
        }
        self
    }
    /// One step up, across mounts but not further than `root`; `None` at the top. What is mounted on the parent is not
    /// entered.
    pub fn up(&self, root: &Path) -> Option<Path> {
        let mut at = self.clone();
        loop {
            if at.same(root) {
                return None;
            }
            if !at.is_mount_root() {
                let parent = at.dentry.parent()?;
                return Some(Path::new(at.mount, parent));
            }
            at = at.mount.place()?;
        }
    }
    /// Whether this place can be reached by going down from `root`.
    pub fn is_under(&self, root: &Path) -> bool {
        let mut at = self.clone();
        loop {
            if Arc::ptr_eq(&at.mount, &root.mount) {
                return at.dentry.is_below(&root.dentry);
            }
            match at.mount.place() {
                Some(place) => at = place,
                None => return false,
            }
        }
    }

    /// The text of this path as seen from `root` (`d_path`).
    pub fn text(&self, root: &Path) -> PathText {
        let deleted = self.dentry.is_unlinked();
        let mut names: Vec<Box<[u8]>> = Vec::new();
        let mut at = self.clone();
        let mut reachable = true;
        while !at.same(root) {
            if at.is_mount_root() {
                match at.mount.place() {
                    Some(place) => at = place,
                    None => {
                        reachable = false;
                        break;
                    }
                }
                continue;
            }
            names.push(at.dentry.name());
            match at.dentry.parent() {
                Some(parent) => at.dentry = parent,
                None => {
                    reachable = false;
                    break;
                }
            }
        }
        let mut text = Vec::new();
        if !reachable && names.is_empty() {
            // Nameless files: `pipe:[5]`.
            let name = at.dentry.name();
            if !name.is_empty() && *name != *b"/" {
                return PathText { text: name.into(), reachable: true, deleted };
            }
        }
        for name in names.iter().rev() {
            text.push(b'/');
            text.extend_from_slice(name);
        }
        if text.is_empty() {
            text.push(b'/');
        }
        PathText { text, reachable, deleted }
    }

    /// As `/proc/PID/fd/N` shows it: ` (deleted)` after a removed name.
    pub fn display(&self, root: &Path) -> Vec<u8> {
        let mut path = self.text(root);
        if path.deleted {
            path.text.extend_from_slice(b" (deleted)");
        }
        path.text
    }
}

/// The mounts that a container's tasks see: a tree that hangs from its root mount.
#[derive(Debug)]
pub struct MountNamespace {
    /// `pivot_root` changes it.
    root: RwLock<Arc<Mount>>,
    change: Mutex<()>,
}

impl MountNamespace {
    pub fn new(root: Arc<Mount>) -> Arc<MountNamespace> {
        Arc::new(MountNamespace {
            root: RwLock::new(Level::Leaf, root),
            change: Mutex::new(Level::Namespace, ()),
        })
    }
    pub fn root(&self) -> Arc<Mount> {
        self.root.read().clone()
    }
    pub fn set_root(&self, root: Arc<Mount>) {
        let old = std::mem::replace(&mut *self.root.write(), root);
        drop(old);
    }
    /// Held while the tree changes.
    pub fn change(&self) -> MutexGuard<'_, ()> {
        self.change.lock()
    }
    /// All mounts, in the order they were made.
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        let mut all = self.root().subtree();
        all.sort_by_key(|m| m.id);
        all
    }
    /// Whether `mount` hangs in this namespace.
    pub fn contains(&self, mount: &Arc<Mount>) -> bool {
        let root = self.root();
        let mut at = mount.clone();
        loop {
            if Arc::ptr_eq(&at, &root) {
                return true;
            }
            match at.place() {
                Some(place) => at = place.mount,
                None => return false,
            }
        }
    }
    /// A copy (`unshare(CLONE_NEWNS)`), and for a path in the old one the same place in the new one.
    pub fn duplicate(&self) -> (Arc<MountNamespace>, MountPairs) {
        let _change = self.change();
        let pairs = copy_tree(&self.root());
        let root = pairs.first().map_or_else(|| self.root(), |(_, new)| new.clone());
        (MountNamespace::new(root), pairs)
    }
}

/// Mounts and their copies.
pub type MountPairs = Vec<(Arc<Mount>, Arc<Mount>)>;

/// Copies of a mount and everything below it, mounted on one another alike; the first pair is the top, not mounted yet.
pub fn copy_tree(top: &Arc<Mount>) -> MountPairs {
    let mut pairs = MountPairs::new();
    let mut copies = HashMap::new();
    for old in top.subtree() {
        let new = Mount::new(old.root.clone(), old.flags(), &old.source, &old.options);
        if let Some(place) = old.place()
            && let Some(on) = copies.get(&place.mount.id)
        {
            new.attach(Path::new(Arc::clone(on), place.dentry));
        }
        copies.insert(old.id, new.clone());
        pairs.push((old, new));
    }
    pairs
}

impl Drop for MountNamespace {
    /// Mounts and their places hold each other: the tree is taken apart, children first.
    fn drop(&mut self) {
        for mount in self.root().subtree().iter().rev() {
            mount.detach();
        }
    }
}
