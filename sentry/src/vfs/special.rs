//! Opening what is not a regular file or directory: devices by their numbers, FIFOs, and files of file systems that
//! handle theirs themselves.

use quicksand_abi::Errno;

use super::file::{FileOps, OpenFlags};
use super::inode::FileKind;
use super::mount::Path;
use crate::fs::{dev, pipe};
use crate::syscalls::SyscallError;
use crate::task::CurrentTask;

/// What an open file of this node does.
pub(super) fn open(
    task: &CurrentTask,
    path: &Path,
    flags: OpenFlags,
) -> Result<Box<dyn FileOps>, SyscallError> {
    let inode = &path.dentry.inode;
    if inode.ops.opens_itself() {
        return Ok(inode.ops.open(inode, flags, task)?);
    }
    match inode.kind {
        FileKind::Fifo => pipe::open_fifo(inode, flags, task),
        FileKind::CharDevice => Ok(dev::open_char(inode.attr()?.rdev, inode, flags, task)?),
        // There is no block device in a sandbox, and a socket is connected to, not opened.
        FileKind::BlockDevice | FileKind::Socket => Err(Errno::ENXIO.into()),
        FileKind::Symlink => Err(Errno::ELOOP.into()),
        FileKind::Regular | FileKind::Directory | FileKind::Anonymous => {
            Ok(inode.ops.open(inode, flags, task)?)
        }
    }
}
