//! The files of `/proc/net`, as text.

use std::fmt::Write;
use std::sync::Arc;

use super::NetNamespace;
use super::stack::SocketSummary;

/// The names of the files that [`read`] knows.
pub const FILES: [&str; 13] = [
    "arp",
    "dev",
    "if_inet6",
    "ipv6_route",
    "netlink",
    "packet",
    "raw",
    "route",
    "tcp",
    "tcp6",
    "udp",
    "udp6",
    "unix",
];

/// The content of `/proc/net/NAME`; `None` where there is no such file.
pub fn read(net: &Arc<NetNamespace>, name: &str) -> Option<String> {
    Some(match name {
        "dev" => dev(net),
        "if_inet6" => if_inet6(net),
        "route" => route(net),
        "ipv6_route" => ipv6_route(net),
        "tcp" => sockets(net, libc::AF_INET, libc::SOCK_STREAM),
        "tcp6" => sockets(net, libc::AF_INET6, libc::SOCK_STREAM),
        "udp" => sockets(net, libc::AF_INET, libc::SOCK_DGRAM),
        "udp6" => sockets(net, libc::AF_INET6, libc::SOCK_DGRAM),
        "raw" => header(libc::AF_INET),
        "arp" => "IP address       HW type     Flags       HW address            Mask     Device\n".into(),
        "packet" => "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n".into(),
        "netlink" => {
            "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"
                .into()
        }
        "unix" => net.unix.proc_text(),
        _ => return None,
    })
}

// A stack that cannot say what it has shows nothing: the files are then only their headings.

fn dev(net: &NetNamespace) -> String {
    let mut out = String::from(
        "Inter-|   Receive                                                |  Transmit\n \
         face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n",
    );
    for i in net.stack().interfaces().unwrap_or_default() {
        let s = &i.stats;
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            out,
            "{:>6}: {:7} {:7} {:4} {:4} {:4} {:5} {:10} {:9} {:8} {:7} {:4} {:4} {:4} {:5} {:7} {:10}",
            i.name,
            s.rx_bytes,
            s.rx_packets,
            s.rx_errors,
            s.rx_dropped,
            0,
            0,
            0,
            0,
            s.tx_bytes,
            s.tx_packets,
            s.tx_errors,
            s.tx_dropped,
            0,
            0,
            0,
            0
        );
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn if_inet6(net: &NetNamespace) -> String {
    let interfaces = net.stack().interfaces().unwrap_or_default();
    let mut out = String::new();
    for a in net.stack().addresses().unwrap_or_default() {
        if i32::from(a.family) != libc::AF_INET6 {
            continue;
        }
        let name = interfaces.iter().find(|i| i.index == a.index).map_or("", |i| &i.name);
        // The scope as IPv6 numbers it (`IPV6_ADDR_LOOPBACK` and its kind).
        let scope = match a.scope {
            254 => 0x10,
            253 => 0x20,
            200 => 0x40,
            _ => 0,
        };
        let (address, index, prefix, flags) = (hex(&a.local), a.index, a.prefix_len, a.flags as u8);
        let _ = writeln!(out, "{address} {index:02x} {prefix:02x} {scope:02x} {flags:02x} {name:>8}");
    }
    out
}

/// An IPv4 address in network order as the number that the files show.
fn number(address: &[u8]) -> u32 {
    address.try_into().map_or(0, u32::from_ne_bytes)
}

fn route(net: &NetNamespace) -> String {
    const RTF_UP: u32 = 1;
    const RTF_GATEWAY: u32 = 2;
    const RTF_HOST: u32 = 4;
    const TABLE_MAIN: u32 = 254;
    let interfaces = net.stack().interfaces().unwrap_or_default();
    let mut out = format!(
        "{:<127}\n",
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
    );
    for r in net.stack().routes().unwrap_or_default() {
        if i32::from(r.family) != libc::AF_INET || r.table != TABLE_MAIN {
            continue;
        }
        let name = interfaces.iter().find(|i| Some(i.index) == r.interface).map_or("*", |i| &i.name);
        let mask = u32::MAX.checked_shl(32 - u32::from(r.dst_len.min(32))).unwrap_or(0).to_be();
        let mut flags = RTF_UP;
        if !r.gateway.is_empty() {
            flags |= RTF_GATEWAY;
        }
        if r.dst_len == 32 {
            flags |= RTF_HOST;
        }
        let line = format!(
            "{name}\t{:08X}\t{:08X}\t{flags:04X}\t0\t0\t{}\t{mask:08X}\t0\t0\t0",
            number(&r.dst),
            number(&r.gateway),
            r.metric.unwrap_or(0)
        );
        let _ = writeln!(out, "{line:<127}");
    }
    out
}

fn ipv6_route(net: &NetNamespace) -> String {
    let interfaces = net.stack().interfaces().unwrap_or_default();
    let full = |a: &[u8]| hex(a.try_into().unwrap_or(&[0u8; 16]));
    let mut out = String::new();
    for r in net.stack().routes().unwrap_or_default() {
        if i32::from(r.family) != libc::AF_INET6 {
            continue;
        }
        let name = interfaces.iter().find(|i| Some(i.index) == r.interface).map_or("", |i| &i.name);
        let flags = if r.gateway.is_empty() { 1 } else { 3 };
        let _ = writeln!(
            out,
            "{} {:02x} {} {:02x} {} {:08x} {:08x} {:08x} {flags:08x} {name:>8}",
            full(&r.dst),
            r.dst_len,
            full(&[]),
            r.src_len,
            full(&r.gateway),
            r.metric.unwrap_or(0),
            1,
            0
        );
    }
    out
}

fn header(family: i32) -> String {
    let (local, remote) = if family == libc::AF_INET6 {
        ("local_address                         ", "remote_address                        ")
    } else {
        ("local_address ", "rem_address   ")
    };
    let rest = "st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
    let line = format!("  sl  {local}{remote}{rest}");
    if family == libc::AF_INET { format!("{line:<149}\n") } else { format!("{line}\n") }
}

/// Address and port as the files show them: each 32-bit word in the machine's order, the port as a number.
fn shown(family: i32, address: Option<&[u8]>) -> String {
    let words = if family == libc::AF_INET6 { 4 } else { 1 };
    let start = if family == libc::AF_INET6 { 8 } else { 4 };
    let address = address.unwrap_or_default();
    let port = address.get(2..4).map_or(0, |p| u16::from_be_bytes([p[0], p[1]]));
    let mut out = String::new();
    for i in 0..words {
        let word = address.get(start + i * 4..start + i * 4 + 4).map_or(0, number);
        let _ = write!(out, "{word:08X}");
    }
    let _ = write!(out, ":{port:04X}");
    out
}

fn sockets(net: &NetNamespace, family: i32, kind: i32) -> String {
    let mut out = header(family);
    let wanted = |s: &&SocketSummary| s.family == family && s.kind == kind;
    // An unbound TCP socket is in no table.
    let listed = |s: &&SocketSummary| kind != libc::SOCK_STREAM || s.state != 7;
    for (i, s) in net.stack().sockets().iter().filter(wanted).filter(listed).enumerate() {
        let local = shown(family, Some(&s.local));
        let remote = shown(family, s.remote.as_deref());
        let line = format!(
            "{i:4}: {local} {remote} {:02X} 00000000:00000000 00:00000000 00000000     0        0 0 1",
            s.state
        );
        let _ = if family == libc::AF_INET { writeln!(out, "{line:<149}") } else { writeln!(out, "{line}") };
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

    #[test]
    fn every_listed_file_can_be_read() {
        let net = Arc::new(NetNamespace::default());
        for name in FILES {
            assert!(read(&net, name).is_some(), "{name}");
        }
        assert!(read(&net, "dev").is_some_and(|text| text.contains("lo:")));
        assert!(read(&net, "nothing").is_none());
    }
}
