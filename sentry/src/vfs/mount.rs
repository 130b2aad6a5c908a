//! Mounts, mount namespaces, and paths through them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::dentry::Dentry;
use crate::sync::{Level, RwLock};

bitflags::bitflags! {
    /// Per-mount flags, in the bits of `mount(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MountFlags: u32 {
        const RDONLY = 1;
        const NOSUID = 2;
        const NODEV = 4;
        const NOEXEC = 8;
        const NOATIME = 1024;
        const NODIRATIME = 2048;
        const RELATIME = 1 << 21;
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
}

impl Mount {
    pub fn new(root: Arc<Dentry>, flags: MountFlags, source: &[u8], options: &[u8]) -> Arc<Mount> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(20);
        Arc::new(Mount {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            root,
            at: RwLock::new(Level::Leaf, None),
            flags: RwLock::new(Level::Leaf, flags),
            source: source.into(),
            options: options.into(),
        })
    }
    pub fn flags(&self) -> MountFlags {
        *self.flags.read()
    }
}

/// A place: a dentry seen through a mount.
#[derive(Clone, Debug)]
pub struct Path {
    pub mount: Arc<Mount>,
    pub dentry: Arc<Dentry>,
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
}

/// The mounts that a container's tasks see: a tree that hangs from its root mount (each [`Mount`] knows what is mounted
/// on it).
#[derive(Debug)]
pub struct MountNamespace {
    /// `pivot_root` changes it.
    root: RwLock<Arc<Mount>>,
}

impl MountNamespace {
    pub fn new(root: Arc<Mount>) -> Arc<MountNamespace> {
        Arc::new(MountNamespace { root: RwLock::new(Level::Leaf, root) })
    }
    pub fn root(&self) -> Arc<Mount> {
        self.root.read().clone()
    }
}
