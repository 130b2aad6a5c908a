//! Sockets: `tcp`, `udp`, `raw`, `icmp` and their IPv6 kin. A line's inode is that of the socket's descriptor
//! (`/proc/PID/fd`), which is how `ss -p` and psutil find its process.

use std::fmt::Write;

use super::super::NetNamespace;
use super::super::stack::SocketSummary;

const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
/// What lines are filled up to in the IPv4 files, without the line's end.
const TCP_WIDTH: usize = 149;
const UDP_WIDTH: usize = 127;

pub(super) fn tcp(net: &NetNamespace) -> String {
    connections(net, libc::AF_INET)
}
pub(super) fn tcp6(net: &NetNamespace) -> String {
    connections(net, libc::AF_INET6)
}
pub(super) fn udp(net: &NetNamespace) -> String {
    datagrams(net, libc::AF_INET, libc::IPPROTO_UDP)
}
pub(super) fn udp6(net: &NetNamespace) -> String {
    datagrams(net, libc::AF_INET6, libc::IPPROTO_UDP)
}
pub(super) fn udplite(net: &NetNamespace) -> String {
    datagrams(net, libc::AF_INET, libc::IPPROTO_UDPLITE)
}
pub(super) fn udplite6(net: &NetNamespace) -> String {
    datagrams(net, libc::AF_INET6, libc::IPPROTO_UDPLITE)
}
pub(super) fn icmp(net: &NetNamespace) -> String {
    datagrams(net, libc::AF_INET, libc::IPPROTO_ICMP)
}
pub(super) fn icmp6(net: &NetNamespace) -> String {
    datagrams(net, libc::AF_INET6, libc::IPPROTO_ICMPV6)
}
pub(super) fn raw(net: &NetNamespace) -> String {
    datagrams(net, libc::AF_INET, libc::IPPROTO_RAW)
}
pub(super) fn raw6(net: &NetNamespace) -> String {
    datagrams(net, libc::AF_INET6, libc::IPPROTO_RAW)
}

/// The heading up to what the kinds of sockets differ in.
fn heading(family: i32) -> String {
    let (local, remote) = if family == libc::AF_INET6 {
        ("local_address                         ", "remote_address                        ")
    } else {
        ("local_address ", "rem_address   ")
    };
    format!("  sl  {local}{remote}st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode")
}

/// Appends a line; those of IPv4 are filled with blanks.
fn push(out: &mut String, family: i32, width: usize, line: &str) {
    let width = if family == libc::AF_INET { width } else { 0 };
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(out, "{line:<width$}");
}

/// An IPv4 address in network order as the number that the files show.
pub(super) fn number(address: &[u8]) -> u32 {
    address.try_into().map_or(0, u32::from_ne_bytes)
}

/// The port of a `sockaddr`.
fn port(address: &[u8]) -> u16 {
    address.get(2..4).map_or(0, |p| u16::from_be_bytes([p[0], p[1]]))
}

/// Address and port as the files show them: each 32-bit word in the machine's order, the port as a number.
fn shown(family: i32, address: Option<&[u8]>) -> String {
    let words = if family == libc::AF_INET6 { 4 } else { 1 };
    let start = if family == libc::AF_INET6 { 8 } else { 4 };
    let address = address.unwrap_or_default();
    let mut out = String::new();
    for i in 0..words {
        let word = address.get(start + i * 4..start + i * 4 + 4).map_or(0, number);
        let _ = write!(out, "{word:08X}");
    }
    let _ = write!(out, ":{:04X}", port(address));
    out
}

/// From the addresses to the reference count.
fn common(s: &SocketSummary) -> String {
    let local = shown(s.family, Some(&s.local));
    let remote = shown(s.family, s.remote.as_deref());
    format!(
        "{local} {remote} {:02X} {:08X}:{:08X} 00:00000000 00000000 {:5} {:8} {}",
        s.state, s.send_queue, s.receive_queue, s.uid, 0, s.inode
    )
}

fn connections(net: &NetNamespace, family: i32) -> String {
    let mut out = String::new();
    push(&mut out, family, TCP_WIDTH, &heading(family));
    let mut all = net.stack().sockets();
    // A socket that is not connected and does not listen is in no table.
    all.retain(|s| s.family == family && s.kind == libc::SOCK_STREAM && s.state != TCP_CLOSE);
    // Those that listen come first.
    all.sort_by_key(|s| s.state != TCP_LISTEN);
    for (i, s) in all.iter().enumerate() {
        push(&mut out, family, TCP_WIDTH, &format!("{i:4}: {} 1 {:016x} 100 0 0 10 0", common(s), 0));
    }
    out
}

fn datagrams(net: &NetNamespace, family: i32, protocol: i32) -> String {
    let mut out = String::new();
    // One column further right than the others: the line numbers are wider.
    let indent = if (family, protocol) == (libc::AF_INET, libc::IPPROTO_UDP) { " " } else { "" };
    push(&mut out, family, UDP_WIDTH, &format!("{indent}{} ref pointer drops", heading(family)));
    let mut all = net.stack().sockets();
    // A socket without a port is in no table.
    all.retain(|s| s.family == family && s.protocol == protocol && port(&s.local) != 0);
    for (i, s) in all.iter().enumerate() {
        push(&mut out, family, UDP_WIDTH, &format!("{i:5}: {} 2 {:016x} 0", common(s), 0));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_in_the_machines_order() {
        let address = [2, 0, 0x1f, 0x90, 127, 0, 0, 1];
        assert_eq!(shown(libc::AF_INET, Some(&address)), "0100007F:1F90");
        assert_eq!(shown(libc::AF_INET6, None), format!("{}:0000", "0".repeat(32)));
    }
}
