//! Answers to system calls that the Sentry leaves with a guest thread: a patched call that finds one never leaves the stub.
//!
//! They belong to a context, and lie in the area of the thread that it has. Each is one word, so that the thread sees the
//! old one or the new one, or none; none is what it sees as soon as `set` has returned that says so.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use quicksand_platform::Answers;

use crate::layout::{ANSWERED, AREA_LEN, area};
use crate::threads::Stub;

const VALID: u64 = 1 << 63;

/// Of one context.
#[derive(Debug, Default)]
pub(crate) struct ContextAnswers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    words: [u64; ANSWERED.len()],
    thread: Option<(Arc<Stub>, usize)>,
}

/// The index that the image has for it begins at 1.
fn word(stub: &Stub, thread: usize, i: usize) -> &std::sync::atomic::AtomicU64 {
    stub.areas.u64(thread * AREA_LEN + area::ANSWERS + 8 * (i + 1))
}

impl ContextAnswers {
    /// The context has this thread from now on, or none. Threads change hands: nothing is left behind.
    pub(crate) fn move_to(&self, thread: Option<(Arc<Stub>, usize)>) {
        let mut state = self.0.lock();
        if let Some((stub, thread)) = &state.thread {
            (0..ANSWERED.len()).for_each(|i| word(stub, *thread, i).store(0, Ordering::SeqCst));
        }
        state.thread = thread;
        if let Some((stub, thread)) = &state.thread {
            for (i, value) in state.words.iter().enumerate() {
                word(stub, *thread, i).store(*value, Ordering::SeqCst);
            }
        }
    }
}

impl Answers for ContextAnswers {
    fn set(&self, number: u64, value: Option<u64>) {
        let Some(i) = ANSWERED.iter().position(|n| *n as u64 == number) else { return };
        let value = match value {
            Some(value) if value < VALID => value | VALID,
            _ => 0,
        };
        let mut state = self.0.lock();
        state.words[i] = value;
        if let Some((stub, thread)) = &state.thread {
            word(stub, *thread, i).store(value, Ordering::SeqCst);
        }
    }
}
