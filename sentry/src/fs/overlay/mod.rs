//! Overlay: memory over a read-only tree of any other file system (Linux's overlayfs, gVisor's `--overlay2`).
//!
//! An inode of the overlay ([`inode::Node`]) stands for a file of the lower tree, a new one, or a changed one: what was
//! changed is in a tmpfs node of its own (`upper`), attributes first and contents only when they change ([`copy_up`]).
//! There is no upper *tree*: a directory of the overlay keeps what differs from its lower directory itself ([`dir`]), so
//! that renaming a lower directory moves one entry. The lower tree never changes, so whatever is learnt of it stays true:
//! a name is looked up below once, also when it is not there, and a directory is read below once.
//!
//! Invariants: a directory's entries change under its dentry's lock, and each entry of an inode that differs from the lower
//! tree holds it. Files opened before their contents were copied up read the new contents afterwards; what they had mapped
//! stays the old (as in Linux's overlayfs).
//!
//! Lock order: `Level::Overlay`, one node at a time; inodes of the layers come after.

mod copy_up;
mod dir;
mod file;
mod inode;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quicksand_abi::Errno;

use crate::fs::tmpfs::{self, Layer};
use crate::sync::{Level, Mutex};
use crate::vfs::inode::{FsStat, StatFs};
use crate::vfs::{Dentry, FileKind, Inode, Mount, MountFlags, OpenFile, OpenFlags, Path, Superblock};

pub(crate) use dir::Known;
use inode::Node;

/// `OVERLAYFS_SUPER_MAGIC`.
const MAGIC: u64 = 0x794c_7630;
/// Numbers of new files start here: host file systems give out lower ones.
const FIRST_NEW_INO: u64 = 1 << 40;

/// One overlay.
#[derive(Debug)]
struct Overlay {
    layer: Arc<Layer>,
    next_ino: AtomicU64,
    /// Inodes of lower files with several names, by the lower inode's id: all names lead to one inode. Held for good, since
    /// a name that nobody has looked up yet may lead to a changed file.
    linked: Mutex<HashMap<u64, Arc<Inode>>>,
    /// What open files of the layers hang from.
    mount: Arc<Mount>,
}

#[derive(Debug)]
struct Statfs {
    layer: Arc<Layer>,
    lower: Arc<Superblock>,
}

impl StatFs for Statfs {
    /// What is free is the upper layer's, as Linux has it. What the lower layer uses counts as used: a guest that asks how
    /// large its root is means the files it sees.
    fn statfs(&self) -> Result<FsStat, Errno> {
        let mut all = self.layer.superblock().statfs.statfs()?;
        if let Ok(lower) = self.lower.statfs.statfs() {
            let used_bytes = lower.blocks.saturating_sub(lower.free).saturating_mul(lower.block_size);
            all.blocks = all.blocks.saturating_add(used_bytes / all.block_size.max(1));
            all.files = all.files.saturating_add(lower.files.saturating_sub(lower.files_free));
        }
        Ok(all)
    }
}

/// An overlay of memory over the directory `lower`; its root. `options` limit the memory.
pub fn new(lower: Arc<Inode>, options: &tmpfs::Options) -> Result<Arc<Dentry>, Errno> {
    if lower.kind != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    let layer = Arc::new(Layer::new(options));
    let sb =
        Superblock::new("overlay", MAGIC, Box::new(Statfs { layer: layer.clone(), lower: lower.sb.clone() }));
    let inner = Dentry::new_root(lower.clone(), b"/");
    let fs = Arc::new(Overlay {
        layer,
        next_ino: AtomicU64::new(FIRST_NEW_INO),
        linked: Mutex::new(Level::Leaf, HashMap::new()),
        mount: Mount::new(inner, MountFlags::NOATIME, b"overlay", b""),
    });
    let root = Node::over(&fs, &sb, lower)?;
    Ok(Dentry::new_root(root, b"/"))
}

/// What differs from the tree below, of one file of an overlay.
#[derive(Debug)]
pub(crate) struct Changes {
    /// The lower file.
    pub lower: Option<Arc<Inode>>,
    /// What holds the changed attributes, and the contents where `contents` says so.
    pub upper: Option<Arc<Inode>>,
    pub contents: bool,
    /// Its names have changed: it was moved, or has got or lost one.
    pub renamed: bool,
    /// Of a directory: what is known to be there, or (`None`) removed.
    pub entries: Vec<Known>,
}

/// What differs of a file; `None` where it is not of an overlay.
pub(crate) fn changes(inode: &Inode) -> Option<Changes> {
    let node = inode.ops_as::<Node>()?;
    let state = node.state.lock();
    Some(Changes {
        lower: node.lower.clone(),
        upper: state.upper.clone(),
        contents: node.is_changed(),
        renamed: state.has_new_names(),
        entries: state.dir.known(),
    })
}

/// For a restore: a name of the lower directory is removed.
pub(crate) fn white_out(dir: &Inode, name: &[u8]) -> Result<(), Errno> {
    Node::of(dir)?.state.lock().dir.white_out(name);
    Ok(())
}

/// For a restore: gives the lower file at `path` a name in `dir`. Both are of the overlay with this root.
pub(crate) fn adopt(root: &Inode, dir: &Inode, name: &[u8], path: &[u8]) -> Result<Arc<Inode>, Errno> {
    let mut lower = Node::of(root)?.lower.clone().ok_or(Errno::EINVAL)?;
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        if !lower.is_dir() || part.len() > 255 || matches!(part, b"." | b"..") {
            return Err(Errno::ENOENT);
        }
        lower = lower.ops.lookup(&lower, part, None)?;
    }
    let node = Node::of(dir)?;
    let inode = Node::over(&node.fs, &dir.sb, lower)?;
    node.insert(name, &inode)?;
    Node::of(&inode)?.add_links(0);
    Ok(inode)
}

/// For a restore: the upper node of a file; with `contents`, what it holds is the file's, and it is empty now.
pub(crate) fn upper_of(inode: &Inode, contents: bool) -> Result<Arc<Inode>, Errno> {
    let node = Node::of(inode)?;
    let mut state = node.state.lock();
    let upper = node.upper(&mut state)?;
    if contents {
        node.copy_contents(&mut state, 0)?;
    }
    Ok(upper)
}

/// An overlay and a mount of it.
pub fn mount(lower: Arc<Inode>, flags: MountFlags) -> Result<Arc<Mount>, Errno> {
    Ok(Mount::new(new(lower, &tmpfs::Options::default())?, flags, b"overlay", b""))
}

impl Overlay {
    fn next_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// An open file of an upper regular file.
    fn open_upper(&self, inode: &Arc<Inode>) -> Arc<OpenFile> {
        let path = Path::new(self.mount.clone(), Dentry::new_root(inode.clone(), b""));
        OpenFile::new(path, tmpfs::file_ops(), OpenFlags::RDWR | OpenFlags::LARGEFILE)
    }

    /// An open file of a lower inode.
    fn open_inner(
        &self,
        inode: &Arc<Inode>,
        flags: OpenFlags,
        task: &crate::task::CurrentTask,
    ) -> Result<Arc<OpenFile>, Errno> {
        let ops = inode.ops.open(inode, flags, task)?;
        let path = Path::new(self.mount.clone(), Dentry::new_root(inode.clone(), b""));
        Ok(OpenFile::new(path, ops, flags))
    }
}
