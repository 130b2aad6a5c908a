//! Terminals: pseudoterminal pairs (`pty(7)`), `/dev/ptmx`, `/dev/pts`, `/dev/tty`.

mod ldisc;

use std::sync::Arc;

use quicksand_abi::Errno;

use crate::task::CurrentTask;
use crate::vfs::{DeviceId, FileOps, Inode, OpenFlags};

/// Opens a terminal device node; ENXIO where `device` is none.
pub fn open_device(
    _device: DeviceId,
    _inode: &Arc<Inode>,
    _flags: OpenFlags,
    _task: &CurrentTask,
) -> Result<Box<dyn FileOps>, Errno> {
    Err(Errno::ENXIO)
}
