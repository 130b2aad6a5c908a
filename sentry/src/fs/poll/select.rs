//! `select(2)` and `pselect6(2)`.

use std::sync::Arc;

use quicksand_abi::{Errno, Timeval, UserAddr};

use super::call::read_timeout;
use super::{TemporaryMask, Timeout, WriteBack, read_mask, wait_or_interrupted};
use crate::sync::{Events, WaitQueue};
use crate::syscalls::{Blocked, Fd, SyscallResult};
use crate::task::CurrentTask;

/// `POLLIN_SET`, `POLLOUT_SET` and `POLLEX_SET`: which events count for which of the three sets.
const SETS: [Events; 3] = [
    Events::IN.union(Events::RDNORM).union(Events::RDBAND).union(Events::HUP).union(Events::ERR),
    Events::OUT.union(Events::WRNORM).union(Events::WRBAND).union(Events::ERR),
    Events::PRI,
];

/// `select(2)`
pub fn sys_select(
    task: &CurrentTask,
    count: i32,
    read: UserAddr,
    write: UserAddr,
    except: UserAddr,
    timeout: UserAddr,
) -> SyscallResult {
    let write_back = WriteBack::Timeval(timeout);
    let (timeout, _) = Timeout::resumed(task, || {
        if timeout.is_null() {
            return Ok(Timeout::Never);
        }
        let time: Timeval = task.read_object(timeout)?;
        // Microseconds beyond a second carry over here, unlike elsewhere.
        let sec = time.sec.checked_add(time.usec / 1_000_000).ok_or(Errno::EINVAL)?;
        let time = Timeval { sec, usec: time.usec % 1_000_000 };
        if !time.is_valid() {
            return Err(Errno::EINVAL);
        }
        Ok(Timeout::after_ns(task, time.to_ns()))
    })?;
    select(task, count, [read, write, except], timeout, write_back, None)
}

/// `pselect6(2)`: the sixth argument points to the mask's address and size.
pub fn sys_pselect6(
    task: &CurrentTask,
    count: i32,
    read: UserAddr,
    write: UserAddr,
    except: UserAddr,
    timeout: UserAddr,
    mask: UserAddr,
) -> SyscallResult {
    let write_back = WriteBack::Timespec(timeout);
    let [mask, mask_size] = if mask.is_null() { [0, 0] } else { task.read_object::<[u64; 2]>(mask)? };
    let (timeout, resumed) = Timeout::resumed(task, || read_timeout(task, timeout))?;
    let mask = if resumed { None } else { read_mask(task, UserAddr(mask), mask_size)? };
    select(task, count, [read, write, except], timeout, write_back, mask)
}

fn select(
    task: &CurrentTask,
    count: i32,
    addrs: [UserAddr; 3],
    timeout: Timeout,
    write_back: WriteBack,
    mask: Option<u64>,
) -> SyscallResult {
    match select_once(task, count, addrs, timeout) {
        Ok(Selected::Waits(blocked)) => {
            let resume = TemporaryMask::enter(task, mask, timeout.deadline());
            Err(wait_or_interrupted(task, blocked.resume(resume), timeout, write_back))
        }
        Ok(Selected::Done(ready)) => {
            write_back.finish(task, timeout);
            Ok(ready)
        }
        Err(e) => {
            write_back.finish(task, timeout);
            Err(e.into())
        }
    }
}

enum Selected {
    Done(usize),
    Waits(Blocked),
}

fn select_once(
    task: &CurrentTask,
    count: i32,
    addrs: [UserAddr; 3],
    timeout: Timeout,
) -> Result<Selected, Errno> {
    // Descriptors that the table has no room for are not even looked at.
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?.min(task.files().capacity());
    let words = count.div_ceil(64);
    let mut wanted = [const { Vec::new() }; 3];
    for (set, addr) in wanted.iter_mut().zip(addrs) {
        *set = if addr.is_null() { vec![0; words] } else { task.read_array::<u64>(addr, words)? };
    }
    let mut found = [const { Vec::new() }; 3];
    found.iter_mut().for_each(|set| *set = vec![0u64; words]);
    let mut ready = 0;
    let mut on: Vec<(Arc<WaitQueue>, Events)> = Vec::new();
    for fd in 0..count {
        let (word, bit) = (fd / 64, 1u64 << (fd % 64));
        let asked: [bool; 3] = std::array::from_fn(|i| wanted[i][word] & bit != 0);
        if asked == [false; 3] {
            continue;
        }
        let file = task.file(Fd(fd as i32))?;
        let events = file.poll(task);
        let mut any = false;
        let mut interest = Events::empty();
        for (i, events_of_set) in SETS.iter().enumerate().filter(|(i, _)| asked[*i]) {
            interest |= *events_of_set;
            if events.intersects(*events_of_set) {
                found[i][word] |= bit;
                ready += 1;
                any = true;
            }
        }
        if !any
            && ready == 0
            && let Some(queue) = file.wait_queue()
        {
            on.push((queue, interest));
        }
    }
    if ready == 0 && !timeout.is_over(task) {
        return Ok(Selected::Waits(Blocked { on, ..Blocked::until(timeout.deadline()) }));
    }
    for (set, addr) in found.iter().zip(addrs).filter(|(_, addr)| !addr.is_null()) {
        task.write_array(addr, set)?;
    }
    Ok(Selected::Done(ready))
}
