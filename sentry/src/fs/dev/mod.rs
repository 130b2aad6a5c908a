//! Devices: what opening a character device node does, and the container's `/dev`.
//!
//! Nodes are ordinary inodes of whatever file system holds them; what they do is decided here by their numbers
//! (Linux's `Documentation/admin-guide/devices.txt`), never by the host's node.

mod memory;

use std::sync::Arc;

use quicksand_abi::Errno;

use crate::task::CurrentTask;
use crate::vfs::{DeviceId, FileOps, Inode, NewNode, OpenFlags, Owner};

pub const NULL: DeviceId = DeviceId::new(1, 3);
pub const ZERO: DeviceId = DeviceId::new(1, 5);
pub const FULL: DeviceId = DeviceId::new(1, 7);
pub const RANDOM: DeviceId = DeviceId::new(1, 8);
pub const URANDOM: DeviceId = DeviceId::new(1, 9);
/// The caller's controlling terminal.
pub const TTY: DeviceId = DeviceId::new(5, 0);
pub const CONSOLE: DeviceId = DeviceId::new(5, 1);
pub const PTMX: DeviceId = DeviceId::new(5, 2);

/// The nodes that every container has in `/dev`, with their permissions: the runtime specification's default devices.
pub const DEFAULT_NODES: &[(&str, DeviceId)] =
    &[("null", NULL), ("zero", ZERO), ("full", FULL), ("random", RANDOM), ("urandom", URANDOM), ("tty", TTY)];

/// The links that every container has in `/dev`.
pub const DEFAULT_LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];

/// Opens a character device node. ENXIO where the Sentry has no such device, as Linux answers without a driver.
pub fn open_char(
    device: DeviceId,
    inode: &Arc<Inode>,
    flags: OpenFlags,
    task: &CurrentTask,
) -> Result<Box<dyn FileOps>, Errno> {
    match device {
        NULL => Ok(Box::new(memory::Null)),
        ZERO => Ok(Box::new(memory::Zero)),
        FULL => Ok(Box::new(memory::Full)),
        RANDOM | URANDOM => Ok(Box::new(memory::Random)),
        _ => super::tty::open_device(device, inode, flags, task),
    }
}

/// Makes the default nodes and links in a fresh `/dev`; names that are there already stay as they are.
pub fn populate(dir: &Arc<Inode>) -> Result<(), Errno> {
    let make = |name: &str, node: NewNode<'_>, perm| match dir.ops.create(
        dir,
        name.as_bytes(),
        node,
        Owner { uid: 0, gid: 0, perm },
    ) {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(e) => Err(e),
    };
    for (name, device) in DEFAULT_NODES {
        make(name, NewNode::CharDevice(*device), 0o666)?;
    }
    for (name, target) in DEFAULT_LINKS {
        make(name, NewNode::Symlink(target.as_bytes()), 0o777)?;
    }
    Ok(())
}
