//! `membarrier(2)`: order memory between threads without a barrier in each.
//!
//! Every other thread is seen outside of guest code once. That crossing orders its memory, and it enters guest code
//! again by an instruction that serialises it, so that the core-serialising commands are the same. What a process has
//! registered for is kept until `execve`.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use quicksand_abi::Errno;

use super::{CurrentTask, Task};
use crate::syscalls::SyscallResult;

const QUERY: u32 = 0;
const GLOBAL: u32 = 1;
const GLOBAL_EXPEDITED: u32 = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: u32 = 1 << 2;
const PRIVATE_EXPEDITED: u32 = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: u32 = 1 << 4;
const PRIVATE_EXPEDITED_SYNC_CORE: u32 = 1 << 5;
const REGISTER_PRIVATE_EXPEDITED_SYNC_CORE: u32 = 1 << 6;
const GET_REGISTRATIONS: u32 = 1 << 9;

const SUPPORTED: u32 = GLOBAL
    | GLOBAL_EXPEDITED
    | REGISTER_GLOBAL_EXPEDITED
    | PRIVATE_EXPEDITED
    | REGISTER_PRIVATE_EXPEDITED
    | PRIVATE_EXPEDITED_SYNC_CORE
    | REGISTER_PRIVATE_EXPEDITED_SYNC_CORE
    | GET_REGISTRATIONS;

/// `membarrier(2)`.
pub fn sys_membarrier(task: &CurrentTask, command: u32, flags: u32, _cpu: i32) -> SyscallResult {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let registered = || task.group().state.lock().membarrier;
    match command {
        QUERY => Ok(SUPPORTED as usize),
        REGISTER_GLOBAL_EXPEDITED | REGISTER_PRIVATE_EXPEDITED | REGISTER_PRIVATE_EXPEDITED_SYNC_CORE => {
            task.group().state.lock().membarrier |= command;
            Ok(0)
        }
        GET_REGISTRATIONS => {
            let mut shown = registered();
            if shown & REGISTER_PRIVATE_EXPEDITED_SYNC_CORE != 0 {
                // Linux's state of the plain kind is part of it.
                shown |= REGISTER_PRIVATE_EXPEDITED;
            }
            Ok(shown as usize)
        }
        PRIVATE_EXPEDITED if registered() & REGISTER_PRIVATE_EXPEDITED == 0 => Err(Errno::EPERM.into()),
        PRIVATE_EXPEDITED_SYNC_CORE if registered() & REGISTER_PRIVATE_EXPEDITED_SYNC_CORE == 0 => {
            Err(Errno::EPERM.into())
        }
        PRIVATE_EXPEDITED | PRIVATE_EXPEDITED_SYNC_CORE => {
            wait_for_all(task, &task.group().tasks());
            Ok(0)
        }
        GLOBAL | GLOBAL_EXPEDITED => {
            // The expedited one promises it for every process that has asked; all are treated as if they had.
            wait_for_all(task, &task.pids().tasks());
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

fn wait_for_all(task: &CurrentTask, others: &[Arc<Task>]) {
    fence(Ordering::SeqCst);
    for other in others.iter().filter(|t| t.id != task.id) {
        other.wait_for_crossing();
    }
}
