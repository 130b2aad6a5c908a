//! Inodes of an overlay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quicksand_abi::Errno;

use super::Overlay;
use super::dir::{Directory, Entry, OverlayDir};
use super::file::OverlayFile;
use crate::sync::{Level, Mutex, MutexGuard};
use crate::task::CurrentTask;
use crate::time::Realtime;
use crate::vfs::inode::Rename;
use crate::vfs::{
    Attr, FileKind, FileName, FileOps, Inode, InodeOps, LinkTarget, NewNode, OpenFlags, Owner, SetAttr,
    Superblock, now,
};

/// A file of an overlay.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) fs: Arc<Overlay>,
    /// The lower file; `None` for a new one.
    pub(super) lower: Option<Arc<Inode>>,
    pub(super) state: Mutex<State>,
    /// Whether the contents are the upper node's. Set once, under `state`.
    pub(super) changed: AtomicBool,
}

#[derive(Debug)]
pub(super) struct State {
    /// What was changed: attributes, and contents where `changed` says so.
    pub(super) upper: Option<Arc<Inode>>,
    /// The lower file's attributes, which never change.
    pub(super) lower_attr: Option<Attr>,
    /// Names that lead here (for a directory: Linux's count).
    nlink: u32,
    /// A name was added or removed since the attributes were last stored.
    renamed_at: Option<Realtime>,
    /// The target of a lower symbolic link, once read.
    target: Option<Box<[u8]>>,
    pub(super) dir: Directory,
}

impl State {
    pub(super) fn has_new_names(&self) -> bool {
        self.renamed_at.is_some()
    }
}

impl Node {
    pub(super) fn of(inode: &Inode) -> Result<&Node, Errno> {
        inode.ops_as::<Node>().ok_or(Errno::EXDEV)
    }

    /// The overlay's inode for a lower one.
    pub(super) fn over(
        fs: &Arc<Overlay>,
        sb: &Arc<Superblock>,
        lower: Arc<Inode>,
    ) -> Result<Arc<Inode>, Errno> {
        let attr = lower.attr()?;
        let shared = attr.nlink > 1 && !attr.is_dir();
        if shared && let Some(inode) = fs.linked.lock().get(&lower.id) {
            return Ok(inode.clone());
        }
        let (ino, kind, id) = (lower.ino, lower.kind, lower.id);
        let nlink = attr.nlink;
        let node = Node::make(fs, Some(lower), None, Some(attr), nlink);
        let inode = Inode::new(sb, ino, kind, Box::new(node));
        if shared {
            // Another name may have been looked up at the same time.
            return Ok(fs.linked.lock().entry(id).or_insert(inode).clone());
        }
        Ok(inode)
    }

    /// A new file.
    fn fresh(
        fs: &Arc<Overlay>,
        sb: &Arc<Superblock>,
        node: &NewNode<'_>,
        owner: Owner,
    ) -> Result<Arc<Inode>, Errno> {
        let upper = fs.layer.make(node, owner)?;
        let (kind, nlink) = (upper.kind, if upper.is_dir() { 2 } else { 1 });
        let node = Node::make(fs, None, Some(upper), None, nlink);
        node.changed.store(true, Ordering::Release);
        Ok(Inode::new(sb, fs.next_ino(), kind, Box::new(node)))
    }

    fn make(
        fs: &Arc<Overlay>,
        lower: Option<Arc<Inode>>,
        upper: Option<Arc<Inode>>,
        lower_attr: Option<Attr>,
        nlink: u32,
    ) -> Node {
        let dir = Directory::default();
        let state = State { upper, lower_attr, nlink, renamed_at: None, target: None, dir };
        Node {
            fs: fs.clone(),
            lower,
            state: Mutex::new(Level::Overlay, state),
            changed: AtomicBool::new(false),
        }
    }

    pub(super) fn is_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }

    pub(super) fn add_links(&self, by: i32) {
        let mut state = self.state.lock();
        state.nlink = state.nlink.saturating_add_signed(by);
        state.renamed_at = Some(now());
    }

    /// The entries of this directory changed, `subdirs` of them came (or went).
    fn modified(&self, state: &mut MutexGuard<'_, State>, subdirs: i32) -> Result<(), Errno> {
        state.nlink = state.nlink.saturating_add_signed(subdirs);
        let upper = self.upper(state)?;
        upper.ops.set_attr(&upper, &SetAttr { mtime: Some(now()), ..SetAttr::default() })
    }

    /// Takes a name away; what is behind it loses a link.
    fn remove(&self, name: &FileName, target: &Inode) -> Result<(), Errno> {
        let is_dir = target.is_dir();
        let removed = {
            let mut state = self.state.lock();
            self.modified(&mut state, -i32::from(is_dir))?;
            state.dir.remove(name)
        };
        Node::of(target)?.add_links(if is_dir { -2 } else { -1 });
        drop(removed);
        Ok(())
    }

    pub(super) fn insert(&self, name: &FileName, inode: &Arc<Inode>) -> Result<(), Errno> {
        let mut state = self.state.lock();
        let shadows = match (state.dir.shadows(name), &self.lower) {
            (Some(known), _) => known,
            (None, None) => false,
            // Forgotten since it was looked up, or removed in this very change.
            (None, Some(lower)) => match lower.ops.lookup(lower, name, None) {
                Ok(_) => true,
                Err(Errno::ENOENT) => false,
                Err(e) => return Err(e),
            },
        };
        self.modified(&mut state, i32::from(inode.is_dir()))?;
        state.dir.insert(name, inode.clone(), shadows);
        Ok(())
    }

    /// ENOTEMPTY where the merged directory has an entry. The lower directory was read before (`prepare_removal`).
    fn check_empty(&self) -> Result<(), Errno> {
        let state = self.state.lock();
        let known = self.lower.is_none() || state.dir.is_loaded();
        if known && state.dir.is_empty() { Ok(()) } else { Err(Errno::ENOTEMPTY) }
    }
}

impl InodeOps for Node {
    fn attr(&self, _inode: &Inode) -> Result<Attr, Errno> {
        let state = self.state.lock();
        let lower = state.lower_attr.as_ref();
        let mut attr = match (&state.upper, lower) {
            (Some(upper), _) => upper.attr()?,
            (None, Some(attr)) => attr.clone(),
            (None, None) => return Err(Errno::EIO),
        };
        if let Some(lower) = lower.filter(|_| !self.is_changed()) {
            (attr.size, attr.blocks, attr.blksize) = (lower.size, lower.blocks, lower.blksize);
        }
        if attr.is_dir() && self.lower.is_none() {
            attr.size = state.dir.size();
        }
        attr.nlink = state.nlink;
        if let Some(at) = state.renamed_at {
            attr.ctime = attr.ctime.max(at);
        }
        Ok(attr)
    }

    fn set_attr(&self, _inode: &Inode, set: &SetAttr) -> Result<(), Errno> {
        let mut state = self.state.lock();
        let upper = self.upper(&mut state)?;
        if let Some(size) = set.size {
            self.copy_contents(&mut state, size)?;
        }
        upper.ops.set_attr(&upper, set)
    }

    fn lookup(&self, dir: &Inode, name: &FileName, task: Option<&CurrentTask>) -> Result<Arc<Inode>, Errno> {
        let mut state = self.state.lock();
        match state.dir.get(name) {
            Some(Entry::Child { inode, .. }) => return Ok(inode.clone()),
            Some(Entry::Whiteout | Entry::Absent) => return Err(Errno::ENOENT),
            None => {}
        }
        let Some(lower) = &self.lower else { return Err(Errno::ENOENT) };
        if state.dir.lacks(name) {
            return Err(Errno::ENOENT);
        }
        match lower.ops.lookup(lower, name, task) {
            Ok(found) => {
                let inode = Node::over(&self.fs, &dir.sb, found)?;
                state.dir.found(name, inode.clone());
                Ok(inode)
            }
            Err(Errno::ENOENT) => {
                if state.dir.missed(name) {
                    // Many names are looked for here in vain (a search path): know them all.
                    if let Some(task) = task {
                        let _ = state.dir.load(&self.fs, lower, task);
                    }
                }
                Err(Errno::ENOENT)
            }
            Err(e) => Err(e),
        }
    }

    fn create(
        &self,
        dir: &Inode,
        name: &FileName,
        node: NewNode<'_>,
        owner: Owner,
    ) -> Result<Arc<Inode>, Errno> {
        let inode = Node::fresh(&self.fs, &dir.sb, &node, owner)?;
        self.insert(name, &inode)?;
        Ok(inode)
    }

    fn create_unnamed(&self, dir: &Inode, owner: Owner) -> Result<Arc<Inode>, Errno> {
        let inode = Node::fresh(&self.fs, &dir.sb, &NewNode::Regular, owner)?;
        Node::of(&inode)?.add_links(-1);
        Ok(inode)
    }

    fn link(&self, _dir: &Inode, name: &FileName, target: &Arc<Inode>) -> Result<(), Errno> {
        self.insert(name, target)?;
        Node::of(target)?.add_links(1);
        Ok(())
    }

    fn unlink(&self, _dir: &Inode, name: &FileName, target: &Arc<Inode>) -> Result<(), Errno> {
        self.remove(name, target)
    }

    fn rmdir(&self, _dir: &Inode, name: &FileName, target: &Arc<Inode>) -> Result<(), Errno> {
        Node::of(target)?.check_empty()?;
        self.remove(name, target)
    }

    /// A lower file that is as it was can be looked up again.
    fn forget(&self, _dir: &Inode, name: &FileName, child: &Arc<Inode>) {
        let Ok(node) = Node::of(child) else { return };
        let clean = {
            let state = node.state.lock();
            node.lower.is_some()
                && state.upper.is_none()
                && state.renamed_at.is_none()
                && state.dir.is_clean()
        };
        // One reference is the entry's, one the dentry's.
        if clean && Arc::strong_count(child) <= 2 {
            let entry = self.state.lock().dir.forget(name);
            drop(entry);
        }
    }

    fn prepare_removal(&self, inode: &Inode, task: &CurrentTask) -> Result<(), Errno> {
        match &self.lower {
            Some(lower) if inode.is_dir() => self.state.lock().dir.load(&self.fs, lower, task),
            _ => Ok(()),
        }
    }

    fn rename(&self, _dir: &Inode, rename: &Rename<'_>) -> Result<(), Errno> {
        let new_dir = Node::of(rename.new_dir)?;
        if rename.exchange {
            let Some(other) = rename.replaced else { return Err(Errno::ENOENT) };
            let by = i32::from(other.is_dir()) - i32::from(rename.moved.is_dir());
            let swap = |dir: &Node, name: &FileName, inode: &Arc<Inode>, by: i32| {
                let mut state = dir.state.lock();
                dir.modified(&mut state, by)?;
                Ok::<_, Errno>(state.dir.replace(name, inode.clone()))
            };
            drop(swap(self, rename.name, other, by)?);
            drop(swap(new_dir, rename.new_name, rename.moved, -by)?);
        } else {
            if let Some(replaced) = rename.replaced {
                if replaced.is_dir() {
                    Node::of(replaced)?.check_empty()?;
                }
                new_dir.remove(rename.new_name, replaced)?;
            }
            let moved = {
                let mut state = self.state.lock();
                self.modified(&mut state, -i32::from(rename.moved.is_dir()))?;
                state.dir.remove(rename.name)
            };
            new_dir.insert(rename.new_name, rename.moved)?;
            drop(moved);
        }
        for inode in [Some(rename.moved), rename.replaced].into_iter().flatten() {
            Node::of(inode)?.add_links(0);
        }
        Ok(())
    }

    fn read_link(&self, inode: &Inode, task: Option<&CurrentTask>) -> Result<LinkTarget, Errno> {
        let mut state = self.state.lock();
        if let Some(target) = &state.target {
            return Ok(LinkTarget::Path(target.to_vec()));
        }
        if inode.kind != FileKind::Symlink {
            return Err(Errno::EINVAL);
        }
        match (&state.upper, &self.lower) {
            (Some(upper), _) => upper.ops.read_link(upper, task),
            (None, Some(lower)) => {
                let target = lower.ops.read_link(lower, task)?;
                if let LinkTarget::Path(text) = &target {
                    state.target = Some(text.as_slice().into());
                }
                Ok(target)
            }
            (None, None) => Err(Errno::EIO),
        }
    }

    fn open(
        &self,
        inode: &Arc<Inode>,
        flags: OpenFlags,
        task: &CurrentTask,
    ) -> Result<Box<dyn FileOps>, Errno> {
        match inode.kind {
            FileKind::Regular => Ok(Box::new(OverlayFile::open(self, flags, task)?)),
            FileKind::Directory => Ok(Box::new(OverlayDir)),
            _ => Err(Errno::ENXIO),
        }
    }

    /// Reading a lower file leaves no trace: its time would cost a copy.
    fn touch_atime(&self, _inode: &Inode, time: Realtime, relative: bool) {
        let upper = self.state.lock().upper.clone();
        if let Some(upper) = upper {
            upper.ops.touch_atime(&upper, time, relative);
        }
    }

    fn get_xattr(&self, _inode: &Inode, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let upper = self.state.lock().upper.clone();
        let layer = upper.or_else(|| self.lower.clone()).ok_or(Errno::EIO)?;
        layer.ops.get_xattr(&layer, name)
    }

    fn set_xattr(&self, _inode: &Inode, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        let upper = self.upper(&mut self.state.lock())?;
        upper.ops.set_xattr(&upper, name, value, flags)
    }

    fn list_xattr(&self, _inode: &Inode) -> Result<Vec<Vec<u8>>, Errno> {
        let upper = self.state.lock().upper.clone();
        let layer = upper.or_else(|| self.lower.clone()).ok_or(Errno::EIO)?;
        layer.ops.list_xattr(&layer)
    }

    fn remove_xattr(&self, _inode: &Inode, name: &[u8]) -> Result<(), Errno> {
        let upper = self.upper(&mut self.state.lock())?;
        upper.ops.remove_xattr(&upper, name)
    }
}

impl Drop for Node {
    /// As tmpfs: a deep tree is let go with a list, not by recursion.
    fn drop(&mut self) {
        let mut work = self.state.get_mut().dir.take_all();
        while let Some(inode) = work.pop() {
            if let Some(inode) = Arc::into_inner(inode)
                && let Some(node) = inode.ops_as::<Node>()
            {
                work.extend(node.state.lock().dir.take_all());
            }
        }
    }
}
