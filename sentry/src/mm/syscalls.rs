//! The handlers of `mmap(2)` and its family.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quicksand_abi::{Errno, PAGE_SIZE, UserAddr, UserRange};
use rustix::fs::MemfdFlags;

use super::map::{FileTarget, MapRequest, Target, host_pages};
use super::tree::prot_from_bits;
use super::vma::{SharedMemory, VmFlags};
use super::{Limits, MemoryManager, RemapRequest};
use crate::fs::tmpfs::memfd::Sealing;
use crate::syscalls::{Fd, SyscallResult};
use crate::task::CurrentTask;
use crate::vfs::{FdFlags, FileKind, MountFlags, OpenFile};

/// The personality bit that makes every readable mapping executable.
pub const READ_IMPLIES_EXEC: u32 = 0x0040_0000;
/// MAP_DROPPABLE, a mapping type of its own.
const MAP_DROPPABLE: u32 = 0x08;
const MADV_GUARD_INSTALL: i32 = 102;
const MADV_GUARD_REMOVE: i32 = 103;
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
        (None, libc::MAP_SHARED) => match shared_memory(len, flags, None) {
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

/// New shared memory of at least `len` bytes; `key` of a System V segment.
pub(crate) fn shared_memory(len: u64, flags: u32, key: Option<i32>) -> Result<Arc<SharedMemory>, Errno> {
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
    Ok(Arc::new(SharedMemory { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), key, fd: Arc::new(fd) }))
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

pub fn sys_mremap(
    task: &CurrentTask,
    addr: UserAddr,
    old_len: u64,
    new_len: u64,
    flags: u32,
    new_addr: UserAddr,
) -> SyscallResult {
    let request = RemapRequest { addr, old_len, new_len, flags, new_addr };
    Ok(task.mm().remap(&Limits::of(task), request)?.0 as usize)
}

pub fn sys_madvise(task: &CurrentTask, addr: UserAddr, len: u64, advice: i32) -> SyscallResult {
    if matches!(advice, MADV_GUARD_INSTALL | MADV_GUARD_REMOVE) {
        task.kernel().log_once(0x1_0000_0002, || "madvise: guard pages are not supported; EINVAL".into());
    }
    task.mm().advise(addr, len, advice)?;
    Ok(0)
}

pub fn sys_msync(task: &CurrentTask, addr: UserAddr, len: u64, flags: i32) -> SyscallResult {
    task.mm().sync(addr, len, flags)?;
    Ok(0)
}

pub fn sys_mincore(task: &CurrentTask, addr: UserAddr, len: u64, vec: UserAddr) -> SyscallResult {
    const CHUNK: u64 = 4096;
    if !addr.is_page_aligned() {
        return Err(Errno::EINVAL.into());
    }
    let end = addr.checked_add(len).filter(|e| *e <= UserAddr::TASK_SIZE).ok_or(Errno::ENOMEM)?;
    let end = end.page_ceil().ok_or(Errno::ENOMEM)?;
    let pages = (end.0 - addr.0) / PAGE_SIZE;
    vec.checked_add(pages).filter(|e| *e <= UserAddr::TASK_SIZE).ok_or(Errno::EFAULT)?;
    let mm = task.mm();
    let mut done = 0;
    while done < pages {
        let count = CHUNK.min(pages - done);
        let start = UserAddr(addr.0 + done * PAGE_SIZE);
        let range = UserRange::new(start, count * PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        let mut resident = vec![false; count as usize];
        mm.resident(range, &mut resident)?;
        let bytes: Vec<u8> = resident.into_iter().map(u8::from).collect();
        mm.write_bytes(UserAddr(vec.0 + done), &bytes)?;
        done += count;
    }
    Ok(0)
}

pub fn sys_mlock(task: &CurrentTask, addr: UserAddr, len: u64) -> SyscallResult {
    task.mm().lock_range(&Limits::of(task), addr, len, false)?;
    Ok(0)
}

pub fn sys_mlock2(task: &CurrentTask, addr: UserAddr, len: u64, flags: i32) -> SyscallResult {
    if flags & !libc::MLOCK_ONFAULT as i32 != 0 {
        return Err(Errno::EINVAL.into());
    }
    task.mm().lock_range(&Limits::of(task), addr, len, flags != 0)?;
    Ok(0)
}

pub fn sys_munlock(task: &CurrentTask, addr: UserAddr, len: u64) -> SyscallResult {
    task.mm().unlock_range(addr, len)?;
    Ok(0)
}

pub fn sys_mlockall(task: &CurrentTask, flags: i32) -> SyscallResult {
    task.mm().lock_all(&Limits::of(task), flags)?;
    Ok(0)
}

pub fn sys_munlockall(task: &CurrentTask) -> SyscallResult {
    task.mm().unlock_all();
    Ok(0)
}

pub fn sys_mseal(task: &CurrentTask, addr: UserAddr, len: u64, flags: u64) -> SyscallResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    task.mm().seal(addr, len)?;
    Ok(0)
}

/// Protection keys as on a processor without them: only "no key" is accepted.
pub fn sys_pkey_mprotect(task: &CurrentTask, addr: UserAddr, len: u64, prot: u32, key: i32) -> SyscallResult {
    if key != -1 && key != 0 {
        return Err(Errno::EINVAL.into());
    }
    sys_mprotect(task, addr, len, prot)
}

pub fn sys_pkey_alloc(_task: &CurrentTask, _flags: u64, _rights: u64) -> SyscallResult {
    Err(Errno::EINVAL.into())
}

pub fn sys_pkey_free(_task: &CurrentTask, _key: i32) -> SyscallResult {
    Err(Errno::EINVAL.into())
}

pub fn sys_memfd_create(task: &CurrentTask, name: UserAddr, flags: u32) -> SyscallResult {
    /// The longest name: a file name less `memfd:`.
    const NAME_MAX: usize = 249;
    const KNOWN: u32 = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | libc::MFD_NOEXEC_SEAL | libc::MFD_EXEC;
    if flags & libc::MFD_HUGETLB != 0 {
        task.kernel().log_once(0x1_0000_0003, || "memfd_create: MFD_HUGETLB is not supported; ENOSYS".into());
        return Err(Errno::ENOSYS.into());
    }
    let noexec = flags & libc::MFD_NOEXEC_SEAL != 0;
    if flags & !KNOWN != 0 || noexec && flags & libc::MFD_EXEC != 0 {
        return Err(Errno::EINVAL.into());
    }
    let name = task.read_cstring(name, NAME_MAX).map_err(|error| match error {
        Errno::ENAMETOOLONG => Errno::EINVAL,
        other => other,
    })?;
    let sealing = Sealing { allowed: flags & libc::MFD_ALLOW_SEALING != 0, noexec };
    let creds = task.creds();
    let file = crate::fs::tmpfs::memfd::create(&name, sealing, creds.fsuid, creds.fsgid)?;
    let fd_flags = if flags & libc::MFD_CLOEXEC != 0 { FdFlags::CLOEXEC } else { FdFlags::empty() };
    Ok(task.install_fd(file, fd_flags)?.0 as usize)
}
