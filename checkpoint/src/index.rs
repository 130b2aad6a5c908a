//! The eager index: what is read when an image is opened. Decoding copies it into owned values and checks everything that can
//! be checked without another file.
//!
//! Invariants of a decoded [`Index`]: every blob, section and layer reference is in bounds; every section lies within its
//! blob's stated size; no two sections share kind and name; names are single path components where they become paths.

use std::collections::BTreeSet;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Axis, Place};
use crate::format::{
    BlobEntry, ENCODING_RAW, ENCODING_ZSTD, FORMAT_VERSION, FeatureEntry, INDEX_MAGIC, IndexHeader,
    KIND_BYTES, KIND_CHUNKS, KIND_EXTENTS, KIND_PAGE_DIGESTS, KIND_RECORDS, MAX_BLOBS, MAX_HEAD, MAX_NAME,
    MAX_PAGE_DIGESTS, MAX_PARENTS, NONE, ParentEntry, SectionEntry, StringRef,
};
use crate::layer::Encoding;
use crate::{Digest, ImageError};

/// The versions that the caller gives its own parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Versions {
    pub records: u32,
    pub platform: u32,
}

/// CPU features under a name, for instance the bits of one CPUID register. What a bit means is the caller's affair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureWord {
    pub name: String,
    pub bits: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Bytes,
    Records,
    Extents,
    PageDigests,
    Chunks,
}

impl Kind {
    fn code(self) -> u32 {
        match self {
            Kind::Bytes => KIND_BYTES,
            Kind::Records => KIND_RECORDS,
            Kind::Extents => KIND_EXTENTS,
            Kind::PageDigests => KIND_PAGE_DIGESTS,
            Kind::Chunks => KIND_CHUNKS,
        }
    }

    fn from_code(code: u32) -> Option<Kind> {
        [Kind::Bytes, Kind::Records, Kind::Extents, Kind::PageDigests, Kind::Chunks]
            .into_iter()
            .find(|kind| kind.code() == code)
    }

    /// How messages call a section of this kind.
    pub(crate) fn describe(self, name: &str) -> String {
        match self {
            Kind::Bytes => format!("section {name:?}"),
            Kind::Records => format!("record table {name:?}"),
            Kind::Extents => "section of extents".into(),
            Kind::PageDigests => "section of page digests".into(),
            Kind::Chunks => "section of layer chunks".into(),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct SectionInfo {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) blob: usize,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) head: u64,
    pub(crate) items: u64,
    pub(crate) digest: Digest,
}

#[derive(Clone, Debug)]
pub(crate) struct ParentRef {
    pub(crate) id: Digest,
    /// What its directory was called when the child was written; may be empty.
    pub(crate) name: String,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerInfo {
    pub(crate) blob: usize,
    pub(crate) encoding: Encoding,
    pub(crate) pages: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct BlobInfo {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub(crate) versions: Versions,
    pub(crate) arch: u32,
    pub(crate) page_size: u32,
    pub(crate) features: Vec<FeatureWord>,
    pub(crate) parents: Vec<ParentRef>,
    pub(crate) blobs: Vec<BlobInfo>,
    pub(crate) config_blob: usize,
    pub(crate) layer: Option<LayerInfo>,
    pub(crate) sections: Vec<SectionInfo>,
}

impl Index {
    pub(crate) fn section(&self, kind: Kind, name: &str) -> Option<usize> {
        self.sections.iter().position(|section| section.kind == kind && section.name == name)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut strings = Strings::default();
        let mut body = Vec::new();
        for word in &self.features {
            let entry = FeatureEntry { name: strings.add(&word.name), bits: U64::new(word.bits) };
            body.extend_from_slice(entry.as_bytes());
        }
        for parent in &self.parents {
            let entry = ParentEntry { id: parent.id, name: strings.add(&parent.name) };
            body.extend_from_slice(entry.as_bytes());
        }
        for blob in &self.blobs {
            let entry = BlobEntry { digest: blob.digest, size: U64::new(blob.size) };
            body.extend_from_slice(entry.as_bytes());
        }
        for section in &self.sections {
            let entry = SectionEntry {
                kind: U32::new(section.kind.code()),
                blob: word(section.blob),
                name: strings.add(&section.name),
                offset: U64::new(section.offset),
                len: U64::new(section.len),
                head: U64::new(section.head),
                items: U64::new(section.items),
                digest: section.digest,
            };
            body.extend_from_slice(entry.as_bytes());
        }
        let size = size_of::<IndexHeader>() + body.len() + strings.0.len();
        let header = IndexHeader {
            magic: INDEX_MAGIC,
            format: U32::new(FORMAT_VERSION),
            records: U32::new(self.versions.records),
            platform: U32::new(self.versions.platform),
            arch: U32::new(self.arch),
            page_size: U32::new(self.page_size),
            flags: U32::ZERO,
            size: U64::new(size as u64),
            features: word(self.features.len()),
            parents: word(self.parents.len()),
            blobs: word(self.blobs.len()),
            sections: word(self.sections.len()),
            strings: word(strings.0.len()),
            config_blob: word(self.config_blob),
            layer_blob: self.layer.map_or(U32::new(NONE), |layer| word(layer.blob)),
            layer_encoding: U32::new(match self.layer.map(|layer| layer.encoding) {
                None | Some(Encoding::Raw) => ENCODING_RAW,
                Some(Encoding::Zstd) => ENCODING_ZSTD,
            }),
            layer_pages: U64::new(self.layer.map_or(0, |layer| layer.pages)),
        };
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&strings.0);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], place: &Place) -> Result<Index, ImageError> {
        let (header, _) = IndexHeader::ref_from_prefix(bytes)
            .map_err(|_| place.damaged(bytes.len() as u64, "it ends within its header"))?;
        if header.magic != INDEX_MAGIC {
            return Err(place.damaged(0, "wrong magic"));
        }
        if header.format.get() != FORMAT_VERSION {
            return Err(ImageError::Version {
                image: place.image.clone(),
                axis: Axis::Format,
                found: header.format.get(),
                supported: FORMAT_VERSION,
            });
        }
        if header.size.get() != bytes.len() as u64 {
            return Err(place.damaged(32, format!("states {} bytes, has {}", header.size, bytes.len())));
        }
        let page_size = header.page_size.get();
        if !page_size.is_power_of_two() || !(4096..=65536).contains(&page_size) {
            return Err(place.damaged(24, format!("a page size of {page_size}")));
        }
        if header.flags.get() != 0 {
            return Err(place.damaged(28, format!("unknown flags {:#x}", header.flags)));
        }
        let mut reader = Reader { bytes, at: size_of::<IndexHeader>(), place };
        let features = reader.array::<FeatureEntry>(header.features.get() as usize)?;
        let parents_at = reader.at;
        let parents = reader.array::<ParentEntry>(header.parents.get() as usize)?;
        let blobs_at = reader.at;
        let blobs = reader.array::<BlobEntry>(header.blobs.get() as usize)?;
        let sections_at = reader.at;
        let sections = reader.array::<SectionEntry>(header.sections.get() as usize)?;
        let strings_at = reader.at;
        let strings = reader.array::<u8>(header.strings.get() as usize)?;
        if reader.at != bytes.len() {
            return Err(place.damaged(reader.at as u64, "bytes after its end"));
        }
        if parents.len() > MAX_PARENTS {
            return Err(place.damaged(parents_at as u64, format!("{} parents", parents.len())));
        }
        if blobs.len() > MAX_BLOBS {
            return Err(place.damaged(blobs_at as u64, format!("{} blobs", blobs.len())));
        }
        let string = |string: StringRef| -> Result<String, ImageError> {
            let (offset, len) = (string.offset.get() as usize, string.len.get() as usize);
            let end = offset.checked_add(len).filter(|_| len <= MAX_NAME);
            let bytes = end.and_then(|end| strings.get(offset..end));
            bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::to_string).ok_or_else(|| {
                place.damaged(
                    (strings_at + offset) as u64,
                    "a name that is not UTF-8, too long, or beyond the end",
                )
            })
        };

        let mut index = Index {
            versions: Versions { records: header.records.get(), platform: header.platform.get() },
            arch: header.arch.get(),
            page_size,
            features: Vec::new(),
            parents: Vec::new(),
            blobs: blobs.iter().map(|blob| BlobInfo { digest: blob.digest, size: blob.size.get() }).collect(),
            config_blob: header.config_blob.get() as usize,
            layer: None,
            sections: Vec::new(),
        };
        if index.config_blob >= index.blobs.len() {
            return Err(place.damaged(60, "a config beyond the blobs"));
        }
        for feature in features {
            index.features.push(FeatureWord { name: string(feature.name)?, bits: feature.bits.get() });
        }
        for (i, parent) in parents.iter().enumerate() {
            let at = (parents_at + i * size_of::<ParentEntry>()) as u64;
            let name = string(parent.name)?;
            if !name.is_empty() && check_name(&name).is_err() {
                return Err(place.damaged(at, "a parent's name that is no file name"));
            }
            if index.parents.iter().any(|other| other.id == parent.id) {
                return Err(place.damaged(at, "a parent that is listed twice"));
            }
            index.parents.push(ParentRef { id: parent.id, name });
        }
        index.layer = index.decode_layer(header, place)?;
        let mut seen = BTreeSet::new();
        // Where each blob's last section ended: they lie in order, so that none can be read twice under two names.
        let mut ends = vec![0; index.blobs.len()];
        for (i, entry) in sections.iter().enumerate() {
            let at = (sections_at + i * size_of::<SectionEntry>()) as u64;
            let section = index.decode_section(entry, string(entry.name)?, at, place)?;
            if !seen.insert((section.kind, section.name.clone())) {
                return Err(place.damaged(at, "a section that is listed twice"));
            }
            if section.offset < ends[section.blob] {
                return Err(place.damaged(at + 16, "a section that overlaps the one before it"));
            }
            ends[section.blob] = section.offset + section.len;
            index.sections.push(section);
        }
        Ok(index)
    }

    fn decode_layer(&self, header: &IndexHeader, place: &Place) -> Result<Option<LayerInfo>, ImageError> {
        let pages = header.layer_pages.get();
        if header.layer_blob.get() == NONE {
            return match pages {
                0 => Ok(None),
                _ => Err(place.damaged(72, "pages, but no layer")),
            };
        }
        let blob = header.layer_blob.get() as usize;
        let size = self.blobs.get(blob).ok_or_else(|| place.damaged(64, "a layer beyond the blobs"))?.size;
        let bytes = pages
            .checked_mul(u64::from(self.page_size))
            .filter(|&bytes| bytes > 0 && i64::try_from(bytes).is_ok())
            .ok_or_else(|| place.damaged(72, format!("a layer of {pages} pages")))?;
        let encoding = match header.layer_encoding.get() {
            ENCODING_RAW if size == bytes => Encoding::Raw,
            ENCODING_RAW => return Err(place.damaged(72, "a layer whose size is not its pages'")),
            ENCODING_ZSTD => Encoding::Zstd,
            other => return Err(place.damaged(68, format!("unknown layer encoding {other}"))),
        };
        Ok(Some(LayerInfo { blob, encoding, pages }))
    }

    fn decode_section(
        &self,
        entry: &SectionEntry,
        name: String,
        at: u64,
        place: &Place,
    ) -> Result<SectionInfo, ImageError> {
        let kind = Kind::from_code(entry.kind.get())
            .ok_or_else(|| place.damaged(at, format!("unknown section kind {}", entry.kind)))?;
        let blob = entry.blob.get() as usize;
        let size =
            self.blobs.get(blob).ok_or_else(|| place.damaged(at + 4, "a section beyond the blobs"))?.size;
        let (offset, len, head) = (entry.offset.get(), entry.len.get(), entry.head.get());
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(place.damaged(at + 16, "a section beyond the end of its blob"));
        }
        let most = if kind == Kind::PageDigests { MAX_PAGE_DIGESTS } else { MAX_HEAD };
        if head > most {
            return Err(place.damaged(at + 32, format!("a section with a head of {head} bytes")));
        }
        if head > len || (kind != Kind::Records && head != len) {
            return Err(place.damaged(at + 32, "a section whose head is not its size"));
        }
        let items = entry.items.get();
        Ok(SectionInfo { kind, name, blob, offset, len, head, items, digest: entry.digest })
    }
}

/// Whether `name` can be the name of an image: one path component, visible, and nothing that `ls` would hide.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("it is empty"),
        _ if name.len() > 200 => Err("it is longer than 200 bytes"),
        _ if name.starts_with('.') => Err("it starts with a dot"),
        _ if name.contains(['/', '\0']) => Err("it has a slash or a zero byte in it"),
        _ => Ok(()),
    }
}

fn word(n: usize) -> U32 {
    // The writer's limits keep every count far below this.
    U32::new(u32::try_from(n).unwrap_or(NONE))
}

#[derive(Default)]
struct Strings(Vec<u8>);

impl Strings {
    fn add(&mut self, string: &str) -> StringRef {
        let offset = word(self.0.len());
        self.0.extend_from_slice(string.as_bytes());
        StringRef { offset, len: word(string.len()) }
    }
}

/// Takes arrays off the front of bytes, whose counts are held against what is there.
pub(crate) struct Reader<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
    pub(crate) place: &'a Place,
}

impl<'a> Reader<'a> {
    pub(crate) fn array<T: FromBytes + KnownLayout + Immutable + Unaligned>(
        &mut self,
        count: usize,
    ) -> Result<&'a [T], ImageError> {
        let end = count.checked_mul(size_of::<T>()).and_then(|len| len.checked_add(self.at));
        let bytes = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(|| {
            self.place.damaged(self.at as u64, format!("{count} entries do not fit into what is there"))
        })?;
        self.at += bytes.len();
        <[T]>::ref_from_bytes(bytes).map_err(|_| self.place.damaged(self.at as u64, "entries cut off"))
    }
}
