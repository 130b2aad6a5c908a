//! What `splice` and its relatives do to pipes.

use quicksand_abi::Errno;

use super::super::pipe::Pipe;
use crate::sync::Events;

/// Moves (or with `copy` duplicates) up to `max` bytes from one pipe to another. 0 where the source is empty and has no
/// writers; EAGAIN where it must wait: `Full` says for which of the two.
pub(super) fn pass(from: &Pipe, to: &Pipe, max: usize, copy: bool) -> Result<usize, Stuck> {
    let (passed, was_full) = {
        // Two pipes at once: ordered by address, so that two splices in opposite directions cannot deadlock.
        let from_first = std::ptr::from_ref(from) < std::ptr::from_ref(to);
        let (first, second) = if from_first { (from, to) } else { (to, from) };
        let mut first = first.state.lock();
        let mut second = second.state.lock_second();
        let (source, sink) =
            if from_first { (&mut *first, &mut *second) } else { (&mut *second, &mut *first) };
        if sink.readers == 0 {
            return Err(Stuck::Errno(Errno::EPIPE));
        }
        if source.buffers.is_empty() {
            return if source.writers == 0 { Ok(0) } else { Err(Stuck::Empty) };
        }
        if sink.buffers.is_full() {
            return Err(Stuck::Full);
        }
        let was_full = source.buffers.is_full();
        let passed = if copy {
            source.buffers.copy_to(&mut sink.buffers, max)
        } else {
            source.buffers.move_to(&mut sink.buffers, max)
        };
        (passed, was_full)
    };
    if passed > 0 {
        to.queue.notify(Events::READABLE);
        if was_full && !copy {
            from.queue.notify(Events::WRITABLE);
        }
    }
    Ok(passed)
}

/// Why nothing passed.
pub(super) enum Stuck {
    Errno(Errno),
    /// The source has nothing yet.
    Empty,
    /// The sink has no room.
    Full,
}
