//! tmpfs: files in memory. Also what stands behind memfds, and the writable layer of `fs::overlay`.
//!
//! A [`Node`] is what an inode of any kind consists of. Contents of small files are on the Sentry's heap; a file that
//! grows or is mapped moves to a host memfd of its own ([`file`]). Directories keep their entries by cookie, so that
//! a directory being read stays in order while it changes ([`dir`]). Limits (`size=`, `nr_inodes=`) are counted in
//! [`Space`].
//!
//! Lock order: one node's `state` at a time, never two.

mod dir;
mod file;
pub mod memfd;
mod options;
mod space;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use quicksand_abi::Errno;

use crate::sync::{Level, Mutex};
use crate::task::CurrentTask;
use crate::time::Realtime;
use crate::vfs::inode::Rename;
use crate::vfs::{
    Attr, Dentry, DeviceId, FileKind, FileName, FileOps, HostMapping, Inode, InodeOps, LinkTarget, Mount,
    MountFlags, NewNode, OpenFlags, Owner, SetAttr, Superblock, now,
};

pub(crate) use dir::emit_dots;
pub use options::Options;
use space::{Space, SpaceStat};

/// `TMPFS_MAGIC`.
pub const MAGIC: u64 = 0x0102_1994;
/// Bytes of extended attributes one inode may have.
const XATTR_LIMIT: usize = 1 << 20;
/// What a directory entry counts for in a directory's size.
const DIRENT_BYTES: u64 = 20;

/// One file, whatever its kind.
#[derive(Debug)]
pub(crate) struct Node {
    space: Arc<Space>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    perm: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    atime: Realtime,
    mtime: Realtime,
    ctime: Realtime,
    btime: Realtime,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    File(file::Data),
    Dir(dir::Entries),
    Symlink(Box<[u8]>),
    Device(DeviceId),
    /// FIFOs and sockets: what they do is not in the file system.
    Other,
}

impl State {
    /// Contents changed.
    fn modified(&mut self) {
        self.mtime = now();
        self.ctime = self.mtime;
    }
    fn dir(&mut self) -> Result<&mut dir::Entries, Errno> {
        match &mut self.body {
            Body::Dir(entries) => Ok(entries),
            _ => Err(Errno::ENOTDIR),
        }
    }
    fn file(&mut self) -> Result<&mut file::Data, Errno> {
        match &mut self.body {
            Body::File(data) => Ok(data),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// Makes a file system; its root directory.
pub fn new(options: &Options) -> Arc<Dentry> {
    let space = Arc::new(Space::new(options.max_pages, options.max_inodes));
    let sb = Superblock::new("tmpfs", MAGIC, Box::new(SpaceStat(space.clone())));
    let owner = Owner { uid: options.uid, gid: options.gid, perm: options.mode };
    // The root counts as an inode, and is made whatever the limit.
    space.force_inode();
    let root = new_inode(&sb, space, FileKind::Directory, Body::Dir(dir::Entries::default()), owner);
    Dentry::new_root(root, b"/")
}

/// Makes a file system and a mount of it, from the data of `mount(2)`.
pub fn mount(source: &[u8], data: &[u8], flags: MountFlags) -> Result<Arc<Mount>, Errno> {
    let options = Options::parse(data)?;
    Ok(Mount::new(new(&options), flags, source, options.shown().as_bytes()))
}

/// Nodes without a directory: what `fs::overlay` keeps its changes in.
#[derive(Debug)]
pub(crate) struct Layer {
    sb: Arc<Superblock>,
    space: Arc<Space>,
}

impl Layer {
    pub(crate) fn new(options: &Options) -> Layer {
        let space = Arc::new(Space::new(options.max_pages, options.max_inodes));
        let sb = Superblock::new("tmpfs", MAGIC, Box::new(SpaceStat(space.clone())));
        Layer { sb, space }
    }
    /// A new node in no directory.
    pub(crate) fn make(&self, node: &NewNode<'_>, owner: Owner) -> Result<Arc<Inode>, Errno> {
        make(&self.sb, &self.space, node, owner)
    }
    pub(crate) fn superblock(&self) -> &Arc<Superblock> {
        &self.sb
    }
}

/// What an open regular file of this file system does.
pub(crate) fn file_ops() -> Box<dyn FileOps> {
    Box::new(file::TmpfsFile)
}

/// The entries of a directory of this file system, and `None` for anything else.
pub(crate) fn entries(inode: &Inode) -> Option<Vec<(Box<FileName>, Arc<Inode>)>> {
    match &inode.ops_as::<Node>()?.state.lock().body {
        Body::Dir(entries) => Some(entries.list()),
        _ => None,
    }
}

/// Writes `data` into a regular file of this file system; ENOSPC where not all of it fits.
pub(crate) fn fill(inode: &Inode, offset: u64, data: &[u8]) -> Result<(), Errno> {
    let node = Node::of(inode)?;
    let written = node.state.lock().file()?.write(&node.space, offset, data)?;
    if written == data.len() { Ok(()) } else { Err(Errno::ENOSPC) }
}

fn make(
    sb: &Arc<Superblock>,
    space: &Arc<Space>,
    node: &NewNode<'_>,
    owner: Owner,
) -> Result<Arc<Inode>, Errno> {
    let (kind, body) = match node {
        NewNode::Regular => (FileKind::Regular, Body::File(file::Data::default())),
        NewNode::Directory => (FileKind::Directory, Body::Dir(dir::Entries::default())),
        NewNode::Symlink(target) => (FileKind::Symlink, Body::Symlink((*target).into())),
        NewNode::Fifo => (FileKind::Fifo, Body::Other),
        NewNode::Socket => (FileKind::Socket, Body::Other),
        NewNode::CharDevice(dev) => (FileKind::CharDevice, Body::Device(*dev)),
        NewNode::BlockDevice(dev) => (FileKind::BlockDevice, Body::Device(*dev)),
    };
    space.take_inode()?;
    Ok(new_inode(sb, space.clone(), kind, body, owner))
}

fn new_inode(
    sb: &Arc<Superblock>,
    space: Arc<Space>,
    kind: FileKind,
    body: Body,
    owner: Owner,
) -> Arc<Inode> {
    let time = now();
    let state = State {
        perm: owner.perm,
        uid: owner.uid,
        gid: owner.gid,
        nlink: if kind == FileKind::Directory { 2 } else { 1 },
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        xattrs: BTreeMap::new(),
        body,
    };
    Inode::new(sb, sb.next_ino(), kind, Box::new(Node { space, state: Mutex::new(Level::Inode, state) }))
}

impl Node {
    fn of(inode: &Inode) -> Result<&Node, Errno> {
        inode.ops_as::<Node>().ok_or(Errno::EXDEV)
    }

    /// A new node in the same file system as `self`, in no directory.
    fn make(&self, sb: &Arc<Superblock>, node: &NewNode<'_>, owner: Owner) -> Result<Arc<Inode>, Errno> {
        make(sb, &self.space, node, owner)
    }

    fn add_links(&self, by: i32) {
        let mut state = self.state.lock();
        state.nlink = state.nlink.saturating_add_signed(by);
        state.ctime = now();
    }

    /// Removes a name; the target loses a link.
    fn remove(&self, name: &FileName, target: &Inode) -> Result<(), Errno> {
        let removed = {
            let mut state = self.state.lock();
            let removed = state.dir()?.remove(name).ok_or(Errno::ENOENT)?;
            if target.is_dir() {
                state.nlink = state.nlink.saturating_sub(1);
            }
            state.modified();
            removed
        };
        Node::of(target)?.add_links(if target.is_dir() { -2 } else { -1 });
        drop(removed);
        Ok(())
    }

    fn insert(&self, name: &FileName, inode: &Arc<Inode>) -> Result<(), Errno> {
        let mut state = self.state.lock();
        state.dir()?.insert(name, inode.clone());
        if inode.is_dir() {
            state.nlink = state.nlink.saturating_add(1);
        }
        state.modified();
        Ok(())
    }
}

impl InodeOps for Node {
    fn attr(&self, inode: &Inode) -> Result<Attr, Errno> {
        let state = self.state.lock();
        let (size, blocks, rdev) = match &state.body {
            Body::File(data) => (data.size(), data.pages()? * 8, DeviceId::default()),
            Body::Dir(entries) => (DIRENT_BYTES * (2 + entries.len() as u64), 0, DeviceId::default()),
            Body::Symlink(target) => (target.len() as u64, 0, DeviceId::default()),
            Body::Device(dev) => (0, 0, *dev),
            Body::Other => (0, 0, DeviceId::default()),
        };
        Ok(Attr {
            kind: inode.kind,
            perm: state.perm,
            nlink: state.nlink,
            uid: state.uid,
            gid: state.gid,
            rdev,
            size,
            blocks,
            blksize: 4096,
            atime: state.atime,
            mtime: state.mtime,
            ctime: state.ctime,
            btime: Some(state.btime),
        })
    }

    fn set_attr(&self, _inode: &Inode, set: &SetAttr) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if let Some(size) = set.size {
            state.file()?.set_size(&self.space, size)?;
        }
        let state = &mut *state;
        let assign = |to: &mut u32, value: Option<u32>| *to = value.unwrap_or(*to);
        assign(&mut state.perm, set.perm);
        assign(&mut state.uid, set.uid);
        assign(&mut state.gid, set.gid);
        state.atime = set.atime.unwrap_or(state.atime);
        state.mtime = set.mtime.unwrap_or(state.mtime);
        state.ctime = now();
        Ok(())
    }

    fn lookup(
        &self,
        _dir: &Inode,
        name: &FileName,
        _task: Option<&CurrentTask>,
    ) -> Result<Arc<Inode>, Errno> {
        self.state.lock().dir()?.get(name).ok_or(Errno::ENOENT)
    }

    fn create(
        &self,
        dir: &Inode,
        name: &FileName,
        node: NewNode<'_>,
        owner: Owner,
    ) -> Result<Arc<Inode>, Errno> {
        let inode = self.make(&dir.sb, &node, owner)?;
        self.insert(name, &inode)?;
        Ok(inode)
    }

    fn create_unnamed(&self, dir: &Inode, owner: Owner) -> Result<Arc<Inode>, Errno> {
        let inode = self.make(&dir.sb, &NewNode::Regular, owner)?;
        Node::of(&inode)?.add_links(-1);
        Ok(inode)
    }

    fn link(&self, _dir: &Inode, name: &FileName, target: &Arc<Inode>) -> Result<(), Errno> {
        Node::of(target)?.add_links(1);
        self.insert(name, target)
    }

    fn unlink(&self, _dir: &Inode, name: &FileName, target: &Arc<Inode>) -> Result<(), Errno> {
        self.remove(name, target)
    }

    fn rmdir(&self, _dir: &Inode, name: &FileName, target: &Arc<Inode>) -> Result<(), Errno> {
        if Node::of(target)?.state.lock().dir()?.len() > 0 {
            return Err(Errno::ENOTEMPTY);
        }
        self.remove(name, target)
    }

    fn rename(&self, _dir: &Inode, rename: &Rename<'_>) -> Result<(), Errno> {
        let new_dir = Node::of(rename.new_dir)?;
        if rename.exchange {
            let Some(other) = rename.replaced else { return Err(Errno::ENOENT) };
            self.replace(rename.name, other, rename.moved.is_dir())?;
            new_dir.replace(rename.new_name, rename.moved, other.is_dir())?;
        } else {
            if let Some(replaced) = rename.replaced {
                if replaced.is_dir() && Node::of(replaced)?.state.lock().dir()?.len() > 0 {
                    return Err(Errno::ENOTEMPTY);
                }
                new_dir.remove(rename.new_name, replaced)?;
            }
            let mut state = self.state.lock();
            let moved = state.dir()?.remove(rename.name).ok_or(Errno::ENOENT)?;
            if moved.is_dir() {
                state.nlink = state.nlink.saturating_sub(1);
            }
            state.modified();
            drop(state);
            new_dir.insert(rename.new_name, &moved)?;
        }
        for inode in [Some(rename.moved), rename.replaced].into_iter().flatten() {
            Node::of(inode)?.state.lock().ctime = now();
        }
        Ok(())
    }

    fn read_link(&self, _inode: &Inode, _task: Option<&CurrentTask>) -> Result<LinkTarget, Errno> {
        match &self.state.lock().body {
            Body::Symlink(target) => Ok(LinkTarget::Path(target.to_vec())),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(
        &self,
        inode: &Arc<Inode>,
        _flags: OpenFlags,
        _task: &CurrentTask,
    ) -> Result<Box<dyn FileOps>, Errno> {
        match inode.kind {
            FileKind::Regular => Ok(Box::new(file::TmpfsFile)),
            FileKind::Directory => Ok(Box::new(dir::TmpfsDir)),
            _ => Err(Errno::ENXIO),
        }
    }

    fn host_file(&self, _inode: &Inode) -> Result<HostMapping, Errno> {
        Ok(HostMapping { fd: self.state.lock().file()?.move_to_host()?, offset: 0, writable: true })
    }

    fn touch_atime(&self, _inode: &Inode, time: Realtime, relative: bool) {
        const DAY_NS: i64 = 86_400_000_000_000;
        let mut state = self.state.lock();
        let old = state.atime;
        if !relative || old <= state.mtime || old <= state.ctime || time.0.saturating_sub(old.0) >= DAY_NS {
            state.atime = time;
        }
    }

    fn get_xattr(&self, _inode: &Inode, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.state.lock().xattrs.get(name).cloned().ok_or(Errno::ENODATA)
    }

    fn set_xattr(&self, _inode: &Inode, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        let mut state = self.state.lock();
        let old = state.xattrs.get(name);
        if flags & libc::XATTR_CREATE as u32 != 0 && old.is_some() {
            return Err(Errno::EEXIST);
        }
        if flags & libc::XATTR_REPLACE as u32 != 0 && old.is_none() {
            return Err(Errno::ENODATA);
        }
        let others = state.xattrs.iter().filter(|(n, _)| n.as_slice() != name);
        let used: usize = others.map(|(n, v)| n.len() + v.len()).sum();
        if used + name.len() + value.len() > XATTR_LIMIT {
            return Err(Errno::ENOSPC);
        }
        state.xattrs.insert(name.to_vec(), value.to_vec());
        state.ctime = now();
        Ok(())
    }

    fn list_xattr(&self, _inode: &Inode) -> Result<Vec<Vec<u8>>, Errno> {
        Ok(self.state.lock().xattrs.keys().cloned().collect())
    }

    fn remove_xattr(&self, _inode: &Inode, name: &[u8]) -> Result<(), Errno> {
        let mut state = self.state.lock();
        state.xattrs.remove(name).ok_or(Errno::ENODATA)?;
        state.ctime = now();
        Ok(())
    }
}

impl Node {
    /// An entry now leads to another inode (`RENAME_EXCHANGE`).
    fn replace(&self, name: &FileName, inode: &Arc<Inode>, was_dir: bool) -> Result<(), Errno> {
        let mut state = self.state.lock();
        let old = state.dir()?.replace(name, inode.clone()).ok_or(Errno::ENOENT)?;
        let by = i32::from(inode.is_dir()) - i32::from(was_dir);
        state.nlink = state.nlink.saturating_add_signed(by);
        state.modified();
        drop(state);
        drop(old);
        Ok(())
    }
}

impl Drop for Node {
    /// A tree may be as deep as a guest made it: it is let go with a list of what is left, not by recursion.
    fn drop(&mut self) {
        self.space.put_inode();
        match &mut self.state.get_mut().body {
            Body::File(data) => data.release(&self.space),
            Body::Dir(entries) => {
                let mut work = entries.take_all();
                while let Some(inode) = work.pop() {
                    if let Some(inode) = Arc::into_inner(inode)
                        && let Some(node) = inode.ops_as::<Node>()
                        && let Body::Dir(entries) = &mut node.state.lock().body
                    {
                        work.extend(entries.take_all());
                    }
                }
            }
            _ => {}
        }
    }
}
