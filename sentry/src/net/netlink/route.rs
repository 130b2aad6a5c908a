//! Answers to route netlink requests, `rtnetlink(7)`, from what the stack says.

use quicksand_abi::Errno;
use quicksand_abi::netlink::{
    IFA_ADDRESS, IFA_BROADCAST, IFA_CACHEINFO, IFA_FLAGS, IFA_LABEL, IFA_LOCAL, IFLA_ADDRESS, IFLA_BROADCAST,
    IFLA_IFNAME, IFLA_LINKMODE, IFLA_MTU, IFLA_OPERSTATE, IFLA_QDISC, IFLA_STATS64, IFLA_TXQLEN, IfAddrMsg,
    IfInfoMsg, NLM_F_DUMP, NLM_F_MULTI, NLMSG_DONE, NlMsgHdr, RTA_DST, RTA_GATEWAY, RTA_OIF, RTA_PREFSRC,
    RTA_PRIORITY, RTA_TABLE, RTM_GETADDR, RTM_GETLINK, RTM_GETNEIGH, RTM_GETROUTE, RTM_GETRULE, RTM_MAX,
    RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RtMsg, align, attributes, push_attribute,
};
use zerocopy::{FromBytes, IntoBytes};

use super::MAX_ANSWER;
use crate::net::stack::{Interface, InterfaceAddress, Route};
use crate::task::CurrentTask;

/// Answers one request; the datagrams go to `out`.
pub(super) fn answer(
    task: &CurrentTask,
    header: &NlMsgHdr,
    payload: &[u8],
    port: u32,
    out: &mut Vec<Vec<u8>>,
) -> Result<(), Errno> {
    if header.kind > RTM_MAX {
        return Err(Errno::EOPNOTSUPP);
    }
    // Types come in groups of four: new, delete, get, set. All but get change something.
    if header.kind % 4 != 2 {
        return Err(Errno::EPERM);
    }
    let stack = task.kernel().net.stack();
    let dump = header.flags & NLM_F_DUMP == NLM_F_DUMP;
    let mut answer = Answer { seq: header.seq, port, dump, current: Vec::new(), out };
    let family = payload.first().copied().unwrap_or(0);
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
            for address in addresses.iter().filter(|a| family == 0 || family == a.family) {
                answer.push(RTM_NEWADDR, &address_message(address));
            }
        }
        RTM_GETROUTE if dump => {
            let routes = stack.routes()?;
            for route in routes.iter().filter(|r| family == 0 || family == r.family) {
                answer.push(RTM_NEWROUTE, &route_message(route));
            }
        }
        // Neighbours and rules are the host's own business.
        RTM_GETNEIGH | RTM_GETRULE if dump => {}
        kind => {
            task.kernel().log_unsupported(&format!("route netlink request {kind}"), Errno::EOPNOTSUPP);
            return Err(Errno::EOPNOTSUPP);
        }
    }
    answer.finish();
    Ok(())
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
    let name = attributes(rest).find(|(kind, _)| *kind == IFLA_IFNAME).map(|(_, data)| data);
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
    if !interface.address.is_empty() {
        push_attribute(&mut out, IFLA_ADDRESS, &interface.address);
        push_attribute(&mut out, IFLA_BROADCAST, &interface.broadcast);
    }
    push_attribute(&mut out, IFLA_QDISC, &zero_terminated("noqueue"));
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
    // Preferred and valid for ever; made and changed at an unknown time.
    push_attribute(&mut out, IFA_CACHEINFO, [u32::MAX, u32::MAX, 0, 0].as_bytes());
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
