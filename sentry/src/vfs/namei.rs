//! Changes to directories: make, link, remove and rename entries (Linux's `fs/namei.c`).
//!
//! A directory changes under its dentry's `children` lock. A directory that is to be removed is locked too (parent first),
//! so that nobody adds to it meanwhile. A rename across directories holds the file system's rename lock, under which the
//! tree keeps its shape, and locks the higher directory first.

use std::sync::Arc;

use quicksand_abi::Errno;

use super::dentry::{Children, Dentry};
use super::inode::{DeviceId, FileKind, Inode, NewNode, Rename};
use super::mount::Path;
use super::notify;
use super::perm::{self, Access};
use super::walk::{Last, NameBuf, WalkFlags, Walker};
use crate::sync::MutexGuard;
use crate::syscalls::Fd;
use crate::task::credentials::Caps;
use crate::task::{Credentials, CurrentTask};

/// What `mkdir`, `mknod` and `symlink` make.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    pub node: &'a NewNode<'a>,
    /// Before the umask.
    pub mode: u32,
}

fn kind_of(node: &NewNode<'_>) -> FileKind {
    match node {
        NewNode::Regular => FileKind::Regular,
        NewNode::Directory => FileKind::Directory,
        NewNode::Symlink(_) => FileKind::Symlink,
        NewNode::Fifo => FileKind::Fifo,
        NewNode::Socket => FileKind::Socket,
        NewNode::CharDevice(_) => FileKind::CharDevice,
        NewNode::BlockDevice(_) => FileKind::BlockDevice,
    }
}

/// Makes a node at `path`; the place it got. EEXIST where something is there. (`bind(2)` of a Unix socket uses it, too.)
pub fn create(task: &CurrentTask, dirfd: Fd, path: &[u8], new: NewEntry<'_>) -> Result<Path, Errno> {
    let umask = task.fs().umask();
    let creds = task.creds();
    let kind = kind_of(new.node);
    let is_dir = kind == FileKind::Directory;
    let made = add_entry(task, dirfd, path, is_dir, |dir, name| {
        perm::may_create(&creds, dir)?;
        if is_device(new.node) && !creds.has(Caps::MKNOD) {
            return Err(Errno::EPERM);
        }
        let inode = &dir.dentry.inode;
        let mode = if kind == FileKind::Symlink { 0o777 } else { new.mode & !umask };
        let owner = perm::new_owner(&creds, &inode.attr()?, kind, mode);
        inode.ops.create(inode, name, new.node.clone(), owner)
    })?;
    notify_made(&made);
    Ok(made)
}

/// Tells the directory of a new entry.
fn notify_made(made: &Path) {
    if let Some(dir) = made.dentry.parent() {
        notify::entry(&dir.inode, &made.dentry.name(), notify::CREATE, &made.dentry.inode);
    }
}

/// A device that only CAP_MKNOD may make. Everybody may make the device 0:0, which is no device (a whiteout).
fn is_device(node: &NewNode<'_>) -> bool {
    match node {
        NewNode::CharDevice(dev) => *dev != DeviceId::default(),
        NewNode::BlockDevice(_) => true,
        _ => false,
    }
}

/// Walks to where a new entry goes (`filename_create`) and lets `make` add it, with the directory locked.
fn add_entry(
    task: &CurrentTask,
    dirfd: Fd,
    path: &[u8],
    is_dir: bool,
    make: impl FnOnce(&Path, &[u8]) -> Result<Arc<Inode>, Errno>,
) -> Result<Path, Errno> {
    let mut walker = Walker::new(task, dirfd, path, WalkFlags::empty())?;
    let (name, trailing_slash) = walker.parent()?.name(Errno::EEXIST)?;
    let dir = walker.at;
    let mut children = dir.dentry.children.lock();
    match dir.dentry.lookup_locked(&mut children, &name, Some(task)) {
        Ok(_) => return Err(Errno::EEXIST),
        Err(Errno::ENOENT) if trailing_slash && !is_dir => return Err(Errno::ENOENT),
        Err(Errno::ENOENT) => {}
        Err(e) => return Err(e),
    }
    perm::want_write(&dir)?;
    let inode = make(&dir, &name)?;
    let dentry = Dentry::new_child(&dir.dentry, &name, inode);
    dir.dentry.remember(&mut children, &name, &dentry);
    drop(children);
    Ok(Path::new(dir.mount, dentry))
}

/// `linkat(2)`: a new name at `path` for the file at `old`.
pub fn link(task: &CurrentTask, old: &Path, dirfd: Fd, path: &[u8]) -> Result<(), Errno> {
    let creds = task.creds();
    let target = &old.dentry.inode;
    let made = add_entry(task, dirfd, path, false, |dir, name| {
        if !Arc::ptr_eq(&dir.mount, &old.mount) {
            return Err(Errno::EXDEV);
        }
        perm::may_create(&creds, dir)?;
        if target.is_dir() {
            return Err(Errno::EPERM);
        }
        if target.attr()?.nlink == 0 && !old.dentry.is_linkable() {
            return Err(Errno::ENOENT);
        }
        let inode = &dir.dentry.inode;
        inode.ops.link(inode, name, target)?;
        Ok(target.clone())
    })?;
    notify::inode(target, notify::ATTRIB);
    notify_made(&made);
    Ok(())
}

/// `unlink(2)`.
pub fn unlink(task: &CurrentTask, dirfd: Fd, path: &[u8]) -> Result<(), Errno> {
    let mut walker = Walker::new(task, dirfd, path, WalkFlags::empty())?;
    let (name, trailing_slash) = walker.parent()?.name(Errno::EISDIR)?;
    let dir = walker.at;
    let mut children = dir.dentry.children.lock();
    perm::want_write(&dir)?;
    let victim = dir.dentry.lookup_locked(&mut children, &name, Some(task))?;
    if trailing_slash {
        return Err(if victim.inode.is_dir() { Errno::EISDIR } else { Errno::ENOTDIR });
    }
    let inode = &dir.dentry.inode;
    perm::may_delete(&task.creds(), inode, &victim.inode, false)?;
    not_mounted(&victim)?;
    inode.ops.unlink(inode, &name, &victim.inode)?;
    children.remove(&*name);
    victim.set_unlinked();
    drop(children);
    notify::inode(&victim.inode, notify::ATTRIB);
    notify::unlinked(&victim);
    notify::entry(&dir.dentry.inode, &name, notify::DELETE, &victim.inode);
    // The last reference may take a while to go: not under the lock.
    drop(victim);
    Ok(())
}

/// `rmdir(2)`.
pub fn rmdir(task: &CurrentTask, dirfd: Fd, path: &[u8]) -> Result<(), Errno> {
    let mut walker = Walker::new(task, dirfd, path, WalkFlags::empty())?;
    let name = match walker.parent()? {
        Last::Name { name, .. } => name,
        Last::Dot => return Err(Errno::EINVAL),
        Last::DotDot => return Err(Errno::ENOTEMPTY),
        Last::Root => return Err(Errno::EBUSY),
        Last::TooLong => return Err(Errno::ENAMETOOLONG),
    };
    let dir = walker.at;
    let mut children = dir.dentry.children.lock();
    perm::want_write(&dir)?;
    let victim = dir.dentry.lookup_locked(&mut children, &name, Some(task))?;
    let inode = &dir.dentry.inode;
    perm::may_delete(&task.creds(), inode, &victim.inode, true)?;
    not_mounted(&victim)?;
    victim.inode.ops.prepare_removal(&victim.inode, task)?;
    {
        // Below the directory already locked, so nobody waits the other way round.
        let mut below = victim.children.lock_second();
        inode.ops.rmdir(inode, &name, &victim.inode)?;
        below.clear();
        victim.set_unlinked();
    }
    children.remove(&*name);
    drop(children);
    notify::unlinked(&victim);
    notify::entry(&dir.dentry.inode, &name, notify::DELETE, &victim.inode);
    drop(victim);
    Ok(())
}

/// What is a mount point stays.
fn not_mounted(dentry: &Dentry) -> Result<(), Errno> {
    if dentry.mounted.load(std::sync::atomic::Ordering::Acquire) > 0 { Err(Errno::EBUSY) } else { Ok(()) }
}

bitflags::bitflags! {
    /// RENAME_ flags.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RenameFlags: u32 {
        const NOREPLACE = 1;
        const EXCHANGE = 2;
    }
}

/// Two directories of one file system, locked; one lock where they are the same.
struct Locked<'a> {
    first: MutexGuard<'a, Children>,
    second: Option<MutexGuard<'a, Children>>,
    old_is_first: bool,
}

impl<'a> Locked<'a> {
    /// The caller holds the file system's rename lock where the two differ.
    fn new(old: &'a Arc<Dentry>, new: &'a Arc<Dentry>) -> Locked<'a> {
        if Arc::ptr_eq(old, new) {
            return Locked { first: old.children.lock(), second: None, old_is_first: true };
        }
        // The higher one first; unrelated ones in the order of their inodes. Other lockers of two take parent and child.
        let old_is_first = new.is_below(old) || (!old.is_below(new) && old.inode.id < new.inode.id);
        let (a, b) = if old_is_first { (old, new) } else { (new, old) };
        let first = a.children.lock();
        Locked { first, second: Some(b.children.lock_second()), old_is_first }
    }
    fn old(&mut self) -> &mut Children {
        match (&mut self.second, self.old_is_first) {
            (Some(second), false) => second,
            _ => &mut self.first,
        }
    }
    fn new_dir(&mut self) -> &mut Children {
        match (&mut self.second, self.old_is_first) {
            (Some(second), true) => second,
            _ => &mut self.first,
        }
    }
}

/// A directory and an entry of it, as a path named them.
struct Entry {
    dir: Path,
    name: NameBuf,
    trailing_slash: bool,
}

/// `renameat2(2)`.
pub fn rename(
    task: &CurrentTask,
    old_fd: Fd,
    old_path: &[u8],
    new_fd: Fd,
    new_path: &[u8],
    flags: RenameFlags,
) -> Result<(), Errno> {
    // Both paths are walked, and must be on one mount, before either last name is judged.
    let mut old = Walker::new(task, old_fd, old_path, WalkFlags::empty())?;
    let old_last = old.parent()?;
    let mut new = Walker::new(task, new_fd, new_path, WalkFlags::empty())?;
    let new_last = new.parent()?;
    if !Arc::ptr_eq(&old.at.mount, &new.at.mount) {
        return Err(Errno::EXDEV);
    }
    let special = |last: &Last| matches!(last, Last::Dot | Last::DotDot | Last::Root);
    if special(&old_last) {
        return Err(Errno::EBUSY);
    }
    if special(&new_last) {
        let no_replace = flags.contains(RenameFlags::NOREPLACE);
        return Err(if no_replace { Errno::EEXIST } else { Errno::EBUSY });
    }
    let entry = |dir: Path, last: Last| {
        let (name, trailing_slash) = last.name(Errno::EBUSY)?;
        Ok::<_, Errno>(Entry { dir, name, trailing_slash })
    };
    let (old, new) = (entry(old.at, old_last)?, entry(new.at, new_last)?);
    perm::want_write(&old.dir)?;
    let (old_dir, new_dir) = (&old.dir.dentry, &new.dir.dentry);
    let across = !Arc::ptr_eq(old_dir, new_dir);
    let _rename = across.then(|| old_dir.inode.sb.rename.lock());
    let mut locked = Locked::new(old_dir, new_dir);
    let moved = old_dir.lookup_locked(locked.old(), &old.name, Some(task))?;
    let replaced = match new_dir.lookup_locked(locked.new_dir(), &new.name, Some(task)) {
        Ok(dentry) => Some(dentry),
        Err(Errno::ENOENT) => None,
        Err(e) => return Err(e),
    };
    check_rename(task, &old, &new, &moved, replaced.as_ref(), flags)?;
    if let Some(replaced) = &replaced
        && Arc::ptr_eq(&replaced.inode, &moved.inode)
    {
        return Ok(());
    }
    not_mounted(&moved)?;
    if let Some(replaced) = &replaced {
        not_mounted(replaced)?;
        replaced.inode.ops.prepare_removal(&replaced.inode, task)?;
    }
    let exchange = flags.contains(RenameFlags::EXCHANGE);
    // A directory that goes away is locked, as in rmdir: it is below one of the two.
    let goes = replaced.as_ref().filter(|r| !exchange && r.inode.is_dir());
    let mut goes_children = goes.map(|r| r.children.lock_second());
    let what = Rename {
        name: &old.name,
        moved: &moved.inode,
        new_dir: &new_dir.inode,
        new_name: &new.name,
        replaced: replaced.as_ref().map(|r| &r.inode),
        exchange,
    };
    old_dir.inode.ops.rename(&old_dir.inode, &what)?;
    locked.old().remove(&*old.name);
    moved.set_place(new_dir, &new.name);
    match &replaced {
        Some(other) if exchange => {
            other.set_place(old_dir, &old.name);
            old_dir.remember(locked.old(), &old.name, other);
        }
        Some(gone) => {
            if let Some(children) = &mut goes_children {
                children.clear();
            }
            gone.set_unlinked();
        }
        None => {}
    }
    drop(goes_children);
    new_dir.remember(locked.new_dir(), &new.name, &moved);
    drop(locked);
    let (from, to) = (&old_dir.inode, &new_dir.inode);
    notify::moved(from, &old.name, to, &new.name, &moved.inode);
    match &replaced {
        Some(other) if exchange => notify::moved(to, &new.name, from, &old.name, &other.inode),
        Some(gone) => {
            notify::inode(&gone.inode, notify::ATTRIB);
            notify::unlinked(gone);
        }
        None => {}
    }
    Ok(())
}

/// Everything that Linux checks before the file system is asked, in its order.
fn check_rename(
    task: &CurrentTask,
    old: &Entry,
    new: &Entry,
    moved: &Arc<Dentry>,
    replaced: Option<&Arc<Dentry>>,
    flags: RenameFlags,
) -> Result<(), Errno> {
    let exchange = flags.contains(RenameFlags::EXCHANGE);
    if replaced.is_some() && flags.contains(RenameFlags::NOREPLACE) {
        return Err(Errno::EEXIST);
    }
    if exchange {
        let other = replaced.ok_or(Errno::ENOENT)?;
        if !other.inode.is_dir() && new.trailing_slash {
            return Err(Errno::ENOTDIR);
        }
    }
    let is_dir = moved.inode.is_dir();
    if !is_dir && (old.trailing_slash || (!exchange && new.trailing_slash)) {
        return Err(Errno::ENOTDIR);
    }
    let (old_dir, new_dir) = (&old.dir.dentry, &new.dir.dentry);
    if new_dir.is_below(moved) {
        return Err(Errno::EINVAL);
    }
    if let Some(replaced) = replaced
        && old_dir.is_below(replaced)
    {
        return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
    }
    if replaced.is_some_and(|r| Arc::ptr_eq(&r.inode, &moved.inode)) {
        return Ok(());
    }
    let creds: &Credentials = &task.creds();
    perm::may_delete(creds, &old_dir.inode, &moved.inode, is_dir)?;
    match replaced {
        None => perm::may_create(creds, &new.dir)?,
        Some(r) if exchange => perm::may_delete(creds, &new_dir.inode, &r.inode, r.inode.is_dir())?,
        Some(r) => perm::may_delete(creds, &new_dir.inode, &r.inode, is_dir)?,
    }
    // A directory that gets another parent changes itself: its `..`.
    if !Arc::ptr_eq(old_dir, new_dir) {
        if is_dir {
            perm::check(creds, &moved.inode, Access::WRITE)?;
        }
        if let Some(other) = replaced.filter(|r| exchange && r.inode.is_dir()) {
            perm::check(creds, &other.inode, Access::WRITE)?;
        }
    }
    Ok(())
}
