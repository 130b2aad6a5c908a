//! `splice(2)`, `tee(2)`, `vmsplice(2)`, `sendfile(2)`, `copy_file_range(2)`.
//!
//! Between pipes, buffers move. Everywhere else the data is copied once, through memory of the Sentry's own, by the same tries
//! that serve `read` and `write`. What a sink refuses goes back to where it came from, so that nothing is lost in between.

mod copy;
mod pipes;
pub mod syscalls;

use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr};

use crate::sync::Events;
use crate::syscalls::{Blocked, SyscallError};
use crate::task::CurrentTask;
use crate::vfs::rw::{read_file, write_file};
use crate::vfs::{IoDst, IoSrc, OpenFile};

/// What is copied at a time.
const CHUNK: usize = 256 << 10;

/// A position that a call uses: the guest's own variable, or the file's.
struct Position<'a> {
    file: &'a OpenFile,
    addr: UserAddr,
    at: u64,
}

impl<'a> Position<'a> {
    /// EINVAL for a negative one.
    fn new(task: &CurrentTask, file: &'a OpenFile, addr: UserAddr) -> Result<Position<'a>, Errno> {
        let position = Position::unchecked(task, file, addr)?;
        if i64::try_from(position.at).is_err() { Err(Errno::EINVAL) } else { Ok(position) }
    }
    /// One that may be negative, as a large number.
    fn unchecked(task: &CurrentTask, file: &'a OpenFile, addr: UserAddr) -> Result<Position<'a>, Errno> {
        let at = if addr.is_null() { *file.offset.lock() } else { task.read_object::<u64>(addr)? };
        Ok(Position { file, addr, at })
    }
    /// What a read or write gets: streams have no position.
    fn arg(&self) -> Option<u64> {
        if self.file.ops.is_stream() { None } else { Some(self.at) }
    }
    fn advance(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes as u64);
    }
    /// Writes it back: to the guest's variable, or as the file's position.
    fn store(&self, task: &CurrentTask) -> Result<(), Errno> {
        if !self.addr.is_null() {
            return task.write_object(self.addr, &self.at);
        }
        if !self.file.ops.is_stream() {
            *self.file.offset.lock() = self.at;
        }
        Ok(())
    }
}

/// Copies up to `len` bytes from one file to another, at their positions, until the source ends or one of the two would
/// block. Returns the bytes copied, and what it would have to wait for, if anything.
fn copy_files(
    task: &CurrentTask,
    source: &mut Position<'_>,
    sink: &mut Position<'_>,
    len: usize,
) -> (usize, Result<(), Stopped>) {
    let mut buffer = vec![0; len.min(CHUNK)];
    let mut done = 0;
    while done < len {
        let want = buffer.len().min(len - done);
        let got = match read_file(task, source.file, &mut IoDst::kernel(&mut buffer[..want]), source.arg()) {
            Ok(0) => return (done, Ok(())),
            Ok(got) => got,
            Err(e) => return (done, Err(Stopped { errno: e, at_sink: false })),
        };
        let mut src = IoSrc::kernel(&buffer[..got]);
        while src.remaining() > 0 {
            match write_file(task, sink.file, &mut src, sink.arg()) {
                Ok(0) => return (done, Ok(())),
                Ok(n) => {
                    done += n;
                    source.advance(n);
                    sink.advance(n);
                }
                Err(e) => return (done, Err(Stopped { errno: e, at_sink: true })),
            }
        }
    }
    (done, Ok(()))
}

/// Why a copy ended early.
struct Stopped {
    errno: Errno,
    /// The writing side said so.
    at_sink: bool,
}

/// Waits for a file, unless the caller or the file forbids it.
fn wait_for(file: &Arc<OpenFile>, events: Events, nonblock: bool) -> Result<Blocked, SyscallError> {
    match file.wait_queue() {
        Some(queue) if !nonblock => Ok(Blocked::on(queue, events)),
        _ => Err(Errno::EAGAIN.into()),
    }
}
