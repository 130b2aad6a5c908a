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

/// Where a task stands when it arrives at the barrier.
#[derive(Debug)]
pub(crate) enum Whereabouts<'a> {
    /// About to enter guest code.
    BetweenCalls,
    /// It waits in a system call.
    In { number: u64, args: [u64; 6], blocked: &'a Blocked },
    /// Stopped by job control: it will find that out again.
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
            Whereabouts::BetweenCalls | Whereabouts::Stopped => {}
            Whereabouts::In { number, args, blocked } => {
                self.describe_call(&mut parked, number, args, blocked)
            }
        }
        if self.pending_exec.borrow().is_some() {
            parked.refusal = Some("is in execve(2)");
        }
        parked
    }

    /// What the call of a futex waiter returns that has been woken: of several futexes the last one's place, as the call itself
    /// finds it.
    fn futex_wake(&self) -> Option<u64> {
        let waiters = self.futex.borrow();
        waiters.iter().rposition(|waiter| waiter.woken.load(Ordering::SeqCst)).map(|place| place as u64)
    }

    fn describe_call(&self, parked: &mut Parked, number: u64, args: [u64; 6], blocked: &Blocked) {
        let resume = match &blocked.resume {
            Resume::Exec => return parked.refusal = Some("is in execve(2)"),
            Resume::FifoOpen { opener } => match self.kernel().fifos.has_met(*opener) {
                true => Resume::FifoMet,
                // It begins to wait anew.
                false => Resume::None,
            },
            Resume::Futex { deadline } => {
                if let Some(result) = self.futex_wake() {
                    // Woken, and has not seen it yet: it is as good as back.
                    parked.regs.rax = result;
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
