//! The calls of `epoll(7)`.

use std::sync::Arc;

use quicksand_abi::poll::{
    EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLET, EPOLLEXCLUSIVE, EPOLLWAKEUP,
    EpollEvent,
};
use quicksand_abi::{Errno, Timespec, UserAddr};

use super::Epoll;
use crate::fs::poll::{TemporaryMask, Timeout, read_mask};
use crate::sync::Events;
use crate::syscalls::{Blocked, Fd, OnSignal, SyscallResult};
use crate::task::CurrentTask;
use crate::vfs::{FdFlags, OpenFile, OpenFlags};

/// `EPOLLEXCLUSIVE_OK_BITS` without the private ones.
const EXCLUSIVE_EVENTS: u32 = Events::IN.union(Events::OUT).union(Events::ERR).union(Events::HUP).bits();

/// `epoll_create(2)`: the size must be positive and means nothing.
pub fn sys_epoll_create(task: &CurrentTask, size: i32) -> SyscallResult {
    if size <= 0 {
        return Err(Errno::EINVAL.into());
    }
    sys_epoll_create1(task, 0)
}

/// `epoll_create1(2)`
pub fn sys_epoll_create1(task: &CurrentTask, flags: u32) -> SyscallResult {
    if flags & !EPOLL_CLOEXEC != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = task.kernel().anon.file("eventpoll", Box::new(Epoll::default()), OpenFlags::RDWR);
    let fd_flags = if flags & EPOLL_CLOEXEC != 0 { FdFlags::CLOEXEC } else { FdFlags::empty() };
    Ok(task.install_fd(file, fd_flags)?.0 as usize)
}

/// `epoll_ctl(2)`
pub fn sys_epoll_ctl(task: &CurrentTask, epfd: Fd, op: i32, fd: Fd, event: UserAddr) -> SyscallResult {
    let mut event: EpollEvent =
        if op == EPOLL_CTL_DEL { EpollEvent::default() } else { task.read_object(event)? };
    let own = task.file(epfd)?;
    let file = task.file(fd)?;
    if file.wait_queue().is_none() {
        return Err(Errno::EPERM.into());
    }
    // Sandboxes do not suspend: as without CAP_BLOCK_SUSPEND, the flag is dropped.
    event.events &= !EPOLLWAKEUP;
    let epoll = own.ops_as::<Epoll>().ok_or(Errno::EINVAL)?;
    if Arc::ptr_eq(&own, &file) {
        return Err(Errno::EINVAL.into());
    }
    if op != EPOLL_CTL_DEL && event.events & EPOLLEXCLUSIVE != 0 {
        let known = EXCLUSIVE_EVENTS | EPOLLET | EPOLLEXCLUSIVE;
        let nested = file.ops_as::<Epoll>().is_some();
        if op == EPOLL_CTL_MOD || (op == EPOLL_CTL_ADD && (nested || event.events & !known != 0)) {
            return Err(Errno::EINVAL.into());
        }
    }
    match op {
        EPOLL_CTL_ADD => epoll.add(&own, task, fd.0, &file, event)?,
        EPOLL_CTL_MOD => epoll.modify(task, fd.0, &file, event)?,
        EPOLL_CTL_DEL => epoll.remove(&own, fd.0, &file)?,
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// `epoll_wait(2)`
pub fn sys_epoll_wait(
    task: &CurrentTask,
    epfd: Fd,
    events: UserAddr,
    max: i32,
    timeout_ms: i32,
) -> SyscallResult {
    sys_epoll_pwait(task, epfd, events, max, timeout_ms, UserAddr::NULL, 0)
}

/// `epoll_pwait(2)`
pub fn sys_epoll_pwait(
    task: &CurrentTask,
    epfd: Fd,
    events: UserAddr,
    max: i32,
    timeout_ms: i32,
    mask: UserAddr,
    mask_size: u64,
) -> SyscallResult {
    let (timeout, resumed) = Timeout::resumed(task, || {
        if timeout_ms < 0 {
            return Ok(Timeout::Never);
        }
        Ok(Timeout::after_ns(task, i64::from(timeout_ms) * 1_000_000))
    })?;
    let mask = if resumed { None } else { read_mask(task, mask, mask_size)? };
    wait(task, epfd, events, max, timeout, mask)
}

/// `epoll_pwait2(2)`
pub fn sys_epoll_pwait2(
    task: &CurrentTask,
    epfd: Fd,
    events: UserAddr,
    max: i32,
    timeout: UserAddr,
    mask: UserAddr,
    mask_size: u64,
) -> SyscallResult {
    let (timeout, resumed) = Timeout::resumed(task, || {
        if timeout.is_null() {
            return Ok(Timeout::Never);
        }
        let time: Timespec = task.read_object(timeout)?;
        if !time.is_valid() {
            return Err(Errno::EINVAL);
        }
        Ok(Timeout::after_ns(task, time.to_ns()))
    })?;
    let mask = if resumed { None } else { read_mask(task, mask, mask_size)? };
    wait(task, epfd, events, max, timeout, mask)
}

fn wait(
    task: &CurrentTask,
    epfd: Fd,
    events: UserAddr,
    max: i32,
    timeout: Timeout,
    mask: Option<u64>,
) -> SyscallResult {
    let found = try_wait(task, epfd, events, max);
    if let Ok((0, file)) = &found
        && !timeout.is_over(task)
        && let Some(queue) = file.wait_queue()
    {
        let resume = TemporaryMask::enter(task, mask, timeout.deadline());
        let blocked = Blocked::on(queue, Events::READABLE).deadline(timeout.deadline());
        return Err(blocked.resume(resume).on_signal(OnSignal::Interrupt).into());
    }
    Ok(found?.0)
}

fn try_wait(
    task: &CurrentTask,
    epfd: Fd,
    events: UserAddr,
    max: i32,
) -> Result<(usize, Arc<OpenFile>), Errno> {
    const SIZE: usize = size_of::<EpollEvent>();
    let max = usize::try_from(max).ok().filter(|m| *m > 0 && *m <= i32::MAX as usize / SIZE);
    let max = max.ok_or(Errno::EINVAL)?;
    let file = task.file(epfd)?;
    let epoll = file.ops_as::<Epoll>().ok_or(Errno::EINVAL)?;
    let count = epoll.collect(task, max, |i, event| {
        let at = events.checked_add((i * SIZE) as u64).ok_or(Errno::EFAULT)?;
        task.write_object(at, &event)
    })?;
    Ok((count, file))
}
