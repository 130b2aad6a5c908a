//! Socket options that pass to the host. Only options named here do; any other answers ENOPROTOOPT, and is logged once.

use std::os::fd::BorrowedFd;

use quicksand_abi::Errno;
use quicksand_abi::socket::Ucred;
use quicksand_host::socket as host;
use zerocopy::IntoBytes;

use super::HostSocket;
use crate::task::CurrentTask;

const SO_TIMESTAMP_NEW: i32 = 63;
const SO_TIMESTAMPNS_NEW: i32 = 64;
const SO_TIMESTAMPING_NEW: i32 = 65;
const SO_COOKIE: i32 = 57;
const SO_NETNS_COOKIE: i32 = 71;
const SO_ORIGINAL_DST: i32 = 80;

/// Which way an option passes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Both,
    Get,
    Set,
}

/// Whether an option passes, and which way.
fn way(level: i32, name: i32) -> Option<Way> {
    let both = match level {
        libc::SOL_SOCKET => matches!(
            name,
            libc::SO_DEBUG
                | libc::SO_REUSEADDR
                | libc::SO_DONTROUTE
                | libc::SO_BROADCAST
                | libc::SO_SNDBUF
                | libc::SO_RCVBUF
                | libc::SO_KEEPALIVE
                | libc::SO_OOBINLINE
                | libc::SO_NO_CHECK
                | libc::SO_PRIORITY
                | libc::SO_LINGER
                | libc::SO_BSDCOMPAT
                | libc::SO_REUSEPORT
                | libc::SO_RCVLOWAT
                | libc::SO_BINDTODEVICE
                | libc::SO_TIMESTAMP
                | libc::SO_TIMESTAMPNS
                | libc::SO_TIMESTAMPING
                | SO_TIMESTAMP_NEW
                | SO_TIMESTAMPNS_NEW
                | SO_TIMESTAMPING_NEW
                | libc::SO_MARK
                | libc::SO_RXQ_OVFL
                | libc::SO_PEEK_OFF
                | libc::SO_BUSY_POLL
                | libc::SO_INCOMING_CPU
                | libc::SO_MAX_PACING_RATE
                | libc::SO_SELECT_ERR_QUEUE
        ),
        libc::IPPROTO_IP => {
            matches!(name, 1 | 2 | 4 | 6..=8 | 10..=13 | 15 | 18 | 20..=22 | 24 | 25 | 32..=34 | 49..=51)
        }
        libc::IPPROTO_IPV6 => {
            matches!(name, 2..=8 | 16..=19 | 23 | 25 | 26 | 29 | 33 | 49..=51 | 53..=57 | 60 | 62 | 66 | 67 | 70 | 72..=74 | 76..=78)
        }
        libc::IPPROTO_TCP => matches!(name, 1..=10 | 12 | 13 | 16..=18 | 23..=25 | 30 | 36 | 37),
        libc::SOL_UDP => matches!(name, 1 | 101..=104),
        libc::IPPROTO_UDPLITE => matches!(name, 1 | 10 | 11 | 101..=104),
        _ => false,
    };
    if both {
        return Some(Way::Both);
    }
    let get = match level {
        libc::SOL_SOCKET => matches!(
            name,
            libc::SO_ERROR
                | libc::SO_SNDLOWAT
                | libc::SO_ACCEPTCONN
                | libc::SO_INCOMING_NAPI_ID
                | libc::SO_MEMINFO
                | SO_COOKIE
                | SO_NETNS_COOKIE
        ),
        libc::IPPROTO_IP => matches!(name, 14 | SO_ORIGINAL_DST),
        libc::IPPROTO_IPV6 => matches!(name, 24 | 61 | SO_ORIGINAL_DST),
        libc::IPPROTO_TCP => matches!(name, 11 | 26),
        _ => false,
    };
    if get {
        return Some(Way::Get);
    }
    let set = match level {
        libc::SOL_SOCKET => matches!(name, libc::SO_SNDBUFFORCE | libc::SO_RCVBUFFORCE),
        // Group memberships.
        libc::IPPROTO_IP => matches!(name, 35..=40 | 42..=47),
        libc::IPPROTO_IPV6 => matches!(name, 20 | 21 | 27 | 28 | 42..=47),
        _ => false,
    };
    set.then_some(Way::Set)
}

/// What a level that the socket's protocols do not know answers a reader.
fn unknown_level(socket: &HostSocket, level: i32) -> bool {
    let own = [libc::SOL_SOCKET, libc::IPPROTO_IP, socket.protocol];
    socket.family == libc::AF_INET && !own.contains(&level)
}

fn refused(task: &CurrentTask, level: i32, name: i32) -> Errno {
    task.kernel().log_unsupported(&format!("socket option {level}:{name}"), Errno::ENOPROTOOPT);
    Errno::ENOPROTOOPT
}

pub(super) fn get(
    task: &CurrentTask,
    socket: &HostSocket,
    level: i32,
    name: i32,
    room: usize,
) -> Result<Vec<u8>, Errno> {
    match (level, name) {
        // A socket without a peer in this system.
        (libc::SOL_SOCKET, libc::SO_PEERCRED) => {
            return Ok(Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX }.as_bytes().to_vec());
        }
        (libc::SOL_SOCKET, quicksand_abi::socket::SO_PEERGROUPS) => return Err(Errno::ENODATA),
        (libc::SOL_SOCKET, libc::SO_PEERSEC) => return Err(Errno::ENOPROTOOPT),
        _ => {}
    }
    match way(level, name) {
        Some(Way::Both | Way::Get) => host::get_option(socket.fd(), level, name, room),
        Some(Way::Set) => Err(Errno::ENOPROTOOPT),
        None if unknown_level(socket, level) => Err(Errno::EOPNOTSUPP),
        None => Err(refused(task, level, name)),
    }
}

pub(super) fn set(
    task: &CurrentTask,
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &[u8],
) -> Result<(), Errno> {
    match way(level, name) {
        Some(Way::Both | Way::Set) => host::set_option(fd, level, name, value),
        // Linux says so for what can only be read.
        Some(Way::Get) => Err(Errno::ENOPROTOOPT),
        None => Err(refused(task, level, name)),
    }
}
