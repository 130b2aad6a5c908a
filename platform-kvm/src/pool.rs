//! vCPUs for contexts. A context takes one when it first runs and keeps it until it is dropped, so that its FPU
//! state stays loaded; when the VM has no more to give, an idle one is taken from another context, whose FPU state is
//! then saved for it. So there may be any number of contexts, and as many running as there are vCPUs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};
use quicksand_platform::PlatformError;

use crate::context::{ContextState, Fpu};
use crate::shared::Shared;
use crate::sys::XsaveArea;
use crate::vcpu::Vcpu;
use crate::{NAME, fpu, host_error};

/// A vCPU and whose it is. Locked while it runs.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) inner: Mutex<Held>,
}

#[derive(Debug)]
pub(crate) struct Held {
    /// `None` in a forked Sentry, where it was the parent's; then nobody owns it either.
    pub(crate) vcpu: Option<Vcpu>,
    pub(crate) owner: Option<Arc<ContextState>>,
    /// Its FPU registers hold something other than the initial state.
    used: bool,
}

#[derive(Debug)]
pub(crate) struct VcpuPool {
    state: Mutex<PoolState>,
    /// Told when a vCPU becomes free while somebody waits.
    freed: Condvar,
    waiting: AtomicUsize,
    max: usize,
    mmap_size: usize,
}

#[derive(Debug, Default)]
struct PoolState {
    all: Vec<Arc<Slot>>,
    free: Vec<Arc<Slot>>,
    making: usize,
    /// Where the last search for a victim ended.
    hand: usize,
}

impl VcpuPool {
    pub(crate) fn new(max: usize, mmap_size: usize) -> VcpuPool {
        VcpuPool {
            state: Mutex::new(PoolState::default()),
            freed: Condvar::new(),
            waiting: AtomicUsize::new(0),
            max: max.max(1),
            mmap_size,
        }
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// A vCPU for `state`, with its FPU state loaded. `None` when a kick came while waiting for one.
    pub(crate) fn take(
        &self,
        shared: &Arc<Shared>,
        state: &Arc<ContextState>,
    ) -> Result<Option<Arc<Slot>>, PlatformError> {
        let Some(slot) = self.find(shared, state)? else { return Ok(None) };
        let adopted = slot.inner.lock().adopt(state);
        if let Err(e) = adopted {
            self.put(slot);
            return Err(e);
        }
        Ok(Some(slot))
    }

    /// A vCPU without an owner. It is on no list, so it is the caller's alone.
    fn find(&self, shared: &Arc<Shared>, state: &ContextState) -> Result<Option<Arc<Slot>>, PlatformError> {
        let mut pool = self.state.lock();
        if let Some(slot) = pool.free.pop() {
            return Ok(Some(slot));
        }
        let id = pool.all.len() + pool.making;
        if id < self.max {
            pool.making += 1;
            drop(pool);
            let made = self.make(shared, id as u32);
            let mut pool = self.state.lock();
            pool.making -= 1;
            let slot = made?;
            pool.all.push(Arc::clone(&slot));
            shared.counters.vcpus.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(slot));
        }
        // Announced before looking: whoever stops running from here on tells us.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let found = loop {
            if let Some(slot) = pool.free.pop() {
                break Ok(Some(slot));
            }
            match steal(shared, &mut pool) {
                Ok(None) if state.is_kicked() => break Ok(None),
                Ok(None) => self.freed.wait(&mut pool),
                found => break found,
            }
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        found
    }

    fn make(&self, shared: &Arc<Shared>, id: u32) -> Result<Arc<Slot>, PlatformError> {
        let fd =
            shared.window.create_vcpu(id, self.mmap_size).map_err(|e| host_error("KVM_CREATE_VCPU", e))?;
        let page = shared.supervisor.vcpu_page(&shared.window, id)?;
        let vcpu = Vcpu::new(fd, page, &shared.cpu).map_err(|e| host_error("setting up a vCPU", e))?;
        Ok(Arc::new(Slot { inner: Mutex::new(Held { vcpu: Some(vcpu), owner: None, used: false }) }))
    }

    /// A context is done with its vCPU.
    pub(crate) fn give_back(&self, slot: &Arc<Slot>, state: &Arc<ContextState>) {
        let mut held = slot.inner.lock();
        if held.is_owned_by(state) {
            held.owner = None;
            drop(held);
            self.put(Arc::clone(slot));
        }
    }

    /// Takes all vCPUs from their owners, whose FPU states are kept for them. None may be running.
    pub(crate) fn evict_all(&self) -> Result<(), PlatformError> {
        let mut pool = self.state.lock();
        for slot in &pool.all {
            let Some(mut held) = slot.inner.try_lock() else {
                return Err(host_error(
                    "parking vCPUs",
                    std::io::Error::other("a guest thread is still running"),
                ));
            };
            held.evict()?;
        }
        pool.free = pool.all.clone();
        Ok(())
    }

    /// In a forked Sentry, after `evict_all`: lets go of vCPUs that are the parent's.
    pub(crate) fn disown(&self) {
        let mut pool = self.state.lock();
        for slot in &pool.all {
            slot.inner.lock().vcpu = None;
        }
        pool.all.clear();
        pool.free.clear();
    }

    fn put(&self, slot: Arc<Slot>) {
        self.state.lock().free.push(slot);
        self.wake_waiters();
    }

    /// Something changed for those who wait for a vCPU: one went idle, or one of them was kicked.
    pub(crate) fn wake_waiters(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // Under the lock, so that nobody is between looking and waiting.
            let _pool = self.state.lock();
            self.freed.notify_all();
        }
    }
}

impl Held {
    pub(crate) fn is_owned_by(&self, state: &Arc<ContextState>) -> bool {
        self.owner.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, state))
    }

    /// Takes the vCPU from its owner, who gets its FPU state to keep.
    fn evict(&mut self) -> Result<(), PlatformError> {
        if let (Some(owner), Some(vcpu)) = (&self.owner, &self.vcpu) {
            let mut area = Box::new(XsaveArea([0; 4096]));
            vcpu.xsave(&mut area).map_err(|e| host_error("KVM_GET_XSAVE", e))?;
            *owner.fpu.lock() = Fpu::Saved(area);
        }
        self.owner = None;
        Ok(())
    }

    fn adopt(&mut self, state: &Arc<ContextState>) -> Result<(), PlatformError> {
        let Some(vcpu) = self.vcpu.as_mut() else {
            return Err(PlatformError::Exhausted {
                platform: NAME,
                what: "vCPUs (this one is another process's)",
            });
        };
        let mut theirs = state.fpu.lock();
        let load = match &*theirs {
            Fpu::Saved(area) => Some(&**area),
            Fpu::Fresh | Fpu::Loaded => None,
        };
        if let Some(area) = load {
            vcpu.fd.set_xsave(area).map_err(|e| host_error("KVM_SET_XSAVE", e))?;
        } else if self.used {
            vcpu.fd.set_xsave(&fpu::fresh()).map_err(|e| host_error("KVM_SET_XSAVE", e))?;
        }
        *theirs = Fpu::Loaded;
        if self.used {
            vcpu.reset_segments();
        }
        self.used = true;
        self.owner = Some(Arc::clone(state));
        Ok(())
    }
}

/// Takes an idle vCPU from whoever has it.
fn steal(shared: &Shared, pool: &mut MutexGuard<'_, PoolState>) -> Result<Option<Arc<Slot>>, PlatformError> {
    let count = pool.all.len();
    for step in 1..=count {
        let at = (pool.hand + step) % count;
        let slot = Arc::clone(&pool.all[at]);
        let Some(mut held) = slot.inner.try_lock() else { continue };
        if held.owner.is_none() {
            continue;
        }
        held.evict()?;
        pool.hand = at;
        shared.counters.vcpu_steals.fetch_add(1, Ordering::Relaxed);
        drop(held);
        return Ok(Some(slot));
    }
    Ok(None)
}
