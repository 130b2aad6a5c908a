//! Open host files: regular files and directories.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use quicksand_abi::Errno;
use quicksand_gofer::hostfs::errno;
use rustix::io::ReadWriteFlags;

use super::backend::DirReader;
use super::inode::Tree;
use super::node::Node;
use crate::task::CurrentTask;
use crate::vfs::file::HostMapping;
use crate::vfs::io::with_scratch;
use crate::vfs::{DirEntry, DirSink, FileKind, FileOps, IoDst, IoSrc, OpenFile, OpenFlags, SeekFrom};

/// What is moved between the host and the guest at a time.
const CHUNK: usize = 256 * 1024;
const SMALL: usize = 8 * 1024;

/// Fills `dst` from `fd` at `offset`: all of it, up to the end of the file.
pub fn read_at(fd: &OwnedFd, dst: &mut IoDst<'_>, mut offset: u64) -> Result<usize, Errno> {
    let start = dst.done();
    with_scratch(dst.remaining(), |buffer| {
        while dst.remaining() > 0 {
            let want = dst.remaining().min(buffer.len());
            let got = match rustix::io::pread(fd, &mut buffer[..want], offset) {
                Ok(0) => break,
                Ok(got) => got,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) if dst.done() > start => break,
                Err(e) => return Err(errno(e)),
            };
            match dst.put(&buffer[..got]) {
                // A regular file gives less than it was asked for at its end only.
                Ok(put) if put == got && got == want => offset = offset.saturating_add(got as u64),
                Ok(_) => break,
                Err(_) if dst.done() > start => break,
                Err(e) => return Err(e),
            }
        }
        Ok(dst.done() - start)
    })
}

/// Writes all of `src` at `offset`, or at the end where `append` is set.
fn write_at(fd: &OwnedFd, src: &mut IoSrc<'_>, mut offset: u64, append: bool) -> Result<usize, Errno> {
    let start = src.done();
    let mut small = [0u8; SMALL];
    let mut large = Vec::new();
    let buffer: &mut [u8] = if src.remaining() <= SMALL {
        &mut small
    } else {
        large.resize(src.remaining().min(CHUNK), 0);
        &mut large
    };
    while src.remaining() > 0 {
        let want = src.remaining().min(buffer.len());
        let taken = match src.take(&mut buffer[..want]) {
            Ok(0) => break,
            Ok(taken) => taken,
            Err(_) if src.done() > start => break,
            Err(e) => return Err(e),
        };
        let written = loop {
            let bytes = &buffer[..taken];
            let result = if append {
                let slices = [std::io::IoSlice::new(bytes)];
                rustix::io::pwritev2(fd, &slices, 0, ReadWriteFlags::APPEND)
            } else {
                rustix::io::pwrite(fd, bytes, offset)
            };
            match result {
                Err(rustix::io::Errno::INTR) => continue,
                other => break other.map_err(errno),
            }
        };
        match written {
            Ok(n) => {
                offset = offset.saturating_add(n as u64);
                if n < taken {
                    src.unread(taken - n);
                    break;
                }
            }
            Err(e) => {
                src.unread(taken);
                if src.done() > start {
                    break;
                }
                return Err(e);
            }
        }
    }
    Ok(src.done() - start)
}

/// An open regular file.
#[derive(Debug)]
pub struct HostRegular {
    node: Arc<Node>,
    fd: Arc<OwnedFd>,
    writable: bool,
    /// Attributes are cached in the node, and must be forgotten when this file changes.
    cached: bool,
}

impl HostRegular {
    pub fn new(node: Arc<Node>, fd: Arc<OwnedFd>, writable: bool, cached: bool) -> HostRegular {
        HostRegular { node, fd, writable, cached }
    }
    fn changed(&self) {
        if self.cached {
            self.node.set_stat(None);
        }
    }
    fn durable(&self, file: &OpenFile) -> Result<(), Errno> {
        if file.flags().intersects(OpenFlags::DSYNC | OpenFlags::SYNC_BIT) {
            self.sync(file, !file.flags().contains(OpenFlags::SYNC_BIT))?;
        }
        Ok(())
    }
}

impl FileOps for HostRegular {
    fn read(&self, _: &OpenFile, _: &CurrentTask, dst: &mut IoDst<'_>, offset: u64) -> Result<usize, Errno> {
        read_at(&self.fd, dst, offset)
    }
    fn write(
        &self,
        file: &OpenFile,
        _: &CurrentTask,
        src: &mut IoSrc<'_>,
        offset: u64,
    ) -> Result<usize, Errno> {
        let written = write_at(&self.fd, src, offset, false);
        self.changed();
        self.durable(file)?;
        written
    }
    fn append(&self, file: &OpenFile, _: &CurrentTask, src: &mut IoSrc<'_>) -> Result<(usize, u64), Errno> {
        let written = write_at(&self.fd, src, 0, true);
        self.changed();
        self.durable(file)?;
        let end = rustix::fs::fstat(&*self.fd).map_err(errno)?.st_size;
        Ok((written?, u64::try_from(end).unwrap_or(0)))
    }
    fn seek(&self, file: &OpenFile, from: SeekFrom) -> Result<u64, Errno> {
        // The host's position is used by nobody: every read and write names its offset.
        let from = match from {
            SeekFrom::Data(at) => rustix::fs::SeekFrom::Data(u64::try_from(at).map_err(|_| Errno::ENXIO)?),
            SeekFrom::Hole(at) => rustix::fs::SeekFrom::Hole(u64::try_from(at).map_err(|_| Errno::ENXIO)?),
            SeekFrom::Start(at) => return u64::try_from(at).map_err(|_| Errno::EINVAL),
            SeekFrom::Current(by) => {
                let at = i64::try_from(*file.offset.lock()).map_err(|_| Errno::EOVERFLOW)?;
                let at = at.checked_add(by).ok_or(Errno::EINVAL)?;
                return u64::try_from(at).map_err(|_| Errno::EINVAL);
            }
            SeekFrom::End(by) => {
                let end = rustix::fs::fstat(&*self.fd).map_err(errno)?.st_size;
                let at = end.checked_add(by).ok_or(Errno::EINVAL)?;
                return u64::try_from(at).map_err(|_| Errno::EINVAL);
            }
        };
        rustix::fs::seek(&*self.fd, from).map_err(errno)
    }
    fn mmap(&self, _: &OpenFile, offset: u64, _: u64, _: bool) -> Result<HostMapping, Errno> {
        Ok(HostMapping { fd: self.fd.clone(), offset, writable: self.writable })
    }
    fn sync(&self, _: &OpenFile, data_only: bool) -> Result<(), Errno> {
        if data_only { rustix::fs::fdatasync(&*self.fd) } else { rustix::fs::fsync(&*self.fd) }.map_err(errno)
    }
    fn fallocate(&self, _: &OpenFile, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        let flags = rustix::fs::FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
        let done = rustix::fs::fallocate(self.fd.as_fd(), flags, offset, len).map_err(errno);
        self.changed();
        done
    }
}

/// An open directory.
#[derive(Debug)]
pub struct HostDirectory {
    tree: Arc<Tree>,
    node: Arc<Node>,
    /// `None` for the mount point of a kernel interface, which is shown empty.
    reader: Option<Box<dyn DirReader>>,
}

impl HostDirectory {
    pub fn new(tree: Arc<Tree>, node: Arc<Node>, reader: Option<Box<dyn DirReader>>) -> HostDirectory {
        HostDirectory { tree, node, reader }
    }
    fn ino_of(&self, node: &Node) -> u64 {
        self.tree.guest_ino((node.identity.0, node.identity.1), node.identity.2)
    }
}

impl FileOps for HostDirectory {
    fn read_dir(
        &self,
        _: &OpenFile,
        _: &CurrentTask,
        from: u64,
        sink: &mut dyn DirSink,
    ) -> Result<(), Errno> {
        let own = self.ino_of(&self.node);
        let parent = self.node.parent().map_or(own, |p| self.ino_of(&p));
        let dev = (self.node.identity.0, self.node.identity.1);
        let Some(reader) = &self.reader else {
            for (at, (name, ino)) in [(&b"."[..], own), (b"..", parent)].into_iter().enumerate() {
                let entry = DirEntry { ino, kind: FileKind::Directory, name, next: at as u64 + 1 };
                if at as u64 >= from && !sink.emit(entry) {
                    break;
                }
            }
            return Ok(());
        };
        reader.read(from, &mut |entry| {
            let ino = match entry.name {
                b"." => own,
                b".." => parent,
                _ => self.tree.guest_ino(dev, entry.ino),
            };
            let kind = FileKind::from_mode(u32::from(entry.dtype) << 12);
            sink.emit(DirEntry { ino, kind, name: entry.name, next: entry.next })
        })
    }
    fn sync(&self, _: &OpenFile, _: bool) -> Result<(), Errno> {
        // Directories are synced with the files in them: the descriptor for it is not worth an open.
        Ok(())
    }
}
