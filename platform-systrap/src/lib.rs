//! The systrap platform: guest code runs in host processes of its own, whose system calls a seccomp filter turns into
//! signals. For hosts without (fast) KVM.
//!
//! - One process per address space, the *stub*. Guest memory is its memory, and guest `fork` its fork. It holds nothing else but
//!   a few pages at the top of its address space (`layout.rs`).
//! - The stub's first thread is the *agent* (`stub.rs`, `agent.rs`): it maps, unmaps and forks at the Sentry's orders. What guest
//!   code might as well do to its own memory, a stopped guest thread does (`errand.rs`).
//! - A guest thread is a thread of the stub. Whatever stops it is a signal, whose handler hands over to the Sentry through a
//!   shared word and waits (`context.rs`); its registers lie in the signal frame (`frame.rs`), in memory that is shared.
//! - Where the code allows it, a system call that is made often is patched (`patch.rs`), so that it comes without a signal
//!   (`call.rs`), or does not come at all (`answers.rs`).
//! - The Sentry copies guest memory by `process_vm_readv` and `process_vm_writev` (`memory.rs`).
//!
//! What keeps guests in: the filters (`filter.rs`), and that nothing in a stub's memory is believed but about the guest
//! itself. Guest code can jump anywhere in the stub, and write to everything that is writable there.
//!
//! All stubs end when the thread ends that made the platform: let that be the main thread.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the stub is written for x86-64");

mod agent;
mod answers;
mod call;
mod context;
mod errand;
mod filter;
mod fpu;
mod frame;
mod layout;
mod memory;
mod patch;
mod pristine;
mod reaper;
mod regions;
mod shared;
mod space;
mod spin;
mod stub;
mod sys;
mod threads;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod patched;
#[cfg(test)]
mod testing;

use std::io;
use std::sync::Arc;

use quicksand_platform::{AddressSpace, Context, Platform, PlatformError};

pub use layout::KICK_SIGNAL;

use context::SystrapContext;
use shared::Shared;
use space::SystrapSpace;

const NAME: &str = "systrap";

pub(crate) fn host_error(what: &'static str, source: io::Error) -> PlatformError {
    PlatformError::Host { platform: NAME, what, source }
}

fn unavailable(reason: impl Into<String>) -> PlatformError {
    PlatformError::Unavailable { platform: NAME, reason: reason.into() }
}

/// One sandbox's stubs.
#[derive(Debug)]
pub struct SystrapPlatform {
    shared: Arc<Shared>,
}

impl SystrapPlatform {
    /// Makes the first stub. To be called by the process's main thread, before it installs a system call filter, and best
    /// before it starts others.
    pub fn new() -> Result<SystrapPlatform, PlatformError> {
        Ok(SystrapPlatform { shared: Arc::new(Shared::new()?) })
    }
}

impl Platform for SystrapPlatform {
    fn name(&self) -> &'static str {
        NAME
    }

    fn address_space(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        Ok(Arc::new(SystrapSpace::new(&self.shared)?))
    }

    fn context(&self) -> Result<Box<dyn Context>, PlatformError> {
        Ok(Box::new(SystrapContext::new(&self.shared)))
    }

    fn extended_state_len(&self) -> usize {
        self.shared.cpu.xsave_len
    }

    fn xcr0(&self) -> u64 {
        self.shared.cpu.xcr0
    }

    fn guest_tsc_offset(&self) -> Option<i64> {
        // Guests read the host's.
        Some(0)
    }

    fn on_loss(&self, notify: Box<dyn Fn() + Send + Sync>) {
        self.shared.on_loss(notify);
    }

    fn guest_time_is_callers(&self) -> bool {
        false
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.shared.counters.all()
    }
}
