//! Page layers: the guest pages that an image stores, one file per image.
//!
//! A layer is a sequence of pages, numbered from zero. In a *raw* layer page `n` lies at byte `n * page_size`; pages of
//! zeroes in it are holes. In a *compressed* one, runs of pages are chunks (see [`compressed`]). Which guest page lies
//! where is the affair of the [`extents`]. An image counts layers from its own, 0, over its parents', nearest first.
//!
//! The page digests (one for each page of the layer) find identical pages when a child is written, and tell `verify`
//! which page is damaged. Restoring does not read them.

pub(crate) mod compressed;
pub(crate) mod extents;
pub(crate) mod reader;
mod sink;
pub(crate) mod writer;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::Digest;
use crate::dir::{Blob, Bytes};
use crate::error::Place;

/// How a layer's pages are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As they are: the file can be mapped.
    Raw,
    /// In zstd chunks of [`crate::CHUNK_BYTES`].
    Zstd,
}

/// The layer of an image or of one of its parents.
#[derive(Clone, Debug)]
pub struct Layer {
    pub(crate) place: Place,
    pub(crate) blob: Arc<Blob>,
    pub(crate) digest: Digest,
    pub(crate) encoding: Encoding,
    pub(crate) pages: u64,
    pub(crate) page_size: u32,
}

impl Layer {
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Of its file, which has its name from this.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How many pages it has, holes included.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The file's size in bytes (holes included).
    pub fn stored_bytes(&self) -> u64 {
        self.blob.size
    }

    /// Where page `page` can be mapped from: a descriptor and a byte offset. `None` beyond the layer's end, and where it
    /// is compressed.
    ///
    /// The file is as long as the layer; who shortens it while it is mapped makes accesses fail with SIGBUS.
    pub fn map_source(&self, page: u64) -> Option<(BorrowedFd<'_>, u64)> {
        let mappable = self.encoding == Encoding::Raw && page < self.pages;
        mappable.then(|| (self.blob.file.as_fd(), page * u64::from(self.page_size)))
    }
}

/// The digests of a layer's pages, in private memory.
#[derive(Debug)]
pub(crate) struct PageDigests(Bytes);

impl PageDigests {
    pub(crate) fn new(bytes: Bytes) -> PageDigests {
        PageDigests(bytes)
    }

    pub(crate) fn all(&self) -> &[Digest] {
        use zerocopy::FromBytes;
        // The section's length was held against the layer's pages when it was read.
        <[Digest]>::ref_from_bytes(&self.0).unwrap_or_default()
    }

    pub(crate) fn get(&self, page: u64) -> Option<Digest> {
        self.all().get(usize::try_from(page).ok()?).copied()
    }
}

/// Whether a page holds nothing but zeroes.
pub(crate) fn is_zero(page: &[u8]) -> bool {
    let (words, rest) = page.as_chunks::<32>();
    words.iter().all(|word| *word == [0; 32]) && rest.iter().all(|&byte| byte == 0)
}
