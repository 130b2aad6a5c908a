//! Files in memory: tmpfs mounts, and what an overlay keeps over its lower tree.
//!
//! A tree is stored as nodes and the entries that lead to them, parents first; contents are pages in a space of their own. A
//! restored container has mounted its file systems as a new one does, and the tree is put into them: what the kernel makes
//! itself (devices) is there already and is taken over.
//!
//! Invariant: restoring changes files of memory only, never a lower tree.

use std::collections::HashMap;
use std::sync::Arc;

use quicksand_abi::{Errno, PAGE_SIZE};
use quicksand_checkpoint::Image;

use super::moved::Origins;
use super::records::{self as rec, kind};
use super::restore::RestoreError;
use super::save::{SaveError, Saver, unsupported};
use crate::fs::{overlay, tmpfs};
use crate::kernel::Container;
use crate::time::Realtime;
use crate::vfs::walk::{WalkFlags, lookup_in};
use crate::vfs::{Attr, Dentry, DeviceId, FileKind, Inode, LinkTarget, Mount, NewNode, Owner, Path, SetAttr};

/// Spaces of file contents are numbered from here: address spaces have low numbers.
const FIRST_SPACE: u64 = 1 << 48;
/// Bytes of a file that are stored in one go.
const CHUNK: usize = 256 * PAGE_SIZE as usize;

/// The mounts whose files are in memory, each file system once: those that show its root.
fn mounts_in_memory(container: &Container) -> Vec<Arc<Mount>> {
    let mut found: Vec<Arc<Mount>> = Vec::new();
    for mount in container.initial_fs().namespace().mounts() {
        let sb = &mount.root.inode.sb;
        let is_root = mount.root.parent().is_none();
        let known = found.iter().any(|other| Arc::ptr_eq(&other.root.inode.sb, sb));
        if matches!(sb.fs_type, "tmpfs" | "overlay") && is_root && !known && mount.root.inode.is_dir() {
            found.push(mount);
        }
    }
    found
}

/// A tree while it is collected.
#[derive(Default)]
struct Collected {
    nodes: Vec<rec::TreeNode>,
    entries: Vec<rec::TreeEntry>,
    /// The place of a node, by its inode's id.
    places: HashMap<u64, u32>,
}

impl Saver<'_> {
    /// Stores the files in memory.
    pub(super) fn trees(&mut self) -> Result<(), SaveError> {
        let mut next_space = FIRST_SPACE;
        for (number, mount) in mounts_in_memory(self.container).into_iter().enumerate() {
            let place = Path::root_of(&mount);
            let shown = self.path(&place, "a mounted file system")?;
            let mut tree = Collected::default();
            self.node(&mut tree, &mount.root.inode, &mut next_space)?;
            let mut origins = None;
            let mut work = vec![(0u32, mount.root.inode.clone())];
            while let Some((dir, inode)) = work.pop() {
                for (name, child) in entries_of(&inode) {
                    let Some(child) = child else {
                        tree.entries.push(rec::TreeEntry { dir, name: name.into(), node: None });
                        continue;
                    };
                    if is_as_below(&child) {
                        continue;
                    }
                    let known = tree.places.get(&child.id).copied();
                    let node = match known {
                        Some(node) => node,
                        None => self.node(&mut tree, &child, &mut next_space)?,
                    };
                    if known.is_none() && !is_in_place(&inode, &name, &child) {
                        let origins = origins.get_or_insert_with(|| Origins::of(&mount.root.inode));
                        let Some(origin) = origins.find(&child) else {
                            let name = String::from_utf8_lossy(&name).into_owned();
                            return unsupported(format!("a file of the image was moved: {name:?}"));
                        };
                        if let Some(node) = tree.nodes.get_mut(node as usize) {
                            node.origin = Some(origin);
                        }
                    }
                    tree.entries.push(rec::TreeEntry { dir, name: name.into(), node: Some(node) });
                    if child.is_dir() && known.is_none() {
                        work.push((node, child));
                    }
                }
            }
            let fs_type = mount.root.inode.sb.fs_type.to_owned();
            let record = rec::Tree { mount: shown, fs_type, nodes: tree.nodes, entries: tree.entries };
            self.add(kind::TREE, number as u64, &record)?;
        }
        for (id, file) in std::mem::take(&mut self.unnamed) {
            let mount = self.path(&Path::root_of(&file.path.mount), "the mount of a removed file")?;
            let mut alone = Collected::default();
            self.node(&mut alone, &file.inode, &mut next_space)?;
            let Some(mut node) = alone.nodes.pop() else { continue };
            if node.contents.is_none() {
                // Removed, but not changed: the tree below has it no more for anybody else.
                node.contents = Some(self.lower_contents(&file.inode, &mut next_space)?);
            }
            let attr = file.inode.attr().map_err(|e| SaveError::Memory(format!("a removed file: {e:?}")))?;
            (node.lower, node.origin) = (false, None);
            node.attr = Some(tree_attr(&attr));
            let (name, linkable) = (file.path.dentry.name().into(), file.path.dentry.is_linkable());
            self.add(kind::UNNAMED, id, &rec::Unnamed { mount, name, linkable, node })?;
        }
        for (id, file) in std::mem::take(&mut self.memfds) {
            let mut alone = Collected::default();
            self.node(&mut alone, &file.inode, &mut next_space)?;
            let Some(node) = alone.nodes.pop() else { continue };
            let seals = tmpfs::memfd::seals_of(&file.inode).unwrap_or(0);
            let name = file.path.dentry.name().into();
            self.add(kind::MEMFD, id, &rec::Memfd { name, seals, node })?;
        }
        Ok(())
    }

    /// Stores what a file holds that is as the lower tree has it.
    fn lower_contents(
        &mut self,
        inode: &Inode,
        next_space: &mut u64,
    ) -> Result<rec::TreeContents, SaveError> {
        let size = inode.attr().map_err(|e| SaveError::Memory(format!("a removed file: {e:?}")))?.size;
        let space = *next_space;
        *next_space += 1;
        match overlay::changes(inode).and_then(|changes| changes.lower) {
            Some(lower) => self.contents(space, &lower, size)?,
            None => self.contents(space, inode, size)?,
        }
        Ok(rec::TreeContents { space, size })
    }

    /// Stores one file, and its contents where they are in memory. Returns its place.
    fn node(&mut self, tree: &mut Collected, inode: &Inode, next_space: &mut u64) -> Result<u32, SaveError> {
        let changes = overlay::changes(inode);
        let lower = changes.as_ref().is_some_and(|c| c.lower.is_some());
        let failed = |errno: Errno| SaveError::Memory(format!("a file in memory: {errno:?}"));
        // Where the attributes are in memory.
        let changed = changes.as_ref().is_none_or(|c| c.upper.is_some());
        let attr = inode.attr().map_err(failed)?;
        let in_memory = changes.as_ref().is_none_or(|c| c.contents);
        let contents = match inode.kind {
            FileKind::Regular if in_memory => {
                let holder = changes.as_ref().and_then(|c| c.upper.as_deref()).unwrap_or(inode);
                let space = *next_space;
                *next_space += 1;
                self.contents(space, holder, attr.size)?;
                Some(rec::TreeContents { space, size: attr.size })
            }
            _ => None,
        };
        let link = match inode.kind {
            FileKind::Symlink => match inode.ops.read_link(inode, None).map_err(failed)? {
                LinkTarget::Path(text) => text,
                LinkTarget::Jump(_) => return unsupported("a link that is no text"),
            },
            _ => Vec::new(),
        };
        let mut xattrs = Vec::new();
        if changed {
            for name in inode.ops.list_xattr(inode).unwrap_or_default() {
                let value = inode.ops.get_xattr(inode, &name).map_err(failed)?;
                xattrs.push((name, value));
            }
        }
        let place = u32::try_from(tree.nodes.len()).map_err(|_| failed(Errno::EFBIG))?;
        tree.places.insert(inode.id, place);
        tree.nodes.push(rec::TreeNode {
            format: format_of(inode.kind),
            lower,
            origin: None,
            attr: changed.then(|| tree_attr(&attr)),
            contents,
            link,
            device: (attr.rdev.major, attr.rdev.minor),
            xattrs,
        });
        Ok(place)
    }

    fn contents(&mut self, space: u64, inode: &Inode, size: u64) -> Result<(), SaveError> {
        if size == 0 {
            return Ok(());
        }
        let failed = |errno: Errno| SaveError::Memory(format!("a file in memory: {errno:?}"));
        let host = inode.ops.host_file(inode).map_err(failed)?;
        let mut buffer = vec![0; CHUNK];
        let mut at = 0;
        while at < size {
            // Holes are not stored. A host that knows none reports data everywhere.
            at = match rustix::fs::seek(&*host.fd, rustix::fs::SeekFrom::Data(at)) {
                Ok(data) => data - data % PAGE_SIZE,
                Err(rustix::io::Errno::NXIO) => break,
                Err(_) => at,
            };
            let want = usize::try_from(size - at).unwrap_or(CHUNK).min(CHUNK);
            let mut done = 0;
            while done < want {
                match rustix::io::pread(&*host.fd, &mut buffer[done..want], at + done as u64) {
                    Ok(0) => break,
                    Ok(n) => done += n,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(errno) => return Err(SaveError::Memory(format!("a file in memory: {errno}"))),
                }
            }
            if done == 0 {
                break;
            }
            let whole = done.next_multiple_of(PAGE_SIZE as usize);
            buffer[done..whole].fill(0);
            self.sink.pages(space, at / PAGE_SIZE, &buffer[..whole])?;
            self.saved.pages += whole as u64 / PAGE_SIZE;
            at += whole as u64;
        }
        Ok(())
    }
}

fn tree_attr(attr: &Attr) -> rec::TreeAttr {
    let (perm, uid, gid) = (attr.perm, attr.uid, attr.gid);
    rec::TreeAttr { perm, uid, gid, atime: attr.atime.0, mtime: attr.mtime.0 }
}

/// Makes a file without a name; where it is, to be opened.
pub(super) fn restore_unnamed(
    container: &Container,
    record: &rec::Unnamed,
    image: &Image,
) -> Result<Path, RestoreError> {
    let shown = String::from_utf8_lossy(&record.mount).into_owned();
    let failed = |errno: Errno| RestoreError::Memory(format!("a removed file at {shown}: {errno:?}"));
    let place =
        lookup_in(&container.initial_fs().root(), &record.mount, WalkFlags::empty()).map_err(failed)?;
    let dir = &place.dentry.inode;
    if !dir.is_dir() || record.name.is_empty() || record.name.len() > 255 || record.name.contains(&b'/') {
        return Err(RestoreError::Record(format!("a removed file at {shown}")));
    }
    let inode = dir.ops.create_unnamed(dir, owner(&record.node)).map_err(failed)?;
    fill(&inode, &record.node, image, &failed)?;
    let dentry = Dentry::new_child(&place.dentry, &record.name, inode);
    dentry.set_unlinked();
    if record.linkable {
        dentry.set_linkable();
    }
    Ok(Path::new(place.mount.clone(), dentry))
}

/// Makes a memfd, without its seals; where it is, to be opened.
pub(super) fn restore_memfd(id: u64, record: &rec::Memfd, image: &Image) -> Result<Path, RestoreError> {
    let shown = String::from_utf8_lossy(&record.name).into_owned();
    if !shown.starts_with("/memfd:") || shown.len() > 1024 {
        return Err(RestoreError::Record(format!("memfd {id}: its name")));
    }
    let place = tmpfs::memfd::restored(&shown, owner(&record.node));
    let failed = |errno: Errno| RestoreError::Memory(format!("{shown}: {errno:?}"));
    fill(&place.dentry.inode, &record.node, image, &failed)?;
    Ok(place)
}

fn entries_of(inode: &Inode) -> Vec<overlay::Known> {
    match overlay::changes(inode) {
        Some(changes) => changes.entries,
        None => {
            let all = tmpfs::entries(inode).unwrap_or_default();
            all.into_iter().map(|(name, inode)| (name, Some(inode))).collect()
        }
    }
}

/// Whether a file of an overlay, with all below it, is as the lower tree has it.
fn is_as_below(inode: &Inode) -> bool {
    let mut work: Vec<overlay::Changes> = match overlay::changes(inode) {
        Some(changes) => vec![changes],
        None => return false,
    };
    while let Some(changes) = work.pop() {
        if changes.lower.is_none() || changes.upper.is_some() || changes.contents || changes.renamed {
            return false;
        }
        for (_, child) in changes.entries {
            match child.as_deref().and_then(overlay::changes) {
                Some(changes) => work.push(changes),
                None => return false,
            }
        }
    }
    true
}

/// Whether a file of the lower tree is where the lower tree has it. Any other file is in its place.
fn is_in_place(dir: &Inode, name: &[u8], child: &Inode) -> bool {
    let Some(changes) = overlay::changes(child) else { return true };
    let Some(lower) = changes.lower.filter(|_| changes.renamed) else { return true };
    let below = overlay::changes(dir).and_then(|changes| changes.lower);
    let found = below.and_then(|dir| dir.ops.lookup(&dir, name, None).ok());
    found.is_some_and(|found| found.ino == lower.ino && found.sb.dev == lower.sb.dev)
}

fn format_of(kind: FileKind) -> u32 {
    match kind {
        FileKind::Regular | FileKind::Anonymous => libc::S_IFREG,
        FileKind::Directory => libc::S_IFDIR,
        FileKind::Symlink => libc::S_IFLNK,
        FileKind::Fifo => libc::S_IFIFO,
        FileKind::Socket => libc::S_IFSOCK,
        FileKind::CharDevice => libc::S_IFCHR,
        FileKind::BlockDevice => libc::S_IFBLK,
    }
}

/// Puts a stored tree into the file system that is mounted at its place.
pub(super) fn restore(container: &Container, record: &rec::Tree, image: &Image) -> Result<(), RestoreError> {
    let shown = String::from_utf8_lossy(&record.mount).into_owned();
    let wrong = |what: &str| RestoreError::Record(format!("files in memory at {shown}: {what}"));
    let failed = |errno: Errno| RestoreError::Memory(format!("files in memory at {shown}: {errno:?}"));
    let root = container.initial_fs().root();
    let place = lookup_in(&root, &record.mount, WalkFlags::empty()).map_err(failed)?;
    if !place.is_mount_root() || place.mount.root.inode.sb.fs_type != record.fs_type {
        return Err(RestoreError::Mount(format!("{} at {shown}", record.fs_type)));
    }
    let mut made: HashMap<u32, Arc<Inode>> = HashMap::from([(0, place.dentry.inode.clone())]);
    let node_of = |number: u32| record.nodes.get(number as usize).ok_or_else(|| wrong("an entry's file"));
    // What the kernel put into a fresh file system, and the checkpointed one has not.
    let mut extra: HashMap<u32, Vec<Box<[u8]>>> = HashMap::new();
    let names_in = |inode: &Inode| -> Vec<Box<[u8]>> {
        tmpfs::entries(inode).unwrap_or_default().into_iter().map(|(name, _)| name).collect()
    };
    extra.insert(0, names_in(&place.dentry.inode));
    for entry in &record.entries {
        let dir = made.get(&entry.dir).cloned().ok_or_else(|| wrong("an entry before its directory"))?;
        let name = entry.name.as_slice();
        if name.is_empty() || name.len() > 255 || name.contains(&b'/') || matches!(name, b"." | b"..") {
            return Err(wrong("a name"));
        }
        if let Some(names) = extra.get_mut(&entry.dir) {
            names.retain(|n| **n != *name);
        }
        let Some(number) = entry.node else {
            overlay::white_out(&dir, name).map_err(failed)?;
            continue;
        };
        if let Some(inode) = made.get(&number) {
            if inode.is_dir() {
                return Err(wrong("a directory with two names"));
            }
            dir.ops.link(&dir, name, inode).map_err(failed)?;
            continue;
        }
        let node = node_of(number)?;
        if let Some(origin) = &node.origin {
            let shown = String::from_utf8_lossy(origin).into_owned();
            let gone = |errno: Errno| RestoreError::Gone(format!("{shown} ({errno})"));
            let inode = overlay::adopt(&place.dentry.inode, &dir, name, origin).map_err(gone)?;
            if format_of(inode.kind) != node.format {
                return Err(wrong("a file that is of another kind now"));
            }
            made.insert(number, inode);
            continue;
        }
        let there = match dir.ops.lookup(&dir, name, None) {
            Ok(inode) => Some(inode),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(failed(errno)),
        };
        let inode = match there {
            // A mount point, or what the lower tree has.
            Some(inode) if overlay::changes(&inode).is_none_or(|c| c.lower.is_some() == node.lower) => {
                if format_of(inode.kind) != node.format {
                    return Err(wrong("a file that is of another kind now"));
                }
                inode
            }
            None if node.lower => {
                let name = String::from_utf8_lossy(name).into_owned();
                return Err(RestoreError::Gone(format!("{name:?} below {shown}")));
            }
            _ => dir.ops.create(&dir, name, new_node(node, &wrong)?, owner(node)).map_err(failed)?,
        };
        if inode.is_dir() {
            extra.insert(number, names_in(&inode));
        }
        made.insert(number, inode);
    }
    for (number, names) in extra {
        let Some(dir) = made.get(&number).filter(|_| record.fs_type == "tmpfs") else { continue };
        for name in names {
            let target = dir.ops.lookup(dir, &name, None).map_err(failed)?;
            let removed = match target.is_dir() {
                true => dir.ops.rmdir(dir, &name, &target),
                false => dir.ops.unlink(dir, &name, &target),
            };
            removed.map_err(failed)?;
        }
    }
    for (number, inode) in &made {
        fill(inode, node_of(*number)?, image, &failed)?;
    }
    Ok(())
}

fn owner(node: &rec::TreeNode) -> Owner {
    let attr = node.attr.unwrap_or(rec::TreeAttr { perm: 0, uid: 0, gid: 0, atime: 0, mtime: 0 });
    Owner { uid: attr.uid, gid: attr.gid, perm: attr.perm & 0o7777 }
}

fn new_node<'a>(
    node: &'a rec::TreeNode,
    wrong: &dyn Fn(&str) -> RestoreError,
) -> Result<NewNode<'a>, RestoreError> {
    let device = DeviceId::new(node.device.0, node.device.1);
    Ok(match node.format {
        libc::S_IFREG => NewNode::Regular,
        libc::S_IFDIR => NewNode::Directory,
        libc::S_IFLNK if node.link.len() <= 4095 => NewNode::Symlink(&node.link),
        libc::S_IFIFO => NewNode::Fifo,
        libc::S_IFSOCK => NewNode::Socket,
        libc::S_IFCHR => NewNode::CharDevice(device),
        libc::S_IFBLK => NewNode::BlockDevice(device),
        _ => return Err(wrong("a file of no kind")),
    })
}

/// Gives a file its contents and attributes.
fn fill(
    inode: &Arc<Inode>,
    node: &rec::TreeNode,
    image: &Image,
    failed: &dyn Fn(Errno) -> RestoreError,
) -> Result<(), RestoreError> {
    if let Some(contents) = node.contents {
        let holder = match overlay::changes(inode) {
            Some(_) => overlay::upper_of(inode, true).map_err(failed)?,
            None => inode.clone(),
        };
        for extent in image.extents()?.space(contents.space) {
            image.read_pages(extent, |page, bytes| {
                let at = page.checked_mul(PAGE_SIZE).filter(|at| *at < contents.size);
                let Some(at) = at else { return Err(failed(Errno::EFBIG)) };
                let len = usize::try_from(contents.size - at).unwrap_or(usize::MAX).min(bytes.len());
                tmpfs::fill(&holder, at, &bytes[..len]).map_err(failed)
            })?;
        }
        let set = SetAttr { size: Some(contents.size), ..SetAttr::default() };
        holder.ops.set_attr(&holder, &set).map_err(failed)?;
    }
    for (name, value) in &node.xattrs {
        inode.ops.set_xattr(inode, name, value, 0).map_err(failed)?;
    }
    if let Some(attr) = node.attr {
        let set = SetAttr {
            perm: Some(attr.perm & 0o7777),
            uid: Some(attr.uid),
            gid: Some(attr.gid),
            size: None,
            atime: Some(Realtime(attr.atime)),
            mtime: Some(Realtime(attr.mtime)),
        };
        inode.ops.set_attr(inode, &set).map_err(failed)?;
    }
    Ok(())
}
