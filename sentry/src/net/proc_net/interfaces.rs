//! Interfaces, addresses and routes: `dev`, `if_inet6`, `route`, `ipv6_route`.

use std::fmt::Write;

use super::super::NetNamespace;
use super::sockets::number;

const TABLE_MAIN: u32 = 254;

const RTF_UP: u32 = 1;
const RTF_GATEWAY: u32 = 2;
const RTF_HOST: u32 = 4;
const RTF_REJECT: u32 = 0x200;
const RTF_NONEXTHOP: u32 = 0x20_0000;
const RTF_ANYCAST: u32 = 0x10_0000;
const RTF_LOCAL: u32 = 0x8000_0000;

/// Kinds of routes (RTN_).
const LOCAL: u8 = 2;
const BROADCAST: u8 = 3;
const ANYCAST: u8 = 4;
const MULTICAST: u8 = 5;
const UNREACHABLE: u8 = 7;
const PROHIBIT: u8 = 8;

pub(super) fn dev(net: &NetNamespace) -> String {
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

pub(super) fn if_inet6(net: &NetNamespace) -> String {
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

pub(super) fn route(net: &NetNamespace) -> String {
    let interfaces = net.stack().interfaces().unwrap_or_default();
    let mut out = format!(
        "{:<127}\n",
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
    );
    for r in net.stack().routes().unwrap_or_default() {
        let shown = r.table == TABLE_MAIN && !matches!(r.kind, BROADCAST | MULTICAST);
        if i32::from(r.family) != libc::AF_INET || !shown {
            continue;
        }
        let name = interfaces.iter().find(|i| Some(i.index) == r.interface).map_or("*", |i| &i.name);
        let mask = u32::MAX.checked_shl(32 - u32::from(r.dst_len.min(32))).unwrap_or(0).to_be();
        let mut flags = RTF_UP;
        if matches!(r.kind, UNREACHABLE | PROHIBIT) {
            flags = RTF_REJECT;
        }
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

pub(super) fn ipv6_route(net: &NetNamespace) -> String {
    let interfaces = net.stack().interfaces().unwrap_or_default();
    let full = |a: &[u8]| hex(<&[u8; 16]>::try_from(a).unwrap_or(&[0; 16]));
    let mut out = String::new();
    for r in net.stack().routes().unwrap_or_default() {
        if i32::from(r.family) != libc::AF_INET6 {
            continue;
        }
        let name = interfaces.iter().find(|i| Some(i.index) == r.interface).map_or("", |i| &i.name);
        let mut flags = match r.kind {
            LOCAL => RTF_UP | RTF_NONEXTHOP | RTF_LOCAL,
            ANYCAST => RTF_UP | RTF_NONEXTHOP | RTF_ANYCAST,
            UNREACHABLE | PROHIBIT => RTF_REJECT | RTF_NONEXTHOP,
            _ => RTF_UP,
        };
        if !r.gateway.is_empty() {
            flags |= RTF_GATEWAY;
        }
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
