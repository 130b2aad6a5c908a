//! I/O priorities: `ioprio_get(2)`, `ioprio_set(2)`. The host schedules I/O; what is set is remembered and told back.

use std::sync::Arc;

use quicksand_abi::Errno;

use super::credentials::Caps;
use super::{CurrentTask, Task};
use crate::syscalls::SyscallResult;

const CLASS_SHIFT: u32 = 13;
const CLASS_NONE: u16 = 0;
const CLASS_REALTIME: u16 = 1;
const CLASS_BEST_EFFORT: u16 = 2;
const CLASS_IDLE: u16 = 3;

const WHO_PROCESS: i32 = 1;
const WHO_PGRP: i32 = 2;
const WHO_USER: i32 = 3;

const fn value(class: u16, level: u16) -> u16 {
    class << CLASS_SHIFT | level
}
fn class_of(priority: u16) -> u16 {
    priority >> CLASS_SHIFT
}

/// Whom a call means; nobody is not an error yet.
fn targets(task: &CurrentTask, which: i32, who: i32) -> Result<Vec<Arc<Task>>, Errno> {
    let pids = task.pids();
    Ok(match which {
        WHO_PROCESS if who == 0 => vec![task.task().clone()],
        WHO_PROCESS => pids.task(who).into_iter().collect(),
        WHO_PGRP => {
            let pgid = if who == 0 { pids.pgid(task.group()) } else { who };
            let members = pids.lock().members(pgid);
            members.iter().flat_map(|g| g.tasks()).collect()
        }
        WHO_USER => {
            let uid = if who == 0 { task.creds().ruid } else { who as u32 };
            pids.tasks().into_iter().filter(|t| t.creds().ruid == uid).collect()
        }
        _ => return Err(Errno::EINVAL),
    })
}

/// What stands for a task that has set nothing, where several are compared: by its nice value.
fn effective(task: &Task) -> u16 {
    let sched = task.state.lock().sched;
    match class_of(sched.io_priority) {
        CLASS_NONE => {
            let level = ((sched.nice + 20) / 5).clamp(0, 7) as u16;
            let class = match sched.policy {
                1 | 2 => CLASS_REALTIME,
                5 => CLASS_IDLE,
                _ => CLASS_BEST_EFFORT,
            };
            value(class, level)
        }
        _ => sched.io_priority,
    }
}

/// `ioprio_get(2)`: the highest of several.
pub fn sys_ioprio_get(task: &CurrentTask, which: i32, who: i32) -> SyscallResult {
    let targets = targets(task, which, who)?;
    let best = match which {
        WHO_PROCESS => targets.first().map(|t| t.state.lock().sched.io_priority),
        _ => targets.iter().map(|t| effective(t)).min(),
    };
    Ok(usize::from(best.ok_or(Errno::ESRCH)?))
}

/// `ioprio_set(2)`.
pub fn sys_ioprio_set(task: &CurrentTask, which: i32, who: i32, priority: i32) -> SyscallResult {
    // Linux cuts it to 16 bits: class, hint, level.
    let priority = priority as u16;
    let own = task.creds();
    match class_of(priority) {
        CLASS_REALTIME if !own.effective.intersects(Caps::SYS_ADMIN | Caps::SYS_NICE) => {
            return Err(Errno::EPERM.into());
        }
        CLASS_REALTIME | CLASS_BEST_EFFORT | CLASS_IDLE => {}
        CLASS_NONE if priority & 7 == 0 => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    let targets = targets(task, which, who)?;
    if targets.is_empty() {
        return Err(Errno::ESRCH.into());
    }
    for target in targets {
        let ruid = target.creds().ruid;
        if ruid != own.euid && ruid != own.ruid && !own.has(Caps::SYS_NICE) {
            return Err(Errno::EPERM.into());
        }
        target.state.lock().sched.io_priority = priority;
    }
    Ok(0)
}
