//! A writer that is killed at any moment leaves a whole image or none, and nothing that stays.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{page, spec, write_small};
use quicksand_checkpoint::{Encoding, Image, ImageWriter, PageRun, Store, WorkingSet};

const STORE: &str = "QUICKSAND_TEST_STORE";

/// Not a test of its own: what the process that is killed does.
#[test]
fn victim() {
    let Ok(store) = std::env::var(STORE) else { return };
    let path = Path::new(&store).join("image");
    for round in 0.. {
        if !path.exists() {
            let mut writer = ImageWriter::create(&path, spec(Encoding::Raw)).unwrap();
            writer.add_section("blob", b"some bytes").unwrap();
            for i in 0..200 {
                writer.layer().add(1, i, &page(i + round)).unwrap();
            }
            writer.finish().unwrap();
        }
        let image = Image::open(&path).unwrap();
        for start_page in 0..10 {
            let run = PageRun { space: 1, start_page, pages: round, written: false };
            image.set_working_set(&WorkingSet { runs: vec![run], files: Vec::new() }).unwrap();
        }
        Store::open(Path::new(&store)).unwrap().remove("image", false).unwrap();
    }
}

#[test]
fn at_any_moment() {
    let dir = common::scratch();
    let store = Store::open(dir.path()).unwrap();
    let mut whole = 0;
    for round in 0..100 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env(STORE, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // The moment is what is random here; nothing waits for it.
        std::thread::sleep(Duration::from_micros(15_000 + round * 637 % 30_000));
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        for entry in store.list().unwrap() {
            entry.image.unwrap().verify(None).unwrap();
            whole += 1;
        }
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name == "image"), "{left:?}");
    }
    println!("{whole} of 100 kills left an image, all of them whole");
    let _ = store.remove("image", false);
    write_small(&store.path_of("image").unwrap(), Encoding::Raw);
}

/// What another writer is still at is not taken for a dead one's.
#[test]
fn two_writers() {
    let dir = common::scratch();
    let mut first = ImageWriter::create(&dir.path().join("first"), spec(Encoding::Raw)).unwrap();
    first.layer().add(1, 0, &page(1)).unwrap();
    let second = ImageWriter::create(&dir.path().join("second"), spec(Encoding::Raw)).unwrap();
    assert!(Store::open(dir.path()).unwrap().list().unwrap().is_empty());
    second.finish().unwrap();
    first.finish().unwrap();
    assert_eq!(Store::open(dir.path()).unwrap().list().unwrap().len(), 2);
}

/// A disk that is full fails the writer, and leaves nothing.
#[test]
fn a_full_disk() {
    let dir = common::scratch();
    // Instead of a full disk: files that may not grow.
    let script = "trap '' XFSZ; ulimit -f 100; exec \"$0\" --exact full_disk_victim --nocapture";
    let status = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("QUICKSAND_TEST_FULL", dir.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Not a test of its own.
#[test]
fn full_disk_victim() {
    let Ok(store) = std::env::var("QUICKSAND_TEST_FULL") else { return };
    let mut writer = ImageWriter::create(&Path::new(&store).join("image"), spec(Encoding::Raw)).unwrap();
    let error = (0..1000).find_map(|i| writer.layer().add(1, i, &page(i + 1)).err());
    let error = error.unwrap().to_string();
    assert!(error.contains("the page layer"), "{error}");
}
