//! Writing an image: sections and pages in any order, visible at once at the end.
//!
//! Everything is written into a temporary directory beside the image's place, made durable, and renamed. A writer that dies,
//! or fails, leaves at most a directory that the next one removes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode};

use crate::dir::{TempDir, clean, create_file, open_dir, replace_file, sync_dir};
use crate::format::{MAX_HEAD, MAX_NAME, MAX_PAGE_DIGESTS, MAX_PARENTS};
use crate::index::{BlobInfo, Index, Kind, LayerInfo, ParentRef, SectionInfo, check_name};
use crate::layer::extents::Extents;
use crate::layer::writer::Finished;
use crate::oci::{self, Config, Descriptor, Header, Manifest, RootFs};
use crate::working_set::write_manifest;
use crate::{
    ARCH_X86_64, Digest, Encoding, FeatureWord, Image, LayerWriter, OnProgress, RecordTableBuilder,
    StoredRecord, Versions, WorkingSet, WriteError,
};

/// What an image states of itself.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    pub versions: Versions,
    /// The machine, by its ELF number.
    pub arch: u32,
    /// In bytes: 4096 to 65536, a power of two.
    pub page_size: u32,
    /// The CPU features that the guest has seen and may use.
    pub features: Vec<FeatureWord>,
    /// For people and tools; `inspect` shows them.
    pub annotations: BTreeMap<String, String>,
    pub encoding: Encoding,
    /// The image whose pages need not be stored again.
    pub parent: Option<Arc<Image>>,
}

impl Default for ImageSpec {
    fn default() -> ImageSpec {
        ImageSpec {
            versions: Versions::default(),
            arch: ARCH_X86_64,
            page_size: 4096,
            features: Vec::new(),
            annotations: BTreeMap::new(),
            encoding: Encoding::Raw,
            parent: None,
        }
    }
}

/// An image that is being written. Dropping it removes what was written.
#[derive(Debug)]
pub struct ImageWriter {
    files: Files,
    layer: LayerWriter,
}

/// All of an image but its pages.
#[derive(Debug)]
struct Files {
    temp: TempDir,
    name: String,
    path: String,
    spec: ImageSpec,
    pack: Pack,
    sections: Vec<SectionInfo>,
    working_set: Option<Vec<u8>>,
}

/// While it is written, a blob has this name in the temporary directory.
const PACK: &str = "sections";
const PAGES: &str = "pages";

/// Numbers of the blobs in the index.
const CONFIG_BLOB: usize = 0;
const PACK_BLOB: usize = 1;
const LAYER_BLOB: usize = 2;

impl ImageWriter {
    /// Starts an image that will be at `path`, where nothing may be yet. The directory above must be there; what dead writers
    /// left in it is removed.
    pub fn create(path: &Path, spec: ImageSpec) -> Result<ImageWriter, WriteError> {
        let shown = path.display().to_string();
        let bad_name = |reason| WriteError::Name { path: shown.clone(), reason };
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| bad_name("it does not end in a name of UTF-8"))?.to_string();
        check_name(&name).map_err(bad_name)?;
        if !spec.page_size.is_power_of_two() || !(4096..=65536).contains(&spec.page_size) {
            return Err(WriteError::Invalid { what: format!("a page size of {}", spec.page_size) });
        }
        if let Some(parent) = &spec.parent
            && parent.page_size() != spec.page_size
        {
            return Err(WriteError::Invalid { what: "a parent of another page size".into() });
        }
        if spec.features.iter().any(|word| word.name.len() > MAX_NAME) {
            return Err(WriteError::Invalid { what: "a feature word with too long a name".into() });
        }
        let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let io = |source: io::Error| WriteError::Io { what: shown.clone(), source };
        let store = open_dir(above).map_err(io)?;
        clean(&store).map_err(io)?;
        if rustix::fs::statat(&store, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Err(WriteError::Exists { path: shown });
        }
        let temp = TempDir::create(Arc::new(store)).map_err(io)?;
        let mode = Mode::from_raw_mode(0o700);
        for dir in ["blobs", oci::BLOBS] {
            rustix::fs::mkdirat(&temp.fd, dir, mode).map_err(|errno| io(errno.into()))?;
        }
        let pack = Pack::new(create_file(&temp.fd, PACK).map_err(io)?);
        let pages = create_file(&temp.fd, PAGES).map_err(io)?;
        let layer = LayerWriter::new(pages, spec.encoding, spec.page_size, spec.parent.clone())?;
        let files = Files { temp, name, path: shown, spec, pack, sections: Vec::new(), working_set: None };
        Ok(ImageWriter { files, layer })
    }

    /// Has `on_progress` told how many bytes of guest memory have been dealt with, of `total_bytes`.
    pub fn on_progress(&mut self, total_bytes: u64, on_progress: OnProgress<'static>) {
        self.layer.on_progress(total_bytes, on_progress);
    }

    /// Where the pages go.
    pub fn layer(&mut self) -> &mut LayerWriter {
        &mut self.layer
    }

    /// Adds a section of plain bytes. Names are unique among these.
    pub fn add_section(&mut self, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
        self.files.section(Kind::Bytes, name, bytes, &[], bytes.len() as u64)
    }

    /// Adds a section that holds one archived value.
    pub fn add_value<T: StoredRecord>(&mut self, name: &str, value: &T) -> Result<(), WriteError> {
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(value).map_err(|error| WriteError::Record {
            kind: name.into(),
            id: 0,
            problem: error.to_string(),
        })?;
        self.add_section(name, &bytes)
    }

    /// Adds a table. There is one for each kind.
    pub fn add_records(&mut self, table: RecordTableBuilder) -> Result<(), WriteError> {
        let (kind, items) = (table.kind().to_string(), table.len() as u64);
        let (head, chunks) = table.finish()?;
        self.files.section(Kind::Records, &kind, &head, &chunks, items)
    }

    /// Gives the image a working set from the start.
    pub fn set_working_set(&mut self, set: &WorkingSet) -> Result<(), WriteError> {
        self.files.working_set = Some(set.encode()?);
        Ok(())
    }

    /// Makes the image visible, whole and durable. Returns its id: the digest of its index.
    pub fn finish(self) -> Result<Digest, WriteError> {
        self.files.finish(self.layer.finish()?)
    }
}

impl Files {
    fn section(
        &mut self,
        kind: Kind,
        name: &str,
        head: &[u8],
        rest: &[Vec<u8>],
        items: u64,
    ) -> Result<(), WriteError> {
        if self.sections.iter().any(|section| section.kind == kind && section.name == name) {
            return Err(WriteError::Invalid { what: format!("two of {}", kind.describe(name)) });
        }
        let most = if kind == Kind::PageDigests { MAX_PAGE_DIGESTS } else { MAX_HEAD };
        if name.len() > MAX_NAME || head.len() as u64 > most {
            return Err(WriteError::Invalid { what: format!("a {} that is too large", kind.describe(name)) });
        }
        let offset = self.pack.written;
        self.pack.write(head)?;
        for chunk in rest {
            self.pack.write(chunk)?;
        }
        self.sections.push(SectionInfo {
            kind,
            name: name.into(),
            blob: PACK_BLOB,
            offset,
            len: self.pack.written - offset,
            head: head.len() as u64,
            items,
            digest: Digest::of(head),
        });
        Ok(())
    }

    fn finish(mut self, layer: Finished) -> Result<Digest, WriteError> {
        let io = WriteError::io::<io::Error>;
        let count = layer.extents.len() as u64;
        self.section(Kind::Extents, "", &Extents::encode(&layer.extents), &[], count)?;
        if !layer.page_digests.is_empty() {
            let digests = zerocopy::IntoBytes::as_bytes(&layer.page_digests[..]);
            self.section(Kind::PageDigests, "", digests, &[], layer.page_digests.len() as u64)?;
        }
        if !layer.chunks.is_empty() {
            let entry = size_of::<crate::format::LayerChunkEntry>();
            self.section(Kind::Chunks, "", &layer.chunks, &[], (layer.chunks.len() / entry) as u64)?;
        }
        let parents = self.parents(&layer.used)?;
        let config = self.put("the config", &self.config(&parents)?)?;
        let (pack_digest, pack_size) = self.pack.finish()?;
        self.name_blob(PACK, pack_digest)?;
        let mut blobs = vec![config, BlobInfo { digest: pack_digest, size: pack_size }];
        let mut info = None;
        if layer.file.is_some() {
            self.name_blob(PAGES, layer.digest)?;
            blobs.push(BlobInfo { digest: layer.digest, size: layer.size });
            let pages = layer.page_digests.len() as u64;
            info = Some(LayerInfo { blob: LAYER_BLOB, encoding: self.spec.encoding, pages });
        } else {
            rustix::fs::unlinkat(&self.temp.fd, PAGES, AtFlags::empty())
                .map_err(WriteError::io("the page layer"))?;
        }
        let index = Index {
            versions: self.spec.versions,
            arch: self.spec.arch,
            page_size: self.spec.page_size,
            features: self.spec.features.clone(),
            parents,
            blobs,
            config_blob: CONFIG_BLOB,
            layer: info,
            sections: std::mem::take(&mut self.sections),
        };
        let bytes = index.encode();
        if bytes.len() as u64 > crate::format::MAX_INDEX {
            return Err(WriteError::Invalid { what: "too many sections for one image".into() });
        }
        let eager = self.put("the index", &bytes)?;
        self.write_oci(&index, eager)?;
        self.temp.publish(&self.name).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => {
                WriteError::Exists { path: self.path.clone() }
            }
            _ => io(&self.path)(source),
        })?;
        Ok(eager.digest)
    }

    /// The parents whose layers are used, nearest first.
    fn parents(&self, used: &[u32]) -> Result<Vec<ParentRef>, WriteError> {
        if used.len() > MAX_PARENTS {
            return Err(WriteError::TooManyParents { count: used.len(), max: MAX_PARENTS });
        }
        let all = self.spec.parent.as_ref().map(|parent| parent.as_parents()).unwrap_or_default();
        Ok(used.iter().filter_map(|&layer| all.get(layer as usize).cloned()).collect())
    }

    fn config(&self, parents: &[ParentRef]) -> Result<Vec<u8>, WriteError> {
        let spec = &self.spec;
        let config = Config::of(spec.versions, spec.arch, spec.page_size, &spec.features, parents);
        let config = Config { annotations: spec.annotations.clone(), ..config };
        let bytes = serde_json::to_vec_pretty(&config)
            .map_err(|error| WriteError::Io { what: "the config".into(), source: error.into() })?;
        if bytes.len() as u64 > crate::format::MAX_JSON {
            return Err(WriteError::Invalid { what: "annotations that are too large".into() });
        }
        Ok(bytes)
    }

    /// Writes a small blob.
    fn put(&self, what: &str, bytes: &[u8]) -> Result<BlobInfo, WriteError> {
        let digest = Digest::of(bytes);
        replace_file(&self.temp.fd, &digest.blob_path(), bytes).map_err(WriteError::io(what))?;
        Ok(BlobInfo { digest, size: bytes.len() as u64 })
    }

    /// Gives a blob its name, now that its digest is known.
    fn name_blob(&self, file: &str, digest: Digest) -> Result<(), WriteError> {
        let dir = self.temp.fd.as_fd();
        rustix::fs::renameat(dir, file, dir, digest.blob_path()).map_err(WriteError::io(file))
    }

    fn write_oci(&self, index: &Index, eager: BlobInfo) -> Result<(), WriteError> {
        let descriptor =
            |media_type: &str, blob: BlobInfo| Descriptor::new(media_type, blob.digest, blob.size);
        let mut layers =
            vec![descriptor(oci::EAGER_INDEX, eager), descriptor(oci::SECTIONS, index.blobs[PACK_BLOB])];
        if let Some(layer) = index.layer {
            let media_type = match layer.encoding {
                Encoding::Raw => oci::LAYER_RAW,
                Encoding::Zstd => oci::LAYER_ZSTD,
            };
            layers.push(descriptor(media_type, index.blobs[layer.blob]));
        }
        if let Some(bytes) = &self.working_set {
            layers.push(descriptor(oci::WORKING_SET, self.put("the working set", bytes)?));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: oci::OCI_MANIFEST.into(),
            artifact_type: Some(oci::ARTIFACT.into()),
            config: descriptor(oci::CONFIG, index.blobs[CONFIG_BLOB]),
            layers,
        };
        replace_file(&self.temp.fd, oci::LAYOUT_FILE, oci::LAYOUT.as_bytes())
            .map_err(WriteError::io(oci::LAYOUT_FILE))?;
        write_manifest(&self.temp.fd, &manifest)?;
        sync_dir(&self.temp.fd, "blobs").map_err(WriteError::io("the blobs' directory"))
    }
}

impl Config {
    /// What the config of an image with such an index says, without annotations.
    pub(crate) fn of(
        versions: Versions,
        arch: u32,
        page_size: u32,
        features: &[FeatureWord],
        parents: &[ParentRef],
    ) -> Config {
        let architecture = if arch == ARCH_X86_64 { "amd64".into() } else { format!("elf-{arch}") };
        let features = features.iter().map(|word| (word.name.clone(), format!("{:#x}", word.bits))).collect();
        Config {
            architecture,
            os: "linux".into(),
            rootfs: RootFs { kind: "layers".into(), diff_ids: Vec::new() },
            func_image: Header {
                format_version: crate::FORMAT_VERSION,
                records_version: versions.records,
                platform_version: versions.platform,
                arch,
                page_size,
                features,
                parents: parents.iter().map(|parent| parent.id).collect(),
            },
            annotations: BTreeMap::new(),
        }
    }
}

/// The blob of all sections, written from front to end.
#[derive(Debug)]
struct Pack {
    file: File,
    written: u64,
    hasher: blake3::Hasher,
}

impl Pack {
    fn new(file: File) -> Pack {
        Pack { file, written: 0, hasher: blake3::Hasher::new() }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.file.write_all_at(bytes, self.written).map_err(WriteError::io("the sections"))?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn finish(&self) -> Result<(Digest, u64), WriteError> {
        self.file.sync_all().map_err(WriteError::io("the sections"))?;
        Ok((Digest::finish(&self.hasher), self.written))
    }
}
