//! The sandbox's own network namespace: its loopback is brought up, and its ports are free for all.

use std::mem::MaybeUninit;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{Context, Result};
use crate::fail;

/// Brings the loopback up.
pub fn set_up() -> Result<()> {
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .context("a netlink socket")?;
    let request = link_up(1);
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, &request, SendFlags::empty(), &kernel)
        .context("bringing the loopback up")?;
    let mut answer = [MaybeUninit::uninit(); 256];
    let ((answer, _), _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())
        .context("bringing the loopback up")?;
    // An NLMSG_ERROR: a header of 16 bytes, then the negative errno, 0 for an acknowledgement.
    let code = answer.get(16..20).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => {}
        Some(code) => fail!("bringing the loopback up: {}", std::io::Error::from_raw_os_error(-code)),
        None => fail!("bringing the loopback up: a short answer"),
    }
    // The Sentry checks the right to low ports itself, and will have no rights here.
    std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0").context("ip_unprivileged_port_start")
}

/// `RTM_NEWLINK` that sets IFF_UP on the interface with this index.
fn link_up(index: i32) -> [u8; 32] {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_ACK: u16 = 5;
    const IFF_UP: u32 = 1;
    let mut out = [0; 32];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        out[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&32u32.to_ne_bytes()); // length
    put(&RTM_NEWLINK.to_ne_bytes());
    put(&NLM_F_REQUEST_ACK.to_ne_bytes());
    put(&1u32.to_ne_bytes()); // sequence
    put(&0u32.to_ne_bytes()); // port
    put(&[0, 0, 0, 0]); // family, padding, type
    put(&index.to_ne_bytes());
    put(&IFF_UP.to_ne_bytes()); // flags
    put(&IFF_UP.to_ne_bytes()); // which of them change
    out
}
