//! Sockets and the network behind them.
//!
//! - [`socket`]: what every socket is ([`SocketOps`](socket::SocketOps)), and the open file over it.
//! - `syscalls`, `syscalls_msg`: the calls; addresses, headers and control messages to and from the guest.
//! - [`unix`]: Unix sockets, wholly inside the Sentry.
//! - [`stack`]: the one trait between internet sockets and what carries them; [`host`]: the stack of the network namespace
//!   that the Sentry's own process is in.
//! - [`netlink`]: route netlink, answered from what the stack says. [`proc_net`]: the files of `/proc/net`.
//!
//! Sockets are tries like all files: the calls here turn EAGAIN into a `Blocked` on the socket's wait queue.

pub mod address;
pub mod control;
pub mod socket;
pub mod syscalls;
pub mod syscalls_msg;
pub mod unix;

use std::fmt;
use std::sync::Arc;

use quicksand_abi::Errno;

use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;
use socket::SocketOps;

/// What a network namespace holds. There is one per sandbox.
#[derive(Default)]
pub struct NetNamespace {
    /// Names and queues of Unix sockets.
    pub unix: unix::UnixTable,
}

impl NetNamespace {
    /// A socket of a family other than Unix. EAFNOSUPPORT where there is none, by name.
    pub fn socket(
        &self,
        task: &CurrentTask,
        family: i32,
        _kind: i32,
        _protocol: i32,
    ) -> Result<Arc<dyn SocketOps>, Errno> {
        task.kernel().log_unsupported(&format!("socket family {family}"), Errno::EAFNOSUPPORT);
        Err(Errno::EAFNOSUPPORT)
    }

    /// Interface requests, which any socket takes.
    pub fn ioctl(&self, _: &CurrentTask, _cmd: u32, _arg: u64) -> SyscallResult {
        Err(Errno::ENOTTY.into())
    }
}

impl fmt::Debug for NetNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetNamespace")
    }
}
