//! Page faults that the platform could not resolve, and stacks that grow.

use std::sync::atomic::Ordering;

use quicksand_abi::{Errno, PAGE_SIZE, UserAddr, UserRange};
use quicksand_platform::{Access, FaultCause};

use super::vma::{VmFlags, Vma};
use super::{Inner, Limits, MMAP_MIN_ADDR, MemoryManager, STACK_GUARD_GAP};

/// How far the first stack grows at once: every growth is an exit from guest code.
const STACK_STEP: u64 = 64 * PAGE_SIZE;

/// What becomes of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultOutcome {
    /// The access is possible now: run on.
    Resolved,
    /// SIGSEGV with SEGV_MAPERR: nothing is mapped there.
    NotMapped,
    /// SIGSEGV with SEGV_ACCERR: the protection forbids it.
    Forbidden,
    /// SIGBUS with BUS_ADRERR: mapped, but there is nothing behind it.
    Bus,
}

impl MemoryManager {
    /// Answers a fault in guest code. `stack_limit` is the task's RLIMIT_STACK in bytes.
    pub fn handle_fault(
        &self,
        addr: UserAddr,
        access: Access,
        cause: FaultCause,
        stack_limit: u64,
    ) -> FaultOutcome {
        self.stack_limit.store(stack_limit, Ordering::Relaxed);
        {
            let inner = self.read();
            match inner.tree.find(addr) {
                Some(vma) => {
                    let allowed = match access {
                        Access::Read => vma.prot.any(),
                        Access::Write => vma.prot.write,
                        Access::Execute => vma.prot.execute,
                    };
                    return match (allowed, cause) {
                        // Linux brings the page in before it finds that it may not be executed, if there is one.
                        (false, _) if access == Access::Execute && vma.prot.any() => {
                            match self.space.read(addr, &mut [0]) {
                                Ok(()) => FaultOutcome::Forbidden,
                                Err(_) => FaultOutcome::Bus,
                            }
                        }
                        (false, _) => FaultOutcome::Forbidden,
                        (true, FaultCause::Bus) => FaultOutcome::Bus,
                        // Another thread changed the mapping after the fault: try again.
                        (true, FaultCause::Unmapped) => FaultOutcome::Resolved,
                    };
                }
                None if !grows_over(&inner, addr) => return FaultOutcome::NotMapped,
                None => {}
            }
        }
        match self.write().grow_stack(addr, stack_limit) {
            Ok(()) => FaultOutcome::Resolved,
            Err(_) => FaultOutcome::NotMapped,
        }
    }

    /// Grows a stack over `addr` for a copy that failed there. False where there is none, or it may not grow.
    pub(super) fn grow_stack_to(&self, addr: UserAddr) -> bool {
        if !grows_over(&self.read(), addr) {
            return false;
        }
        self.write().grow_stack(addr, self.stack_limit.load(Ordering::Relaxed)).is_ok()
    }
}

/// Whether the mapping next above `addr`, which is not mapped, grows down.
fn grows_over(inner: &Inner, addr: UserAddr) -> bool {
    addr < UserAddr::TASK_SIZE
        && inner
            .tree
            .find_from(addr)
            .is_some_and(|v| addr < v.start() && v.flags.contains(VmFlags::GROWSDOWN))
}

impl Inner {
    /// `expand_downwards`: extends the mapping above `addr` to include its page.
    fn grow_stack(&mut self, addr: UserAddr, stack_limit: u64) -> Result<(), Errno> {
        let Some(vma) = self.tree.find_from(addr) else { return Err(Errno::ENOMEM) };
        if vma.start() <= addr {
            return Ok(()); // another thread was faster
        }
        if !vma.flags.contains(VmFlags::GROWSDOWN) {
            return Err(Errno::ENOMEM);
        }
        let vma = vma.clone();
        let exact = addr.page_floor();
        let first_stack = vma.range.contains(self.marks.start_stack);
        let ahead = UserAddr(exact.0.min(vma.start().0.saturating_sub(STACK_STEP)));
        let start = if first_stack && ahead < exact && self.may_grow(&vma, ahead, stack_limit).is_ok() {
            ahead
        } else {
            self.may_grow(&vma, exact, stack_limit)?;
            exact
        };
        let range = UserRange { start, end: vma.start() };
        self.space.map(range, vma.prot, vma.platform_backing(vma.range))?;
        self.tree.insert(Vma { range, ..vma });
        self.peak_total = self.peak_total.max(self.tree.counters().total);
        Ok(())
    }

    fn may_grow(&self, vma: &Vma, start: UserAddr, stack_limit: u64) -> Result<(), Errno> {
        if start.0 < MMAP_MIN_ADDR {
            return Err(Errno::EPERM);
        }
        if let Some(below) = self.tree.find_before(vma.start()) {
            let near = start.0.saturating_sub(below.end().0) < STACK_GUARD_GAP;
            let guard_needed = below.prot.any() && !below.flags.contains(VmFlags::GROWSDOWN);
            if start < below.end() || (near && guard_needed) {
                return Err(Errno::ENOMEM);
            }
        }
        if vma.end().0 - start.0 > stack_limit {
            return Err(Errno::ENOMEM);
        }
        let mut grown = vma.clone();
        grown.range = UserRange { start, end: vma.start() };
        self.may_expand(&grown, 0, &Limits::NONE)
    }
}
