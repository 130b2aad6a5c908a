//! System V objects: between what they are and their records. The memory of segments is stored with all shared memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use quicksand_abi::Errno;
use quicksand_checkpoint::Image;

use super::records::{self as rec, kind};
use super::restore::{RestoreError, ids};
use super::save::{SaveError, Saver};
use crate::ipc::{Owner, SavedIpc, SavedQueue, SavedSegment, SavedSet};
use crate::kernel::Container;
use crate::mm::SharedMemory;
use crate::task::ThreadGroup;

fn owner(owner: &Owner) -> rec::IpcOwner {
    let Owner { key, uid, gid, cuid, cgid, mode } = *owner;
    rec::IpcOwner { key, uids: [uid, cuid], gids: [gid, cgid], mode }
}
fn owner_from(record: &rec::IpcOwner) -> Owner {
    let ([uid, cuid], [gid, cgid]) = (record.uids, record.gids);
    Owner { key: record.key, uid, gid, cuid, cgid, mode: record.mode & 0o7777 }
}

impl Saver<'_> {
    /// Stores all objects; returns the generations of the next ones.
    pub(super) fn ipc(&mut self) -> Result<[i32; 3], SaveError> {
        let saved = self.container.ipc.saved();
        for (id, own, s) in saved.segments {
            let record = rec::Segment {
                owner: owner(&own),
                size: s.size,
                memory: s.memory.id,
                removed: s.removed,
                atime: s.atime,
                ctime: s.ctime,
                creator: s.creator,
                last: s.last,
            };
            self.shared.insert(s.memory.id, s.memory);
            self.add(kind::SEGMENT, id as u64, &record)?;
        }
        let pids: BTreeMap<u64, i32> =
            self.container.pids.processes().into_iter().map(|p| (p.group.id, p.pid)).collect();
        for (id, own, s) in saved.sets {
            // What nobody will undo any more is left out.
            let mut undo: Vec<(i32, Vec<i32>)> =
                s.undo.into_iter().filter_map(|(group, by)| Some((*pids.get(&group)?, by))).collect();
            undo.sort_unstable();
            let (values, otime, ctime) = (s.semaphores, s.otime, s.ctime);
            let record = rec::Semaphores { owner: owner(&own), values, otime, ctime, undo };
            self.add(kind::SEMAPHORES, id as u64, &record)?;
        }
        for (id, own, s) in saved.queues {
            let SavedQueue { messages, max_bytes, times, last } = s;
            let record = rec::Messages { owner: owner(&own), messages, max_bytes, times, last };
            self.add(kind::MESSAGES, id as u64, &record)?;
        }
        Ok(saved.generations)
    }
}

/// Makes all objects from their records. `shared_of` gives shared memory and its size.
pub(super) fn restore(
    container: &Container,
    image: &Image,
    groups: &BTreeMap<i32, Arc<ThreadGroup>>,
    generations: [i32; 3],
    shared_of: &mut dyn FnMut(u64) -> Result<(Arc<SharedMemory>, u64), RestoreError>,
) -> Result<(), RestoreError> {
    let wrong = |what: &str| RestoreError::Record(format!("System V objects: {what}"));
    let number = |id: u64| i32::try_from(id).map_err(|_| wrong("a number"));
    let mut saved = SavedIpc { generations, ..SavedIpc::default() };
    for id in ids(image, kind::SEGMENT)? {
        let r: rec::Segment = image.records(kind::SEGMENT)?.read(id)?;
        let (memory, size) = shared_of(r.memory)?;
        if r.size > size || r.size == 0 || memory.key.is_none() {
            return Err(wrong("a segment's memory"));
        }
        let segment = SavedSegment {
            size: r.size,
            memory,
            removed: r.removed,
            atime: r.atime,
            ctime: r.ctime,
            creator: r.creator,
            last: r.last,
        };
        saved.segments.push((number(id)?, owner_from(&r.owner), segment));
    }
    for id in ids(image, kind::SEMAPHORES)? {
        let r: rec::Semaphores = image.records(kind::SEMAPHORES)?.read(id)?;
        let mut undo = Vec::new();
        for (pid, by) in r.undo {
            undo.push((groups.get(&pid).ok_or_else(|| wrong("a process"))?.id, by));
        }
        let set = SavedSet { semaphores: r.values, otime: r.otime, ctime: r.ctime, undo };
        saved.sets.push((number(id)?, owner_from(&r.owner), set));
    }
    for id in ids(image, kind::MESSAGES)? {
        let r: rec::Messages = image.records(kind::MESSAGES)?.read(id)?;
        let queue = SavedQueue { messages: r.messages, max_bytes: r.max_bytes, times: r.times, last: r.last };
        saved.queues.push((number(id)?, owner_from(&r.owner), queue));
    }
    container.ipc.restore(saved).map_err(|_: Errno| wrong("they do not fit together"))
}
