//! An open end of a pipe.

use std::fmt;
use std::sync::Arc;

use quicksand_abi::Errno;

use super::Pipe;
use crate::fs::ioctl;
use crate::sync::{Events, WaitQueue};
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;
use crate::vfs::{FileOps, IoDst, IoSrc, OpenFile, OpenFlags};

/// What one call moves at most through the Sentry's own memory; a longer one is continued.
const CHUNK: usize = 1 << 20;

/// An open file on a pipe: its reading end, its writing end, or (a FIFO opened read-write) both. Counts as a reader or
/// writer while it lives.
pub struct PipeFile {
    pub pipe: Arc<Pipe>,
    read: bool,
    write: bool,
    /// A FIFO opened for reading without waiting for a writer shows no HUP until one has come: the count of writers'
    /// opens at that time.
    no_hup_at: Option<u64>,
}

impl PipeFile {
    /// An end that its pipe already counts.
    pub(super) fn counted(pipe: Arc<Pipe>, read: bool, write: bool, no_hup_at: Option<u64>) -> PipeFile {
        PipeFile { pipe, read, write, no_hup_at }
    }
    /// Whether a reader of a FIFO still waits for its first writer, and shows no HUP.
    pub(crate) fn shows_no_hup(&self) -> bool {
        self.no_hup_at.is_some_and(|at| at == self.pipe.state.lock().writer_opens)
    }
    pub fn is_reader(&self) -> bool {
        self.read
    }
    pub fn is_writer(&self) -> bool {
        self.write
    }
}

impl Drop for PipeFile {
    fn drop(&mut self) {
        let gone = {
            let mut state = self.pipe.state.lock();
            state.readers -= u32::from(self.read);
            state.writers -= u32::from(self.write);
            (self.read && state.readers == 0, self.write && state.writers == 0)
        };
        let mut events = Events::empty();
        if gone.0 {
            events |= Events::WRITABLE | Events::ERR;
        }
        if gone.1 {
            events |= Events::READABLE | Events::HUP;
        }
        if !events.is_empty() {
            self.pipe.queue.notify(events);
        }
    }
}

impl FileOps for PipeFile {
    fn read(&self, _: &OpenFile, _: &CurrentTask, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let data = self.pipe.take(dst.remaining().min(CHUNK))?;
        let mut put = 0;
        while put < data.len() {
            match dst.put(&data[put..]) {
                Ok(n) => put += n,
                Err(e) => {
                    // Linux takes whole buffers, which are pages: one that cannot be copied to its end stays.
                    let taken = put - put % 4096;
                    self.pipe.put_back(&data[taken..]);
                    return if taken == 0 { Err(e) } else { Ok(taken) };
                }
            }
        }
        Ok(put)
    }

    fn write(
        &self,
        file: &OpenFile,
        task: &CurrentTask,
        src: &mut IoSrc<'_>,
        _: u64,
    ) -> Result<usize, Errno> {
        if src.remaining() == 0 {
            return Ok(0);
        }
        let packets = file.flags().contains(OpenFlags::DIRECT);
        let result = self.write_some(src, packets);
        if result == Err(Errno::EPIPE) {
            crate::fs::send_sigpipe(task);
        }
        result
    }

    fn append(
        &self,
        file: &OpenFile,
        task: &CurrentTask,
        src: &mut IoSrc<'_>,
    ) -> Result<(usize, u64), Errno> {
        self.write(file, task, src, 0).map(|n| (n, 0))
    }

    fn is_stream(&self) -> bool {
        true
    }
    fn writes_all(&self) -> bool {
        true
    }

    fn poll(&self, _: &OpenFile, _: &CurrentTask) -> Events {
        let state = self.pipe.state.lock();
        let mut events = Events::empty();
        if self.read {
            if !state.buffers.is_empty() {
                events |= Events::READABLE;
            }
            if state.writers == 0 && self.no_hup_at != Some(state.writer_opens) {
                events |= Events::HUP;
            }
        }
        if self.write {
            if !state.buffers.is_full() {
                events |= Events::WRITABLE;
            }
            if state.readers == 0 {
                events |= Events::ERR;
            }
        }
        events
    }

    fn wait_queue(&self, _: &OpenFile) -> Option<Arc<WaitQueue>> {
        Some(self.pipe.queue.clone())
    }

    fn ioctl(&self, _: &OpenFile, task: &CurrentTask, cmd: u32, arg: u64) -> SyscallResult {
        match cmd {
            ioctl::FIONREAD => ioctl::put_int(task, arg, self.pipe.len()),
            // `pipe_ioctl` answers what it does not know with ENOIOCTLCMD, which the VFS turns into this.
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    fn pipe_size(&self, _: &OpenFile) -> Result<usize, Errno> {
        Ok(self.pipe.size())
    }

    fn set_pipe_size(&self, _: &OpenFile, task: &CurrentTask, bytes: u32) -> Result<usize, Errno> {
        self.pipe.set_size(task, bytes)
    }
}

impl PipeFile {
    fn write_some(&self, src: &mut IoSrc<'_>, packets: bool) -> Result<usize, Errno> {
        // The room decides how much is taken from the guest, so that what does not fit is not copied; it may have changed
        // by the time it is stored.
        let want = self.pipe.room(src.remaining(), packets)?.min(CHUNK);
        let mut data = vec![0; want];
        let mut taken = 0;
        while taken < want {
            match src.take(&mut data[taken..]) {
                Ok(0) => break,
                Ok(n) => taken += n,
                // Whole pages before the fault are written, as Linux copies page by page.
                Err(e) => {
                    let whole = taken - taken % super::PAGE;
                    src.unread(taken - whole);
                    taken = whole;
                    if whole == 0 {
                        return Err(e);
                    }
                    break;
                }
            }
        }
        let stored = self.pipe.store(&data[..taken], packets).inspect_err(|_| src.unread(taken))?;
        src.unread(taken - stored);
        Ok(stored)
    }
}

impl fmt::Debug for PipeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.read { "PipeFile(read)" } else { "PipeFile(write)" })
    }
}
