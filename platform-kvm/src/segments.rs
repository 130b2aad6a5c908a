//! What the Sentry mapped where: an address space's ranges, each with its protection and backing.
//!
//! This is less than a VMA tree: it is what lazy filling of page tables needs to know. Ranges do not overlap; neighbours
//! that continue each other are one range.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use quicksand_platform::Prot;

/// A host file behind mappings.
#[derive(Debug)]
pub(crate) struct HostFile {
    pub(crate) fd: OwnedFd,
    /// A regular file (or memfd) has an end beyond which there are no pages.
    pub(crate) regular: bool,
}

/// What stands behind a range.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Anonymous,
    /// `offset` is the file offset of the range's start.
    File {
        file: Arc<HostFile>,
        offset: u64,
        shared: bool,
        writable: bool,
    },
}

impl Source {
    /// The same source `by` bytes further on.
    fn advanced(&self, by: u64) -> Source {
        match self {
            Source::Anonymous => Source::Anonymous,
            Source::File { file, offset, shared, writable } => Source::File {
                file: Arc::clone(file),
                offset: offset.wrapping_add(by),
                shared: *shared,
                writable: *writable,
            },
        }
    }
    fn continues(&self, len: u64, next: &Source) -> bool {
        match (self, next) {
            (Source::Anonymous, Source::Anonymous) => true,
            (
                Source::File { file, offset, shared, writable },
                Source::File { file: file2, offset: offset2, shared: shared2, writable: writable2 },
            ) => {
                Arc::ptr_eq(file, file2)
                    && offset.wrapping_add(len) == *offset2
                    && shared == shared2
                    && writable == writable2
            }
            _ => false,
        }
    }
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Source::File { shared: true, .. })
    }
}

/// A mapped range; its start is its key.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) prot: Prot,
    pub(crate) source: Source,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Segments {
    map: BTreeMap<u64, Segment>,
}

impl Segments {
    pub(crate) fn find(&self, addr: u64) -> Option<&Segment> {
        self.map.range(..=addr).next_back().map(|(_, segment)| segment).filter(|segment| addr < segment.end)
    }

    /// The parts of segments that lie in `start..end`.
    pub(crate) fn within(&self, start: u64, end: u64) -> Vec<Segment> {
        let first = self.find(start).map_or(start, |segment| segment.start);
        self.map
            .range(first..end)
            .map(|(_, segment)| {
                let from = segment.start.max(start);
                Segment {
                    start: from,
                    end: segment.end.min(end),
                    prot: segment.prot,
                    source: segment.source.advanced(from - segment.start),
                }
            })
            .filter(|segment| segment.start < segment.end)
            .collect()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Segment> {
        self.map.values()
    }

    fn split(&mut self, at: u64) {
        let Some(segment) = self.find(at) else { return };
        if segment.start == at {
            return;
        }
        let key = segment.start;
        let tail = Segment {
            start: at,
            end: segment.end,
            prot: segment.prot,
            source: segment.source.advanced(at - key),
        };
        if let Some(head) = self.map.get_mut(&key) {
            head.end = at;
        }
        self.map.insert(at, tail);
    }

    pub(crate) fn remove(&mut self, start: u64, end: u64) {
        self.split(start);
        self.split(end);
        let keys: Vec<u64> = self.map.range(start..end).map(|(key, _)| *key).collect();
        for key in keys {
            self.map.remove(&key);
        }
    }

    /// Inserts where nothing is, and merges with the neighbours.
    pub(crate) fn insert(&mut self, segment: Segment) {
        let start = segment.start;
        let end = segment.end;
        self.map.insert(start, segment);
        self.merge(end);
        self.merge(start);
    }

    pub(crate) fn protect(&mut self, start: u64, end: u64, prot: Prot) {
        self.split(start);
        self.split(end);
        let mut keys: Vec<u64> = Vec::new();
        for (key, segment) in self.map.range_mut(start..end) {
            segment.prot = prot;
            keys.push(*key);
        }
        self.merge(end);
        for key in keys.into_iter().rev() {
            self.merge(key);
        }
    }

    /// Joins the segment that starts at `at` to the one before it where they continue each other.
    fn merge(&mut self, at: u64) {
        let Some(next) = self.map.get(&at) else { return };
        let Some((_, before)) = self.map.range(..at).next_back() else { return };
        if before.end != at
            || before.prot != next.prot
            || !before.source.continues(before.end - before.start, &next.source)
        {
            return;
        }
        let (key, end) = (before.start, next.end);
        self.map.remove(&at);
        if let Some(before) = self.map.get_mut(&key) {
            before.end = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anonymous(start: u64, end: u64, prot: Prot) -> Segment {
        Segment { start, end, prot, source: Source::Anonymous }
    }

    #[test]
    fn splits_and_merges() {
        let mut segments = Segments::default();
        segments.insert(anonymous(10, 20, Prot::RW));
        segments.insert(anonymous(30, 40, Prot::RW));
        segments.insert(anonymous(20, 30, Prot::RW));
        assert_eq!(segments.all().count(), 1);
        segments.protect(15, 35, Prot::R);
        assert_eq!(segments.all().count(), 3);
        assert_eq!(segments.within(12, 36).iter().map(|s| s.end - s.start).collect::<Vec<_>>(), [3, 20, 1]);
        segments.protect(0, 100, Prot::R);
        assert_eq!(segments.all().count(), 1);
        segments.remove(12, 13);
        assert_eq!(segments.all().count(), 2);
        assert!(segments.find(12).is_none() && segments.find(13).is_some() && segments.find(40).is_none());
    }
}
