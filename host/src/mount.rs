//! Mount calls that `rustix` does not have.

use std::os::fd::{AsRawFd, BorrowedFd};

use quicksand_abi::Errno;

bitflags::bitflags! {
    /// Attributes of mounts, for `mount_setattr(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Attributes: u64 {
        const RDONLY = libc::MOUNT_ATTR_RDONLY;
        const NOSUID = libc::MOUNT_ATTR_NOSUID;
        const NODEV = libc::MOUNT_ATTR_NODEV;
        const NOEXEC = libc::MOUNT_ATTR_NOEXEC;
    }
}

/// Sets attributes of the mount whose root `mount` is a descriptor of, and of all mounts below it.
pub fn set_attributes(mount: BorrowedFd<'_>, set: Attributes) -> Result<(), Errno> {
    let attr = libc::mount_attr { attr_set: set.bits(), attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the kernel reads an empty C string and a structure of the size given, and writes no memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(Errno::from(std::io::Error::last_os_error())) } else { Ok(()) }
}
