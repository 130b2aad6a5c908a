//! The seam between internet sockets and what carries them.
//!
//! A [`Stack`] makes sockets and says what interfaces, addresses and routes there are. Nothing above it knows which one it
//! is: [`super::host`] stands on the sockets of the network namespace that the Sentry's process is in; a TCP/IP stack of the
//! Sentry's own can take its place. Readiness is reported on each socket's wait queue.

use std::fmt;
use std::sync::Arc;

use quicksand_abi::Errno;

use super::socket::SocketOps;
use crate::task::CurrentTask;

/// A network stack.
pub trait Stack: Send + Sync + fmt::Debug {
    /// A socket of family AF_INET or AF_INET6. EPROTONOSUPPORT, ESOCKTNOSUPPORT and EPERM as Linux answers them.
    fn socket(
        &self,
        task: &CurrentTask,
        family: i32,
        kind: i32,
        protocol: i32,
    ) -> Result<Arc<dyn SocketOps>, Errno>;

    fn interfaces(&self) -> Result<Vec<Interface>, Errno>;
    fn addresses(&self) -> Result<Vec<InterfaceAddress>, Errno>;
    fn routes(&self) -> Result<Vec<Route>, Errno>;
    /// The route that packets of this description take: a destination, and perhaps a source and an interface
    /// (`ip route get`). ENETUNREACH and its kin where there is none.
    fn find_route(&self, wanted: &Route) -> Result<Route, Errno>;
    /// The sockets that exist, for `/proc/net`.
    fn sockets(&self) -> Vec<SocketSummary>;
    /// What sockets of a family have done so far. TCP is counted with AF_INET.
    fn counters(&self, family: i32) -> Counters;
}

/// A network interface, as `struct ifinfomsg` and its attributes tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub index: i32,
    pub name: String,
    /// ARPHRD_.
    pub kind: u16,
    /// IFF_.
    pub flags: u32,
    pub mtu: u32,
    pub queue_len: u32,
    /// What queues its packets (`noqueue`).
    pub qdisc: String,
    /// IF_OPER_.
    pub oper_state: u8,
    /// The link-layer address, and its broadcast address.
    pub address: Vec<u8>,
    pub broadcast: Vec<u8>,
    pub stats: InterfaceStats,
}

/// Counters of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceStats {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
}

/// An address of an interface, as `struct ifaddrmsg` and its attributes tell it. Addresses are in network order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// AF_INET or AF_INET6.
    pub family: u8,
    pub prefix_len: u8,
    /// IFA_F_.
    pub flags: u32,
    pub scope: u8,
    pub index: i32,
    /// The address itself, and the peer's where they differ.
    pub local: Vec<u8>,
    pub peer: Vec<u8>,
    pub broadcast: Vec<u8>,
    pub label: Option<String>,
    /// `struct ifa_cacheinfo`: preferred and valid time in seconds, made and changed.
    pub cache_info: Vec<u8>,
}

/// A route, as `struct rtmsg` and its attributes tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    pub family: u8,
    pub dst_len: u8,
    pub src_len: u8,
    pub tos: u8,
    pub table: u32,
    /// RTPROT_, RT_SCOPE_, RTN_.
    pub protocol: u8,
    pub scope: u8,
    pub kind: u8,
    pub flags: u32,
    pub dst: Vec<u8>,
    pub src: Vec<u8>,
    pub gateway: Vec<u8>,
    pub preferred_source: Vec<u8>,
    pub interface: Option<i32>,
    pub metric: Option<u32>,
}

/// One line of `/proc/net/tcp` and its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSummary {
    pub family: i32,
    pub kind: i32,
    pub protocol: i32,
    /// `sockaddr` bytes.
    pub local: Vec<u8>,
    pub remote: Option<Vec<u8>>,
    /// TCP_ESTABLISHED and its kind, as the kernel numbers them.
    pub state: u8,
    /// The inode of the socket's open file, and its owner; 0 before `accept`.
    pub inode: u64,
    pub uid: u32,
    /// Bytes that wait to be sent and to be read; of a listening socket, connections that wait for `accept`.
    pub send_queue: u32,
    pub receive_queue: u32,
}

/// What the sockets of a stack have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// TCP connections asked for, and accepted.
    pub active_opens: u64,
    pub passive_opens: u64,
    /// UDP datagrams received and sent.
    pub datagrams_in: u64,
    pub datagrams_out: u64,
}
