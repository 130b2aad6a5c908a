//! Small images, and their pages read back the way a restore finds them.

#![allow(dead_code)] // each test uses its part

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use quicksand_checkpoint::{
    Encoding, FeatureWord, FlattenOptions, Image, ImageError, ImageSpec, ImageWriter, PageBacking, PageRun,
    RecordTableBuilder, Versions, WorkingSet, flatten,
};
use rkyv::{Archive, Deserialize, Serialize};

pub(crate) const PAGE: usize = 4096;

/// A directory for images, in memory where that is possible: every image is synced, which disks take their time for.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// What a kernel's record looks like.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub(crate) struct Task {
    pub(crate) tid: u64,
    pub(crate) name: String,
    pub(crate) registers: Vec<u64>,
    pub(crate) parent: Option<u32>,
}

pub(crate) fn task(id: u64) -> Task {
    Task {
        tid: id,
        name: format!("task {id}"),
        registers: (0..id % 40).collect(),
        parent: (!id.is_multiple_of(3)).then_some(7),
    }
}

/// A page whose bytes are all made of `seed`; zeroes for 0.
pub(crate) fn page(seed: u64) -> Vec<u8> {
    if seed == 0 {
        return vec![0; PAGE];
    }
    let mut state = seed;
    let mut bytes = Vec::with_capacity(PAGE);
    while bytes.len() < PAGE {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

pub(crate) type Guest = BTreeMap<(u64, u64), u64>;

pub(crate) fn spec(encoding: Encoding) -> ImageSpec {
    ImageSpec {
        versions: Versions { records: 3, platform: 5 },
        features: vec![FeatureWord { name: "cpuid.1.ecx".into(), bits: 0b1011 }],
        annotations: [("function".to_string(), "hello".to_string())].into(),
        encoding,
        ..ImageSpec::default()
    }
}

/// An image with two sections, two tables and some pages.
pub(crate) fn write_small(path: &Path, encoding: Encoding) {
    let mut writer = ImageWriter::create(path, spec(encoding)).unwrap();
    writer.add_section("blob", b"some bytes").unwrap();
    writer.add_value("init", &task(41)).unwrap();
    let mut tasks = RecordTableBuilder::new("task");
    for id in (0..300).rev() {
        tasks.add(id * 2, &task(id)).unwrap();
    }
    writer.add_records(tasks).unwrap();
    writer.add_records(RecordTableBuilder::new("file")).unwrap();
    for i in 0..90 {
        writer.layer().add(1, 100 + i, &page([i, 0, i / 2, i][i as usize % 4])).unwrap();
    }
    writer.layer().add_zero(2, 5, 1000).unwrap();
    writer.layer().add(2, 5000, &[page(1), page(2), page(777)].concat()).unwrap();
    let run = PageRun { space: 1, start_page: 100, pages: 3, written: true };
    writer.set_working_set(&WorkingSet { runs: vec![run], files: vec![b"/bin/sh".to_vec()] }).unwrap();
    writer.finish().unwrap();
}

/// Reads one page as a restore would find it; `None` where the image has none.
pub(crate) fn read_page(image: &Image, space: u64, number: u64) -> Option<Vec<u8>> {
    let extent = image.extents().unwrap().find(space, number)?;
    let mut bytes = vec![0; PAGE];
    match image.backing(&extent) {
        PageBacking::Zero => {}
        PageBacking::File { fd, offset } => {
            let file = File::from(fd.try_clone_to_owned().unwrap());
            file.read_exact_at(&mut bytes, offset).unwrap();
        }
        PageBacking::Compressed { layer, page } => {
            let layer = image.compressed_layer(layer).unwrap().unwrap();
            let (chunk, offset) = layer.locate(page);
            bytes.copy_from_slice(&layer.chunk(chunk).unwrap()[offset..offset + PAGE]);
        }
    }
    Some(bytes)
}

pub(crate) fn check_guest(image: &Image, guest: &Guest) {
    for (&(space, number), &seed) in guest {
        assert!(read_page(image, space, number).unwrap() == page(seed), "page {number} of space {space}");
    }
    let pages: u64 = image.extents().unwrap().all().iter().map(|extent| extent.pages).sum();
    assert_eq!(pages, guest.len() as u64);
}

pub(crate) fn add_guest(writer: &mut ImageWriter, guest: &Guest) {
    for (&(space, number), &seed) in guest {
        writer.layer().add(space, number, &page(seed)).unwrap();
    }
}

/// Uses everything that an image offers. Errors are fine.
pub(crate) fn walk(path: &Path) -> Result<(), ImageError> {
    let image = Image::open(path)?;
    let verified = image.verify(None);
    let _ = image.inspect();
    let _ = image.working_set();
    for name in ["blob", "init"] {
        if let Ok(section) = image.section(name) {
            let _ = section.read::<Task>();
        }
    }
    for kind in image.kinds().map(str::to_string).collect::<Vec<_>>() {
        if let Ok(table) = image.records(&kind) {
            for id in table.ids() {
                let _ = table.read::<Task>(id);
                let _ = table.get::<String>(id);
            }
        }
    }
    if let Ok(extents) = image.extents() {
        for extent in extents.all() {
            let _ = extents.range(extent.space, extent.start_page, u64::MAX).count();
        }
    }
    for layer in 0..image.layers() {
        if let Ok(Some(layer)) = image.compressed_layer(layer) {
            for chunk in 0..layer.chunks().min(1000) {
                let _ = layer.chunk(chunk);
            }
        }
    }
    let _ = flatten(&image, &path.with_file_name("flat"), FlattenOptions::default(), None);
    verified.map(drop)
}
