//! Guest address spaces: one stub each.
//!
//! Calls are ordered by the lock of the space's regions. When an order to the agent has been carried out, the host has
//! changed the page tables for all threads of the stub, as `mprotect(2)` and its kin promise to.
//!
//! Patched sites (`patch.rs`) are undone here where a call concerns their bytes. Of the two locks, that of the regions comes first.

use std::any::Any;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, RwLock};
use quicksand_abi::{Errno, PAGE_SIZE, UserAddr, UserRange};
use quicksand_platform::{
    AddressSpace, Advice, Backing, Exit, Mapping, MemFault, PlatformError, Prot, Registers,
};

use crate::agent::{Failed, Operation};
use crate::errand;
use crate::layout::{
    AREAS, BULK_LEN, BULK_OFFSET, RECEIVED_FD, SLOTS, STUB_END, STUB_START, TABLE, TABLE_LEN, agent, request,
    special,
};
use crate::memory;
use crate::patch::{self, Candidate, JUMP_LEN, LOOK_BACK, Meaning, Patches};
use crate::regions::{Region, Regions};
use crate::shared::Shared;
use crate::threads::Stub;

/// More operations than this at once are cheaper with the agent, who is woken once.
const MOST_ERRANDS: usize = 4;

#[derive(Debug)]
pub(crate) struct SystrapSpace {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stub: Arc<Stub>,
    regions: Mutex<Regions>,
    /// Held for writing while code changes.
    patches: RwLock<Patches>,
}

impl Drop for SystrapSpace {
    fn drop(&mut self) {
        // Contexts that ran in it may hold the stub for a while.
        self.stub.process.retire();
    }
}

impl From<Failed> for Errno {
    fn from(failed: Failed) -> Errno {
        match failed {
            Failed::Ended => Errno::ENOMEM,
            Failed::Errno(errno) => Errno::from_raw(errno),
        }
    }
}

fn protection(prot: Prot) -> u64 {
    // Write and execute imply read.
    let mut bits = if prot.any() { libc::PROT_READ } else { libc::PROT_NONE };
    if prot.write {
        bits |= libc::PROT_WRITE;
    }
    if prot.execute {
        bits |= libc::PROT_EXEC;
    }
    bits as u64
}

const EFLAGS_ZF: u64 = 1 << 6;

fn munmap(range: UserRange) -> Operation {
    Operation::call(libc::SYS_munmap, [range.start.0, range.len(), 0, 0, 0, 0])
}

fn mprotect((start, end): (u64, u64), prot: Prot) -> Operation {
    Operation::call(libc::SYS_mprotect, [start, end - start, protection(prot), 0, 0, 0])
}

/// What makes the host take `advice` on what is mapped in `range`.
fn advise(regions: &Regions, range: UserRange, advice: Advice) -> Vec<Operation> {
    let madvise = |start: u64, end: u64, number: i32| {
        Operation::call(libc::SYS_madvise, [start, end - start, number as u64, 0, 0, 0])
    };
    let within = || regions.within(range.start.0, range.end.0).into_iter();
    match advice {
        // Neighbours at once: a thread's stack and its guard.
        Advice::DontNeed => {
            let runs = regions.runs(range.start.0, range.end.0).into_iter();
            runs.map(|(start, end)| madvise(start, end, libc::MADV_DONTNEED)).collect()
        }
        // Only for memory that is no file's.
        Advice::Free => within().map(|r| madvise(r.start, r.end, libc::MADV_FREE).may_fail()).collect(),
        Advice::Populate { write } => {
            let number = if write { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
            let usable = within().filter(|r| r.prot.any());
            usable.map(|r| madvise(r.start, r.end, number).may_fail()).collect()
        }
    }
}

/// The stub's own pages are not for guests, whatever the Sentry's tree of VMAs says.
fn check(range: UserRange) -> Result<(), Errno> {
    if range.end.0 > STUB_START { Err(Errno::ENOMEM) } else { Ok(()) }
}

/// The part of a range where anything can be mapped.
fn clip(range: UserRange) -> Option<UserRange> {
    range.intersect(UserRange { start: UserAddr(0), end: UserAddr(STUB_START) })
}

impl SystrapSpace {
    pub(crate) fn new(shared: &Arc<Shared>) -> Result<SystrapSpace, PlatformError> {
        let stub = shared.new_stub()?;
        Ok(SystrapSpace {
            shared: Arc::clone(shared),
            stub,
            regions: Mutex::default(),
            patches: RwLock::default(),
        })
    }

    /// Has operations carried out in their order, whether or not one fails: by the guest's thread that this host thread has
    /// stopped, as far as it may, and by the agent.
    fn order(&self, operations: &[Operation]) -> Result<(), Failed> {
        let (mut left, mut done) = (operations, Ok(()));
        while operations.len() <= MOST_ERRANDS
            && let [operation, others @ ..] = left
            && let Some(result) = errand::run(&self.stub, operation)
        {
            self.shared.counters.errands.add();
            let failure = Some(result? as i64).filter(|r| (-4095..0).contains(r) && !operation.may_fail);
            done = done.and(failure.map_or(Ok(()), |failure| Err(Failed::Errno(-failure as i32))));
            left = others;
        }
        done.and(self.order_agent(left))
    }

    fn order_agent(&self, operations: &[Operation]) -> Result<(), Failed> {
        for batch in operations.chunks(request::MAX_OPERATIONS - 2) {
            self.shared.counters.orders.add();
            self.stub.order(batch, &mut [])?;
        }
        Ok(())
    }

    /// Makes as many of `mappings` as one order can, and takes them off.
    fn map_some(&self, mappings: &mut &[Mapping<'_>]) -> Result<(), Failed> {
        let mut files: Vec<BorrowedFd<'_>> = Vec::new();
        let mut operations = Vec::new();
        for mapping in mappings.iter().take(request::MAX_OPERATIONS - 2) {
            let (flags, file) = match mapping.backing {
                Backing::Anonymous => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None),
                Backing::PrivateFile { fd, offset } => (libc::MAP_PRIVATE, Some((fd, offset))),
                Backing::SharedFile { fd, offset, .. } => (libc::MAP_SHARED, Some((fd, offset))),
            };
            let (fd, offset) = match file {
                None => (-1, 0),
                Some((fd, offset)) => {
                    let known = files.iter().position(|other| other.as_raw_fd() == fd.as_raw_fd());
                    if known.is_none() && files.len() == agent::MAX_FILES {
                        break;
                    }
                    let place = known.unwrap_or_else(|| {
                        files.push(fd);
                        files.len() - 1
                    });
                    (i64::from(RECEIVED_FD) + place as i64, offset)
                }
            };
            // Guests are not promised memory: what is too much is the kernel's matter when it is touched.
            let flags = (flags | libc::MAP_FIXED | libc::MAP_NORESERVE) as u64;
            let range = mapping.range;
            let args = [range.start.0, range.len(), protection(mapping.prot), flags, fd as u64, offset];
            operations.push(Operation::call(libc::SYS_mmap, args));
        }
        *mappings = &mappings[operations.len()..];
        if files.is_empty() {
            return self.order(&operations);
        }
        self.shared.counters.orders.add();
        self.stub.order_with(&files, &operations)
    }

    /// Calls `f` with the address of each mapped page of `start..end` and whether it is resident. As far as the stub says.
    fn residency(&self, runs: &[(u64, u64)], mut f: impl FnMut(u64, bool)) -> Result<(), Failed> {
        const PAGES: u64 = BULK_LEN as u64;
        for (start, end) in runs {
            for at in (*start..*end).step_by((PAGES * PAGE_SIZE) as usize) {
                let len = (end - at).min(PAGES * PAGE_SIZE);
                let bulk = AREAS + BULK_OFFSET as u64;
                self.order(&[Operation::call(libc::SYS_mincore, [at, len, bulk, 0, 0, 0])])?;
                let pages = len / PAGE_SIZE;
                let mut bytes = vec![0; pages.next_multiple_of(8) as usize];
                self.stub.areas.read(BULK_OFFSET, &mut bytes);
                for page in 0..pages {
                    f(at + page * PAGE_SIZE, bytes[page as usize] & 1 != 0);
                }
            }
        }
        Ok(())
    }
}

/// Patched sites.
impl SystrapSpace {
    /// A guest thread often makes the system call that ended at `regs.rip`, with these registers: patches it, where that can be
    /// done. `numbers_vary`: not always with this number.
    pub(crate) fn patch(&self, regs: &Registers, numbers_vary: bool) {
        if !self.shared.can_patch {
            return;
        }
        let regions = self.regions.lock();
        let mut patches = self.patches.write();
        // What cannot be read, for the code begins there, is no part of it.
        let mut bytes = [0; LOOK_BACK];
        let found = [LOOK_BACK, LOOK_BACK - 1, JUMP_LEN].into_iter().any(|len| {
            let from = regs.rip.wrapping_sub(len as u64);
            let part = &mut bytes[LOOK_BACK - len..];
            let readable = memory::read(&self.stub, UserAddr(from), part).is_ok();
            patches.unpatch(from, part);
            readable
        });
        if !found {
            return;
        }
        let Some(what) = Candidate::find(&bytes, regs.rip, regs.rax) else { return };
        if patches.is_refused(what.start) {
            return;
        }
        let allowed = if what.reads_stack() {
            let mut word = [0; 8];
            let at = UserAddr(regs.rsp.wrapping_add(patch::STACK_ARGUMENT_OFFSET));
            memory::read(&self.stub, at, &mut word).is_ok() && u64::from_le_bytes(word) == regs.r9
        } else {
            !numbers_vary
        };
        let end = what.start + JUMP_LEN as u64;
        let code = |r: &Region| !r.shared && r.prot.execute && !r.prot.write;
        let (first, last) = pages(what.start, end);
        let parts = regions.within(first, last);
        let mapped = parts.iter().map(|r| r.end - r.start).sum::<u64>() == last - first;
        let free = patches.within(what.start, end).is_empty();
        if !(allowed && free && mapped && parts.iter().all(code) && self.has_table()) {
            return patches.refuse(what.start);
        }
        let Some((slot, at, record)) = patches.take_slot(&what) else { return patches.refuse(what.start) };
        if !memory::write_own(&self.stub, at, &record) {
            return patches.refuse(what.start);
        }
        if self.change_code(&parts, &Patches::operations(&what, slot)).is_ok() {
            patches.done(&what, slot);
            self.shared.counters.patched_sites.add();
            tracing::trace!("the system call at {:#x} is patched", what.start);
        } else {
            let _ = self.change_code(&parts, &Patches::undo_failed(&what));
            patches.refuse(what.start);
        }
    }

    /// Whether the table is where it should be: some hosts allow no mapping there.
    fn has_table(&self) -> bool {
        let mut first = [0; 8];
        memory::read(&self.stub, UserAddr(TABLE), &mut first).is_ok() && u64::from_le_bytes(first) == SLOTS
    }

    /// Carries out stores to code, which lies in `parts`.
    fn change_code(&self, parts: &[Region], stores: &[Operation]) -> Result<(), Failed> {
        let mut operations = Vec::with_capacity(stores.len() + 2 * parts.len());
        for part in parts {
            // Other threads go on running there.
            let open = Prot { write: true, execute: true, read: true };
            operations.push(mprotect((part.start, part.end), open));
        }
        operations.extend_from_slice(stores);
        operations.extend(parts.iter().map(|part| mprotect((part.start, part.end), part.prot)));
        self.order(&operations)
    }

    /// Makes the code in `start..end` what it was.
    fn unpatch(&self, regions: &Regions, patches: &mut Patches, start: u64, end: u64) {
        for site in patches.within(start, end) {
            let (first, last) = pages(site, site + JUMP_LEN as u64);
            if let Err(failed) = self.change_code(&regions.within(first, last), &patches.undo(site)) {
                tracing::debug!("the system call at {site:#x} stays patched: {failed:?}");
            }
            patches.forget(site);
        }
    }

    #[cfg(test)]
    pub(crate) fn undo_for_test(&self, start: u64) {
        let regions = self.regions.lock();
        let mut patches = self.patches.write();
        self.unpatch(&regions, &mut patches, start, start + 1);
        patches.allow_for_test(start);
    }

    /// The guest is given `start..end`: were the table there, it is no more.
    fn give_way(&self, regions: &Regions, patches: &mut Patches, start: u64, end: u64) {
        if patches.off || !Patches::meets_table(start, end) {
            return;
        }
        patches.off = true;
        for site in patches.all() {
            self.unpatch(regions, patches, site, site + 1);
        }
        // When this is done no thread is within a jump through it: they were all interrupted.
        let table = UserRange { start: UserAddr(TABLE), end: UserAddr(TABLE + TABLE_LEN as u64) };
        let _ = self.order(&[munmap(table).may_fail()]);
    }

    /// For an exception of guest code: whether it is the guest's (with registers that say so), or a system call after all.
    /// `None`: the guest is to go on.
    pub(crate) fn explain(&self, regs: &mut Registers, exit: Exit) -> Option<Exit> {
        let (vector, addr) = match exit {
            Exit::Trap(trap) => (trap.vector, None),
            Exit::Fault(fault) => (14, Some(fault.addr.0)),
            Exit::Syscall | Exit::Kicked => return Some(exit),
        };
        let call = |regs: &mut Registers, end: u64| {
            (regs.rip, regs.rcx, regs.r11, regs.orig_rax) = (end, end, regs.eflags, regs.rax);
            Some(Exit::Syscall)
        };
        let patches = self.patches.read();
        if vector == 6
            && let Some((slot, zero)) = patch::stranger(regs.rip, regs.rcx)
            && let Some((end, number)) = patches.slot(slot)
        {
            regs.rax = number.unwrap_or(regs.rax);
            regs.eflags = regs.eflags & !EFLAGS_ZF | if zero { EFLAGS_ZF } else { 0 };
            return call(regs, end);
        }
        let rip = regs.rip;
        let read = |bytes: &mut [u8]| memory::read(&self.stub, UserAddr(rip), bytes).is_ok();
        match patches.explain(rip, vector, addr, read) {
            Meaning::Itself => Some(exit),
            Meaning::Again => None,
            Meaning::Call { end } => call(regs, end),
            Meaning::At { start } => {
                regs.rip = start;
                if vector != 1 {
                    return Some(exit);
                }
                // Step by step there is no jump to be seen.
                drop(patches);
                let regions = self.regions.lock();
                self.unpatch(&regions, &mut self.patches.write(), start, start + 1);
                None
            }
        }
    }
}

/// The pages of `start..end`.
fn pages(start: u64, end: u64) -> (u64, u64) {
    (start / PAGE_SIZE * PAGE_SIZE, end.next_multiple_of(PAGE_SIZE))
}

impl AddressSpace for SystrapSpace {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn map(&self, range: UserRange, prot: Prot, backing: Backing<'_>) -> Result<(), Errno> {
        self.map_all(&[Mapping { range, prot, backing }])
    }

    fn map_all(&self, mappings: &[Mapping<'_>]) -> Result<(), Errno> {
        mappings.iter().try_for_each(|mapping| check(mapping.range))?;
        let mut regions = self.regions.lock();
        let mut patches = self.patches.write();
        for Mapping { range, .. } in mappings {
            self.give_way(&regions, &mut patches, range.start.0, range.end.0);
        }
        let mut left = mappings;
        while !left.is_empty() {
            if let Err(failed) = self.map_some(&mut left) {
                mappings.iter().for_each(|m| patches.forget_within(m.range.start.0, m.range.end.0));
                // What was there may be gone.
                let unmap: Vec<Operation> = mappings.iter().map(|m| munmap(m.range).may_fail()).collect();
                let _ = self.order(&unmap);
                for Mapping { range, .. } in mappings {
                    regions.remove(range.start.0, range.end.0);
                }
                return Err(failed.into());
            }
        }
        for Mapping { range, prot, backing } in mappings {
            patches.forget_within(range.start.0, range.end.0);
            let shared = matches!(backing, Backing::SharedFile { .. });
            let file = !matches!(backing, Backing::Anonymous);
            regions.insert(Region { start: range.start.0, end: range.end.0, prot: *prot, shared, file });
        }
        Ok(())
    }

    fn unmap(&self, range: UserRange) -> Result<(), Errno> {
        let Some(range) = clip(range) else { return Ok(()) };
        let mut regions = self.regions.lock();
        let mut patches = self.patches.write();
        self.give_way(&regions, &mut patches, range.start.0, range.end.0);
        self.order(&[munmap(range)])?;
        patches.forget_within(range.start.0, range.end.0);
        regions.remove(range.start.0, range.end.0);
        Ok(())
    }

    fn protect(&self, range: UserRange, prot: Prot) -> Result<(), Errno> {
        check(range)?;
        let mut regions = self.regions.lock();
        self.unpatch(&regions, &mut self.patches.write(), range.start.0, range.end.0);
        let runs = regions.runs(range.start.0, range.end.0);
        let operations: Vec<Operation> = runs.into_iter().map(|run| mprotect(run, prot)).collect();
        self.order(&operations)?;
        regions.protect(range.start.0, range.end.0, prot);
        Ok(())
    }

    fn relocate(&self, old: UserRange, new_start: UserAddr) -> Result<(), Errno> {
        check(old)?;
        let target = UserRange::new(new_start, old.len()).ok_or(Errno::ENOMEM)?;
        check(target)?;
        let mut regions = self.regions.lock();
        let mut patches = self.patches.write();
        self.give_way(&regions, &mut patches, target.start.0, target.end.0);
        self.unpatch(&regions, &mut patches, old.start.0, old.end.0);
        let moved = regions.within(old.start.0, old.end.0);
        let to = |address: u64| address - old.start.0 + new_start.0;
        let mut operations = vec![munmap(target)];
        operations.extend(moved.iter().map(|region| {
            let len = region.end - region.start;
            let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
            Operation::call(libc::SYS_mremap, [region.start, len, len, flags, to(region.start), 0])
        }));
        let result = self.order(&operations);
        patches.forget_within(target.start.0, target.end.0);
        regions.remove(target.start.0, target.end.0);
        result?;
        regions.remove(old.start.0, old.end.0);
        for region in moved {
            regions.insert(Region { start: to(region.start), end: to(region.end), ..region });
        }
        Ok(())
    }

    fn advise(&self, range: UserRange, advice: Advice) -> Result<(), Errno> {
        self.advise_all(&[(range, advice)])
    }

    fn advise_all(&self, ranges: &[(UserRange, Advice)]) -> Result<(), Errno> {
        ranges.iter().try_for_each(|(range, _)| check(*range))?;
        let regions = self.regions.lock();
        let operations: Vec<Operation> =
            ranges.iter().flat_map(|(range, advice)| advise(&regions, *range, *advice)).collect();
        let mut patches = self.patches.write();
        self.order(&operations)?;
        for (range, advice) in ranges {
            if matches!(advice, Advice::DontNeed | Advice::Free) {
                patches.forget_within(range.start.0, range.end.0);
            }
        }
        Ok(())
    }

    fn fork(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        let regions = self.regions.lock();
        let stub = self.shared.fork_stub(&self.stub)?;
        Ok(Arc::new(SystrapSpace {
            shared: Arc::clone(&self.shared),
            stub,
            regions: Mutex::new(regions.clone()),
            patches: RwLock::new(self.patches.read().clone()),
        }))
    }

    fn read(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), MemFault> {
        let patches = self.patches.read();
        let len = patches.before_table(addr.0, buf.len());
        let result = match memory::read(&self.stub, addr, &mut buf[..len]) {
            Ok(()) if len < buf.len() => Err(MemFault { addr: UserAddr(addr.0 + len as u64), done: len }),
            result => result,
        };
        let done = result.map_or_else(|fault| fault.done, |()| len);
        patches.unpatch(addr.0, &mut buf[..done]);
        result
    }

    fn write(&self, addr: UserAddr, buf: &[u8]) -> Result<(), MemFault> {
        // Code that is being patched can be written for a moment.
        let _patches = self.patches.read();
        memory::write(&self.stub, addr, buf)
    }

    fn write_forced(&self, addr: UserAddr, buf: &[u8]) -> Result<(), MemFault> {
        let end = addr.checked_add(buf.len() as u64).filter(|end| end.0 <= STUB_START);
        let Some(end) = end else { return Err(MemFault { addr, done: 0 }) };
        if buf.is_empty() {
            return Ok(());
        }
        let regions = self.regions.lock();
        self.unpatch(&regions, &mut self.patches.write(), addr.0, end.0);
        let mut at = addr.0;
        // Writable for a moment, where they are not.
        for region in regions.within(addr.page_floor().0, end.page_ceil().unwrap_or(end).0) {
            let (from, to) = (region.start.max(addr.0), region.end.min(end.0));
            let fault = |at: u64| MemFault { addr: UserAddr(at), done: (at - addr.0) as usize };
            if from != at {
                return Err(fault(at));
            }
            let part = &buf[(from - addr.0) as usize..(to - addr.0) as usize];
            let behind = |f: MemFault| fault(from + f.done as u64);
            if region.prot.write {
                memory::write(&self.stub, UserAddr(from), part).map_err(behind)?;
            } else if region.shared {
                return Err(fault(from));
            } else {
                let pages = (region.start, region.end);
                let open = Prot { write: true, ..region.prot };
                self.order(&[mprotect(pages, open)]).map_err(|_| fault(from))?;
                let written = memory::write(&self.stub, UserAddr(from), part).map_err(behind);
                self.order(&[mprotect(pages, region.prot)]).map_err(|_| fault(from))?;
                written?;
            }
            at = to;
        }
        if at == end.0 { Ok(()) } else { Err(MemFault { addr: UserAddr(at), done: (at - addr.0) as usize }) }
    }

    fn load_u32(&self, addr: UserAddr) -> Result<u32, MemFault> {
        // The host copies an aligned word at once.
        let mut bytes = [0; 4];
        self.read(addr, &mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn compare_exchange_u32(&self, addr: UserAddr, current: u32, new: u32) -> Result<u32, MemFault> {
        let fault = MemFault { addr, done: 0 };
        if addr.0 >= STUB_START {
            return Err(fault);
        }
        let exchange =
            Operation::special(special::COMPARE_EXCHANGE, [addr.0, u64::from(current), u64::from(new)]);
        let mut found = [0];
        self.shared.counters.orders.add();
        self.stub.order(&[exchange], &mut found).map_err(|_| fault)?;
        Ok(found[0] as u32)
    }

    fn is_lost(&self) -> bool {
        self.stub.process.has_ended()
    }

    fn resident(&self, range: UserRange, out: &mut [bool]) {
        out.fill(false);
        let runs = self.regions.lock().runs(range.start.0, range.end.0);
        let result = self.residency(&runs, |address, resident| {
            let index = ((address - range.start.0) / PAGE_SIZE) as usize;
            if let Some(out) = out.get_mut(index) {
                *out = resident;
            }
        });
        if let Err(failed) = result {
            tracing::debug!("mincore: {failed:?}");
        }
    }

    fn has_contents(&self, range: UserRange, out: &mut [bool]) {
        self.resident(range, out);
        // What the host keeps of a file comes and goes.
        for region in self.regions.lock().within(range.start.0, range.end.0).iter().filter(|r| r.file) {
            let index = |address: u64| ((address - range.start.0) / PAGE_SIZE) as usize;
            if let Some(out) = out.get_mut(index(region.start)..index(region.end)) {
                out.fill(true);
            }
        }
    }

    fn resident_bytes(&self) -> u64 {
        let private = |r: &&Region| !r.shared && r.prot.any();
        let runs: Vec<(u64, u64)> =
            self.regions.lock().all().filter(private).map(|r| (r.start, r.end)).collect();
        let mut pages = 0;
        let result = self.residency(&runs, |_, resident| pages += u64::from(resident));
        if let Err(failed) = result {
            tracing::debug!("mincore: {failed:?}");
        }
        pages * PAGE_SIZE
    }

    fn peak_resident_bytes(&self) -> u64 {
        let to = AREAS + agent::USAGE as u64;
        let ask = Operation::call(libc::SYS_getrusage, [libc::RUSAGE_SELF as u64, to, 0, 0, 0, 0]);
        if let Err(failed) = self.order(&[ask]) {
            tracing::debug!("getrusage: {failed:?}");
            return 0;
        }
        let kib = self.stub.areas.u64(agent::MAX_RSS).load(Ordering::Relaxed);
        // An allegation, like all that a stub says; but no number of pages that there cannot be.
        kib.saturating_mul(1024).min(STUB_END)
    }
}
