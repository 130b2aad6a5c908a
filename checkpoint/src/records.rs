//! Record tables: all records of one kind, by id.
//!
//! A record is an rkyv archive of its own, so that one is validated without looking at another. Records lie in chunks of some
//! 64 KiB, each with a digest; a chunk is read and checked when the first of its records is asked for. Opening a table
//! reads and checks its head (ids and places) and walks over nothing.
//!
//! Invariants: a record's bytes reach nobody before their digest was right and rkyv found them valid for the type asked
//! for; the head is in private memory. That ids ascend is not checked when a table is opened: in one that was forged
//! a record may not be found, and nothing worse.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::rancor::Error;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::validation::Validator;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::validation::shared::SharedValidator;
use rkyv::{Archive, Deserialize, Portable, Serialize};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use crate::dir::{Blob, Bytes};
use crate::error::Place;
use crate::format::{
    MAX_HEAD, RECORD_ALIGN, RECORD_CHUNK, RecordChunkEntry, RecordEntry, TABLE_MAGIC, TableHeader,
};
use crate::{Digest, ImageError, WriteError};

/// How deep pointers of a record may lie in each other. Records are flat; this bounds the stack of one that is not.
const MAX_DEPTH: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// A type that can be read as a record: implemented for every rkyv type with `bytecheck`.
///
/// Its archived form must not hold collections of zero-sized elements (an image could state four billion of them).
pub trait Record:
    Archive<Archived: ArchivedRecord + Deserialize<Self, HighDeserializer<Error>>> + Sized
{
}
impl<T> Record for T where
    T: Archive<Archived: ArchivedRecord + Deserialize<T, HighDeserializer<Error>>> + Sized
{
}

/// The archived form of a [`Record`].
pub trait ArchivedRecord: Portable + for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, Error>> {}
impl<T> ArchivedRecord for T where T: Portable + for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, Error>> {}

/// A type that can be written as a record: implemented for every rkyv type.
pub trait StoredRecord: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>> {}
impl<T> StoredRecord for T where T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>> {}

/// Validates `bytes` as one archived `T`. `offset` is where they lie, for the error.
pub(crate) fn access<'a, T: ArchivedRecord>(
    bytes: &'a [u8],
    place: &Place,
    offset: u64,
) -> Result<&'a T, ImageError> {
    let archive = ArchiveValidator::with_max_depth(bytes, Some(MAX_DEPTH));
    let mut validator = Validator::new(archive, SharedValidator::new());
    rkyv::api::access_with_context::<T, _, Error>(bytes, &mut validator)
        .map_err(|error| place.damaged(offset, format!("no valid record: {error}")))
}

pub(crate) fn deserialize<T: Record>(
    archived: &T::Archived,
    place: &Place,
    offset: u64,
) -> Result<T, ImageError> {
    rkyv::api::high::deserialize::<T, Error>(archived)
        .map_err(|error| place.damaged(offset, format!("no valid record: {error}")))
}

/// Collects the records of one kind, in any order.
pub struct RecordTableBuilder {
    kind: String,
    /// Id, chunk, offset, length.
    entries: Vec<(u64, u32, u32, u32)>,
    chunks: Vec<Vec<u8>>,
}

impl RecordTableBuilder {
    pub fn new(kind: impl Into<String>) -> RecordTableBuilder {
        RecordTableBuilder { kind: kind.into(), entries: Vec::new(), chunks: Vec::new() }
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a record. An id that is there already is found when the table is written.
    pub fn add<T: StoredRecord>(&mut self, id: u64, record: &T) -> Result<(), WriteError> {
        let bytes = rkyv::to_bytes::<Error>(record)
            .map_err(|error| self.error(id, &format!("it has no archived form: {error}")))?;
        self.add_raw(id, &bytes)
    }

    /// Adds a record that is archived already: what `rkyv::to_bytes` gave for it.
    pub fn add_raw(&mut self, id: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let full = |chunk: &Vec<u8>| chunk.len() + bytes.len() > RECORD_CHUNK;
        if self.chunks.last().is_none_or(full) {
            self.chunks.push(Vec::new());
        }
        let index = self.chunks.len() - 1;
        let chunk = &mut self.chunks[index];
        let offset = chunk.len();
        chunk.extend_from_slice(bytes);
        chunk.resize(chunk.len().next_multiple_of(RECORD_ALIGN), 0);
        let cut = |n: usize| u32::try_from(n).ok().filter(|&n| u64::from(n) < MAX_HEAD);
        let (Some(index), Some(offset), Some(len)) = (cut(index), cut(offset), cut(bytes.len())) else {
            return Err(self.error(id, "it is larger than 256 MiB"));
        };
        self.entries.push((id, index, offset, len));
        Ok(())
    }

    fn error(&self, id: u64, problem: &str) -> WriteError {
        WriteError::Record { kind: self.kind.clone(), id, problem: problem.into() }
    }

    /// The head of the table, which its digest covers, and the chunks that follow it.
    pub(crate) fn finish(mut self) -> Result<(Vec<u8>, Vec<Vec<u8>>), WriteError> {
        self.entries.sort_unstable_by_key(|entry| entry.0);
        if let Some(pair) = self.entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(self.error(pair[0].0, "there are two of this id"));
        }
        let head_len = size_of::<TableHeader>()
            + self.entries.len() * size_of::<RecordEntry>()
            + self.chunks.len() * size_of::<RecordChunkEntry>();
        let data = head_len.next_multiple_of(RECORD_ALIGN);
        let header = TableHeader {
            magic: TABLE_MAGIC,
            records: U64::new(self.entries.len() as u64),
            chunks: U64::new(self.chunks.len() as u64),
            reserved: U64::ZERO,
        };
        let mut head = Vec::with_capacity(data);
        head.extend_from_slice(header.as_bytes());
        for &(id, chunk, offset, len) in &self.entries {
            let entry = RecordEntry {
                id: U64::new(id),
                chunk: U32::new(chunk),
                offset: U32::new(offset),
                len: U32::new(len),
                reserved: U32::ZERO,
            };
            head.extend_from_slice(entry.as_bytes());
        }
        let mut offset = data as u64;
        for chunk in &self.chunks {
            let entry = RecordChunkEntry {
                offset: U64::new(offset),
                len: U64::new(chunk.len() as u64),
                digest: Digest::of(chunk),
            };
            head.extend_from_slice(entry.as_bytes());
            offset += chunk.len() as u64;
        }
        head.resize(data, 0);
        Ok((head, self.chunks))
    }
}

impl fmt::Debug for RecordTableBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordTableBuilder({:?}, {} records)", self.kind, self.entries.len())
    }
}

/// The records of one kind. Cheap to keep; shared between whoever holds handles to its records.
pub struct RecordTable {
    kind: String,
    place: Place,
    blob: Arc<Blob>,
    /// Where the section lies in the blob.
    offset: u64,
    head: Bytes,
    records: usize,
    chunks: Vec<OnceLock<Bytes>>,
    /// A bit for each record that was asked for.
    touched: Vec<AtomicU64>,
    materialised: AtomicU64,
}

impl RecordTable {
    /// `head` has been checked against its digest.
    pub(crate) fn open(
        kind: &str,
        place: Place,
        blob: Arc<Blob>,
        offset: u64,
        len: u64,
        head: Bytes,
    ) -> Result<RecordTable, ImageError> {
        let (header, _) = TableHeader::ref_from_prefix(&head)
            .map_err(|_| place.damaged(head.len() as u64, "it ends within its header"))?;
        if header.magic != TABLE_MAGIC {
            return Err(place.damaged(0, "wrong magic"));
        }
        let sizes = || {
            let records = usize::try_from(header.records.get()).ok()?;
            let chunks = usize::try_from(header.chunks.get()).ok()?;
            let entries = records.checked_mul(size_of::<RecordEntry>())?;
            let places = chunks.checked_mul(size_of::<RecordChunkEntry>())?;
            let end = entries.checked_add(places)?.checked_add(size_of::<TableHeader>())?;
            (end <= head.len()).then_some((records, chunks))
        };
        let (records, chunks) =
            sizes().ok_or_else(|| place.damaged(8, "more records than its head has room for"))?;
        let touched = (0..records.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let table = RecordTable {
            kind: kind.into(),
            place,
            blob,
            offset,
            head,
            records,
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
            touched,
            materialised: AtomicU64::new(0),
        };
        // Chunks that overlapped could take many times the section's size in memory.
        let mut end = table.head.len() as u64;
        for (number, entry) in table.places().iter().enumerate() {
            let start = entry.offset.get();
            let next = start.checked_add(entry.len.get());
            let next = next.filter(|&next| start >= end && next <= len && next - start <= MAX_HEAD);
            end = next.ok_or_else(|| {
                let before = records * size_of::<RecordEntry>() + number * size_of::<RecordChunkEntry>();
                let at = size_of::<TableHeader>() + before;
                table.place.damaged(at as u64, "a chunk that is too long, or overlaps another or the end")
            })?;
        }
        Ok(table)
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub fn len(&self) -> usize {
        self.records
    }

    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// How many different records were asked for so far.
    pub fn materialised(&self) -> u64 {
        self.materialised.load(Ordering::Relaxed)
    }

    /// The ids, ascending. This walks over the whole table.
    pub fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.entries().iter().map(|entry| entry.id.get())
    }

    pub fn contains(&self, id: u64) -> bool {
        self.position(id).is_some()
    }

    /// The record `id`, in the form it has in the image. It is validated by every call; keep what came of it.
    pub fn get<T: Record>(&self, id: u64) -> Result<&T::Archived, ImageError> {
        let (bytes, offset) = self.raw(id)?;
        access::<T::Archived>(bytes, &self.place, offset)
    }

    /// The record `id` as a value.
    pub fn read<T: Record>(&self, id: u64) -> Result<T, ImageError> {
        let (bytes, offset) = self.raw(id)?;
        deserialize(access::<T::Archived>(bytes, &self.place, offset)?, &self.place, offset)
    }

    /// The bytes of record `id` and where they start in the section. Counts it as materialised.
    pub(crate) fn raw(&self, id: u64) -> Result<(&[u8], u64), ImageError> {
        let position = self.position(id).ok_or_else(|| ImageError::NoSuchRecord {
            image: self.place.image.clone(),
            part: self.place.part.clone(),
            id,
        })?;
        let found = self.record(position)?;
        let bit = 1 << (position % 64);
        if self.touched[position / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.materialised.fetch_add(1, Ordering::Relaxed);
        }
        Ok(found)
    }

    fn entries(&self) -> &[RecordEntry] {
        self.array(size_of::<TableHeader>(), self.records)
    }

    fn places(&self) -> &[RecordChunkEntry] {
        let start = size_of::<TableHeader>() + self.records * size_of::<RecordEntry>();
        self.array(start, self.chunks.len())
    }

    /// `open` has checked that the arrays lie in the head.
    fn array<T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable>(
        &self,
        start: usize,
        count: usize,
    ) -> &[T] {
        let bytes = self.head.get(start..).unwrap_or_default();
        <[T]>::ref_from_prefix_with_elems(bytes, count).map_or(&[], |(array, _)| array)
    }

    fn position(&self, id: u64) -> Option<usize> {
        self.entries().binary_search_by_key(&id, |entry| entry.id.get()).ok()
    }

    fn record(&self, position: usize) -> Result<(&[u8], u64), ImageError> {
        let entry = &self.entries()[position];
        let at = (size_of::<TableHeader>() + position * size_of::<RecordEntry>()) as u64;
        let number = entry.chunk.get() as usize;
        let (offset, len) = (entry.offset.get() as usize, entry.len.get() as usize);
        let chunk = self.chunk(number, at)?;
        let bytes = offset
            .checked_add(len)
            .and_then(|end| chunk.get(offset..end))
            .ok_or_else(|| self.place.damaged(at, "a record beyond the end of its chunk"))?;
        let place = &self.places()[number];
        Ok((bytes, place.offset.get().saturating_add(offset as u64)))
    }

    /// `at` is who names the chunk, for the error.
    fn chunk(&self, number: usize, at: u64) -> Result<&Bytes, ImageError> {
        let cell = self.chunks.get(number).ok_or_else(|| self.place.damaged(at, "a record in no chunk"))?;
        if let Some(bytes) = cell.get() {
            return Ok(bytes);
        }
        let entry = &self.places()[number];
        let (offset, len) = (entry.offset.get(), entry.len.get());
        let bytes = self.blob.read(self.offset.saturating_add(offset), len, &self.place)?;
        if Digest::of(&bytes) != entry.digest {
            return Err(self.place.damaged(offset, "a chunk of records whose digest is wrong"));
        }
        Ok(cell.get_or_init(|| bytes))
    }

    /// Checks everything but the records' types: the order of ids, places, and digests.
    pub(crate) fn verify(&self) -> Result<(), ImageError> {
        let mut last = None;
        for (i, entry) in self.entries().iter().enumerate() {
            if last.is_some_and(|last| last >= entry.id.get()) {
                let at = size_of::<TableHeader>() + i * size_of::<RecordEntry>();
                return Err(self.place.damaged(at as u64, "ids that do not ascend"));
            }
            last = Some(entry.id.get());
            self.record(i)?;
        }
        for number in 0..self.chunks.len() {
            self.chunk(number, 0)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RecordTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordTable({:?}, {} of {})", self.kind, self.materialised(), self.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
    #[rkyv(
        serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source),
        deserialize_bounds(__D::Error: rkyv::rancor::Source),
        bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source))
    )]
    struct Nested {
        #[rkyv(omit_bounds)]
        inner: Option<Box<Nested>>,
        names: Vec<String>,
    }

    fn nested(depth: usize) -> AlignedVec {
        let names = || vec!["a name that is not inline".to_string(); 3];
        let leaf = Nested { inner: None, names: names() };
        let nest = |inner, _| Nested { inner: Some(Box::new(inner)), names: names() };
        rkyv::to_bytes::<Error>(&(0..depth).fold(leaf, nest)).unwrap()
    }

    fn place() -> Place {
        Place::new(&"test".into(), "table")
    }

    #[test]
    fn depth_is_bounded() {
        access::<ArchivedNested>(&nested(40), &place(), 0).unwrap();
        let error = access::<ArchivedNested>(&nested(400), &place(), 77).err().unwrap().to_string();
        assert!(error.contains("offset 77"), "{error}");
    }

    /// Small enough for an interpreter: no file, few bytes.
    #[test]
    fn wrong_records_are_errors_or_records() {
        let good = nested(2);
        for at in 0..good.len() {
            for with in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = with;
                if let Ok(archived) = access::<ArchivedNested>(&bytes, &place(), 0) {
                    let _ = deserialize::<Nested>(archived, &place(), 0);
                }
            }
            let _ = access::<ArchivedNested>(&good[..at], &place(), 0).map(|_| ());
            let _ = access::<ArchivedNested>(&good[at..], &place(), 0).map(|_| ());
        }
    }
}
