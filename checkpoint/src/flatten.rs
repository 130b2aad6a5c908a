//! Merging an image and its parents into one image that needs no other.

use std::path::Path;

use crate::index::Kind;
use crate::layer::extents::Source;
use crate::{Digest, Encoding, Image, ImageSpec, ImageWriter, OnProgress, RecordTableBuilder, WriteError};

/// How the new image is written.
#[derive(Clone, Copy, Debug)]
pub struct FlattenOptions {
    pub encoding: Encoding,
}

impl Default for FlattenOptions {
    fn default() -> FlattenOptions {
        FlattenOptions { encoding: Encoding::Raw }
    }
}

/// Writes what `image` is to `path`, without parents. Returns the new image's id. Memory does not depend on the size of
/// pages, only on their number (see [`crate::LayerWriter`]).
pub fn flatten(
    image: &Image,
    path: &Path,
    options: FlattenOptions,
    on_progress: Option<OnProgress<'static>>,
) -> Result<Digest, WriteError> {
    let index = &image.own.index;
    let mut writer = ImageWriter::create(
        path,
        ImageSpec {
            versions: index.versions,
            arch: index.arch,
            page_size: index.page_size,
            features: index.features.clone(),
            annotations: image.annotations()?,
            encoding: options.encoding,
            parent: None,
        },
    )?;
    let extents = image.extents()?;
    let page_size = u64::from(index.page_size);
    if let Some(on_progress) = on_progress {
        let pages = extents.all().iter().fold(0u64, |sum, extent| sum.saturating_add(extent.pages));
        writer.on_progress(pages.saturating_mul(page_size), on_progress);
    }
    for section in &index.sections {
        match section.kind {
            Kind::Bytes => writer.add_section(&section.name, image.section(&section.name)?.bytes())?,
            Kind::Records => {
                // A table of its own, so that this does not count as materialised.
                let position = index.section(Kind::Records, &section.name);
                let Some(table) = position.map(|position| image.own.table(position)).transpose()? else {
                    continue;
                };
                let mut copy = RecordTableBuilder::new(&section.name);
                for id in table.ids() {
                    copy.add_raw(id, table.raw(id)?.0)?;
                }
                writer.add_records(copy)?;
            }
            // These are written anew.
            Kind::Extents | Kind::PageDigests | Kind::Chunks => {}
        }
    }
    for extent in extents.all() {
        match extent.source {
            Source::Zero => writer.layer().add_zero(extent.space, extent.start_page, extent.pages)?,
            Source::Layer { .. } => {
                image.read_pages(extent, |page, bytes| writer.layer().add(extent.space, page, bytes))?;
            }
        }
    }
    if let Some(set) = image.working_set()? {
        writer.set_working_set(&set)?;
    }
    writer.finish()
}
