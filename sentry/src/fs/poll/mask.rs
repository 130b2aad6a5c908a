//! The temporary signal mask of `ppoll`, `pselect6` and `epoll_pwait`.

use quicksand_abi::{Errno, UserAddr};

use crate::signal::SignalSet;
use crate::syscalls::Resume;
use crate::task::CurrentTask;
use crate::time::Monotonic;

/// Reads a mask argument: none at address zero; EINVAL for any size but that of the kernel's `sigset_t`.
pub fn read_mask(task: &CurrentTask, addr: UserAddr, size: u64) -> Result<Option<u64>, Errno> {
    if addr.is_null() {
        return Ok(None);
    }
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    Ok(Some(task.read_object(addr)?))
}

/// A task that waits under another mask than its own.
#[derive(Debug)]
pub struct TemporaryMask;

impl TemporaryMask {
    /// Called when the call has to wait: puts `mask` in place, where there is one. The task loop puts the old one back when
    /// the call ends, or after the handler that interrupted it.
    pub fn enter(task: &CurrentTask, mask: Option<u64>, deadline: Option<Monotonic>) -> Resume {
        if let Some(mask) = mask {
            task.set_temporary_mask(SignalSet(mask));
        }
        Resume::Deadline(deadline)
    }
}
