//! `eventfd(2)`: a counter that can be waited for.
//!
//! Invariant: the counter is at most `u64::MAX - 1`; a write that would pass that waits.

use std::fmt;
use std::sync::Arc;

use quicksand_abi::Errno;
use quicksand_abi::poll::{EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE};

use crate::sync::{Events, Level, Mutex, WaitQueue};
use crate::syscalls::SyscallResult;
use crate::task::CurrentTask;
use crate::vfs::file::SeekFrom;
use crate::vfs::{FdFlags, FileOps, IoDst, IoSrc, OpenFile, OpenFlags};

/// An eventfd.
pub struct EventFd {
    count: Mutex<u64>,
    semaphore: bool,
    /// Shown in fdinfo.
    id: u64,
    queue: Arc<WaitQueue>,
}

/// `eventfd(2)`
pub fn sys_eventfd(task: &CurrentTask, initial: u32) -> SyscallResult {
    sys_eventfd2(task, initial, 0)
}

/// `eventfd2(2)`
pub fn sys_eventfd2(task: &CurrentTask, initial: u32, flags: u32) -> SyscallResult {
    if flags & !(EFD_SEMAPHORE | EFD_CLOEXEC | EFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let ops = EventFd {
        count: Mutex::new(Level::Object, u64::from(initial)),
        semaphore: flags & EFD_SEMAPHORE != 0,
        id: task.kernel().next_id(),
        queue: WaitQueue::new(),
    };
    let nonblock = OpenFlags::from_bits_retain(flags & EFD_NONBLOCK);
    let file = task.kernel().anon.file("eventfd", Box::new(ops), OpenFlags::RDWR | nonblock);
    let fd_flags = if flags & EFD_CLOEXEC != 0 { FdFlags::CLOEXEC } else { FdFlags::empty() };
    Ok(task.install_fd(file, fd_flags)?.0 as usize)
}

impl EventFd {
    /// An eventfd in the state that [`EventFd::state`] told.
    pub fn restored(kernel: &crate::kernel::Kernel, count: u64, semaphore: bool) -> EventFd {
        EventFd {
            count: Mutex::new(Level::Object, count.min(u64::MAX - 1)),
            semaphore,
            id: kernel.next_id(),
            queue: WaitQueue::new(),
        }
    }
    /// The counter, and whether it is a semaphore.
    pub fn state(&self) -> (u64, bool) {
        (*self.count.lock(), self.semaphore)
    }
    fn take(&self) -> Result<u64, Errno> {
        let mut count = self.count.lock();
        if *count == 0 {
            return Err(Errno::EAGAIN);
        }
        let value = if self.semaphore { 1 } else { *count };
        *count -= value;
        Ok(value)
    }
}

impl FileOps for EventFd {
    fn read(&self, _: &OpenFile, _: &CurrentTask, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let value = self.take()?;
        self.queue.notify(Events::WRITABLE);
        // As in Linux, a value that cannot be stored is lost.
        match dst.put(&value.to_ne_bytes()) {
            Ok(8) => Ok(8),
            _ => Err(Errno::EFAULT),
        }
    }

    fn write(&self, _: &OpenFile, _: &CurrentTask, src: &mut IoSrc<'_>, _: u64) -> Result<usize, Errno> {
        if src.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; 8];
        if src.take(&mut bytes)? != 8 {
            return Err(Errno::EFAULT);
        }
        let add = u64::from_ne_bytes(bytes);
        if add == u64::MAX {
            return Err(Errno::EINVAL);
        }
        {
            let mut count = self.count.lock();
            match count.checked_add(add) {
                Some(sum) if sum < u64::MAX => *count = sum,
                _ => {
                    src.unread(8);
                    return Err(Errno::EAGAIN);
                }
            }
        }
        self.queue.notify(Events::READABLE);
        Ok(8)
    }

    fn is_stream(&self) -> bool {
        true
    }

    /// `noop_llseek`
    fn seek(&self, _: &OpenFile, _: SeekFrom) -> Result<u64, Errno> {
        Ok(0)
    }

    fn poll(&self, _: &OpenFile, _: &CurrentTask) -> Events {
        let count = *self.count.lock();
        let mut events = Events::empty();
        // Just IN and OUT: the driver knows no normal band.
        if count > 0 {
            events |= Events::IN;
        }
        if count < u64::MAX - 1 {
            events |= Events::OUT;
        }
        events
    }

    fn wait_queue(&self, _: &OpenFile) -> Option<Arc<WaitQueue>> {
        Some(self.queue.clone())
    }

    fn fdinfo(&self, _: &OpenFile) -> String {
        let count = *self.count.lock();
        let semaphore = u8::from(self.semaphore);
        format!("eventfd-count: {count:16x}\neventfd-id: {}\neventfd-semaphore: {semaphore}\n", self.id)
    }
}

impl fmt::Debug for EventFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventFd")
    }
}
