//! Interfaces, addresses and routes of the host's network namespace, asked of its route netlink.

use std::os::fd::AsFd;

use quicksand_abi::Errno;
use quicksand_abi::netlink::{
    IFA_ADDRESS, IFA_BROADCAST, IFA_CACHEINFO, IFA_FLAGS, IFA_LABEL, IFA_LOCAL, IFLA_ADDRESS, IFLA_BROADCAST,
    IFLA_IFNAME, IFLA_MTU, IFLA_OPERSTATE, IFLA_QDISC, IFLA_STATS64, IFLA_TXQLEN, IfAddrMsg, IfInfoMsg,
    NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NlMsgHdr, RTA_DST, RTA_GATEWAY, RTA_OIF, RTA_PREFSRC,
    RTA_PRIORITY, RTA_SRC, RTA_TABLE, RTM_F_LOOKUP_TABLE, RTM_GETADDR, RTM_GETLINK, RTM_GETROUTE,
    RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RtMsg, attributes, messages, push_attribute,
};
use quicksand_host::socket as host;
use zerocopy::{FromBytes, IntoBytes};

use crate::net::stack::{Interface, InterfaceAddress, InterfaceStats, Route};

/// The payloads of all messages of type `wanted` that answer a request: all of a dump, or one.
fn ask(request: u16, all: bool, body: &[u8], wanted: u16) -> Result<Vec<Vec<u8>>, Errno> {
    let socket = host::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    let len = size_of::<NlMsgHdr>() + body.len();
    let flags = if all { NLM_F_REQUEST | NLM_F_DUMP } else { NLM_F_REQUEST };
    let header = NlMsgHdr { len: len as u32, kind: request, flags, seq: 1, pid: 0 };
    let mut message = header.as_bytes().to_vec();
    message.extend_from_slice(body);
    host::send(socket.as_fd(), &message, None, &[], 0)?;
    let mut out = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let got = host::receive(socket.as_fd(), &mut buffer, &mut [], 0)?;
        for (header, payload) in messages(&buffer[..got.len.min(buffer.len())]) {
            match header.kind {
                NLMSG_DONE => return Ok(out),
                NLMSG_ERROR => {
                    let (code, _) = i32::read_from_prefix(payload).map_err(|_| Errno::EIO)?;
                    return Err(Errno::from_raw(code.wrapping_neg()));
                }
                kind if kind == wanted => out.push(payload.to_vec()),
                _ => {}
            }
        }
        if !all && !out.is_empty() {
            return Ok(out);
        }
    }
}

fn dump(request: u16, body: &[u8], wanted: u16) -> Result<Vec<Vec<u8>>, Errno> {
    ask(request, true, body, wanted)
}

fn u32_of(data: &[u8]) -> u32 {
    u32::read_from_prefix(data).map_or(0, |(v, _)| v)
}
fn text(data: &[u8]) -> String {
    let end = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    String::from_utf8_lossy(&data[..end]).into_owned()
}

pub(super) fn interfaces() -> Result<Vec<Interface>, Errno> {
    let body = IfInfoMsg::default();
    let messages = dump(RTM_GETLINK, body.as_bytes(), RTM_NEWLINK)?;
    Ok(messages.iter().filter_map(|m| interface(m)).collect())
}

fn interface(payload: &[u8]) -> Option<Interface> {
    let (info, rest) = IfInfoMsg::read_from_prefix(payload).ok()?;
    let mut out = Interface { index: info.index, kind: info.kind, flags: info.flags, ..Interface::default() };
    for (kind, data) in attributes(rest) {
        match kind {
            IFLA_IFNAME => out.name = text(data),
            IFLA_MTU => out.mtu = u32_of(data),
            IFLA_TXQLEN => out.queue_len = u32_of(data),
            IFLA_QDISC => out.qdisc = text(data),
            IFLA_OPERSTATE => out.oper_state = data.first().copied().unwrap_or(0),
            IFLA_ADDRESS => out.address = data.to_vec(),
            IFLA_BROADCAST => out.broadcast = data.to_vec(),
            IFLA_STATS64 => out.stats = stats(data),
            _ => {}
        }
    }
    Some(out)
}

/// The first eight counters of `struct rtnl_link_stats64`.
fn stats(data: &[u8]) -> InterfaceStats {
    let at = |i: usize| {
        let bytes = data.get(i * 8..i * 8 + 8).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    };
    InterfaceStats {
        rx_packets: at(0),
        tx_packets: at(1),
        rx_bytes: at(2),
        tx_bytes: at(3),
        rx_errors: at(4),
        tx_errors: at(5),
        rx_dropped: at(6),
        tx_dropped: at(7),
    }
}

pub(super) fn addresses() -> Result<Vec<InterfaceAddress>, Errno> {
    let body = IfAddrMsg::default();
    let messages = dump(RTM_GETADDR, body.as_bytes(), RTM_NEWADDR)?;
    Ok(messages.iter().filter_map(|m| address(m)).collect())
}

fn address(payload: &[u8]) -> Option<InterfaceAddress> {
    let (info, rest) = IfAddrMsg::read_from_prefix(payload).ok()?;
    let mut out = InterfaceAddress {
        family: info.family,
        prefix_len: info.prefix_len,
        flags: u32::from(info.flags),
        scope: info.scope,
        index: info.index as i32,
        ..InterfaceAddress::default()
    };
    for (kind, data) in attributes(rest) {
        match kind {
            IFA_LOCAL => out.local = data.to_vec(),
            IFA_ADDRESS => out.peer = data.to_vec(),
            IFA_BROADCAST => out.broadcast = data.to_vec(),
            IFA_LABEL => out.label = Some(text(data)),
            IFA_CACHEINFO => out.cache_info = data.to_vec(),
            IFA_FLAGS => out.flags = u32_of(data),
            _ => {}
        }
    }
    if out.local.is_empty() {
        out.local.clone_from(&out.peer);
    }
    Some(out)
}

pub(super) fn routes() -> Result<Vec<Route>, Errno> {
    let body = RtMsg::default();
    let messages = dump(RTM_GETROUTE, body.as_bytes(), RTM_NEWROUTE)?;
    Ok(messages.iter().filter_map(|m| route(m)).collect())
}

/// What the host answers is its choice among all its tables and rules.
pub(super) fn find_route(wanted: &Route) -> Result<Route, Errno> {
    let info = RtMsg {
        family: wanted.family,
        dst_len: wanted.dst_len,
        src_len: wanted.src_len,
        tos: wanted.tos,
        flags: wanted.flags & RTM_F_LOOKUP_TABLE,
        ..RtMsg::default()
    };
    let mut body = info.as_bytes().to_vec();
    for (kind, address) in [(RTA_DST, &wanted.dst), (RTA_SRC, &wanted.src)] {
        if !address.is_empty() {
            push_attribute(&mut body, kind, address);
        }
    }
    if let Some(interface) = wanted.interface {
        push_attribute(&mut body, RTA_OIF, &interface.to_ne_bytes());
    }
    let answer = ask(RTM_GETROUTE, false, &body, RTM_NEWROUTE)?;
    answer.first().and_then(|m| route(m)).ok_or(Errno::ENETUNREACH)
}

fn route(payload: &[u8]) -> Option<Route> {
    let (info, rest) = RtMsg::read_from_prefix(payload).ok()?;
    let mut out = Route {
        family: info.family,
        dst_len: info.dst_len,
        src_len: info.src_len,
        tos: info.tos,
        table: u32::from(info.table),
        protocol: info.protocol,
        scope: info.scope,
        kind: info.kind,
        flags: info.flags,
        ..Route::default()
    };
    for (kind, data) in attributes(rest) {
        match kind {
            RTA_DST => out.dst = data.to_vec(),
            RTA_SRC => out.src = data.to_vec(),
            RTA_GATEWAY => out.gateway = data.to_vec(),
            RTA_PREFSRC => out.preferred_source = data.to_vec(),
            RTA_OIF => out.interface = Some(u32_of(data) as i32),
            RTA_PRIORITY => out.metric = Some(u32_of(data)),
            RTA_TABLE => out.table = u32_of(data),
            _ => {}
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_there() {
        let interfaces = interfaces().unwrap();
        let lo = interfaces.iter().find(|i| i.name == "lo").unwrap();
        assert_eq!(lo.kind, 772);
        assert_ne!(lo.flags & libc::IFF_LOOPBACK as u32, 0);
        let addresses = addresses().unwrap();
        if lo.flags & libc::IFF_UP as u32 != 0 {
            assert!(addresses.iter().any(|a| a.index == lo.index && a.local == [127, 0, 0, 1]));
        }
        routes().unwrap();
        let wanted = Route { family: 2, dst_len: 32, dst: vec![127, 0, 0, 1], ..Route::default() };
        if lo.flags & libc::IFF_UP as u32 != 0 {
            assert_eq!(find_route(&wanted).unwrap().interface, Some(lo.index));
        }
    }
}
