//! Sockets: message headers, control messages, credentials, options. What `libc` has is taken from there.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct user_msghdr`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MsgHdr {
    pub name: u64,
    pub namelen: i32,
    pub pad0: u32,
    pub iov: u64,
    pub iovlen: u64,
    pub control: u64,
    pub controllen: u64,
    pub flags: u32,
    pub pad1: u32,
}

/// `struct mmsghdr`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MMsgHdr {
    pub hdr: MsgHdr,
    pub len: u32,
    pub pad: u32,
}

/// `struct cmsghdr`, without its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CMsgHdr {
    pub len: u64,
    pub level: i32,
    pub kind: i32,
}

/// Bytes of a [`CMsgHdr`].
pub const CMSG_HDR_LEN: usize = size_of::<CMsgHdr>();

/// `CMSG_ALIGN`
pub const fn cmsg_align(len: usize) -> usize {
    len.next_multiple_of(8)
}

/// `struct ucred`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ucred {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

/// `struct linger`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Linger {
    pub onoff: i32,
    pub linger: i32,
}

/// `SCM_MAX_FD`: descriptors in one message.
pub const SCM_MAX_FD: usize = 253;
/// `SOMAXCONN`, the default of `net.core.somaxconn`.
pub const SOMAXCONN: i32 = 4096;
/// Room for the largest address (`sockaddr_storage`).
pub const MAX_ADDR_LEN: usize = 128;

pub const SO_RCVTIMEO_NEW: i32 = 66;
pub const SO_SNDTIMEO_NEW: i32 = 67;
pub const SO_PEERGROUPS: i32 = 59;
pub const SO_PASSPIDFD: i32 = 76;
pub const SO_PEERPIDFD: i32 = 77;

pub const SIOCINQ: u32 = 0x541b;
pub const SIOCOUTQ: u32 = 0x5411;
