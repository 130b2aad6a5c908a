//! Any byte of an image may be wrong, and its files may be anything.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{page, spec, walk, write_small};
use proptest::prelude::*;
use quicksand_checkpoint::{Encoding, Image, ImageError, ImageSpec, ImageWriter, Store};

fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.join("index.json"), path.join("oci-layout")];
    found.extend(fs::read_dir(path.join("blobs/blake3")).unwrap().map(|entry| entry.unwrap().path()));
    found.sort();
    found
}

#[derive(Clone, Debug)]
enum Damage {
    Flip(Vec<(prop::sample::Index, u8)>),
    Cut(prop::sample::Index),
    Extend(Vec<u8>),
    Overwrite(prop::sample::Index, Vec<u8>),
    Remove,
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => prop::collection::vec((at(), 1..=255u8), 1..4).prop_map(Damage::Flip),
        1 => at().prop_map(Damage::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..100).prop_map(Damage::Extend),
        2 => (at(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Damage::Overwrite(at, bytes)),
        1 => Just(Damage::Remove),
    ]
}

fn apply(damage: &Damage, file: &Path) -> bool {
    let old = fs::read(file).unwrap();
    let mut bytes = old.clone();
    match damage {
        Damage::Flip(flips) => {
            for (at, mask) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= mask;
            }
        }
        Damage::Cut(at) => bytes.truncate(at.index(old.len())),
        Damage::Extend(more) => bytes.extend_from_slice(more),
        Damage::Overwrite(at, with) => {
            let at = at.index(bytes.len());
            let len = with.len().min(bytes.len() - at);
            bytes[at..at + len].copy_from_slice(&with[..len]);
        }
        Damage::Remove => {
            fs::remove_file(file).unwrap();
            return true;
        }
    }
    fs::write(file, &bytes).unwrap();
    bytes != old
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_found(
        which in any::<prop::sample::Index>(), damage in damage(),
        encoding in prop_oneof![Just(Encoding::Raw), Just(Encoding::Zstd)],
    ) {
        let dir = common::scratch();
        let path = dir.path().join("image");
        write_small(&path, encoding);
        let files = files(&path);
        let file = &files[which.index(files.len())];
        let changed = apply(&damage, file);
        let result = walk(&path);
        // JSON has room for changes that mean nothing; everything else is covered by a digest.
        let json = file.extension().is_some() || file.ends_with("oci-layout");
        prop_assert!(result.is_err() || !changed || json, "{damage:?} in {file:?} was not noticed");
    }
}

#[test]
fn an_error_names_what_and_where() {
    let dir = common::scratch();
    let path = dir.path().join("image");
    write_small(&path, Encoding::Raw);
    let layer = files(&path).into_iter().max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    bytes[5 * 4096 + 17] ^= 1;
    fs::write(&layer, bytes).unwrap();
    let error = Image::open(&path).unwrap().verify(None).unwrap_err().to_string();
    assert!(error.contains("page layer") && error.contains(&format!("offset {}", 5 * 4096)), "{error}");
}

#[test]
fn symbolic_links_and_fifos_are_refused() {
    let dir = common::scratch();
    let path = dir.path().join("image");
    write_small(&path, Encoding::Raw);
    let outside = dir.path().join("outside");
    for file in files(&path) {
        fs::rename(&file, &outside).unwrap();
        for target in [outside.clone(), PathBuf::from("/dev/zero"), file.clone()] {
            symlink(target, &file).unwrap();
            walk(&path).unwrap_err();
            fs::remove_file(&file).unwrap();
        }
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        walk(&path).unwrap_err();
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        walk(&path).unwrap_err();
        fs::remove_dir(&file).unwrap();
        fs::rename(&outside, &file).unwrap();
    }
    let (blobs, moved) = (path.join("blobs"), dir.path().join("moved"));
    fs::rename(&blobs, &moved).unwrap();
    symlink(&moved, &blobs).unwrap();
    walk(&path).unwrap_err();
    fs::remove_file(&blobs).unwrap();
    fs::rename(&moved, &blobs).unwrap();
    walk(&path).unwrap();
}

#[test]
fn documents_that_are_strange() {
    let dir = common::scratch();
    let path = dir.path().join("image");
    write_small(&path, Encoding::Raw);
    let index = path.join("index.json");
    let good = fs::read_to_string(&index).unwrap();
    let digest = good.split("blake3:").nth(1).unwrap()[..64].to_string();
    for text in [
        String::new(),
        "[".repeat(100_000),
        "{\"manifests\":".repeat(50_000),
        good.replace(&digest, "../../../../../../etc/passwd"),
        good.replace(&digest, &digest.to_uppercase()),
        good.replace("blake3:", "sha256:"),
        good.replace("\"size\":", "\"size\":18446744073709551615,\"was\":"),
        "{\"schemaVersion\":2,\"manifests\":[]}".into(),
    ] {
        fs::write(&index, &text).unwrap();
        let error = walk(&path).unwrap_err().to_string();
        assert!(error.len() < 1000, "{error}");
    }
    // A huge one is not read at all.
    fs::File::create(&index).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(walk(&path), Err(ImageError::Damaged { .. })));
    fs::write(&index, good).unwrap();
    walk(&path).unwrap();
}

#[test]
fn a_parent_that_is_another_image_is_not_taken() {
    let dir = common::scratch();
    let at = |name: &str| dir.path().join(name);
    write_small(&at("base"), Encoding::Raw);
    let parent = Arc::new(Image::open(&at("base")).unwrap());
    let mut writer =
        ImageWriter::create(&at("child"), ImageSpec { parent: Some(parent), ..spec(Encoding::Raw) }).unwrap();
    writer.layer().add_parent(1, 0, 1000).unwrap();
    writer.layer().add(3, 0, &page(12345)).unwrap();
    writer.finish().unwrap();
    fs::remove_dir_all(at("base")).unwrap();
    write_small(&at("other"), Encoding::Zstd);
    fs::rename(at("other"), at("base")).unwrap();
    let error = Image::open(&at("child")).unwrap_err();
    assert!(matches!(&error, ImageError::MissingParent { name, .. } if name == "base"), "{error}");
    // It is listed all the same, with its error; and so is one without an index, which is still removed as an image.
    let store = Store::open(dir.path()).unwrap();
    let fine = || store.list().unwrap().iter().map(|entry| entry.image.is_ok()).collect::<Vec<_>>();
    assert_eq!(fine(), [true, false]);
    fs::remove_file(at("base").join("index.json")).unwrap();
    assert_eq!(fine(), [false, false]);
    store.remove("base", false).unwrap();
    assert_eq!(fine(), [false]);
}
