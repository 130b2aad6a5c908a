//! Tests with images that are wrong in themselves, and whose digests are right: what an attacker would make. Nothing may
//! panic, and nothing may take more than a moment.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use zerocopy::FromBytes;

use crate::format::{LayerChunkEntry, RecordChunkEntry, RecordEntry, TableHeader};
use crate::index::{Index, Kind};
use crate::part::Part;
use crate::working_set::write_manifest;
use crate::{Digest, Encoding, Image, dir, oci};

#[path = "../tests/common/mod.rs"]
mod common;

/// A place in one of the parts, and what to write there.
#[derive(Clone, Debug)]
struct Change {
    part: u8,
    at: prop::sample::Index,
    /// Aligned, so that whole numbers are hit.
    width: usize,
    value: u64,
}

fn change() -> impl Strategy<Value = Change> {
    let edge = prop_oneof![
        Just(0),
        Just(1),
        Just(u64::MAX),
        Just(1 << 63),
        Just(1 << 31),
        Just(4096),
        0..400u64,
        any::<u64>(),
    ];
    let width = prop_oneof![Just(1usize), Just(4), Just(8)];
    (0..6u8, any::<prop::sample::Index>(), width, edge).prop_map(|(part, at, width, value)| Change {
        part,
        at,
        width,
        value,
    })
}

fn write_at(bytes: &mut [u8], change: &Change) {
    if bytes.len() >= change.width {
        let at = change.at.index(bytes.len() / change.width) * change.width;
        bytes[at..at + change.width].copy_from_slice(&change.value.to_le_bytes()[..change.width]);
    }
}

/// An image taken apart.
struct Open {
    part: Part,
    index: Index,
    pack: Vec<u8>,
    layer: Vec<u8>,
    set: Vec<u8>,
}

const PACK: usize = 1;
const LAYER: usize = 2;

impl Open {
    fn new(path: &Path) -> Open {
        let part = Part::open(dir::open_dir(path).unwrap(), "image".into()).unwrap();
        let read = |digest: Digest| fs::read(path.join(digest.blob_path())).unwrap();
        let index = part.index.clone();
        let set = read(part.manifest.layer(oci::WORKING_SET).unwrap().digest);
        Open {
            pack: read(index.blobs[PACK].digest),
            layer: read(index.blobs[LAYER].digest),
            set,
            index,
            part,
        }
    }

    /// Makes every digest right that can be, and writes the image.
    fn seal(mut self, path: &Path, index_change: Option<&Change>) {
        for section in &mut self.index.sections {
            let bytes = &mut self.pack[section.offset as usize..(section.offset + section.len) as usize];
            let (head, rest) = bytes.split_at_mut(section.head as usize);
            match section.kind {
                Kind::Records => {
                    let (header, tail) = TableHeader::ref_from_prefix(head).unwrap();
                    let records = header.records.get().saturating_mul(size_of::<RecordEntry>() as u64);
                    let start = usize::try_from(records)
                        .unwrap_or(usize::MAX)
                        .saturating_add(head.len() - tail.len());
                    for chunk in head.get_mut(start..).unwrap_or_default().chunks_exact_mut(48) {
                        let entry = RecordChunkEntry::mut_from_bytes(chunk).unwrap();
                        let from = entry.offset.get().wrapping_sub(section.head);
                        let to = from.wrapping_add(entry.len.get());
                        if let Some(bytes) = rest.get(from as usize..to as usize) {
                            entry.digest = Digest::of(bytes);
                        }
                    }
                }
                Kind::Chunks => {
                    for entry in <[LayerChunkEntry]>::mut_from_bytes(head).unwrap() {
                        let to = entry.offset.get().wrapping_add(u64::from(entry.stored.get()));
                        if let Some(bytes) = self.layer.get(entry.offset.get() as usize..to as usize) {
                            entry.digest = Digest::of(bytes);
                        }
                    }
                }
                _ => {}
            }
            section.digest = Digest::of(head);
        }
        let put = |bytes: &[u8]| {
            fs::write(path.join(Digest::of(bytes).blob_path()), bytes).unwrap();
            Digest::of(bytes)
        };
        self.index.blobs[PACK].digest = put(&self.pack);
        self.index.blobs[LAYER].digest = put(&self.layer);
        let mut index = self.index.encode();
        if let Some(change) = index_change {
            write_at(&mut index, change);
        }
        let mut manifest = self.part.manifest.clone();
        for layer in &mut manifest.layers {
            match layer.media_type.as_str() {
                oci::EAGER_INDEX => layer.digest = put(&index),
                oci::WORKING_SET => layer.digest = put(&self.set),
                oci::SECTIONS => layer.digest = self.index.blobs[PACK].digest,
                oci::CONFIG => {}
                _ => layer.digest = self.index.blobs[LAYER].digest,
            }
        }
        write_manifest(&self.part.dir, &manifest).unwrap();
    }
}

fn try_changes(path: &Path, encoding: Encoding, changes: &[Change]) {
    common::write_small(path, encoding);
    let mut open = Open::new(path);
    let mut index_change = None;
    for change in changes {
        match change.part {
            0 => index_change = Some(change),
            1 => write_at(&mut open.set, change),
            2 => write_at(&mut open.layer, change),
            3 => write_at(&mut open.pack, change),
            // The heads of sections are most of what there is to get wrong.
            number => {
                let of = |kind| number == 4 && kind == Kind::Records || number == 5 && kind != Kind::Records;
                let sections = open.index.sections.iter().filter(|section| of(section.kind));
                let sections: Vec<_> = sections.map(|section| (section.offset, section.head)).collect();
                let (offset, head) = sections[change.at.index(sections.len())];
                write_at(&mut open.pack[offset as usize..(offset + head) as usize], change);
            }
        }
    }
    open.seal(path, index_change);
    let _ = common::walk(path);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn forged_images_are_survived(
        changes in prop::collection::vec(change(), 1..4),
        encoding in prop_oneof![Just(Encoding::Raw), Just(Encoding::Zstd)],
    ) {
        let dir = common::scratch();
        try_changes(&dir.path().join("image"), encoding, &changes);
    }

    #[test]
    fn any_index_decodes_or_not(bytes in prop::collection::vec(any::<u8>(), 0..400), count in 0..5u32) {
        let mut index = bytes;
        if index.len() >= 80 {
            let len = index.len() as u64;
            index[..8].copy_from_slice(b"QSFIMAGE");
            index[8..12].copy_from_slice(&1u32.to_le_bytes());
            index[24..28].copy_from_slice(&4096u32.to_le_bytes());
            index[28..32].fill(0);
            index[32..40].copy_from_slice(&len.to_le_bytes());
            for at in (40..60).step_by(4) {
                index[at..at + 4].copy_from_slice(&count.to_le_bytes());
            }
        }
        let place = crate::error::Place::new(&"test".into(), "index");
        let _ = Index::decode(&index, &place);
    }
}

#[test]
fn sealing_alone_changes_nothing() {
    for encoding in [Encoding::Raw, Encoding::Zstd] {
        let dir = common::scratch();
        let path = dir.path().join("image");
        try_changes(&path, encoding, &[]);
        Image::open(&path).unwrap().verify(None).unwrap();
    }
}
