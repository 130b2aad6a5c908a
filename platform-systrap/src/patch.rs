//! Patched system calls: sites in guest code whose instruction before a `syscall` was replaced by a jump into the stub, so that
//! neither a signal nor a `sigreturn` is needed. `docs/decisions/0011-patched-sites.md` says what a guest can see of it.
//!
//! A site is an instruction of five bytes or more and the `syscall` behind it; what is put there is one of seven,
//! `jmp *SLOT_POINTER`, through the table in low memory (`layout.rs`). Invariants:
//!
//! - Only private memory that the guest can execute and cannot write is patched; nobody reads a patched byte through the Sentry,
//!   and nobody writes, maps, unmaps, moves or unprotects one without the site being as it was before.
//! - Whatever instruction boundary a thread comes to, before, during and after a change, is the old instruction, the
//!   new one, or [`NO_INSTRUCTION`], which traps; [`Patches::explain`] knows what then is to be done.
//! - A slot is used once. Its record stays, for a thread may be in it.

use std::collections::{BTreeMap, BTreeSet};

use crate::agent::Operation;
use crate::layout::{
    AREA_LEN, DESCRIPTOR_ENTRY, DESCRIPTOR_LEN, DESCRIPTORS, DESCRIPTORS_COUNT, NUMBER_SLOTS, RECORD_LEN,
    RECORDS, SLOT_LEN, SLOTS, SLOTS_COUNT, STACK_ARGUMENT, TABLE, TABLE_LEN, special,
};
use crate::stub;

/// Not an instruction in 64-bit mode, whatever follows it.
const NO_INSTRUCTION: u8 = 0x06;
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// The length of the jump, and the longest instruction and `syscall`.
pub(crate) const JUMP_LEN: usize = 7;
pub(crate) const SITE_LEN: usize = 9;
/// How far behind a `syscall` ends what is looked at before it: a site and the byte in front of it.
pub(crate) const LOOK_BACK: usize = SITE_LEN + 1;
/// Of the second stack argument at `syscall(3)`.
pub(crate) const STACK_ARGUMENT_OFFSET: u64 = 8;

/// What the table holds, for all stubs.
pub(crate) fn table() -> Vec<u8> {
    let mut table = vec![0; TABLE_LEN];
    for (i, at) in table[..8 * SLOTS_COUNT].chunks_exact_mut(8).enumerate() {
        at.copy_from_slice(&(SLOTS + (i * SLOT_LEN) as u64).to_le_bytes());
    }
    let pages = (AREA_LEN >> 12) as u32;
    for i in 0..DESCRIPTORS_COUNT {
        let at = DESCRIPTORS + DESCRIPTOR_LEN * i;
        // A `user_desc` for data: 32 bits, the limit in pages.
        let words = [DESCRIPTOR_ENTRY, 0, i as u32 * pages, 1 | 1 << 4];
        for (at, word) in table[at..at + DESCRIPTOR_LEN].chunks_exact_mut(4).zip(words) {
            at.copy_from_slice(&word.to_le_bytes());
        }
    }
    table
}

/// What stands before the `syscall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// It loads the number: `mov $imm32, %eax` or `mov $imm32, %rax`.
    Number { len: usize, number: u64 },
    /// `mov 8(%rsp), %r9`
    StackArgument,
}

/// A `syscall` instruction that could be patched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) start: u64,
    before: Before,
    original: [u8; JUMP_LEN],
}

impl Candidate {
    /// In the [`LOOK_BACK`] bytes before `end`, where a `syscall` has just ended with number `rax`. Backwards, x86 code can be read
    /// in more ways than one: so the register has to hold what the instruction would have put there.
    pub(crate) fn find(bytes: &[u8; LOOK_BACK], end: u64, rax: u64) -> Option<Candidate> {
        let (rest, syscall) = bytes.split_at(SITE_LEN - 1);
        if syscall != SYSCALL {
            return None;
        }
        // rest: a byte, then up to seven of an instruction.
        let immediate = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]);
        let is_rex = |byte: u8| byte & 0xf0 == 0x40 || byte == 0xd5;
        let (before, len) = if rest[3] == 0xb8 && !is_rex(rest[2]) && rax == u64::from(immediate) {
            (Before::Number { len: 5, number: rax }, 5)
        } else if rest[1..4] == [0x48, 0xc7, 0xc0] && rax == i64::from(immediate as i32) as u64 {
            (Before::Number { len: 7, number: rax }, 7)
        } else if rest[3..] == STACK_ARGUMENT {
            (Before::StackArgument, 5)
        } else {
            return None;
        };
        let start = SITE_LEN - 1 - len;
        let original = bytes[start..start + JUMP_LEN].try_into().ok()?;
        Some(Candidate { start: end - (len + 2) as u64, before, original })
    }

    /// Whether it is one that holds whatever the number.
    pub(crate) fn reads_stack(&self) -> bool {
        self.before == Before::StackArgument
    }

    fn end(&self) -> u64 {
        self.start + (self.len() + SYSCALL.len()) as u64
    }
    fn len(&self) -> usize {
        match self.before {
            Before::Number { len, .. } => len,
            Before::StackArgument => STACK_ARGUMENT.len(),
        }
    }
    /// Where its `syscall` was that the jump covers.
    fn covered_call(&self) -> Option<u64> {
        (self.len() < JUMP_LEN).then_some(self.start + self.len() as u64)
    }

    fn store(&self, offset: usize, byte: u8) -> Operation {
        Operation::special(special::STORE, [self.start + offset as u64, byte.into(), 0])
    }

    /// Puts `bytes` there, so that no thread can meet a mixture of old and new. `covers`: the jump's are put there.
    fn change(&self, bytes: &[u8; JUMP_LEN], covers: bool, out: &mut Vec<Operation>) {
        let sync = || {
            let command = libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE as u64;
            Operation::call(libc::SYS_membarrier, [command, 0, 0, 0, 0, 0])
        };
        let call = if self.covered_call().is_some() { self.len() } else { JUMP_LEN };
        if covers && call < JUMP_LEN {
            out.push(self.store(call, NO_INSTRUCTION));
        }
        out.push(self.store(0, NO_INSTRUCTION));
        out.push(sync());
        // The covered call's first byte is the last: it is an instruction's.
        out.extend((1..JUMP_LEN).filter(|i| *i != call).map(|i| self.store(i, bytes[i])));
        if call < JUMP_LEN {
            out.push(sync());
            out.push(self.store(call, bytes[call]));
        }
        out.push(sync());
        out.push(self.store(0, bytes[0]));
        out.push(sync());
    }
}

#[derive(Clone, Copy, Debug)]
struct Site {
    what: Candidate,
    slot: usize,
}

impl Site {
    fn pointer(&self) -> u64 {
        TABLE + 8 * self.slot as u64
    }
    fn jump(&self) -> [u8; JUMP_LEN] {
        let [a, b, c, d, ..] = self.pointer().to_le_bytes();
        [0xff, 0x24, 0x25, a, b, c, d]
    }
}

/// What an exception at or about a patched site means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The guest's own.
    Itself,
    /// A thread came upon a change: what is there now is to be run.
    Again,
    /// It is the system call that the jump covers; it ends here.
    Call { end: u64 },
    /// It happened in the slot, to the instruction that stood here.
    At { start: u64 },
}

/// The patched sites of an address space.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patches {
    sites: BTreeMap<u64, Site>,
    /// Of each slot that was used, its site.
    slots: BTreeMap<usize, Candidate>,
    /// Starts of sites that are not to be patched, and of those that once were.
    refused: BTreeSet<u64>,
    former: BTreeMap<u64, Site>,
    next_number_slot: usize,
    next_other_slot: usize,
    /// The guest has taken the table's place: there will be no more.
    pub(crate) off: bool,
}

impl Patches {
    /// Whether `start..end` and the table have addresses in common.
    pub(crate) fn meets_table(start: u64, end: u64) -> bool {
        start < TABLE + TABLE_LEN as u64 && end > TABLE
    }

    pub(crate) fn is_refused(&self, start: u64) -> bool {
        self.off || self.refused.contains(&start) || self.sites.contains_key(&start)
    }

    pub(crate) fn refuse(&mut self, start: u64) {
        self.refused.insert(start);
    }

    /// Starts of sites with a byte in `start..end`.
    pub(crate) fn within(&self, start: u64, end: u64) -> Vec<u64> {
        let first = start.saturating_sub(JUMP_LEN as u64 - 1);
        self.sites.range(first..end.max(first)).map(|(at, _)| *at).collect()
    }

    pub(crate) fn all(&self) -> Vec<u64> {
        self.sites.keys().copied().collect()
    }

    /// Makes `bytes`, read at `addr`, what they were before any patch.
    pub(crate) fn unpatch(&self, addr: u64, bytes: &mut [u8]) {
        if self.sites.is_empty() {
            return;
        }
        let end = addr.saturating_add(bytes.len() as u64);
        for start in self.within(addr, end) {
            for (at, byte) in (start..).zip(self.sites[&start].what.original) {
                if (addr..end).contains(&at) {
                    bytes[(at - addr) as usize] = byte;
                }
            }
        }
    }

    /// A slot for `what`, with the record that it needs and where that goes; `None` when they are all used.
    pub(crate) fn take_slot(&mut self, what: &Candidate) -> Option<(usize, u64, [u8; RECORD_LEN])> {
        let (slot, number) = match what.before {
            Before::Number { number, .. } if self.next_number_slot < NUMBER_SLOTS => {
                self.next_number_slot += 1;
                (self.next_number_slot - 1, number)
            }
            Before::StackArgument if NUMBER_SLOTS + self.next_other_slot < SLOTS_COUNT => {
                self.next_other_slot += 1;
                (NUMBER_SLOTS + self.next_other_slot - 1, 0)
            }
            _ => return None,
        };
        self.slots.insert(slot, *what);
        let mut record = [0; RECORD_LEN];
        record[..8].copy_from_slice(&what.end().to_le_bytes());
        record[8..].copy_from_slice(&number.to_le_bytes());
        Some((slot, RECORDS + (slot * RECORD_LEN) as u64, record))
    }

    /// What puts the jump there. To be followed by [`Patches::done`].
    pub(crate) fn operations(what: &Candidate, slot: usize) -> Vec<Operation> {
        let mut operations = Vec::new();
        what.change(&Site { what: *what, slot }.jump(), true, &mut operations);
        operations
    }

    pub(crate) fn done(&mut self, what: &Candidate, slot: usize) {
        self.sites.insert(what.start, Site { what: *what, slot });
    }

    /// What takes it away again. To be followed by [`Patches::forget`].
    pub(crate) fn undo(&self, start: u64) -> Vec<Operation> {
        let mut operations = Vec::new();
        if let Some(site) = self.sites.get(&start) {
            site.what.change(&site.what.original, false, &mut operations);
        }
        operations
    }

    /// Takes back [`Patches::operations`] that failed.
    pub(crate) fn undo_failed(what: &Candidate) -> Vec<Operation> {
        let mut operations = Vec::new();
        what.change(&what.original, false, &mut operations);
        operations
    }

    /// The site is as it was, or gone, and is not patched again.
    pub(crate) fn forget(&mut self, start: u64) {
        if let Some(site) = self.sites.remove(&start) {
            self.former.insert(start, site);
        }
        self.refused.insert(start);
    }

    /// Of a copy from `addr` on, how much comes before the table, which the guest does not have.
    pub(crate) fn before_table(&self, addr: u64, len: usize) -> usize {
        if self.off || !Patches::meets_table(addr, addr.saturating_add(len as u64)) {
            return len;
        }
        TABLE.saturating_sub(addr) as usize
    }

    /// As if the site had never been patched. Slots are used once; a test needs more of them.
    #[cfg(test)]
    pub(crate) fn allow_for_test(&mut self, start: u64) {
        self.refused.remove(&start);
        if self.next_number_slot == NUMBER_SLOTS {
            self.next_number_slot = 0;
        }
    }

    /// What was in `start..end` is gone.
    pub(crate) fn forget_within(&mut self, start: u64, end: u64) {
        for site in self.within(start, end) {
            self.forget(site);
        }
        // Other code may come to stand there.
        let gone: Vec<u64> = self.refused.range(start..end).copied().collect();
        for site in gone {
            self.refused.remove(&site);
        }
    }

    /// What an exception at `rip` means: `vector`, and for a page fault the address. `read` reads guest memory at `rip` as it is
    /// now, as far as it can be read.
    pub(crate) fn explain(
        &self,
        rip: u64,
        vector: u8,
        addr: Option<u64>,
        read: impl FnOnce(&mut [u8]) -> bool,
    ) -> Meaning {
        if let Some(offset) = rip.checked_sub(SLOTS).filter(|o| *o < (SLOTS_COUNT * SLOT_LEN) as u64) {
            let (slot, offset) = (offset as usize / SLOT_LEN, offset as usize % SLOT_LEN);
            return match self.slots.get(&slot) {
                Some(what) if offset == 0 => Meaning::At { start: what.start },
                _ => Meaning::Itself,
            };
        }
        let before = |sites: &BTreeMap<u64, Site>| {
            sites.range(..=rip).next_back().map(|(_, site)| *site).filter(|site| rip < site.what.end())
        };
        let now = before(&self.sites);
        let Some(site) = now.or_else(|| before(&self.former)) else { return Meaning::Itself };
        let covered = site.what.covered_call() == Some(rip);
        if now.is_some() && covered && vector == 6 {
            return Meaning::Call { end: site.what.end() };
        }
        let ours = match vector {
            6 => rip == site.what.start || covered,
            14 => rip == site.what.start && addr == Some(site.pointer()),
            _ => false,
        };
        if !ours {
            return Meaning::Itself;
        }
        // Not for ever: only where what is there now cannot raise this. What cannot be read raises something else.
        let mut bytes = [0; JUMP_LEN];
        let bytes = if covered { &mut bytes[..SYSCALL.len()] } else { &mut bytes[..] };
        let again = !read(bytes)
            || *bytes == SYSCALL
            || *bytes == site.what.original
            || (vector == 6 && now.is_some() && *bytes == site.jump());
        if again { Meaning::Again } else { Meaning::Itself }
    }
}

/// Whether it is `rip` where a thread without a descriptor gives up, and then which slot it came from and whether ZF was set.
pub(crate) fn stranger(rip: u64, rcx: u64) -> Option<(usize, bool)> {
    let slot = usize::try_from(rcx / 16).ok().filter(|slot| *slot < SLOTS_COUNT)?;
    (rip == stub::stranger()).then_some((slot, rcx & 8 != 0))
}

impl Patches {
    /// Of a slot, where its call ends, and the number that it loads.
    pub(crate) fn slot(&self, slot: usize) -> Option<(u64, Option<u64>)> {
        self.slots.get(&slot).map(|what| match what.before {
            Before::Number { number, .. } => (what.end(), Some(number)),
            Before::StackArgument => (what.end(), None),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(bytes: [u8; 10], rax: u64) -> Option<(u64, Before)> {
        Candidate::find(&bytes, 0x1000, rax).map(|c| (c.start, c.before))
    }

    #[test]
    fn sites_are_recognised() {
        let plain = [0x90, 0x90, 0xc3, 0xb8, 39, 0, 0, 0, 0x0f, 0x05];
        assert_eq!(find(plain, 39), Some((0xff9, Before::Number { len: 5, number: 39 })));
        assert_eq!(find(plain, 40), None);
        assert_eq!(find(plain, 1 << 32 | 39), None);
        let rex = [0x90, 0x90, 0x41, 0xb8, 39, 0, 0, 0, 0x0f, 0x05];
        assert_eq!(find(rex, 39), None);
        let long = [0x90, 0x48, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x05];
        assert_eq!(find(long, u64::MAX), Some((0xff7, Before::Number { len: 7, number: u64::MAX })));
        let stack = [0, 0, 0, 0x4c, 0x8b, 0x4c, 0x24, 0x08, 0x0f, 0x05];
        assert_eq!(find(stack, 1), Some((0xff9, Before::StackArgument)));
        assert_eq!(find([0x31, 0xc0, 0x90, 0x90, 0x90, 0x90, 0x31, 0xc0, 0x0f, 0x05], 0), None);
    }

    /// At no step of a change can a thread meet anything but the old, the new, or no instruction.
    #[test]
    fn changes_are_seen_whole() {
        for code in [
            [0x90, 0x90, 0xc3, 0xb8, 39, 0, 0, 0, 0x0f, 0x05],
            [0x90, 0x48, 0xc7, 0xc0, 39, 0, 0, 0, 0x0f, 0x05],
            [0, 0, 0, 0x4c, 0x8b, 0x4c, 0x24, 0x08, 0x0f, 0x05],
        ] {
            let what = Candidate::find(&code, 0x1000, 39).expect("a site");
            let site = Site { what, slot: 77 };
            let jump = site.jump();
            let from = (what.start - (0x1000 - 10)) as usize;
            let mut bytes = code;
            let mut there = Vec::new();
            what.change(&jump, true, &mut there);
            let mut back = Vec::new();
            what.change(&what.original, false, &mut back);
            for operation in there.into_iter().chain(back) {
                let Some((at, value)) = operation.stored() else { continue };
                bytes[(at - (0x1000 - 10)) as usize] = value;
                let now = &bytes[from..from + JUMP_LEN];
                assert!(
                    now[0] == NO_INSTRUCTION || now == what.original || now == jump || {
                        // The first instruction is whole, the call is not there.
                        now[..what.len().min(JUMP_LEN)] == what.original[..what.len().min(JUMP_LEN)]
                    }
                );
                if let Some(call) = what.covered_call() {
                    let call = &now[(call - what.start) as usize..];
                    assert!(call[0] == NO_INSTRUCTION || *call == SYSCALL, "{now:x?}");
                }
            }
            assert_eq!(bytes, code);
        }
    }

    #[test]
    fn bytes_are_read_as_they_were() {
        let code = [0x90, 0x90, 0xc3, 0xb8, 39, 0, 0, 0, 0x0f, 0x05];
        let what = Candidate::find(&code, 0x1000, 39).expect("a site");
        let mut patches = Patches::default();
        let (slot, ..) = patches.take_slot(&what).expect("a slot");
        patches.done(&what, slot);
        for (from, len) in [(0xff0, 32), (0xffa, 2), (0xff9, 1), (0xfff, 1), (0x1000, 8), (0xff0, 9)] {
            let mut bytes = vec![0xaa; len];
            patches.unpatch(from, &mut bytes);
            for (at, byte) in (from..).zip(bytes) {
                let expected = if (0xff9..0x1000).contains(&at) { code[(at - 0xff6) as usize] } else { 0xaa };
                assert_eq!(byte, expected, "{at:#x}");
            }
        }
        assert_eq!(patches.within(0x1000, 0x2000), []);
        assert_eq!(patches.within(0xfff, 0x1000), [0xff9]);
        assert_eq!(patches.within(0xff0, 0xff9), []);
        assert_eq!(patches.explain(0xffe, 6, None, |_| true), Meaning::Call { end: 0x1000 });
        assert_eq!(patches.explain(0xffd, 6, None, |_| true), Meaning::Itself);
    }
}
