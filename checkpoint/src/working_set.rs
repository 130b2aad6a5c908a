//! The working set: what an instance touches between resume and its first response. It is recorded after the image was
//! made, so it is no part of what the image's id covers: setting it replaces `index.json`, and nothing else that was there.

use std::os::fd::OwnedFd;

use rustix::fs::FlockOperation;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use crate::dir::{TEMPORARY, names, replace_file, sync_dir};
use crate::error::Place;
use crate::format::{RUN_WRITTEN, RunEntry, StringRef, WORKING_SET_MAGIC, WorkingSetHeader};
use crate::index::Reader;
use crate::oci::{self, Descriptor, INDEX_FILE, OciIndex};
use crate::part::read_manifest;
use crate::{Digest, Image, ImageError, WriteError};

/// Guest pages that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    pub space: u64,
    pub start_page: u64,
    pub pages: u64,
    /// They were written to.
    pub written: bool,
}

/// What to prefetch, in the order in which it was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkingSet {
    pub runs: Vec<PageRun>,
    /// Paths of files as the guest names them: any bytes.
    pub files: Vec<Vec<u8>>,
}

impl WorkingSet {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, WriteError> {
        let too_large = || WriteError::Invalid { what: "a working set that is too large".into() };
        let word = |n: usize| u32::try_from(n).map(U32::new).map_err(|_| too_large());
        let header = WorkingSetHeader {
            magic: WORKING_SET_MAGIC,
            runs: word(self.runs.len())?,
            files: word(self.files.len())?,
            strings: U64::new(self.files.iter().map(|file| file.len() as u64).sum()),
        };
        let mut bytes = header.as_bytes().to_vec();
        for run in &self.runs {
            let entry = RunEntry {
                space: U64::new(run.space),
                start: U64::new(run.start_page),
                pages: U32::new(u32::try_from(run.pages).map_err(|_| too_large())?),
                flags: U32::new(if run.written { RUN_WRITTEN } else { 0 }),
            };
            bytes.extend_from_slice(entry.as_bytes());
        }
        let mut offset = 0;
        for file in &self.files {
            let entry = StringRef { offset: word(offset)?, len: word(file.len())? };
            bytes.extend_from_slice(entry.as_bytes());
            offset += file.len();
        }
        for file in &self.files {
            bytes.extend_from_slice(file);
        }
        if bytes.len() as u64 > crate::format::MAX_WORKING_SET {
            return Err(too_large());
        }
        Ok(bytes)
    }

    pub(crate) fn decode(bytes: &[u8], place: &Place) -> Result<WorkingSet, ImageError> {
        let (header, _) = WorkingSetHeader::ref_from_prefix(bytes)
            .map_err(|_| place.damaged(bytes.len() as u64, "it ends within its header"))?;
        if header.magic != WORKING_SET_MAGIC {
            return Err(place.damaged(0, "wrong magic"));
        }
        let mut reader = Reader { bytes, at: size_of::<WorkingSetHeader>(), place };
        let runs = reader.array::<RunEntry>(header.runs.get() as usize)?;
        let files_at = reader.at;
        let files = reader.array::<StringRef>(header.files.get() as usize)?;
        let strings = reader.array::<u8>(usize::try_from(header.strings.get()).unwrap_or(usize::MAX))?;
        let mut set = WorkingSet::default();
        for (i, run) in runs.iter().enumerate() {
            let (start_page, pages) = (run.start.get(), u64::from(run.pages.get()));
            if start_page.checked_add(pages).is_none_or(|end| end > 1 << 52) {
                let at = size_of::<WorkingSetHeader>() + i * size_of::<RunEntry>();
                return Err(place.damaged(at as u64, "pages beyond the address space"));
            }
            let written = run.flags.get() & RUN_WRITTEN != 0;
            set.runs.push(PageRun { space: run.space.get(), start_page, pages, written });
        }
        // Each file's name starts where the one before it ended, so that they are no more than what is there.
        let mut at = 0;
        for (i, file) in files.iter().enumerate() {
            let (offset, len) = (file.offset.get() as usize, file.len.get() as usize);
            let name = (offset == at).then(|| strings.get(offset..offset.checked_add(len)?)).flatten();
            let name = name.ok_or_else(|| {
                let at = files_at + i * size_of::<StringRef>();
                place.damaged(at as u64, "a file's name that is not where it should be")
            })?;
            set.files.push(name.to_vec());
            at += len;
        }
        Ok(set)
    }
}

impl Image {
    /// Replaces the image's working set on disk. Whoever opens the image sees the old one or the new one; this `Image`
    /// goes on with what it opened.
    pub fn set_working_set(&self, set: &WorkingSet) -> Result<(), WriteError> {
        let (dir, place) = (self.dir(), self.place(INDEX_FILE));
        let bytes = set.encode()?;
        let io = WriteError::io::<std::io::Error>;
        rustix::fs::flock(dir, FlockOperation::LockExclusive).map_err(WriteError::io("the image's lock"))?;
        let result = (|| {
            let (mut manifest, _) = read_manifest(dir, &place.image)?;
            manifest.layers.retain(|layer| layer.media_type != oci::WORKING_SET);
            let digest = Digest::of(&bytes);
            replace_file(dir, &digest.blob_path(), &bytes).map_err(io("the working set"))?;
            manifest.layers.push(Descriptor::new(oci::WORKING_SET, digest, bytes.len() as u64));
            write_manifest(dir, &manifest)?;
            sync_dir(dir, ".").map_err(io("the image's directory"))?;
            collect(dir, &manifest).map_err(io("the image's directory"))
        })();
        let _ = rustix::fs::flock(dir, FlockOperation::Unlock);
        result
    }
}

/// Writes the manifest and makes it the image's.
pub(crate) fn write_manifest(dir: &OwnedFd, manifest: &oci::Manifest) -> Result<(), WriteError> {
    let json =
        |error: serde_json::Error| WriteError::Io { what: "the manifest".into(), source: error.into() };
    let bytes = serde_json::to_vec(manifest).map_err(json)?;
    let digest = Digest::of(&bytes);
    replace_file(dir, &digest.blob_path(), &bytes).map_err(WriteError::io("the manifest"))?;
    sync_dir(dir, oci::BLOBS).map_err(WriteError::io("the blobs' directory"))?;
    let mut descriptor = Descriptor::new(oci::OCI_MANIFEST, digest, bytes.len() as u64);
    descriptor.artifact_type = Some(oci::ARTIFACT.into());
    let index =
        OciIndex { schema_version: 2, media_type: oci::OCI_INDEX.into(), manifests: vec![descriptor] };
    let bytes = serde_json::to_vec(&index).map_err(json)?;
    replace_file(dir, INDEX_FILE, &bytes).map_err(WriteError::io(INDEX_FILE))
}

/// Removes blobs that the manifest does not name, and files that a writer that died left. The caller holds the lock.
fn collect(dir: &OwnedFd, manifest: &oci::Manifest) -> std::io::Result<()> {
    let (_, current) = read_manifest(dir, &"".into()).map_err(std::io::Error::other)?;
    let mut keep: Vec<String> = manifest.layers.iter().map(|layer| layer.digest.hex()).collect();
    keep.push(manifest.config.digest.hex());
    keep.push(current.digest.hex());
    let blobs = crate::dir::open_subdir(dir, oci::BLOBS)?;
    for name in names(&blobs)? {
        if !keep.contains(&name) {
            // What cannot be removed does no harm.
            let _ = rustix::fs::unlinkat(&blobs, &name, rustix::fs::AtFlags::empty());
        }
    }
    for name in names(dir)?.iter().filter(|name| name.starts_with(TEMPORARY)) {
        let _ = rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty());
    }
    Ok(())
}
