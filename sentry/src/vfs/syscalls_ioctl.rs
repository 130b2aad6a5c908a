//! `ioctl(2)`: the commands that mean the same for every file (Linux's `do_vfs_ioctl`); the rest is the file's own.

use quicksand_abi::{Errno, UserAddr};

use super::inode::FileKind;
use super::syscalls_path::is_stored;
use super::{FdFlags, OpenFile, OpenFlags};
use crate::fs::ioctl::FIONREAD;
use crate::syscalls::{Fd, SyscallResult};
use crate::task::CurrentTask;

const FIONBIO: u32 = 0x5421;
const FIONCLEX: u32 = 0x5450;
const FIOCLEX: u32 = 0x5451;
const FIOASYNC: u32 = 0x5452;
const FIOQSIZE: u32 = 0x5460;
/// The block size of the file system.
const FIGETBSZ: u32 = 2;
const FICLONE: u32 = 0x4004_9409;
const FICLONERANGE: u32 = 0x4020_940d;

pub fn sys_ioctl(task: &CurrentTask, fd: Fd, cmd: u32, arg: u64) -> SyscallResult {
    let file = task.file(fd)?;
    match cmd {
        FIOCLEX => task.files().set_flags(fd, FdFlags::CLOEXEC)?,
        FIONCLEX => task.files().set_flags(fd, FdFlags::empty())?,
        FIONBIO => set_flag(&file, OpenFlags::NONBLOCK, task.read_object::<i32>(UserAddr(arg))? != 0)?,
        FIOASYNC => {
            let on = task.read_object::<i32>(UserAddr(arg))? != 0;
            if on != file.flags().contains(OpenFlags::ASYNC) && !file.ops.is_stream() {
                return Err(Errno::ENOTTY.into());
            }
            if on != file.flags().contains(OpenFlags::ASYNC) {
                set_flag(&file, OpenFlags::ASYNC, on)?;
                file.set_async(fd.0, on);
            }
        }
        FIOQSIZE => {
            if !is_stored(file.inode.kind) {
                return Err(Errno::ENOTTY.into());
            }
            task.write_object(UserAddr(arg), &file.inode.attr()?.size)?;
        }
        FIGETBSZ if is_stored(file.inode.kind) => {
            let size = file.inode.sb.statfs.statfs()?.block_size;
            task.write_object(UserAddr(arg), &(size as u32))?;
        }
        FIONREAD if file.inode.kind == FileKind::Regular => {
            let left = file.inode.attr()?.size.saturating_sub(*file.offset.lock());
            return crate::fs::ioctl::put_int(task, arg, usize::try_from(left).unwrap_or(usize::MAX));
        }
        FICLONE | FICLONERANGE if file.inode.kind == FileKind::Regular => {
            return Err(Errno::EOPNOTSUPP.into());
        }
        _ => return file.ioctl(task, cmd, arg),
    }
    Ok(0)
}

fn set_flag(file: &OpenFile, flag: OpenFlags, on: bool) -> Result<(), Errno> {
    let mut flags = file.flags();
    if flags.contains(flag) != on {
        flags.set(flag, on);
        file.ops.set_flags(file, flags)?;
        file.set_flags(flags);
    }
    Ok(())
}
