//! Where a checkpoint goes. The Sentry holds no right to make files: whoever asked for the checkpoint writes the image.

use std::io;

/// Takes the parts of an image, in any order. An error ends the checkpoint.
pub trait ImageSink {
    /// A section that holds one archived value.
    fn value(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// An archived record.
    fn record(&mut self, kind: &str, id: u64, bytes: &[u8]) -> io::Result<()>;
    /// Guest pages: whole ones, of address space `space`, from page number `start_page` on.
    fn pages(&mut self, space: u64, start_page: u64, bytes: &[u8]) -> io::Result<()>;
    /// Guest pages that hold zeroes.
    fn zero_pages(&mut self, space: u64, start_page: u64, pages: u64) -> io::Result<()>;
}
