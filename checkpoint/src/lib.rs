//! The func-image: a checkpointed function on disk, from which it is restored in milliseconds.
//!
//! An image is a directory in OCI image-layout form. `docs/func-image.md` describes it byte by byte. What it holds:
//!
//! - an *eager index*: the one thing that is read when an image is opened, and it is small whatever the image's size;
//! - *sections*: small metadata, each with a digest of its own, read when asked for. A section is plain bytes, or a
//!   [`RecordTable`]: rkyv records of one kind, found by id and validated one by one when they are used;
//! - one *page layer*: the guest pages that this image stores, in a page-aligned file that is mapped `MAP_PRIVATE` (or in
//!   compressed chunks, for a page server), and the *extents* that say which guest page lies where. A page may also lie
//!   in the layer of a *parent* image.
//!
//! The crate knows no kernel object and no platform: spaces, pages, records, kinds and CPU feature words are the caller's
//! numbers and names. It maps nothing; it hands out descriptors and offsets.
//!
//! ```
//! use quicksand_checkpoint::{Image, ImageSpec, ImageWriter, PageBacking, RecordTableBuilder};
//! # let dir = tempfile::tempdir()?;
//! # let path = &dir.path().join("hello");
//! // A checkpoint. Nothing is visible at `path` before `finish`.
//! let mut writer = ImageWriter::create(path, ImageSpec::default())?;
//! let mut pipes = RecordTableBuilder::new("pipe");
//! pipes.add(7, &String::from("a record"))?;
//! writer.add_records(pipes)?;
//! writer.layer().add(1, 0x400, &[42; 4096])?; // space 1, guest page 0x400
//! writer.finish()?;
//!
//! // A restore.
//! let image = Image::open(path)?;
//! for extent in image.extents()?.space(1) {
//!     if let PageBacking::File { fd, offset } = image.backing(extent) {
//!         // mmap(extent.start_page * 4096, extent.pages * 4096, MAP_PRIVATE, fd, offset)
//!         # let _ = (fd, offset);
//!     }
//! }
//! let pipes = image.records("pipe")?; // validates nothing
//! assert_eq!(pipes.read::<String>(7)?, "a record"); // validates this one
//! assert_eq!(image.stats().sum(), (1, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//!
//! - Every byte of an image may be wrong. The worst outcome is an error that names the part and the offset.
//! - Metadata is copied into private memory before it is looked at: a file that changes later changes nothing here.
//! - Nothing is allocated by a size that an image states before that size was held against a real file's.
//! - Nothing outside the image's directory is opened because of what the image says, but for a parent *beside* it.
//! - An image is visible as a whole or not at all, whenever its writer dies.

#![forbid(unsafe_code)]

#[cfg(test)]
extern crate self as quicksand_checkpoint; // so that unit tests can use what integration tests use

mod create;
mod digest;
mod dir;
mod error;
mod flatten;
mod format;
mod image;
mod index;
mod inspect;
mod layer;
mod oci;
mod part;
mod records;
#[cfg(test)]
mod resealed;
mod store;
mod verify;
mod working_set;

pub use create::{ImageSpec, ImageWriter};
pub use digest::Digest;
pub use error::{Axis, ImageError, StoreError, WriteError};
pub use flatten::{FlattenOptions, flatten};
pub use format::{CHUNK_BYTES, FORMAT_VERSION, MAX_PARENTS};
pub use image::{Host, Image, KindStats, OpenOptions, PageBacking, Section, Stats};
pub use index::{FeatureWord, Versions};
pub use inspect::{FeatureSummary, KindSummary, LayerSummary, PageSummary, Summary};
pub use layer::compressed::CompressedLayer;
pub use layer::extents::{Extent, Extents, Source};
pub use layer::writer::LayerWriter;
pub use layer::{Encoding, Layer};
pub use records::{ArchivedRecord, Record, RecordTable, RecordTableBuilder, StoredRecord};
pub use store::{Entry, Store};
pub use verify::Verified;
pub use working_set::{PageRun, WorkingSet};

/// ELF's `EM_X86_64`, the one architecture that images are written for so far.
pub const ARCH_X86_64: u32 = 62;

/// How far a long operation is. `total` is what the caller announced or what the image states; `done` reaches it at the
/// end, and may stay below where pages were not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub done_bytes: u64,
    pub total_bytes: u64,
}

/// Is told of progress, every few hundred KiB.
pub type OnProgress<'a> = Box<dyn FnMut(Progress) + Send + 'a>;
