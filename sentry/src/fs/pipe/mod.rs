//! Pipes and FIFOs, `pipe(7)`.
//!
//! A [`Pipe`] is Linux's `pipe_inode_info`: a ring of page-sized buffers between counted readers and writers. What a
//! guest can see of the ring is kept as Linux has it: a write of at most PIPE_BUF bytes fits into one buffer and is
//! therefore atomic; small writes are merged into the last buffer where they fit; the pipe is full when every buffer is
//! used, however little each holds; in packet mode (`O_DIRECT`) a buffer is a packet.
//!
//! Invariants:
//! - Guest memory is never touched with the pipe locked: data passes through a buffer of the Sentry's own. What a faulting
//!   reader could not take goes back to the front.
//! - The data is plain bytes, and an opener that waits for its partner is an entry of the pipe: a pipe is flat data.

mod anon_pipe;
mod buffers;
mod fifo;
mod file;
pub mod syscalls;

use std::fmt;
use std::sync::Arc;

use quicksand_abi::Errno;

use crate::sync::{Events, Level, Mutex, WaitQueue};
use crate::task::CurrentTask;
use crate::task::credentials::Caps;

pub use buffers::{Buffer, Buffers, PAGE};
pub use fifo::{FifoTable, open_fifo};
pub use file::PipeFile;
pub(crate) use syscalls::restored_ops;

/// Whether the inode is that of a pipe without a name.
pub fn is_nameless(inode: &crate::vfs::Inode) -> bool {
    inode.ops_as::<anon_pipe::PipeInode>().is_some()
}

/// `/proc/sys/fs/pipe-max-size`.
pub const MAX_SIZE: usize = 1 << 20;
/// PIPE_BUF: writes up to this size are atomic.
pub const PIPE_BUF: usize = 4096;

/// A pipe, apart from its ends.
pub struct Pipe {
    pub(in crate::fs) state: Mutex<State>,
    /// Notified of every change that poll can see, and of openers.
    pub queue: Arc<WaitQueue>,
}

/// What the lock covers.
#[derive(Debug, Default)]
pub(in crate::fs) struct State {
    pub(in crate::fs) buffers: Buffers,
    pub(in crate::fs) readers: u32,
    pub(in crate::fs) writers: u32,
    /// How often it was opened for reading and for writing: what a FIFO's opener waits to change.
    pub(super) reader_opens: u64,
    pub(super) writer_opens: u64,
    openers: Vec<fifo::Opener>,
}

impl Pipe {
    pub fn new() -> Arc<Pipe> {
        Arc::new(Pipe { state: Mutex::new(Level::Object, State::default()), queue: WaitQueue::new() })
    }

    /// A pipe that holds `buffers`, each with whether it is a packet; nobody has it open. EINVAL where they do not fit.
    pub fn restored(slots: usize, buffers: Vec<(Vec<u8>, bool)>) -> Result<Arc<Pipe>, Errno> {
        let pipe = Pipe::new();
        pipe.state.lock().buffers = Buffers::restored(slots, buffers)?;
        Ok(pipe)
    }
    /// How many buffers there may be, and those in use, oldest first.
    pub fn contents(&self) -> (usize, Vec<(Vec<u8>, bool)>) {
        let state = self.state.lock();
        (state.buffers.slots(), state.buffers.contents())
    }

    /// Bytes waiting (`FIONREAD`).
    pub fn len(&self) -> usize {
        self.state.lock().buffers.bytes()
    }
    pub fn is_empty(&self) -> bool {
        self.state.lock().buffers.is_empty()
    }
    /// F_GETPIPE_SZ.
    pub fn size(&self) -> usize {
        self.state.lock().buffers.slots() * PAGE
    }
    /// F_SETPIPE_SZ: rounds up to a power of two of pages, and returns that. EBUSY where the data would not fit, EPERM
    /// beyond [`MAX_SIZE`] without CAP_SYS_RESOURCE.
    pub fn set_size(&self, task: &CurrentTask, bytes: u32) -> Result<usize, Errno> {
        if bytes > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let size = (bytes as usize).max(PAGE).next_power_of_two();
        let privileged = task.creds().has(Caps::SYS_RESOURCE);
        let grown = {
            let mut state = self.state.lock();
            let slots = size / PAGE;
            if slots > state.buffers.slots() && size > MAX_SIZE && !privileged {
                return Err(Errno::EPERM);
            }
            let grown = slots > state.buffers.slots();
            state.buffers.set_slots(slots)?;
            grown
        };
        if grown {
            self.queue.notify(Events::WRITABLE);
        }
        Ok(size)
    }

    /// Whether the reading end sees the end of the file: empty, and nobody can write.
    pub fn at_end(&self) -> bool {
        let state = self.state.lock();
        state.buffers.is_empty() && state.writers == 0
    }
    /// Whether a write would break the pipe.
    pub fn is_broken(&self) -> bool {
        self.state.lock().readers == 0
    }

    /// Takes up to `max` bytes (one packet where the first buffer is one) for a reader: EAGAIN when it has to wait, no
    /// bytes at the end.
    pub fn take(&self, max: usize) -> Result<Vec<u8>, Errno> {
        let (data, was_full) = {
            let mut state = self.state.lock();
            if state.buffers.is_empty() {
                return if state.writers == 0 { Ok(Vec::new()) } else { Err(Errno::EAGAIN) };
            }
            let was_full = state.buffers.is_full();
            (state.buffers.take(max), was_full)
        };
        if was_full && !data.is_empty() {
            self.queue.notify(Events::WRITABLE);
        }
        Ok(data)
    }

    /// Puts back what a reader took and could not use.
    pub fn put_back(&self, data: &[u8]) {
        self.state.lock().buffers.put_back(data);
        self.queue.notify(Events::READABLE);
    }

    /// How many bytes a write of `len` could store now: EPIPE without readers, EAGAIN where there is no room.
    pub fn room(&self, len: usize, packets: bool) -> Result<usize, Errno> {
        let state = self.state.lock();
        if state.readers == 0 {
            return Err(Errno::EPIPE);
        }
        match state.buffers.room(len, packets) {
            0 => Err(Errno::EAGAIN),
            room => Ok(room),
        }
    }

    /// Stores as much of `data` as fits, and returns how much that was: EPIPE without readers, EAGAIN where none fits.
    pub fn store(&self, data: &[u8], packets: bool) -> Result<usize, Errno> {
        let stored = {
            let mut state = self.state.lock();
            if state.readers == 0 {
                return Err(Errno::EPIPE);
            }
            state.buffers.store(data, packets)
        };
        if stored == 0 && !data.is_empty() {
            return Err(Errno::EAGAIN);
        }
        self.queue.notify(Events::READABLE);
        Ok(stored)
    }

    /// Stores all of `data`, which was read for a room that may have shrunk since: rather over the limit than lost.
    pub fn store_all(&self, data: &[u8]) -> Result<(), Errno> {
        {
            let mut state = self.state.lock();
            if state.readers == 0 {
                return Err(Errno::EPIPE);
            }
            let stored = state.buffers.store(data, false);
            state.buffers.store_over(&data[stored..]);
        }
        self.queue.notify(Events::READABLE);
        Ok(())
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipe")
    }
}
