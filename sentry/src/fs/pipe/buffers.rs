//! The ring of buffers of a pipe.

use std::collections::VecDeque;

use quicksand_abi::Errno;

/// What one buffer holds at most.
pub const PAGE: usize = quicksand_abi::PAGE_SIZE as usize;
/// Buffers of a new pipe (`PIPE_DEF_BUFFERS`).
const DEFAULT_SLOTS: usize = 16;

/// One buffer: at most a page of data.
#[derive(Clone, Debug, Default)]
pub struct Buffer {
    data: Vec<u8>,
    /// How much of `data` has been read.
    start: usize,
    /// Written in packet mode: a read takes from this buffer only, and drops what it does not take.
    packet: bool,
}

impl Buffer {
    pub fn bytes(&self) -> &[u8] {
        self.data.get(self.start..).unwrap_or_default()
    }
    fn len(&self) -> usize {
        self.data.len() - self.start
    }
}

/// The buffers in use, oldest first.
#[derive(Debug)]
pub struct Buffers {
    used: VecDeque<Buffer>,
    slots: usize,
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers { used: VecDeque::new(), slots: DEFAULT_SLOTS }
    }
}

impl Buffers {
    /// The ring that [`Buffers::contents`] told of.
    pub fn restored(slots: usize, buffers: Vec<(Vec<u8>, bool)>) -> Result<Buffers, Errno> {
        let fits = |(data, _): &(Vec<u8>, bool)| !data.is_empty() && data.len() <= PAGE;
        if !slots.is_power_of_two() || slots > (1 << 31) / PAGE || !buffers.iter().all(fits) {
            return Err(Errno::EINVAL);
        }
        let used = buffers.into_iter().map(|(data, packet)| Buffer { data, start: 0, packet }).collect();
        Ok(Buffers { used, slots })
    }
    /// What the buffers in use hold, and whether each is a packet.
    pub fn contents(&self) -> Vec<(Vec<u8>, bool)> {
        self.used.iter().map(|buffer| (buffer.bytes().to_vec(), buffer.packet)).collect()
    }
    pub fn slots(&self) -> usize {
        self.slots
    }
    pub fn bytes(&self) -> usize {
        self.used.iter().map(Buffer::len).sum()
    }
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
    pub fn is_full(&self) -> bool {
        self.used.len() >= self.slots
    }
    /// EBUSY where the buffers in use do not fit.
    pub fn set_slots(&mut self, slots: usize) -> Result<(), Errno> {
        if self.used.len() > slots {
            return Err(Errno::EBUSY);
        }
        self.slots = slots;
        Ok(())
    }

    /// Takes up to `max` bytes; ends after a packet, whose rest is dropped.
    pub fn take(&mut self, max: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < max
            && let Some(first) = self.used.front_mut()
        {
            let n = first.len().min(max - out.len());
            out.extend_from_slice(&first.bytes()[..n]);
            first.start += n;
            let packet = first.packet;
            if packet || first.len() == 0 {
                self.used.pop_front();
            }
            if packet {
                break;
            }
        }
        out
    }

    /// Puts bytes back before the oldest ones.
    pub fn put_back(&mut self, data: &[u8]) {
        for piece in data.rchunks(PAGE) {
            self.used.push_front(Buffer { data: piece.to_vec(), start: 0, packet: false });
        }
    }

    /// How much of a write of `len` bytes would be stored.
    pub fn room(&self, len: usize, packets: bool) -> usize {
        let merged = self.mergeable(len, packets);
        let free = self.slots.saturating_sub(self.used.len()).saturating_mul(PAGE);
        len.min(merged.saturating_add(free))
    }

    /// As `pipe_write` does: what is beyond full pages is merged into the last buffer where it fits there whole.
    fn mergeable(&self, len: usize, _packets: bool) -> usize {
        let odd = len % PAGE;
        match self.used.back() {
            Some(last) if odd > 0 && !last.packet && last.data.len() + odd <= PAGE => odd,
            _ => 0,
        }
    }

    /// Stores as much as fits, in the way of `pipe_write`.
    pub fn store(&mut self, data: &[u8], packets: bool) -> usize {
        let mut done = self.mergeable(data.len(), packets);
        if done > 0
            && let Some(last) = self.used.back_mut()
        {
            last.data.extend_from_slice(&data[..done]);
        }
        for piece in data[done..].chunks(PAGE) {
            if self.is_full() {
                break;
            }
            self.used.push_back(Buffer { data: piece.to_vec(), start: 0, packet: packets });
            done += piece.len();
        }
        done
    }

    /// Stores all of `data`, in as many buffers as it takes.
    pub fn store_over(&mut self, data: &[u8]) {
        for piece in data.chunks(PAGE) {
            self.used.push_back(Buffer { data: piece.to_vec(), start: 0, packet: false });
        }
    }

    /// Moves buffers with up to `max` bytes into `to` as far as it has free slots (`splice(2)`); returns the bytes moved.
    pub fn move_to(&mut self, to: &mut Buffers, max: usize) -> usize {
        let mut moved = 0;
        while moved < max && !to.is_full() {
            let Some(first) = self.used.front_mut() else { break };
            if first.len() <= max - moved {
                moved += first.len();
                if let Some(buffer) = self.used.pop_front() {
                    to.used.push_back(buffer);
                }
            } else {
                let n = max - moved;
                let data = first.bytes()[..n].to_vec();
                first.start += n;
                // A split packet is one no longer (`PIPE_BUF_FLAG_GIFT` and its like are dropped on the part, too).
                to.used.push_back(Buffer { data, start: 0, packet: false });
                moved += n;
            }
        }
        moved
    }

    /// Copies buffers with up to `max` bytes into `to` as far as it has free slots (`tee(2)`); returns the bytes copied.
    pub fn copy_to(&self, to: &mut Buffers, max: usize) -> usize {
        let mut copied = 0;
        for buffer in &self.used {
            if copied >= max || to.is_full() {
                break;
            }
            let n = buffer.len().min(max - copied);
            let data = buffer.bytes()[..n].to_vec();
            to.used.push_back(Buffer { data, start: 0, packet: buffer.packet && n == buffer.len() });
            copied += n;
        }
        copied
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_writes_merge_and_odd_ones_take_a_buffer_each() {
        let mut b = Buffers::default();
        for _ in 0..PAGE {
            assert_eq!(b.store(b"x", false), 1);
        }
        assert_eq!(b.used.len(), 1);
        let mut b = Buffers::default();
        let piece = vec![1; PAGE - 1];
        for _ in 0..DEFAULT_SLOTS {
            assert_eq!(b.store(&piece, false), PAGE - 1);
        }
        assert!(b.is_full());
        assert_eq!(b.room(2, false), 0);
        assert_eq!(b.room(1, false), 1); // still merges into the last one
        assert_eq!(b.store(&piece, false), 0);
    }

    #[test]
    fn a_large_write_fills_what_is_free() {
        let mut b = Buffers::default();
        assert_eq!(b.store(&vec![7; 100_000], false), 65536);
        assert_eq!(b.take(70_000).len(), 65536);
        assert!(b.is_empty());
    }

    #[test]
    fn a_read_takes_one_packet_and_drops_its_rest() {
        let mut b = Buffers::default();
        b.store(b"hello", true);
        b.store(b"world", true);
        assert_eq!(b.take(2), b"he");
        assert_eq!(b.take(100), b"world");
        assert!(b.is_empty());
    }

    #[test]
    fn what_is_put_back_is_read_again() {
        let mut b = Buffers::default();
        b.store(b"abcdef", false);
        let taken = b.take(4);
        b.put_back(&taken[1..]);
        assert_eq!(b.take(10), b"bcdef");
    }

    #[test]
    fn moving_and_copying_stop_at_the_limit() {
        let (mut a, mut b) = (Buffers::default(), Buffers::default());
        a.store(b"abcdef", false);
        assert_eq!(a.copy_to(&mut b, 3), 3);
        assert_eq!(a.move_to(&mut b, 4), 4);
        assert_eq!(b.take(100), b"abcabcd");
        assert_eq!(a.take(100), b"ef");
    }
}
