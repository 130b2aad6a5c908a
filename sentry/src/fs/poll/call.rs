//! `poll(2)` and `ppoll(2)`.

use quicksand_abi::poll::PollFd;
use quicksand_abi::{Errno, Timespec, UserAddr};

use super::{TemporaryMask, Timeout, WriteBack, read_mask, wait_or_interrupted};
use crate::sync::Events;
use crate::syscalls::{Blocked, Fd, OnSignal, Resume, SyscallResult};
use crate::task::{CurrentTask, Resource};

/// `poll(2)`
pub fn sys_poll(task: &CurrentTask, fds: UserAddr, count: u32, timeout_ms: i32) -> SyscallResult {
    let (timeout, _) = Timeout::resumed(task, || {
        if timeout_ms < 0 {
            return Ok(Timeout::Never);
        }
        Ok(Timeout::after_ns(task, i64::from(timeout_ms) * 1_000_000))
    })?;
    match poll_once(task, fds, count, timeout)? {
        Polled::Done(ready) => Ok(ready),
        Polled::Waits(blocked) => {
            let resume = Resume::Deadline(timeout.deadline());
            Err(blocked.resume(resume).on_signal(OnSignal::RestartBlock).into())
        }
    }
}

/// `ppoll(2)`
pub fn sys_ppoll(
    task: &CurrentTask,
    fds: UserAddr,
    count: u32,
    timeout: UserAddr,
    mask: UserAddr,
    mask_size: u64,
) -> SyscallResult {
    let write_back = WriteBack::Timespec(timeout);
    let (timeout, resumed) = Timeout::resumed(task, || read_timeout(task, timeout))?;
    let mask = if resumed { None } else { read_mask(task, mask, mask_size)? };
    let polled = poll_once(task, fds, count, timeout);
    match polled {
        Ok(Polled::Waits(blocked)) => {
            let resume = TemporaryMask::enter(task, mask, timeout.deadline());
            Err(wait_or_interrupted(task, blocked.resume(resume), timeout, write_back))
        }
        Ok(Polled::Done(ready)) => {
            write_back.finish(task, timeout);
            Ok(ready)
        }
        Err(e) => {
            write_back.finish(task, timeout);
            Err(e.into())
        }
    }
}

/// A timeout argument of `ppoll` and `pselect6`: none, or a valid time.
pub(super) fn read_timeout(task: &CurrentTask, addr: UserAddr) -> Result<Timeout, Errno> {
    if addr.is_null() {
        return Ok(Timeout::Never);
    }
    let time: Timespec = task.read_object(addr)?;
    if !time.is_valid() {
        return Err(Errno::EINVAL);
    }
    Ok(Timeout::after_ns(task, time.to_ns()))
}

enum Polled {
    Done(usize),
    Waits(Blocked),
}

/// One look at all descriptors. Writes `revents` where it is done.
fn poll_once(task: &CurrentTask, addr: UserAddr, count: u32, timeout: Timeout) -> Result<Polled, Errno> {
    if u64::from(count) > task.group().rlimit(Resource::Nofile).soft.min(1 << 20) {
        return Err(Errno::EINVAL);
    }
    let mut fds: Vec<PollFd> = task.read_array(addr, count as usize)?;
    let mut ready = 0;
    let mut on = Vec::new();
    for entry in &mut fds {
        entry.revents = 0;
        if entry.fd < 0 {
            continue;
        }
        let wanted = Events::from_bits_retain(u32::from(entry.events as u16)) | Events::ERR | Events::HUP;
        let found = match task.file(Fd(entry.fd)) {
            Ok(file) => {
                let found = file.poll(task) & wanted;
                if found.is_empty()
                    && ready == 0
                    && let Some(queue) = file.wait_queue()
                {
                    on.push((queue, wanted));
                }
                found
            }
            Err(_) => Events::NVAL,
        };
        entry.revents = found.bits() as i16;
        ready += usize::from(!found.is_empty());
    }
    if ready == 0 && !timeout.is_over(task) {
        return Ok(Polled::Waits(Blocked { on, ..Blocked::until(timeout.deadline()) }));
    }
    // Only `revents` is written: another thread may be changing the rest.
    for (i, entry) in fds.iter().enumerate() {
        let at = addr.checked_add(i as u64 * 8 + 6).ok_or(Errno::EFAULT)?;
        task.write_object(at, &entry.revents)?;
    }
    Ok(Polled::Done(ready))
}
