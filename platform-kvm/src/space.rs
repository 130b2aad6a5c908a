//! A guest address space: the segments that the Sentry mapped, and the page table filled from them.
//!
//! Tables are filled ahead: at once for a small mapping, else on first touch a whole chunk at a time, because leaving
//! the guest for a fault is many times the price of writing entries. What the entries point to is still demand-paged
//! by the host, so filling ahead costs no memory but the tables.
//!
//! Locks: a space's `inner`, then (inside `Window` and `Frames`) theirs. `read` and `write` of guest memory take
//! `inner` for reading; everything that changes entries takes it for writing, so the frames that a walk found stay
//! in place while it is held.

use std::any::Any;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;
use quicksand_abi::{Errno, UserAddr, UserRange};
use quicksand_platform::{Access, AddressSpace, Advice, Backing, FaultCause, MemFault, PlatformError, Prot};

use crate::cow::LastCopies;
use crate::page_table::{LEAF_SPAN, PageTable, Pte, slot};
use crate::segments::{Segment, Segments, Source};
use crate::shared::Shared;
use crate::window::{HostKind, PAGE, Runs};

/// Mappings up to this size get their entries at once.
const EAGER: u64 = LEAF_SPAN;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct KvmSpace {
    pub(crate) shared: Arc<Shared>,
    /// What CR3 holds while guest code runs in this space. Constant.
    pub(crate) root: u64,
    pub(crate) inner: RwLock<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) table: PageTable,
    pub(crate) segments: Segments,
    pub(crate) last_copies: LastCopies,
}

/// Frames that a change took out of a page table.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    /// Nobody else names them: to be freed.
    pub(crate) last: Runs,
    /// Another space shares them: this space's translations must go.
    pub(crate) kept: Runs,
}

impl Dropped {
    pub(crate) fn settle(self, shared: &Shared) {
        shared.window.revoke(&self.kept.0);
        shared.window.free(&self.last.0);
    }
}

impl KvmSpace {
    pub(crate) fn new(shared: &Arc<Shared>) -> Result<KvmSpace, PlatformError> {
        let table = PageTable::new(&shared.window, shared.supervisor.top_entry())?;
        Ok(KvmSpace {
            shared: Arc::clone(shared),
            root: table.root(),
            inner: RwLock::new(Inner {
                table,
                segments: Segments::default(),
                last_copies: LastCopies::default(),
            }),
        })
    }

    /// Gives pages of `segment` that have none a frame and an entry. Pages beyond the end of a file get none.
    pub(crate) fn fill(&self, inner: &mut Inner, segment: &Segment) -> Result<(), Errno> {
        let window = &self.shared.window;
        let mut end = segment.end;
        if let Source::File { file, offset, .. } = &segment.source
            && file.regular
        {
            let size = u64::try_from(rustix::fs::fstat(&file.fd).map_err(errno)?.st_size).unwrap_or(0);
            let pages = size.saturating_sub(*offset).div_ceil(PAGE);
            end = end.min(segment.start.saturating_add(pages.saturating_mul(PAGE)));
        }
        let mut va = segment.start;
        while va < end {
            let stop = ((va & !(LEAF_SPAN - 1)) + LEAF_SPAN).min(end);
            let leaf = inner.table.leaf_or_new(window, va).map_err(no_memory)?;
            while va < stop {
                if slot(leaf, va).load(Ordering::Relaxed) != 0 {
                    va += PAGE;
                    continue;
                }
                let mut hole = va + PAGE;
                while hole < stop && slot(leaf, hole).load(Ordering::Relaxed) == 0 {
                    hole += PAGE;
                }
                let len = hole - va;
                let gpa = window.alloc(len).map_err(no_memory)?;
                let (kind, is_shared) = match &segment.source {
                    Source::Anonymous => (HostKind::Anonymous, false),
                    Source::File { file, offset, shared, writable } => {
                        let at = offset.wrapping_add(va - segment.start);
                        if let Err(e) = window.map_file(gpa, len, file.fd.as_fd(), at, *shared, *writable) {
                            // A failed MAP_FIXED may have removed what was there.
                            window.free(&[crate::window::Run { gpa, len, kind: HostKind::File }]);
                            return Err(e.into());
                        }
                        (if *shared && !writable { HostKind::ReadOnlyFile } else { HostKind::File }, *shared)
                    }
                };
                let mut frame = gpa;
                while va < hole {
                    let pte = Pte::new(frame, kind, is_shared).with_access(segment.prot, true);
                    slot(leaf, va).store(pte.0, Ordering::Release);
                    va += PAGE;
                    frame += PAGE;
                }
            }
        }
        Ok(())
    }

    /// Takes all frames in `start..end` out of the page table.
    pub(crate) fn clear(&self, inner: &Inner, start: u64, end: u64) -> Dropped {
        let mut dropped = Dropped::default();
        inner.table.visit(&self.shared.window, start, end, &mut |_, entry| {
            let pte = Pte(entry.swap(0, Ordering::AcqRel));
            if self.shared.frames.release(pte.gpa()) {
                dropped.last.push(pte.gpa(), pte.kind());
            } else {
                dropped.kept.push(pte.gpa(), pte.kind());
            }
        });
        dropped
    }

    fn remove(&self, inner: &mut Inner, range: UserRange) {
        inner.segments.remove(range.start.0, range.end.0);
        self.clear(inner, range.start.0, range.end.0).settle(&self.shared);
    }

    /// Whether a page with this entry may be written now, for `with_access`: shared mappings always, private ones
    /// unless another space shares the frame.
    pub(crate) fn owns(&self, pte: Pte) -> bool {
        pte.is_shared_mapping() || !self.shared.frames.is_shared(pte.gpa())
    }

    /// Serves a fault of the guest or of the Sentry: does what the mapping at `addr` promises, or says why not.
    pub(crate) fn resolve(&self, addr: UserAddr, access: Access) -> Result<(), FaultCause> {
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        let page = addr.0 & !(PAGE - 1);
        let segment = inner.segments.find(addr.0).ok_or(FaultCause::Unmapped)?;
        let allowed = match access {
            Access::Read => segment.prot.any(),
            Access::Write => segment.prot.write,
            Access::Execute => segment.prot.execute,
        };
        if !allowed {
            return Err(FaultCause::Unmapped);
        }
        let prot = segment.prot;
        let pte = inner.table.get(&self.shared.window, page);
        if !pte.has_frame() {
            let chunk = page & !(LEAF_SPAN - 1);
            self.shared.counters.fills.fetch_add(1, Ordering::Relaxed);
            for part in inner.segments.within(chunk.max(segment.start), (chunk + LEAF_SPAN).min(segment.end))
            {
                if let Err(e) = self.fill(inner, &part) {
                    tracing::warn!(addr = %addr, error = ?e, "no memory behind a guest page");
                    return Err(FaultCause::Bus);
                }
            }
            let found = inner.table.get(&self.shared.window, page).has_frame();
            return if found { Ok(()) } else { Err(FaultCause::Bus) };
        }
        if pte.is_suspect() {
            self.touch(pte, access)?;
            let now = pte.with_access(prot, self.owns(pte));
            self.set(inner, page, now);
            // A write to a frame shared with another space comes back for its copy.
            return Ok(());
        }
        if access == Access::Write && !pte.is_writable() {
            if pte.is_shared_mapping() {
                return Err(FaultCause::Unmapped);
            }
            return self.break_cow(inner, page);
        }
        // Somebody else resolved it in the meantime, or a translation was stale: the page may be used.
        Ok(())
    }

    pub(crate) fn set(&self, inner: &Inner, page: u64, pte: Pte) {
        if let Some(leaf) = inner.table.leaf(&self.shared.window, page) {
            slot(leaf, page).store(pte.0, Ordering::Release);
        }
    }

    fn source(&self, backing: Backing<'_>) -> Result<Source, Errno> {
        Ok(match backing {
            Backing::Anonymous => Source::Anonymous,
            Backing::PrivateFile { fd, offset } => {
                Source::File { file: self.shared.files.get(fd)?, offset, shared: false, writable: false }
            }
            Backing::SharedFile { fd, offset, writable } => {
                Source::File { file: self.shared.files.get(fd)?, offset, shared: true, writable }
            }
        })
    }

    fn fill_small(&self, inner: &mut Inner, segment: &Segment) -> Result<(), Errno> {
        let small = segment.end - segment.start <= EAGER;
        match &segment.source {
            _ if small => self.fill(inner, segment),
            // The first chunk shows whether the file can be mapped at all.
            Source::File { .. } => {
                let end = ((segment.start & !(LEAF_SPAN - 1)) + LEAF_SPAN).min(segment.end);
                self.fill(inner, &Segment { end, ..segment.clone() })
            }
            Source::Anonymous => Ok(()),
        }
    }
}

pub(crate) fn errno(e: rustix::io::Errno) -> Errno {
    Errno::from_raw(e.raw_os_error())
}

fn no_memory(_: PlatformError) -> Errno {
    Errno::ENOMEM
}

impl Drop for KvmSpace {
    fn drop(&mut self) {
        // No vCPU runs in this space any more, and its tables are used for nothing else until KVM has forgotten
        // them: frames that other spaces share need not be revoked.
        let mut dropped = self.clear(&self.inner.read(), 0, UserAddr::TASK_SIZE.0);
        dropped.last.0.sort_unstable_by_key(|run| run.gpa);
        let mut merged: Vec<crate::window::Run> = Vec::new();
        for run in dropped.last.0 {
            match merged.last_mut() {
                Some(last) if last.gpa + last.len == run.gpa && last.kind == run.kind => last.len += run.len,
                _ => merged.push(run),
            }
        }
        self.shared.window.free(&merged);
        self.inner.get_mut().table.retire(&self.shared.window);
    }
}

impl AddressSpace for KvmSpace {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn map(&self, range: UserRange, prot: Prot, backing: Backing<'_>) -> Result<(), Errno> {
        let source = self.source(backing)?;
        let mut inner = self.inner.write();
        self.remove(&mut inner, range);
        let segment = Segment { start: range.start.0, end: range.end.0, prot, source };
        inner.segments.insert(segment.clone());
        let filled = if prot.any() { self.fill_small(&mut inner, &segment) } else { Ok(()) };
        if filled.is_err() {
            self.remove(&mut inner, range);
        }
        filled
    }

    fn unmap(&self, range: UserRange) -> Result<(), Errno> {
        self.remove(&mut self.inner.write(), range);
        Ok(())
    }

    fn protect(&self, range: UserRange, prot: Prot) -> Result<(), Errno> {
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        inner.segments.protect(range.start.0, range.end.0, prot);
        let mut lost = Runs::default();
        inner.table.visit(&self.shared.window, range.start.0, range.end.0, &mut |_, entry| {
            let old = Pte(entry.load(Ordering::Acquire));
            let new = if old.is_suspect() { old } else { old.with_access(prot, self.owns(old)) };
            entry.store(new.0, Ordering::Release);
            if old.loses_access(new) {
                lost.push(old.gpa(), old.kind());
            }
        });
        self.shared.window.revoke(&lost.0);
        if prot.any() && range.len() <= EAGER {
            for segment in inner.segments.within(range.start.0, range.end.0) {
                self.fill(inner, &segment)?;
            }
        }
        Ok(())
    }

    fn relocate(&self, old: UserRange, new_start: UserAddr) -> Result<(), Errno> {
        let new = UserRange::new(new_start, old.len()).ok_or(Errno::EINVAL)?;
        let window = &self.shared.window;
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        self.remove(inner, new);
        let target = |va: u64| va - old.start.0 + new_start.0;
        // First all tables that are needed, so that nothing can fail half-way.
        let mut blocks: Vec<u64> = Vec::new();
        inner.table.visit(window, old.start.0, old.end.0, &mut |va, _| {
            let block = target(va) & !(LEAF_SPAN - 1);
            if blocks.last() != Some(&block) {
                blocks.push(block);
            }
        });
        for block in blocks {
            inner.table.leaf_or_new(window, block).map_err(no_memory)?;
        }
        let mut moved = Runs::default();
        inner.table.visit(window, old.start.0, old.end.0, &mut |va, entry| {
            let pte = Pte(entry.swap(0, Ordering::AcqRel));
            if let Some(leaf) = inner.table.leaf(window, target(va)) {
                slot(leaf, target(va)).store(pte.0, Ordering::Release);
            }
            moved.push(pte.gpa(), pte.kind());
        });
        window.revoke(&moved.0);
        let segments = inner.segments.within(old.start.0, old.end.0);
        inner.segments.remove(old.start.0, old.end.0);
        for segment in segments {
            inner.segments.insert(Segment {
                start: target(segment.start),
                end: target(segment.end),
                ..segment
            });
        }
        Ok(())
    }

    fn advise(&self, range: UserRange, advice: Advice) -> Result<(), Errno> {
        match advice {
            Advice::DontNeed | Advice::Free => self.drop_contents(range),
            Advice::Populate { write } => self.populate(range, write),
        }
        Ok(())
    }

    fn fork(&self) -> Result<Arc<dyn AddressSpace>, PlatformError> {
        Ok(Arc::new(self.fork_space()?))
    }

    fn read(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), MemFault> {
        self.read_guest(addr, buf)
    }

    fn write(&self, addr: UserAddr, buf: &[u8]) -> Result<(), MemFault> {
        self.write_guest(addr, buf)
    }

    fn write_forced(&self, addr: UserAddr, buf: &[u8]) -> Result<(), MemFault> {
        self.write_guest_forced(addr, buf)
    }

    fn load_u32(&self, addr: UserAddr) -> Result<u32, MemFault> {
        self.load_guest_u32(addr)
    }

    fn compare_exchange_u32(&self, addr: UserAddr, current: u32, new: u32) -> Result<u32, MemFault> {
        self.compare_exchange_guest_u32(addr, current, new)
    }

    fn resident(&self, range: UserRange, out: &mut [bool]) {
        self.resident_pages(range, out);
    }

    fn has_contents(&self, range: UserRange, out: &mut [bool]) {
        self.resident_pages(range, out);
        // Their pages have no entry before somebody touches them.
        for segment in self.inner.read().segments.within(range.start.0, range.end.0) {
            let index = |address: u64| ((address - range.start.0) / PAGE) as usize;
            if matches!(segment.source, Source::File { .. })
                && let Some(out) = out.get_mut(index(segment.start)..index(segment.end))
            {
                out.fill(true);
            }
        }
    }

    fn resident_bytes(&self) -> u64 {
        self.private_bytes()
    }
}
