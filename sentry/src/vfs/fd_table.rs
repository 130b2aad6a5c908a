//! Descriptor tables: small numbers to open files. Shared by tasks that were cloned with CLONE_FILES.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quicksand_abi::Errno;

use super::file::OpenFile;
use crate::sync::{Level, Mutex};
use crate::syscalls::Fd;

bitflags::bitflags! {
    /// Per-descriptor flags.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct FdFlags: u32 {
        const CLOEXEC = 1;
    }
}

/// `sysctl_nr_open`.
const MAX_FDS: u64 = 1 << 20;

#[derive(Clone, Debug)]
struct Slot {
    file: Arc<OpenFile>,
    flags: FdFlags,
}

/// A descriptor table.
#[derive(Debug)]
pub struct FdTable {
    /// Unique in the sandbox, never reused: who owns POSIX locks (`files_struct`).
    pub id: u64,
    slots: Mutex<Slots>,
}

#[derive(Clone, Debug, Default)]
struct Slots {
    all: Vec<Option<Slot>>,
    /// Nothing below is free.
    first_free: usize,
}

impl Slots {
    /// The lowest free descriptor that is at least `min`.
    fn free(&self, min: usize) -> usize {
        let from = min.max(self.first_free);
        (from..self.all.len()).find(|i| self.all[*i].is_none()).unwrap_or(from.max(self.all.len()))
    }
    fn take(&mut self, index: usize) -> Option<Slot> {
        let slot = self.all.get_mut(index)?.take()?;
        self.first_free = self.first_free.min(index);
        Some(slot)
    }
}

/// Closes what a descriptor led to: flushes it and gives up the POSIX locks that the table's owners hold on it. The file
/// itself ends with its last reference.
pub fn close_file(table: u64, file: &Arc<OpenFile>) -> Result<(), Errno> {
    let result = if file.flags().contains(super::OpenFlags::PATH) { Ok(()) } else { file.ops.flush(file) };
    super::locks::release_posix(&file.inode, table);
    result
}

impl Default for FdTable {
    fn default() -> FdTable {
        FdTable::with(Slots::default())
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        let slots = std::mem::take(self.slots.get_mut());
        for slot in slots.all.into_iter().flatten() {
            // Nobody is left to hear of an error.
            let _ = close_file(self.id, &slot.file);
        }
    }
}

impl FdTable {
    fn with(slots: Slots) -> FdTable {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        FdTable { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), slots: Mutex::new(Level::FdTable, slots) }
    }
    /// A copy, as `fork(2)` makes one: the same open files.
    pub fn duplicate(&self) -> FdTable {
        let slots = self.slots.lock().clone();
        FdTable::with(slots)
    }

    /// EMFILE where no descriptor is free below `limit` (asked before a file is opened, as Linux does).
    pub fn check_room(&self, limit: u64) -> Result<(), Errno> {
        let free = self.slots.lock().free(0);
        if free as u64 >= limit.min(MAX_FDS) { Err(Errno::EMFILE) } else { Ok(()) }
    }

    /// The open file behind `fd`, whatever its mode; EBADF where there is none.
    pub fn get(&self, fd: Fd) -> Result<Arc<OpenFile>, Errno> {
        self.get_with_flags(fd).map(|(file, _)| file)
    }

    pub fn get_with_flags(&self, fd: Fd) -> Result<(Arc<OpenFile>, FdFlags), Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        match self.slots.lock().all.get(index) {
            Some(Some(slot)) => Ok((slot.file.clone(), slot.flags)),
            _ => Err(Errno::EBADF),
        }
    }

    /// Installs `file` at the lowest free descriptor that is at least `min`; EMFILE where that is not below `limit`
    /// (RLIMIT_NOFILE).
    pub fn install(&self, file: Arc<OpenFile>, flags: FdFlags, min: i32, limit: u64) -> Result<Fd, Errno> {
        let min = usize::try_from(min).map_err(|_| Errno::EINVAL)?;
        let mut slots = self.slots.lock();
        let free = slots.free(min);
        if free as u64 >= limit.min(MAX_FDS) {
            return Err(Errno::EMFILE);
        }
        if slots.all.len() <= free {
            slots.all.resize(free + 1, None);
        }
        slots.all[free] = Some(Slot { file, flags });
        if min <= slots.first_free {
            slots.first_free = free + 1;
        }
        Ok(Fd(free as i32))
    }

    /// Installs `file` at exactly `fd`; returns the file that was there. EBADF where `fd` is not below `limit`.
    pub fn install_at(
        &self,
        fd: Fd,
        file: Arc<OpenFile>,
        flags: FdFlags,
        limit: u64,
    ) -> Result<Option<Arc<OpenFile>>, Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        if index as u64 >= limit.min(MAX_FDS) {
            return Err(Errno::EBADF);
        }
        let mut slots = self.slots.lock();
        if slots.all.len() <= index {
            slots.all.resize(index + 1, None);
        }
        Ok(slots.all[index].replace(Slot { file, flags }).map(|s| s.file))
    }

    /// Takes the file out; the caller flushes and drops it.
    pub fn remove(&self, fd: Fd) -> Result<Arc<OpenFile>, Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        let slot = self.slots.lock().take(index);
        slot.map(|s| s.file).ok_or(Errno::EBADF)
    }

    pub fn set_flags(&self, fd: Fd, flags: FdFlags) -> Result<(), Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        match self.slots.lock().all.get_mut(index) {
            Some(Some(slot)) => {
                slot.flags = flags;
                Ok(())
            }
            _ => Err(Errno::EBADF),
        }
    }

    /// Takes out every file that `pick` picks (`execve`'s close-on-exec, `close_range`, exit).
    pub fn remove_where(&self, mut pick: impl FnMut(Fd, FdFlags) -> bool) -> Vec<Arc<OpenFile>> {
        let mut slots = self.slots.lock();
        let mut out = Vec::new();
        for i in 0..slots.all.len() {
            if slots.all[i].as_ref().is_some_and(|slot| pick(Fd(i as i32), slot.flags))
                && let Some(slot) = slots.take(i)
            {
                out.push(slot.file);
            }
        }
        out
    }

    /// How many descriptors the table has room for before it grows, as `select(2)` can tell.
    pub fn capacity(&self) -> usize {
        self.slots.lock().all.len().max(64).next_power_of_two()
    }

    /// Sets close-on-exec on every descriptor in the range.
    pub fn set_cloexec_range(&self, first: usize, last: usize) {
        let mut slots = self.slots.lock();
        let end = last.saturating_add(1).min(slots.all.len());
        for slot in slots.all.get_mut(first..end).unwrap_or_default().iter_mut().flatten() {
            slot.flags |= FdFlags::CLOEXEC;
        }
    }

    /// All open descriptors, in order.
    pub fn open_fds(&self) -> Vec<(Fd, Arc<OpenFile>, FdFlags)> {
        let slots = self.slots.lock();
        let all = slots.all.iter().enumerate();
        all.filter_map(|(i, s)| s.as_ref().map(|s| (Fd(i as i32), s.file.clone(), s.flags))).collect()
    }
}
