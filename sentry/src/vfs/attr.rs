//! Changes of attributes: mode, owner, times, size (Linux's `fs/attr.c` and `fs/open.c`).

use std::sync::Arc;

use quicksand_abi::Errno;

use super::inode::{FileKind, Inode, SetAttr};
use super::mount::Path;
use super::notify;
use super::perm::{self, Access};
use super::rw::{self, MAX_FILE_SIZE};
use crate::task::credentials::Caps;
use crate::task::{CurrentTask, Resource};
use crate::time::Realtime;

/// `chmod(2)` of a place.
pub fn chmod(task: &CurrentTask, path: &Path, mode: u32) -> Result<(), Errno> {
    perm::want_write(path)?;
    let inode = &path.dentry.inode;
    if inode.kind == FileKind::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    let creds = task.creds();
    let attr = inode.attr()?;
    if !perm::is_owner(&creds, &attr) {
        return Err(Errno::EPERM);
    }
    let mut perm = mode & 0o7777;
    if !creds.in_group(attr.gid) && !creds.has(Caps::FSETID) {
        perm &= !libc::S_ISGID;
    }
    inode.ops.set_attr(inode, &SetAttr { perm: Some(perm), ..SetAttr::default() })?;
    notify::file(path, notify::ATTRIB);
    Ok(())
}

/// `chown(2)` of a place; `None` leaves an id as it is.
pub fn chown(task: &CurrentTask, path: &Path, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    perm::want_write(path)?;
    let inode = &path.dentry.inode;
    let creds = task.creds();
    let attr = inode.attr()?;
    let owns = creds.fsuid == attr.uid;
    let capable = creds.has(Caps::CHOWN);
    if let Some(uid) = uid
        && !(owns && uid == attr.uid)
        && !capable
    {
        return Err(Errno::EPERM);
    }
    if let Some(gid) = gid
        && !(owns && (gid == attr.gid || creds.in_group(gid)))
        && !capable
    {
        return Err(Errno::EPERM);
    }
    let mut set = SetAttr { uid, gid, ..SetAttr::default() };
    if !inode.is_dir() {
        // Whoever changes the owner, the set-id bits go.
        let mut perm = attr.perm & !libc::S_ISUID;
        let in_group = creds.in_group(attr.gid) || creds.has(Caps::FSETID);
        if attr.perm & libc::S_IXGRP != 0 || !in_group {
            perm &= !libc::S_ISGID;
        }
        set.perm = (perm != attr.perm).then_some(perm);
    }
    inode.ops.set_attr(inode, &set)?;
    if uid.is_some() || gid.is_some() || set.perm.is_some() {
        notify::file(path, notify::ATTRIB);
    }
    Ok(())
}

/// A time stamp to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    Now,
    Omit,
    At(Realtime),
}

/// `utimensat(2)` of a place.
pub fn set_times(task: &CurrentTask, path: &Path, atime: Stamp, mtime: Stamp) -> Result<(), Errno> {
    perm::want_write(path)?;
    let inode = &path.dentry.inode;
    let creds = task.creds();
    let attr = inode.attr()?;
    if !perm::is_owner(&creds, &attr) {
        if (atime, mtime) != (Stamp::Now, Stamp::Now) {
            return Err(Errno::EPERM);
        }
        perm::check_attr(&creds, &attr, Access::WRITE)?;
    }
    let time = super::now();
    let value = |stamp| match stamp {
        Stamp::Now => Some(time),
        Stamp::Omit => None,
        Stamp::At(at) => Some(at),
    };
    let (atime, mtime) = (value(atime), value(mtime));
    inode.ops.set_attr(inode, &SetAttr { atime, mtime, ..SetAttr::default() })?;
    match (atime, mtime) {
        (Some(_), Some(_)) => notify::file(path, notify::ATTRIB),
        (Some(_), None) => notify::file(path, notify::ACCESS),
        (None, Some(_)) => notify::file(path, notify::MODIFY),
        (None, None) => {}
    }
    Ok(())
}

/// `truncate(2)` of a place.
pub fn truncate(task: &CurrentTask, path: &Path, size: u64) -> Result<(), Errno> {
    let inode = &path.dentry.inode;
    match inode.kind {
        FileKind::Directory => return Err(Errno::EISDIR),
        FileKind::Regular => {}
        _ => return Err(Errno::EINVAL),
    }
    perm::want_write(path)?;
    perm::check(&task.creds(), inode, Access::WRITE)?;
    inode.get_write_access()?;
    let done = set_size(task, inode, size);
    inode.put_write_access();
    if done.is_ok() {
        notify::file(path, notify::MODIFY);
    }
    done
}

/// Sets the size of a regular file that the caller may write to.
pub fn set_size(task: &CurrentTask, inode: &Arc<Inode>, size: u64) -> Result<(), Errno> {
    let creds = task.creds();
    check_size(task, inode, size)?;
    let _io = inode.io_lock.lock();
    let perm = perm::killed_set_ids(&creds, &inode.attr()?);
    let set = SetAttr { size: Some(size), mtime: Some(super::now()), perm, ..SetAttr::default() };
    inode.ops.set_attr(inode, &set)
}

/// `inode_newsize_ok`: EFBIG, with SIGXFSZ where RLIMIT_FSIZE is met, when a file would grow too large.
pub fn check_size(task: &CurrentTask, inode: &Inode, size: u64) -> Result<(), Errno> {
    if size > MAX_FILE_SIZE {
        return Err(Errno::EFBIG);
    }
    let limit = task.group().rlimit(Resource::Fsize).soft;
    if size > limit && size > inode.attr()?.size {
        return Err(rw::too_large(task, limit));
    }
    Ok(())
}
