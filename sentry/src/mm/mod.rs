//! Memory management: the VMA tree of an address space, and the calls of `mmap(2)` and its family.
//!
//! The Sentry owns VMAs, the platform owns pages: nothing here knows about a single page. Every change is made in the
//! VMA tree and in the platform's address space under one lock, so that the two always agree.

use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr};
use quicksand_platform::{AddressSpace, MemFault};

/// Linux's `mm_struct`. Shared by tasks that were cloned with CLONE_VM.
#[derive(Debug)]
pub struct MemoryManager {
    pub space: Arc<dyn AddressSpace>,
}

impl MemoryManager {
    pub fn read_bytes(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), MemFault> {
        self.space.read(addr, buf)
    }
    pub fn write_bytes(&self, addr: UserAddr, buf: &[u8]) -> Result<(), MemFault> {
        self.space.write(addr, buf)
    }
    /// A NUL-terminated string of at most `max` bytes, without its NUL. ENAMETOOLONG where it is longer, EFAULT where it
    /// cannot be read up to its NUL.
    pub fn read_cstring(&self, addr: UserAddr, max: usize) -> Result<Vec<u8>, Errno> {
        let mut out = Vec::new();
        let mut at = addr;
        while out.len() <= max {
            // Up to the end of the page: a string may end right before an unmapped one.
            let in_page = (quicksand_abi::PAGE_SIZE - at.0 % quicksand_abi::PAGE_SIZE) as usize;
            let mut piece = [0; 256];
            let piece = &mut piece[..in_page.min(256).min(max + 1 - out.len())];
            self.read_bytes(at, piece)?;
            if let Some(end) = piece.iter().position(|b| *b == 0) {
                out.extend_from_slice(&piece[..end]);
                return Ok(out);
            }
            out.extend_from_slice(piece);
            at = at.checked_add(piece.len() as u64).ok_or(Errno::EFAULT)?;
        }
        Err(Errno::ENAMETOOLONG)
    }
}
