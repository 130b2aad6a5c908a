//! What the Sentry mapped where: ranges with their protection, as far as the platform has to know.
//!
//! The host keeps the real mappings. This is needed to skip holes (where `mprotect` stops), to let a forced write know
//! what to put back, and to move mappings one by one. Invariant: a region lies within one mapping of the host's; so what is
//! mapped at different times never becomes one region.

use std::collections::BTreeMap;

use quicksand_platform::Prot;

/// A mapped range; its start is its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) prot: Prot,
    pub(crate) shared: bool,
    /// Of a file.
    pub(crate) file: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Regions {
    map: BTreeMap<u64, Region>,
}

impl Regions {
    fn find(&self, addr: u64) -> Option<&Region> {
        self.map.range(..=addr).next_back().map(|(_, region)| region).filter(|region| addr < region.end)
    }

    /// The parts of regions that lie in `start..end`.
    pub(crate) fn within(&self, start: u64, end: u64) -> Vec<Region> {
        let first = self.find(start).map_or(start, |region| region.start);
        self.map
            .range(first..end)
            .map(|(_, r)| Region { start: r.start.max(start), end: r.end.min(end), ..*r })
            .filter(|region| region.start < region.end)
            .collect()
    }

    /// The mapped parts of `start..end`, neighbours as one.
    pub(crate) fn runs(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for region in self.within(start, end) {
            match runs.last_mut() {
                Some(last) if last.1 == region.start => last.1 = region.end,
                _ => runs.push((region.start, region.end)),
            }
        }
        runs
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Region> {
        self.map.values()
    }

    fn split(&mut self, at: u64) {
        let Some(region) = self.find(at).copied() else { return };
        if region.start == at {
            return;
        }
        self.map.insert(region.start, Region { end: at, ..region });
        self.map.insert(at, Region { start: at, ..region });
    }

    pub(crate) fn remove(&mut self, start: u64, end: u64) {
        self.split(start);
        self.split(end);
        let keys: Vec<u64> = self.map.range(start..end).map(|(key, _)| *key).collect();
        for key in keys {
            self.map.remove(&key);
        }
    }

    /// Inserts, in place of what is there.
    pub(crate) fn insert(&mut self, region: Region) {
        self.remove(region.start, region.end);
        self.map.insert(region.start, region);
    }

    pub(crate) fn protect(&mut self, start: u64, end: u64, prot: Prot) {
        self.split(start);
        self.split(end);
        for (_, region) in self.map.range_mut(start..end) {
            region.prot = prot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_and_runs() {
        let mut regions = Regions::default();
        let region = |start, end| Region { start, end, prot: Prot::RW, shared: false, file: false };
        regions.insert(region(10, 20));
        regions.insert(region(20, 30));
        regions.insert(region(40, 50));
        assert_eq!(regions.runs(0, 100), [(10, 30), (40, 50)]);
        regions.protect(15, 45, Prot::R);
        let ends: Vec<_> = regions.all().map(|r| (r.start, r.end, r.prot == Prot::R)).collect();
        assert_eq!(ends, [(10, 15, false), (15, 20, true), (20, 30, true), (40, 45, true), (45, 50, false)]);
        regions.remove(12, 42);
        assert_eq!(regions.runs(11, 44), [(11, 12), (42, 44)]);
        regions.insert(region(0, 100));
        assert_eq!(regions.within(5, 6), [region(5, 6)]);
    }
}
