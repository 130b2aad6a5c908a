//! Checking every byte of an image: each digest, each order, each reference. The types of records are the caller's, and are
//! checked when they are used.

use crate::error::Place;
use crate::index::Kind;
use crate::layer::reader::PageReader;
use crate::oci::{self, Config};
use crate::{Digest, Encoding, Image, ImageError, OnProgress, Progress};

/// What was found intact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub sections: u64,
    pub records: u64,
    /// Pages in layers, the parents' included.
    pub pages: u64,
    pub bytes: u64,
}

impl Image {
    /// Reads everything and checks it; the first damage found is the error. The layers of parents are checked too,
    /// their sections are not: they are no part of this image.
    pub fn verify(&self, on_progress: Option<OnProgress<'_>>) -> Result<Verified, ImageError> {
        let own_blobs = self.own.index.blobs.iter().map(|blob| blob.size);
        let layers =
            (1..self.layers()).filter_map(|number| self.layer(number)).map(|layer| layer.stored_bytes());
        let total_bytes = own_blobs.chain(layers).fold(0, u64::saturating_add);
        let mut run = Run {
            image: self,
            on_progress,
            progress: Progress { done_bytes: 0, total_bytes },
            found: Verified::default(),
        };
        run.documents()?;
        run.sections()?;
        run.blobs()?;
        self.extents()?;
        self.working_set()?;
        for number in 0..self.layers() {
            run.layer(number)?;
        }
        run.found.bytes = run.progress.done_bytes;
        Ok(run.found)
    }
}

struct Run<'a> {
    image: &'a Image,
    on_progress: Option<OnProgress<'a>>,
    progress: Progress,
    found: Verified,
}

impl Run<'_> {
    fn tell(&mut self, bytes: u64) {
        self.progress.done_bytes = self.progress.done_bytes.saturating_add(bytes);
        if let Some(on_progress) = &mut self.on_progress {
            on_progress(self.progress);
        }
    }

    /// The manifest and the index were checked when the image was opened.
    fn documents(&self) -> Result<(), ImageError> {
        let (own, manifest) = (&self.image.own, &self.image.own.manifest);
        let place = self.image.place(oci::LAYOUT_FILE);
        let layout = crate::dir::Blob::open(self.image.dir(), oci::LAYOUT_FILE, &place)?;
        let layout = layout.read_all(crate::format::MAX_JSON, &place)?;
        let layout: serde_json::Value = crate::part::parse(&layout, &place)?;
        if layout.get("imageLayoutVersion").and_then(|version| version.as_str()) != Some("1.0.0") {
            return Err(place.damaged(0, "it does not state layout version 1.0.0"));
        }
        let index = &own.index;
        let config = self.image.config()?;
        let stated = Config::of(index.versions, index.arch, index.page_size, &index.features, &index.parents);
        if config.func_image != stated.func_image {
            return Err(self.image.place("config").damaged(0, "it says other things than the index"));
        }
        let place = self.image.place("manifest");
        for (number, blob) in index.blobs.iter().enumerate() {
            let listed = if number == index.config_blob {
                vec![&manifest.config]
            } else {
                manifest.layers.iter().collect()
            };
            if !listed.iter().any(|listed| listed.digest == blob.digest && listed.size == blob.size) {
                return Err(place.damaged(0, format!("it does not list {}", blob.digest)));
            }
        }
        Ok(())
    }

    fn sections(&mut self) -> Result<(), ImageError> {
        let own = &self.image.own;
        for (number, section) in own.index.sections.iter().enumerate() {
            match section.kind {
                Kind::Records => {
                    let table = own.table(number)?;
                    table.verify()?;
                    self.found.records += table.len() as u64;
                }
                _ => drop(own.head(number)?),
            }
            self.found.sections += 1;
        }
        Ok(())
    }

    /// The digests of whole files, which tools that know OCI images only go by. The layer's is checked with its pages.
    fn blobs(&mut self) -> Result<(), ImageError> {
        let own = &self.image.own;
        for (number, info) in own.index.blobs.iter().enumerate() {
            let compressed = own.index.layer.filter(|layer| layer.blob == number).map(|layer| layer.encoding);
            if compressed == Some(Encoding::Raw) {
                continue;
            }
            let place = self.image.place(&format!("blob {number}"));
            let mut hasher = blake3::Hasher::new();
            let mut offset = 0;
            while offset < info.size {
                let len = (info.size - offset).min(1 << 18);
                hasher.update(&own.blobs[number].read(offset, len, &place)?);
                offset += len;
                // A compressed layer's bytes are counted with its pages.
                self.tell(if compressed.is_some() { 0 } else { len });
            }
            check_whole(&hasher, info.digest, &place)?;
        }
        Ok(())
    }

    fn layer(&mut self, number: u32) -> Result<(), ImageError> {
        let Some(reader) = self.image.reader(number)? else { return Ok(()) };
        let digests = self.image.page_digests(number)?;
        let layer = reader.layer().clone();
        let page_size = layer.page_size as usize;
        let whole = matches!(reader, PageReader::Raw(_)).then(blake3::Hasher::new);
        let mut whole = whole.filter(|_| number == 0);
        let mut told = 0;
        reader.read(0, layer.pages(), |start, bytes| {
            if let Some(whole) = &mut whole {
                whole.update(bytes);
            }
            for (page, bytes) in (start..).zip(bytes.chunks_exact(page_size)) {
                if digests.get(page) != Some(Digest::of(bytes)) {
                    let offset = page.saturating_mul(page_size as u64);
                    return Err(layer.place.damaged(offset, format!("page {page} has a wrong digest")));
                }
            }
            // In a compressed layer, the share of its bytes that the pages are.
            let done = start + (bytes.len() / page_size) as u64;
            let share = u128::from(layer.stored_bytes()) * u128::from(done) / u128::from(layer.pages());
            let share = u64::try_from(share).unwrap_or(u64::MAX);
            self.tell(share - told);
            told = share;
            Ok(())
        })?;
        self.found.pages += layer.pages();
        if let (Some(whole), Some(info)) = (whole, self.image.own.index.layer) {
            check_whole(&whole, self.image.own.index.blobs[info.blob].digest, &layer.place)?;
        }
        Ok(())
    }
}

fn check_whole(hasher: &blake3::Hasher, digest: Digest, place: &Place) -> Result<(), ImageError> {
    match Digest::finish(hasher) == digest {
        true => Ok(()),
        false => Err(place.damaged(0, format!("the digest of the whole is not {digest}"))),
    }
}
