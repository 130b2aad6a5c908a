//! Reading pages one after the other, from raw and compressed layers alike: for `verify`, `flatten` and tests. Restoring does
//! not come here.

use std::sync::Arc;

use super::Layer;
use super::compressed::CompressedLayer;
use crate::ImageError;
use crate::dir::Bytes;
use crate::format::CHUNK_BYTES;

/// A layer that pages can be copied out of.
#[derive(Debug)]
pub(crate) enum PageReader {
    Raw(Layer),
    Compressed(Arc<CompressedLayer>),
}

impl PageReader {
    pub(crate) fn layer(&self) -> &Layer {
        match self {
            PageReader::Raw(layer) => layer,
            PageReader::Compressed(compressed) => compressed.layer(),
        }
    }

    /// Calls `each` with the bytes of up to `pages` pages from `page` on, in pieces of whole pages.
    pub(crate) fn read<E: From<ImageError>>(
        &self,
        mut page: u64,
        mut pages: u64,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let page_size = u64::from(self.layer().page_size);
        let most = u64::from(CHUNK_BYTES) / page_size;
        while pages > 0 {
            let count = match self {
                PageReader::Raw(layer) => {
                    let count = pages.min(most);
                    let bytes: Bytes = layer.blob.read(page * page_size, count * page_size, &layer.place)?;
                    each(page, &bytes)?;
                    count
                }
                PageReader::Compressed(compressed) => {
                    let (number, offset) = compressed.locate(page);
                    let chunk = compressed.chunk(number)?;
                    let rest = chunk.get(offset..).unwrap_or_default();
                    let count = pages.min(rest.len() as u64 / page_size);
                    if count == 0 {
                        return Err(compressed
                            .layer()
                            .place
                            .damaged(0, format!("it has no page {page}"))
                            .into());
                    }
                    each(page, &rest[..(count * page_size) as usize])?;
                    count
                }
            };
            page += count;
            pages -= count;
        }
        Ok(())
    }
}
