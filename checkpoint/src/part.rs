//! One image's directory, without its parents: the documents, the index, and the blobs, all opened at once.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::dir::{Blob, Bytes, read_blob};
use crate::error::Place;
use crate::format::{LayerChunkEntry, MAX_INDEX, MAX_JSON};
use crate::index::{Index, Kind};
use crate::layer::PageDigests;
use crate::oci::{self, Descriptor, INDEX_FILE, Manifest, OciIndex};
use crate::{CompressedLayer, Digest, ImageError, Layer, RecordTable};

/// One image's directory: what is its own. An [`Image`] is one of these and those of its parents.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) image: Arc<str>,
    pub(crate) dir: OwnedFd,
    pub(crate) manifest: Manifest,
    pub(crate) manifest_descriptor: Descriptor,
    pub(crate) id: Digest,
    pub(crate) index: Index,
    pub(crate) blobs: Vec<Arc<Blob>>,
    pub(crate) working_set: Option<(Blob, Digest)>,
}

/// How often a document is read anew because what it names is gone: a working set that is replaced takes the blobs that the
/// old `index.json` leads to with it.
const TRIES: u32 = 10;

fn was_missing(error: &ImageError) -> bool {
    matches!(error, ImageError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// Reads `index.json` and the manifest it names.
pub(crate) fn read_manifest(dir: &OwnedFd, image: &Arc<str>) -> Result<(Manifest, Descriptor), ImageError> {
    let not_an_image = |reason: &str| ImageError::NotAnImage { image: image.clone(), reason: reason.into() };
    let place = Place::new(image, INDEX_FILE);
    let mut tries = 0;
    loop {
        let blob = match Blob::open(dir, INDEX_FILE, &place) {
            Err(error) if was_missing(&error) => return Err(not_an_image("it has no index.json")),
            other => other?,
        };
        let index: OciIndex = parse(&blob.read_all(MAX_JSON, &place)?, &place)?;
        let [descriptor] = &index.manifests[..] else {
            return Err(not_an_image("its index.json does not name exactly one manifest"));
        };
        let manifest_place = Place::new(image, "manifest");
        match read_blob(dir, descriptor.digest, descriptor.size, MAX_JSON, &manifest_place) {
            Err(error) if was_missing(&error) && tries < TRIES => tries += 1,
            Err(error) => return Err(error),
            Ok(bytes) => {
                let manifest: Manifest = parse(&bytes, &manifest_place)?;
                if manifest.artifact_type.as_deref() != Some(oci::ARTIFACT) {
                    return Err(not_an_image("it is an OCI image of another type"));
                }
                return Ok((manifest, descriptor.clone()));
            }
        }
    }
}

type WorkingSetBlob = Option<(Blob, Digest)>;

/// The manifest, and the working set that it names.
fn open_documents(
    dir: &OwnedFd,
    image: &Arc<str>,
) -> Result<(Manifest, Descriptor, WorkingSetBlob), ImageError> {
    let place = Place::new(image, "working set");
    let mut tries = 0;
    loop {
        let (manifest, descriptor) = read_manifest(dir, image)?;
        let Some(set) = manifest.layer(oci::WORKING_SET) else { return Ok((manifest, descriptor, None)) };
        match Blob::open_sized(dir, &set.digest.blob_path(), set.size, &place) {
            Err(error) if was_missing(&error) && tries < TRIES => tries += 1,
            opened => {
                let set = Some((opened?, set.digest));
                return Ok((manifest, descriptor, set));
            }
        }
    }
}

/// Parses JSON, with the place of an error as its offset.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], place: &Place) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let line_start = bytes.split_inclusive(|&b| b == b'\n').take(error.line().saturating_sub(1));
        let offset = line_start.map(<[u8]>::len).sum::<usize>() + error.column().saturating_sub(1);
        place.damaged(offset as u64, error.to_string())
    })
}

impl Part {
    pub(crate) fn open(dir: OwnedFd, image: Arc<str>) -> Result<Part, ImageError> {
        let (manifest, manifest_descriptor, working_set) = open_documents(&dir, &image)?;
        let place = Place::new(&image, "index");
        let eager = manifest.layer(oci::EAGER_INDEX).ok_or_else(|| ImageError::NotAnImage {
            image: image.clone(),
            reason: "its manifest names no index".into(),
        })?;
        let id = eager.digest;
        let index = Index::decode(&read_blob(&dir, id, eager.size, MAX_INDEX, &place)?, &place)?;
        let mut blobs = Vec::with_capacity(index.blobs.len());
        for (number, blob) in index.blobs.iter().enumerate() {
            let part = match index.layer {
                Some(layer) if layer.blob == number => "page layer".to_string(),
                _ if number == index.config_blob => "config".to_string(),
                _ => format!("blob {number}"),
            };
            let place = Place::new(&image, part);
            blobs.push(Arc::new(Blob::open_sized(&dir, &blob.digest.blob_path(), blob.size, &place)?));
        }
        Ok(Part { image, dir, manifest, manifest_descriptor, id, index, blobs, working_set })
    }

    /// The head of a section, checked.
    pub(crate) fn head(&self, section: usize) -> Result<(Bytes, Place), ImageError> {
        let info = &self.index.sections[section];
        let place = Place::new(&self.image, info.kind.describe(&info.name));
        let bytes = self.blobs[info.blob].read(info.offset, info.head, &place)?;
        if Digest::of(&bytes) != info.digest {
            return Err(place.damaged(0, format!("the digest of its first {} bytes is wrong", info.head)));
        }
        Ok((bytes, place))
    }

    pub(crate) fn internal(&self, kind: Kind) -> Result<(Bytes, Place), ImageError> {
        let section = self
            .index
            .section(kind, "")
            .ok_or_else(|| ImageError::NoSuchPart { image: self.image.clone(), part: kind.describe("") })?;
        self.head(section)
    }

    pub(crate) fn table(&self, section: usize) -> Result<RecordTable, ImageError> {
        let info = &self.index.sections[section];
        let (head, place) = self.head(section)?;
        let table = RecordTable::open(
            &info.name,
            place.clone(),
            self.blobs[info.blob].clone(),
            info.offset,
            info.len,
            head,
        )?;
        if table.len() as u64 != info.items {
            return Err(
                place.damaged(8, format!("it has {} records, and should have {}", table.len(), info.items))
            );
        }
        Ok(table)
    }

    pub(crate) fn page_digests(&self) -> Result<PageDigests, ImageError> {
        let Some(layer) = self.index.layer else { return Ok(PageDigests::new(Bytes::new())) };
        let (bytes, place) = self.internal(Kind::PageDigests)?;
        if bytes.len() as u64 / 32 != layer.pages || bytes.len() % 32 != 0 {
            return Err(place.damaged(0, "it does not have one digest for each page"));
        }
        Ok(PageDigests::new(bytes))
    }

    /// `number` is how the image that uses it counts.
    pub(crate) fn layer(&self, number: usize) -> Option<Layer> {
        let info = self.index.layer?;
        Some(Layer {
            place: Place::new(&self.image, format!("page layer (layer {number})")),
            blob: self.blobs[info.blob].clone(),
            digest: self.index.blobs[info.blob].digest,
            encoding: info.encoding,
            pages: info.pages,
            page_size: self.index.page_size,
        })
    }

    pub(crate) fn compressed(&self, layer: &Layer) -> Result<CompressedLayer, ImageError> {
        let (head, place) = self.internal(Kind::Chunks)?;
        if head.len() % size_of::<LayerChunkEntry>() != 0 {
            return Err(place.damaged(head.len() as u64, "the last entry is cut off"));
        }
        CompressedLayer::new(layer.clone(), head)
    }
}
