//! The gofer process: answers questions about one or more trees of host files until nobody is left to ask.
//!
//! It trusts the Sentry no more than the Sentry trusts it: a path leads nowhere but below its tree's root, whatever it
//! says, and every operation ends in [`hostfs`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use quicksand_abi::Errno;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use zerocopy::IntoBytes;

use crate::hostfs::{self, Access};
use crate::protocol::{MAX_PACKET, Operation, Reply, Request, Sizes, put_entry};
use crate::wire;

/// A tree that is served, and the socket that asks for it.
#[derive(Debug)]
pub struct Served {
    /// An `O_PATH` descriptor of a directory, or an open regular file.
    pub root: OwnedFd,
    pub socket: OwnedFd,
}

/// Serves until all sockets are closed.
pub fn serve(mut trees: Vec<Served>) {
    let mut buffer = vec![0; MAX_PACKET];
    while !trees.is_empty() {
        let ready: Vec<bool> = {
            let mut fds: Vec<_> = trees.iter().map(|t| PollFd::new(&t.socket, PollFlags::IN)).collect();
            match poll(&mut fds, None) {
                Ok(_) => fds.iter().map(|fd| !fd.revents().is_empty()).collect(),
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
            }
        };
        let mut ready = ready.into_iter();
        trees.retain(|tree| !ready.next().unwrap_or(false) || tree.answer_one(&mut buffer));
    }
}

impl Served {
    /// Answers one packet; false where there will be no more.
    fn answer_one(&self, buffer: &mut [u8]) -> bool {
        let Ok(Some((len, _))) = wire::receive(self.socket.as_fd(), buffer) else { return false };
        // A packet that is none of ours: whoever sends it is broken, and gets no further.
        let Some(request) = Request::decode(&buffer[..len]) else { return false };
        let (result, fd) = match self.answer(&request) {
            Ok((reply, fd)) => (Ok(reply), fd),
            Err(e) => (Err(e), None),
        };
        wire::send(self.socket.as_fd(), &Reply::encode(&result), fd.as_ref().map(AsFd::as_fd)).is_ok()
    }

    fn answer(&self, request: &Request<'_>) -> Result<(Reply, Option<OwnedFd>), Errno> {
        let data = |data: Vec<u8>| Ok((Reply { data, ..Reply::default() }, None));
        let done = |(): ()| (Reply::default(), None);
        if request.operation == Operation::StatFs {
            return data(self.sizes()?.as_bytes().to_vec());
        }
        if request.path.is_empty() {
            return self.answer_root(request);
        }
        if request.operation == Operation::ReadDir {
            let dir = self.open_dir(request.path)?;
            return data(entries(hostfs::reopen_dir(dir.as_fd())?.as_fd(), request.offset)?);
        }
        let (parent, name) = split(request.path);
        let dir = self.open_dir(parent)?;
        let dir = dir.as_fd();
        match request.operation {
            Operation::Stat => {
                let stat = hostfs::stat_at(dir, name)?;
                let own = hostfs::stat_fd(dir)?;
                let crosses = (stat.dev_major, stat.dev_minor) != (own.dev_major, own.dev_minor);
                let sealed = crosses && hostfs::is_kernel_interface(dir, name, &stat);
                Ok((Reply { stat, sealed, ..Reply::default() }, None))
            }
            Operation::OpenFile => {
                let fd = hostfs::open_file(dir, name, access(request.flags)?)?;
                Ok((Reply::default(), Some(fd)))
            }
            Operation::Create => {
                let (stat, fd) = hostfs::create(dir, name, &request.new, request.data)?;
                Ok((Reply { stat, ..Reply::default() }, fd))
            }
            Operation::Change => hostfs::change_at(dir, name, &request.change).map(done),
            Operation::ReadLink => data(hostfs::read_link(dir, name)?),
            Operation::Unlink => hostfs::unlink(dir, name, request.flags & 1 != 0).map(done),
            Operation::Link | Operation::Rename => {
                let (other_parent, other_name) = split(request.other);
                let other_dir = self.open_dir(other_parent)?;
                let other_dir = other_dir.as_fd();
                match request.operation {
                    Operation::Link => hostfs::link(dir, name, other_dir, other_name),
                    _ => hostfs::rename(dir, name, other_dir, other_name, request.flags & 1 != 0),
                }
                .map(done)
            }
            Operation::GetXattr => data(hostfs::get_xattr(dir, name, request.other)?),
            Operation::SetXattr => {
                hostfs::set_xattr(dir, name, request.other, request.data, request.flags).map(done)
            }
            Operation::ListXattr => data(hostfs::list_xattr(dir, name)?),
            Operation::RemoveXattr => hostfs::remove_xattr(dir, name, request.other).map(done),
            Operation::ReadDir | Operation::StatFs => Err(Errno::EIO),
        }
    }

    /// Questions about the root itself.
    fn answer_root(&self, request: &Request<'_>) -> Result<(Reply, Option<OwnedFd>), Errno> {
        let data = |data: Vec<u8>| Ok((Reply { data, ..Reply::default() }, None));
        let done = |(): ()| (Reply::default(), None);
        if request.operation == Operation::Stat {
            return Ok((Reply { stat: hostfs::stat_fd(self.root.as_fd())?, ..Reply::default() }, None));
        }
        let root = self.root_file()?;
        let root = root.as_fd();
        match request.operation {
            Operation::OpenFile => Ok((Reply::default(), Some(root.try_clone_to_owned()?))),
            Operation::ReadDir => data(entries(root, request.offset)?),
            Operation::Change => hostfs::change_fd(root, &request.change).map(done),
            Operation::GetXattr => data(hostfs::get_xattr_fd(root, request.other)?),
            Operation::SetXattr => {
                hostfs::set_xattr_fd(root, request.other, request.data, request.flags).map(done)
            }
            Operation::ListXattr => data(hostfs::list_xattr_fd(root)?),
            Operation::RemoveXattr => hostfs::remove_xattr_fd(root, request.other).map(done),
            _ => Err(Errno::EINVAL),
        }
    }

    fn root_file(&self) -> Result<OwnedFd, Errno> {
        match hostfs::stat_fd(self.root.as_fd())?.kind() {
            libc::S_IFDIR => hostfs::reopen_dir(self.root.as_fd()),
            libc::S_IFREG => self.root.try_clone().map_err(Errno::from),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// A directory below the root, without following any symbolic link.
    fn open_dir(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        if path.is_empty() {
            return self.root.try_clone().map_err(Errno::from);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve).map_err(hostfs::errno)
    }

    fn sizes(&self) -> Result<Sizes, Errno> {
        let s = rustix::fs::fstatfs(&self.root).map_err(hostfs::errno)?;
        Ok(Sizes {
            magic: u64::try_from(s.f_type).unwrap_or(0),
            block_size: u64::try_from(s.f_bsize).unwrap_or(4096),
            blocks: s.f_blocks,
            free: s.f_bfree,
            available: s.f_bavail,
            files: s.f_files,
            files_free: s.f_ffree,
        })
    }
}

fn access(flags: u32) -> Result<Access, Errno> {
    match flags {
        0 => Ok(Access::Read),
        1 => Ok(Access::Write),
        2 => Ok(Access::ReadWrite),
        _ => Err(Errno::EINVAL),
    }
}

fn entries(dir: BorrowedFd<'_>, from: u64) -> Result<Vec<u8>, Errno> {
    let mut data = Vec::new();
    hostfs::read_dir(dir, from, 16 * 1024, &mut |entry| {
        put_entry(&mut data, entry.ino, entry.next, entry.dtype, entry.name)
    })?;
    Ok(data)
}

/// A path's directory and last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}
