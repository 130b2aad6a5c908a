//! `open` and its relatives.

use quicksand_abi::fs::OpenHow as UserOpenHow;
use quicksand_abi::{Errno, UserAddr};

use super::open::{self, OpenHow};
use super::walk::WalkFlags;
use super::{FdFlags, OpenFlags};
use crate::syscalls::{Fd, SyscallResult};
use crate::task::{CurrentTask, Resource};

/// `OPEN_HOW_SIZE_VER0`.
const OPEN_HOW_SIZE: usize = 24;

pub fn sys_open(task: &CurrentTask, path: UserAddr, flags: u32, mode: u32) -> SyscallResult {
    sys_openat(task, Fd::CWD, path, flags, mode)
}

pub fn sys_creat(task: &CurrentTask, path: UserAddr, mode: u32) -> SyscallResult {
    let flags = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC;
    sys_openat(task, Fd::CWD, path, flags.bits(), mode)
}

pub fn sys_openat(task: &CurrentTask, dirfd: Fd, path: UserAddr, flags: u32, mode: u32) -> SyscallResult {
    let how = OpenHow::lenient(flags, mode)?;
    let cloexec = flags & OpenFlags::CLOEXEC.bits() != 0;
    open_and_install(task, dirfd, path, &how, cloexec)
}

pub fn sys_openat2(
    task: &CurrentTask,
    dirfd: Fd,
    path: UserAddr,
    how: UserAddr,
    size: usize,
) -> SyscallResult {
    if size < OPEN_HOW_SIZE {
        return Err(Errno::EINVAL.into());
    }
    if size > 4096 {
        return Err(Errno::E2BIG.into());
    }
    // What a newer program knows must be zero (`copy_struct_from_user`).
    let tail = how.checked_add(OPEN_HOW_SIZE as u64).ok_or(Errno::EFAULT)?;
    let rest: Vec<u8> = task.read_array(tail, size - OPEN_HOW_SIZE)?;
    if rest.iter().any(|b| *b != 0) {
        return Err(Errno::E2BIG.into());
    }
    let how: UserOpenHow = task.read_object(how)?;
    let flags = u32::try_from(how.flags).ok().and_then(OpenFlags::from_bits).ok_or(Errno::EINVAL)?;
    let mode = u32::try_from(how.mode).map_err(|_| Errno::EINVAL)?;
    let resolve = resolve_flags(how.resolve)?;
    let how = OpenHow { flags, mode, resolve }.check()?;
    open_and_install(task, dirfd, path, &how, flags.contains(OpenFlags::CLOEXEC))
}

/// RESOLVE_ flags.
fn resolve_flags(raw: u64) -> Result<WalkFlags, Errno> {
    const KNOWN: [(u64, WalkFlags); 5] = [
        (0x01, WalkFlags::NO_XDEV),
        (0x02, WalkFlags::NO_MAGICLINKS),
        (0x04, WalkFlags::NO_SYMLINKS),
        (0x08, WalkFlags::BENEATH),
        (0x10, WalkFlags::IN_ROOT),
    ];
    const CACHED: u64 = 0x20;
    let mut flags = WalkFlags::empty();
    let mut left = raw;
    for (bit, flag) in KNOWN {
        if raw & bit != 0 {
            flags |= flag;
            left &= !bit;
        }
    }
    if left & CACHED != 0 && left & !CACHED == 0 {
        // A walk here may always have to ask a file system: as if nothing were cached.
        return Err(Errno::EAGAIN);
    }
    if left != 0 || flags.contains(WalkFlags::BENEATH | WalkFlags::IN_ROOT) {
        return Err(Errno::EINVAL);
    }
    // RESOLVE_NO_SYMLINKS implies RESOLVE_NO_MAGICLINKS.
    if flags.contains(WalkFlags::NO_SYMLINKS) {
        flags |= WalkFlags::NO_MAGICLINKS;
    }
    Ok(flags)
}

fn open_and_install(
    task: &CurrentTask,
    dirfd: Fd,
    path: UserAddr,
    how: &OpenHow,
    cloexec: bool,
) -> SyscallResult {
    let path = task.read_path(path)?;
    // Nothing is created or truncated when there is no descriptor left.
    task.files().check_room(task.group().rlimit(Resource::Nofile).soft)?;
    let file = open::open_how(task, dirfd, &path, how)?;
    let flags = if cloexec { FdFlags::CLOEXEC } else { FdFlags::empty() };
    Ok(task.install_fd(file, flags)?.0 as usize)
}
