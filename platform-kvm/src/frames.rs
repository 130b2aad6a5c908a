//! Who shares a frame.
//!
//! Only a guest `fork` shares frames between address spaces. A frame has an entry here while more than one page table
//! names it; a sandbox that never forks has no entries and pays one relaxed load.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::window::PAGE;

/// Frames per block of counters.
const BLOCK: u64 = 512;

#[derive(Debug)]
struct Block {
    /// References beyond the first.
    extra: Box<[u32; BLOCK as usize]>,
    shared: u32,
}

/// Reference counts of shared frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    any: AtomicBool,
    blocks: Mutex<HashMap<u64, Block>>,
}

fn position(gpa: u64) -> (u64, usize) {
    (gpa / PAGE / BLOCK, (gpa / PAGE % BLOCK) as usize)
}

impl Frames {
    /// One more page table names each of these frames.
    pub(crate) fn share(&self, frames: impl Iterator<Item = u64>) {
        let mut blocks = self.blocks.lock();
        // Set under the lock and before any entry: whoever shares a page table's entries holds that space's
        // lock, so nobody asks about these frames before we are done.
        self.any.store(true, Ordering::Release);
        let mut frames = frames.peekable();
        while let Some(&first) = frames.peek() {
            let key = position(first).0;
            let block = blocks
                .entry(key)
                .or_insert_with(|| Block { extra: Box::new([0; BLOCK as usize]), shared: 0 });
            while let Some(gpa) = frames.next_if(|gpa| position(*gpa).0 == key) {
                let extra = &mut block.extra[position(gpa).1];
                block.shared += u32::from(*extra == 0);
                *extra += 1;
            }
        }
    }

    /// Whether more than one page table names the frame.
    pub(crate) fn is_shared(&self, gpa: u64) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let (key, index) = position(gpa);
        self.blocks.lock().get(&key).is_some_and(|block| block.extra[index] > 0)
    }

    /// A page table no longer names the frame. `true` when it was the last one to do so.
    pub(crate) fn release(&self, gpa: u64) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return true;
        }
        let (key, index) = position(gpa);
        let mut blocks = self.blocks.lock();
        let Some(block) = blocks.get_mut(&key) else { return true };
        let extra = &mut block.extra[index];
        if *extra == 0 {
            return true;
        }
        *extra -= 1;
        block.shared -= u32::from(*extra == 0);
        if block.shared == 0 {
            blocks.remove(&key);
            if blocks.is_empty() {
                self.any.store(false, Ordering::Release);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_what_is_shared() {
        let frames = Frames::default();
        assert!(frames.release(PAGE));
        frames.share([PAGE, 2 * PAGE, 600 * PAGE].into_iter());
        frames.share([PAGE].into_iter());
        assert!(frames.is_shared(PAGE) && frames.is_shared(600 * PAGE) && !frames.is_shared(3 * PAGE));
        assert!(!frames.release(PAGE));
        assert!(!frames.release(PAGE));
        assert!(frames.release(PAGE));
        assert!(!frames.release(2 * PAGE) && !frames.release(600 * PAGE));
        assert!(!frames.any.load(Ordering::Relaxed));
    }
}
