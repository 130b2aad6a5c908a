//! A task at the quiesce barrier, as data: what only its own loop can reach, left where a checkpoint finds it.
//!
//! Together with its [`Task`](super::Task) this is all there is of a thread: one that is made from it goes on as if nothing
//! had happened.

use std::sync::atomic::Ordering;

use quicksand_abi::signal::StackT;
use quicksand_platform::Registers;

use super::run::TrapInfo;
use super::{CurrentTask, RestartBlock};
use crate::syscalls::{Blocked, OnSignal, Resume};

const NR_FUTEX: u64 = 202;
/// FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME.
const FUTEX_FLAGS: u64 = 128 | 256;

/// Where a task stands when it arrives at the barrier.
#[derive(Debug)]
pub(crate) enum Whereabouts<'a> {
    /// About to enter guest code.
    BetweenCalls,
    /// It waits in a system call.
    In { number: u64, args: [u64; 6], blocked: &'a Blocked },
    /// Stopped by job control.
    Stopped,
}

/// What a task's loop holds.
#[derive(Debug)]
pub(crate) struct Parked {
    pub regs: Registers,
    /// `Err`: the platform could not tell.
    pub extended_state: Result<Vec<u8>, String>,
    pub altstack: StackT,
    pub saved_mask: Option<u64>,
    /// The call that it waits in, to be made again with its progress.
    pub call: Option<RestartBlock>,
    pub restart_block: Option<RestartBlock>,
    pub restart: Option<OnSignal>,
    pub trap: TrapInfo,
    /// Why it cannot be made anew from this, in words that go after the task's number.
    pub refusal: Option<&'static str>,
}

impl CurrentTask {
    /// The task as data.
    pub(super) fn as_data(&self, at: Whereabouts<'_>) -> Parked {
        let mut state = vec![0; self.kernel().platform.extended_state_len()];
        let got = self.context.borrow_mut().get_extended_state(&mut state);
        let mut parked = Parked {
            regs: *self.regs.borrow(),
            extended_state: got.map(|()| state).map_err(|error| error.to_string()),
            altstack: self.altstack.get(),
            saved_mask: self.saved_mask.get(),
            call: None,
            restart_block: self.restart_block.borrow().clone(),
            restart: self.restart.get(),
            trap: self.trap.get(),
            refusal: None,
        };
        match at {
            Whereabouts::BetweenCalls => {}
            Whereabouts::Stopped => parked.refusal = Some("is stopped by job control"),
            Whereabouts::In { number, args, blocked } => {
                self.describe_call(&mut parked, number, args, blocked)
            }
        }
        if self.pending_exec.borrow().is_some() {
            parked.refusal = Some("is in execve(2)");
        }
        parked
    }

    fn describe_call(&self, parked: &mut Parked, number: u64, args: [u64; 6], blocked: &Blocked) {
        let resume = match &blocked.resume {
            Resume::Vfork { .. } => return parked.refusal = Some("waits in vfork(2) for its child"),
            Resume::Exec => return parked.refusal = Some("is in execve(2)"),
            Resume::FifoOpen { .. } => return parked.refusal = Some("opens a FIFO"),
            Resume::Futex { deadline } => {
                let plain = number == NR_FUTEX
                    && matches!((args[1] & !FUTEX_FLAGS) as i32, libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET);
                if !plain {
                    return parked.refusal = Some("waits for several futexes or for one with an owner");
                }
                if self.futex.borrow().iter().any(|waiter| waiter.woken.load(Ordering::SeqCst)) {
                    // Woken, and has not seen it yet: it is as good as back.
                    parked.regs.rax = 0;
                    return;
                }
                // It queues anew, where the word still holds what it waits for the end of.
                deadline.map_or(Resume::None, |at| Resume::Deadline(Some(at)))
            }
            other => other.clone(),
        };
        parked.call = Some(RestartBlock { number, args, resume });
    }
}
