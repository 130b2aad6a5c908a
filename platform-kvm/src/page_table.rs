//! Guest page tables: four levels of x86-64 long-mode paging, in pages of the window.
//!
//! A leaf entry is the only record of which frame stands behind a guest page. An entry that is not zero owns one
//! reference to its frame, present or not: a page that the guest may not touch (`PROT_NONE`) keeps its frame with the
//! present bit clear. Accessed and dirty bits are set from the start, so that neither the processor nor KVM ever writes
//! to a table. Entries of upper levels allow everything and, once made, never change while the space lives, because
//! KVM on hosts that shadow these tables would not notice.

use std::sync::atomic::{AtomicU64, Ordering};

use quicksand_platform::{PlatformError, Prot};

use crate::window::{HostKind, Window};

pub(crate) const PRESENT: u64 = 1;
pub(crate) const WRITE: u64 = 1 << 1;
pub(crate) const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
pub(crate) const NO_EXECUTE: u64 = 1 << 63;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// Ignored by the processor; ours. The frame lies in a host mapping of a file.
const FILE: u64 = 1 << 9;
/// A shared mapping: no copy-on-write.
const SHARED: u64 = 1 << 10;
/// The host failed to give a page: touch it from here before it is made present again.
const SUSPECT: u64 = 1 << 11;
/// The host mapping is read-only.
const HOST_READ_ONLY: u64 = 1 << 52;

/// Upper-level entries and the supervisor's data pages.
pub(crate) const TABLE: u64 = PRESENT | WRITE | USER | ACCESSED | DIRTY;
pub(crate) const SUPERVISOR_DATA: u64 = PRESENT | WRITE | ACCESSED | DIRTY | NO_EXECUTE;
pub(crate) const SUPERVISOR_RO: u64 = PRESENT | ACCESSED | DIRTY | NO_EXECUTE;
pub(crate) const SUPERVISOR_CODE: u64 = PRESENT | ACCESSED | DIRTY;

/// Bytes that one last-level table covers.
pub(crate) const LEAF_SPAN: u64 = 2 << 20;

/// A leaf entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pte(pub(crate) u64);

impl Pte {
    pub(crate) const EMPTY: Pte = Pte(0);

    /// An entry for a frame, with no access yet.
    pub(crate) fn new(gpa: u64, kind: HostKind, shared: bool) -> Pte {
        let kind = match kind {
            HostKind::Anonymous => 0,
            HostKind::File => FILE,
            HostKind::ReadOnlyFile => FILE | HOST_READ_ONLY,
        };
        Pte(gpa | kind | if shared { SHARED } else { 0 })
    }
    /// Whether a frame stands behind the page.
    pub(crate) fn has_frame(self) -> bool {
        self.0 != 0
    }
    pub(crate) fn gpa(self) -> u64 {
        self.0 & FRAME
    }
    pub(crate) fn kind(self) -> HostKind {
        match (self.0 & FILE != 0, self.0 & HOST_READ_ONLY != 0) {
            (false, _) => HostKind::Anonymous,
            (true, false) => HostKind::File,
            (true, true) => HostKind::ReadOnlyFile,
        }
    }
    pub(crate) fn is_shared_mapping(self) -> bool {
        self.0 & SHARED != 0
    }
    pub(crate) fn is_suspect(self) -> bool {
        self.0 & SUSPECT != 0
    }
    pub(crate) fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }
    pub(crate) fn is_writable(self) -> bool {
        self.0 & (PRESENT | WRITE) == PRESENT | WRITE
    }
    /// The same frame with the guest's protection. `write` says whether the page may be written *now*: not while
    /// another address space shares the frame.
    pub(crate) fn with_access(self, prot: Prot, write: bool) -> Pte {
        let mut bits = self.0 & (FRAME | FILE | SHARED | HOST_READ_ONLY);
        if prot.any() {
            bits |= PRESENT | USER | ACCESSED | DIRTY;
            if prot.write && write && bits & HOST_READ_ONLY == 0 {
                bits |= WRITE;
            }
            if !prot.execute {
                bits |= NO_EXECUTE;
            }
        }
        Pte(bits)
    }
    /// The same frame, not present, to be looked at on the next touch.
    pub(crate) fn suspect(self) -> Pte {
        Pte(self.0 & (FRAME | FILE | SHARED | HOST_READ_ONLY) | SUSPECT)
    }
    /// Whether going from `self` to `new` takes something away that a translation may still allow.
    pub(crate) fn loses_access(self, new: Pte) -> bool {
        self.is_present()
            && (!new.is_present()
                || self.gpa() != new.gpa()
                || (self.0 & WRITE != 0 && new.0 & WRITE == 0)
                || (self.0 & NO_EXECUTE == 0 && new.0 & NO_EXECUTE != 0))
    }
}

/// One address space's tables. Who holds the space's lock for writing may change them.
#[derive(Debug)]
pub(crate) struct PageTable {
    root: u64,
    /// All pages of this table, for returning them.
    pages: Vec<u64>,
}

fn index(va: u64, level: u32) -> usize {
    (va >> (12 + 9 * level) & 511) as usize
}

impl PageTable {
    /// An empty table with the supervisor's half in place.
    pub(crate) fn new(window: &Window, supervisor: (usize, u64)) -> Result<PageTable, PlatformError> {
        let root = window.alloc_table()?;
        window.words(root)[supervisor.0].store(supervisor.1, Ordering::Release);
        Ok(PageTable { root, pages: vec![root] })
    }

    pub(crate) fn root(&self) -> u64 {
        self.root
    }

    /// The last-level table that covers `va`, if there is one.
    pub(crate) fn leaf<'w>(&self, window: &'w Window, va: u64) -> Option<&'w [AtomicU64; 512]> {
        let mut table = self.root;
        for level in [3, 2, 1] {
            let entry = window.words(table)[index(va, level)].load(Ordering::Acquire);
            if entry & PRESENT == 0 {
                return None;
            }
            table = entry & FRAME;
        }
        Some(window.words(table))
    }

    /// As [`PageTable::leaf`], made if missing.
    pub(crate) fn leaf_or_new<'w>(
        &mut self,
        window: &'w Window,
        va: u64,
    ) -> Result<&'w [AtomicU64; 512], PlatformError> {
        let mut table = self.root;
        for level in [3, 2, 1] {
            let slot = &window.words(table)[index(va, level)];
            let mut entry = slot.load(Ordering::Acquire);
            if entry & PRESENT == 0 {
                let page = window.alloc_table()?;
                self.pages.push(page);
                entry = page | TABLE;
                slot.store(entry, Ordering::Release);
            }
            table = entry & FRAME;
        }
        Ok(window.words(table))
    }

    pub(crate) fn get(&self, window: &Window, va: u64) -> Pte {
        self.leaf(window, va).map_or(Pte::EMPTY, |leaf| Pte(leaf[index(va, 0)].load(Ordering::Acquire)))
    }

    /// Calls `f` with the address and slot of every entry in `start..end` that has a frame.
    pub(crate) fn visit(&self, window: &Window, start: u64, end: u64, f: &mut dyn FnMut(u64, &AtomicU64)) {
        visit(window, self.root, 3, start, end, f);
    }

    /// The [`LEAF_SPAN`]-aligned addresses in reach of `start..end` whose last-level table exists.
    pub(crate) fn blocks(&self, window: &Window, start: u64, end: u64) -> Vec<u64> {
        let mut found = Vec::new();
        blocks(window, self.root, 3, start & !(LEAF_SPAN - 1), end, &mut found);
        found
    }

    /// Gives all tables back. The caller has released every frame.
    pub(crate) fn retire(&mut self, window: &Window) {
        window.retire_tables(std::mem::take(&mut self.pages));
    }
}

/// The slot of `va` in its last-level table.
pub(crate) fn slot(leaf: &[AtomicU64; 512], va: u64) -> &AtomicU64 {
    &leaf[index(va, 0)]
}

fn visit(window: &Window, table: u64, level: u32, start: u64, end: u64, f: &mut dyn FnMut(u64, &AtomicU64)) {
    let span = 1u64 << (12 + 9 * level);
    let words = window.words(table);
    let mut va = start;
    while va < end {
        let next = ((va & !(span - 1)) + span).min(end);
        let entry = &words[index(va, level)];
        let value = entry.load(Ordering::Acquire);
        if level == 0 {
            if value != 0 {
                f(va, entry);
            }
        } else if value & PRESENT != 0 {
            visit(window, value & FRAME, level - 1, va, next, f);
        }
        va = next;
    }
}

fn blocks(window: &Window, table: u64, level: u32, start: u64, end: u64, found: &mut Vec<u64>) {
    let span = 1u64 << (12 + 9 * level);
    let mut va = start;
    while va < end {
        let next = ((va & !(span - 1)) + span).min(end);
        let value = window.words(table)[index(va, level)].load(Ordering::Acquire);
        if value & PRESENT != 0 {
            if level == 1 {
                found.push(va);
            } else {
                blocks(window, value & FRAME, level - 1, va, next, found);
            }
        }
        va = next;
    }
}
