//! A task's view of the file system: root, working directory, umask, mount namespace (`fs_struct`). Shared by tasks that
//! were cloned with CLONE_FS.

use std::sync::Arc;

use crate::sync::{Level, Mutex};
use crate::vfs::{MountNamespace, Path};

/// Linux's `fs_struct`, with the mount namespace.
#[derive(Debug)]
pub struct FsInfo {
    inner: Mutex<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    root: Path,
    cwd: Path,
    umask: u32,
    namespace: Arc<MountNamespace>,
}

impl FsInfo {
    pub fn new(root: Path, cwd: Path, umask: u32, namespace: Arc<MountNamespace>) -> Arc<FsInfo> {
        Arc::new(FsInfo { inner: Mutex::new(Level::Leaf, Inner { root, cwd, umask, namespace }) })
    }
    /// A copy, as `fork(2)` makes one.
    pub fn duplicate(&self) -> Arc<FsInfo> {
        Arc::new(FsInfo { inner: Mutex::new(Level::Leaf, self.inner.lock().clone()) })
    }
    pub fn root(&self) -> Path {
        self.inner.lock().root.clone()
    }
    pub fn cwd(&self) -> Path {
        self.inner.lock().cwd.clone()
    }
    pub fn umask(&self) -> u32 {
        self.inner.lock().umask
    }
    pub fn namespace(&self) -> Arc<MountNamespace> {
        self.inner.lock().namespace.clone()
    }
    pub fn set_root(&self, root: Path) {
        let old = std::mem::replace(&mut self.inner.lock().root, root);
        drop(old);
    }
    pub fn set_cwd(&self, cwd: Path) {
        let old = std::mem::replace(&mut self.inner.lock().cwd, cwd);
        drop(old);
    }
    /// Returns the old one.
    pub fn set_umask(&self, umask: u32) -> u32 {
        std::mem::replace(&mut self.inner.lock().umask, umask & 0o777)
    }
}
