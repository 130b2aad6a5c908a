//! Guest `fork`: sharing frames, and copying them on write.
//!
//! After a fork both page tables name the same frames, read-only. The first write to one, by the guest or by the
//! Sentry on its behalf, gives the writer's space a frame of its own, or makes the entry writable again when no other
//! space is left. Neighbours are copied along, because each write that has to leave the guest costs far more than
//! copying a page.
//!
//! Order matters on breaking: copy, change the entry, revoke the old frame's translations, and only then let go of
//! the old frame. Were it released first, its other owner could find itself alone, write in place, and be seen
//! through a stale translation of ours.

use std::sync::atomic::Ordering;

use quicksand_abi::UserAddr;
use quicksand_platform::{FaultCause, PlatformError, Prot};

use crate::copy;
use crate::page_table::{LEAF_SPAN, Pte, slot};
use crate::space::{Inner, KvmSpace};
use crate::window::{HostKind, PAGE, Run, Runs};

/// Pages copied together: few where writes are scattered, more with each that continues where the last one ended.
const FIRST_BATCH: u64 = 4;
const MAX_BATCH: u64 = 64;
/// Pages made writable together where no copy is needed, which costs next to nothing.
const UPGRADE: u64 = 64;

/// The last copies made in a space.
#[derive(Debug, Default)]
pub(crate) struct LastCopies {
    end: u64,
    pages: u64,
}

impl LastCopies {
    /// How many pages to look at from `target` on.
    fn batch(&self, target: u64) -> u64 {
        let continues = target >= self.end && target - self.end < MAX_BATCH * PAGE;
        if continues { (self.pages * 2).clamp(FIRST_BATCH, MAX_BATCH) } else { FIRST_BATCH }
    }
}

impl KvmSpace {
    pub(crate) fn fork_space(&self) -> Result<KvmSpace, PlatformError> {
        let window = &self.shared.window;
        let child = KvmSpace::new(&self.shared)?;
        let mut lost = Runs::default();
        {
            let ours = self.inner.write();
            let mut theirs = child.inner.write();
            let theirs = &mut *theirs;
            theirs.segments = ours.segments.clone();
            let mut entries: Vec<(u64, Pte)> = Vec::new();
            for segment in ours.segments.all() {
                for block in ours.table.blocks(window, segment.start, segment.end) {
                    let from = block.max(segment.start);
                    let to = (block + LEAF_SPAN).min(segment.end);
                    entries.clear();
                    ours.table.visit(window, from, to, &mut |page, entry| {
                        entries.push((page, Pte(entry.load(Ordering::Acquire))));
                    });
                    let Some(own) = ours.table.leaf(window, from).filter(|_| !entries.is_empty()) else {
                        continue;
                    };
                    let leaf = theirs.table.leaf_or_new(window, from)?;
                    self.shared.frames.share(entries.iter().map(|(_, pte)| pte.gpa()));
                    for (page, pte) in &entries {
                        let new = if pte.is_shared_mapping() || pte.is_suspect() {
                            *pte
                        } else {
                            pte.with_access(segment.prot, false)
                        };
                        slot(leaf, *page).store(new.0, Ordering::Release);
                        slot(own, *page).store(new.0, Ordering::Release);
                        if pte.loses_access(new) {
                            lost.push(pte.gpa(), pte.kind());
                        }
                    }
                }
            }
            // Still under our lock: no write of the Sentry's may slip in before the guest sees read-only pages.
            window.revoke(&lost.0);
        }
        self.shared.counters.forks.fetch_add(1, Ordering::Relaxed);
        Ok(child)
    }

    /// A write to a page that is read-only only because its frame is, or was, shared.
    pub(crate) fn break_cow(&self, inner: &mut Inner, target: u64) -> Result<(), FaultCause> {
        let window = &self.shared.window;
        let segment = inner.segments.find(target).ok_or(FaultCause::Unmapped)?;
        let (start, end, prot) = (segment.start, segment.end, segment.prot);
        let around = target & !(UPGRADE * PAGE - 1);
        let batch = inner.last_copies.batch(target);
        let copy_end = target + batch * PAGE;
        let leaf = inner.table.leaf(window, target).ok_or(FaultCause::Bus)?;
        let mut copies: Vec<(u64, Pte)> = Vec::new();
        let mut page = around.max(start);
        while page < (around + UPGRADE * PAGE).min(end) {
            let pte = Pte(slot(leaf, page).load(Ordering::Acquire));
            if pte.is_present() && !pte.is_writable() && !pte.is_shared_mapping() {
                if !self.shared.frames.is_shared(pte.gpa()) {
                    slot(leaf, page).store(pte.with_access(prot, true).0, Ordering::Release);
                } else if page == target || (page > target && page < copy_end && self.is_resident(pte)) {
                    copies.push((page, pte));
                }
            }
            page += PAGE;
        }
        inner.last_copies = LastCopies { end: copy_end.min(page), pages: batch };
        self.copy_pages(inner, &copies, prot, target)
    }

    pub(crate) fn copy_page(
        &self,
        inner: &mut Inner,
        page: u64,
        pte: Pte,
        prot: Prot,
    ) -> Result<(), FaultCause> {
        self.copy_pages(inner, &[(page, pte)], prot, page)
    }

    fn copy_pages(
        &self,
        inner: &mut Inner,
        pages: &[(u64, Pte)],
        prot: Prot,
        target: u64,
    ) -> Result<(), FaultCause> {
        if pages.is_empty() {
            return Ok(());
        }
        let window = &self.shared.window;
        let leaf = inner.table.leaf(window, target).ok_or(FaultCause::Bus)?;
        let gpa = window.alloc(pages.len() as u64 * PAGE).map_err(|error| {
            tracing::warn!(addr = %UserAddr(target), %error, "no memory for a private copy of a page");
            FaultCause::Bus
        })?;
        if pages.len() >= FIRST_BATCH as usize {
            // One call instead of a host fault each.
            window.populate(&Run { gpa, len: pages.len() as u64 * PAGE, kind: HostKind::Anonymous }, true);
        }
        let mut spare: Vec<Run> = Vec::new();
        let mut old = Runs::default();
        let mut failed = false;
        for ((page, pte), frame) in pages.iter().zip((gpa..).step_by(PAGE as usize)) {
            if !self.copy_frame(frame, pte.gpa()) {
                // The host has no page there (any more).
                failed |= *page == target;
                spare.push(Run { gpa: frame, len: PAGE, kind: HostKind::Anonymous });
                continue;
            }
            let new = Pte::new(frame, HostKind::Anonymous, false).with_access(prot, true);
            slot(leaf, *page).store(new.0, Ordering::Release);
            old.push(pte.gpa(), pte.kind());
            self.shared.counters.cow_copies.fetch_add(1, Ordering::Relaxed);
        }
        window.revoke(&old.0);
        for run in &old.0 {
            for gpa in (run.gpa..run.gpa + run.len).step_by(PAGE as usize) {
                if self.shared.frames.release(gpa) {
                    spare.push(Run { gpa, len: PAGE, kind: run.kind });
                }
            }
        }
        window.free(&spare);
        if failed { Err(FaultCause::Bus) } else { Ok(()) }
    }

    fn copy_frame(&self, to: u64, from: u64) -> bool {
        let window = &self.shared.window;
        let (to, from, len) = (window.host(to), window.host(from), PAGE as usize);
        // SAFETY: both frames are in the window; the first is not in any page table yet.
        let missed = unsafe { copy::copy(to, from, len) };
        if missed == 0 {
            return true;
        }
        let _final = window.revoking.lock();
        // SAFETY: as above.
        unsafe { copy::copy(to, from, len) == 0 }
    }

    fn is_resident(&self, pte: Pte) -> bool {
        let mut resident = false;
        let run = Run { gpa: pte.gpa(), len: PAGE, kind: pte.kind() };
        self.shared.window.for_each_resident(&run, &mut |r| resident = r);
        resident
    }
}
