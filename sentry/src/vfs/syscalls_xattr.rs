//! Extended attributes, `xattr(7)`. Who may touch which name space is decided here.

use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr};

use super::inode::{FileKind, Inode};
use super::mount::Path;
use super::perm::{self, Access};
use super::syscalls_stat::at_path;
use crate::syscalls::{Fd, SyscallResult};
use crate::task::CurrentTask;
use crate::task::credentials::Caps;

const NAME_MAX: usize = 255;
const VALUE_MAX: usize = 65536;
const LIST_MAX: usize = 65536;
const NOFOLLOW: u32 = libc::AT_SYMLINK_NOFOLLOW as u32;

fn read_name(task: &CurrentTask, name: UserAddr) -> Result<Vec<u8>, Errno> {
    let name = match task.read_cstring(name, NAME_MAX) {
        Err(Errno::ENAMETOOLONG) => return Err(Errno::ERANGE),
        other => other?,
    };
    if name.is_empty() { Err(Errno::ERANGE) } else { Ok(name) }
}

/// `xattr_permission`, and the handlers' own rules.
fn check(task: &CurrentTask, inode: &Inode, name: &[u8], write: bool) -> Result<(), Errno> {
    let creds = task.creds();
    let capable = creds.has(Caps::SYS_ADMIN);
    if name.starts_with(b"security.") {
        let fine = !write || capable || (name == b"security.capability" && creds.has(Caps::SETFCAP));
        return if fine { Ok(()) } else { Err(Errno::EPERM) };
    }
    if name.starts_with(b"trusted.") {
        return match (capable, write) {
            (true, _) => Ok(()),
            (false, true) => Err(Errno::EPERM),
            (false, false) => Err(Errno::ENODATA),
        };
    }
    if !name.starts_with(b"user.") {
        // No file system here has access control lists.
        return Err(Errno::EOPNOTSUPP);
    }
    let attr = inode.attr()?;
    match inode.kind {
        FileKind::Regular => {}
        FileKind::Directory => {
            if write && attr.perm & libc::S_ISVTX != 0 && !perm::is_owner(&creds, &attr) {
                return Err(Errno::EPERM);
            }
        }
        _ => return Err(if write { Errno::EPERM } else { Errno::ENODATA }),
    }
    if name == b"user." {
        return Err(Errno::EINVAL);
    }
    perm::check_attr(&creds, &attr, if write { Access::WRITE } else { Access::READ })
}

fn set(
    task: &CurrentTask,
    path: &Path,
    name: UserAddr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> SyscallResult {
    if flags & !(libc::XATTR_CREATE | libc::XATTR_REPLACE) as u32 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let name = read_name(task, name)?;
    if size > VALUE_MAX {
        return Err(Errno::E2BIG.into());
    }
    let value: Vec<u8> = task.read_array(value, size)?;
    perm::want_write(path)?;
    let inode = &path.dentry.inode;
    check(task, inode, &name, true)?;
    inode.ops.set_xattr(inode, &name, &value, flags)?;
    Ok(0)
}

fn get(
    task: &CurrentTask,
    inode: &Arc<Inode>,
    name: UserAddr,
    value: UserAddr,
    size: usize,
) -> SyscallResult {
    let name = read_name(task, name)?;
    check(task, inode, &name, false)?;
    let found = inode.ops.get_xattr(inode, &name)?;
    give(task, &found, value, size.min(VALUE_MAX))
}

/// Copies out, or tells the size where none was given.
fn give(task: &CurrentTask, bytes: &[u8], to: UserAddr, size: usize) -> SyscallResult {
    if size > 0 {
        if bytes.len() > size {
            return Err(Errno::ERANGE.into());
        }
        task.write_bytes(to, bytes)?;
    }
    Ok(bytes.len())
}

fn list(task: &CurrentTask, inode: &Arc<Inode>, to: UserAddr, size: usize) -> SyscallResult {
    let names = match inode.ops.list_xattr(inode) {
        // A file system without attributes has an empty list.
        Err(Errno::EOPNOTSUPP) => Vec::new(),
        other => other?,
    };
    let capable = task.creds().has(Caps::SYS_ADMIN);
    let mut out = Vec::new();
    for name in names.iter().filter(|n| capable || !n.starts_with(b"trusted.")) {
        out.extend_from_slice(name);
        out.push(0);
    }
    if out.len() > LIST_MAX {
        return Err(Errno::E2BIG.into());
    }
    give(task, &out, to, size.min(LIST_MAX))
}

fn remove(task: &CurrentTask, path: &Path, name: UserAddr) -> SyscallResult {
    let name = read_name(task, name)?;
    perm::want_write(path)?;
    let inode = &path.dentry.inode;
    check(task, inode, &name, true)?;
    inode.ops.remove_xattr(inode, &name)?;
    Ok(0)
}

fn at(task: &CurrentTask, path: UserAddr, flags: u32) -> Result<Path, Errno> {
    at_path(task, Fd::CWD, path, flags)
}

pub fn sys_setxattr(
    task: &CurrentTask,
    path: UserAddr,
    name: UserAddr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> SyscallResult {
    set(task, &at(task, path, 0)?, name, value, size, flags)
}
pub fn sys_lsetxattr(
    task: &CurrentTask,
    path: UserAddr,
    name: UserAddr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> SyscallResult {
    set(task, &at(task, path, NOFOLLOW)?, name, value, size, flags)
}
pub fn sys_fsetxattr(
    task: &CurrentTask,
    fd: Fd,
    name: UserAddr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> SyscallResult {
    set(task, &task.file(fd)?.path, name, value, size, flags)
}
pub fn sys_getxattr(
    task: &CurrentTask,
    path: UserAddr,
    name: UserAddr,
    value: UserAddr,
    size: usize,
) -> SyscallResult {
    get(task, &at(task, path, 0)?.dentry.inode, name, value, size)
}
pub fn sys_lgetxattr(
    task: &CurrentTask,
    path: UserAddr,
    name: UserAddr,
    value: UserAddr,
    size: usize,
) -> SyscallResult {
    get(task, &at(task, path, NOFOLLOW)?.dentry.inode, name, value, size)
}
pub fn sys_fgetxattr(
    task: &CurrentTask,
    fd: Fd,
    name: UserAddr,
    value: UserAddr,
    size: usize,
) -> SyscallResult {
    get(task, &task.file(fd)?.inode, name, value, size)
}
pub fn sys_listxattr(task: &CurrentTask, path: UserAddr, to: UserAddr, size: usize) -> SyscallResult {
    list(task, &at(task, path, 0)?.dentry.inode, to, size)
}
pub fn sys_llistxattr(task: &CurrentTask, path: UserAddr, to: UserAddr, size: usize) -> SyscallResult {
    list(task, &at(task, path, NOFOLLOW)?.dentry.inode, to, size)
}
pub fn sys_flistxattr(task: &CurrentTask, fd: Fd, to: UserAddr, size: usize) -> SyscallResult {
    list(task, &task.file(fd)?.inode, to, size)
}
pub fn sys_removexattr(task: &CurrentTask, path: UserAddr, name: UserAddr) -> SyscallResult {
    remove(task, &at(task, path, 0)?, name)
}
pub fn sys_lremovexattr(task: &CurrentTask, path: UserAddr, name: UserAddr) -> SyscallResult {
    remove(task, &at(task, path, NOFOLLOW)?, name)
}
pub fn sys_fremovexattr(task: &CurrentTask, fd: Fd, name: UserAddr) -> SyscallResult {
    remove(task, &task.file(fd)?.path, name)
}
