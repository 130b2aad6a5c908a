//! The binary structures of an image, as they lie on disk: little-endian, without padding, alignment one. They say
//! nothing about validity: whoever reads one checks what it states.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Digest;

/// The version of the format that this crate writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// How many other images' layers one image may use.
pub const MAX_PARENTS: usize = 64;

/// Guest memory in one chunk of a compressed layer, in bytes. The last chunk of a layer may hold less.
pub const CHUNK_BYTES: u32 = 256 * 1024;

pub(crate) const INDEX_MAGIC: [u8; 8] = *b"QSFIMAGE";
pub(crate) const TABLE_MAGIC: [u8; 8] = *b"QSRECORD";
pub(crate) const WORKING_SET_MAGIC: [u8; 8] = *b"QSWRKSET";

/// The largest eager index, in bytes.
pub(crate) const MAX_INDEX: u64 = 4 << 20;
/// The largest JSON document, in bytes.
pub(crate) const MAX_JSON: u64 = 1 << 20;
/// The largest working set, in bytes.
pub(crate) const MAX_WORKING_SET: u64 = 64 << 20;
/// The largest head of a section, and the largest chunk of records, in bytes. A file can be sparse: that it has some size
/// does not bound what reading it costs.
pub(crate) const MAX_HEAD: u64 = 256 << 20;
/// The same for a section of page digests: 32 million pages.
pub(crate) const MAX_PAGE_DIGESTS: u64 = 1 << 30;
/// The longest name of a section, a kind or a feature word, in bytes.
pub(crate) const MAX_NAME: usize = 255;
/// How many blobs an index may name.
pub(crate) const MAX_BLOBS: usize = 16;
/// What a chunk of records is filled up to; a larger record has a chunk of its own.
pub(crate) const RECORD_CHUNK: usize = 64 * 1024;
/// What record chunks and records are aligned to.
pub(crate) const RECORD_ALIGN: usize = 16;
/// "No blob", "no layer".
pub(crate) const NONE: u32 = u32::MAX;

pub(crate) const KIND_BYTES: u32 = 1;
pub(crate) const KIND_RECORDS: u32 = 2;
pub(crate) const KIND_EXTENTS: u32 = 3;
pub(crate) const KIND_PAGE_DIGESTS: u32 = 4;
pub(crate) const KIND_CHUNKS: u32 = 5;

pub(crate) const ENCODING_RAW: u32 = 0;
pub(crate) const ENCODING_ZSTD: u32 = 1;

/// `source` of an extent that is zero; any other value is a layer's number plus one.
pub(crate) const SOURCE_ZERO: u32 = 0;

/// A string in the string area at the end of the index.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct StringRef {
    pub(crate) offset: U32,
    pub(crate) len: U32,
}

/// The start of the eager index. `features`, `parents`, `blobs` and `sections` arrays follow in this order, then
/// `strings` bytes of UTF-8.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct IndexHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) format: U32,
    pub(crate) records: U32,
    pub(crate) platform: U32,
    pub(crate) arch: U32,
    pub(crate) page_size: U32,
    pub(crate) flags: U32,
    pub(crate) size: U64,
    pub(crate) features: U32,
    pub(crate) parents: U32,
    pub(crate) blobs: U32,
    pub(crate) sections: U32,
    pub(crate) strings: U32,
    pub(crate) config_blob: U32,
    pub(crate) layer_blob: U32,
    pub(crate) layer_encoding: U32,
    pub(crate) layer_pages: U64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct FeatureEntry {
    pub(crate) name: StringRef,
    pub(crate) bits: U64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct ParentEntry {
    pub(crate) id: Digest,
    pub(crate) name: StringRef,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct BlobEntry {
    pub(crate) digest: Digest,
    pub(crate) size: U64,
}

/// A range of a blob. The first `head` bytes have the digest `digest`; what follows is covered by digests in the head.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct SectionEntry {
    pub(crate) kind: U32,
    pub(crate) blob: U32,
    pub(crate) name: StringRef,
    pub(crate) offset: U64,
    pub(crate) len: U64,
    pub(crate) head: U64,
    pub(crate) items: U64,
    pub(crate) digest: Digest,
}

/// The start of a record table. `records` record entries follow, then `chunks` chunk entries (together: the head), then
/// the chunks.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct TableHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) records: U64,
    pub(crate) chunks: U64,
    pub(crate) reserved: U64,
}

/// One record: sorted by id. `offset` is in its chunk.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RecordEntry {
    pub(crate) id: U64,
    pub(crate) chunk: U32,
    pub(crate) offset: U32,
    pub(crate) len: U32,
    pub(crate) reserved: U32,
}

/// One chunk of records. `offset` is in the section.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RecordChunkEntry {
    pub(crate) offset: U64,
    pub(crate) len: U64,
    pub(crate) digest: Digest,
}

/// `pages` guest pages from `start` in `space`; `page` is where they start in the layer.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct ExtentEntry {
    pub(crate) space: U64,
    pub(crate) start: U64,
    pub(crate) pages: U32,
    pub(crate) source: U32,
    pub(crate) page: U64,
}

/// One chunk of a compressed layer: `stored` bytes at `offset`, whose digest is `digest`. Where `stored` is the chunk's
/// own length it is not compressed.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct LayerChunkEntry {
    pub(crate) offset: U64,
    pub(crate) stored: U32,
    pub(crate) reserved: U32,
    pub(crate) digest: Digest,
}

/// The start of a working set. `runs` run entries follow, then `files` file entries, then `strings` bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct WorkingSetHeader {
    pub(crate) magic: [u8; 8],
    pub(crate) runs: U32,
    pub(crate) files: U32,
    pub(crate) strings: U64,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RunEntry {
    pub(crate) space: U64,
    pub(crate) start: U64,
    pub(crate) pages: U32,
    pub(crate) flags: U32,
}

/// A flag of a run: its pages were written to.
pub(crate) const RUN_WRITTEN: u32 = 1;

// What docs/func-image.md says.
const _: () = {
    assert!(size_of::<IndexHeader>() == 80);
    assert!(size_of::<FeatureEntry>() == 16);
    assert!(size_of::<ParentEntry>() == 40);
    assert!(size_of::<BlobEntry>() == 40);
    assert!(size_of::<SectionEntry>() == 80);
    assert!(size_of::<TableHeader>() == 32);
    assert!(size_of::<RecordEntry>() == 24);
    assert!(size_of::<RecordChunkEntry>() == 48);
    assert!(size_of::<ExtentEntry>() == 32);
    assert!(size_of::<LayerChunkEntry>() == 48);
    assert!(size_of::<WorkingSetHeader>() == 24);
    assert!(size_of::<RunEntry>() == 24);
};
