//! Writing a layer: pages come in ascending order, each is stored once, and few extents come out.
//!
//! A page is, in this order: what continues the run before it (in this layer or a parent's); zero; what the parent has in the
//! same place; one that is stored already, here or in a parent's layer; new. Runs are what restoring pays for, so a short gap of zeroes between new pages
//! becomes a hole in the layer, and a short gap of pages stored already is stored again, as long as that adds no more than
//! 1/32 to the layer.
//!
//! Memory: 60 to 100 bytes for each page stored (its digest, and a way to find it), and 40 for each extent.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::sync::Arc;

use super::extents::{Extent, Extents, Source};
use super::sink::{Sink, Written};
use super::{Encoding, PageDigests, is_zero};
use crate::{Digest, Image, OnProgress, Progress, WriteError};

/// The longest gap, in pages, that is stored within a run.
const MAX_GAP: usize = 16;
/// One page in so many may be stored again for the sake of longer runs.
const AGAIN: u64 = 32;
/// How often progress is told.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Takes the guest's pages, in ascending order of space and page. Part of an [`crate::ImageWriter`].
pub struct LayerWriter {
    page_size: usize,
    sink: Sink,
    parent: Option<Arc<Image>>,
    /// The parents' page digests by layer; empty until a page is to be found there.
    parents: Vec<PageDigests>,
    parent_extents: Arc<Extents>,
    zero: Digest,
    /// Of each page of the layer, holes included.
    digests: Vec<Digest>,
    /// Where a page is stored, by a part of its digest: layer and page.
    stored: HashMap<u64, (u32, u32)>,
    again: u64,
    extents: Vec<Extent>,
    /// Pages that follow the last extent, which ends at the layer's end: zero or stored already.
    gap: Vec<GapPage>,
    /// The space and the end of what was added last.
    last: Option<(u64, u64)>,
    on_progress: Option<OnProgress<'static>>,
    progress: Progress,
    told: u64,
}

struct GapPage {
    source: Source,
    digest: Digest,
    /// Empty where it is zero.
    bytes: Vec<u8>,
}

/// A finished layer.
pub(crate) struct Finished {
    /// `None` where no page was stored.
    pub(crate) file: Option<File>,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    pub(crate) chunks: Vec<u8>,
    pub(crate) page_digests: Vec<Digest>,
    pub(crate) extents: Vec<Extent>,
    /// Which of the parents' layers (as the parent counts them) the extents refer to, in the order of their new numbers,
    /// which start at one.
    pub(crate) used: Vec<u32>,
}

impl LayerWriter {
    pub(crate) fn new(
        file: File,
        encoding: Encoding,
        page_size: u32,
        parent: Option<Arc<Image>>,
    ) -> Result<LayerWriter, WriteError> {
        Ok(LayerWriter {
            page_size: page_size as usize,
            sink: Sink::new(file, encoding, page_size)?,
            parent,
            parents: Vec::new(),
            parent_extents: Arc::default(),
            zero: Digest::of(&vec![0; page_size as usize]),
            digests: Vec::new(),
            stored: HashMap::new(),
            again: 0,
            extents: Vec::new(),
            gap: Vec::new(),
            last: None,
            on_progress: None,
            progress: Progress { done_bytes: 0, total_bytes: 0 },
            told: 0,
        })
    }

    pub(crate) fn on_progress(&mut self, total_bytes: u64, on_progress: OnProgress<'static>) {
        self.progress.total_bytes = total_bytes;
        self.on_progress = Some(on_progress);
    }

    /// Adds whole pages that follow each other in `space`.
    pub fn add(&mut self, space: u64, start_page: u64, bytes: &[u8]) -> Result<(), WriteError> {
        if !bytes.len().is_multiple_of(self.page_size) {
            return Err(WriteError::Invalid {
                what: format!("{} bytes, which are not whole pages", bytes.len()),
            });
        }
        self.advance(space, start_page, (bytes.len() / self.page_size) as u64)?;
        let page_size = self.page_size;
        for (number, page) in (start_page..).zip(bytes.chunks_exact(page_size)) {
            self.page(space, number, page)?;
        }
        self.tell(bytes.len() as u64);
        Ok(())
    }

    /// Adds pages that are zero, without looking at them.
    pub fn add_zero(&mut self, space: u64, start_page: u64, pages: u64) -> Result<(), WriteError> {
        self.advance(space, start_page, pages)?;
        if pages <= MAX_GAP as u64 {
            for number in start_page..start_page + pages {
                self.known(space, number, Source::Zero, self.zero, &[])?;
            }
        } else {
            self.run(Extent { space, start_page, pages, source: Source::Zero });
        }
        self.tell(pages.saturating_mul(self.page_size as u64));
        Ok(())
    }

    /// Adds pages that are what the parent image has in the same place. What the parent does not have there this image will
    /// not have either.
    pub fn add_parent(&mut self, space: u64, start_page: u64, pages: u64) -> Result<(), WriteError> {
        let parent = self.parent()?;
        self.advance(space, start_page, pages)?;
        let extents = parent.extents()?;
        for extent in extents.range(space, start_page, pages) {
            self.run(Extent { source: as_child(extent.source), ..extent });
        }
        self.tell(pages.saturating_mul(self.page_size as u64));
        Ok(())
    }

    /// Adds pages that lie in a layer of the parent image, from its page `page` on. `layer` is as the parent counts: 0 is its
    /// own. For what has moved since it was restored.
    pub fn add_parent_layer(
        &mut self,
        space: u64,
        start_page: u64,
        pages: u64,
        layer: u32,
        page: u64,
    ) -> Result<(), WriteError> {
        let parent = self.parent()?;
        let size = parent.layer(layer).map_or(0, |layer| layer.pages());
        if page.checked_add(pages).is_none_or(|end| end > size) {
            let what =
                format!("{pages} pages from page {page} of the parent's layer {layer}, which has {size}");
            return Err(WriteError::Invalid { what });
        }
        self.advance(space, start_page, pages)?;
        self.run(Extent { space, start_page, pages, source: as_child(Source::Layer { layer, page }) });
        self.tell(pages.saturating_mul(self.page_size as u64));
        Ok(())
    }

    fn parent(&self) -> Result<Arc<Image>, WriteError> {
        let none = || WriteError::Invalid { what: "pages of a parent, but no parent".into() };
        self.parent.clone().ok_or_else(none)
    }

    /// Sees to the order.
    fn advance(&mut self, space: u64, page: u64, pages: u64) -> Result<(), WriteError> {
        let end =
            page.checked_add(pages).filter(|&end| end <= 1 << 52).ok_or_else(|| WriteError::Invalid {
                what: format!("{pages} pages from page {page:#x} on, which no address has"),
            })?;
        if let Some((last_space, last_end)) = self.last
            && (space, page) < (last_space, last_end)
        {
            return Err(WriteError::Order { space, page, last_space, last_page: last_end.saturating_sub(1) });
        }
        self.last = Some((space, end));
        Ok(())
    }

    fn tell(&mut self, bytes: u64) {
        self.progress.done_bytes = self.progress.done_bytes.saturating_add(bytes);
        if let Some(on_progress) = &mut self.on_progress
            && self.progress.done_bytes.saturating_sub(self.told) >= PROGRESS_BYTES
        {
            self.told = self.progress.done_bytes;
            on_progress(self.progress);
        }
    }

    fn page(&mut self, space: u64, number: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let digest = if is_zero(bytes) { self.zero } else { Digest::of(bytes) };
        let next = self.continuation(space, number);
        if let Some(source) = next.filter(|&source| self.digest(source) == Some(digest)) {
            return self.known(space, number, source, digest, bytes);
        }
        if digest == self.zero {
            return self.known(space, number, Source::Zero, digest, &[]);
        }
        self.load_parents()?;
        let in_place = self.parent_extents.find(space, number).map(|extent| as_child(extent.source));
        let stored = self.stored.get(&digest.prefix());
        let stored = stored.map(|&(layer, page)| Source::Layer { layer, page: u64::from(page) });
        match in_place.into_iter().chain(stored).find(|&source| self.digest(source) == Some(digest)) {
            Some(source) => self.known(space, number, source, digest, bytes),
            None => self.new_page(space, number, bytes, digest),
        }
    }

    /// Where page `number` would lie if the run before it went on.
    fn continuation(&self, space: u64, number: u64) -> Option<Source> {
        let extent = self.extents.last()?;
        if extent.space != space || extent.end_page() + self.gap.len() as u64 != number {
            return None;
        }
        let next = self.gap.last().map_or(extent.source.skip(extent.pages), |page| page.source.skip(1));
        (next != Source::Zero).then_some(next)
    }

    fn digest(&self, source: Source) -> Option<Digest> {
        match source {
            Source::Zero => Some(self.zero),
            Source::Layer { layer: 0, page } => self.digests.get(usize::try_from(page).ok()?).copied(),
            Source::Layer { layer, page } => self.parents.get(layer as usize - 1)?.get(page),
        }
    }

    /// Makes the parents' pages known, once.
    fn load_parents(&mut self) -> Result<(), WriteError> {
        if !self.parents.is_empty() {
            return Ok(());
        }
        let Some(parent) = &self.parent else { return Ok(()) };
        self.parent_extents = parent.extents()?;
        for layer in 0..parent.layers() {
            let digests = parent.page_digests(layer)?;
            for (page, digest) in (0..=u32::MAX).zip(digests.all()) {
                if *digest != self.zero {
                    self.stored.entry(digest.prefix()).or_insert((layer + 1, page));
                }
            }
            self.parents.push(digests);
        }
        Ok(())
    }

    /// A page that need not be stored.
    fn known(
        &mut self,
        space: u64,
        number: u64,
        source: Source,
        digest: Digest,
        bytes: &[u8],
    ) -> Result<(), WriteError> {
        let end = Source::Layer { layer: 0, page: self.digests.len() as u64 };
        let after_new = self.extents.last().is_some_and(|extent| {
            extent.space == space
                && extent.end_page() + self.gap.len() as u64 == number
                && extent.source.skip(extent.pages) == end
        });
        if after_new && self.gap.len() < MAX_GAP {
            let bytes = if source == Source::Zero { Vec::new() } else { bytes.to_vec() };
            self.gap.push(GapPage { source, digest, bytes });
        } else {
            self.run(Extent { space, start_page: number, pages: 1, source });
        }
        Ok(())
    }

    fn new_page(&mut self, space: u64, number: u64, bytes: &[u8], digest: Digest) -> Result<(), WriteError> {
        let stored_again = self.gap.iter().filter(|page| page.digest != self.zero).count() as u64;
        let adjacent = self.extents.last().is_some_and(|extent| {
            extent.space == space && extent.end_page() + self.gap.len() as u64 == number
        });
        if adjacent && (self.again + stored_again) * AGAIN <= self.digests.len() as u64 {
            self.again += stored_again;
            for page in std::mem::take(&mut self.gap) {
                if page.digest == self.zero {
                    self.sink.hole()?;
                } else {
                    self.sink.page(&page.bytes)?;
                }
                self.digests.push(page.digest);
                if let Some(extent) = self.extents.last_mut() {
                    extent.pages += 1;
                }
            }
        }
        let too_large = |_| WriteError::Invalid { what: "more pages than one layer can have".into() };
        let page = u32::try_from(self.digests.len()).map_err(too_large)?;
        self.run(Extent {
            space,
            start_page: number,
            pages: 1,
            source: Source::Layer { layer: 0, page: u64::from(page) },
        });
        self.sink.page(bytes)?;
        self.digests.push(digest);
        self.stored.insert(digest.prefix(), (0, page));
        Ok(())
    }

    /// Ends a gap and adds a run after it.
    fn run(&mut self, extent: Extent) {
        if let Some(last) = self.extents.last().copied() {
            for (page, number) in std::mem::take(&mut self.gap).into_iter().zip(last.end_page()..) {
                self.push(Extent { space: last.space, start_page: number, pages: 1, source: page.source });
            }
        }
        self.push(extent);
    }

    fn push(&mut self, extent: Extent) {
        match self.extents.last_mut() {
            _ if extent.pages == 0 => {}
            Some(last) if last.continues_with(&extent) => last.pages += extent.pages,
            _ => self.extents.push(extent),
        }
    }

    pub(crate) fn finish(mut self) -> Result<Finished, WriteError> {
        self.run(Extent { space: 0, start_page: 0, pages: 0, source: Source::Zero });
        let used: BTreeSet<u32> = self
            .extents
            .iter()
            .filter_map(|extent| match extent.source {
                Source::Layer { layer, .. } if layer > 0 => Some(layer - 1),
                _ => None,
            })
            .collect();
        let used: Vec<u32> = used.into_iter().collect();
        for extent in &mut self.extents {
            if let Source::Layer { layer, .. } = &mut extent.source
                && *layer > 0
                && let Ok(number) = used.binary_search(&(*layer - 1))
            {
                *layer = u32::try_from(number).unwrap_or(u32::MAX - 1) + 1;
            }
        }
        let Written { file, size, digest, chunks } = self.sink.finish()?;
        if let Some(on_progress) = &mut self.on_progress {
            on_progress(self.progress);
        }
        Ok(Finished {
            file: (!self.digests.is_empty()).then_some(file),
            size,
            digest,
            chunks,
            page_digests: self.digests,
            extents: self.extents,
            used,
        })
    }
}

/// A source as a child of the image counts it.
fn as_child(source: Source) -> Source {
    match source {
        Source::Zero => Source::Zero,
        Source::Layer { layer, page } => Source::Layer { layer: layer + 1, page },
    }
}

impl fmt::Debug for LayerWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LayerWriter({} pages, {} extents)", self.digests.len(), self.extents.len())
    }
}
