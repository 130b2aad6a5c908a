//! Memory of other processes: `process_vm_readv(2)`, `process_vm_writev(2)`, `process_madvise(2)`.

use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr};

use super::MemoryManager;
use super::advise::MADV_COLLAPSE;
use crate::syscalls::{Fd, SyscallResult};
use crate::task::credentials::Caps;
use crate::task::{CurrentTask, Task};
use crate::vfs::io::IoRange;
use crate::vfs::syscalls_rw::read_iovecs;

/// What is copied at once.
const CHUNK: usize = 64 << 10;

/// Whether `task` may look into `target` as a debugger would (PTRACE_MODE_ATTACH_REALCREDS).
pub fn may_attach(task: &CurrentTask, target: &Task) -> bool {
    if Arc::ptr_eq(task.group(), target.group()) {
        return true;
    }
    let (own, other) = (task.creds(), target.creds());
    if own.has(Caps::SYS_PTRACE) {
        return true;
    }
    let same_user = [other.ruid, other.euid, other.suid].iter().all(|id| *id == own.ruid);
    let same_group = [other.rgid, other.egid, other.sgid].iter().all(|id| *id == own.rgid);
    let dumpable = target.group().state.lock().dumpable == 1;
    same_user && same_group && dumpable && own.permitted.contains(other.permitted)
}

/// `process_vm_readv(2)`.
pub fn sys_process_vm_readv(
    task: &CurrentTask,
    pid: i32,
    local: UserAddr,
    local_count: usize,
    remote: UserAddr,
    remote_count: usize,
    flags: u64,
) -> SyscallResult {
    transfer(task, pid, (local, local_count), (remote, remote_count), flags, false)
}

/// `process_vm_writev(2)`.
pub fn sys_process_vm_writev(
    task: &CurrentTask,
    pid: i32,
    local: UserAddr,
    local_count: usize,
    remote: UserAddr,
    remote_count: usize,
    flags: u64,
) -> SyscallResult {
    transfer(task, pid, (local, local_count), (remote, remote_count), flags, true)
}

fn transfer(
    task: &CurrentTask,
    pid: i32,
    local: (UserAddr, usize),
    remote: (UserAddr, usize),
    flags: u64,
    write: bool,
) -> SyscallResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let local = read_iovecs(task, local.0, local.1)?;
    if local.iter().all(|(_, len)| *len == 0) {
        return Ok(0);
    }
    let remote = read_iovecs(task, remote.0, remote.1)?;
    if remote.iter().all(|(_, len)| *len == 0) {
        return Ok(0);
    }
    let target = task.pids().task(pid).ok_or(Errno::ESRCH)?;
    let other = target.mm_opt().ok_or(Errno::ESRCH)?;
    if !may_attach(task, &target) {
        return Err(Errno::EPERM.into());
    }
    let own = task.mm();
    let done = if write { copy(&own, &local, &other, &remote) } else { copy(&other, &remote, &own, &local) };
    // What was copied counts, whatever stopped it.
    if done == 0 { Err(Errno::EFAULT.into()) } else { Ok(done) }
}

/// Copies until either side ends or cannot be reached; returns the bytes copied.
fn copy(from: &MemoryManager, sources: &[IoRange], to: &MemoryManager, targets: &[IoRange]) -> usize {
    let (mut sources, mut targets) = (Ranges::new(sources), Ranges::new(targets));
    let mut buffer = Vec::new();
    let mut done = 0;
    while let (Some((source, have)), Some((target, room))) = (sources.next_part(), targets.next_part()) {
        let want = have.min(room).min(CHUNK);
        buffer.resize(want, 0);
        let read = match from.read_bytes(source, &mut buffer) {
            Ok(()) => want,
            Err(fault) => fault.done.min(want),
        };
        let written = match to.write_bytes(target, &buffer[..read]) {
            Ok(()) => read,
            Err(fault) => fault.done.min(read),
        };
        done += written;
        if written < want {
            break;
        }
        sources.advance(written);
        targets.advance(written);
    }
    done
}

/// `process_madvise(2)`: hints about the memory of the process behind a pidfd. Returns the bytes advised.
pub fn sys_process_madvise(
    task: &CurrentTask,
    pidfd: Fd,
    iov: UserAddr,
    count: usize,
    advice: i32,
    flags: u32,
) -> SyscallResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let ranges = read_iovecs(task, iov, count)?;
    let (group, _) = crate::task::pidfd::group_of(task, pidfd)?;
    if !matches!(advice, libc::MADV_COLD | libc::MADV_PAGEOUT | libc::MADV_WILLNEED | MADV_COLLAPSE) {
        return Err(Errno::EINVAL.into());
    }
    let target = group.any_task().ok_or(Errno::ESRCH)?;
    let mm = target.mm_opt().ok_or(Errno::ESRCH)?;
    let own = Arc::ptr_eq(&mm, &task.mm());
    if !own && (!may_attach(task, &target) || !task.creds().has(Caps::SYS_NICE)) {
        return Err(Errno::EPERM.into());
    }
    let mut done = 0;
    for (addr, len) in ranges {
        match mm.advise(addr, len as u64, advice) {
            Ok(()) => done += len,
            Err(e) if done == 0 => return Err(e.into()),
            // What was advised counts.
            Err(_) => break,
        }
    }
    Ok(done)
}

/// A walk along ranges of memory.
#[derive(Debug)]
struct Ranges<'a> {
    ranges: &'a [IoRange],
    /// Bytes of the first range that are behind.
    offset: usize,
}

impl<'a> Ranges<'a> {
    fn new(ranges: &'a [IoRange]) -> Ranges<'a> {
        Ranges { ranges, offset: 0 }
    }
    /// What is left of the current range.
    fn next_part(&mut self) -> Option<IoRange> {
        while let Some((addr, len)) = self.ranges.first() {
            if self.offset < *len {
                return Some((UserAddr(addr.0.wrapping_add(self.offset as u64)), len - self.offset));
            }
            self.ranges = &self.ranges[1..];
            self.offset = 0;
        }
        None
    }
    fn advance(&mut self, bytes: usize) {
        self.offset += bytes;
    }
}
