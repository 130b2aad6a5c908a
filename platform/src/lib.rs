//! The Platform: what runs guest instructions and owns guest pages. Traits, registers and exits; nothing else.
//!
//! The division of labour (the first idea of the design): *the platform owns pages, the Sentry owns VMAs*. Guest
//! memory is ordinary private host memory, so that the host kernel does demand paging and copy-on-write. The Sentry
//! keeps the VMA tree and tells an [`AddressSpace`] what to map where; a platform never names a kernel object, and
//! nothing above this crate knows which platform it runs on.
//!
//! Invariants that every platform keeps, and that the Sentry relies on:
//!
//! - Ranges handed to an [`AddressSpace`] are page-aligned and not empty; what is mapped lies below `UserAddr::MAP_END`.
//! - When `unmap`, `protect`, `map` or `fork` return, no guest instruction that starts afterwards, on any thread, can
//!   use a translation that they took away or made read-only.
//! - A guest access that the mapping allows never surfaces as an [`Exit::Fault`]: the platform resolves it itself.
//! - `read`, `write` and `compare_exchange` respect the guest's own protection, as `copy_from_user` does.
//! - Nothing that guest code does makes a platform panic.
#![forbid(unsafe_code)]

mod registers;
mod space;

use std::fmt;
use std::sync::Arc;

use quicksand_abi::UserAddr;

pub use registers::{EFLAGS_USER_MASK, Registers};
pub use space::{AddressSpace, Advice, Backing, Mapping, MemFault, Prot};

/// Why a platform could not be made, or could not go on. These are host-side failures: each message says what
/// failed and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The host lacks what this platform needs.
    #[error("{platform} is not available: {reason}")]
    Unavailable { platform: &'static str, reason: String },
    /// A host call failed.
    #[error("{platform}: {what} failed: {source}")]
    Host { platform: &'static str, what: &'static str, source: std::io::Error },
    /// The host is out of memory, or out of the platform's own resources (window, slots, vCPUs, processes).
    #[error("{platform}: out of {what}")]
    Exhausted { platform: &'static str, what: &'static str },
}

/// One sandbox's machine: it makes address spaces and contexts. One per Sentry.
pub trait Platform: Send + Sync + fmt::Debug {
    /// The name that `--platform` takes: `kvm`, `systrap`.
    fn name(&self) -> &'static str;

    /// A new, empty address space.
    fn address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError>;

    /// A new execution context, for one guest thread. Contexts are cheap to make and to drop: what is costly behind
    /// them (a vCPU, a stub thread) is taken when first needed by [`Context::run`] and may be pooled.
    fn context(&self) -> Result<Box<dyn Context>, PlatformError>;

    /// Bytes of a guest thread's extended state (XSAVE area, standard format), constant per platform.
    fn extended_state_len(&self) -> usize;

    /// The XCR0 value that guests see: which XSAVE components an extended state holds.
    fn xcr0(&self) -> u64;

    /// What guest code reads as the time stamp counter, less what the host reads at that moment; `None` where that is not
    /// constant or not known. Programs read their clocks by it, without an exit.
    fn guest_tsc_offset(&self) -> Option<i64> {
        None
    }

    /// Whether guest code runs on the very thread that calls [`Context::run`], so that its processor time is that thread's.
    fn guest_time_is_callers(&self) -> bool {
        true
    }

    /// Has `notify` called whenever an address space [is lost](AddressSpace::is_lost), on a thread of the platform's own.
    /// To be called once, before there is any.
    fn on_loss(&self, _notify: Box<dyn Fn() + Send + Sync>) {}

    /// Counters since the start, for metrics and tests: exits by kind and the like, as `(name, value)`.
    fn counters(&self) -> Vec<(&'static str, u64)>;

    /// Called before the Sentry forks itself (`sfork`), when no context runs and none will until the fork is made: puts
    /// what cannot be inherited where the child finds it. The parent may go on running afterwards.
    fn before_sentry_fork(&self) -> Result<(), PlatformError> {
        Err(PlatformError::Unavailable {
            platform: self.name(),
            reason: "it cannot fork a running sandbox".into(),
        })
    }

    /// Called in the child of that fork, before any context runs or address space is changed there. Address spaces and
    /// contexts go on where they were, without sharing anything with the parent's.
    fn after_sentry_fork_in_child(&self) -> Result<(), PlatformError> {
        Err(PlatformError::Unavailable {
            platform: self.name(),
            reason: "it cannot fork a running sandbox".into(),
        })
    }
}

/// The state that belongs to one guest thread and lives in the platform: FPU/SSE/AVX registers, and whatever runs it.
/// General registers travel through [`Context::run`].
pub trait Context: Send + fmt::Debug {
    /// Runs guest code in `space` from `regs` until something needs the Sentry. On return `regs` holds the guest's
    /// state at the exit. For [`Exit::Syscall`], `rip` is past the instruction, `rax` and `orig_rax` both hold the
    /// number, and `rcx`/`r11` are as hardware leaves them. May be called from any thread, one call at a time.
    fn run(&mut self, space: &Arc<dyn AddressSpace>, regs: &mut Registers) -> Result<Exit, PlatformError>;

    /// Takes now what [`Context::run`] would take when it is first called (a vCPU, a stub thread), so that the call after this
    /// one starts guest code at once.
    fn prepare(&mut self) -> Result<(), PlatformError> {
        Ok(())
    }

    /// A handle that makes `run` return [`Exit::Kicked`]. Stays valid (and harmless) after the context is dropped.
    fn kicker(&self) -> Arc<dyn Kicker>;

    /// Where answers can be left for the guest thread, if the platform uses them. Stays valid (and harmless) after the context
    /// is dropped.
    fn answers(&self) -> Option<Arc<dyn Answers>> {
        None
    }

    /// Copies the XSAVE area (standard format) into `out`, whose length is [`Platform::extended_state_len`].
    fn get_extended_state(&mut self, out: &mut [u8]) -> Result<(), PlatformError>;

    /// Replaces it. The bytes come from the guest (a signal frame) or an image: whatever they hold must not fault in
    /// the host; reserved bits are cleared, and components that the guest does not have are ignored.
    fn set_extended_state(&mut self, state: &[u8]) -> Result<(), PlatformError>;

    /// Back to the state of a fresh `execve`: default FCW and MXCSR, all registers zero.
    fn reset_extended_state(&mut self) -> Result<(), PlatformError>;
}

/// Answers to system calls of one guest thread that depend on none of their arguments and change only when the Sentry says so. A
/// platform may give such an answer without an exit, or ignore all this.
pub trait Answers: Send + Sync + fmt::Debug {
    /// From now on the call `number` is answered by `value`; `None`: as any other call, by an exit. When this returns, no
    /// call that begins afterwards is given an earlier answer.
    fn set(&self, number: u64, value: Option<u64>);
}

/// Makes a [`Context::run`], now or at its next call, return [`Exit::Kicked`]. A kick is never lost: one that comes
/// before `run` is called ends that call at once. Several kicks before one return count as one.
pub trait Kicker: Send + Sync + fmt::Debug {
    fn kick(&self);
}

/// Why guest code stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A `syscall` instruction. The number and arguments are in the registers.
    Syscall,
    /// A memory access that the mapping does not allow. `rip` is the faulting instruction.
    Fault(Fault),
    /// Any other exception, by its vector.
    Trap(Trap),
    /// Somebody called [`Kicker::kick`].
    Kicked,
}

/// A memory fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The exact address, as in CR2.
    pub addr: UserAddr,
    pub access: Access,
    pub cause: FaultCause,
    /// The page-fault error code as Linux reports it in `sigcontext.err`.
    pub error_code: u32,
}

/// What the faulting instruction wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// Why the platform could not resolve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultCause {
    /// Nothing is mapped there, or the protection forbids it: the VMAs say which (SIGSEGV, or stack growth).
    Unmapped,
    /// The mapping allows it but the host has no page: beyond the end of the file behind it, or its storage is full
    /// or broken (SIGBUS).
    Bus,
}

/// A processor exception other than a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Vector number: 0 #DE, 1 #DB, 3 #BP, 4 #OF, 5 #BR, 6 #UD, 13 #GP, 16 #MF, 17 #AC, 19 #XM.
    pub vector: u8,
    /// The error code where the vector has one, else 0.
    pub error_code: u32,
    /// For #DB: DR6. Otherwise 0.
    pub dr6: u64,
}
