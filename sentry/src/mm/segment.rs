//! Attaching System V shared memory to an address space. The segments themselves are in [`crate::ipc::shm`].

use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr, UserRange};
use quicksand_platform::Prot;

use super::map::{MapRequest, Target};
use super::vma::{SharedMemory, VmFlags, VmaBacking};
use super::{Limits, MemoryManager};

/// The memory of a new segment of at least `size` bytes.
pub(crate) fn new(size: u64, key: i32, noreserve: bool) -> Result<Arc<SharedMemory>, Errno> {
    let flags = if noreserve { libc::MAP_NORESERVE as u32 } else { 0 };
    super::syscalls::shared_memory(size, flags, Some(key))
}

/// How a segment is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attach {
    /// `None` for wherever there is room.
    pub at: Option<UserAddr>,
    /// In place of what is there; else nothing may be.
    pub remap: bool,
    pub write: bool,
    pub execute: bool,
}

/// Attaches a segment of `size` bytes. Returns where.
pub(crate) fn attach(
    mm: &MemoryManager,
    limits: &Limits,
    memory: Arc<SharedMemory>,
    size: u64,
    how: Attach,
) -> Result<UserAddr, Errno> {
    let len = UserAddr(size).page_ceil().ok_or(Errno::ENOMEM)?.0;
    let fixed = if how.at.is_some() { libc::MAP_FIXED } else { 0 };
    let request = MapRequest {
        addr: how.at.unwrap_or(UserAddr::NULL),
        len,
        prot: Prot { read: true, write: how.write, execute: how.execute },
        flags: (libc::MAP_SHARED | libc::MAP_ANONYMOUS | fixed) as u32,
        vm_flags: VmFlags::empty(),
        target: Target::SharedAnonymous(memory),
    };
    let mut inner = mm.write();
    if let Some(at) = how.at
        && !how.remap
    {
        let range = UserRange::new(at, len).ok_or(Errno::EINVAL)?;
        if inner.tree.overlapping(range).next().is_some() {
            return Err(Errno::EINVAL);
        }
    }
    let start = inner.map(limits, request)?;
    if !how.write {
        let range = UserRange::new(start, len).ok_or(Errno::EINVAL)?;
        inner.tree.update(range, |vma| vma.max_prot.write = false);
    }
    Ok(start)
}

/// Detaches the segment that was attached at `addr`: what is left of it there. EINVAL where none is.
pub(crate) fn detach(mm: &MemoryManager, addr: UserAddr) -> Result<(), Errno> {
    if !addr.is_page_aligned() {
        return Err(Errno::EINVAL);
    }
    let mut inner = mm.write();
    let mut of: Option<u64> = None;
    let mut parts = Vec::new();
    let end = UserRange { start: addr, end: UserAddr::TASK_SIZE };
    for vma in inner.tree.overlapping(end) {
        let VmaBacking::SharedAnon { memory, offset } = &vma.backing else { continue };
        let begins_here = vma.start().0.checked_sub(*offset) == Some(addr.0);
        if memory.key.is_some() && begins_here && *of.get_or_insert(memory.id) == memory.id {
            if vma.flags.contains(VmFlags::SEALED) {
                return Err(Errno::EPERM);
            }
            parts.push(vma.range);
        }
    }
    if parts.is_empty() {
        return Err(Errno::EINVAL);
    }
    for part in parts {
        inner.unmap_range(part)?;
    }
    Ok(())
}
