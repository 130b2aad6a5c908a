//! Host pipes, sockets, files and simple devices as open files.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quicksand_abi::Errno;
use quicksand_gofer::hostfs::errno;
use rustix::net::{RecvFlags, SendFlags};

use super::Shared;
use crate::entry;
use crate::fs::ioctl;
use crate::sync::{Events, WaitQueue};
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;
use crate::vfs::file::HostMapping;
use crate::vfs::{FileKind, FileOps, IoDst, IoSrc, OpenFile, SeekFrom};

/// What a pipe that polls writable takes without waiting: PIPE_BUF.
const READY_WRITE: usize = 4096;
const CHUNK: usize = 64 * 1024;

/// Reads once from a stream: what is there, EAGAIN where nothing is.
pub(super) fn read_stream(shared: &Shared, dst: &mut IoDst<'_>) -> Result<usize, Errno> {
    if dst.remaining() == 0 {
        return Ok(0);
    }
    let mut buffer = vec![0u8; dst.remaining().min(CHUNK)];
    let got = loop {
        let result = if shared.kind == FileKind::Socket {
            rustix::net::recv(&*shared.fd, &mut buffer[..], RecvFlags::DONTWAIT).map(|(n, _)| n)
        } else {
            let ready = Events::READABLE | Events::HUP | Events::ERR;
            if shared.may_wait && !shared.ready().intersects(ready) {
                return Err(Errno::EAGAIN);
            }
            rustix::io::read(&*shared.fd, &mut buffer[..])
        };
        match result {
            Err(rustix::io::Errno::INTR) => continue,
            other => break other.map_err(errno)?,
        }
    };
    dst.put(&buffer[..got])
}

/// Writes to a stream as much as it takes now; EAGAIN where that is nothing.
pub(super) fn write_stream(
    shared: &Shared,
    file: &OpenFile,
    task: &CurrentTask,
    src: &mut IoSrc<'_>,
) -> Result<usize, Errno> {
    let start = src.done();
    let piece = if shared.may_wait && shared.kind != FileKind::Socket { READY_WRITE } else { CHUNK };
    let mut buffer = vec![0u8; src.remaining().min(piece)];
    while src.remaining() > 0 {
        let taken = match src.take(&mut buffer) {
            Ok(taken) => taken,
            Err(_) if src.done() > start => break,
            Err(e) => return Err(e),
        };
        let bytes = &buffer[..taken];
        let result = loop {
            let result = if shared.kind == FileKind::Socket {
                rustix::net::send(&*shared.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            } else if shared.may_wait && !shared.ready().intersects(Events::WRITABLE | Events::ERR) {
                Err(rustix::io::Errno::AGAIN)
            } else {
                rustix::io::write(&*shared.fd, bytes)
            };
            match result {
                Err(rustix::io::Errno::INTR) => continue,
                other => break other.map_err(errno),
            }
        };
        if let Ok(n) = result {
            entry::wrote(task, file, &bytes[..n.min(taken)]);
        }
        match result {
            Ok(n) if n == taken => {}
            Ok(n) => {
                src.unread(taken - n);
                break;
            }
            Err(e) => {
                src.unread(taken);
                if src.done() > start {
                    break;
                }
                if e == Errno::EPIPE {
                    crate::fs::send_sigpipe(task);
                }
                return Err(e);
            }
        }
    }
    Ok(src.done() - start)
}

/// An imported host descriptor that is no terminal.
#[derive(Debug)]
pub(super) struct HostFile {
    shared: Arc<Shared>,
    /// Files: where the host's own position stands. It is shared with whoever else has the file open (two programs of one
    /// shell redirection), so sequential reads and writes use and move it; positional ones leave it alone.
    position: AtomicU64,
}

impl HostFile {
    pub(super) fn new(shared: Arc<Shared>, at: u64) -> HostFile {
        HostFile { shared, position: AtomicU64::new(at) }
    }

    /// Writes to a stream what it takes now, or all of it to a file at `offset`.
    fn put_out(
        &self,
        file: &OpenFile,
        task: &CurrentTask,
        src: &mut IoSrc<'_>,
        offset: u64,
    ) -> Result<usize, Errno> {
        if self.is_stream() {
            return write_stream(&self.shared, file, task, src);
        }
        let start = src.done();
        let fd = self.shared.fd.as_fd();
        let mut at = offset;
        let mut buffer = vec![0u8; src.remaining().min(CHUNK)];
        while src.remaining() > 0 {
            let taken = match src.take(&mut buffer) {
                Ok(taken) => taken,
                Err(_) if src.done() > start => break,
                Err(e) => return Err(e),
            };
            let slices = &[IoSlice::new(&buffer[..taken])];
            let result = if at == self.position.load(Ordering::Relaxed) {
                let moved = |n: &usize| {
                    self.position.fetch_add(*n as u64, Ordering::Relaxed);
                };
                rustix::io::writev(fd, slices).inspect(moved)
            } else {
                rustix::io::pwritev(fd, slices, at)
            };
            match result.map_err(errno) {
                Ok(n) => {
                    entry::wrote(task, file, &buffer[..n.min(taken)]);
                    at = at.saturating_add(n as u64);
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
}

impl FileOps for HostFile {
    fn read(&self, _: &OpenFile, _: &CurrentTask, dst: &mut IoDst<'_>, offset: u64) -> Result<usize, Errno> {
        if self.is_stream() {
            return read_stream(&self.shared, dst);
        }
        let mut buffer = vec![0u8; dst.remaining().min(CHUNK)];
        let fd = self.shared.fd.as_fd();
        let slices = &mut [IoSliceMut::new(&mut buffer)];
        let got = if offset == self.position.load(Ordering::Relaxed) {
            let got = rustix::io::readv(fd, slices).map_err(errno)?;
            self.position.fetch_add(got as u64, Ordering::Relaxed);
            got
        } else {
            rustix::io::preadv(fd, slices, offset).map_err(errno)?
        };
        dst.put(&buffer[..got])
    }

    fn write(
        &self,
        file: &OpenFile,
        task: &CurrentTask,
        src: &mut IoSrc<'_>,
        offset: u64,
    ) -> Result<usize, Errno> {
        let written = self.put_out(file, task, src, offset);
        if written.is_ok() {
            task.kernel().has_put_out();
        }
        written
    }

    fn can_splice(&self, _: bool) -> bool {
        true
    }

    fn append(
        &self,
        file: &OpenFile,
        task: &CurrentTask,
        src: &mut IoSrc<'_>,
    ) -> Result<(usize, u64), Errno> {
        if self.is_stream() {
            return write_stream(&self.shared, file, task, src).map(|n| (n, 0));
        }
        // The host's descriptor has O_APPEND where the guest's has: whatever offset is named, it writes at the end.
        let at = self.position.load(Ordering::Relaxed);
        let n = self.write(file, task, src, at)?;
        let end = rustix::fs::tell(&self.shared.fd).map_err(errno)?;
        self.position.store(end, Ordering::Relaxed);
        Ok((n, end))
    }

    fn is_stream(&self) -> bool {
        matches!(self.shared.kind, FileKind::Fifo | FileKind::Socket)
    }
    fn writes_all(&self) -> bool {
        self.is_stream()
    }

    fn seek(&self, file: &OpenFile, from: SeekFrom) -> Result<u64, Errno> {
        if self.is_stream() {
            return Err(Errno::ESPIPE);
        }
        let unsigned = |at: i64| u64::try_from(at).map_err(|_| Errno::EINVAL);
        let host = match from {
            SeekFrom::Start(at) => rustix::fs::SeekFrom::Start(unsigned(at)?),
            SeekFrom::End(by) => rustix::fs::SeekFrom::End(by),
            SeekFrom::Data(at) => rustix::fs::SeekFrom::Data(unsigned(at).map_err(|_| Errno::ENXIO)?),
            SeekFrom::Hole(at) => rustix::fs::SeekFrom::Hole(unsigned(at).map_err(|_| Errno::ENXIO)?),
            SeekFrom::Current(by) => {
                let at = i64::try_from(*file.offset.lock()).map_err(|_| Errno::EOVERFLOW)?;
                rustix::fs::SeekFrom::Start(unsigned(at.checked_add(by).ok_or(Errno::EINVAL)?)?)
            }
        };
        let at = rustix::fs::seek(&*self.shared.fd, host).map_err(errno)?;
        self.position.store(at, Ordering::Relaxed);
        Ok(at)
    }

    fn poll(&self, _: &OpenFile, _: &CurrentTask) -> Events {
        self.shared.ready()
    }
    fn wait_queue(&self, _: &OpenFile) -> Option<Arc<WaitQueue>> {
        self.shared.wait_queue()
    }
    fn ioctl(&self, _: &OpenFile, task: &CurrentTask, cmd: u32, arg: u64) -> SyscallResult {
        match cmd {
            ioctl::FIONREAD => {
                let n = rustix::io::ioctl_fionread(&*self.shared.fd).map_err(errno)?;
                ioctl::put_int(task, arg, usize::try_from(n).unwrap_or(usize::MAX))
            }
            _ => Err(Errno::ENOTTY.into()),
        }
    }
    fn mmap(&self, file: &OpenFile, offset: u64, _: u64, _: bool) -> Result<HostMapping, Errno> {
        match self.shared.kind {
            FileKind::Regular => {
                Ok(HostMapping { fd: self.shared.fd.clone(), offset, writable: file.flags().can_write() })
            }
            _ => Err(Errno::ENODEV),
        }
    }
    fn sync(&self, _: &OpenFile, data_only: bool) -> Result<(), Errno> {
        let fd = &*self.shared.fd;
        if data_only { rustix::fs::fdatasync(fd) } else { rustix::fs::fsync(fd) }.map_err(errno)
    }
    fn fallocate(&self, _: &OpenFile, mode: u32, offset: u64, len: u64) -> Result<(), Errno> {
        if self.shared.kind != FileKind::Regular {
            return Err(if self.is_stream() { Errno::ESPIPE } else { Errno::ENODEV });
        }
        let flags = rustix::fs::FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
        rustix::fs::fallocate(&*self.shared.fd, flags, offset, len).map_err(errno)
    }
}
