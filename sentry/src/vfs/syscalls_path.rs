//! Calls that change directories and say where a task is: `mkdir`, `mknod`, `link`, `symlink`, `unlink`, `rmdir`,
//! `rename`, `chdir`, `chroot`, `getcwd`, `umask`.

use quicksand_abi::{Errno, UserAddr};

use super::inode::{DeviceId, FileKind, NewNode};
use super::namei::{self, NewEntry, RenameFlags};
use super::perm::{self, Access};
use super::walk::{self, WalkFlags};
use super::{Path, walk::PATH_MAX};
use crate::syscalls::{Fd, SyscallResult};
use crate::task::CurrentTask;
use crate::task::credentials::Caps;

pub fn sys_mkdir(task: &CurrentTask, path: UserAddr, mode: u32) -> SyscallResult {
    sys_mkdirat(task, Fd::CWD, path, mode)
}

pub fn sys_mkdirat(task: &CurrentTask, dirfd: Fd, path: UserAddr, mode: u32) -> SyscallResult {
    let path = task.read_path(path)?;
    let mode = mode & (0o777 | libc::S_ISVTX);
    namei::create(task, dirfd, &path, NewEntry { node: &NewNode::Directory, mode })?;
    Ok(0)
}

pub fn sys_mknod(task: &CurrentTask, path: UserAddr, mode: u32, dev: u32) -> SyscallResult {
    sys_mknodat(task, Fd::CWD, path, mode, dev)
}

pub fn sys_mknodat(task: &CurrentTask, dirfd: Fd, path: UserAddr, mode: u32, dev: u32) -> SyscallResult {
    // `new_decode_dev`: the 32-bit form.
    let device = DeviceId::new((dev >> 8) & 0xfff, (dev & 0xff) | ((dev >> 12) & 0xf_ff00));
    let node = match mode & libc::S_IFMT {
        0 | libc::S_IFREG => NewNode::Regular,
        libc::S_IFCHR => NewNode::CharDevice(device),
        libc::S_IFBLK => NewNode::BlockDevice(device),
        libc::S_IFIFO => NewNode::Fifo,
        libc::S_IFSOCK => NewNode::Socket,
        libc::S_IFDIR => return Err(Errno::EPERM.into()),
        _ => return Err(Errno::EINVAL.into()),
    };
    let path = task.read_path(path)?;
    namei::create(task, dirfd, &path, NewEntry { node: &node, mode: mode & 0o7777 })?;
    Ok(0)
}

pub fn sys_symlink(task: &CurrentTask, target: UserAddr, path: UserAddr) -> SyscallResult {
    sys_symlinkat(task, target, Fd::CWD, path)
}

pub fn sys_symlinkat(task: &CurrentTask, target: UserAddr, dirfd: Fd, path: UserAddr) -> SyscallResult {
    let target = task.read_path(target)?;
    if target.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    let path = task.read_path(path)?;
    namei::create(task, dirfd, &path, NewEntry { node: &NewNode::Symlink(&target), mode: 0o777 })?;
    Ok(0)
}

pub fn sys_link(task: &CurrentTask, old: UserAddr, new: UserAddr) -> SyscallResult {
    sys_linkat(task, Fd::CWD, old, Fd::CWD, new, 0)
}

pub fn sys_linkat(
    task: &CurrentTask,
    old_fd: Fd,
    old: UserAddr,
    new_fd: Fd,
    new: UserAddr,
    flags: u32,
) -> SyscallResult {
    const FOLLOW: u32 = libc::AT_SYMLINK_FOLLOW as u32;
    const EMPTY: u32 = libc::AT_EMPTY_PATH as u32;
    if flags & !(FOLLOW | EMPTY) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let old = task.read_path(old)?;
    // Naming what is only known by a descriptor takes the right to search everywhere.
    if flags & EMPTY != 0 && old.is_empty() && !task.creds().has(Caps::DAC_READ_SEARCH) {
        return Err(Errno::ENOENT.into());
    }
    let mut walk_flags = WalkFlags::empty();
    walk_flags.set(WalkFlags::FOLLOW, flags & FOLLOW != 0);
    walk_flags.set(WalkFlags::EMPTY, flags & EMPTY != 0);
    let old = walk::lookup(task, old_fd, &old, walk_flags)?;
    let new = task.read_path(new)?;
    namei::link(task, &old, new_fd, &new)?;
    Ok(0)
}

pub fn sys_unlink(task: &CurrentTask, path: UserAddr) -> SyscallResult {
    sys_unlinkat(task, Fd::CWD, path, 0)
}

pub fn sys_rmdir(task: &CurrentTask, path: UserAddr) -> SyscallResult {
    sys_unlinkat(task, Fd::CWD, path, libc::AT_REMOVEDIR as u32)
}

pub fn sys_unlinkat(task: &CurrentTask, dirfd: Fd, path: UserAddr, flags: u32) -> SyscallResult {
    const REMOVEDIR: u32 = libc::AT_REMOVEDIR as u32;
    if flags & !REMOVEDIR != 0 {
        return Err(Errno::EINVAL.into());
    }
    let path = task.read_path(path)?;
    if flags & REMOVEDIR != 0 {
        namei::rmdir(task, dirfd, &path)?;
    } else {
        namei::unlink(task, dirfd, &path)?;
    }
    Ok(0)
}

pub fn sys_rename(task: &CurrentTask, old: UserAddr, new: UserAddr) -> SyscallResult {
    sys_renameat2(task, Fd::CWD, old, Fd::CWD, new, 0)
}

pub fn sys_renameat(
    task: &CurrentTask,
    old_fd: Fd,
    old: UserAddr,
    new_fd: Fd,
    new: UserAddr,
) -> SyscallResult {
    sys_renameat2(task, old_fd, old, new_fd, new, 0)
}

pub fn sys_renameat2(
    task: &CurrentTask,
    old_fd: Fd,
    old: UserAddr,
    new_fd: Fd,
    new: UserAddr,
    flags: u32,
) -> SyscallResult {
    // RENAME_WHITEOUT is for layers of an overlay: refused as by a file system that makes no whiteouts.
    let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    if flags.contains(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE) {
        return Err(Errno::EINVAL.into());
    }
    let old = task.read_path(old)?;
    let new = task.read_path(new)?;
    namei::rename(task, old_fd, &old, new_fd, &new, flags)?;
    Ok(0)
}

/// A directory that the caller may search.
fn searchable(task: &CurrentTask, path: &Path) -> Result<(), Errno> {
    if !path.dentry.inode.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    perm::check(&task.creds(), &path.dentry.inode, Access::EXEC)
}

pub fn sys_chdir(task: &CurrentTask, path: UserAddr) -> SyscallResult {
    let path = task.read_path(path)?;
    let path = walk::lookup(task, Fd::CWD, &path, WalkFlags::FOLLOW | WalkFlags::DIRECTORY)?;
    searchable(task, &path)?;
    task.fs().set_cwd(path);
    Ok(0)
}

pub fn sys_fchdir(task: &CurrentTask, fd: Fd) -> SyscallResult {
    let file = task.file_or_path(fd)?;
    searchable(task, &file.path)?;
    task.fs().set_cwd(file.path.clone());
    Ok(0)
}

pub fn sys_chroot(task: &CurrentTask, path: UserAddr) -> SyscallResult {
    let path = task.read_path(path)?;
    let path = walk::lookup(task, Fd::CWD, &path, WalkFlags::FOLLOW | WalkFlags::DIRECTORY)?;
    searchable(task, &path)?;
    if !task.creds().has(Caps::SYS_CHROOT) {
        return Err(Errno::EPERM.into());
    }
    task.fs().set_root(path);
    Ok(0)
}

pub fn sys_getcwd(task: &CurrentTask, buf: UserAddr, size: usize) -> SyscallResult {
    let fs = task.fs();
    let path = fs.cwd().text(&fs.root());
    if path.deleted {
        return Err(Errno::ENOENT.into());
    }
    let mut text = if path.reachable { Vec::new() } else { b"(unreachable)".to_vec() };
    text.extend_from_slice(&path.text);
    text.push(0);
    if text.len() > PATH_MAX + 1 {
        return Err(Errno::ENAMETOOLONG.into());
    }
    if text.len() > size {
        return Err(Errno::ERANGE.into());
    }
    task.write_bytes(buf, &text)?;
    Ok(text.len())
}

pub fn sys_umask(task: &CurrentTask, mask: u32) -> SyscallResult {
    Ok(task.fs().set_umask(mask & 0o777) as usize)
}

/// Whether a kind of file takes space and can be written to on its file system (what a read-only mount protects).
pub fn is_stored(kind: FileKind) -> bool {
    matches!(kind, FileKind::Regular | FileKind::Directory | FileKind::Symlink)
}
