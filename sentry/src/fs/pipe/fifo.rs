//! Opening FIFOs, `fifo(7)`: an opener waits for its partner.
//!
//! While it waits, an opener counts as a reader or writer already (another opener, with O_NONBLOCK perhaps, is its
//! partner). It is an entry of the pipe with a number that its `Resume` holds; one whose task was killed counts no more.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use quicksand_abi::Errno;

use super::anon_pipe::PipeInode;
use super::file::PipeFile;
use super::{Pipe, State};
use crate::sync::{Events, Level, Mutex};
use crate::syscalls::{Blocked, OnSignal, Resume, SyscallError, WakeReason};
use crate::task::{CurrentTask, Task, Work};
use crate::vfs::{FileOps, Inode, OpenFlags};

/// One that waits in `open(2)`.
#[derive(Debug)]
pub(super) struct Opener {
    id: u64,
    task: Weak<Task>,
    read: bool,
    /// The partner's count of opens when it began to wait.
    partner_opens: u64,
}

/// The pipes of FIFOs that are open, by [`Inode::id`].
pub struct FifoTable {
    pipes: Mutex<HashMap<u64, Entry>>,
}

struct Entry {
    pipe: Weak<Pipe>,
    /// Keeps the pipe while somebody waits in `open(2)`: no file holds it then.
    waited_for: Option<Arc<Pipe>>,
}

impl Default for FifoTable {
    fn default() -> FifoTable {
        FifoTable { pipes: Mutex::new(Level::Leaf, HashMap::new()) }
    }
}

impl FifoTable {
    /// The pipe behind a FIFO's inode; a new one where it is not open.
    pub fn pipe(&self, inode: &Inode) -> Arc<Pipe> {
        let mut pipes = self.pipes.lock();
        if let Some(pipe) = pipes.get(&inode.id).and_then(|e| e.pipe.upgrade()) {
            return pipe;
        }
        pipes.retain(|_, entry| entry.pipe.strong_count() > 0);
        let pipe = Pipe::new();
        pipes.insert(inode.id, Entry { pipe: Arc::downgrade(&pipe), waited_for: None });
        pipe
    }

    /// For a restore: a FIFO that is open has this pipe behind it.
    pub(crate) fn adopt(&self, inode: &Inode, pipe: &Arc<Pipe>) {
        let entry = Entry { pipe: Arc::downgrade(pipe), waited_for: None };
        self.pipes.lock().insert(inode.id, entry);
    }

    /// Whether an opener that waits has met its partner, and does not know it yet.
    pub(crate) fn has_met(&self, opener: u64) -> bool {
        let pipes: Vec<Arc<Pipe>> = self.pipes.lock().values().filter_map(|e| e.pipe.upgrade()).collect();
        pipes.iter().any(|pipe| {
            let state = pipe.state.lock();
            let found = state.openers.iter().find(|o| o.id == opener);
            found.is_some_and(|o| {
                let (partners, opens) = match o.read {
                    true => (state.writers, state.writer_opens),
                    false => (state.readers, state.reader_opens),
                };
                partners > 0 || opens != o.partner_opens
            })
        })
    }

    /// After an open or a try: the pipe is kept exactly as long as somebody waits for it.
    fn keep(&self, inode: &Inode, pipe: &Arc<Pipe>, waited_for: bool) {
        let mut pipes = self.pipes.lock();
        let Some(entry) = pipes.get_mut(&inode.id) else { return };
        let old = std::mem::replace(&mut entry.waited_for, waited_for.then(|| pipe.clone()));
        drop(pipes);
        drop(old); // outside the lock: it may be the last reference
    }
}

impl fmt::Debug for FifoTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FifoTable")
    }
}

/// Opens a FIFO, or a pipe through `/proc/PID/fd`. A `Blocked` from here is handed on by the caller as it is: the open is
/// called again with the same arguments, and comes here again.
pub fn open_fifo(
    inode: &Arc<Inode>,
    flags: OpenFlags,
    task: &CurrentTask,
) -> Result<Box<dyn FileOps>, SyscallError> {
    let nameless = inode.ops_as::<PipeInode>();
    let pipe = match nameless {
        Some(inode) => inode.pipe.clone(),
        None => task.kernel().fifos.pipe(inode),
    };
    let (resumed, met) = match task.take_resume() {
        Resume::FifoOpen { opener } => (pipe.state.lock().remove_opener(opener), false),
        Resume::FifoMet => (None, true),
        _ => (None, false),
    };
    let (read, write) = (flags.can_read(), flags.can_write());
    let must_wait = nameless.is_none() && read != write && !met;
    // Only a change of the counts is news: an opener that waits on would otherwise wake itself for ever.
    let first = resumed.is_none();
    let (result, waited_for) = {
        let mut state = pipe.state.lock();
        state.drop_dead_openers();
        let result = state.open(task, read, write, flags.contains(OpenFlags::NONBLOCK), must_wait, resumed);
        (result, !state.openers.is_empty())
    };
    if nameless.is_none() {
        task.kernel().fifos.keep(inode, &pipe, waited_for);
    }
    if first || result.is_err() {
        pipe.queue.notify_all();
    }
    match result? {
        Opened::Done { no_hup_at } => Ok(Box::new(PipeFile::counted(pipe, read, write, no_hup_at))),
        Opened::Waits { opener } => {
            let blocked = Blocked::on(pipe.queue.clone(), Events::all());
            // Called again when interrupted, to leave the counts.
            Err(blocked.resume(Resume::FifoOpen { opener }).on_signal(OnSignal::CallAgain).into())
        }
    }
}

enum Opened {
    Done { no_hup_at: Option<u64> },
    Waits { opener: u64 },
}

impl State {
    fn open(
        &mut self,
        task: &CurrentTask,
        read: bool,
        write: bool,
        nonblock: bool,
        must_wait: bool,
        resumed: Option<Opener>,
    ) -> Result<Opened, SyscallError> {
        if !read && !write {
            return Err(Errno::EINVAL.into());
        }
        if resumed.is_none() {
            if must_wait && write && nonblock && self.readers == 0 {
                return Err(Errno::ENXIO.into());
            }
            self.reader_opens += u64::from(read);
            self.writer_opens += u64::from(write);
            self.readers += u32::from(read);
            self.writers += u32::from(write);
        } else {
            self.readers += u32::from(read);
            self.writers += u32::from(write);
        }
        let (partners, partner_opens) =
            if read { (self.writers, self.writer_opens) } else { (self.readers, self.reader_opens) };
        // A partner that came and went while this one waited was a partner.
        let met = partners > 0 || resumed.as_ref().is_some_and(|r| r.partner_opens != partner_opens);
        if !must_wait || met {
            return Ok(Opened::Done { no_hup_at: None });
        }
        if nonblock {
            return Ok(Opened::Done { no_hup_at: Some(self.writer_opens) });
        }
        if task.wake_reason() == WakeReason::Interrupted {
            self.readers -= u32::from(read);
            self.writers -= u32::from(write);
            // Restarted from the beginning where no handler forbids it: the opener is not kept.
            return Err(Blocked::until(None).on_signal(OnSignal::Restart).into());
        }
        let opener = resumed.unwrap_or_else(|| Opener {
            id: task.kernel().next_id(),
            task: Arc::downgrade(task.task()),
            read,
            partner_opens,
        });
        let id = opener.id;
        self.openers.push(opener);
        Ok(Opened::Waits { opener: id })
    }

    /// Takes an opener out, and its count.
    fn remove_opener(&mut self, id: u64) -> Option<Opener> {
        let at = self.openers.iter().position(|o| o.id == id)?;
        let opener = self.openers.swap_remove(at);
        self.uncount(opener.read);
        Some(opener)
    }

    fn drop_dead_openers(&mut self) {
        let mut dead = Vec::new();
        self.openers.retain(|opener| {
            let alive = opener.task.upgrade().is_some_and(|task| !task.has_work(Work::KILL));
            if !alive {
                dead.push(opener.read);
            }
            alive
        });
        for read in dead {
            self.uncount(read);
        }
    }

    fn uncount(&mut self, read: bool) {
        let count = if read { &mut self.readers } else { &mut self.writers };
        *count = count.saturating_sub(1);
    }
}
