//! Promises kept in user memory when a task leaves it: robust lists, and `set_tid_address(2)`'s word.

use quicksand_abi::task::RobustListHead;
use quicksand_abi::{Errno, UserAddr};

use super::CurrentTask;
use super::futex::{OWNER_DIED, TID_MASK, WAITERS, wake_all_kinds};
use crate::syscalls::SyscallResult;

/// ROBUST_LIST_LIMIT.
const ROBUST_LIMIT: usize = 2048;

/// `set_robust_list(2)`.
pub fn sys_set_robust_list(task: &CurrentTask, head: UserAddr, len: usize) -> SyscallResult {
    if len != size_of::<RobustListHead>() {
        return Err(Errno::EINVAL.into());
    }
    task.state.lock().robust_list = head;
    Ok(0)
}

/// `get_robust_list(2)`.
pub fn sys_get_robust_list(task: &CurrentTask, pid: i32, head: UserAddr, len: UserAddr) -> SyscallResult {
    let list = if pid == 0 {
        task.state.lock().robust_list
    } else {
        let other = task.pids().task(pid).ok_or(Errno::ESRCH)?;
        super::sched::check_same_user(task, &other)?;
        other.state.lock().robust_list
    };
    task.write_object(len, &(size_of::<RobustListHead>() as u64))?;
    task.write_object(head, &list.0)?;
    Ok(0)
}

/// `set_tid_address(2)`.
pub fn sys_set_tid_address(task: &CurrentTask, addr: UserAddr) -> SyscallResult {
    task.state.lock().clear_child_tid = addr;
    Ok(task.tid() as usize)
}

/// Keeps the promises made in user memory when a task leaves it (`mm_release`): the robust futexes it holds are marked,
/// and the word of CLONE_CHILD_CLEARTID is cleared. Memory that cannot be reached is passed over.
pub(super) fn release_on_exit(task: &CurrentTask) {
    let (robust, clear) = {
        let mut state = task.state.lock();
        (std::mem::take(&mut state.robust_list), std::mem::take(&mut state.clear_child_tid))
    };
    if !robust.is_null() {
        let _ = walk_robust_list(task, robust);
    }
    // Nobody is there to wait in memory that goes with its only task.
    if !clear.is_null() && task.shares_mm() && task.write_object(clear, &0_u32).is_ok() {
        let _ = wake_all_kinds(task, clear);
    }
}

fn walk_robust_list(task: &CurrentTask, at: UserAddr) -> Result<(), Errno> {
    let head: RobustListHead = task.read_object(at)?;
    let word_of = |entry: u64| UserAddr((entry & !1).wrapping_add_signed(head.futex_offset));
    let mut entry = head.list;
    let mut broken = Ok(());
    for _ in 0..ROBUST_LIMIT {
        if entry & !1 == at.0 {
            break;
        }
        // Read before the futex is given away: its new owner may unlink it.
        let next = task.read_object::<u64>(UserAddr(entry & !1));
        if entry & !1 != head.list_op_pending & !1
            && let Err(e) = owner_died(task, word_of(entry), entry & 1 != 0, false)
        {
            return Err(e);
        }
        match next {
            Ok(next) => entry = next,
            Err(e) => {
                broken = Err(e);
                break;
            }
        }
    }
    if head.list_op_pending & !1 != 0 {
        owner_died(task, word_of(head.list_op_pending), head.list_op_pending & 1 != 0, true)?;
    }
    broken
}

/// `handle_futex_death`.
fn owner_died(task: &CurrentTask, addr: UserAddr, pi: bool, pending: bool) -> Result<(), Errno> {
    if !addr.0.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let mm = task.mm();
    let mut word = mm.load_u32(addr)?;
    loop {
        if pending && !pi && word == 0 {
            let _ = wake_all_kinds(task, addr);
            return Ok(());
        }
        if word & TID_MASK != task.tid() as u32 {
            return Ok(());
        }
        let found = mm.compare_exchange_u32(addr, word, (word & WAITERS) | OWNER_DIED)?;
        if found == word {
            break;
        }
        word = found;
    }
    if !pi && word & WAITERS != 0 {
        let _ = wake_all_kinds(task, addr);
    }
    Ok(())
}
