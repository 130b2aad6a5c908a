//! `mount(2)`, `umount2(2)`, `pivot_root(2)`: changes to a mount namespace. All need CAP_SYS_ADMIN. Mounts are never
//! shared with another namespace: propagation is always private.

use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr};

use super::mount::{Mount, MountFlags, MountNamespace, Path, check_room, copy_tree};
use super::walk::{self, WalkFlags};
use crate::fs::{proc, sys, tmpfs};
use crate::syscalls::{Fd, SyscallResult};
use crate::task::CurrentTask;
use crate::task::credentials::Caps;

const MS_REMOUNT: u32 = 32;
const MS_BIND: u32 = 4096;
const MS_MOVE: u32 = 8192;
const MS_REC: u32 = 16384;
const MS_STRICTATIME: u32 = 1 << 24;
/// MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED.
const MS_PROPAGATION: u32 = 0xf << 17;
/// The old magic number in the upper half.
const MS_MGC_VAL: u32 = 0xc0ed_0000;
const MS_MGC_MASK: u32 = 0xffff_0000;
const MNT_FORCE: u32 = 1;
const MNT_DETACH: u32 = 2;
const MNT_EXPIRE: u32 = 4;
const UMOUNT_NOFOLLOW: u32 = 8;
/// How much of the data argument is looked at.
const DATA_MAX: usize = 4096;

/// `may_mount`.
fn may_mount(task: &CurrentTask) -> Result<(), Errno> {
    if task.creds().has(Caps::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

/// The per-mount flags that `mount(2)`'s mean.
fn mount_flags(raw: u32) -> MountFlags {
    let mut flags = MountFlags::from_bits_truncate(raw);
    flags.set(MountFlags::RELATIME, !flags.contains(MountFlags::NOATIME) && raw & MS_STRICTATIME == 0);
    flags
}

/// The mount must hang in the caller's namespace.
fn in_namespace(namespace: &MountNamespace, path: &Path) -> Result<(), Errno> {
    if namespace.contains(&path.mount) { Ok(()) } else { Err(Errno::EINVAL) }
}

pub fn sys_mount(
    task: &CurrentTask,
    source: UserAddr,
    target: UserAddr,
    fs_type: UserAddr,
    flags: u64,
    data: UserAddr,
) -> SyscallResult {
    let mut flags = flags as u32;
    if flags & MS_MGC_MASK == MS_MGC_VAL {
        flags &= !MS_MGC_MASK;
    }
    let optional = |addr: UserAddr| if addr.is_null() { Ok(None) } else { task.read_path(addr).map(Some) };
    let fs_type = optional(fs_type)?;
    let source = optional(source)?;
    let data = read_data(task, data)?;
    let target = task.read_path(target)?;
    let target = walk::lookup(task, Fd::CWD, &target, WalkFlags::FOLLOW)?;
    may_mount(task)?;
    let namespace = task.fs().namespace();
    let _change = namespace.change();
    in_namespace(&namespace, &target)?;
    if flags & MS_REMOUNT != 0 {
        return remount(&target, flags);
    }
    if flags & MS_BIND != 0 {
        return bind(task, source, target, flags);
    }
    if flags & MS_PROPAGATION != 0 {
        // Every mount is private already, and what it would share with does not exist.
        return if target.is_mount_root() { Ok(0) } else { Err(Errno::EINVAL.into()) };
    }
    if flags & MS_MOVE != 0 {
        return move_mount(task, &namespace, source, target);
    }
    let fs_type = fs_type.ok_or(Errno::EINVAL)?;
    let shown = source.unwrap_or_else(|| b"none".to_vec());
    let mount = make(task, &fs_type, &shown, &data, mount_flags(flags))?;
    attach(&mount, target)?;
    Ok(0)
}

/// The data argument: text up to a NUL, as far as it can be read.
fn read_data(task: &CurrentTask, addr: UserAddr) -> Result<Vec<u8>, Errno> {
    if addr.is_null() {
        return Ok(Vec::new());
    }
    match task.read_cstring(addr, DATA_MAX - 1) {
        Err(Errno::ENAMETOOLONG) => Err(Errno::EINVAL),
        other => other,
    }
}

/// A new file system of a type that a guest may mount. ENODEV for one that there is not.
fn make(
    task: &CurrentTask,
    fs_type: &[u8],
    source: &[u8],
    data: &[u8],
    flags: MountFlags,
) -> Result<Arc<Mount>, Errno> {
    check_room(1)?;
    match fs_type {
        b"tmpfs" | b"ramfs" => tmpfs::mount(source, data, flags),
        b"proc" => Ok(Mount::new(proc::new(&task.container().pids), flags, source, b"")),
        b"sysfs" => {
            let root = sys::new(task.kernel().machine.cpus());
            Ok(Mount::new(root, flags, source, b""))
        }
        _ => {
            task.kernel().log_once(0x2000_0000 | u64::from(fs_type.first().copied().unwrap_or(0)), || {
                format!("mount: no file system type {}; ENODEV", String::from_utf8_lossy(fs_type))
            });
            Err(Errno::ENODEV)
        }
    }
}

/// Mounts on top of whatever is at `at`. A directory goes on a directory, a file on a file.
fn attach(mount: &Arc<Mount>, at: Path) -> Result<(), Errno> {
    if mount.root.inode.is_dir() != at.dentry.inode.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if at.dentry.is_unlinked() {
        return Err(Errno::ENOENT);
    }
    mount.attach(at);
    Ok(())
}

fn remount(target: &Path, flags: u32) -> SyscallResult {
    if !target.is_mount_root() {
        return Err(Errno::EINVAL.into());
    }
    let old = target.mount.flags();
    let mut new = mount_flags(flags);
    let times = MountFlags::NOATIME | MountFlags::NODIRATIME | MountFlags::RELATIME;
    if flags & (MountFlags::NOATIME | MountFlags::NODIRATIME | MountFlags::RELATIME).bits() == 0
        && flags & MS_STRICTATIME == 0
    {
        // Without a word about access times they stay as they are.
        new = (new & !times) | (old & times);
    }
    *target.mount.flags.write() = new;
    Ok(0)
}

fn source_path(task: &CurrentTask, source: Option<Vec<u8>>) -> Result<Path, Errno> {
    let source = source.filter(|s| !s.is_empty()).ok_or(Errno::EINVAL)?;
    walk::lookup(task, Fd::CWD, &source, WalkFlags::FOLLOW)
}

fn bind(task: &CurrentTask, source: Option<Vec<u8>>, target: Path, flags: u32) -> SyscallResult {
    let source = source_path(task, source)?;
    check_room(if flags & MS_REC != 0 { source.mount.subtree().len() } else { 1 })?;
    let new = if flags & MS_REC != 0 && source.is_mount_root() {
        let pairs = copy_tree(&source.mount);
        pairs.into_iter().next().map(|(_, new)| new).ok_or(Errno::EINVAL)?
    } else if flags & MS_REC != 0 {
        bind_below(&source)
    } else {
        bind_one(&source)
    };
    match attach(&new, target) {
        Ok(()) => Ok(0),
        Err(e) => {
            take_apart(&new);
            Err(e.into())
        }
    }
}

/// A mount of what is at `source`.
fn bind_one(source: &Path) -> Arc<Mount> {
    let old = &source.mount;
    Mount::new(source.dentry.clone(), old.flags(), &old.source, &old.options)
}

/// A mount of the directory `source`, with copies of what is mounted below it.
fn bind_below(source: &Path) -> Arc<Mount> {
    let top = bind_one(source);
    for child in source.mount.children() {
        let Some(place) = child.place() else { continue };
        if !place.dentry.is_below(&source.dentry) {
            continue;
        }
        if let Some((_, copy)) = copy_tree(&child).into_iter().next() {
            copy.attach(Path::new(top.clone(), place.dentry));
        }
    }
    top
}

/// Detaches everything below a mount that is going away, children first, and itself.
fn take_apart(top: &Arc<Mount>) {
    for mount in top.subtree().iter().rev() {
        mount.detach();
    }
}

fn move_mount(
    task: &CurrentTask,
    namespace: &MountNamespace,
    source: Option<Vec<u8>>,
    target: Path,
) -> SyscallResult {
    let source = source_path(task, source)?;
    if !source.is_mount_root() || source.mount.place().is_none() {
        return Err(Errno::EINVAL.into());
    }
    in_namespace(namespace, &source)?;
    if source.dentry.inode.is_dir() != target.dentry.inode.is_dir() {
        return Err(Errno::EINVAL.into());
    }
    if source.mount.subtree().iter().any(|m| Arc::ptr_eq(m, &target.mount)) {
        return Err(Errno::ELOOP.into());
    }
    source.mount.detach();
    source.mount.attach(target);
    Ok(0)
}

pub fn sys_umount2(task: &CurrentTask, target: UserAddr, flags: u32) -> SyscallResult {
    if flags & !(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let target = task.read_path(target)?;
    let mut walk_flags = WalkFlags::FOLLOW;
    walk_flags.set(WalkFlags::FOLLOW, flags & UMOUNT_NOFOLLOW == 0);
    let target = walk::lookup(task, Fd::CWD, &target, walk_flags)?;
    may_mount(task)?;
    if flags & MNT_EXPIRE != 0 && flags & (MNT_FORCE | MNT_DETACH) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let namespace = task.fs().namespace();
    let _change = namespace.change();
    if !target.is_mount_root() {
        return Err(Errno::EINVAL.into());
    }
    in_namespace(&namespace, &target)?;
    let mount = target.mount.clone();
    drop(target);
    if mount.place().is_none() {
        // The root of the namespace stays.
        return Err(Errno::EINVAL.into());
    }
    if flags & MNT_DETACH != 0 {
        take_apart(&mount);
        return Ok(0);
    }
    if !mount.children().is_empty() || mount.is_used(1) {
        return Err(Errno::EBUSY.into());
    }
    if flags & MNT_EXPIRE != 0 && !mount.mark_expired() {
        return Err(Errno::EAGAIN.into());
    }
    mount.detach();
    Ok(0)
}

pub fn sys_pivot_root(task: &CurrentTask, new: UserAddr, old: UserAddr) -> SyscallResult {
    may_mount(task)?;
    let walk_flags = WalkFlags::FOLLOW | WalkFlags::DIRECTORY;
    let new = walk::lookup(task, Fd::CWD, &task.read_path(new)?, walk_flags)?;
    let put_old = walk::lookup(task, Fd::CWD, &task.read_path(old)?, walk_flags)?;
    let fs = task.fs();
    let namespace = fs.namespace();
    let root = fs.root();
    let _change = namespace.change();
    for path in [&new, &put_old, &root] {
        in_namespace(&namespace, path)?;
    }
    if Arc::ptr_eq(&new.mount, &root.mount) || Arc::ptr_eq(&put_old.mount, &root.mount) {
        return Err(Errno::EBUSY.into());
    }
    if !root.is_mount_root() || !new.is_mount_root() || !new.is_under(&root) || !put_old.is_under(&new) {
        return Err(Errno::EINVAL.into());
    }
    let old_place = root.mount.place();
    root.mount.detach();
    new.mount.detach();
    match old_place {
        Some(place) => new.mount.attach(place),
        None => namespace.set_root(new.mount.clone()),
    }
    root.mount.attach(put_old);
    // `chroot_fs_refs`: whoever was at the old root is at the new one.
    for other in task.container().pids.tasks() {
        let Some(fs) = other.fs_opt() else { continue };
        if fs.root().same(&root) {
            fs.set_root(new.clone());
        }
        if fs.cwd().same(&root) {
            fs.set_cwd(new.clone());
        }
    }
    Ok(0)
}
