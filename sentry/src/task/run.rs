//! The task loop: run guest code, handle what stopped it, wait where a call says so.
//!
//! One host thread runs the loop of one task. Between two turns of the loop a task is fully described by its `Task`, its
//! registers and extended state, and the few cells of `CurrentTask`; in a wait, also by the [`Blocked`] that the call
//! returned. Nothing else is on the thread's stack: that is what lets the quiesce barrier stop it at [`CurrentTask::quiesce`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use quicksand_abi::signal::code;
use quicksand_abi::{Errno, SigInfo, UserAddr};
use quicksand_platform::{Exit, Fault, PlatformError, Trap};

use super::group::ExitStatus;
use super::parked::Whereabouts;
use super::{CurrentTask, RestartBlock, Work};
use crate::mm::FaultOutcome;
use crate::sync::{Events, Registration, WaitQueue};
use crate::syscalls::{Blocked, OnSignal, Resume, SyscallError, SyscallResult, WakeReason, dispatch};

const NR_RESTART_SYSCALL: u64 = 219;

/// The last exception of a task, as `sigcontext` shows it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TrapInfo {
    pub number: u64,
    pub error_code: u64,
    pub cr2: u64,
}

/// Starts a host thread that runs `task`. EAGAIN where the host gives none.
pub(crate) fn spawn(task: CurrentTask) -> Result<(), Errno> {
    spawn_in_call(task, None)
}

/// As [`spawn`]; the task was restored from within `call`, and goes on waiting there.
pub(crate) fn spawn_in_call(task: CurrentTask, call: Option<RestartBlock>) -> Result<(), Errno> {
    let name = format!("task-{}", task.tid());
    // Counted from here on: whoever stops the world waits for its thread to come as far as the barrier.
    let kernel = task.kernel().clone();
    kernel.quiesce.enter(&task);
    match kernel.host_threads.run(name, Box::new(move || main(task, call))) {
        Ok(()) => Ok(()),
        Err(e) => {
            kernel.quiesce.leave();
            tracing::warn!("no host thread for a task: {e}");
            Err(Errno::EAGAIN)
        }
    }
}

fn main(task: CurrentTask, call: Option<RestartBlock>) {
    let kernel = task.kernel().clone();
    if let Some(first) = kernel.take_first_entry() {
        // A failure comes again from `run`, and is dealt with there.
        let _ = task.context.borrow_mut().prepare();
        (first.0)();
    }
    task.cpu.start(!kernel.platform.guest_time_is_callers());
    if let Some(call) = call {
        task.continue_call(call);
    }
    let mut since = Instant::now();
    while task.before_guest() {
        let entered = Instant::now();
        task.cpu.add_sentry(entered - since);
        task.cpu.enter_guest();
        let exit = task.enter_guest();
        since = Instant::now();
        kernel.clocks.keeper.tick();
        task.cpu.add_guest(since - entered);
        match exit {
            Ok(Exit::Syscall) => {
                // Waiting is not working.
                let waited = task.system_call();
                since = since.checked_add(waited).unwrap_or(since);
            }
            Ok(Exit::Fault(fault)) => task.fault(fault),
            Ok(Exit::Trap(trap)) => task.exception(trap),
            Ok(Exit::Kicked) => {}
            Err(e) => {
                task.platform_failed(&e);
            }
        }
    }
    super::exit::exit_task(task);
    crate::sync::run_deferred();
    kernel.quiesce.leave();
}

impl CurrentTask {
    /// Does what waits to be done. False when the task is to end.
    fn before_guest(&self) -> bool {
        loop {
            if self.exiting.get().is_some() {
                return false;
            }
            let work = self.work();
            let unsettled = self.restart.get().is_some() || self.saved_mask.get().is_some();
            if work.contains(Work::QUIESCE) && !work.contains(Work::KILL) {
                self.quiesce(Whereabouts::BetweenCalls);
            } else if work.intersects(Work::SIGNAL | Work::KILL | Work::STOP) || unsettled {
                self.clear_work(Work::STOP);
                self.deliver_signals();
            } else if self.regs.borrow().rip >> 47 != 0 {
                // No processor runs there: what a jump to such an address raises, without leaving it to the platform.
                self.exception(Trap { vector: 13, error_code: 0, dr6: 0 });
            } else {
                return true;
            }
        }
    }

    fn enter_guest(&self) -> Result<Exit, PlatformError> {
        self.answers.renew(self);
        let mm = self.mm.borrow();
        self.cross();
        let exit = self.context.borrow_mut().run(&mm.space, &mut self.regs.borrow_mut());
        self.cross();
        exit
    }

    /// A host-side failure that leaves the process in no state to go on: it is killed, with a line in the log.
    pub(crate) fn platform_failed(&self, error: &PlatformError) -> Errno {
        tracing::error!("process {} is killed: {error}", self.group().pid());
        self.group().kill_all(ExitStatus::signal(libc::SIGKILL));
        Errno::EIO
    }

    /// One system call, from exit to result. Returns how long it waited.
    fn system_call(&self) -> std::time::Duration {
        let (mut number, mut args) = {
            let regs = self.regs.borrow();
            // Linux looks at the lower half only.
            (regs.orig_rax & 0xffff_ffff, regs.syscall_args())
        };
        self.wake_reason.set(WakeReason::First);
        self.resume.take();
        let block = self.restart_block.take();
        if number == NR_RESTART_SYSCALL
            && let Some(block) = block
        {
            (number, args) = (block.number, block.args);
            *self.resume.borrow_mut() = block.resume;
            self.wake_reason.set(WakeReason::Event);
        }
        self.call_and_wait(number, args)
    }

    /// Goes on with a call that a restored task was in.
    fn continue_call(&self, call: RestartBlock) {
        let begun = call.resume != Resume::None;
        self.wake_reason.set(if begun { WakeReason::Event } else { WakeReason::First });
        *self.resume.borrow_mut() = call.resume;
        self.call_and_wait(call.number, call.args);
    }

    /// The first try of [`CurrentTask::continue_call`], by whoever restores the task. The call as it waits then, if it does.
    pub(crate) fn begin_call(&self, call: RestartBlock) -> Option<RestartBlock> {
        let begun = call.resume != Resume::None;
        self.wake_reason.set(if begun { WakeReason::Event } else { WakeReason::First });
        *self.resume.borrow_mut() = call.resume;
        let result = match dispatch(self, call.number, &call.args) {
            Ok(value) => value as u64,
            Err(SyscallError::Errno(e)) => e.to_return(),
            Err(SyscallError::Blocked(blocked)) => {
                return Some(RestartBlock { resume: blocked.resume, ..call });
            }
            Err(SyscallError::NoReturn) => return None,
        };
        self.regs.borrow_mut().rax = result;
        None
    }

    fn call_and_wait(&self, number: u64, args: [u64; 6]) -> std::time::Duration {
        let mut waited = std::time::Duration::ZERO;
        let mut result = dispatch(self, number, &args);
        if let Err(SyscallError::Blocked(blocked)) = result {
            let start = Instant::now();
            self.cpu.waits.fetch_add(1, Ordering::Relaxed);
            crate::entry::waits(self, number, &args);
            result = self.block(number, &args, *blocked);
            waited = start.elapsed();
        }
        let mut regs = self.regs.borrow_mut();
        match result {
            Ok(value) => regs.rax = value as u64,
            Err(SyscallError::Errno(e)) => regs.rax = e.to_return(),
            // Settled by `deliver_signals`: it knows whether a handler runs.
            Err(SyscallError::Blocked(_)) => return waited,
            Err(SyscallError::NoReturn) => {}
        }
        drop(regs);
        if self.restart.get().is_none() && self.saved_mask.get().is_some() && !is_interrupted(&result) {
            self.restore_saved_mask();
        }
        waited
    }

    /// Waits as `blocked` says and calls the handler again until it has a result. `Blocked` comes back only where a
    /// signal interrupted the call and `restart` says what is to become of it.
    fn block(&self, number: u64, args: &[u64; 6], mut blocked: Blocked) -> SyscallResult {
        let mut registered: Vec<Registration> = Vec::new();
        let mut registered_on: Vec<(Arc<WaitQueue>, Events)> = Vec::new();
        loop {
            let reason = if same_queues(&registered_on, &blocked.on) {
                self.park(number, args, &blocked)
            } else {
                // A change between the try and the registration is seen by one more try.
                registered.clear();
                registered_on = std::mem::take(&mut blocked.on);
                registered.extend(registered_on.iter().map(|(q, e)| q.register(*e, self.waiter.clone())));
                WakeReason::Event
            };
            if reason == WakeReason::Interrupted {
                match blocked.on_signal {
                    OnSignal::CallAgain => {}
                    OnSignal::Return(value) => return Ok(value),
                    OnSignal::Interrupt | OnSignal::Killable => return Err(Errno::EINTR.into()),
                    _ => return self.interrupt_call(number, args, blocked),
                }
            }
            self.wake_reason.set(reason);
            *self.resume.borrow_mut() = std::mem::take(&mut blocked.resume);
            match dispatch(self, number, args) {
                Err(SyscallError::Blocked(again)) if reason == WakeReason::Interrupted => {
                    return match again.on_signal {
                        OnSignal::CallAgain | OnSignal::Interrupt | OnSignal::Killable => {
                            Err(Errno::EINTR.into())
                        }
                        OnSignal::Return(value) => Ok(value),
                        _ => self.interrupt_call(number, args, *again),
                    };
                }
                Err(SyscallError::Blocked(again)) => blocked = *again,
                result => return result,
            }
        }
    }

    /// A signal ends the wait; what becomes of the call is settled when it is delivered.
    fn interrupt_call(&self, number: u64, args: &[u64; 6], mut blocked: Blocked) -> SyscallResult {
        if blocked.on_signal == OnSignal::RestartBlock {
            let resume = std::mem::take(&mut blocked.resume);
            *self.restart_block.borrow_mut() = Some(RestartBlock { number, args: *args, resume });
        }
        self.restart.set(Some(blocked.on_signal));
        Err(blocked.into())
    }

    /// Parks until something happens, and says what.
    fn park(&self, number: u64, args: &[u64; 6], blocked: &Blocked) -> WakeReason {
        let deadline = blocked.deadline.and_then(|at| self.kernel().clocks.instant(at));
        // In `execve(2)`, it waits for threads that are ending, which nothing stops: the barrier waits for both.
        let stops = blocked.resume != Resume::Exec;
        loop {
            let work = self.work();
            if work.contains(Work::KILL) {
                return WakeReason::Interrupted;
            }
            if stops && work.contains(Work::QUIESCE) {
                self.quiesce(Whereabouts::In { number, args: *args, blocked });
                // What ends with its checkpoint does nothing more: its image will.
                if self.has_work(Work::KILL) {
                    return WakeReason::Interrupted;
                }
                // The wake that led here may have stood for an event as well.
                return WakeReason::Event;
            }
            let interruptible = blocked.on_signal != OnSignal::Killable;
            if interruptible && work.intersects(Work::SIGNAL | Work::STOP) {
                self.clear_work(Work::STOP);
                if self.signal_pending() {
                    return WakeReason::Interrupted;
                }
            }
            self.set_waiting(true);
            let woken = self.waiter.park(deadline);
            self.set_waiting(false);
            if !woken {
                return WakeReason::Timeout;
            }
            // The token stands for both: work to look at, and an event. Another try costs little.
            let work = self.work();
            if !(work.contains(Work::KILL)
                || stops && work.contains(Work::QUIESCE)
                || (interruptible && work.intersects(Work::SIGNAL | Work::STOP)))
            {
                return WakeReason::Event;
            }
        }
    }

    /// The world stops: waits until it goes on. Everything about the task is data here, and is left where a checkpoint finds
    /// it.
    pub(crate) fn quiesce(&self, at: Whereabouts<'_>) {
        self.clear_work(Work::QUIESCE);
        *self.parked.lock() = Some(Box::new(self.as_data(at)));
        self.kernel().quiesce.arrive(self);
        let parked = self.parked.lock().take();
        drop(parked);
    }

    fn fault(&self, fault: Fault) {
        let stack = self.group().rlimit(super::Resource::Stack).soft;
        let outcome = self.mm().handle_fault(fault.addr, fault.access, fault.cause, stack);
        let (signal, code) = match outcome {
            FaultOutcome::Resolved => {
                self.cpu.faults.fetch_add(1, Ordering::Relaxed);
                return;
            }
            FaultOutcome::NotMapped => (libc::SIGSEGV, code::SEGV_MAPERR),
            FaultOutcome::Forbidden => (libc::SIGSEGV, code::SEGV_ACCERR),
            FaultOutcome::Bus => (libc::SIGBUS, code::BUS_ADRERR),
        };
        let mut error_code = u64::from(fault.error_code);
        if fault.addr >= UserAddr::TASK_SIZE {
            // Nobody learns what is mapped for the kernel: always as if something were (present), and nothing special
            // about it; write, user and fetch stay.
            error_code = (error_code & 0x16) | 1;
        }
        self.trap.set(TrapInfo { number: 14, error_code, cr2: fault.addr.0 });
        self.force_signal(SigInfo::fault(signal, code, fault.addr));
    }

    /// The signal of an exception, as `arch/x86/kernel/traps.c` has it.
    fn exception(&self, trap: Trap) {
        let before = self.trap.get();
        self.trap.set(TrapInfo {
            number: u64::from(trap.vector),
            error_code: u64::from(trap.error_code),
            cr2: before.cr2,
        });
        let here = UserAddr(self.regs.borrow().rip);
        let info = match trap.vector {
            0 => SigInfo::fault(libc::SIGFPE, code::FPE_INTDIV, here),
            1 => SigInfo::fault(libc::SIGTRAP, code::TRAP_TRACE, here),
            3 => SigInfo::kernel(libc::SIGTRAP),
            6 => SigInfo::fault(libc::SIGILL, code::ILL_ILLOPN, here),
            11 | 12 => SigInfo::kernel(libc::SIGBUS),
            16 | 19 => match self.floating_point_code(trap.vector) {
                // Cleared in between: run on.
                0 => return,
                code => SigInfo::fault(libc::SIGFPE, code, here),
            },
            17 => SigInfo::fault(libc::SIGBUS, code::BUS_ADRALN, UserAddr::NULL),
            // #OF, #BR, #GP, and what cannot happen in user mode.
            _ => SigInfo::kernel(libc::SIGSEGV),
        };
        self.force_signal(info);
    }

    /// `fpu__exception_code`: which unmasked floating-point exception is raised.
    fn floating_point_code(&self, vector: u8) -> i32 {
        let mut state = vec![0; self.kernel().platform.extended_state_len().max(512)];
        let len = self.kernel().platform.extended_state_len();
        if let Err(e) = self.context.borrow_mut().get_extended_state(&mut state[..len]) {
            self.platform_failed(&e);
            return 0;
        }
        let raised = if vector == 16 {
            let control = u16::from_ne_bytes([state[0], state[1]]);
            let status = u16::from_ne_bytes([state[2], state[3]]);
            u32::from(status & !control)
        } else {
            let mxcsr = u32::from_ne_bytes([state[24], state[25], state[26], state[27]]);
            mxcsr & !(mxcsr >> 7)
        };
        match raised {
            e if e & 1 != 0 => code::FPE_FLTINV,
            e if e & 4 != 0 => code::FPE_FLTDIV,
            e if e & 8 != 0 => code::FPE_FLTOVF,
            e if e & 0x12 != 0 => code::FPE_FLTUND,
            e if e & 0x20 != 0 => code::FPE_FLTRES,
            _ => 0,
        }
    }
}

fn is_interrupted(result: &SyscallResult) -> bool {
    matches!(result, Err(SyscallError::Errno(Errno::EINTR)))
}

fn same_queues(a: &[(Arc<WaitQueue>, Events)], b: &[(Arc<WaitQueue>, Events)]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((qa, ea), (qb, eb))| Arc::ptr_eq(qa, qb) && ea == eb)
}
