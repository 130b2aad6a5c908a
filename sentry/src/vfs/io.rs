//! Buffers between files and their readers and writers: guest memory (one or many ranges) or the kernel's own.
//!
//! A guest's ranges are allegations: each copy may fault. As in Linux, bytes copied before a fault count: a read or write
//! that moved something reports that, and EFAULT is only returned when nothing moved.

use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr};

use crate::mm::MemoryManager;

/// A guest range: address and length. The sum of lengths in one call never exceeds `MAX_RW_COUNT`.
pub type IoRange = (UserAddr, usize);

/// `MAX_RW_COUNT`: what one read or write moves at most.
pub const MAX_RW_COUNT: usize = 0x7fff_f000;

/// Runs `with` on a buffer of this thread for bytes on their way between a file and guest memory: no longer than `want`,
/// and at most 64 KiB.
pub fn with_scratch<R>(want: usize, with: impl FnOnce(&mut [u8]) -> R) -> R {
    const SMALL: usize = 1024;
    const LARGE: usize = 64 << 10;
    thread_local! {
        static BUFFER: std::cell::Cell<Vec<u8>> = const { std::cell::Cell::new(Vec::new()) };
    }
    if want <= SMALL {
        return with(&mut [0; SMALL][..want]);
    }
    // Taken out while it is used: a nested use gets a buffer of its own.
    let mut buffer = BUFFER.take();
    let want = want.min(LARGE);
    if buffer.len() < want {
        buffer.resize(want.next_power_of_two(), 0);
    }
    let result = with(&mut buffer[..want]);
    BUFFER.set(buffer);
    result
}

/// Where a read puts its bytes.
#[derive(Debug)]
pub struct IoDst<'a> {
    target: Target<'a>,
    done: usize,
    total: usize,
}

#[derive(Debug)]
enum Target<'a> {
    User { mm: Arc<MemoryManager>, ranges: Ranges },
    Kernel(&'a mut [u8]),
}

impl<'a> IoDst<'a> {
    pub fn user(mm: Arc<MemoryManager>, addr: UserAddr, len: usize) -> IoDst<'a> {
        IoDst { target: Target::User { mm, ranges: Ranges::One((addr, len)) }, done: 0, total: len }
    }
    pub fn user_vec(mm: Arc<MemoryManager>, ranges: Vec<IoRange>) -> IoDst<'a> {
        let total = ranges.iter().map(|r| r.1).sum();
        IoDst { target: Target::User { mm, ranges: Ranges::Many(ranges) }, done: 0, total }
    }
    pub fn kernel(buf: &'a mut [u8]) -> IoDst<'a> {
        let total = buf.len();
        IoDst { target: Target::Kernel(buf), done: 0, total }
    }
    /// Bytes that still fit.
    pub fn remaining(&self) -> usize {
        self.total - self.done
    }
    /// Bytes put so far.
    pub fn done(&self) -> usize {
        self.done
    }
    /// Passes over bytes that an earlier call put.
    pub fn skip(&mut self, bytes: usize) {
        self.done = self.done.saturating_add(bytes).min(self.total);
    }
    /// Fits no more than `limit` further bytes from now on.
    pub fn limit(&mut self, limit: usize) {
        self.total = self.total.min(self.done.saturating_add(limit));
    }
    /// Puts as much of `bytes` as fits and can be reached; EFAULT only where not one byte could be.
    pub fn put(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let want = bytes.len().min(self.remaining());
        if want == 0 {
            return Ok(0);
        }
        match &mut self.target {
            Target::Kernel(buf) => {
                buf[self.done..self.done + want].copy_from_slice(&bytes[..want]);
                self.done += want;
                Ok(want)
            }
            Target::User { mm, ranges } => {
                let mut put = 0;
                for (addr, len) in pieces(ranges.as_slice(), self.done, want) {
                    match mm.write_bytes(addr, &bytes[put..put + len]) {
                        Ok(()) => put += len,
                        Err(fault) => {
                            put += fault.done;
                            break;
                        }
                    }
                }
                self.done += put;
                if put == 0 { Err(Errno::EFAULT) } else { Ok(put) }
            }
        }
    }
}

/// Where a write takes its bytes from.
#[derive(Debug)]
pub struct IoSrc<'a> {
    source: Source<'a>,
    done: usize,
    total: usize,
}

#[derive(Debug)]
enum Source<'a> {
    User { mm: Arc<MemoryManager>, ranges: Ranges },
    Kernel(&'a [u8]),
}

impl<'a> IoSrc<'a> {
    pub fn user(mm: Arc<MemoryManager>, addr: UserAddr, len: usize) -> IoSrc<'a> {
        IoSrc { source: Source::User { mm, ranges: Ranges::One((addr, len)) }, done: 0, total: len }
    }
    pub fn user_vec(mm: Arc<MemoryManager>, ranges: Vec<IoRange>) -> IoSrc<'a> {
        let total = ranges.iter().map(|r| r.1).sum();
        IoSrc { source: Source::User { mm, ranges: Ranges::Many(ranges) }, done: 0, total }
    }
    pub fn kernel(buf: &'a [u8]) -> IoSrc<'a> {
        IoSrc { source: Source::Kernel(buf), done: 0, total: buf.len() }
    }
    /// Bytes left.
    pub fn remaining(&self) -> usize {
        self.total - self.done
    }
    pub fn done(&self) -> usize {
        self.done
    }
    /// Gives no more than `limit` further bytes from now on.
    pub fn limit(&mut self, limit: usize) {
        self.total = self.total.min(self.done.saturating_add(limit));
    }
    /// Steps over bytes that an earlier call has taken.
    pub fn skip(&mut self, bytes: usize) {
        self.done = self.done.saturating_add(bytes).min(self.total);
    }
    /// Steps back over the last `bytes` taken, which could not be written after all.
    pub fn unread(&mut self, bytes: usize) {
        self.done = self.done.saturating_sub(bytes);
    }
    /// Takes up to `buf.len()` bytes; EFAULT only where not one could be. 0 at the end.
    pub fn take(&mut self, buf: &mut [u8]) -> Result<usize, Errno> {
        let want = buf.len().min(self.remaining());
        if want == 0 {
            return Ok(0);
        }
        match &self.source {
            Source::Kernel(bytes) => {
                buf[..want].copy_from_slice(&bytes[self.done..self.done + want]);
                self.done += want;
                Ok(want)
            }
            Source::User { mm, ranges } => {
                let mut taken = 0;
                for (addr, len) in pieces(ranges.as_slice(), self.done, want) {
                    match mm.read_bytes(addr, &mut buf[taken..taken + len]) {
                        Ok(()) => taken += len,
                        Err(fault) => {
                            taken += fault.done;
                            break;
                        }
                    }
                }
                self.done += taken;
                if taken == 0 { Err(Errno::EFAULT) } else { Ok(taken) }
            }
        }
    }
}

/// One range is the common case, and needs no allocation.
#[derive(Debug)]
enum Ranges {
    One(IoRange),
    Many(Vec<IoRange>),
}

impl Ranges {
    fn as_slice(&self) -> &[IoRange] {
        match self {
            Ranges::One(one) => std::slice::from_ref(one),
            Ranges::Many(many) => many,
        }
    }
}

/// The pieces of `ranges` that cover `want` bytes after the first `skip`.
fn pieces(ranges: &[IoRange], mut skip: usize, mut want: usize) -> impl Iterator<Item = IoRange> {
    ranges.iter().filter_map(move |(addr, len)| {
        if skip >= *len || want == 0 {
            skip = skip.saturating_sub(*len);
            return None;
        }
        let n = (len - skip).min(want);
        let piece = (UserAddr(addr.0.wrapping_add(skip as u64)), n);
        skip = 0;
        want -= n;
        Some(piece)
    })
}
