//! Where a layer's pages go while it is written: a raw file with holes, or compressed chunks. Both buffer some 256 KiB and hash
//! what is in the file as it is written.

use std::fs::File;
use std::os::unix::fs::FileExt;

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::Encoding;
use crate::format::{CHUNK_BYTES, LayerChunkEntry};
use crate::{Digest, WriteError};

/// The level that zstd calls its default.
const LEVEL: i32 = 3;

pub(super) struct Sink {
    file: File,
    /// Bytes in the file so far, buffered ones not included.
    written: u64,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    compressor: Option<zstd::bulk::Compressor<'static>>,
    chunks: Vec<u8>,
    zero_page: Vec<u8>,
}

/// What came of it. `chunks` is empty for a raw layer.
pub(super) struct Written {
    pub(super) file: File,
    pub(super) size: u64,
    pub(super) digest: Digest,
    pub(super) chunks: Vec<u8>,
}

impl Sink {
    pub(super) fn new(file: File, encoding: Encoding, page_size: u32) -> Result<Sink, WriteError> {
        let compressor = match encoding {
            Encoding::Raw => None,
            Encoding::Zstd => {
                Some(zstd::bulk::Compressor::new(LEVEL).map_err(WriteError::io("the page layer"))?)
            }
        };
        Ok(Sink {
            file,
            written: 0,
            hasher: blake3::Hasher::new(),
            buffer: Vec::with_capacity(CHUNK_BYTES as usize),
            compressor,
            chunks: Vec::new(),
            zero_page: vec![0; page_size as usize],
        })
    }

    pub(super) fn page(&mut self, page: &[u8]) -> Result<(), WriteError> {
        self.buffer.extend_from_slice(page);
        if self.buffer.len() >= CHUNK_BYTES as usize { self.flush() } else { Ok(()) }
    }

    /// A page of zeroes: a hole, where the layer is raw.
    pub(super) fn hole(&mut self) -> Result<(), WriteError> {
        if self.compressor.is_some() {
            let zero_page = std::mem::take(&mut self.zero_page);
            let result = self.page(&zero_page);
            self.zero_page = zero_page;
            return result;
        }
        self.flush()?;
        self.hasher.update(&self.zero_page);
        self.written += self.zero_page.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let compressed = match &mut self.compressor {
            None => None,
            Some(compressor) => {
                let compressed =
                    compressor.compress(&self.buffer).map_err(WriteError::io("the page layer"))?;
                (compressed.len() < self.buffer.len()).then_some(compressed)
            }
        };
        let stored = compressed.as_deref().unwrap_or(&self.buffer);
        self.file.write_all_at(stored, self.written).map_err(WriteError::io("the page layer"))?;
        self.hasher.update(stored);
        if self.compressor.is_some() {
            let entry = LayerChunkEntry {
                offset: U64::new(self.written),
                // No more than CHUNK_BYTES.
                stored: U32::new(u32::try_from(stored.len()).unwrap_or(u32::MAX)),
                reserved: U32::ZERO,
                digest: Digest::of(stored),
            };
            self.chunks.extend_from_slice(entry.as_bytes());
        }
        self.written += stored.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Written, WriteError> {
        self.flush()?;
        // The last pages may be holes.
        self.file.set_len(self.written).map_err(WriteError::io("the page layer"))?;
        self.file.sync_all().map_err(WriteError::io("the page layer"))?;
        let digest = Digest::finish(&self.hasher);
        Ok(Written { file: self.file, size: self.written, digest, chunks: self.chunks })
    }
}
