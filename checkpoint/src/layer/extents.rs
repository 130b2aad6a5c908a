//! Extents: which guest page lies where. Sorted by space and page, and coalesced, so that restoring is one mapping for each.
//!
//! Invariants of [`Extents`]: ascending, disjoint, not empty; no sum overflows; every source lies within its layer. All of it is
//! checked when the section is read, so that whoever walks over it need not.

use zerocopy::FromBytes;
use zerocopy::little_endian::{U32, U64};

use crate::ImageError;
use crate::error::Place;
use crate::format::{ExtentEntry, SOURCE_ZERO};

/// Where guest pages lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// They are zero, whatever is mapped below them.
    Zero,
    /// From page `page` of the image's layer `layer` (0 is its own).
    Layer { layer: u32, page: u64 },
}

impl Source {
    /// The source of what lies `pages` further.
    pub(crate) fn skip(self, pages: u64) -> Source {
        match self {
            Source::Zero => Source::Zero,
            Source::Layer { layer, page } => Source::Layer { layer, page: page + pages },
        }
    }
}

/// A run of guest pages and its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub space: u64,
    /// The first guest page's number (its address divided by the page size).
    pub start_page: u64,
    pub pages: u64,
    pub source: Source,
}

impl Extent {
    pub fn end_page(&self) -> u64 {
        self.start_page + self.pages
    }

    /// Whether `next` goes on where this ends, in the guest and in its source.
    pub(crate) fn continues_with(&self, next: &Extent) -> bool {
        self.space == next.space
            && self.end_page() == next.start_page
            && self.source.skip(self.pages) == next.source
    }
}

/// All extents of an image.
#[derive(Clone, Debug, Default)]
pub struct Extents(Vec<Extent>);

impl Extents {
    /// `layer_pages` are the sizes of the image's layers.
    pub(crate) fn decode(bytes: &[u8], layer_pages: &[u64], place: &Place) -> Result<Extents, ImageError> {
        let entries = <[ExtentEntry]>::ref_from_bytes(bytes)
            .map_err(|_| place.damaged(bytes.len() as u64, "the last entry is cut off"))?;
        let mut extents: Vec<Extent> = Vec::with_capacity(entries.len());
        for (i, entry) in entries.iter().enumerate() {
            let damaged = |problem: &str| place.damaged((i * size_of::<ExtentEntry>()) as u64, problem);
            let (start_page, pages) = (entry.start.get(), u64::from(entry.pages.get()));
            // A page number that no address can have would overflow where addresses are made of it.
            if pages == 0 || start_page.checked_add(pages).is_none_or(|end| end > 1 << 52) {
                return Err(damaged("an extent that is empty or beyond the address space"));
            }
            let source = match entry.source.get() {
                SOURCE_ZERO => Source::Zero,
                layer => {
                    let (layer, page) = (layer - 1, entry.page.get());
                    let size = *layer_pages
                        .get(layer as usize)
                        .ok_or_else(|| damaged("an extent in a layer that the image does not have"))?;
                    if page.checked_add(pages).is_none_or(|end| end > size) {
                        return Err(damaged("an extent beyond the end of its layer"));
                    }
                    Source::Layer { layer, page }
                }
            };
            let extent = Extent { space: entry.space.get(), start_page, pages, source };
            if let Some(last) = extents.last()
                && (last.space, last.end_page()) > (extent.space, extent.start_page)
            {
                return Err(damaged("an extent that is not after the one before it"));
            }
            extents.push(extent);
        }
        Ok(Extents(extents))
    }

    pub(crate) fn encode(extents: &[Extent]) -> Vec<u8> {
        use zerocopy::IntoBytes;
        let mut bytes = Vec::with_capacity(size_of_val(extents));
        for extent in extents {
            let mut done = 0;
            while done < extent.pages {
                let pages = u32::try_from(extent.pages - done).unwrap_or(u32::MAX);
                let (source, page) = match extent.source.skip(done) {
                    Source::Zero => (SOURCE_ZERO, 0),
                    Source::Layer { layer, page } => (layer + 1, page),
                };
                let entry = ExtentEntry {
                    space: U64::new(extent.space),
                    start: U64::new(extent.start_page + done),
                    pages: U32::new(pages),
                    source: U32::new(source),
                    page: U64::new(page),
                };
                bytes.extend_from_slice(entry.as_bytes());
                done += u64::from(pages);
            }
        }
        bytes
    }

    pub fn all(&self) -> &[Extent] {
        &self.0
    }

    /// The spaces that have pages, ascending.
    pub fn spaces(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.chunk_by(|a, b| a.space == b.space).map(|extents| extents[0].space)
    }

    /// All extents of one space, ascending.
    pub fn space(&self, space: u64) -> &[Extent] {
        let start = self.0.partition_point(|extent| extent.space < space);
        let len = self.0[start..].partition_point(|extent| extent.space == space);
        &self.0[start..start + len]
    }

    /// The extents in `pages` pages of `space` from `start_page` on, cut to that range. What lies between them is not in the
    /// image.
    pub fn range(&self, space: u64, start_page: u64, pages: u64) -> impl Iterator<Item = Extent> + '_ {
        let extents = self.space(space);
        let end_page = start_page.saturating_add(pages);
        let first = extents.partition_point(|extent| extent.end_page() <= start_page);
        extents[first..].iter().take_while(move |extent| extent.start_page < end_page).map(move |extent| {
            let (start, end) = (extent.start_page.max(start_page), extent.end_page().min(end_page));
            Extent {
                space,
                start_page: start,
                pages: end - start,
                source: extent.source.skip(start - extent.start_page),
            }
        })
    }

    /// The extent that holds one page.
    pub fn find(&self, space: u64, page: u64) -> Option<Extent> {
        self.range(space, page, 1).next()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn extent(space: u64, start_page: u64, pages: u64, page: u64) -> Extent {
        Extent { space, start_page, pages, source: Source::Layer { layer: 0, page } }
    }

    fn decode(extents: &[Extent], layer_pages: u64) -> Result<Extents, ImageError> {
        let image: Arc<str> = "test".into();
        Extents::decode(&Extents::encode(extents), &[layer_pages], &Place::new(&image, "extents"))
    }

    #[test]
    fn ranges_are_cut() {
        let extents = decode(&[extent(1, 10, 5, 0), extent(1, 20, 5, 5), extent(2, 0, 1, 9)], 10).unwrap();
        let cut: Vec<_> = extents.range(1, 12, 10).collect();
        assert_eq!(cut, [extent(1, 12, 3, 2), extent(1, 20, 2, 5)]);
        assert_eq!(extents.range(1, 15, 5).count(), 0);
        assert_eq!(extents.find(2, 0), Some(extent(2, 0, 1, 9)));
        assert_eq!(extents.find(3, 0), None);
        assert_eq!(extents.range(1, u64::MAX, u64::MAX).count(), 0);
        assert_eq!(extents.spaces().collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (extents, layer_pages) in [
            (vec![extent(1, 0, 2, 0), extent(1, 1, 1, 0)], 9),
            (vec![extent(2, 0, 1, 0), extent(1, 1, 1, 0)], 9),
            (vec![extent(1, 1, 1, 0), extent(1, 0, 1, 0)], 9),
            (vec![extent(1, 0, 2, 8)], 9),
            (vec![extent(1, 0, 2, u64::MAX)], 9),
            (vec![extent(1, u64::MAX - 2, 2, 0)], 9),
        ] {
            assert!(decode(&extents, layer_pages).is_err(), "{extents:?}");
        }
    }

    #[test]
    fn long_runs_are_split() {
        let long = Extent { space: 0, start_page: 0, pages: 1 << 33, source: Source::Zero };
        let extents = decode(&[long], 0).unwrap();
        assert_eq!(extents.all().iter().map(|extent| extent.pages).sum::<u64>(), 1 << 33);
    }
}
