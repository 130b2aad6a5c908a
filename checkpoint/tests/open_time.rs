//! Opening does not depend on the image's size. `examples/open_time.rs` measures it better.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{PAGE, page, spec};
use quicksand_checkpoint::{Encoding, Image, ImageWriter, RecordTableBuilder};

fn write(path: &Path, mib: u64) {
    let mut writer = ImageWriter::create(path, spec(Encoding::Raw)).unwrap();
    let mut table = RecordTableBuilder::new("task");
    for id in 0..mib * 20 {
        table.add(id, &id).unwrap();
    }
    writer.add_records(table).unwrap();
    for start in (0..mib * 256).step_by(16) {
        writer.layer().add(1, start, &page(start + 1)).unwrap();
        writer.layer().add_zero(1, start + 1, 15).unwrap();
    }
    writer.finish().unwrap();
    let image = Image::open(path).unwrap();
    let layer = image.layer(0).unwrap();
    assert!(layer.stored_bytes() > (mib - 1) << 20 && layer.stored_bytes().is_multiple_of(PAGE as u64));
    assert_eq!(image.extents().unwrap().all().len(), 2, "one run, and what is zero after it");
}

/// The best of many: what disturbs makes it longer only.
fn best(path: &Path) -> Duration {
    let time = |_| {
        let start = Instant::now();
        drop(Image::open(path).unwrap());
        start.elapsed()
    };
    (0..300).map(time).min().unwrap()
}

#[test]
fn does_not_grow_with_the_image() {
    let dir = common::scratch();
    let (small, large) = (dir.path().join("small"), dir.path().join("large"));
    write(&small, 16);
    write(&large, 1024);
    let (small, large) = (best(&small), best(&large));
    println!("open: 16 MiB {small:?}, 1 GiB {large:?}");
    assert!(large < small * 3 + Duration::from_micros(50), "16 MiB {small:?}, 1 GiB {large:?}");
}
