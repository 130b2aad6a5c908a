//! System V shared memory: `shmget(2)`, `shmat(2)`, `shmdt(2)`, `shmctl(2)`.
//!
//! A segment's memory is that of a shared anonymous mapping. Its attachments are the VMAs that refer to it, so that fork,
//! exec and exit need no bookkeeping here. A segment that was removed is only known by a weak reference: it goes with its
//! last attachment.

use std::sync::{Arc, Weak};

use quicksand_abi::{Errno, PAGE_SIZE, UserAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    IPC_INFO, IPC_PRIVATE, IPC_RMID, IPC_SET, IPC_STAT, Object, Owner, Perm64, READ, Table, WRITE, now,
    read_perm,
};
use crate::mm::vma::SharedMemory;
use crate::mm::{Limits, segment};
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;
use crate::task::credentials::Caps;

const SHM_HUGETLB: u32 = 0o4000;
const SHM_NORESERVE: u32 = 0o10000;

const SHM_RDONLY: u32 = 0o10000;
const SHM_RND: u32 = 0o20000;
const SHM_REMAP: u32 = 0o40000;
const SHM_EXEC: u32 = 0o100000;

const SHM_LOCK: i32 = 11;
const SHM_UNLOCK: i32 = 12;
const SHM_STAT: i32 = 13;
const SHM_INFO: i32 = 14;
const SHM_STAT_ANY: i32 = 15;

/// Bits of the mode beyond the permissions.
const SHM_DEST: u32 = 0o1000;
const SHM_LOCKED: u32 = 0o2000;

/// ULONG_MAX less 16 MiB, as Linux has it.
const SHMMAX: u64 = u64::MAX - (1 << 24);

#[derive(Debug)]
pub(super) enum Memory {
    Kept(Arc<SharedMemory>),
    /// Removed: attachments keep it.
    Removed(Weak<SharedMemory>),
}

/// A segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(super) owner: Owner,
    pub(super) size: u64,
    pub(super) memory: Memory,
    pub(super) atime: i64,
    pub(super) ctime: i64,
    pub(super) creator: i32,
    pub(super) last: i32,
}

impl Object for Segment {
    const LIMIT: usize = 4096;
    fn owner(&self) -> &Owner {
        &self.owner
    }
    fn check_size(&self, size: u64) -> Result<(), Errno> {
        if size > self.size { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

impl Segment {
    fn attachments(&self) -> u64 {
        match &self.memory {
            Memory::Kept(memory) => (Arc::strong_count(memory) - 1) as u64,
            Memory::Removed(memory) => memory.strong_count() as u64,
        }
    }
    fn pages(&self) -> u64 {
        self.size.div_ceil(PAGE_SIZE)
    }
}

/// Forgets segments that were removed and have lost their last attachment.
fn sweep(segments: &mut Table<Segment>) {
    segments.retain(|s| match &s.memory {
        Memory::Kept(_) => true,
        Memory::Removed(memory) => memory.strong_count() > 0,
    });
}

/// `struct shmid64_ds`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ShmidDs {
    perm: Perm64,
    segsz: u64,
    atime: i64,
    dtime: i64,
    ctime: i64,
    cpid: i32,
    lpid: i32,
    nattch: u64,
    unused: [u64; 2],
}

/// `shmget(2)`.
pub fn sys_shmget(task: &CurrentTask, key: i32, size: u64, flags: u32) -> SyscallResult {
    let creds = task.creds();
    let pid = task.group().pid();
    let ctime = now(task);
    let mut objects = task.container().ipc.lock();
    sweep(&mut objects.segments);
    let id = objects.segments.find_or_make(&creds, key, flags, size, |owner| {
        if !(1..=SHMMAX).contains(&size) {
            return Err(Errno::EINVAL);
        }
        if flags & SHM_HUGETLB != 0 {
            // A machine without reserved huge pages.
            return Err(Errno::ENOMEM);
        }
        let memory = segment::new(size, key, flags & SHM_NORESERVE != 0)?;
        let memory = Memory::Kept(memory);
        Ok(Segment { owner, size, memory, atime: 0, ctime, creator: pid, last: 0 })
    })?;
    Ok(id)
}

/// `shmat(2)`.
pub fn sys_shmat(task: &CurrentTask, id: i32, addr: UserAddr, flags: u32) -> SyscallResult {
    if id < 0 {
        return Err(Errno::EINVAL.into());
    }
    let remap = flags & SHM_REMAP != 0;
    let at = match addr {
        UserAddr::NULL if remap => return Err(Errno::EINVAL.into()),
        UserAddr::NULL => None,
        addr if addr.is_page_aligned() => Some(addr),
        addr if flags & SHM_RND != 0 && (!remap || addr.page_floor() != UserAddr::NULL) => {
            Some(addr.page_floor())
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    let write = flags & SHM_RDONLY == 0;
    let execute = flags & SHM_EXEC != 0;
    let wanted = READ | if write { WRITE } else { 0 } | if execute { 0o111 } else { 0 };
    let creds = task.creds();
    let (memory, size) = {
        let mut objects = task.container().ipc.lock();
        sweep(&mut objects.segments);
        let segment = objects.segments.get(id)?;
        segment.owner.check(&creds, wanted)?;
        let memory = match &segment.memory {
            Memory::Kept(memory) => memory.clone(),
            Memory::Removed(memory) => memory.upgrade().ok_or(Errno::EIDRM)?,
        };
        (memory, segment.size)
    };
    let how = segment::Attach { at, remap, write, execute };
    let start = segment::attach(&task.mm(), &Limits::of(task), memory, size, how)?;
    let (atime, pid) = (now(task), task.group().pid());
    if let Ok(segment) = task.container().ipc.lock().segments.get(id) {
        (segment.atime, segment.last) = (atime, pid);
    }
    Ok(start.0 as usize)
}

/// `shmdt(2)`.
pub fn sys_shmdt(task: &CurrentTask, addr: UserAddr) -> SyscallResult {
    segment::detach(&task.mm(), addr)?;
    Ok(0)
}

/// `shmctl(2)`.
pub fn sys_shmctl(task: &CurrentTask, id: i32, command: i32, buf: UserAddr) -> SyscallResult {
    if command < 0 || id < 0 {
        return Err(Errno::EINVAL.into());
    }
    let creds = task.creds();
    let new = if command == IPC_SET { Some(read_perm(task, buf)?) } else { None };
    let ctime = now(task);
    let mut objects = task.container().ipc.lock();
    let segments = &mut objects.segments;
    sweep(segments);
    match command {
        IPC_INFO => {
            // shmmax, shmmin, shmmni, shmseg, shmall.
            let mut info = [SHMMAX, 1, 4096, 4096, SHMMAX, 0, 0, 0, 0];
            info[5..].fill(0);
            let highest = segments.highest();
            drop(objects);
            task.write_object(buf, &info)?;
            Ok(highest)
        }
        SHM_INFO => {
            let total: u64 = segments.iter().map(|(_, s)| s.pages()).sum();
            // used_ids (with its padding), shm_tot, shm_rss, shm_swp, and two counts of swapping.
            let info = [segments.len() as u64, total, total, 0, 0, 0];
            let highest = segments.highest();
            drop(objects);
            task.write_object(buf, &info)?;
            Ok(highest)
        }
        IPC_STAT | SHM_STAT | SHM_STAT_ANY => {
            let (id, segment) = match command {
                IPC_STAT => (id, segments.get(id)?),
                _ => segments.at_place(id)?,
            };
            if command != SHM_STAT_ANY {
                segment.owner.check(&creds, READ)?;
            }
            let answer = ShmidDs {
                perm: segment.owner.to_perm(id),
                segsz: segment.size,
                atime: segment.atime,
                ctime: segment.ctime,
                cpid: segment.creator,
                lpid: segment.last,
                nattch: segment.attachments(),
                ..ShmidDs::default()
            };
            drop(objects);
            task.write_object(buf, &answer)?;
            Ok(if command == IPC_STAT { 0 } else { id as usize })
        }
        IPC_SET => {
            let segment = segments.get(id)?;
            segment.owner.check_control(&creds)?;
            if let Some(new) = &new {
                segment.owner.set(new);
            }
            segment.ctime = ctime;
            Ok(0)
        }
        IPC_RMID => {
            let segment = segments.get(id)?;
            segment.owner.check_control(&creds)?;
            segment.owner.key = IPC_PRIVATE;
            segment.owner.mode |= SHM_DEST;
            let memory = match &segment.memory {
                Memory::Kept(memory) => Arc::downgrade(memory),
                Memory::Removed(memory) => memory.clone(),
            };
            let memory = std::mem::replace(&mut segment.memory, Memory::Removed(memory));
            drop(memory);
            sweep(segments);
            Ok(0)
        }
        SHM_LOCK | SHM_UNLOCK => {
            let segment = segments.get(id)?;
            if !creds.has(Caps::IPC_LOCK) {
                segment.owner.check_control(&creds)?;
            }
            segment.owner.mode &= !SHM_LOCKED;
            if command == SHM_LOCK {
                segment.owner.mode |= SHM_LOCKED;
            }
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}
