//! Compressed layers: any chunk by its number, for a server of page faults.
//!
//! Invariants: a chunk's digest is right before the decompressor sees it; a chunk never grows beyond
//! [`CHUNK_BYTES`], whatever it says of itself.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use zerocopy::FromBytes;

use super::Layer;
use crate::dir::Bytes;
use crate::format::{CHUNK_BYTES, LayerChunkEntry};
use crate::{Digest, ImageError};

/// How many chunks are kept after they were used: faults of several threads come close to each other.
const KEPT: usize = 8;

/// A layer in chunks of [`CHUNK_BYTES`] (the last one may be shorter).
pub struct CompressedLayer {
    layer: Layer,
    /// The chunk entries, in private memory.
    head: Bytes,
    kept: Mutex<VecDeque<(u64, Arc<[u8]>)>>,
}

impl CompressedLayer {
    /// `head` has been checked against its digest.
    pub(crate) fn new(layer: Layer, head: Bytes) -> Result<CompressedLayer, ImageError> {
        let compressed = CompressedLayer { layer, head, kept: Mutex::default() };
        if compressed.entries().len() as u64 != compressed.chunks() {
            let problem = format!("{} chunks are listed", compressed.entries().len());
            return Err(compressed.layer.place.damaged(0, problem));
        }
        Ok(compressed)
    }

    fn entries(&self) -> &[LayerChunkEntry] {
        <[LayerChunkEntry]>::ref_from_bytes(&self.head).unwrap_or_default()
    }

    pub fn layer(&self) -> &Layer {
        &self.layer
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> u64 {
        self.layer.pages.div_ceil(self.chunk_pages())
    }

    /// How many pages a chunk has.
    pub fn chunk_pages(&self) -> u64 {
        u64::from(CHUNK_BYTES / self.layer.page_size)
    }

    /// The chunk that page `page` of the layer is in, and the page's offset in it, in bytes.
    pub fn locate(&self, page: u64) -> (u64, usize) {
        let offset = (page % self.chunk_pages()) * u64::from(self.layer.page_size);
        (page / self.chunk_pages(), usize::try_from(offset).unwrap_or(0))
    }

    /// Chunk `number`, checked and decompressed. The last few are kept.
    pub fn chunk(&self, number: u64) -> Result<Arc<[u8]>, ImageError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = kept.iter().position(|(other, _)| *other == number)
            && let Some(found) = kept.remove(position)
        {
            let chunk = found.1.clone();
            kept.push_front(found);
            return Ok(chunk);
        }
        drop(kept); // others need not wait for the disk
        let chunk: Arc<[u8]> = self.read(number)?.into();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT - 1);
        kept.push_front((number, chunk.clone()));
        Ok(chunk)
    }

    fn read(&self, number: u64) -> Result<Vec<u8>, ImageError> {
        let place = &self.layer.place;
        let entry = usize::try_from(number)
            .ok()
            .and_then(|n| self.entries().get(n))
            .ok_or_else(|| place.damaged(self.layer.blob.size, format!("it has no chunk {number}")))?;
        let (offset, stored) = (entry.offset.get(), entry.stored.get());
        let left = (self.layer.pages - number * self.chunk_pages()) * u64::from(self.layer.page_size);
        let len = left.min(u64::from(CHUNK_BYTES));
        if u64::from(stored) > len {
            return Err(place.damaged(offset, format!("chunk {number} takes more room than its pages")));
        }
        let bytes = self.layer.blob.read(offset, u64::from(stored), place)?;
        if Digest::of(&bytes) != entry.digest {
            return Err(place.damaged(offset, format!("chunk {number} has a wrong digest")));
        }
        if u64::from(stored) == len {
            return Ok(bytes.to_vec());
        }
        // At most CHUNK_BYTES, hence no truncation.
        let len = len as usize;
        let pages = zstd::bulk::decompress(&bytes, len).unwrap_or_default();
        if pages.len() != len {
            return Err(place.damaged(offset, format!("chunk {number} does not decompress to its pages")));
        }
        Ok(pages)
    }
}

impl fmt::Debug for CompressedLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompressedLayer({}, {} chunks)", self.layer.place.part, self.chunks())
    }
}
