//! A guest thread's side of a vCPU: running it, kicking it, its FPU state.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Once, Weak};

use parking_lot::Mutex;
use quicksand_abi::UserAddr;
use quicksand_platform::{
    Access, AddressSpace, Context, Exit, Fault, FaultCause, Kicker, PlatformError, Registers, Trap,
};

use crate::pool::Slot;
use crate::shared::Shared;
use crate::space::KvmSpace;
use crate::sys::XsaveArea;
use crate::vcpu::{Broken, Stop, Vcpu};
use crate::{NAME, fpu, host_error};

/// How often a host fault is taken for a momentary one before the page is examined.
const PATIENCE: u32 = 3;
/// Retries of one instruction after which guest and host evidently disagree about a page.
const MAX_RETRIES: u32 = 10_000;

const INVALID_OPCODE: u8 = 6;
const GENERAL_PROTECTION: u8 = 13;

/// Page-fault error code bits.
const ERROR_WRITE: u32 = 1 << 1;
const ERROR_USER: u32 = 1 << 2;
const ERROR_FETCH: u32 = 1 << 4;

/// Where a context's FPU state is.
#[derive(Debug)]
pub(crate) enum Fpu {
    /// As after `execve`; nowhere yet.
    Fresh,
    Saved(Box<XsaveArea>),
    /// In the vCPU that the context owns.
    Loaded,
}

/// What a context, its kickers and its vCPU share.
#[derive(Debug)]
pub(crate) struct ContextState {
    pub(crate) fpu: Mutex<Fpu>,
    kick: Mutex<KickState>,
    shared: Weak<Shared>,
}

#[derive(Debug, Default)]
struct KickState {
    pending: bool,
    running: Option<Running>,
}

/// The thread inside `run`, and the byte that keeps its vCPU out of the guest.
#[derive(Clone, Copy, Debug)]
struct Running {
    thread: libc::pthread_t,
    immediate_exit: *const AtomicU8,
}

// SAFETY: the pointer is used while the kick lock is held and `running` is set, and `run` clears that under the same
// lock before it lets go of the vCPU whose page the byte is in. The byte is only ever accessed atomically.
unsafe impl Send for Running {}

impl ContextState {
    pub(crate) fn is_kicked(&self) -> bool {
        self.kick.lock().pending
    }

    /// `false`, and the kick is used up, when one is pending.
    fn begin(&self, immediate_exit: *const AtomicU8) -> bool {
        let mut kick = self.kick.lock();
        if std::mem::take(&mut kick.pending) {
            return false;
        }
        // SAFETY: plain query of the calling thread.
        let thread = unsafe { libc::pthread_self() };
        kick.running = Some(Running { thread, immediate_exit });
        true
    }

    /// Ends what `begin` began. A kick from now on is for the next run.
    fn end(&self, exit_is_kick: bool) {
        let mut kick = self.kick.lock();
        if let Some(running) = kick.running.take() {
            // SAFETY: see `Running`.
            unsafe { (*running.immediate_exit).store(0, Ordering::Relaxed) };
        }
        if exit_is_kick {
            kick.pending = false;
        }
    }
}

impl Kicker for ContextState {
    fn kick(&self) {
        let mut kick = self.kick.lock();
        kick.pending = true;
        if let Some(running) = kick.running {
            // SAFETY: see `Running`; the thread is inside `run`, which cannot return before we unlock.
            unsafe {
                (*running.immediate_exit).store(1, Ordering::SeqCst);
                libc::pthread_kill(running.thread, kick_signal());
            }
            return;
        }
        drop(kick);
        if let Some(shared) = self.shared.upgrade() {
            shared.vcpus.wake_waiters();
        }
    }
}

/// The signal that gets a thread out of KVM_RUN.
fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN() + 6
}

extern "C" fn on_kick(_: libc::c_int) {}

/// Makes the kick signal harmless, once per process, and deliverable, once per thread.
fn prepare_thread() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: a handler that does nothing may run anywhere. KVM_RUN returns on any signal; SA_RESTART spares other
        // calls that a late signal meets.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_kick as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(kick_signal(), &raw const action, std::ptr::null_mut());
        }
    });
    thread_local! { static PREPARED: Cell<bool> = const { Cell::new(false) } }
    if !PREPARED.replace(true) {
        // SAFETY: changes the calling thread's mask by one signal that this module owns.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, kick_signal());
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct KvmContext {
    shared: Arc<Shared>,
    state: Arc<ContextState>,
    slot: Option<Arc<Slot>>,
}

impl KvmContext {
    pub(crate) fn new(shared: &Arc<Shared>) -> KvmContext {
        let state = ContextState {
            fpu: Mutex::new(Fpu::Fresh),
            kick: Mutex::new(KickState::default()),
            shared: Arc::downgrade(shared),
        };
        KvmContext { shared: Arc::clone(shared), state: Arc::new(state), slot: None }
    }

    /// Calls `f` with this context's vCPU if it still has one.
    fn with_vcpu<R>(&self, f: impl FnOnce(&mut Vcpu) -> R) -> Option<R> {
        let slot = self.slot.as_ref()?;
        let mut held = slot.inner.lock();
        if !held.is_owned_by(&self.state) {
            return None;
        }
        held.vcpu.as_mut().map(f)
    }

    fn run_in(&mut self, space: &KvmSpace, regs: &mut Registers) -> Result<Exit, PlatformError> {
        if let Some(exit) = self.refuse(regs) {
            return Ok(exit);
        }
        loop {
            if self.with_vcpu(|_| ()).is_none() {
                match self.shared.vcpus.take(&self.shared, &self.state)? {
                    Some(slot) => self.slot = Some(slot),
                    None => {
                        self.state.end(true);
                        return Ok(Exit::Kicked);
                    }
                }
            }
            let slot = self.slot.clone().ok_or(PlatformError::Exhausted { platform: NAME, what: "vCPUs" })?;
            let mut held = slot.inner.lock();
            if !held.is_owned_by(&self.state) {
                // Taken from us before we locked it.
                continue;
            }
            let Some(vcpu) = held.vcpu.as_mut() else { continue };
            let run = vcpu.fd.run_ptr();
            // SAFETY: the byte lies in the shared page, which lives as long as the vCPU.
            let immediate_exit = unsafe { (&raw const (*run.as_ptr()).immediate_exit).cast::<AtomicU8>() };
            if !self.state.begin(immediate_exit) {
                return Ok(Exit::Kicked);
            }
            let result = self.run_vcpu(vcpu, space, regs);
            self.state.end(matches!(result, Ok(Exit::Kicked)));
            drop(held);
            self.shared.vcpus.wake_waiters();
            return result;
        }
    }

    /// What a processor could not even begin to run. Linux finds these in IRETQ, or at the first fetch.
    fn refuse(&self, regs: &mut Registers) -> Option<Exit> {
        if regs.rip < UserAddr::TASK_SIZE.0 {
            return None;
        }
        if self.state.is_kicked() {
            self.state.end(true);
            return Some(Exit::Kicked);
        }
        let canonical = regs.rip < 1 << 47 || regs.rip >= !0 << 47;
        Some(if canonical {
            Exit::Fault(Fault {
                addr: UserAddr(regs.rip),
                access: Access::Execute,
                cause: FaultCause::Unmapped,
                error_code: ERROR_USER | ERROR_FETCH,
            })
        } else {
            Exit::Trap(Trap { vector: GENERAL_PROTECTION, error_code: 0, dr6: 0 })
        })
    }

    fn run_vcpu(
        &self,
        vcpu: &mut Vcpu,
        space: &KvmSpace,
        regs: &mut Registers,
    ) -> Result<Exit, PlatformError> {
        let window = &self.shared.window;
        let counters = &self.shared.counters;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.fetch_add(1, Ordering::Relaxed);

        vcpu.load_root(space.root);
        vcpu.load(window, regs);
        let mut host_faults = 0;
        let mut retries = 0;
        loop {
            let stop = vcpu.enter(window, regs).map_err(|Broken { what, source }| PlatformError::Host {
                platform: NAME,
                what,
                source,
            })?;
            match stop {
                Stop::Syscall { by_fault } => {
                    count(&counters.syscalls);
                    if by_fault {
                        count(&counters.syscall_faults);
                    }
                    return Ok(Exit::Syscall);
                }
                Stop::PageFault { addr, error_code } => {
                    let access = match error_code {
                        code if code & ERROR_FETCH != 0 => Access::Execute,
                        code if code & ERROR_WRITE != 0 => Access::Write,
                        _ => Access::Read,
                    };
                    match space.resolve(UserAddr(addr), access) {
                        Ok(()) => {
                            count(&counters.faults_resolved);
                            host_faults = 0;
                            retries += 1;
                            if retries > MAX_RETRIES && !self.state.is_kicked() {
                                let text = format!("{access:?} of {addr:#x} faults again and again");
                                return Err(host_error("resolving a page fault", io::Error::other(text)));
                            }
                            vcpu.retry();
                        }
                        Err(cause) => {
                            count(&counters.faults);
                            return Ok(Exit::Fault(Fault {
                                addr: UserAddr(addr),
                                access,
                                cause,
                                error_code,
                            }));
                        }
                    }
                }
                Stop::Trap { vector, error_code, dr6 } => {
                    count(&counters.traps);
                    let trap = Trap { vector, error_code, dr6 };
                    return Ok(Exit::Trap(software_interrupt(space, regs.rip, trap).unwrap_or(trap)));
                }
                Stop::Interrupted => {
                    if self.state.is_kicked() {
                        count(&counters.kicks);
                        return Ok(Exit::Kicked);
                    }
                    // Some other signal.
                    vcpu.load(window, regs);
                }
                Stop::HostFault { gpa } => {
                    count(&counters.host_faults);
                    host_faults += 1;
                    // Wait for whoever has lowered a protection.
                    drop(window.revoking.lock());
                    if host_faults > PATIENCE {
                        // The next touch is then a page fault of the guest's, with its exact address.
                        space.suspect(gpa);
                        if host_faults > 3 * PATIENCE {
                            let text = format!("KVM cannot reach guest memory at {gpa:x?}");
                            return Err(host_error("KVM_RUN", io::Error::other(text)));
                        }
                    }
                }
            }
        }
    }
}

/// `int n` with a gate that ring 3 may not use is a #GP whose error code names the gate: `n * 8 + 2`. Where KVM emulates
/// instructions that fault in ring 3 it gives #UD instead, and emulated processors get the code wrong; no real one does
/// either, so this is what it should have been.
fn software_interrupt(space: &KvmSpace, rip: u64, trap: Trap) -> Option<Trap> {
    let mut code = [0; 2];
    let possible =
        trap.vector == INVALID_OPCODE || trap.vector == GENERAL_PROTECTION && trap.error_code & 2 != 0;
    if !possible || space.read_guest(UserAddr(rip), &mut code).is_err() || code[0] != 0xcd {
        return None;
    }
    Some(Trap { vector: GENERAL_PROTECTION, error_code: u32::from(code[1]) << 3 | 2, dr6: 0 })
}

impl Drop for KvmContext {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.shared.vcpus.give_back(&slot, &self.state);
        }
    }
}

impl Context for KvmContext {
    fn run(&mut self, space: &Arc<dyn AddressSpace>, regs: &mut Registers) -> Result<Exit, PlatformError> {
        prepare_thread();
        match space.as_any().downcast_ref::<KvmSpace>() {
            Some(space) if Arc::ptr_eq(&space.shared, &self.shared) => self.run_in(space, regs),
            _ => Err(host_error("run", io::Error::other("the address space is another platform's"))),
        }
    }

    fn prepare(&mut self) -> Result<(), PlatformError> {
        if self.with_vcpu(|_| ()).is_none() {
            self.slot = self.shared.vcpus.take(&self.shared, &self.state)?;
        }
        Ok(())
    }

    fn kicker(&self) -> Arc<dyn Kicker> {
        Arc::clone(&self.state) as Arc<dyn Kicker>
    }

    fn get_extended_state(&mut self, out: &mut [u8]) -> Result<(), PlatformError> {
        let mut area = Box::new(XsaveArea([0; 4096]));
        let loaded = self.with_vcpu(|vcpu| vcpu.xsave(&mut area));
        match loaded {
            Some(done) => done.map_err(|e| host_error("KVM_GET_XSAVE", e))?,
            None => match &*self.state.fpu.lock() {
                Fpu::Saved(saved) => area = saved.clone(),
                Fpu::Fresh | Fpu::Loaded => area = fpu::fresh(),
            },
        }
        fpu::export(&mut area, self.shared.cpu.xcr0);
        let len = out.len().min(self.shared.cpu.xsave_len);
        out[..len].copy_from_slice(&area.0[..len]);
        out[len..].fill(0);
        Ok(())
    }

    fn set_extended_state(&mut self, state: &[u8]) -> Result<(), PlatformError> {
        let state = &state[..state.len().min(self.shared.cpu.xsave_len)];
        self.replace_fpu(fpu::sanitized(state, self.shared.cpu.xcr0))
    }

    fn reset_extended_state(&mut self) -> Result<(), PlatformError> {
        self.replace_fpu(fpu::fresh())
    }
}

impl KvmContext {
    /// For measuring: into ring 0 of the vCPU that this context has, and out at once.
    pub(crate) fn ring0_round_trip(&self) -> Result<(), PlatformError> {
        match self.with_vcpu(|vcpu| vcpu.ring0_round_trip()) {
            Some(done) => done.map_err(|Broken { what, source }| host_error(what, source)),
            None => Err(PlatformError::Exhausted { platform: NAME, what: "vCPUs" }),
        }
    }

    fn replace_fpu(&mut self, area: Box<XsaveArea>) -> Result<(), PlatformError> {
        match self.with_vcpu(|vcpu| vcpu.fd.set_xsave(&area)) {
            Some(done) => done.map_err(|e| host_error("KVM_SET_XSAVE", e)),
            None => {
                *self.state.fpu.lock() = Fpu::Saved(area);
                Ok(())
            }
        }
    }
}
