//! A guest thread's side of a stub: running it, kicking it, its FPU state.
//!
//! The state word in the thread's area says whose turn it is. The Sentry makes it `GUEST` and waits until it is `EVENT`;
//! the stub's thread does the reverse. Both look out for a moment before they sleep.
//!
//! A kick sends the signal. A guest that has blocked it (it can: `rt_sigreturn` loads any mask) would run on for ever; so the
//! reaper watches each run that was kicked, and ends its stub when it takes too long.
//!
//! A thread that has stopped in a patched call has no frame, and its extended state is in the processor. It is made to take a
//! signal (`take_frame`) where one or the other is needed.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quicksand_abi::UserAddr;
use quicksand_platform::{
    Access, AddressSpace, Answers, Context, Exit, Fault, FaultCause, Kicker, PlatformError, Registers, Trap,
};

use crate::answers::ContextAnswers;
use crate::call::Call;
use crate::errand::Runner;
use crate::fpu::State;
use crate::frame::{Damaged, Frame};
use crate::host_error;
use crate::layout::{AREA_LEN, KICK_SIGNAL, STUB_START, area, state};
use crate::reaper::Kicked;
use crate::shared::Shared;
use crate::space::SystrapSpace;
use crate::spin::Spin;
use crate::sys::{futex_wait, futex_wake};
use crate::threads::{Stub, Thread, ended};

/// Of the time stamp counter; which need not be exact.
const CYCLES_PER_NS: u64 = 3;
/// Error code of an instruction fetch in user mode.
const ERROR_FETCH: u32 = 1 << 4 | 1 << 2;

/// What a context and its kickers share.
#[derive(Debug, Default)]
struct KickState {
    pending: bool,
    /// Set while guest code runs.
    running: Option<(Arc<Stub>, Thread)>,
    /// Counts runs.
    run: u64,
    /// The reaper has been told of this run.
    watched: bool,
}

#[derive(Debug)]
struct Kick {
    state: Mutex<KickState>,
    shared: Weak<Shared>,
    this: Weak<Kick>,
}

impl Kicker for Kick {
    fn kick(&self) {
        let mut kick = self.state.lock();
        kick.pending = true;
        let Some((stub, thread)) = &kick.running else { return };
        let word = stub.state(thread.index);
        if word.load(Ordering::SeqCst) != state::EVENT {
            stub.signal(*thread, KICK_SIGNAL);
        }
        // A guest may have written to the word by itself, without waking anybody.
        futex_wake(word);
        if !std::mem::replace(&mut kick.watched, true)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.expect_stop(self.this.clone(), kick.run);
        }
    }
}

impl Kicked for Kick {
    fn still_runs(&self, run: u64) -> bool {
        let kick = self.state.lock();
        kick.running.is_some() && kick.run == run
    }
    fn give_up(&self, run: u64) {
        let kick = self.state.lock();
        if let Some((stub, _)) = &kick.running
            && kick.run == run
        {
            tracing::warn!("a guest thread does not stop: its process is killed");
            stub.process.kill();
        }
    }
}

/// A thread that a context has.
#[derive(Debug)]
struct Attached {
    stub: Arc<Stub>,
    thread: Thread,
    runner: Arc<Runner>,
    /// The Sentry's way of waiting for the thread, and the thread's for the Sentry.
    sentry_spin: Spin,
    stub_spin: Spin,
}

/// How often the system call at one place comes by a signal before it is patched: that costs as much as some fifty signals.
pub(crate) const TRAPS_BEFORE_PATCH: u32 = 64;
/// Places that are counted at a time.
const PLACES: usize = 64;

/// Where system calls came from of late.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    rip: u64,
    rax: u64,
    numbers_vary: bool,
    count: u32,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct SystrapContext {
    shared: Arc<Shared>,
    kick: Arc<Kick>,
    answers: Arc<ContextAnswers>,
    places: Box<[Place; PLACES]>,
    attached: Option<Attached>,
    /// The extended state, where it is not in the attached thread's frame; `None` there: as after `execve`.
    saved: Option<State>,
}

impl SystrapContext {
    pub(crate) fn new(shared: &Arc<Shared>) -> SystrapContext {
        let kick = Arc::new_cyclic(|this| Kick {
            state: Mutex::default(),
            shared: Arc::downgrade(shared),
            this: this.clone(),
        });
        SystrapContext {
            shared: Arc::clone(shared),
            kick,
            answers: Arc::default(),
            places: Box::new([Place::default(); PLACES]),
            attached: None,
            saved: None,
        }
    }

    /// What the processor could not even begin to run, and what is the stub's. Linux finds these in IRETQ, or at the
    /// first fetch.
    fn refuse(&self, regs: &Registers) -> Option<Exit> {
        if regs.rip < STUB_START {
            return None;
        }
        if std::mem::take(&mut self.kick.state.lock().pending) {
            return Some(Exit::Kicked);
        }
        let canonical = regs.rip < 1 << 47 || regs.rip >= !0 << 47;
        Some(if canonical {
            Exit::Fault(Fault {
                addr: UserAddr(regs.rip),
                access: Access::Execute,
                cause: FaultCause::Unmapped,
                error_code: ERROR_FETCH,
            })
        } else {
            Exit::Trap(Trap { vector: 13, error_code: 0, dr6: 0 })
        })
    }

    /// Gives up the thread, keeping the extended state.
    fn detach(&mut self) {
        let has_frame = self.take_frame().is_ok();
        self.answers.move_to(None);
        if let Some(Attached { stub, thread, runner, .. }) = self.attached.take() {
            runner.leaves();
            // A frame that is damaged has no state worth keeping.
            self.saved = Frame::of(&stub.areas, thread.index)
                .and_then(|frame| frame.extended_state(&self.shared.cpu))
                .ok()
                .filter(|_| has_frame);
            stub.give_back(thread);
        }
    }

    /// A thread of `stub`, with the extended state in its frame.
    fn attach(&mut self, stub: &Arc<Stub>) -> Result<(), PlatformError> {
        if self.attached.as_ref().is_some_and(|attached| Arc::ptr_eq(&attached.stub, stub)) {
            return Ok(());
        }
        self.detach();
        let (thread, new) = stub.take_thread(&self.shared.cpu)?;
        if new {
            self.shared.counters.threads.add();
        }
        let (sentry_spin, stub_spin) = (Spin::default(), Spin::default());
        let runner = Runner::new(Arc::clone(stub), thread);
        self.attached = Some(Attached { stub: Arc::clone(stub), thread, runner, sentry_spin, stub_spin });
        self.answers.move_to(Some((Arc::clone(stub), thread.index)));
        self.take_frame()?;
        let state = self.saved.take().unwrap_or_else(|| self.shared.cpu.fresh());
        let loaded = Frame::of(&stub.areas, thread.index)
            .and_then(|frame| frame.set_extended_state(&self.shared.cpu, &state));
        loaded.map_err(|_| damaged(stub))
    }

    /// Makes a thread that is in a patched call take a signal: then it has a frame.
    fn take_frame(&mut self) -> Result<(), PlatformError> {
        let Some(Attached { stub, thread, runner, sentry_spin, .. }) = &mut self.attached else {
            return Ok(());
        };
        if !thread.in_call {
            return Ok(());
        }
        runner.leaves();
        {
            // As a run, so that a guest that does not obey is noticed.
            let mut kick = self.kick.state.lock();
            resume(stub, *thread, state::TAKE_SIGNAL)?;
            kick.running = Some((Arc::clone(stub), *thread));
            kick.run += 1;
            kick.watched = false;
        }
        let slept = stub.areas.u32(thread.index * AREA_LEN + area::STUB_SLEEPS).load(Ordering::SeqCst) != 0;
        if slept {
            futex_wake(stub.state(thread.index));
        }
        let waited = wait(&self.shared, stub, *thread, sentry_spin, Some(&self.kick));
        self.kick.state.lock().running = None;
        thread.in_call = false;
        waited?;
        runner.arrives();
        Ok(())
    }

    /// The guest's system call came by a signal.
    fn count(&mut self, space: &SystrapSpace, regs: &Registers) {
        let place = &mut self.places[(regs.rip ^ regs.rip >> 6) as usize % PLACES];
        if place.rip != regs.rip {
            *place = Place { rip: regs.rip, rax: regs.rax, numbers_vary: false, count: 0 };
        }
        place.numbers_vary |= place.rax != regs.rax;
        place.count = place.count.saturating_add(1);
        if place.count == TRAPS_BEFORE_PATCH {
            space.patch(regs, place.numbers_vary);
        }
    }

    fn run_in(&mut self, space: &SystrapSpace, regs: &mut Registers) -> Result<Exit, PlatformError> {
        if let Some(exit) = self.refuse(regs) {
            return Ok(exit);
        }
        self.attach(&space.stub)?;
        loop {
            if !Call::can_return(regs) {
                self.take_frame()?;
            }
            let Some(attached) = &mut self.attached else { return Err(ended()) };
            let Attached { stub, thread, runner, sentry_spin, stub_spin } = attached;
            runner.leaves();
            let field = |at: usize| thread.index * AREA_LEN + at;
            let from_call = thread.in_call;
            if from_call {
                Call::of(&stub.areas, thread.index).set_registers(regs);
            } else {
                Frame::of(&stub.areas, thread.index).map_err(|_| damaged(stub))?.set_registers(regs);
            }
            let cycles = stub_spin.next() * CYCLES_PER_NS;
            stub.areas.u64(field(area::SPIN_CYCLES)).store(cycles, Ordering::Relaxed);
            {
                let mut kick = self.kick.state.lock();
                if std::mem::take(&mut kick.pending) {
                    return Ok(Exit::Kicked);
                }
                resume(stub, *thread, state::GUEST)?;
                kick.running = Some((Arc::clone(stub), *thread));
                kick.run += 1;
                kick.watched = false;
            }
            let slept = stub.areas.u32(field(area::STUB_SLEEPS)).load(Ordering::SeqCst) != 0;
            stub_spin.learn(!slept);
            if slept {
                futex_wake(stub.state(thread.index));
            }
            let waited = wait(&self.shared, stub, *thread, sentry_spin, None);
            self.kick.state.lock().running = None;
            waited?;
            runner.arrives();
            let counters = &self.shared.counters;
            thread.in_call = stub.areas.u32(field(area::SIGNAL)).load(Ordering::Relaxed) == 0;
            if thread.in_call {
                *regs = Call::of(&stub.areas, thread.index).registers();
                counters.syscalls.add();
                counters.patched_calls.add();
                return Ok(Exit::Syscall);
            }
            let frame = Frame::of(&stub.areas, thread.index).map_err(|_| damaged(stub))?;
            // On the way back to the guest, which has not gone on yet: the registers are still those that it was given.
            let exit = if from_call && frame.kicked_in_stub() {
                Some(Exit::Kicked)
            } else {
                frame.stop(regs).and_then(|exit| space.explain(regs, exit))
            };
            match exit {
                Some(Exit::Kicked) => {
                    // One that is not pending came with an exit before, which it has been told by.
                    let pending = std::mem::take(&mut self.kick.state.lock().pending);
                    if pending {
                        counters.kicks.add();
                        return Ok(Exit::Kicked);
                    }
                }
                Some(exit) => {
                    match exit {
                        Exit::Syscall => counters.syscalls.add(),
                        Exit::Fault(_) => counters.faults.add(),
                        _ => counters.traps.add(),
                    }
                    if exit == Exit::Syscall {
                        self.count(space, regs);
                    }
                    return Ok(exit);
                }
                None => {}
            }
        }
    }
}

/// Lets the thread go on. The end of the stub is final.
fn resume(stub: &Stub, thread: Thread, how: u32) -> Result<(), PlatformError> {
    if stub.state(thread.index).swap(how, Ordering::SeqCst) == state::DEAD {
        stub.state(thread.index).store(state::DEAD, Ordering::SeqCst);
        return Err(ended());
    }
    Ok(())
}

/// Waits until the thread has stopped; `watched`: it is to do so without being kicked.
fn wait(
    shared: &Shared,
    stub: &Stub,
    thread: Thread,
    spin: &mut Spin,
    watched: Option<&Kick>,
) -> Result<(), PlatformError> {
    let word = stub.state(thread.index);
    let limit = Duration::from_nanos(spin.next());
    let start = Instant::now();
    loop {
        match word.load(Ordering::Acquire) {
            state::GUEST | state::TAKE_SIGNAL => {}
            state::DEAD => return Err(ended()),
            _ => {
                spin.learn(true);
                return Ok(());
            }
        }
        if start.elapsed() >= limit {
            break;
        }
        std::hint::spin_loop();
    }
    spin.learn(false);
    if let Some(kick) = watched {
        let run = kick.state.lock().run;
        shared.expect_stop(kick.this.clone(), run);
    }
    let sleeps = stub.areas.u32(thread.index * AREA_LEN + area::SENTRY_SLEEPS);
    sleeps.store(1, Ordering::SeqCst);
    shared.counters.sleeps.add();
    let result = loop {
        match word.load(Ordering::SeqCst) {
            turn @ (state::GUEST | state::TAKE_SIGNAL) => futex_wait(word, turn),
            state::DEAD => break Err(ended()),
            _ => break Ok(()),
        }
    };
    sleeps.store(0, Ordering::Relaxed);
    result
}

/// A guest has written nonsense where its registers are kept: the end of that guest.
fn damaged(stub: &Stub) -> PlatformError {
    stub.process.kill();
    host_error("running guest code", std::io::Error::other("it has overwritten its signal frame"))
}

impl Drop for SystrapContext {
    fn drop(&mut self) {
        self.answers.move_to(None);
        if let Some(Attached { stub, thread, runner, .. }) = self.attached.take() {
            runner.leaves();
            stub.give_back(thread);
        }
    }
}

impl Context for SystrapContext {
    fn run(&mut self, space: &Arc<dyn AddressSpace>, regs: &mut Registers) -> Result<Exit, PlatformError> {
        match space.as_any().downcast_ref::<SystrapSpace>() {
            Some(space) if Arc::ptr_eq(&space.shared, &self.shared) => self.run_in(space, regs),
            _ => Err(host_error("run", std::io::Error::other("the address space is another platform's"))),
        }
    }

    fn kicker(&self) -> Arc<dyn Kicker> {
        Arc::clone(&self.kick) as Arc<dyn Kicker>
    }

    fn answers(&self) -> Option<Arc<dyn Answers>> {
        Some(Arc::clone(&self.answers) as Arc<dyn Answers>)
    }

    fn get_extended_state(&mut self, out: &mut [u8]) -> Result<(), PlatformError> {
        self.take_frame()?;
        let cpu = &self.shared.cpu;
        let state = match &self.attached {
            Some(Attached { stub, thread, .. }) => {
                let frame = Frame::of(&stub.areas, thread.index);
                frame.and_then(|frame| frame.extended_state(cpu)).map_err(|_| damaged(stub))?
            }
            None => match &self.saved {
                Some(state) => cpu.export(state.0.clone()),
                None => cpu.fresh(),
            },
        };
        let len = out.len().min(state.0.len());
        out[..len].copy_from_slice(&state.0[..len]);
        out[len..].fill(0);
        Ok(())
    }

    fn set_extended_state(&mut self, state: &[u8]) -> Result<(), PlatformError> {
        self.replace(self.shared.cpu.sanitized(state))
    }

    fn reset_extended_state(&mut self) -> Result<(), PlatformError> {
        self.replace(self.shared.cpu.fresh())
    }
}

impl SystrapContext {
    fn replace(&mut self, state: State) -> Result<(), PlatformError> {
        self.take_frame()?;
        match &self.attached {
            Some(Attached { stub, thread, .. }) => {
                let frame = Frame::of(&stub.areas, thread.index);
                let replaced = frame.and_then(|frame| frame.set_extended_state(&self.shared.cpu, &state));
                replaced.map_err(|Damaged| damaged(stub))
            }
            None => {
                self.saved = Some(state);
                Ok(())
            }
        }
    }
}
