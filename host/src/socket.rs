//! Sockets with addresses, options and control messages as plain bytes. The host kernel checks them all; what is made sure
//! of here is that every pointer handed over comes with its true length.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use quicksand_abi::Errno;

/// Room for the largest address.
const ADDRESS: usize = 128;

fn last_error() -> Errno {
    Errno::from(std::io::Error::last_os_error())
}

/// A count, or the error that a negative value stands for.
fn count(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| last_error())
}
fn done(result: libc::c_int) -> Result<(), Errno> {
    if result < 0 { Err(last_error()) } else { Ok(()) }
}
fn length(bytes: usize) -> Result<libc::socklen_t, Errno> {
    libc::socklen_t::try_from(bytes).map_err(|_| Errno::EINVAL)
}

/// `socket(2)`: close-on-exec and non-blocking.
pub fn socket(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(family, kind, protocol) };
    done(fd)?;
    // SAFETY: the call has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `bind(2)`
pub fn bind(fd: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
    let len = length(address.len())?;
    // SAFETY: the kernel reads `len` bytes, and so many there are.
    done(unsafe { libc::bind(fd.as_raw_fd(), address.as_ptr().cast(), len) })
}

/// `connect(2)`
pub fn connect(fd: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
    let len = length(address.len())?;
    // SAFETY: the kernel reads `len` bytes, and so many there are.
    done(unsafe { libc::connect(fd.as_raw_fd(), address.as_ptr().cast(), len) })
}

/// `accept4(2)`: close-on-exec and non-blocking. The connection, and its peer's address.
pub fn accept(fd: BorrowedFd<'_>) -> Result<(OwnedFd, Vec<u8>), Errno> {
    let mut address = [0u8; ADDRESS];
    let mut len = ADDRESS as libc::socklen_t;
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the kernel writes at most `len` bytes, and so many there are.
    let accepted = unsafe { libc::accept4(fd.as_raw_fd(), address.as_mut_ptr().cast(), &mut len, flags) };
    done(accepted)?;
    // SAFETY: the call has just made this descriptor, and nobody else knows it.
    let accepted = unsafe { OwnedFd::from_raw_fd(accepted) };
    Ok((accepted, address[..ADDRESS.min(len as usize)].to_vec()))
}

/// `getsockname(2)`
pub fn local_address(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut address = [0u8; ADDRESS];
    let mut len = ADDRESS as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, and so many there are.
    done(unsafe { libc::getsockname(fd.as_raw_fd(), address.as_mut_ptr().cast(), &mut len) })?;
    Ok(address[..ADDRESS.min(len as usize)].to_vec())
}

/// `getpeername(2)`
pub fn peer_address(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut address = [0u8; ADDRESS];
    let mut len = ADDRESS as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, and so many there are.
    done(unsafe { libc::getpeername(fd.as_raw_fd(), address.as_mut_ptr().cast(), &mut len) })?;
    Ok(address[..ADDRESS.min(len as usize)].to_vec())
}

/// `setsockopt(2)`. The caller lets no option through whose value holds pointers.
pub fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
    let points = match level {
        // To filter programs.
        libc::SOL_SOCKET => matches!(name, libc::SO_ATTACH_FILTER | libc::SO_ATTACH_REUSEPORT_CBPF),
        // To counters, among the tables of a packet filter.
        libc::IPPROTO_IP | libc::IPPROTO_IPV6 => matches!(name, 64 | 65),
        _ => false,
    };
    if points {
        return Err(Errno::EINVAL);
    }
    let len = length(value.len())?;
    // SAFETY: the kernel reads `len` bytes, and so many there are; options with pointers are refused above.
    done(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), len) })
}

/// `getsockopt(2)`: at most `room` bytes. The caller lets no option through that reads pointers from the buffer.
pub fn get_option(fd: BorrowedFd<'_>, level: i32, name: i32, room: usize) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0u8; room.min(1 << 16)];
    let mut len = length(value.len())?;
    // SAFETY: the kernel writes at most `len` bytes, and so many there are. What it may read from the buffer is zeroes.
    done(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &mut len) })?;
    value.truncate(len as usize);
    Ok(value)
}

/// `sendmsg(2)`
pub fn send(
    fd: BorrowedFd<'_>,
    data: &[u8],
    address: Option<&[u8]>,
    control: &[u8],
    flags: i32,
) -> Result<usize, Errno> {
    let mut iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: all zeroes is an empty header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    if let Some(address) = address {
        header.msg_name = address.as_ptr().cast_mut().cast();
        header.msg_namelen = length(address.len())?;
    }
    header.msg_iov = &mut iov;
    header.msg_iovlen = 1;
    if !control.is_empty() {
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len();
    }
    // SAFETY: every pointer of the header comes with the length of the slice it was taken from, and sending only reads.
    count(unsafe { libc::sendmsg(fd.as_raw_fd(), &header, flags) })
}

/// What [`receive`] got.
#[derive(Debug)]
pub struct Received {
    /// As `recvmsg` returns it: with MSG_TRUNC among the flags it may be more than the buffer holds.
    pub len: usize,
    pub address: Vec<u8>,
    /// Bytes of the control buffer that were filled.
    pub control_len: usize,
    pub flags: i32,
}

/// `recvmsg(2)`. No descriptors can arrive: the caller uses it for sockets of other families than Unix.
pub fn receive(
    fd: BorrowedFd<'_>,
    data: &mut [u8],
    control: &mut [u8],
    flags: i32,
) -> Result<Received, Errno> {
    let mut address = [0u8; ADDRESS];
    let mut iov = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    // SAFETY: all zeroes is an empty header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = address.as_mut_ptr().cast();
    header.msg_namelen = ADDRESS as libc::socklen_t;
    header.msg_iov = &mut iov;
    header.msg_iovlen = 1;
    if !control.is_empty() {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = control.len();
    }
    // SAFETY: every pointer of the header comes with the length of the slice it was taken from, all of them writable.
    let len = count(unsafe { libc::recvmsg(fd.as_raw_fd(), &mut header, flags) })?;
    Ok(Received {
        len,
        address: address[..ADDRESS.min(header.msg_namelen as usize)].to_vec(),
        control_len: control.len().min(header.msg_controllen),
        flags: header.msg_flags,
    })
}

/// An `ioctl(2)` that gives an `int`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntRequest {
    /// FIONREAD, SIOCINQ.
    BytesIn,
    /// SIOCOUTQ.
    BytesOut,
    /// SIOCOUTQNSD.
    BytesNotSent,
    /// SIOCATMARK.
    AtMark,
}

/// Asks a socket for a number.
pub fn query(fd: BorrowedFd<'_>, request: IntRequest) -> Result<i32, Errno> {
    let request: libc::c_ulong = match request {
        IntRequest::BytesIn => 0x541b,
        IntRequest::BytesOut => 0x5411,
        IntRequest::BytesNotSent => 0x894b,
        IntRequest::AtMark => 0x8905,
    };
    let mut value: libc::c_int = 0;
    // SAFETY: each of these requests writes one int.
    done(unsafe { libc::ioctl(fd.as_raw_fd(), request, &mut value) })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_datagram_travels_over_the_loopback() {
        let a = socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
        let b = socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
        let mut loopback = vec![0; 16];
        loopback[0] = libc::AF_INET as u8;
        loopback[4] = 127;
        loopback[7] = 1;
        bind(a.as_fd(), &loopback).unwrap();
        let name = local_address(a.as_fd()).unwrap();
        assert_eq!(name.len(), 16);
        set_option(a.as_fd(), libc::IPPROTO_IP, libc::IP_RECVTTL, &1i32.to_ne_bytes()).unwrap();
        assert_eq!(send(b.as_fd(), b"hello", Some(&name), &[], 0), Ok(5));
        let (mut data, mut control) = ([0; 16], [0; 64]);
        let got = receive(a.as_fd(), &mut data, &mut control, 0).unwrap();
        assert_eq!((got.len, got.address.len()), (5, 16));
        assert!(got.control_len > 0);
        assert_eq!(receive(a.as_fd(), &mut data, &mut [], 0).unwrap_err(), Errno::EAGAIN);
        assert_eq!(query(a.as_fd(), IntRequest::BytesIn), Ok(0));
        assert_eq!(get_option(a.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE, 4).unwrap(), 2i32.to_ne_bytes());
    }
}
