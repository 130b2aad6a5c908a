//! Who may do what to a file: Linux's discretionary access control, from attributes and credentials alone.

use quicksand_abi::Errno;

use super::inode::{Attr, FileKind, Inode, Owner};
use super::mount::{MountFlags, Path};
use crate::task::Credentials;
use crate::task::credentials::Caps;

bitflags::bitflags! {
    /// What somebody wants to do with a file, in the bits of a mode (`MAY_READ`, …).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Access: u32 {
        const EXEC = 1;
        const WRITE = 2;
        const READ = 4;
    }
}

/// `generic_permission`: EACCES where the mode bits and capabilities do not grant `access`.
pub fn check_attr(creds: &Credentials, attr: &Attr, access: Access) -> Result<(), Errno> {
    let bits = if creds.fsuid == attr.uid {
        attr.perm >> 6
    } else if (attr.perm >> 3) & 7 != attr.perm & 7 && creds.in_group(attr.gid) {
        attr.perm >> 3
    } else {
        attr.perm
    };
    if access.bits() & !(bits & 7) == 0 {
        return Ok(());
    }
    if attr.is_dir() {
        if !access.contains(Access::WRITE) && creds.has(Caps::DAC_READ_SEARCH) {
            return Ok(());
        }
        if creds.has(Caps::DAC_OVERRIDE) {
            return Ok(());
        }
        return Err(Errno::EACCES);
    }
    if access == Access::READ && creds.has(Caps::DAC_READ_SEARCH) {
        return Ok(());
    }
    if (!access.contains(Access::EXEC) || attr.perm & 0o111 != 0) && creds.has(Caps::DAC_OVERRIDE) {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// `inode_permission`.
pub fn check(creds: &Credentials, inode: &Inode, access: Access) -> Result<(), Errno> {
    check_attr(creds, &inode.attr()?, access)
}

/// `mnt_want_write`: EROFS on a read-only mount.
pub fn want_write(path: &Path) -> Result<(), Errno> {
    if path.mount.flags().contains(MountFlags::RDONLY) { Err(Errno::EROFS) } else { Ok(()) }
}

/// Whether the caller owns the file or may act as if (`inode_owner_or_capable`).
pub fn is_owner(creds: &Credentials, attr: &Attr) -> bool {
    creds.fsuid == attr.uid || creds.has(Caps::FOWNER)
}

/// `may_create`: whether an entry may be added to the directory.
pub fn may_create(creds: &Credentials, dir: &Path) -> Result<(), Errno> {
    if dir.dentry.is_unlinked() {
        return Err(Errno::ENOENT);
    }
    check(creds, &dir.dentry.inode, Access::WRITE | Access::EXEC)
}

/// `may_delete`: whether the entry that leads to `victim` may be removed from `dir`. `is_dir` says what the caller is about
/// to remove.
pub fn may_delete(creds: &Credentials, dir: &Inode, victim: &Inode, is_dir: bool) -> Result<(), Errno> {
    let dir_attr = dir.attr()?;
    check_attr(creds, &dir_attr, Access::WRITE | Access::EXEC)?;
    if dir_attr.perm & libc::S_ISVTX != 0 {
        let attr = victim.attr()?;
        if creds.fsuid != attr.uid && creds.fsuid != dir_attr.uid && !creds.has(Caps::FOWNER) {
            return Err(Errno::EPERM);
        }
    }
    match (is_dir, victim.is_dir()) {
        (true, false) => Err(Errno::ENOTDIR),
        (false, true) => Err(Errno::EISDIR),
        _ => Ok(()),
    }
}

/// Owner and mode of a new node in a directory (`inode_init_owner`). `mode` has the umask applied.
pub fn new_owner(creds: &Credentials, dir: &Attr, kind: FileKind, mode: u32) -> Owner {
    let mut perm = mode & 0o7777;
    let mut gid = creds.fsgid;
    if dir.perm & libc::S_ISGID != 0 {
        gid = dir.gid;
        if kind == FileKind::Directory {
            perm |= libc::S_ISGID;
        } else if perm & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID | libc::S_IXGRP
            && !creds.in_group(gid)
            && !creds.has(Caps::FSETID)
        {
            perm &= !libc::S_ISGID;
        }
    }
    Owner { uid: creds.fsuid, gid, perm }
}

/// The mode without the set-id bits that a write or a change of owner takes away (`setattr_should_drop_suidgid`); `None`
/// where nothing changes.
pub fn killed_set_ids(creds: &Credentials, attr: &Attr) -> Option<u32> {
    if attr.kind != FileKind::Regular || attr.perm & (libc::S_ISUID | libc::S_ISGID) == 0 {
        return None;
    }
    if creds.has(Caps::FSETID) {
        return None;
    }
    let mut perm = attr.perm & !libc::S_ISUID;
    if attr.perm & libc::S_ISGID != 0 && (attr.perm & libc::S_IXGRP != 0 || !creds.in_group(attr.gid)) {
        perm &= !libc::S_ISGID;
    }
    (perm != attr.perm).then_some(perm)
}
