//! The handlers of `mmap(2)` and its family.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quicksand_abi::{Errno, PAGE_SIZE, UserAddr};
use rustix::fs::MemfdFlags;

use super::map::{FileTarget, MapRequest, Target, host_pages};
use super::tree::prot_from_bits;
use super::vma::{SharedMemory, VmFlags};
use super::{Limits, MemoryManager};
use crate::syscalls::{Fd, SyscallResult};
use crate::task::CurrentTask;
use crate::vfs::{FileKind, MountFlags, OpenFile};

/// The personality bit that makes every readable mapping executable.
pub const READ_IMPLIES_EXEC: u32 = 0x0040_0000;
/// MAP_DROPPABLE, a mapping type of its own.
const MAP_DROPPABLE: u32 = 0x08;
/// The flags that MAP_SHARED_VALIDATE knows (`LEGACY_MAP_MASK`).
const KNOWN_FLAGS: u32 = (libc::MAP_TYPE
    | libc::MAP_FIXED
    | libc::MAP_ANONYMOUS
    | libc::MAP_DENYWRITE
    | libc::MAP_EXECUTABLE
    | libc::MAP_GROWSDOWN
    | libc::MAP_LOCKED
    | libc::MAP_NORESERVE
    | libc::MAP_POPULATE
    | libc::MAP_NONBLOCK
    | libc::MAP_STACK
    | libc::MAP_HUGETLB
    | libc::MAP_32BIT) as u32
    | 0x80; // MAP_ABOVE4G

pub fn sys_mmap(
    task: &CurrentTask,
    addr: UserAddr,
    len: u64,
    prot_bits: u32,
    flags: u32,
    fd: Fd,
    offset: u64,
) -> SyscallResult {
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL.into());
    }
    let anonymous = flags & libc::MAP_ANONYMOUS as u32 != 0;
    let huge = flags & libc::MAP_HUGETLB as u32 != 0;
    let file = if anonymous { None } else { Some(task.file(fd)?) };
    if huge {
        if !anonymous {
            return Err(Errno::EINVAL.into());
        }
        // A machine without reserved huge pages answers just this.
        task.kernel().log_once(0x1_0000_0001, || "MAP_HUGETLB: no huge pages are reserved; ENOMEM".into());
        return Err(Errno::ENOMEM.into());
    }
    if len == 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut prot = prot_from_bits(prot_bits);
    if prot.read && read_implies_exec(task) {
        prot.execute = file.as_ref().is_none_or(|f| prot.execute || !is_noexec(f));
    }
    let mut vm_flags = VmFlags::empty();
    let kind = flags & libc::MAP_TYPE as u32;
    let target = match (file, kind as i32) {
        (Some(file), _) => Target::File(prepare_file(file, len, prot, flags, offset)),
        (None, libc::MAP_PRIVATE) => Target::Anonymous,
        (None, _) if kind == MAP_DROPPABLE => {
            vm_flags |= VmFlags::NORESERVE | VmFlags::WIPEONFORK | VmFlags::DONTDUMP;
            Target::Anonymous
        }
        (None, libc::MAP_SHARED) => match shared_memory(len, flags) {
            Ok(memory) => Target::SharedAnonymous(memory),
            Err(error) => Target::File(Err(error)),
        },
        // Looked at after the address, like every file error.
        (None, _) => Target::File(Err(Errno::EINVAL)),
    };
    let request = MapRequest { addr, len, prot, flags, vm_flags, target };
    let start = task.mm().map(&Limits::of(task), request)?;
    Ok(start.0 as usize)
}

fn read_implies_exec(task: &CurrentTask) -> bool {
    task.state.lock().personality & READ_IMPLIES_EXEC != 0
}

fn is_noexec(file: &OpenFile) -> bool {
    file.path.mount.flags().contains(MountFlags::NOEXEC)
}

/// What `do_mmap` checks of a file, in its order, and the file system's own preparation.
fn prepare_file(
    file: Arc<OpenFile>,
    len: u64,
    prot: quicksand_platform::Prot,
    flags: u32,
    offset: u64,
) -> Result<FileTarget, Errno> {
    let len = UserAddr(len).page_ceil().ok_or(Errno::ENOMEM)?.0;
    let end = offset.checked_add(len).ok_or(Errno::EOVERFLOW)?;
    if matches!(file.inode.kind, FileKind::Regular | FileKind::BlockDevice) && end > i64::MAX as u64 {
        return Err(Errno::EOVERFLOW);
    }
    let open = file.flags();
    let shared = match (flags & libc::MAP_TYPE as u32) as i32 {
        libc::MAP_PRIVATE => false,
        libc::MAP_SHARED => true,
        libc::MAP_SHARED_VALIDATE if flags & !KNOWN_FLAGS != 0 => return Err(Errno::EOPNOTSUPP),
        libc::MAP_SHARED_VALIDATE => true,
        _ => return Err(Errno::EINVAL),
    };
    if shared && prot.write && !open.can_write() {
        return Err(Errno::EACCES);
    }
    if !open.can_read() {
        return Err(Errno::EACCES);
    }
    let noexec = is_noexec(&file);
    if noexec && prot.execute {
        return Err(Errno::EPERM);
    }
    let host = file.ops.mmap(&file, offset, len, shared)?;
    if flags & libc::MAP_GROWSDOWN as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let may_write = !shared || open.can_write() && host.writable;
    if shared && prot.write && !may_write {
        // Sealed against writing.
        return Err(Errno::EPERM);
    }
    Ok(FileTarget { file, offset, host, may_execute: !noexec, may_write })
}

/// New shared memory of at least `len` bytes.
fn shared_memory(len: u64, flags: u32) -> Result<Arc<SharedMemory>, Errno> {
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);
    if flags & libc::MAP_GROWSDOWN as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let len = UserAddr(len).page_ceil().filter(|l| l.0 <= UserAddr::TASK_SIZE.0).ok_or(Errno::ENOMEM)?.0;
    if flags & libc::MAP_NORESERVE as u32 == 0 && len / PAGE_SIZE > host_pages() {
        return Err(Errno::ENOMEM);
    }
    let fd = rustix::fs::memfd_create("shared", MemfdFlags::CLOEXEC).map_err(host_error)?;
    rustix::fs::ftruncate(&fd, len).map_err(host_error)?;
    Ok(Arc::new(SharedMemory { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), fd: Arc::new(fd) }))
}

/// What the guest sees when the host runs out of descriptors or memory.
pub(super) fn host_error(error: rustix::io::Errno) -> Errno {
    tracing::warn!("shared memory: {error}");
    Errno::ENOMEM
}

pub fn sys_munmap(task: &CurrentTask, addr: UserAddr, len: u64) -> SyscallResult {
    task.mm().unmap(addr, len)?;
    Ok(0)
}

pub fn sys_mprotect(task: &CurrentTask, addr: UserAddr, len: u64, prot: u32) -> SyscallResult {
    task.mm().protect(&Limits::of(task), addr, len, prot, read_implies_exec(task))?;
    Ok(0)
}

pub fn sys_brk(task: &CurrentTask, addr: UserAddr) -> SyscallResult {
    let mm: Arc<MemoryManager> = task.mm();
    if addr.is_null() {
        return Ok(mm.read().marks.brk.0 as usize);
    }
    Ok(mm.set_brk(&Limits::of(task), addr).0 as usize)
}
