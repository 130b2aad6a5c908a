//! How long opening an image takes, whatever its size: `cargo run --release -p quicksand-checkpoint --example open_time`.
//!
//! Writes images of 16 MiB and 1 GiB of guest memory (most of it zero, so that it is the index that grows and not the disk),
//! and shows what the steps of a restore cost on this crate's side: opening, the extents, one record.

use std::path::Path;
use std::time::{Duration, Instant};

use quicksand_checkpoint::{Image, ImageSpec, ImageWriter, RecordTableBuilder};

const PAGE: usize = 4096;

fn write(path: &Path, bytes: u64, mappings: u64) {
    let mut writer = ImageWriter::create(path, ImageSpec::default()).expect("create");
    let pages = bytes / PAGE as u64;
    let mut tasks = RecordTableBuilder::new("task");
    for id in 0..pages / 64 {
        tasks.add(id, &format!("record {id}")).expect("record");
    }
    writer.add_records(tasks).expect("records");
    let mut buffer = vec![0; 16 * PAGE];
    for start in (0..pages).step_by(16) {
        // One page in 16 holds something, and space is left out now and then, which ends a run.
        buffer[..8].copy_from_slice(&(start + 1).to_le_bytes());
        let gap = start / (pages / mappings);
        writer.layer().add(1, start + gap, &buffer).expect("pages");
    }
    writer.finish().expect("finish");
}

fn median(mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..501)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    println!("{:>10} {:>9} {:>12} {:>12} {:>12}", "memory", "mappings", "open", "+ extents", "+ a record");
    for (bytes, mappings) in [(16 << 20, 100), (1 << 30, 100), (1 << 30, 1000)] {
        let path = dir.path().join(format!("{bytes}-{mappings}"));
        write(&path, bytes, mappings);
        let open = || Image::open(&path).expect("open");
        let opened = median(|| drop(open()));
        let extents = median(|| drop(open().extents().expect("extents")));
        let record = median(|| {
            let table = open().records("task").expect("table");
            assert_eq!(table.get::<String>(17).expect("record").as_str(), "record 17");
        });
        let count = open().extents().expect("extents").all().len();
        println!("{:>6} MiB {count:>9} {opened:>12.1?} {extents:>12.1?} {record:>12.1?}", bytes >> 20);
    }
}
