//! What is written is what is read.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Guest, PAGE, Task, add_guest, check_guest, page, read_page, spec, task, write_small};
use proptest::prelude::*;
use quicksand_checkpoint::{
    ARCH_X86_64, Encoding, FeatureWord, FlattenOptions, Host, Image, ImageError, ImageSpec, ImageWriter,
    OpenOptions, PageRun, RecordTableBuilder, Source, Store, StoreError, WorkingSet, WriteError, flatten,
};

fn guest() -> impl Strategy<Value = Guest> {
    // Few pages and few contents, so that runs, gaps and identical pages are common.
    let pages = prop::collection::btree_map((0..2u64, 0..120u64), prop_oneof![Just(0), 1..200u64], 0..120);
    (pages, prop::collection::vec((0..2u64, 0..100u64, 1..60u64, 0..300u64), 0..4)).prop_map(
        |(mut pages, runs)| {
            for (space, start, len, seed) in runs {
                pages.extend((0..len).map(|i| ((space, start + i), seed + i)));
            }
            pages
        },
    )
}

fn encodings() -> impl Strategy<Value = Encoding> {
    prop_oneof![Just(Encoding::Raw), Just(Encoding::Zstd)]
}

fn write(path: &Path, spec: ImageSpec, guest: &Guest) {
    let mut writer = ImageWriter::create(path, spec).unwrap();
    add_guest(&mut writer, guest);
    writer.finish().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pages(guest in guest(), encoding in encodings()) {
        let dir = common::scratch();
        let path = dir.path().join("image");
        write(&path, spec(encoding), &guest);
        let image = Image::open(&path).unwrap();
        check_guest(&image, &guest);
        image.verify(None).unwrap();
        let distinct: std::collections::BTreeSet<_> = guest.values().filter(|&&seed| seed != 0).collect();
        if encoding == Encoding::Raw {
            // Gaps are holes; pages stored again are few.
            let disk = image.inspect().unwrap().layers.first().map_or(0, |layer| layer.disk_bytes);
            prop_assert!(disk <= (distinct.len() + distinct.len() / 32 + 1) as u64 * PAGE as u64);
        }
    }

    #[test]
    fn children(
        base in guest(), change in guest(), encoding in encodings(), other in encodings(),
    ) {
        let dir = common::scratch();
        let at = |name: &str| dir.path().join(name);
        write(&at("base"), spec(encoding), &base);
        let parent = Arc::new(Image::open(&at("base")).unwrap());
        let mut child = base.clone();
        child.extend(&change);
        let mut writer =
            ImageWriter::create(&at("child"), ImageSpec { parent: Some(parent), ..spec(other) }).unwrap();
        for (&(space, number), &seed) in &child {
            match change.contains_key(&(space, number)) {
                true => writer.layer().add(space, number, &page(seed)).unwrap(),
                false => writer.layer().add_parent(space, number, 1).unwrap(),
            }
        }
        writer.finish().unwrap();
        let image = Image::open(&at("child")).unwrap();
        check_guest(&image, &child);
        image.verify(None).unwrap();
        let summary = image.inspect().unwrap();
        let new: std::collections::BTreeSet<_> =
            change.values().filter(|seed| **seed != 0 && !base.values().any(|old| old == *seed)).collect();
        prop_assert!(summary.layers.iter().any(|layer| layer.layer == 0) || new.is_empty());

        // A grandchild in which nothing changed stores nothing.
        let mut writer = ImageWriter::create(
            &at("grandchild"), ImageSpec { parent: Some(Arc::new(image)), ..spec(other) }).unwrap();
        add_guest(&mut writer, &child);
        writer.finish().unwrap();
        let image = Image::open(&at("grandchild")).unwrap();
        prop_assert!(image.layer(0).is_none());
        check_guest(&image, &child);

        flatten(&image, &at("flat"), FlattenOptions { encoding }, None).unwrap();
        for name in ["base", "child", "grandchild"] {
            std::fs::remove_dir_all(at(name)).unwrap();
        }
        let flat = Image::open(&at("flat")).unwrap();
        prop_assert_eq!(flat.layers(), 1);
        check_guest(&flat, &child);
        flat.verify(None).unwrap();
    }

    #[test]
    fn records(ids in prop::collection::btree_set(any::<u64>(), 0..200)) {
        let dir = common::scratch();
        let path = dir.path().join("image");
        let mut writer = ImageWriter::create(&path, ImageSpec::default()).unwrap();
        let mut table = RecordTableBuilder::new("task");
        for &id in ids.iter().rev() {
            table.add(id, &task(id % 1000)).unwrap();
        }
        writer.add_records(table).unwrap();
        writer.finish().unwrap();
        let image = Image::open(&path).unwrap();
        let table = image.records("task").unwrap();
        prop_assert!(table.ids().eq(ids.iter().copied()));
        for &id in &ids {
            prop_assert_eq!(table.read::<Task>(id).unwrap(), task(id % 1000));
            prop_assert_eq!(table.get::<Task>(id).unwrap().name.as_str(), task(id % 1000).name);
            prop_assert!(ids.contains(&(id ^ 1)) || table.get::<Task>(id ^ 1).is_err());
        }
        prop_assert_eq!(table.materialised(), ids.len() as u64);
    }
}

#[test]
fn everything_of_a_small_image() {
    for encoding in [Encoding::Raw, Encoding::Zstd] {
        let dir = common::scratch();
        let path = dir.path().join("small");
        write_small(&path, encoding);
        let image = Image::open(&path).unwrap();
        assert_eq!(image.section("blob").unwrap().bytes(), b"some bytes");
        assert_eq!(image.section("init").unwrap().read::<Task>().unwrap(), task(41));
        assert!(matches!(image.section("task"), Err(ImageError::NoSuchPart { .. })));
        assert_eq!(image.stats().sum(), (0, 300));
        let tasks = image.records("task").unwrap();
        assert_eq!(tasks.read::<Task>(4).unwrap(), task(2));
        assert_eq!(tasks.read::<Task>(4).unwrap(), task(2));
        assert!(matches!(tasks.read::<Task>(5), Err(ImageError::NoSuchRecord { id: 5, .. })));
        assert_eq!(image.stats().sum(), (1, 300), "a record counts once");
        assert_eq!(image.working_set().unwrap().unwrap().files, [b"/bin/sh"]);
        assert_eq!(image.annotations().unwrap()["function"], "hello");
        assert!(read_page(&image, 2, 5002).unwrap() == page(777));
        let verified = image.verify(None).unwrap();
        assert_eq!(verified.records, 300);
        let summary = image.inspect().unwrap();
        assert_eq!(summary.pages.total, 90 + 1000 + 3);
        assert_eq!(summary.records.iter().map(|kind| kind.items).sum::<u64>(), 300);
        serde_json::to_string(&summary).unwrap();
    }
}

#[test]
fn runs_stay_long() {
    let dir = common::scratch();
    let path = dir.path().join("image");
    let mut writer = ImageWriter::create(&path, spec(Encoding::Raw)).unwrap();
    for i in 0..200 {
        // A zero page now and then, and one page that was there before.
        let seed = if i % 10 == 5 { 0 } else { i + 1 };
        writer.layer().add(1, i, &page(if i == 150 { 3 } else { seed })).unwrap();
    }
    // A forked process: the same pages elsewhere, and one that is its own.
    for i in 0..200 {
        let seed = if i % 10 == 5 { 0 } else { i + 1 };
        let seed = if i == 150 { 3 } else { seed };
        writer.layer().add(2, i, &page(if i == 100 { 9999 } else { seed })).unwrap();
    }
    writer.finish().unwrap();
    let image = Image::open(&path).unwrap();
    let extents = image.extents().unwrap();
    assert_eq!(extents.space(1).len(), 1);
    assert_eq!(extents.space(2).len(), 3);
    assert_eq!(image.layer(0).unwrap().pages(), 201);

    // A child in which one page changed, just before the one that is stored twice.
    let path = dir.path().join("child");
    let parent = Some(Arc::new(image));
    let mut writer = ImageWriter::create(&path, ImageSpec { parent, ..spec(Encoding::Raw) }).unwrap();
    for i in 0..200 {
        let seed = if i % 10 == 5 { 0 } else { i + 1 };
        let seed = if i == 150 { 3 } else { seed };
        writer.layer().add(1, i, &page(if i == 149 { 5555 } else { seed })).unwrap();
    }
    writer.finish().unwrap();
    let image = Image::open(&path).unwrap();
    assert_eq!(image.extents().unwrap().all().len(), 3);
    assert_eq!(image.layer(0).unwrap().pages(), 1);
}

#[test]
fn what_the_host_lacks_is_named() {
    let dir = common::scratch();
    let path = dir.path().join("image");
    write_small(&path, Encoding::Raw);
    let image = Image::open(&path).unwrap();
    let all = [FeatureWord { name: "cpuid.1.ecx".into(), bits: !0 }];
    let host = Host {
        arch: ARCH_X86_64,
        page_size: 4096,
        records_version: 3,
        platform_version: Some(5),
        features: &all,
    };
    image.check(&host).unwrap();
    let lesser = [FeatureWord { name: "cpuid.1.ecx".into(), bits: 0b0011 }];
    for (host, message) in [
        (Host { arch: 183, ..host.clone() }, "machine 62"),
        (Host { page_size: 16384, ..host.clone() }, "pages of 4096 bytes"),
        (Host { records_version: 4, ..host.clone() }, "records version 3"),
        (Host { platform_version: Some(6), ..host.clone() }, "platform state version 5"),
        (Host { features: &lesser, ..host.clone() }, "cpuid.1.ecx bits 0x8"),
    ] {
        let error = image.check(&host).unwrap_err().to_string();
        assert!(error.contains(message) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn working_sets_are_replaced() {
    let dir = common::scratch();
    let path = dir.path().join("image");
    write_small(&path, Encoding::Raw);
    let id = Image::open(&path).unwrap().id();
    let blobs = || std::fs::read_dir(path.join("blobs/blake3")).unwrap().count();
    let before = blobs();
    for i in 0..5 {
        let runs = vec![PageRun { space: 1, start_page: i, pages: i + 1, written: i % 2 == 1 }; 3];
        let set = WorkingSet { runs, files: vec![b"/lib/\xff".to_vec(), Vec::new()] };
        Image::open(&path).unwrap().set_working_set(&set).unwrap();
        let image = Image::open(&path).unwrap();
        assert_eq!(image.working_set().unwrap().unwrap(), set);
        assert_eq!(image.id(), id);
        image.verify(None).unwrap();
        assert_eq!(blobs(), before);
    }
}

/// Whoever opens an image while its working set is replaced sees the old or the new one.
#[test]
fn working_sets_are_replaced_under_readers() {
    let dir = common::scratch();
    let path = dir.path().join("image");
    write_small(&path, Encoding::Raw);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for i in 0..300 {
                let run = PageRun { space: 1, start_page: i, pages: i, written: false };
                let set = WorkingSet { runs: vec![run], files: Vec::new() };
                Image::open(&path).unwrap().set_working_set(&set).unwrap();
            }
        });
        while !writer.is_finished() {
            let set = Image::open(&path).unwrap().working_set().unwrap().unwrap();
            assert!(set.runs[0].pages == set.runs[0].start_page || set.files.len() == 1);
        }
    });
}

#[test]
fn a_store() {
    let dir = common::scratch();
    let store = Store::open(dir.path()).unwrap();
    write_small(&store.path_of("base").unwrap(), Encoding::Raw);
    assert!(matches!(
        ImageWriter::create(&store.path_of("base").unwrap(), ImageSpec::default()),
        Err(WriteError::Exists { .. })
    ));
    std::fs::create_dir(dir.path().join("something else")).unwrap();
    let parent = Arc::new(Image::open(&dir.path().join("base")).unwrap());
    let id = parent.id();
    let mut writer = ImageWriter::create(
        &dir.path().join("child"),
        ImageSpec { parent: Some(parent), ..spec(Encoding::Raw) },
    )
    .unwrap();
    writer.layer().add_parent_layer(9, 0, 5, 0, 1).unwrap();
    writer.finish().unwrap();

    let names: Vec<_> = store.list().unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["base", "child"]);
    assert_eq!(store.find(id).unwrap().as_deref(), Some("base"));
    assert!(matches!(store.remove("base", false), Err(StoreError::InUse { child, .. }) if child == "child"));
    assert!(matches!(store.remove("something else", false), Err(StoreError::NotAnImage { .. })));
    assert!(matches!(store.remove("../base", false), Err(StoreError::Name { .. })));
    assert!(matches!(store.remove("none", false), Err(StoreError::NotFound { .. })));

    // A parent may be called something else, and may lie elsewhere.
    std::fs::rename(dir.path().join("base"), dir.path().join("renamed")).unwrap();
    Image::open(&dir.path().join("child")).unwrap();
    let elsewhere = common::scratch();
    let moved = elsewhere.path().join("moved");
    std::fs::rename(dir.path().join("renamed"), &moved).unwrap();
    let error = Image::open(&dir.path().join("child")).unwrap_err();
    assert!(matches!(error, ImageError::MissingParent { .. }), "{error}");
    let child = OpenOptions { parents: vec![moved.clone()] }.open(&dir.path().join("child")).unwrap();
    assert!(read_page(&child, 9, 0) == read_page(&Image::open(&moved).unwrap(), 1, 103));
    let fd = |path: &Path| std::fs::File::open(path).unwrap().into();
    let child = Image::from_dirs(fd(&dir.path().join("child")), "child", vec![fd(&moved)]).unwrap();

    // What is open stays usable when it is removed.
    store.remove("child", false).unwrap();
    assert!(store.list().unwrap().is_empty());
    child.verify(None).unwrap_err(); // only `oci-layout` is read by its path
    assert!(read_page(&child, 9, 4).is_some());
}

#[test]
fn a_writer_is_told_what_it_does_wrong() {
    let dir = common::scratch();
    let create = |name: &str| ImageWriter::create(&dir.path().join(name), ImageSpec::default());
    for name in [".hidden", "x/..", &"n".repeat(300)] {
        assert!(matches!(create(name), Err(WriteError::Name { .. })), "{name}");
    }
    let mut writer = create("image").unwrap();
    writer.add_section("a", b"").unwrap();
    assert!(matches!(writer.add_section("a", b""), Err(WriteError::Invalid { .. })));
    let mut twice = RecordTableBuilder::new("task");
    twice.add(1, &task(1)).unwrap();
    twice.add(1, &task(2)).unwrap();
    assert!(matches!(writer.add_records(twice), Err(WriteError::Record { id: 1, .. })));
    let layer = writer.layer();
    assert!(matches!(layer.add(0, 0, &[1; 100]), Err(WriteError::Invalid { .. })));
    layer.add(1, 10, &page(1)).unwrap();
    assert!(matches!(layer.add(1, 10, &page(1)), Err(WriteError::Order { .. })));
    assert!(matches!(layer.add(0, 90, &page(1)), Err(WriteError::Order { .. })));
    assert!(matches!(layer.add_zero(1, u64::MAX, 2), Err(WriteError::Invalid { .. })));
    assert!(matches!(layer.add_parent(1, 20, 2), Err(WriteError::Invalid { .. })));
    drop(writer);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn progress_reaches_its_total() {
    let dir = common::scratch();
    let path = dir.path().join("image");
    let done = Arc::new(AtomicU64::new(0));
    let told = done.clone();
    let mut writer = ImageWriter::create(&path, spec(Encoding::Zstd)).unwrap();
    writer.on_progress(
        600 * PAGE as u64,
        Box::new(move |progress| told.store(progress.done_bytes, Ordering::Relaxed)),
    );
    for i in 0..600 {
        writer.layer().add(0, i, &page(i)).unwrap();
    }
    writer.finish().unwrap();
    assert_eq!(done.load(Ordering::Relaxed), 600 * PAGE as u64);
    let image = Image::open(&path).unwrap();
    let mut last = None;
    image.verify(Some(Box::new(|progress| last = Some(progress)))).unwrap();
    let last = last.unwrap();
    assert!(last.done_bytes <= last.total_bytes && last.done_bytes * 10 > last.total_bytes * 9, "{last:?}");
}

#[test]
fn zero_pages_cost_nothing() {
    let dir = common::scratch();
    let path = dir.path().join("image");
    let mut writer = ImageWriter::create(&path, spec(Encoding::Raw)).unwrap();
    writer.layer().add(1, 0, &vec![0; 400 * PAGE]).unwrap();
    writer.finish().unwrap();
    let image = Image::open(&path).unwrap();
    assert!(image.layer(0).is_none());
    assert_eq!(image.extents().unwrap().find(1, 399).unwrap().source, Source::Zero);
}
