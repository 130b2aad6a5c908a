//! Descriptor tables: small numbers to open files. Shared by tasks that were cloned with CLONE_FILES.

use std::sync::Arc;

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

#[derive(Clone, Debug)]
struct Slot {
    file: Arc<OpenFile>,
    flags: FdFlags,
}

/// A descriptor table.
#[derive(Debug)]
pub struct FdTable {
    slots: Mutex<Vec<Option<Slot>>>,
}

impl Default for FdTable {
    fn default() -> FdTable {
        FdTable { slots: Mutex::new(Level::FdTable, Vec::new()) }
    }
}

impl FdTable {
    /// A copy, as `fork(2)` makes one: the same open files.
    pub fn duplicate(&self) -> FdTable {
        FdTable { slots: Mutex::new(Level::FdTable, self.slots.lock().clone()) }
    }

    /// The open file behind `fd`, whatever its mode; EBADF where there is none.
    pub fn get(&self, fd: Fd) -> Result<Arc<OpenFile>, Errno> {
        self.get_with_flags(fd).map(|(file, _)| file)
    }

    pub fn get_with_flags(&self, fd: Fd) -> Result<(Arc<OpenFile>, FdFlags), Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        match self.slots.lock().get(index) {
            Some(Some(slot)) => Ok((slot.file.clone(), slot.flags)),
            _ => Err(Errno::EBADF),
        }
    }

    /// Installs `file` at the lowest free descriptor that is at least `min`; EMFILE where that is not below `limit`
    /// (RLIMIT_NOFILE).
    pub fn install(&self, file: Arc<OpenFile>, flags: FdFlags, min: i32, limit: u64) -> Result<Fd, Errno> {
        let min = usize::try_from(min).map_err(|_| Errno::EINVAL)?;
        let mut slots = self.slots.lock();
        let free = (min..slots.len()).find(|i| slots[*i].is_none()).unwrap_or(min.max(slots.len()));
        if free as u64 >= limit.min(1 << 20) {
            return Err(Errno::EMFILE);
        }
        if slots.len() <= free {
            slots.resize(free + 1, None);
        }
        slots[free] = Some(Slot { file, flags });
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
        if index as u64 >= limit.min(1 << 20) {
            return Err(Errno::EBADF);
        }
        let mut slots = self.slots.lock();
        if slots.len() <= index {
            slots.resize(index + 1, None);
        }
        Ok(slots[index].replace(Slot { file, flags }).map(|s| s.file))
    }

    /// Takes the file out; the caller flushes and drops it.
    pub fn remove(&self, fd: Fd) -> Result<Arc<OpenFile>, Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        let slot = self.slots.lock().get_mut(index).and_then(Option::take);
        slot.map(|s| s.file).ok_or(Errno::EBADF)
    }

    pub fn set_flags(&self, fd: Fd, flags: FdFlags) -> Result<(), Errno> {
        let index = usize::try_from(fd.0).map_err(|_| Errno::EBADF)?;
        match self.slots.lock().get_mut(index) {
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
        for (i, entry) in slots.iter_mut().enumerate() {
            if let Some(slot) = entry
                && pick(Fd(i as i32), slot.flags)
                && let Some(slot) = entry.take()
            {
                out.push(slot.file);
            }
        }
        out
    }

    /// How many descriptors the table has room for before it grows, as `select(2)` can tell.
    pub fn capacity(&self) -> usize {
        self.slots.lock().len().max(64).next_power_of_two()
    }

    /// All open descriptors, in order.
    pub fn open_fds(&self) -> Vec<(Fd, Arc<OpenFile>, FdFlags)> {
        let slots = self.slots.lock();
        let all = slots.iter().enumerate();
        all.filter_map(|(i, s)| s.as_ref().map(|s| (Fd(i as i32), s.file.clone(), s.flags))).collect()
    }
}
