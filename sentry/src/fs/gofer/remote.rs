//! A tree of host files behind a gofer process.
//!
//! Invariants: the gofer is not trusted. An answer that does not fit its question is EIO; a descriptor that it donates is
//! used only after a look that it is a regular file. Once it has gone, everything is EIO, and that is said once.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quicksand_abi::Errno;
use quicksand_gofer::hostfs::{self, Access, Change, Entry, NewFile, Stat};
use quicksand_gofer::protocol::{MAX_PACKET, Operation, Reply, Request, Sizes, take_entry};
use quicksand_gofer::wire;
use zerocopy::FromBytes;

use super::backend::{Backend, DirReader};
use super::node::{At, Node};
use crate::sync::{Level, Mutex};
use crate::vfs::inode::FsStat;

/// The Sentry's end of a gofer's socket.
#[derive(Debug)]
pub struct Remote {
    connection: Arc<Connection>,
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    /// One question at a time; the packet buffer.
    buffer: Mutex<Vec<u8>>,
    gone: AtomicBool,
}

impl Connection {
    fn call(&self, request: &Request<'_>) -> Result<(Reply, Option<OwnedFd>), Errno> {
        let packet = request.encode()?;
        let mut buffer = self.buffer.lock();
        if self.gone.load(Ordering::Relaxed) {
            return Err(Errno::EIO);
        }
        let answer = wire::send(self.socket.as_fd(), &packet, None)
            .and_then(|()| wire::receive(self.socket.as_fd(), &mut buffer));
        match answer {
            Ok(Some((len, fd))) => Reply::decode(&buffer[..len]).map(|reply| (reply, fd)),
            Ok(None) | Err(_) => {
                if !self.gone.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        "the gofer process has ended: files of the container's root cannot be reached any more"
                    );
                }
                Err(Errno::EIO)
            }
        }
    }
    fn data(&self, request: &Request<'_>) -> Result<Vec<u8>, Errno> {
        self.call(request).map(|(reply, _)| reply.data)
    }
    fn done(&self, request: &Request<'_>) -> Result<(), Errno> {
        self.call(request).map(drop)
    }
    fn sizes(&self) -> Result<Sizes, Errno> {
        let data = self.data(&Request::new(Operation::StatFs, b""))?;
        Sizes::read_from_bytes(&data).map_err(|_| Errno::EIO)
    }
}

impl Remote {
    pub fn new(socket: OwnedFd) -> Remote {
        let buffer = Mutex::new(Level::Leaf, vec![0; MAX_PACKET]);
        Remote { connection: Arc::new(Connection { socket, buffer, gone: AtomicBool::new(false) }) }
    }
    /// `f_type` of the tree's file system.
    pub fn magic(&self) -> Result<u64, Errno> {
        self.connection.sizes().map(|s| s.magic)
    }
}

fn path_of(at: &At) -> Vec<u8> {
    if at.name.is_empty() {
        return Vec::new();
    }
    let mut path = Vec::new();
    for name in at.dir.path() {
        path.extend_from_slice(&name);
        path.push(b'/');
    }
    path.extend_from_slice(&at.name);
    path
}

/// What a gofer may say a file is.
fn check_stat(stat: Stat) -> Result<Stat, Errno> {
    let known = [
        libc::S_IFREG,
        libc::S_IFDIR,
        libc::S_IFLNK,
        libc::S_IFIFO,
        libc::S_IFSOCK,
        libc::S_IFCHR,
        libc::S_IFBLK,
    ];
    let sane = known.contains(&stat.kind()) && i64::try_from(stat.size).is_ok();
    if sane { Ok(stat) } else { Err(Errno::EIO) }
}

/// A donated descriptor: a regular file, or none of ours.
fn check_file(fd: Option<OwnedFd>) -> Result<OwnedFd, Errno> {
    let fd = fd.ok_or(Errno::EIO)?;
    match hostfs::stat_fd(fd.as_fd())?.kind() {
        libc::S_IFREG => Ok(fd),
        _ => Err(Errno::EIO),
    }
}

impl Backend for Remote {
    fn stat(&self, at: &At) -> Result<(Stat, bool), Errno> {
        let (reply, _) = self.connection.call(&Request::new(Operation::Stat, &path_of(at)))?;
        Ok((check_stat(reply.stat)?, reply.sealed))
    }
    fn open_file(&self, at: &At, access: Access) -> Result<OwnedFd, Errno> {
        let path = path_of(at);
        let mut request = Request::new(Operation::OpenFile, &path);
        request.flags = match access {
            Access::Read => 0,
            Access::Write => 1,
            Access::ReadWrite => 2,
        };
        check_file(self.connection.call(&request)?.1)
    }
    fn open_dir(&self, node: &Arc<Node>) -> Result<Box<dyn DirReader>, Errno> {
        Ok(Box::new(RemoteDir { connection: self.connection.clone(), node: node.clone() }))
    }
    fn create(&self, at: &At, new: &NewFile, target: &[u8]) -> Result<(Stat, Option<OwnedFd>), Errno> {
        let path = path_of(at);
        let mut request = Request::new(Operation::Create, &path);
        (request.new, request.data) = (*new, target);
        let (reply, fd) = self.connection.call(&request)?;
        let stat = check_stat(reply.stat)?;
        if stat.kind() != new.mode & libc::S_IFMT {
            return Err(Errno::EIO);
        }
        let fd = if stat.kind() == libc::S_IFREG { Some(check_file(fd)?) } else { None };
        Ok((stat, fd))
    }
    fn change(&self, at: &At, change: &Change) -> Result<(), Errno> {
        let path = path_of(at);
        let mut request = Request::new(Operation::Change, &path);
        request.change = *change;
        self.connection.done(&request)
    }
    fn read_link(&self, at: &At) -> Result<Vec<u8>, Errno> {
        self.connection.data(&Request::new(Operation::ReadLink, &path_of(at)))
    }
    fn unlink(&self, at: &At, directory: bool) -> Result<(), Errno> {
        let path = path_of(at);
        let mut request = Request::new(Operation::Unlink, &path);
        request.flags = u32::from(directory);
        self.connection.done(&request)
    }
    fn link(&self, from: &At, to: &At) -> Result<(), Errno> {
        let (path, other) = (path_of(from), path_of(to));
        let mut request = Request::new(Operation::Link, &path);
        request.other = &other;
        self.connection.done(&request)
    }
    fn rename(&self, from: &At, to: &At, exchange: bool) -> Result<(), Errno> {
        let (path, other) = (path_of(from), path_of(to));
        let mut request = Request::new(Operation::Rename, &path);
        (request.other, request.flags) = (&other, u32::from(exchange));
        self.connection.done(&request)
    }
    fn get_xattr(&self, at: &At, attr: &[u8]) -> Result<Vec<u8>, Errno> {
        let path = path_of(at);
        let mut request = Request::new(Operation::GetXattr, &path);
        request.other = attr;
        self.connection.data(&request)
    }
    fn set_xattr(&self, at: &At, attr: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        let path = path_of(at);
        let mut request = Request::new(Operation::SetXattr, &path);
        (request.other, request.data, request.flags) = (attr, value, flags);
        self.connection.done(&request)
    }
    fn list_xattr(&self, at: &At) -> Result<Vec<u8>, Errno> {
        self.connection.data(&Request::new(Operation::ListXattr, &path_of(at)))
    }
    fn remove_xattr(&self, at: &At, attr: &[u8]) -> Result<(), Errno> {
        let path = path_of(at);
        let mut request = Request::new(Operation::RemoveXattr, &path);
        request.other = attr;
        self.connection.done(&request)
    }
    fn statfs(&self) -> Result<FsStat, Errno> {
        let s = self.connection.sizes()?;
        Ok(FsStat {
            block_size: s.block_size,
            blocks: s.blocks,
            free: s.free,
            available: s.available,
            files: s.files,
            files_free: s.files_free,
        })
    }
}

#[derive(Debug)]
struct RemoteDir {
    connection: Arc<Connection>,
    node: Arc<Node>,
}

impl DirReader for RemoteDir {
    fn read(&self, mut from: u64, emit: &mut dyn FnMut(Entry<'_>) -> bool) -> Result<(), Errno> {
        // No directory is longer; a gofer that goes on for ever must not hold us here.
        const MOST: u32 = 1 << 22;
        let mut count = 0u32;
        loop {
            let path = path_of(&self.node.at());
            let mut request = Request::new(Operation::ReadDir, &path);
            request.offset = from;
            let data = self.connection.data(&request)?;
            let mut rest = &data[..];
            if rest.is_empty() {
                return Ok(());
            }
            while !rest.is_empty() {
                let (ino, next, dtype, name) = take_entry(&mut rest)?;
                count += 1;
                if next == from || count > MOST {
                    return Err(Errno::EIO);
                }
                if !emit(Entry { ino, dtype, next, name }) {
                    return Ok(());
                }
                from = next;
            }
        }
    }
}
