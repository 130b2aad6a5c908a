//! What all address spaces and contexts of a platform share.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use quicksand_platform::PlatformError;

use crate::agent::Line;
use crate::fpu::{self, Cpu};
use crate::layout::{GLOBALS_LEN, TABLE_LEN, globals};
use crate::reaper::{Kicked, Notify, Process, Reaper};
use crate::sys::SharedMemory;
use crate::threads::Stub;
use crate::{host_error, patch, pristine, sys, unavailable};

pub(crate) struct Shared {
    pub(crate) cpu: Cpu,
    pub(crate) counters: Counters,
    pub(crate) can_patch: bool,
    /// The stub that others are forked from.
    pristine: Arc<Stub>,
    /// Started with the first address space: not before the Sentry has confined itself, since a thread must not be left out.
    reaper: OnceLock<Arc<Reaper>>,
    starting_reaper: Mutex<()>,
    loss: Arc<OnceLock<Notify>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("cpu", &self.cpu)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new() -> Result<Shared, PlatformError> {
        const HWCAP2_FSGSBASE: u64 = 1 << 1;
        // SAFETY: reads the process's own auxiliary vector.
        if unsafe { libc::getauxval(libc::AT_HWCAP2) } & HWCAP2_FSGSBASE == 0 {
            return Err(unavailable("it needs a processor and a kernel with FSGSBASE (Linux 5.9 or later)"));
        }
        let cpu = fpu::cpu().ok_or_else(|| unavailable("the processor or the kernel has no XSAVE"))?;
        let failed = |what: &'static str| move |e: io::Error| host_error(what, e);
        let globals_len = GLOBALS_LEN + TABLE_LEN;
        let (page, globals_fd) = SharedMemory::new("stub-globals", globals_len).map_err(failed("memfd"))?;
        page.write(GLOBALS_LEN, &patch::table());
        page.u64(globals::SENTRY_PID).store(std::process::id().into(), Ordering::Relaxed);
        let (at, len) = (globals::PROCESSORS, globals::PROCESSORS_LEN);
        page.write(at, &sys::processors(len).map_err(failed("sched_getaffinity"))?);
        let (line, areas, dowry) = Line::new().map_err(failed("making a stub's pages"))?;
        pristine::make(dowry, &globals_fd)?;
        let pid = line.await_birth().map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                unavailable("its first process ended while it was made; seccomp filters must be allowed here")
            }
            _ => host_error("waiting for the first stub", e),
        })?;
        let process = Process::new(pid).map_err(failed("pidfd_open"))?;
        let pristine = Arc::new(Stub::new(Arc::new(process), line, areas, false));
        Ok(Shared {
            cpu,
            counters: Counters::default(),
            can_patch: sys::can_patch_code(),
            pristine,
            reaper: OnceLock::new(),
            starting_reaper: Mutex::new(()),
            loss: Arc::default(),
        })
    }

    pub(crate) fn on_loss(&self, notify: Notify) {
        if self.loss.set(notify).is_err() {
            tracing::warn!("only the first is told of lost address spaces");
        }
    }

    fn reaper(&self) -> Result<&Arc<Reaper>, PlatformError> {
        if let Some(reaper) = self.reaper.get() {
            return Ok(reaper);
        }
        let _guard = self.starting_reaper.lock();
        if self.reaper.get().is_none() {
            let reaper =
                Reaper::start(self.loss.clone()).map_err(|e| host_error("starting the reaper", e))?;
            self.watch(&reaper, &self.pristine)?;
            let _ = self.reaper.set(reaper);
        }
        self.reaper.get().ok_or(PlatformError::Exhausted { platform: crate::NAME, what: "threads" })
    }

    /// A run that was kicked is to end.
    pub(crate) fn expect_stop(&self, kicked: Weak<dyn Kicked>, run: u64) {
        // There is one wherever guest code runs.
        if let Some(reaper) = self.reaper.get() {
            reaper.expect_stop(kicked, run);
        }
    }

    fn watch(&self, reaper: &Reaper, stub: &Arc<Stub>) -> Result<(), PlatformError> {
        let weak = Arc::downgrade(stub);
        reaper.watch(&stub.process, weak).map_err(|e| host_error("watching a stub", e))
    }

    #[cfg(test)]
    pub(crate) fn pristine_pid(&self) -> i32 {
        self.pristine.process.pid()
    }

    /// A stub with nothing mapped.
    pub(crate) fn new_stub(&self) -> Result<Arc<Stub>, PlatformError> {
        self.fork_stub(&self.pristine)
    }

    /// A stub with the memory that `of` has now.
    pub(crate) fn fork_stub(&self, of: &Stub) -> Result<Arc<Stub>, PlatformError> {
        let reaper = self.reaper()?;
        let stub = Arc::new(of.fork(&self.cpu)?);
        self.watch(reaper, &stub)?;
        self.counters.forks.add();
        Ok(stub)
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) syscalls: Counter,
    pub(crate) faults: Counter,
    pub(crate) traps: Counter,
    pub(crate) kicks: Counter,
    /// Times that the Sentry slept while guest code ran.
    pub(crate) sleeps: Counter,
    pub(crate) forks: Counter,
    pub(crate) threads: Counter,
    pub(crate) orders: Counter,
    pub(crate) errands: Counter,
    /// System calls that came without a signal, and sites that were patched for that.
    pub(crate) patched_calls: Counter,
    pub(crate) patched_sites: Counter,
}

impl Counters {
    pub(crate) fn all(&self) -> Vec<(&'static str, u64)> {
        let get = |c: &Counter| c.0.load(Ordering::Relaxed);
        vec![
            ("syscalls", get(&self.syscalls)),
            ("faults", get(&self.faults)),
            ("traps", get(&self.traps)),
            ("kicks", get(&self.kicks)),
            ("sleeps", get(&self.sleeps)),
            ("stub_forks", get(&self.forks)),
            ("stub_threads", get(&self.threads)),
            ("stub_orders", get(&self.orders)),
            ("stub_errands", get(&self.errands)),
            ("patched_calls", get(&self.patched_calls)),
            ("patched_sites", get(&self.patched_sites)),
        ]
    }
}
