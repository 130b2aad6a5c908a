//! Route netlink: headers, message bodies, attributes, and how they are laid out one after the other.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct nlmsghdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NlMsgHdr {
    pub len: u32,
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    pub pid: u32,
}

/// `struct ifinfomsg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IfInfoMsg {
    pub family: u8,
    pub pad: u8,
    pub kind: u16,
    pub index: i32,
    pub flags: u32,
    pub change: u32,
}

/// `struct ifaddrmsg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IfAddrMsg {
    pub family: u8,
    pub prefix_len: u8,
    pub flags: u8,
    pub scope: u8,
    pub index: u32,
}

/// `struct rtmsg`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RtMsg {
    pub family: u8,
    pub dst_len: u8,
    pub src_len: u8,
    pub tos: u8,
    pub table: u8,
    pub protocol: u8,
    pub scope: u8,
    pub kind: u8,
    pub flags: u32,
}

/// `struct sockaddr_nl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SockaddrNl {
    pub family: u16,
    pub pad: u16,
    pub pid: u32,
    pub groups: u32,
}

pub const NLM_F_REQUEST: u16 = 1;
pub const NLM_F_MULTI: u16 = 2;
pub const NLM_F_ACK: u16 = 4;
/// NLM_F_ROOT and NLM_F_MATCH; either asks for a dump.
pub const NLM_F_DUMP: u16 = 0x300;
/// An answer that does not repeat its request.
pub const NLM_F_CAPPED: u16 = 0x100;

pub const NLMSG_NOOP: u16 = 1;
pub const NLMSG_ERROR: u16 = 2;
pub const NLMSG_DONE: u16 = 3;
/// Types below are control messages.
pub const NLMSG_MIN_TYPE: u16 = 0x10;

pub const RTM_NEWLINK: u16 = 16;
pub const RTM_GETLINK: u16 = 18;
pub const RTM_NEWADDR: u16 = 20;
pub const RTM_GETADDR: u16 = 22;
pub const RTM_NEWROUTE: u16 = 24;
pub const RTM_GETROUTE: u16 = 26;
pub const RTM_GETNEIGH: u16 = 30;
pub const RTM_GETRULE: u16 = 34;
/// `__RTM_MAX`, rounded up to a whole group of four.
pub const RTM_MAX: u16 = 123;

pub const IFLA_ADDRESS: u16 = 1;
pub const IFLA_BROADCAST: u16 = 2;
pub const IFLA_IFNAME: u16 = 3;
pub const IFLA_MTU: u16 = 4;
pub const IFLA_QDISC: u16 = 6;
pub const IFLA_STATS: u16 = 7;
pub const IFLA_TXQLEN: u16 = 13;
pub const IFLA_OPERSTATE: u16 = 16;
pub const IFLA_LINKMODE: u16 = 17;
pub const IFLA_STATS64: u16 = 23;
pub const IFLA_GROUP: u16 = 27;
pub const IFLA_PROMISCUITY: u16 = 30;
pub const IFLA_NUM_TX_QUEUES: u16 = 31;
pub const IFLA_NUM_RX_QUEUES: u16 = 32;
pub const IFLA_CARRIER: u16 = 33;
pub const IFLA_ALT_IFNAME: u16 = 53;

pub const IFA_ADDRESS: u16 = 1;
pub const IFA_LOCAL: u16 = 2;
pub const IFA_LABEL: u16 = 3;
pub const IFA_BROADCAST: u16 = 4;
pub const IFA_CACHEINFO: u16 = 6;
pub const IFA_FLAGS: u16 = 8;

pub const RTA_DST: u16 = 1;
pub const RTA_SRC: u16 = 2;
pub const RTA_OIF: u16 = 4;
pub const RTA_GATEWAY: u16 = 5;
pub const RTA_PRIORITY: u16 = 6;
pub const RTA_PREFSRC: u16 = 7;
pub const RTA_TABLE: u16 = 15;
/// The request is about the cache of routes.
pub const RTM_F_CLONED: u32 = 0x200;
/// Answers say which table the route is from.
pub const RTM_F_LOOKUP_TABLE: u32 = 0x1000;

/// Bytes of a `struct rtattr` without its data.
const ATTRIBUTE: usize = 4;

/// `NLMSG_ALIGN`, `RTA_ALIGN`
pub const fn align(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// The messages in a buffer, up to the first that does not fit.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (NlMsgHdr, &[u8])> {
    std::iter::from_fn(move || {
        let (header, _) = NlMsgHdr::read_from_prefix(bytes).ok()?;
        let len = usize::try_from(header.len).ok()?;
        let payload = bytes.get(size_of::<NlMsgHdr>()..len)?;
        bytes = bytes.get(align(len)..).unwrap_or_default();
        Some((header, payload))
    })
}

/// The attributes in a buffer, up to the first that does not fit. Flags in the type are taken away.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..ATTRIBUTE)?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let data = bytes.get(ATTRIBUTE..len)?;
        bytes = bytes.get(align(len)..).unwrap_or_default();
        Some((kind, data))
    })
}

/// Appends an attribute.
pub fn push_attribute(out: &mut Vec<u8>, kind: u16, data: &[u8]) {
    // Attributes here are addresses, names and numbers: far below 64 KiB.
    let len = (ATTRIBUTE + data.len()) as u16;
    out.extend_from_slice(&len.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(data);
    out.resize(align(out.len()), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_go_there_and_back() {
        let mut out = Vec::new();
        push_attribute(&mut out, 3, b"lo\0");
        push_attribute(&mut out, 4, &65536u32.to_ne_bytes());
        assert_eq!(out.len(), 16);
        let found: Vec<_> = attributes(&out).collect();
        assert_eq!(found[0], (3, &b"lo\0"[..]));
        assert_eq!(found[1].0, 4);
        assert_eq!(attributes(&out[..10]).count(), 1);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(messages(&[0; 16]).count(), 0);
    }
}
