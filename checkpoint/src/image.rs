//! An image that is open.
//!
//! Opening reads `index.json`, the manifest and the eager index, of this image and of the parents whose layers it uses,
//! and opens every blob. No path is resolved after that, so that an image opened before a `chroot` or by another process
//! goes on working, and one that is removed meanwhile does too.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::dir::{Bytes, names, open_dir, open_subdir};
use crate::error::{Axis, Place};
use crate::format::{MAX_JSON, MAX_WORKING_SET};
use crate::index::{Kind, ParentRef};
use crate::layer::PageDigests;
use crate::layer::reader::PageReader;
use crate::oci::{self, Config};
use crate::part::{Part, parse, read_manifest};
use crate::records::{access, deserialize};
use crate::{
    CompressedLayer, Digest, Encoding, Extent, Extents, FeatureWord, ImageError, Layer, Record, RecordTable,
    Source, Versions, WorkingSet,
};

/// Where the parents of an image may be, besides beside it.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    pub parents: Vec<PathBuf>,
}

/// What an image must suit.
#[derive(Clone, Debug)]
pub struct Host<'a> {
    /// The machine, by its ELF number.
    pub arch: u32,
    /// In bytes.
    pub page_size: u32,
    pub records_version: u32,
    /// `None` where the platform's own state will not be used.
    pub platform_version: Option<u32>,
    pub features: &'a [FeatureWord],
}

/// Where the pages of an extent come from.
#[derive(Clone, Copy, Debug)]
pub enum PageBacking<'a> {
    /// Nowhere: anonymous memory.
    Zero,
    /// A file, from this byte on, to be mapped `MAP_PRIVATE`.
    File { fd: BorrowedFd<'a>, offset: u64 },
    /// A compressed layer ([`Image::compressed_layer`]), from this page on.
    Compressed { layer: u32, page: u64 },
}

/// How many records of one kind were asked for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KindStats {
    pub kind: String,
    pub materialised: u64,
    pub total: u64,
}

/// What has been materialised of an image so far.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    pub kinds: Vec<KindStats>,
}

impl Stats {
    /// Materialised and total records of all kinds.
    pub fn sum(&self) -> (u64, u64) {
        let sum = |of: fn(&KindStats) -> u64| {
            self.kinds.iter().fold(0u64, |sum, kind| sum.saturating_add(of(kind)))
        };
        (sum(|kind| kind.materialised), sum(|kind| kind.total))
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kind in &self.kinds {
            writeln!(f, "{:<20} {:>8} of {:>8}", kind.kind, kind.materialised, kind.total)?;
        }
        let (materialised, total) = self.sum();
        write!(f, "{:<20} {materialised:>8} of {total:>8}", "all")
    }
}

/// A section of plain bytes, in private memory and checked.
pub struct Section {
    bytes: Bytes,
    place: Place,
}

impl Section {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The one value that the section holds (see [`crate::ImageWriter::add_value`]), as it lies there.
    pub fn get<T: Record>(&self) -> Result<&T::Archived, ImageError> {
        access::<T::Archived>(&self.bytes, &self.place, 0)
    }

    /// The one value that the section holds.
    pub fn read<T: Record>(&self) -> Result<T, ImageError> {
        deserialize(self.get::<T>()?, &self.place, 0)
    }
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Section({}, {} bytes)", self.place.part, self.bytes.len())
    }
}

/// An open image.
pub struct Image {
    /// Its directory's name, or empty.
    pub(crate) name: String,
    pub(crate) own: Part,
    pub(crate) parents: Vec<Part>,
    layers: Vec<Option<Layer>>,
    compressed: Vec<OnceLock<Arc<CompressedLayer>>>,
    tables: Vec<OnceLock<Arc<RecordTable>>>,
    extents: OnceLock<Arc<Extents>>,
}

impl Image {
    /// Opens the image in the directory `path`. Its parents lie beside it.
    pub fn open(path: &Path) -> Result<Image, ImageError> {
        OpenOptions::default().open(path)
    }

    /// Opens an image by its directory's descriptor, and those of its parents in any order. `name` is for messages.
    pub fn from_dirs(dir: OwnedFd, name: &str, parents: Vec<OwnedFd>) -> Result<Image, ImageError> {
        let own = Part::open(dir, name.into())?;
        let mut given = Vec::with_capacity(parents.len());
        for (i, dir) in parents.into_iter().enumerate() {
            given.push(Part::open(dir, format!("{name}, parent {i}").into())?);
        }
        Image::assemble(own, String::new(), |wanted| {
            Ok(given.iter().position(|part| part.id == wanted.id).map(|found| given.swap_remove(found)))
        })
    }

    fn assemble(
        own: Part,
        name: String,
        mut find: impl FnMut(&ParentRef) -> Result<Option<Part>, ImageError>,
    ) -> Result<Image, ImageError> {
        let mut parents = Vec::with_capacity(own.index.parents.len());
        for wanted in &own.index.parents {
            let parent = find(wanted)?.ok_or_else(|| ImageError::MissingParent {
                image: own.image.clone(),
                name: wanted.name.clone(),
                id: wanted.id,
            })?;
            if parent.index.page_size != own.index.page_size {
                let place = Place::new(&own.image, "index");
                return Err(place.damaged(24, "its parent's pages are of another size"));
            }
            parents.push(parent);
        }
        let layers =
            std::iter::once(&own).chain(&parents).enumerate().map(|(i, part)| part.layer(i)).collect();
        let tables = own.index.sections.iter().map(|_| OnceLock::new()).collect();
        let compressed = (0..=parents.len()).map(|_| OnceLock::new()).collect();
        Ok(Image { name, own, parents, layers, compressed, tables, extents: OnceLock::new() })
    }

    /// All descriptors that it holds. A process that keeps these needs no other right to use the image.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let parts = std::iter::once(&self.own).chain(&self.parents);
        parts
            .flat_map(|part| {
                let blobs = part.blobs.iter().map(|blob| blob.file.as_fd());
                let set = part.working_set.iter().map(|(blob, _)| blob.file.as_fd());
                std::iter::once(part.dir.as_fd()).chain(blobs).chain(set)
            })
            .collect()
    }

    /// The digest of the index, which covers all of the image but its working set.
    pub fn id(&self) -> Digest {
        self.own.id
    }

    pub fn versions(&self) -> Versions {
        self.own.index.versions
    }

    /// The machine, by its ELF number.
    pub fn arch(&self) -> u32 {
        self.own.index.arch
    }

    /// In bytes.
    pub fn page_size(&self) -> u32 {
        self.own.index.page_size
    }

    /// The CPU features that the image needs.
    pub fn features(&self) -> &[FeatureWord] {
        &self.own.index.features
    }

    /// The features that the image needs and `host` does not list: under their names, the missing bits.
    pub fn missing_features(&self, host: &[FeatureWord]) -> Vec<FeatureWord> {
        let missing = |word: &FeatureWord| {
            let there =
                host.iter().filter(|other| other.name == word.name).fold(0, |all, other| all | other.bits);
            FeatureWord { name: word.name.clone(), bits: word.bits & !there }
        };
        self.features().iter().map(missing).filter(|word| word.bits != 0).collect()
    }

    /// Whether the image can be restored here; the error says which of its needs is not met.
    pub fn check(&self, host: &Host<'_>) -> Result<(), ImageError> {
        let (index, image) = (&self.own.index, &self.own.image);
        if index.arch != host.arch {
            return Err(ImageError::Arch { image: image.clone(), found: index.arch, host: host.arch });
        }
        if index.page_size != host.page_size {
            let (found, host) = (index.page_size, host.page_size);
            return Err(ImageError::PageSize { image: image.clone(), found, host });
        }
        let version = |axis, found, supported| match found == supported {
            true => Ok(()),
            false => Err(ImageError::Version { image: image.clone(), axis, found, supported }),
        };
        version(Axis::Records, index.versions.records, host.records_version)?;
        if let Some(platform) = host.platform_version {
            version(Axis::Platform, index.versions.platform, platform)?;
        }
        let missing = self.missing_features(host.features);
        if !missing.is_empty() {
            let missing: Vec<String> =
                missing.iter().map(|word| format!("{} bits {:#x}", word.name, word.bits)).collect();
            return Err(ImageError::Features { image: image.clone(), missing: missing.join(", ") });
        }
        Ok(())
    }

    pub fn annotations(&self) -> Result<BTreeMap<String, String>, ImageError> {
        Ok(self.config()?.annotations)
    }

    pub(crate) fn config(&self) -> Result<Config, ImageError> {
        let place = self.place("config");
        let number = self.own.index.config_blob;
        let bytes = self.own.blobs[number].read_all(MAX_JSON, &place)?;
        if Digest::of(&bytes) != self.own.index.blobs[number].digest {
            return Err(place.damaged(0, "its digest is wrong"));
        }
        parse(&bytes, &place)
    }

    /// Reads and checks a section of plain bytes.
    pub fn section(&self, name: &str) -> Result<Section, ImageError> {
        let (bytes, place) = self.own.head(self.position(Kind::Bytes, name)?)?;
        Ok(Section { bytes, place })
    }

    pub fn has_section(&self, name: &str) -> bool {
        self.own.index.section(Kind::Bytes, name).is_some()
    }

    /// The records of one kind. Opened once; further calls give the same table.
    pub fn records(&self, kind: &str) -> Result<Arc<RecordTable>, ImageError> {
        let position = self.position(Kind::Records, kind)?;
        if let Some(table) = self.tables[position].get() {
            return Ok(table.clone());
        }
        let table = Arc::new(self.own.table(position)?);
        Ok(self.tables[position].get_or_init(|| table).clone())
    }

    /// The kinds of records there are.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        let tables = self.own.index.sections.iter().filter(|section| section.kind == Kind::Records);
        tables.map(|section| section.name.as_str())
    }

    /// How many records were asked for, by kind. Tables that nobody opened count too.
    pub fn stats(&self) -> Stats {
        let tables = self.own.index.sections.iter().zip(&self.tables);
        let kinds =
            tables.filter(|(section, _)| section.kind == Kind::Records).map(|(section, table)| KindStats {
                kind: section.name.clone(),
                materialised: table.get().map_or(0, |table| table.materialised()),
                total: section.items,
            });
        Stats { kinds: kinds.collect() }
    }

    fn position(&self, kind: Kind, name: &str) -> Result<usize, ImageError> {
        self.own.index.section(kind, name).ok_or_else(|| ImageError::NoSuchPart {
            image: self.own.image.clone(),
            part: kind.describe(name),
        })
    }

    /// Which guest page lies where. Read once.
    pub fn extents(&self) -> Result<Arc<Extents>, ImageError> {
        if let Some(extents) = self.extents.get() {
            return Ok(extents.clone());
        }
        let (bytes, place) = self.own.internal(Kind::Extents)?;
        let pages: Vec<u64> =
            self.layers.iter().map(|layer| layer.as_ref().map_or(0, |layer| layer.pages)).collect();
        let extents = Arc::new(Extents::decode(&bytes, &pages, &place)?);
        Ok(self.extents.get_or_init(|| extents).clone())
    }

    /// How many layers the image may refer to: its own, which may be missing, and one for each parent.
    pub fn layers(&self) -> u32 {
        // One and at most MAX_PARENTS.
        self.layers.len() as u32
    }

    /// Layer `number`; 0 is the image's own. `None` where there is none.
    pub fn layer(&self, number: u32) -> Option<&Layer> {
        self.layers.get(number as usize)?.as_ref()
    }

    /// Layer `number` by its chunks; `None` where it is not compressed. Opened once; further calls give the same.
    pub fn compressed_layer(&self, number: u32) -> Result<Option<Arc<CompressedLayer>>, ImageError> {
        let Some(layer) = self.layer(number).filter(|layer| layer.encoding == Encoding::Zstd) else {
            return Ok(None);
        };
        let cell = &self.compressed[number as usize];
        if let Some(compressed) = cell.get() {
            return Ok(Some(compressed.clone()));
        }
        let compressed = Arc::new(self.part(number).compressed(layer)?);
        Ok(Some(cell.get_or_init(|| compressed).clone()))
    }

    /// What stands behind the first page of an extent, and its other pages after it.
    pub fn backing(&self, extent: &Extent) -> PageBacking<'_> {
        let Source::Layer { layer, page } = extent.source else { return PageBacking::Zero };
        match self.layer(layer).and_then(|layer| layer.map_source(page)) {
            Some((fd, offset)) => PageBacking::File { fd, offset },
            None => PageBacking::Compressed { layer, page },
        }
    }

    /// Calls `each` with guest page numbers and the bytes of whole pages from there on, for what is not mapped. Raw pages
    /// are not checked; zero ones are left out.
    pub fn read_pages<E: From<ImageError>>(
        &self,
        extent: &Extent,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Source::Layer { layer, page } = extent.source else { return Ok(()) };
        let Some(reader) = self.reader(layer)? else { return Ok(()) };
        reader.read(page, extent.pages, |at, bytes| each(extent.start_page + (at - page), bytes))
    }

    pub fn has_working_set(&self) -> bool {
        self.own.working_set.is_some()
    }

    /// What to prefetch, where it has been recorded.
    pub fn working_set(&self) -> Result<Option<WorkingSet>, ImageError> {
        let Some((blob, digest)) = &self.own.working_set else { return Ok(None) };
        let place = self.place("working set");
        let bytes = blob.read_all(MAX_WORKING_SET, &place)?;
        if Digest::of(&bytes) != *digest {
            return Err(place.damaged(0, "its digest is wrong"));
        }
        WorkingSet::decode(&bytes, &place).map(Some)
    }

    pub(crate) fn page_digests(&self, layer: u32) -> Result<PageDigests, ImageError> {
        self.part(layer).page_digests()
    }

    pub(crate) fn reader(&self, number: u32) -> Result<Option<PageReader>, ImageError> {
        let raw = || self.layer(number).map(|layer| PageReader::Raw(layer.clone()));
        Ok(self.compressed_layer(number)?.map(PageReader::Compressed).or_else(raw))
    }

    /// Of the image or the parent that layer `number`, which exists, is of.
    pub(crate) fn part(&self, number: u32) -> &Part {
        let parent = (number as usize).checked_sub(1).and_then(|parent| self.parents.get(parent));
        parent.unwrap_or(&self.own)
    }

    pub(crate) fn dir(&self) -> &OwnedFd {
        &self.own.dir
    }

    pub(crate) fn place(&self, part: &str) -> Place {
        Place::new(&self.own.image, part)
    }

    /// The parents of a child of this image, by layer as this image counts.
    pub(crate) fn as_parents(&self) -> Vec<ParentRef> {
        let own = ParentRef { id: self.own.id, name: self.name.clone() };
        std::iter::once(own).chain(self.own.index.parents.iter().cloned()).collect()
    }
}

/// An image is shared by all threads of its user.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Image>();
    shared::<RecordTable>();
    shared::<CompressedLayer>();
};

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({}, {})", self.own.image, self.own.id)
    }
}

impl OpenOptions {
    pub fn open(&self, path: &Path) -> Result<Image, ImageError> {
        let shown: Arc<str> = path.display().to_string().into();
        let place = Place::new(&shown, "the image's directory");
        let own = Part::open(open_dir(path).map_err(|error| place.io(error))?, shown.clone())?;
        // A name that is none of an image's stays out of children.
        let real = std::fs::canonicalize(path).map_err(|error| place.io(error))?;
        let name = real.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = crate::index::check_name(name).map_or("", |()| name).to_string();
        if own.index.parents.is_empty() {
            return Image::assemble(own, name, |_| Ok(None));
        }
        let mut given = Vec::new();
        for path in &self.parents {
            let shown: Arc<str> = path.display().to_string().into();
            let dir = open_dir(path).map_err(|error| Place::new(&shown, "its directory").io(error))?;
            given.push(Part::open(dir, shown)?);
        }
        let store = real.parent().and_then(|store| open_dir(store).ok());
        Image::assemble(own, name, |wanted| {
            if let Some(found) = given.iter().position(|part| part.id == wanted.id) {
                return Ok(Some(given.swap_remove(found)));
            }
            let Some(store) = &store else { return Ok(None) };
            let named = open_beside(store, &wanted.name, wanted.id)?;
            if named.is_some() {
                return Ok(named);
            }
            // It was renamed, perhaps.
            for name in names(store).unwrap_or_default() {
                if let found @ Some(_) = open_beside(store, &name, wanted.id)? {
                    return Ok(found);
                }
            }
            Ok(None)
        })
    }
}

/// Opens the image called `name` if it is the one wanted. That it is damaged is an error; that it is something else is not.
fn open_beside(store: &OwnedFd, name: &str, wanted: Digest) -> Result<Option<Part>, ImageError> {
    if crate::index::check_name(name).is_err() {
        return Ok(None);
    }
    let Ok(dir) = open_subdir(store.as_fd(), name) else { return Ok(None) };
    let image: Arc<str> = name.into();
    match read_manifest(&dir, &image) {
        Ok((manifest, _)) if manifest.layer(oci::EAGER_INDEX).is_some_and(|index| index.digest == wanted) => {
            Part::open(dir, image).map(Some)
        }
        _ => Ok(None),
    }
}
