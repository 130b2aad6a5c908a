//! Answers to route netlink requests, `rtnetlink(7)`, from what the stack says.

use quicksand_abi::Errno;
use quicksand_abi::netlink::{
    IFA_ADDRESS, IFA_BROADCAST, IFA_CACHEINFO, IFA_FLAGS, IFA_LABEL, IFA_LOCAL, IFLA_ADDRESS,
    IFLA_ALT_IFNAME, IFLA_BROADCAST, IFLA_CARRIER, IFLA_GROUP, IFLA_IFNAME, IFLA_LINKMODE, IFLA_MTU,
    IFLA_NUM_RX_QUEUES, IFLA_NUM_TX_QUEUES, IFLA_OPERSTATE, IFLA_PROMISCUITY, IFLA_QDISC, IFLA_STATS,
    IFLA_STATS64, IFLA_TXQLEN, IfAddrMsg, IfInfoMsg, NLM_F_DUMP, NLM_F_MULTI, NLMSG_DONE, NlMsgHdr, RTA_DST,
    RTA_GATEWAY, RTA_OIF, RTA_PREFSRC, RTA_PRIORITY, RTA_SRC, RTA_TABLE, RTM_F_CLONED, RTM_GETADDR,
    RTM_GETLINK, RTM_GETNEIGH, RTM_GETROUTE, RTM_GETRULE, RTM_MAX, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE,
    RtMsg, align, attributes, push_attribute,
};
use zerocopy::{FromBytes, IntoBytes};

use super::MAX_ANSWER;
use crate::net::stack::{Interface, InterfaceAddress, Route};
use crate::task::CurrentTask;

/// What the answer to a request was: a dump is not acknowledged besides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    Dump,
    Single,
}

/// Answers one request; the datagrams go to `out`. `strict` (NETLINK_GET_STRICT_CHK) makes a dump's filters count.
pub(super) fn answer(
    task: &CurrentTask,
    header: &NlMsgHdr,
    payload: &[u8],
    port: u32,
    strict: bool,
    out: &mut Vec<Vec<u8>>,
) -> Result<Answered, Errno> {
    if header.kind > RTM_MAX {
        return Err(Errno::EOPNOTSUPP);
    }
    // A request without a family is no error (`rtnetlink_rcv_msg`).
    let Some(family) = payload.first().copied() else { return Ok(Answered::Single) };
    // Types come in groups of four: new, delete, get, set. All but get change something.
    if header.kind % 4 != 2 {
        return Err(Errno::EPERM);
    }
    let stack = task.kernel().net.stack();
    let dump = header.flags & NLM_F_DUMP != 0;
    let mut answer = Answer { seq: header.seq, port, dump, current: Vec::new(), out };
    match header.kind {
        RTM_GETLINK if dump => {
            for interface in stack.interfaces()? {
                answer.push(RTM_NEWLINK, &link(&interface));
            }
        }
        RTM_GETLINK => {
            let found = find_link(stack.interfaces()?, payload)?;
            answer.push(RTM_NEWLINK, &link(&found));
        }
        RTM_GETADDR if dump => {
            let addresses = stack.addresses()?;
            let index = IfAddrMsg::read_from_prefix(payload).map_or(0, |(info, _)| info.index);
            let wanted = |a: &&InterfaceAddress| {
                (family == 0 || family == a.family) && (!strict || index == 0 || index == a.index as u32)
            };
            for address in addresses.iter().filter(wanted) {
                answer.push(RTM_NEWADDR, &address_message(address));
            }
        }
        RTM_GETROUTE if dump => {
            let filter = route_request(payload).unwrap_or_default();
            let wanted = |r: &&Route| (family == 0 || family == r.family) && (!strict || passes(&filter, r));
            // Routes are not cached: a request for the cache finds it empty.
            if filter.flags & RTM_F_CLONED == 0 {
                for route in stack.routes()?.iter().filter(wanted) {
                    answer.push(RTM_NEWROUTE, &route_message(route));
                }
            }
        }
        RTM_GETROUTE => {
            let wanted = route_request(payload).ok_or(Errno::EINVAL)?;
            if !matches!(i32::from(family), libc::AF_INET | libc::AF_INET6) {
                return Err(Errno::EOPNOTSUPP);
            }
            answer.push(RTM_NEWROUTE, &route_message(&stack.find_route(&wanted)?));
        }
        // Neighbours and rules are the host's own business.
        RTM_GETNEIGH | RTM_GETRULE if dump => {}
        kind => {
            task.kernel().log_unsupported(&format!("route netlink request {kind}"), Errno::EOPNOTSUPP);
            return Err(Errno::EOPNOTSUPP);
        }
    }
    answer.finish();
    Ok(if dump { Answered::Dump } else { Answered::Single })
}

/// The route that a request describes; `None` where it is too short.
fn route_request(payload: &[u8]) -> Option<Route> {
    let (info, rest) = RtMsg::read_from_prefix(payload).ok()?;
    let mut out = Route {
        family: info.family,
        dst_len: info.dst_len,
        src_len: info.src_len,
        tos: info.tos,
        table: u32::from(info.table),
        protocol: info.protocol,
        kind: info.kind,
        flags: info.flags,
        ..Route::default()
    };
    let number = |data: &[u8]| u32::read_from_prefix(data).map_or(0, |(n, _)| n);
    for (kind, data) in attributes(rest) {
        match kind {
            // No address is longer than one of IPv6.
            RTA_DST if data.len() <= 16 => out.dst = data.to_vec(),
            RTA_SRC if data.len() <= 16 => out.src = data.to_vec(),
            RTA_OIF => out.interface = Some(number(data) as i32),
            RTA_TABLE => out.table = number(data),
            _ => {}
        }
    }
    Some(out)
}

/// Whether a dump with a filter shows a route: what the filter leaves zero counts for nothing.
fn passes(filter: &Route, route: &Route) -> bool {
    (filter.table == 0 || filter.table == route.table)
        && (filter.protocol == 0 || filter.protocol == route.protocol)
        && (filter.kind == 0 || filter.kind == route.kind)
        && (filter.interface.is_none() || filter.interface == route.interface)
}

/// An answer that is being built: messages are packed into datagrams.
struct Answer<'a> {
    seq: u32,
    port: u32,
    dump: bool,
    current: Vec<u8>,
    out: &'a mut Vec<Vec<u8>>,
}

impl Answer<'_> {
    fn push(&mut self, kind: u16, body: &[u8]) {
        let len = size_of::<NlMsgHdr>() + body.len();
        if !self.current.is_empty() && self.current.len() + len > MAX_ANSWER {
            self.out.push(std::mem::take(&mut self.current));
        }
        let flags = if self.dump { NLM_F_MULTI } else { 0 };
        let header = NlMsgHdr { len: len as u32, kind, flags, seq: self.seq, pid: self.port };
        self.current.extend_from_slice(header.as_bytes());
        self.current.extend_from_slice(body);
        self.current.resize(align(self.current.len()), 0);
    }
    fn finish(mut self) {
        if self.dump {
            // A dump ends with a datagram of its own, whose body is an error code.
            if !self.current.is_empty() {
                self.out.push(std::mem::take(&mut self.current));
            }
            self.push(NLMSG_DONE, &0i32.to_ne_bytes());
        }
        if !self.current.is_empty() {
            self.out.push(self.current);
        }
    }
}

/// The interface that a request without NLM_F_DUMP names, by index or by name.
fn find_link(interfaces: Vec<Interface>, payload: &[u8]) -> Result<Interface, Errno> {
    let (info, rest) = IfInfoMsg::read_from_prefix(payload).map_err(|_| Errno::EINVAL)?;
    let name = attributes(rest).find(|(kind, _)| matches!(*kind, IFLA_IFNAME | IFLA_ALT_IFNAME));
    let name = name.map(|(_, data)| data);
    let matches = |i: &Interface| match name {
        _ if info.index > 0 => i.index == info.index,
        Some(name) => name.strip_suffix(&[0]).unwrap_or(name) == i.name.as_bytes(),
        None => false,
    };
    if info.index <= 0 && name.is_none() {
        return Err(Errno::EINVAL);
    }
    interfaces.into_iter().find(matches).ok_or(Errno::ENODEV)
}

fn zero_terminated(name: &str) -> Vec<u8> {
    let mut out = name.as_bytes().to_vec();
    out.push(0);
    out
}

fn link(interface: &Interface) -> Vec<u8> {
    let info = IfInfoMsg {
        kind: interface.kind,
        index: interface.index,
        flags: interface.flags,
        ..IfInfoMsg::default()
    };
    let mut out = info.as_bytes().to_vec();
    push_attribute(&mut out, IFLA_IFNAME, &zero_terminated(&interface.name));
    push_attribute(&mut out, IFLA_TXQLEN, &interface.queue_len.to_ne_bytes());
    push_attribute(&mut out, IFLA_OPERSTATE, &[interface.oper_state]);
    push_attribute(&mut out, IFLA_LINKMODE, &[0]);
    push_attribute(&mut out, IFLA_MTU, &interface.mtu.to_ne_bytes());
    for (kind, value) in
        [(IFLA_GROUP, 0u32), (IFLA_PROMISCUITY, 0), (IFLA_NUM_TX_QUEUES, 1), (IFLA_NUM_RX_QUEUES, 1)]
    {
        push_attribute(&mut out, kind, &value.to_ne_bytes());
    }
    // IFF_LOWER_UP
    push_attribute(&mut out, IFLA_CARRIER, &[u8::from(interface.flags & 0x1_0000 != 0)]);
    if !interface.address.is_empty() {
        push_attribute(&mut out, IFLA_ADDRESS, &interface.address);
        push_attribute(&mut out, IFLA_BROADCAST, &interface.broadcast);
    }
    push_attribute(&mut out, IFLA_QDISC, &zero_terminated(&interface.qdisc));
    let s = &interface.stats;
    let mut stats = [0u64; 25];
    let counters = [
        s.rx_packets,
        s.tx_packets,
        s.rx_bytes,
        s.tx_bytes,
        s.rx_errors,
        s.tx_errors,
        s.rx_dropped,
        s.tx_dropped,
    ];
    stats[..8].copy_from_slice(&counters);
    push_attribute(&mut out, IFLA_STATS64, stats.as_bytes());
    // `struct rtnl_link_stats`, which getifaddrs(3) hands out: the lower halves.
    let short: Vec<u32> = stats[..24].iter().map(|n| *n as u32).collect();
    push_attribute(&mut out, IFLA_STATS, short.as_bytes());
    out
}

fn address_message(address: &InterfaceAddress) -> Vec<u8> {
    let info = IfAddrMsg {
        family: address.family,
        prefix_len: address.prefix_len,
        flags: address.flags as u8,
        scope: address.scope,
        index: address.index as u32,
    };
    let mut out = info.as_bytes().to_vec();
    let peer = if address.peer.is_empty() { &address.local } else { &address.peer };
    push_attribute(&mut out, IFA_ADDRESS, peer);
    if i32::from(address.family) == libc::AF_INET {
        push_attribute(&mut out, IFA_LOCAL, &address.local);
    }
    if !address.broadcast.is_empty() {
        push_attribute(&mut out, IFA_BROADCAST, &address.broadcast);
    }
    if let Some(label) = &address.label {
        push_attribute(&mut out, IFA_LABEL, &zero_terminated(label));
    }
    push_attribute(&mut out, IFA_FLAGS, &address.flags.to_ne_bytes());
    push_attribute(&mut out, IFA_CACHEINFO, &address.cache_info);
    out
}

fn route_message(route: &Route) -> Vec<u8> {
    let info = RtMsg {
        family: route.family,
        dst_len: route.dst_len,
        src_len: route.src_len,
        tos: route.tos,
        table: u8::try_from(route.table).unwrap_or(0),
        protocol: route.protocol,
        scope: route.scope,
        kind: route.kind,
        flags: route.flags,
    };
    let mut out = info.as_bytes().to_vec();
    push_attribute(&mut out, RTA_TABLE, &route.table.to_ne_bytes());
    if !route.dst.is_empty() {
        push_attribute(&mut out, RTA_DST, &route.dst);
    }
    if !route.src.is_empty() {
        push_attribute(&mut out, RTA_SRC, &route.src);
    }
    if let Some(metric) = route.metric {
        push_attribute(&mut out, RTA_PRIORITY, &metric.to_ne_bytes());
    }
    if !route.preferred_source.is_empty() {
        push_attribute(&mut out, RTA_PREFSRC, &route.preferred_source);
    }
    if !route.gateway.is_empty() {
        push_attribute(&mut out, RTA_GATEWAY, &route.gateway);
    }
    if let Some(interface) = route.interface {
        push_attribute(&mut out, RTA_OIF, &interface.to_ne_bytes());
    }
    out
}
