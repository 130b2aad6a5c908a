//! Packets on a socket, with at most one descriptor beside each.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use quicksand_abi::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::hostfs::errno;

/// Sends one packet.
pub fn send(socket: BorrowedFd<'_>, packet: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::EIO);
    }
    loop {
        let slices = [IoSlice::new(packet)];
        match rustix::net::sendmsg(socket, &slices, &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(n) if n == packet.len() => return Ok(()),
            Ok(_) => return Err(Errno::EIO),
            Err(e) => return Err(errno(e)),
        }
    }
}

/// Receives one packet into `buffer`: its length and its descriptor; `None` at the end.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Option<(usize, Option<OwnedFd>)>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let slices = &mut [IoSliceMut::new(buffer)];
        match rustix::net::recvmsg(socket, slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => break other.map_err(errno)?,
        }
    };
    let mut fd = None;
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = item {
            fd = fds.last(); // further ones are closed
        }
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::EIO);
    }
    // No packet of ours is empty.
    Ok((message.bytes > 0).then_some((message.bytes, fd)))
}
