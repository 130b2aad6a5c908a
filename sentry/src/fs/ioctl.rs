//! `ioctl(2)` commands that several kinds of files share, and the helpers to answer them.

use quicksand_abi::UserAddr;

use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;

/// Bytes that can be read; sockets call it SIOCINQ.
pub const FIONREAD: u32 = 0x541b;
/// Bytes not yet taken by the peer; sockets call it SIOCOUTQ.
pub const TIOCOUTQ: u32 = 0x5411;

/// Bytes that have not even been sent yet (TCP).
pub const SIOCOUTQNSD: u32 = 0x894b;
/// Whether the read position is at urgent data.
pub const SIOCATMARK: u32 = 0x8905;

/// Who gets the signals of a socket (F_SETOWN, F_GETOWN).
pub const FIOSETOWN: u32 = 0x8901;
pub const SIOCSPGRP: u32 = 0x8902;
pub const FIOGETOWN: u32 = 0x8903;
pub const SIOCGPGRP: u32 = 0x8904;

/// Answers with an `int`, saturating.
pub fn put_int(task: &CurrentTask, arg: u64, value: usize) -> SyscallResult {
    task.write_object(UserAddr(arg), &i32::try_from(value).unwrap_or(i32::MAX))?;
    Ok(0)
}
