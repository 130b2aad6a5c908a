//! File calls that `rustix` does not have.

use std::os::fd::{AsRawFd, BorrowedFd};

use quicksand_abi::Errno;

/// `fchmodat2(2)` with `AT_SYMLINK_NOFOLLOW`: changes the permissions of one name in `dir`. Before Linux 6.6, where the
/// call is missing, it falls back to `fchmodat(2)` after a look that the name is no symbolic link.
pub fn chmod_at(dir: BorrowedFd<'_>, name: &[u8], perm: u32) -> Result<(), Errno> {
    let c_name = std::ffi::CString::new(name).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel reads a NUL-terminated string that lives until the call returns, and writes no memory.
    let result = unsafe {
        libc::syscall(libc::SYS_fchmodat2, dir.as_raw_fd(), c_name.as_ptr(), perm, libc::AT_SYMLINK_NOFOLLOW)
    };
    if result == 0 {
        return Ok(());
    }
    let error = Errno::from(std::io::Error::last_os_error());
    if error != Errno::ENOSYS {
        return Err(error);
    }
    use rustix::fs::{AtFlags, FileType, Mode};
    let fail = |e: rustix::io::Errno| Errno::from_raw(e.raw_os_error());
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    rustix::fs::chmodat(dir, name, Mode::from_raw_mode(perm), AtFlags::empty()).map_err(fail)
}
