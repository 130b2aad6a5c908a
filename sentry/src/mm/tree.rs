//! The VMA tree of an address space: VMAs by their start, never overlapping, merged where Linux merges them.
//!
//! Invariants: every key is its VMA's start; neighbours that could be merged are merged, except between a `remove` and
//! the `insert` that follows it; the counters are the sums over all VMAs.

use std::collections::BTreeMap;

use quicksand_abi::{PAGE_SIZE, UserAddr, UserRange};
use quicksand_platform::Prot;

use super::vma::{VmFlags, Vma};

/// Sums over the VMAs of a tree, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counters {
    /// `total_vm`: RLIMIT_AS, VmSize.
    pub total: u64,
    /// `data_vm`: RLIMIT_DATA.
    pub data: u64,
    /// `stack_vm`.
    pub stack: u64,
    /// `exec_vm`.
    pub exec: u64,
    /// `locked_vm`: RLIMIT_MEMLOCK.
    pub locked: u64,
}

impl Counters {
    fn of(vma: &Vma) -> Counters {
        let pages = vma.pages();
        let pick = |yes: bool| if yes { pages } else { 0 };
        let grows = vma.flags.contains(VmFlags::GROWSDOWN);
        Counters {
            total: pages,
            data: pick(vma.is_data()),
            stack: pick(grows),
            exec: pick(vma.prot.execute && !vma.prot.write && !grows),
            locked: pick(vma.flags.contains(VmFlags::LOCKED)),
        }
    }
    fn add(&mut self, c: Counters) {
        self.total += c.total;
        self.data += c.data;
        self.stack += c.stack;
        self.exec += c.exec;
        self.locked += c.locked;
    }
    fn sub(&mut self, c: Counters) {
        self.total -= c.total;
        self.data -= c.data;
        self.stack -= c.stack;
        self.exec -= c.exec;
        self.locked -= c.locked;
    }
}

/// All VMAs of an address space.
#[derive(Clone, Debug, Default)]
pub struct VmaTree {
    map: BTreeMap<UserAddr, Vma>,
    counters: Counters,
    searched: Option<Searched>,
}

/// What the last search from the top found: between `from` and `high`, no gap is larger than `largest`. Spares a program
/// with tens of thousands of mappings the walk over all of them for every new one.
#[derive(Clone, Copy, Debug)]
struct Searched {
    high: UserAddr,
    from: UserAddr,
    largest: u64,
}

impl VmaTree {
    pub fn len(&self) -> usize {
        self.map.len()
    }
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
    pub fn counters(&self) -> Counters {
        self.counters
    }
    /// All, by address.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Vma> {
        self.map.values()
    }
    /// The one that contains `addr`.
    pub fn find(&self, addr: UserAddr) -> Option<&Vma> {
        self.map.range(..=addr).next_back().map(|(_, v)| v).filter(|v| addr < v.end())
    }
    /// The first that ends after `addr` (`find_vma`).
    pub fn find_from(&self, addr: UserAddr) -> Option<&Vma> {
        self.find(addr).or_else(|| self.map.range(addr..).next().map(|(_, v)| v))
    }
    /// The last that ends at or before `addr`.
    pub fn find_before(&self, addr: UserAddr) -> Option<&Vma> {
        self.map.range(..addr).next_back().map(|(_, v)| v).filter(|v| v.end() <= addr)
    }
    /// Those that have a part in `range`, by address.
    pub fn overlapping(&self, range: UserRange) -> impl Iterator<Item = &Vma> {
        let first = self.find(range.start).map_or(range.start, Vma::start);
        self.map.range(first..range.end.max(first)).map(|(_, v)| v).filter(move |v| v.range.overlaps(range))
    }
    pub fn overlaps(&self, range: UserRange) -> bool {
        self.overlapping(range).next().is_some()
    }
    /// Pages of `range` that are mapped.
    pub fn pages_in(&self, range: UserRange) -> u64 {
        let bytes: u64 =
            self.overlapping(range).filter_map(|v| v.range.intersect(range)).map(UserRange::len).sum();
        bytes / PAGE_SIZE
    }
    /// How many more VMAs there are after cutting out `range`, at most (0 or 1 of them when it lies inside one VMA).
    pub fn splits_inside(&self, range: UserRange) -> bool {
        self.find(range.start).is_some_and(|v| v.start() < range.start && range.end < v.end())
    }

    /// Adds a VMA where nothing is, and merges it with its neighbours.
    pub fn insert(&mut self, mut vma: Vma) {
        self.counters.add(Counters::of(&vma));
        if vma.flags.contains(VmFlags::GROWSDOWN) {
            // Its guard gap may reach below what was searched.
            self.searched = None;
        }
        if let Some(next) = self.map.get(&vma.end())
            && vma.merges_with(next)
        {
            let next_end = next.end();
            self.map.remove(&vma.end());
            vma.range.end = next_end;
        }
        let before = self.map.range_mut(..vma.start()).next_back().map(|(_, v)| v);
        match before {
            Some(previous) if previous.merges_with(&vma) => previous.range.end = vma.end(),
            _ => {
                self.map.insert(vma.start(), vma);
            }
        }
    }

    /// Cuts the VMA that `at` lies strictly inside of.
    fn split(&mut self, at: UserAddr) {
        let Some((_, vma)) = self.map.range_mut(..at).next_back() else { return };
        if at < vma.end() {
            let upper = vma.split_off(at);
            self.map.insert(at, upper);
        }
    }

    /// Takes out everything in `range`, cutting at its ends.
    pub fn remove(&mut self, range: UserRange) -> Vec<Vma> {
        if self.searched.is_some_and(|s| range.end > s.from) {
            self.searched = None;
        }
        self.take(range)
    }

    fn take(&mut self, range: UserRange) -> Vec<Vma> {
        if range.is_empty() {
            return Vec::new();
        }
        self.split(range.start);
        self.split(range.end);
        let keys: Vec<UserAddr> = self.map.range(range.start..range.end).map(|(k, _)| *k).collect();
        let mut out = Vec::with_capacity(keys.len());
        for key in keys {
            if let Some(vma) = self.map.remove(&key) {
                self.counters.sub(Counters::of(&vma));
                out.push(vma);
            }
        }
        out
    }

    /// Changes everything in `range` (cut at its ends), and merges anew.
    pub fn update(&mut self, range: UserRange, mut change: impl FnMut(&mut Vma)) {
        for mut vma in self.take(range) {
            change(&mut vma);
            self.insert(vma);
        }
    }

    /// Whether every page of `range` is mapped.
    pub fn covers(&self, range: UserRange) -> bool {
        let mut at = range.start;
        for vma in self.overlapping(range) {
            if vma.start() > at {
                return false;
            }
            at = vma.end();
        }
        at >= range.end
    }

    /// The highest free place of `len` bytes in `[low, high)`.
    pub fn gap_top_down(&mut self, len: u64, low: UserAddr, high: UserAddr) -> Option<UserAddr> {
        // The end of the gap under consideration: what lies above is taken, guard gaps included. A mapping that grows
        // down may start above `high` and have its gap reach below it.
        let mut end =
            self.map.range(high..).next().map_or(high, |(_, above)| high.min(above.start_with_gap()));
        let mut largest = 0;
        if let Some(searched) = self.searched
            && searched.high == high
            && len > searched.largest
        {
            end = end.min(searched.from);
            largest = searched.largest;
        }
        for vma in self.map.range(..end.max(low)).rev().map(|(_, v)| v) {
            if vma.end() <= end {
                let gap = end.0 - vma.end().0;
                if gap >= len {
                    break;
                }
                largest = largest.max(gap);
            }
            end = end.min(vma.start_with_gap());
            if end <= low {
                return None;
            }
        }
        self.searched = Some(Searched { high, from: end, largest });
        end.checked_sub(len).filter(|start| *start >= low)
    }

    /// The lowest free place of `len` bytes in `[low, high)`.
    pub fn gap_bottom_up(&self, len: u64, low: UserAddr, high: UserAddr) -> Option<UserAddr> {
        let mut at = self.find(low).map_or(low, Vma::end);
        for vma in self.map.range(at..).map(|(_, v)| v) {
            let end = at.checked_add(len)?;
            if end > high || end <= vma.start_with_gap() {
                break;
            }
            at = at.max(vma.end());
        }
        (at.checked_add(len)? <= high).then_some(at)
    }
}

/// A protection by its PROT_ bits.
pub fn prot_from_bits(bits: u32) -> Prot {
    Prot {
        read: bits & libc::PROT_READ as u32 != 0,
        write: bits & libc::PROT_WRITE as u32 != 0,
        execute: bits & libc::PROT_EXEC as u32 != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(a: u64, b: u64) -> UserRange {
        UserRange { start: UserAddr(a * PAGE_SIZE), end: UserAddr(b * PAGE_SIZE) }
    }
    fn shape(tree: &VmaTree) -> Vec<(u64, u64)> {
        tree.iter().map(|v| (v.start().0 / PAGE_SIZE, v.end().0 / PAGE_SIZE)).collect()
    }

    #[test]
    fn neighbours_merge_and_holes_split() {
        let mut tree = VmaTree::default();
        tree.insert(Vma::anonymous(range(10, 20), Prot::RW));
        tree.insert(Vma::anonymous(range(30, 40), Prot::RW));
        tree.insert(Vma::anonymous(range(20, 30), Prot::RW));
        assert_eq!(shape(&tree), [(10, 40)]);
        tree.insert(Vma::anonymous(range(40, 50), Prot::R));
        assert_eq!(shape(&tree), [(10, 40), (40, 50)]);
        assert_eq!(tree.remove(range(15, 45)).len(), 2);
        assert_eq!(shape(&tree), [(10, 15), (45, 50)]);
        assert_eq!(tree.counters(), Counters { total: 10, data: 5, ..Counters::default() });
        assert!(tree.covers(range(11, 15)) && !tree.covers(range(11, 16)));
        tree.update(range(46, 47), |v| v.prot = Prot::RW);
        assert_eq!(shape(&tree), [(10, 15), (45, 46), (46, 47), (47, 50)]);
        tree.update(range(46, 47), |v| v.prot = Prot::R);
        assert_eq!(shape(&tree), [(10, 15), (45, 50)]);
    }

    #[test]
    fn finding() {
        let mut tree = VmaTree::default();
        tree.insert(Vma::anonymous(range(10, 20), Prot::RW));
        tree.insert(Vma::anonymous(range(30, 40), Prot::RW));
        let at = |p: u64| UserAddr(p * PAGE_SIZE);
        assert!(tree.find(at(9)).is_none() && tree.find(at(20)).is_none());
        assert_eq!(tree.find(at(19)).map(Vma::start), Some(at(10)));
        assert_eq!(tree.find_from(at(20)).map(Vma::start), Some(at(30)));
        assert_eq!(tree.find_before(at(30)).map(Vma::start), Some(at(10)));
        assert_eq!(tree.overlapping(range(19, 31)).count(), 2);
        assert_eq!(tree.overlapping(range(20, 30)).count(), 0);
        assert_eq!(tree.pages_in(range(15, 35)), 10);
    }

    #[test]
    fn a_remembered_search_finds_what_a_fresh_one_does() {
        let mut tree = VmaTree::default();
        let (low, high) = (UserAddr(PAGE_SIZE), UserAddr(400 * PAGE_SIZE));
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for _ in 0..5000 {
            let first = 1 + random(400);
            let part = range(first, first + 1 + random(6));
            match random(4) {
                0 => drop(tree.remove(part)),
                1 => tree.update(part, |v| v.prot = Prot::NONE),
                _ => {
                    let len = (1 + random(6)) * PAGE_SIZE;
                    let found = tree.gap_top_down(len, low, high);
                    let mut fresh = tree.clone();
                    fresh.searched = None;
                    assert_eq!(found, fresh.gap_top_down(len, low, high));
                    if let Some(start) = found {
                        let mut vma = Vma::anonymous(UserRange::new(start, len).unwrap(), Prot::RW);
                        if random(40) == 0 {
                            vma.flags = VmFlags::GROWSDOWN;
                        }
                        tree.insert(vma);
                    }
                }
            }
        }
    }

    #[test]
    fn gaps() {
        let mut tree = VmaTree::default();
        let at = |p: u64| UserAddr(p * PAGE_SIZE);
        assert_eq!(tree.gap_top_down(2 * PAGE_SIZE, at(1), at(100)), Some(at(98)));
        tree.insert(Vma::anonymous(range(90, 99), Prot::RW));
        assert_eq!(tree.gap_top_down(PAGE_SIZE, at(1), at(100)), Some(at(99)));
        assert_eq!(tree.gap_top_down(2 * PAGE_SIZE, at(1), at(100)), Some(at(88)));
        tree.insert(Vma::anonymous(range(95, 120).intersect(range(99, 120)).unwrap(), Prot::R));
        assert_eq!(tree.gap_top_down(PAGE_SIZE, at(1), at(100)), Some(at(89)));
        assert_eq!(tree.gap_top_down(200 * PAGE_SIZE, at(1), at(100)), None);
        assert_eq!(tree.gap_top_down(90 * PAGE_SIZE, at(1), at(100)), None);
        assert_eq!(tree.gap_top_down(89 * PAGE_SIZE, at(1), at(100)), Some(at(1)));
        assert_eq!(tree.gap_bottom_up(10 * PAGE_SIZE, at(1), at(200)), Some(at(1)));
        assert_eq!(tree.gap_bottom_up(90 * PAGE_SIZE, at(1), at(210)), Some(at(120)));
        assert_eq!(tree.gap_bottom_up(91 * PAGE_SIZE, at(1), at(210)), None);
        let mut stack = Vma::anonymous(range(1000, 1010), Prot::RW);
        stack.flags = VmFlags::GROWSDOWN;
        tree.insert(stack);
        // The guard gap of 256 pages stays free.
        assert_eq!(tree.gap_top_down(PAGE_SIZE, at(1), at(2000)), Some(at(1999)));
        assert_eq!(tree.gap_top_down(PAGE_SIZE, at(1), at(1000)), Some(at(743)));
        assert_eq!(tree.gap_top_down(PAGE_SIZE, at(1), at(900)), Some(at(743)));
    }
}
