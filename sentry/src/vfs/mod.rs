//! The virtual file system: what is common to all files.
//!
//! - [`inode`]: an [`Inode`] is a file as its file system knows it; [`InodeOps`] is what a file system implements
//!   (Linux's `inode_operations`).
//! - [`dentry`]: names. A [`Dentry`] ties a name in a directory to an inode. The dentry tree is the only place that knows
//!   paths.
//! - [`mount`]: mounts and mount namespaces. A [`Path`] is a dentry seen through a mount.
//! - [`file`]: an [`OpenFile`] is Linux's `struct file` (an open file description); [`FileOps`] is what an open file does
//!   (`file_operations`). All `FileOps` are *tries*: they never wait; EAGAIN means "would block", and the generic
//!   read/write path turns it into a `Blocked` on the file's wait queue, or lets O_NONBLOCK files return it.
//! - [`notify`]: whoever watches files is told what happens to them. [`fd_table`]: descriptors. [`io`]: buffers between files and guest memory.
//!
//! Permissions are checked here, from attributes, never by file systems.

pub mod attr;
pub mod dentry;
mod fasync;
pub mod fd_table;
pub mod file;
pub mod inode;
pub mod io;
pub mod locks;
pub mod mount;
pub mod namei;
pub mod notify;
pub mod open;
pub mod perm;
pub mod rw;
pub(crate) mod special;
pub mod syscalls_attr;
pub mod syscalls_fd;
pub mod syscalls_ioctl;
pub mod syscalls_mount;
pub mod syscalls_open;
pub mod syscalls_path;
pub mod syscalls_rw;
pub mod syscalls_stat;
pub mod syscalls_xattr;
pub mod walk;

pub use dentry::Dentry;
pub(crate) use fasync::SavedSignals;
pub use fd_table::{FdFlags, FdTable};
pub use file::{DirEntry, DirSink, FileOps, HostMapping, OpenFile, OpenFlags, ReadTimer, SeekFrom};
pub use inode::{
    Attr, DeviceId, FileKind, FileName, Inode, InodeOps, LinkTarget, NewNode, Owner, SetAttr, Superblock,
};
pub use io::{IoDst, IoSrc};
pub use mount::{Mount, MountFlags, MountNamespace, Path};
pub(crate) use open::reopen;
pub use open::{OpenHow, open, open_exec, open_path};

/// The kernel whose clock files are stamped by. File systems are asked without a task, and the guest compares what it
/// reads of its clock with what it finds in files: the two must be one.
static CLOCK: std::sync::OnceLock<std::sync::Weak<crate::kernel::Kernel>> = std::sync::OnceLock::new();

pub(crate) fn set_clock(kernel: &std::sync::Arc<crate::kernel::Kernel>) {
    // A process has one kernel; only unit tests make more, and to them any clock will do.
    let _ = CLOCK.set(std::sync::Arc::downgrade(kernel));
}

/// The time for a file's time stamps.
pub fn now() -> crate::time::Realtime {
    match CLOCK.get().and_then(std::sync::Weak::upgrade) {
        Some(kernel) => kernel.clocks.realtime(),
        None => {
            let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
            crate::time::Realtime(t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec))
        }
    }
}

/// SIGXFSZ: a file would grow past RLIMIT_FSIZE.
fn signal_file_size(task: &crate::task::CurrentTask) {
    use quicksand_abi::signal::{SigInfo, code::SI_USER};
    let info = SigInfo::user(libc::SIGXFSZ, SI_USER, task.group().pid(), task.creds().ruid);
    // A signal that is pending already is enough.
    let _ = crate::signal::send_to_task(task.task(), info);
}
