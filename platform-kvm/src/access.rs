//! The Sentry's own access to guest memory: walk the guest's page table, then touch the frame in the window.
//!
//! What the guest may not do is refused here as well, as `copy_from_user` would; what only waits for its frame or
//! its private copy is resolved as the guest's own fault would be.

use std::sync::atomic::Ordering;

use quicksand_abi::{UserAddr, UserRange};
use quicksand_platform::{Access, FaultCause, MemFault};

use crate::copy::{self, BadPage};
use crate::page_table::{LEAF_SPAN, Pte};
use crate::segments::{Segment, Source};
use crate::space::{Dropped, Inner, KvmSpace};
use crate::window::{HostKind, PAGE, Runs};

impl KvmSpace {
    /// Calls `f` with host memory for each consecutive piece of `len` bytes at `addr`; `f` gets the piece's offset
    /// and length and says how many bytes of it it could *not* reach.
    fn pieces(
        &self,
        addr: UserAddr,
        len: usize,
        access: Access,
        f: &mut dyn FnMut(*mut u8, usize, usize) -> usize,
    ) -> Result<(), MemFault> {
        let window = &self.shared.window;
        let mut done = 0usize;
        while done < len {
            let fault = MemFault { addr: UserAddr(addr.0.saturating_add(done as u64)), done };
            let at = addr.0.checked_add(done as u64).ok_or(fault)?;
            if at >= UserAddr::TASK_SIZE.0 {
                return Err(fault);
            }
            let usable =
                |pte: Pte| if access == Access::Write { pte.is_writable() } else { pte.is_present() };
            let inner = self.inner.read();
            let pte = inner.table.get(window, at);
            if !usable(pte) {
                drop(inner);
                self.resolve(UserAddr(at), access).map_err(|_| fault)?;
                continue;
            }
            let mut piece = (PAGE - at % PAGE).min((len - done) as u64);
            let mut next = pte.gpa() + PAGE;
            while piece < (len - done) as u64 {
                let pte = inner.table.get(window, at + piece);
                if !usable(pte) || pte.gpa() != next {
                    break;
                }
                next += PAGE;
                piece = (piece + PAGE).min((len - done) as u64);
            }
            let piece = piece as usize;
            let host = window.host(pte.gpa() + at % PAGE);
            let mut missed = f(host, done, piece);
            if missed > 0 {
                // Read-only for an instant, or really not there? Nobody lowers protections while we hold this.
                let _final = window.revoking.lock();
                let good = piece - missed;
                missed = f(host.wrapping_add(good), done + good, missed);
            }
            if missed > 0 {
                let done = done + piece - missed;
                return Err(MemFault { addr: UserAddr(addr.0 + done as u64), done });
            }
            done += piece;
        }
        Ok(())
    }

    pub(crate) fn read_guest(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), MemFault> {
        let base = buf.as_mut_ptr();
        self.pieces(addr, buf.len(), Access::Read, &mut |host, offset, len| {
            // SAFETY: `offset + len` is within `buf`; `host..host + len` is within the window.
            unsafe { copy::copy(base.add(offset), host, len) }
        })
    }

    pub(crate) fn write_guest(&self, addr: UserAddr, buf: &[u8]) -> Result<(), MemFault> {
        self.pieces(addr, buf.len(), Access::Write, &mut |host, offset, len| {
            // SAFETY: `offset + len` is within `buf`; `host..host + len` is within the window.
            unsafe { copy::copy(host, buf.as_ptr().add(offset), len) }
        })
    }

    fn word(
        &self,
        addr: UserAddr,
        access: Access,
        f: &dyn Fn(*mut u32) -> Result<u32, BadPage>,
    ) -> Result<u32, MemFault> {
        if !addr.0.is_multiple_of(4) {
            return Err(MemFault { addr, done: 0 });
        }
        let mut found = 0;
        self.pieces(addr, 4, access, &mut |host, _, len| match f(host.cast()) {
            Ok(value) => {
                found = value;
                0
            }
            Err(BadPage) => len,
        })
        .map_err(|_| MemFault { addr, done: 0 })?;
        Ok(found)
    }

    pub(crate) fn load_guest_u32(&self, addr: UserAddr) -> Result<u32, MemFault> {
        // SAFETY: `pieces` passes an address in the window, and an aligned word does not cross a page.
        self.word(addr, Access::Read, &|word| unsafe { copy::load(word) })
    }

    pub(crate) fn compare_exchange_guest_u32(
        &self,
        addr: UserAddr,
        current: u32,
        new: u32,
    ) -> Result<u32, MemFault> {
        // SAFETY: as above.
        self.word(addr, Access::Write, &|word| unsafe { copy::compare_exchange(word, current, new) })
    }

    /// Writes whatever the guest's protection says, as a debugger does: a private page gets its copy first.
    pub(crate) fn write_guest_forced(&self, addr: UserAddr, buf: &[u8]) -> Result<(), MemFault> {
        let mut inner = self.inner.write();
        let mut done = 0usize;
        while done < buf.len() {
            let fault = MemFault { addr: UserAddr(addr.0.saturating_add(done as u64)), done };
            let at = addr.0.checked_add(done as u64).ok_or(fault)?;
            let len = ((PAGE - at % PAGE) as usize).min(buf.len() - done);
            let pte = self.private_frame(&mut inner, at & !(PAGE - 1)).map_err(|_| fault)?;
            let host = self.shared.window.host(pte.gpa() + at % PAGE);
            let _final = self.shared.window.revoking.lock();
            // SAFETY: both sides as in `write_guest`.
            let missed = unsafe { copy::copy(host, buf.as_ptr().add(done), len) };
            if missed > 0 {
                let done = done + len - missed;
                return Err(MemFault { addr: UserAddr(addr.0 + done as u64), done });
            }
            done += len;
        }
        Ok(())
    }

    /// A frame at `page` that may be written without anybody else seeing it, unless the mapping is shared and writable.
    fn private_frame(&self, inner: &mut Inner, page: u64) -> Result<Pte, FaultCause> {
        let segment = inner.segments.find(page).ok_or(FaultCause::Unmapped)?.clone();
        if segment.source.is_shared() && !segment.prot.write {
            return Err(FaultCause::Unmapped);
        }
        let mut pte = inner.table.get(&self.shared.window, page);
        if !pte.has_frame() {
            let part = inner.segments.within(page, page + PAGE);
            for part in &part {
                self.fill(inner, part).map_err(|_| FaultCause::Bus)?;
            }
            pte = inner.table.get(&self.shared.window, page);
        }
        if !pte.has_frame() {
            return Err(FaultCause::Bus);
        }
        if !self.owns(pte) {
            self.copy_page(inner, page, pte, segment.prot)?;
            pte = inner.table.get(&self.shared.window, page);
        }
        Ok(pte)
    }

    /// Touches a page as `access` would. The host's refusal is final.
    pub(crate) fn touch(&self, pte: Pte, access: Access) -> Result<(), FaultCause> {
        let _final = self.shared.window.revoking.lock();
        let word = self.shared.window.host(pte.gpa()).cast::<u32>();
        // SAFETY: the frame is in the window.
        let value = unsafe { copy::load(word) }.map_err(|BadPage| FaultCause::Bus)?;
        if access == Access::Write && (pte.is_shared_mapping() || !self.shared.frames.is_shared(pte.gpa())) {
            // SAFETY: as above; the exchange leaves the word as it is.
            unsafe { copy::compare_exchange(word, value, value) }.map_err(|BadPage| FaultCause::Bus)?;
        }
        Ok(())
    }

    /// KVM could not get a page from the host: marks the page (or, where KVM does not say which, all pages that lie
    /// beyond the end of their file now) not present, so that the next touch is a page fault and gets examined.
    pub(crate) fn suspect(&self, gpa: Option<u64>) {
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        let window = &self.shared.window;
        let mut lost = Runs::default();
        let segments: Vec<Segment> = inner.segments.all().cloned().collect();
        for segment in segments {
            let mut from = segment.start;
            match (&segment.source, gpa) {
                (_, Some(_)) => {}
                (Source::File { file, offset, .. }, None) if file.regular => {
                    let size = rustix::fs::fstat(&file.fd).map_or(0, |stat| stat.st_size.unsigned_abs());
                    let pages = size.saturating_sub(*offset).div_ceil(PAGE);
                    from = from.saturating_add(pages.saturating_mul(PAGE)).min(segment.end);
                }
                _ => continue,
            }
            inner.table.visit(window, from, segment.end, &mut |_, entry| {
                let pte = Pte(entry.load(Ordering::Acquire));
                if gpa.is_none_or(|gpa| gpa & !(PAGE - 1) == pte.gpa()) {
                    entry.store(pte.suspect().0, Ordering::Release);
                    lost.push(pte.gpa(), pte.kind());
                }
            });
        }
        window.revoke(&lost.0);
    }

    /// `MADV_DONTNEED`.
    pub(crate) fn drop_contents(&self, range: UserRange) {
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        let window = &self.shared.window;
        let mut discard = Runs::default();
        let mut dropped = Dropped::default();
        for segment in inner.segments.within(range.start.0, range.end.0) {
            if segment.source.is_shared() {
                continue;
            }
            let of_file = matches!(segment.source, Source::File { .. });
            inner.table.visit(window, segment.start, segment.end, &mut |_, entry| {
                let pte = Pte(entry.load(Ordering::Acquire));
                // A frame keeps its place where the host can restore its contents: anonymous memory, or the file's own
                // frame. A copy in place of a file's page, or a frame that another space uses, goes.
                let stays = self.owns(pte) && of_file == (pte.kind() != HostKind::Anonymous);
                if stays {
                    discard.push(pte.gpa(), pte.kind());
                    return;
                }
                entry.store(0, Ordering::Release);
                if self.shared.frames.release(pte.gpa()) {
                    dropped.last.push(pte.gpa(), pte.kind());
                } else {
                    dropped.kept.push(pte.gpa(), pte.kind());
                }
            });
        }
        for run in &discard.0 {
            window.discard_contents(run);
        }
        dropped.settle(&self.shared);
    }

    /// `MADV_POPULATE_*`, a chunk at a time so that nobody waits long for the lock.
    pub(crate) fn populate(&self, range: UserRange, write: bool) {
        let access = if write { Access::Write } else { Access::Read };
        let mut va = range.start.0;
        while va < range.end.0 {
            let end = ((va & !(LEAF_SPAN - 1)) + LEAF_SPAN).min(range.end.0);
            let segments = self.inner.read().segments.within(va, end);
            for segment in segments {
                let mut page = segment.start;
                while page < segment.end {
                    let pte = self.inner.read().table.get(&self.shared.window, page);
                    let usable = if write { pte.is_writable() } else { pte.is_present() };
                    if !usable && self.resolve(UserAddr(page), access).is_err() {
                        break;
                    }
                    page += PAGE;
                }
                self.populate_frames(segment.start, page, write);
            }
            va = end;
        }
    }

    fn populate_frames(&self, start: u64, end: u64, write: bool) {
        let inner = self.inner.read();
        let mut runs = Runs::default();
        inner.table.visit(&self.shared.window, start, end, &mut |_, entry| {
            let pte = Pte(entry.load(Ordering::Acquire));
            if if write { pte.is_writable() } else { pte.is_present() } {
                runs.push(pte.gpa(), pte.kind());
            }
        });
        for run in &runs.0 {
            self.shared.window.populate(run, write);
        }
    }

    pub(crate) fn resident_pages(&self, range: UserRange, out: &mut [bool]) {
        out.fill(false);
        let inner = self.inner.read();
        let mut at: Vec<u64> = Vec::new();
        let mut runs = Runs::default();
        inner.table.visit(&self.shared.window, range.start.0, range.end.0, &mut |va, entry| {
            let pte = Pte(entry.load(Ordering::Acquire));
            at.push(va);
            runs.push(pte.gpa(), pte.kind());
        });
        let mut at = at.into_iter();
        for run in &runs.0 {
            self.shared.window.for_each_resident(run, &mut |resident| {
                let page = at.next().map(|va| ((va - range.start.0) / PAGE) as usize);
                if let Some(entry) = page.and_then(|page| out.get_mut(page)) {
                    *entry = resident;
                }
            });
        }
    }

    /// Resident anonymous memory, counted by asking the host. Pages of private file mappings that were written are
    /// not told apart from the page cache's and not counted.
    pub(crate) fn private_bytes(&self) -> u64 {
        let inner = self.inner.read();
        let mut runs = Runs::default();
        inner.table.visit(&self.shared.window, 0, UserAddr::TASK_SIZE.0, &mut |_, entry| {
            let pte = Pte(entry.load(Ordering::Acquire));
            if pte.kind() == HostKind::Anonymous {
                runs.push(pte.gpa(), HostKind::Anonymous);
            }
        });
        let mut bytes = 0;
        for run in &runs.0 {
            self.shared
                .window
                .for_each_resident(run, &mut |resident| bytes += if resident { PAGE } else { 0 });
        }
        bytes
    }
}
