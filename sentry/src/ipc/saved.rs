//! System V objects as data, for checkpoints.
//!
//! Invariant: what is made from data keeps within the limits that calls keep; other data are EINVAL.

use std::collections::HashMap;
use std::sync::Arc;

use quicksand_abi::Errno;

use super::{IpcNamespace, Objects, Owner, PLACES, Table, msg, sem, shm};
use crate::mm::SharedMemory;

/// All objects of a container.
#[derive(Debug, Default)]
pub(crate) struct SavedIpc {
    pub segments: Vec<(i32, Owner, SavedSegment)>,
    pub sets: Vec<(i32, Owner, SavedSet)>,
    pub queues: Vec<(i32, Owner, SavedQueue)>,
    /// The generations of the next segment, set and queue.
    pub generations: [i32; 3],
}

/// A segment of shared memory.
#[derive(Debug)]
pub(crate) struct SavedSegment {
    pub size: u64,
    pub memory: Arc<SharedMemory>,
    /// It goes with its last attachment.
    pub removed: bool,
    pub atime: i64,
    pub ctime: i64,
    pub creator: i32,
    pub last: i32,
}

/// A set of semaphores.
#[derive(Debug, Default)]
pub(crate) struct SavedSet {
    /// Value, and who changed it last.
    pub semaphores: Vec<(i32, i32)>,
    pub otime: i64,
    pub ctime: i64,
    /// By the id of a thread group: what is added when the process ends.
    pub undo: Vec<(u64, Vec<i32>)>,
}

/// A queue of messages.
#[derive(Debug, Default)]
pub(crate) struct SavedQueue {
    pub messages: Vec<(i64, Vec<u8>)>,
    pub max_bytes: u64,
    /// Of sending, receiving, changing.
    pub times: [i64; 3],
    /// Who sent and who received last.
    pub last: [i32; 2],
}

impl<T: super::Object> Table<T> {
    /// Puts a restored object at its place.
    fn put_back(&mut self, id: i32, object: T) -> Result<(), Errno> {
        if id < 0 || self.objects.len() >= T::LIMIT {
            return Err(Errno::EINVAL);
        }
        match self.objects.insert(id % PLACES, (id, object)) {
            None => Ok(()),
            Some(_) => Err(Errno::EINVAL),
        }
    }
    fn go_on_from(&mut self, generation: i32) {
        self.generation = generation.rem_euclid(i32::MAX / PLACES);
    }
}

impl IpcNamespace {
    pub(crate) fn saved(&self) -> SavedIpc {
        let objects = self.lock();
        let Objects { segments, semaphores, queues, .. } = &*objects;
        SavedIpc {
            segments: segments.iter().filter_map(|(id, s)| Some((id, s.owner, s.saved()?))).collect(),
            sets: semaphores.iter().map(|(id, s)| (id, s.owner, s.saved())).collect(),
            queues: queues.iter().map(|(id, q)| (id, q.owner, q.saved())).collect(),
            generations: [segments.generation, semaphores.generation, queues.generation],
        }
    }

    /// For a restore: makes all objects. There are none yet.
    pub(crate) fn restore(&self, saved: SavedIpc) -> Result<(), Errno> {
        let mut objects = self.lock();
        for (id, owner, segment) in saved.segments {
            objects.segments.put_back(id, shm::Segment::restored(owner, segment))?;
        }
        for (id, owner, set) in saved.sets {
            objects.semaphores.put_back(id, sem::SemSet::restored(owner, set)?)?;
        }
        for (id, owner, queue) in saved.queues {
            let (queue, cost) = msg::MsgQueue::restored(owner, queue)?;
            objects.message_bytes = objects.message_bytes.saturating_add(cost);
            objects.queues.put_back(id, queue)?;
        }
        let [segments, sets, queues] = saved.generations;
        objects.segments.go_on_from(segments);
        objects.semaphores.go_on_from(sets);
        objects.queues.go_on_from(queues);
        Ok(())
    }
}

impl shm::Segment {
    /// `None` for one that was removed and has lost its last attachment.
    fn saved(&self) -> Option<SavedSegment> {
        let (memory, removed) = match &self.memory {
            shm::Memory::Kept(memory) => (memory.clone(), false),
            shm::Memory::Removed(memory) => (memory.upgrade()?, true),
        };
        let (size, atime, ctime) = (self.size, self.atime, self.ctime);
        Some(SavedSegment { size, memory, removed, atime, ctime, creator: self.creator, last: self.last })
    }
    fn restored(owner: Owner, saved: SavedSegment) -> shm::Segment {
        let SavedSegment { size, memory, removed, atime, ctime, creator, last } = saved;
        let memory = match removed {
            false => shm::Memory::Kept(memory),
            true => shm::Memory::Removed(Arc::downgrade(&memory)),
        };
        shm::Segment { owner, size, memory, atime, ctime, creator, last }
    }
}

impl sem::SemSet {
    fn saved(&self) -> SavedSet {
        SavedSet {
            semaphores: self.semaphores.iter().map(|s| (s.value, s.pid)).collect(),
            otime: self.otime,
            ctime: self.ctime,
            undo: self.undo.iter().map(|(group, by)| (*group, by.clone())).collect(),
        }
    }
    fn restored(owner: Owner, saved: SavedSet) -> Result<sem::SemSet, Errno> {
        let count = saved.semaphores.len();
        let possible = |value: &i32| (0..=sem::MAX_VALUE).contains(value);
        let undoable = |by: &i32| (-sem::MAX_VALUE - 1..=sem::MAX_VALUE).contains(by);
        let sound = saved.semaphores.iter().all(|(value, _)| possible(value))
            && saved.undo.iter().all(|(_, by)| by.len() == count && by.iter().all(undoable));
        if !sound || count == 0 || count > sem::MAX_PER_SET as usize {
            return Err(Errno::EINVAL);
        }
        Ok(sem::SemSet {
            owner,
            semaphores: saved
                .semaphores
                .iter()
                .map(|(value, pid)| sem::Semaphore { value: *value, pid: *pid })
                .collect(),
            otime: saved.otime,
            ctime: saved.ctime,
            waiting: HashMap::new(),
            undo: saved.undo.into_iter().collect(),
            changed: crate::sync::WaitQueue::new(),
        })
    }
}

impl msg::MsgQueue {
    fn saved(&self) -> SavedQueue {
        SavedQueue {
            messages: self.messages.iter().map(|m| (m.kind, m.text.clone())).collect(),
            max_bytes: self.max_bytes,
            times: [self.stime, self.rtime, self.ctime],
            last: [self.last_sender, self.last_receiver],
        }
    }
    /// The queue, and what its messages take of the container's memory for messages.
    fn restored(owner: Owner, saved: SavedQueue) -> Result<(msg::MsgQueue, u64), Errno> {
        if !saved.messages.iter().all(|(kind, text)| *kind >= 1 && text.len() <= msg::MAX_SIZE) {
            return Err(Errno::EINVAL);
        }
        let messages: std::collections::VecDeque<_> =
            saved.messages.into_iter().map(|(kind, text)| msg::Message { kind, text }).collect();
        let bytes = messages.iter().map(|m| m.text.len() as u64).sum();
        let cost = bytes + messages.len() as u64 * msg::OVERHEAD;
        let [stime, rtime, ctime] = saved.times;
        let [last_sender, last_receiver] = saved.last;
        let queue = msg::MsgQueue {
            owner,
            messages,
            bytes,
            max_bytes: saved.max_bytes,
            stime,
            rtime,
            ctime,
            last_sender,
            last_receiver,
            changed: crate::sync::WaitQueue::new(),
        };
        Ok((queue, cost))
    }
}
