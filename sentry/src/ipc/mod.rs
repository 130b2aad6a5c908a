//! System V inter-process communication: shared memory, semaphores, message queues (`svipc(7)`).
//!
//! Each container has its own [`IpcNamespace`]. One lock guards all its objects; nothing but a wait queue is locked under it.
//! An object's id is its place in the table and a generation, so that the id of one that was removed is not mistaken for
//! its successor's (EIDRM).

pub mod msg;
mod saved;
pub mod sem;
pub mod shm;

use std::collections::BTreeMap;

use quicksand_abi::{Errno, UserAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(crate) use self::saved::{SavedIpc, SavedQueue, SavedSegment, SavedSet};
use crate::sync::{Level, Mutex, MutexGuard};
use crate::task::credentials::Caps;
use crate::task::{Credentials, CurrentTask};

pub(crate) const IPC_PRIVATE: i32 = 0;
pub(crate) const IPC_CREAT: u32 = 0o1000;
pub(crate) const IPC_EXCL: u32 = 0o2000;
pub(crate) const IPC_NOWAIT: u32 = 0o4000;

pub(crate) const IPC_RMID: i32 = 0;
pub(crate) const IPC_SET: i32 = 1;
pub(crate) const IPC_STAT: i32 = 2;
pub(crate) const IPC_INFO: i32 = 3;

/// Read and write permission, as `ipcperms` is asked for.
pub(crate) const READ: u32 = 0o444;
pub(crate) const WRITE: u32 = 0o222;

/// Places in a table; an id is `generation * PLACES + place` (SEQ_MULTIPLIER).
const PLACES: i32 = 32768;

/// The System V objects of a container.
pub struct IpcNamespace {
    objects: Mutex<Objects>,
}

#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub segments: Table<shm::Segment>,
    pub semaphores: Table<sem::SemSet>,
    pub queues: Table<msg::MsgQueue>,
    /// What the messages of all queues take.
    pub message_bytes: u64,
}

impl Default for IpcNamespace {
    fn default() -> IpcNamespace {
        IpcNamespace { objects: Mutex::new(Level::Object, Objects::default()) }
    }
}

impl IpcNamespace {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock()
    }
}

impl std::fmt::Debug for IpcNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IpcNamespace")
    }
}

/// Who made and who owns an object, and what others may do with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
}

/// `struct ipc64_perm`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Perm64 {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
    pub seq: u16,
    pub pad: [u16; 3],
    pub unused: [u64; 2],
}

impl Owner {
    fn new(creds: &Credentials, key: i32, flags: u32) -> Owner {
        let (uid, gid) = (creds.euid, creds.egid);
        Owner { key, uid, gid, cuid: uid, cgid: gid, mode: flags & 0o777 }
    }
    /// `ipcperms`: `wanted` as permission bits, of which those for the right class count.
    pub(crate) fn check(&self, creds: &Credentials, wanted: u32) -> Result<(), Errno> {
        let wanted = (wanted >> 6) | (wanted >> 3) | wanted;
        let granted = if creds.euid == self.cuid || creds.euid == self.uid {
            self.mode >> 6
        } else if creds.in_group(self.cgid) || creds.in_group(self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if wanted & !granted & 7 != 0 && !creds.has(Caps::IPC_OWNER) {
            return Err(Errno::EACCES);
        }
        Ok(())
    }
    /// Who may remove it or set its owner.
    pub(crate) fn check_control(&self, creds: &Credentials) -> Result<(), Errno> {
        let own = creds.euid == self.cuid || creds.euid == self.uid;
        if own || creds.has(Caps::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }
    /// IPC_SET.
    pub(crate) fn set(&mut self, new: &Perm64) {
        self.uid = new.uid;
        self.gid = new.gid;
        self.mode = (self.mode & !0o777) | (new.mode & 0o777);
    }
    pub(crate) fn to_perm(self, id: i32) -> Perm64 {
        Perm64 {
            key: self.key,
            uid: self.uid,
            gid: self.gid,
            cuid: self.cuid,
            cgid: self.cgid,
            mode: self.mode,
            seq: (id / PLACES) as u16,
            ..Perm64::default()
        }
    }
}

/// An object of one of the three kinds.
pub(crate) trait Object {
    /// How many there may be.
    const LIMIT: usize;
    fn owner(&self) -> &Owner;
    /// What `get` of an existing one checks beyond the permission.
    fn check_size(&self, size: u64) -> Result<(), Errno>;
}

/// Objects of one kind by place.
#[derive(Debug)]
pub(crate) struct Table<T> {
    objects: BTreeMap<i32, (i32, T)>,
    generation: i32,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { objects: BTreeMap::new(), generation: 0 }
    }
}

impl<T: Object> Table<T> {
    /// The object of an id. EINVAL where there is none, EIDRM where it is another's by now.
    pub(crate) fn get(&mut self, id: i32) -> Result<&mut T, Errno> {
        if id < 0 {
            return Err(Errno::EINVAL);
        }
        match self.objects.get_mut(&(id % PLACES)) {
            Some((own, object)) if *own == id => Ok(object),
            Some(_) => Err(Errno::EIDRM),
            None => Err(Errno::EINVAL),
        }
    }
    /// The object at a place, and its id (`SHM_STAT` and its kin).
    pub(crate) fn at_place(&mut self, place: i32) -> Result<(i32, &mut T), Errno> {
        self.objects.get_mut(&place).map(|(id, object)| (*id, object)).ok_or(Errno::EINVAL)
    }
    pub(crate) fn remove(&mut self, id: i32) -> Option<T> {
        self.objects.remove(&(id % PLACES)).map(|(_, object)| object)
    }
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        self.objects.retain(|_, (_, object)| keep(object));
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i32, &T)> {
        self.objects.values().map(|(id, object)| (*id, object))
    }
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.objects.values_mut().map(|(_, object)| object)
    }
    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }
    /// The highest place taken, as the `INFO` commands return it.
    pub(crate) fn highest(&self) -> usize {
        self.objects.last_key_value().map_or(0, |(place, _)| *place as usize)
    }

    /// `ipcget`: finds the object of `key` or makes one.
    pub(crate) fn find_or_make(
        &mut self,
        creds: &Credentials,
        key: i32,
        flags: u32,
        size: u64,
        make: impl FnOnce(Owner) -> Result<T, Errno>,
    ) -> Result<usize, Errno> {
        let found = if key == IPC_PRIVATE {
            None
        } else {
            self.objects.values().find(|(_, object)| object.owner().key == key)
        };
        if let Some((id, object)) = found {
            if flags & IPC_CREAT != 0 && flags & IPC_EXCL != 0 {
                return Err(Errno::EEXIST);
            }
            object.check_size(size)?;
            object.owner().check(creds, flags & 0o777)?;
            return Ok(*id as usize);
        }
        if key != IPC_PRIVATE && flags & IPC_CREAT == 0 {
            return Err(Errno::ENOENT);
        }
        let object = make(Owner::new(creds, key, flags))?;
        if self.objects.len() >= T::LIMIT {
            return Err(Errno::ENOSPC);
        }
        let place = (0..PLACES).find(|place| !self.objects.contains_key(place)).ok_or(Errno::ENOSPC)?;
        let id = self.generation * PLACES + place;
        // A new generation for each object: an old id is found out.
        self.generation = (self.generation + 1) % (i32::MAX / PLACES);
        self.objects.insert(place, (id, object));
        Ok(id as usize)
    }
}

/// Seconds of the wall clock.
pub(crate) fn now(task: &CurrentTask) -> i64 {
    task.kernel().clocks.realtime().0.div_euclid(1_000_000_000)
}

/// Reads the `ipc64_perm` that an IPC_SET structure begins with.
pub(crate) fn read_perm(task: &CurrentTask, at: UserAddr) -> Result<Perm64, Errno> {
    task.read_object(at)
}
