//! What an image is, in figures, for `image inspect` and `image ls`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::index::Kind;
use crate::layer::extents::Source;
use crate::{Digest, Encoding, Image, ImageError};

/// An image in figures. Bytes are of files as they are seen; what they take on disk may be less.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub name: String,
    pub id: Digest,
    pub format_version: u32,
    pub records_version: u32,
    pub platform_version: u32,
    /// The machine, by its ELF number.
    pub arch: u32,
    pub page_size: u32,
    pub features: Vec<FeatureSummary>,
    pub annotations: BTreeMap<String, String>,
    /// All files of the image, without its parents'.
    pub total_bytes: u64,
    /// What they take on disk.
    pub disk_bytes: u64,
    pub sections: Vec<KindSummary>,
    pub records: Vec<KindSummary>,
    pub layers: Vec<LayerSummary>,
    pub pages: PageSummary,
    /// Runs of pages and files to prefetch, where they were recorded.
    pub working_set: Option<(u64, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FeatureSummary {
    pub name: String,
    pub bits: u64,
}

/// A section of bytes (one item a byte), or a table (one item a record).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KindSummary {
    pub name: String,
    pub items: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerSummary {
    /// 0 is the image's own.
    pub layer: u32,
    /// The image that it is of.
    pub image: Digest,
    pub encoding: Encoding,
    /// Pages in it, holes included.
    pub pages: u64,
    pub bytes: u64,
    pub disk_bytes: u64,
    /// Guest pages of this image that lie in it.
    pub used_pages: u64,
}

/// The guest's pages and how they are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PageSummary {
    pub spaces: u64,
    /// Mappings that a full restore makes.
    pub extents: u64,
    pub total: u64,
    /// Not stored anywhere.
    pub zero: u64,
    pub own: u64,
    pub parents: u64,
    /// Of `own`: pages more than its layer has, because several guest pages are one.
    pub shared: u64,
}

impl Image {
    /// Reads the extents and the config; no page, and no record.
    pub fn inspect(&self) -> Result<Summary, ImageError> {
        let index = &self.own.index;
        let mut pages = PageSummary::default();
        let mut used = vec![0u64; self.layers() as usize];
        let extents = self.extents()?;
        pages.spaces = extents.spaces().count() as u64;
        pages.extents = extents.all().len() as u64;
        for extent in extents.all() {
            // Saturating: a forged image may map one page everywhere.
            pages.total = pages.total.saturating_add(extent.pages);
            let count = match extent.source {
                Source::Zero => &mut pages.zero,
                Source::Layer { layer, .. } => {
                    if let Some(used) = used.get_mut(layer as usize) {
                        *used = used.saturating_add(extent.pages);
                    }
                    if layer == 0 { &mut pages.own } else { &mut pages.parents }
                }
            };
            *count = count.saturating_add(extent.pages);
        }
        pages.shared = pages.own.saturating_sub(self.layer(0).map_or(0, |layer| layer.pages()));

        let mut layers = Vec::new();
        for (number, used_pages) in (0..self.layers()).zip(used) {
            if let Some(layer) = self.layer(number) {
                layers.push(LayerSummary {
                    layer: number,
                    image: self.part(number).id,
                    encoding: layer.encoding(),
                    pages: layer.pages(),
                    bytes: layer.stored_bytes(),
                    disk_bytes: layer.blob.allocated(&layer.place)?,
                    used_pages,
                });
            }
        }
        let mut disk_bytes = 0u64;
        for blob in &self.own.blobs {
            disk_bytes = disk_bytes.saturating_add(blob.allocated(&self.place("a blob"))?);
        }
        let manifest = &self.own.manifest;
        let listed = manifest.layers.iter().chain([&manifest.config, &self.own.manifest_descriptor]);
        let summaries = |kind| {
            let sections = index.sections.iter().filter(move |section| section.kind == kind);
            let summary = sections.map(|section| KindSummary {
                name: section.name.clone(),
                items: section.items,
                bytes: section.len,
            });
            summary.collect()
        };
        Ok(Summary {
            name: self.name.clone(),
            id: self.id(),
            format_version: crate::FORMAT_VERSION,
            records_version: index.versions.records,
            platform_version: index.versions.platform,
            arch: index.arch,
            page_size: index.page_size,
            features: index
                .features
                .iter()
                .map(|word| FeatureSummary { name: word.name.clone(), bits: word.bits })
                .collect(),
            annotations: self.annotations()?,
            total_bytes: listed.fold(0, |sum, blob| sum.saturating_add(blob.size)),
            disk_bytes,
            sections: summaries(Kind::Bytes),
            records: summaries(Kind::Records),
            layers,
            pages,
            working_set: self.working_set()?.map(|set| (set.runs.len() as u64, set.files.len() as u64)),
        })
    }
}
