//! Opening files: `open(2)` and its kin, and opens of the kernel's own.

use std::sync::Arc;

use quicksand_abi::Errno;

use super::file::{FileOps, OpenFile, OpenFlags};
use super::inode::{FileKind, NewNode, SetAttr};
use super::mount::{MountFlags, Path};
use super::perm::{self, Access};
use super::walk::{Last, WalkFlags, Walker};
use super::{Dentry, notify, special};
use crate::syscalls::{Fd, SyscallError};
use crate::task::CurrentTask;

/// `struct open_how`, checked.
#[derive(Clone, Copy, Debug)]
pub struct OpenHow {
    pub flags: OpenFlags,
    pub mode: u32,
    /// RESOLVE_ flags.
    pub resolve: WalkFlags,
}

const O_TMPFILE: OpenFlags = OpenFlags::TMPFILE_BIT.union(OpenFlags::DIRECTORY);
/// The flags that mean something together with O_PATH.
const WITH_PATH: OpenFlags =
    OpenFlags::PATH.union(OpenFlags::DIRECTORY).union(OpenFlags::NOFOLLOW).union(OpenFlags::CLOEXEC);
/// The flags of opening that an open file does not remember.
const NOT_KEPT: OpenFlags = OpenFlags::CREAT
    .union(OpenFlags::EXCL)
    .union(OpenFlags::NOCTTY)
    .union(OpenFlags::TRUNC)
    .union(OpenFlags::CLOEXEC);

impl OpenHow {
    /// What `open(2)` makes of its flags: unknown ones are dropped.
    pub fn lenient(flags: u32, mode: u32) -> Result<OpenHow, Errno> {
        let mut flags = OpenFlags::from_bits_truncate(flags);
        if flags.contains(OpenFlags::PATH) {
            flags &= WITH_PATH;
        }
        let creates = flags.intersects(OpenFlags::CREAT | OpenFlags::TMPFILE_BIT);
        let mode = if creates { mode & 0o7777 } else { 0 };
        OpenHow { flags, mode, resolve: WalkFlags::empty() }.check()
    }

    /// The checks of `build_open_flags`.
    pub fn check(mut self) -> Result<OpenHow, Errno> {
        let flags = self.flags;
        let creates = flags.intersects(OpenFlags::CREAT | OpenFlags::TMPFILE_BIT);
        if (!creates && self.mode != 0) || self.mode & !0o7777 != 0 {
            return Err(Errno::EINVAL);
        }
        if flags.contains(OpenFlags::DIRECTORY | OpenFlags::CREAT) {
            return Err(Errno::EINVAL);
        }
        if flags.contains(OpenFlags::TMPFILE_BIT) && (!flags.contains(O_TMPFILE) || flags.bits() & 3 == 0) {
            return Err(Errno::EINVAL);
        }
        if flags.contains(OpenFlags::PATH) && !WITH_PATH.contains(flags) {
            return Err(Errno::EINVAL);
        }
        if flags.contains(OpenFlags::SYNC_BIT) {
            self.flags |= OpenFlags::DSYNC;
        }
        Ok(self)
    }
}

/// What an open wants to do with the file's contents. O_TRUNC is a write; mode 3 needs both rights and gives neither.
fn wanted(flags: OpenFlags) -> Access {
    let mut access = match flags.bits() & 3 {
        0 => Access::READ,
        1 => Access::WRITE,
        _ => Access::READ | Access::WRITE,
    };
    if flags.contains(OpenFlags::TRUNC) {
        access |= Access::WRITE;
    }
    access
}

/// `openat(2)`. May block (FIFOs): the caller hands a `Blocked` on.
pub fn open(
    task: &CurrentTask,
    dirfd: Fd,
    path: &[u8],
    flags: OpenFlags,
    mode: u32,
) -> Result<Arc<OpenFile>, SyscallError> {
    open_how(task, dirfd, path, &OpenHow::lenient(flags.bits(), mode)?)
}

/// `openat2(2)`.
pub fn open_how(
    task: &CurrentTask,
    dirfd: Fd,
    path: &[u8],
    how: &OpenHow,
) -> Result<Arc<OpenFile>, SyscallError> {
    let flags = how.flags;
    let mut walk_flags = how.resolve;
    walk_flags.set(WalkFlags::DIRECTORY, flags.contains(OpenFlags::DIRECTORY));
    let exclusive = flags.contains(OpenFlags::CREAT | OpenFlags::EXCL);
    let follow = !flags.contains(OpenFlags::NOFOLLOW) && !exclusive;
    walk_flags.set(WalkFlags::FOLLOW, follow);
    if flags.contains(OpenFlags::TMPFILE_BIT) {
        return open_unnamed(task, dirfd, path, how, walk_flags);
    }
    if !flags.contains(OpenFlags::CREAT) {
        let path = Walker::new(task, dirfd, path, walk_flags)?.finish()?;
        return open_path(task, path, flags);
    }
    let mut walker = Walker::new(task, dirfd, path, walk_flags)?;
    loop {
        let name = match walker.parent()? {
            Last::Root if walker.jumped() => return open_existing(task, walker.at, flags, exclusive),
            Last::Root | Last::Dot | Last::DotDot if exclusive => return Err(Errno::EEXIST.into()),
            Last::Root | Last::Dot | Last::DotDot => return Err(Errno::EISDIR.into()),
            Last::Name { trailing_slash: true, .. } => return Err(Errno::EISDIR.into()),
            Last::TooLong => return Err(Errno::ENAMETOOLONG.into()),
            Last::Name { name, .. } => name,
        };
        let found = lookup_or_create(task, &walker, &name, how)?;
        match found {
            Found::Created(path) => {
                notify::entry(&walker.at.dentry.inode, &name, notify::CREATE, &path.dentry.inode);
                return finish(task, path, flags, true);
            }
            Found::Existing(dentry) => {
                let path = walker.enter(dentry)?;
                if path.dentry.inode.kind == FileKind::Symlink && follow {
                    walker.follow(&path)?;
                    continue;
                }
                return open_existing(task, path, flags, exclusive);
            }
        }
    }
}

/// O_CREAT found something.
fn open_existing(
    task: &CurrentTask,
    path: Path,
    flags: OpenFlags,
    exclusive: bool,
) -> Result<Arc<OpenFile>, SyscallError> {
    if exclusive {
        return Err(Errno::EEXIST.into());
    }
    if path.dentry.inode.is_dir() {
        return Err(Errno::EISDIR.into());
    }
    open_path(task, path, flags)
}

enum Found {
    Existing(Arc<Dentry>),
    Created(Path),
}

fn lookup_or_create(
    task: &CurrentTask,
    walker: &Walker<'_>,
    name: &[u8],
    how: &OpenHow,
) -> Result<Found, Errno> {
    let dir = &walker.at;
    let umask = task.fs().umask();
    let mut children = dir.dentry.children.lock();
    match dir.dentry.lookup_locked(&mut children, name, Some(task)) {
        Ok(dentry) => return Ok(Found::Existing(dentry)),
        Err(Errno::ENOENT) => {}
        Err(e) => return Err(e),
    }
    perm::want_write(dir)?;
    perm::may_create(walker.creds(), dir)?;
    let inode = &dir.dentry.inode;
    let owner = perm::new_owner(walker.creds(), &inode.attr()?, FileKind::Regular, how.mode & !umask);
    let made = inode.ops.create(inode, name, NewNode::Regular, owner)?;
    let dentry = Dentry::new_child(&dir.dentry, name, made);
    dir.dentry.remember(&mut children, name, &dentry);
    Ok(Found::Created(Path::new(dir.mount.clone(), dentry)))
}

/// O_TMPFILE.
fn open_unnamed(
    task: &CurrentTask,
    dirfd: Fd,
    path: &[u8],
    how: &OpenHow,
    walk_flags: WalkFlags,
) -> Result<Arc<OpenFile>, SyscallError> {
    let dir = Walker::new(task, dirfd, path, walk_flags)?.finish()?;
    let umask = task.fs().umask();
    perm::want_write(&dir)?;
    perm::may_create(&task.creds(), &dir)?;
    let inode = &dir.dentry.inode;
    let owner = perm::new_owner(&task.creds(), &inode.attr()?, FileKind::Regular, how.mode & !umask);
    let made = inode.ops.create_unnamed(inode, owner)?;
    // Shown as Linux shows it: `/dir/#INO (deleted)`.
    let dentry = Dentry::new_child(&dir.dentry, format!("#{}", made.ino).as_bytes(), made);
    dentry.set_unlinked();
    if !how.flags.contains(OpenFlags::EXCL) {
        dentry.set_linkable();
    }
    finish(task, Path::new(dir.mount.clone(), dentry), how.flags, true)
}

/// Opens a place that was walked to (`do_open`): checks what may be done with it, then opens it.
pub fn open_path(task: &CurrentTask, path: Path, flags: OpenFlags) -> Result<Arc<OpenFile>, SyscallError> {
    let inode = &path.dentry.inode;
    if flags.contains(OpenFlags::PATH) {
        return Ok(OpenFile::new(path, Box::new(PathOnly), flags & WITH_PATH & !OpenFlags::CLOEXEC));
    }
    let mut flags = flags;
    let access = wanted(flags);
    match inode.kind {
        FileKind::Symlink => return Err(Errno::ELOOP.into()),
        FileKind::Directory if access.contains(Access::WRITE) => return Err(Errno::EISDIR.into()),
        FileKind::CharDevice | FileKind::BlockDevice => {
            if path.mount.flags().contains(MountFlags::NODEV) {
                return Err(Errno::EACCES.into());
            }
            flags.remove(OpenFlags::TRUNC);
        }
        FileKind::Fifo | FileKind::Socket => flags.remove(OpenFlags::TRUNC),
        _ => {}
    }
    let creds = task.creds();
    let attr = inode.attr()?;
    perm::check_attr(&creds, &attr, access)?;
    if flags.contains(OpenFlags::NOATIME) && !perm::is_owner(&creds, &attr) {
        return Err(Errno::EPERM.into());
    }
    if access.contains(Access::WRITE) && inode.kind == FileKind::Regular {
        perm::want_write(&path)?;
    }
    finish(task, path, flags, false)
}

/// Makes the open file. All checks are done.
fn finish(
    task: &CurrentTask,
    path: Path,
    flags: OpenFlags,
    created: bool,
) -> Result<Arc<OpenFile>, SyscallError> {
    let inode = path.dentry.inode.clone();
    let kept = flags & !NOT_KEPT;
    let truncate = flags.contains(OpenFlags::TRUNC) && !created && inode.kind == FileKind::Regular;
    let counted = inode.kind == FileKind::Regular;
    if truncate && !flags.can_write() {
        // Counts as a writer while it truncates.
        inode.get_write_access()?;
        let done = truncate_open(task, &path);
        inode.put_write_access();
        done?;
    }
    // A writer is counted before the file system is asked, so that ETXTBSY has no side effect.
    if counted && flags.can_write() {
        inode.get_write_access()?;
    }
    let ops: Result<Box<dyn FileOps>, SyscallError> = match inode.kind {
        FileKind::Regular | FileKind::Directory => {
            inode.ops.open(&inode, flags, task).map_err(SyscallError::from)
        }
        _ => special::open(task, &path, flags),
    };
    let ops = match ops {
        Ok(ops) => ops,
        Err(e) => {
            if counted && flags.can_write() {
                inode.put_write_access();
            }
            return Err(e);
        }
    };
    let file = OpenFile::new(path, ops, kept | OpenFlags::LARGEFILE);
    if counted && flags.can_write() {
        file.adopt_write_access();
        if truncate {
            truncate_open(task, &file.path)?;
        }
    }
    file.announce();
    Ok(file)
}

/// Opens a place for a restored open file: what was allowed when it was first opened stays allowed.
pub(crate) fn reopen(
    task: &CurrentTask,
    path: Path,
    flags: OpenFlags,
    deny_write: bool,
) -> Result<Arc<OpenFile>, SyscallError> {
    if flags.contains(OpenFlags::PATH) {
        return Ok(OpenFile::new(path, Box::new(PathOnly), flags));
    }
    let file = finish(task, path, flags & !NOT_KEPT, false)?;
    if deny_write {
        file.hold_deny_write()?;
    }
    Ok(file)
}

/// O_TRUNC (`handle_truncate`).
fn truncate_open(task: &CurrentTask, path: &Path) -> Result<(), Errno> {
    let inode = &path.dentry.inode;
    let time = super::now();
    let creds = task.creds();
    let _io = inode.io_lock.lock();
    let perm = perm::killed_set_ids(&creds, &inode.attr()?);
    let set = SetAttr { size: Some(0), mtime: Some(time), perm, ..SetAttr::default() };
    inode.ops.set_attr(inode, &set)?;
    notify::file(path, notify::MODIFY);
    Ok(())
}

/// Opens a file to be executed (`do_open_execat`): a regular file that the caller may execute, on a mount that allows it;
/// no one can open it for writing as long as the returned file lives.
pub fn open_exec(
    task: &CurrentTask,
    dirfd: Fd,
    path: &[u8],
    flags: WalkFlags,
) -> Result<Arc<OpenFile>, Errno> {
    let path = Walker::new(task, dirfd, path, flags)?.finish()?;
    let inode = path.dentry.inode.clone();
    match inode.kind {
        FileKind::Regular => {}
        FileKind::Symlink => return Err(Errno::ELOOP),
        _ => return Err(Errno::EACCES),
    }
    if path.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    perm::check(&task.creds(), &inode, Access::EXEC)?;
    let flags = OpenFlags::LARGEFILE;
    let ops = inode.ops.open(&inode, flags, task)?;
    let file = OpenFile::new(path, ops, flags);
    file.hold_deny_write()?;
    file.announce();
    Ok(file)
}

/// What an O_PATH descriptor can do: nothing but say where it leads.
#[derive(Debug)]
struct PathOnly;

impl FileOps for PathOnly {}
