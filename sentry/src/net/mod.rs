//! Sockets and the network behind them.
//!
//! - [`socket`]: what every socket is ([`SocketOps`](socket::SocketOps)), and the open file over it.
//! - `syscalls`, `syscalls_msg`: the calls; addresses, headers and control messages to and from the guest.
//! - [`unix`]: Unix sockets, wholly inside the Sentry.
//! - [`stack`]: the one trait between internet sockets and what carries them; [`host`]: the stack of the network namespace
//!   that the Sentry's own process is in.
//! - [`lambda`]: the Lambda Runtime API, which a container may have.
//! - [`netlink`]: route netlink, answered from what the stack says. [`proc_net`]: the files of `/proc/net`.
//!
//! Sockets are tries like all files: the calls here turn EAGAIN into a `Blocked` on the socket's wait queue.

pub mod address;
pub mod control;
pub mod host;
mod interface;
pub mod lambda;
pub mod netlink;
pub mod proc_net;
pub mod socket;
pub mod stack;
pub mod syscalls;
pub mod syscalls_msg;
pub mod unix;

use std::fmt;
use std::sync::Arc;

use quicksand_abi::Errno;

use crate::task::CurrentTask;
use netlink::NetlinkSocket;
use socket::SocketOps;
use stack::Stack;

/// What a network namespace holds. There is one per sandbox.
#[derive(Default)]
pub struct NetNamespace {
    /// Names and queues of Unix sockets.
    pub unix: unix::UnixTable,
    /// What carries internet sockets.
    pub host: host::HostStack,
    pub(crate) netlink_ports: netlink::Ports,
}

impl NetNamespace {
    /// The stack behind internet sockets.
    pub fn stack(&self) -> &dyn Stack {
        &self.host
    }

    /// A socket of a family other than Unix. EAFNOSUPPORT where there is none, by name.
    pub fn socket(
        &self,
        task: &CurrentTask,
        family: i32,
        kind: i32,
        protocol: i32,
    ) -> Result<Arc<dyn SocketOps>, Errno> {
        match family {
            libc::AF_INET | libc::AF_INET6 => self.stack().socket(task, family, kind, protocol),
            libc::AF_NETLINK => Ok(NetlinkSocket::new(task, kind, protocol)?),
            _ => {
                let name = family_name(family);
                task.kernel().log_unsupported(&format!("sockets of family {name}"), Errno::EAFNOSUPPORT);
                Err(Errno::EAFNOSUPPORT)
            }
        }
    }
}

/// A family's name, for logs.
fn family_name(family: i32) -> String {
    let name = match family {
        libc::AF_PACKET => "AF_PACKET",
        libc::AF_VSOCK => "AF_VSOCK",
        libc::AF_ALG => "AF_ALG",
        libc::AF_BLUETOOTH => "AF_BLUETOOTH",
        libc::AF_CAN => "AF_CAN",
        libc::AF_XDP => "AF_XDP",
        libc::AF_KEY => "AF_KEY",
        libc::AF_TIPC => "AF_TIPC",
        _ => return family.to_string(),
    };
    name.into()
}

impl fmt::Debug for NetNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetNamespace")
    }
}
