//! Errands: operations on a guest's memory that the guest's own thread runs, while the Sentry has it stopped.
//!
//! A thread that made a system call waits in its handler, mostly awake, for the answer. What the call does to the guest's memory it
//! can do best itself: nobody else has to be woken, and no other processor has the address space loaded and must be told.
//!
//! An errand lies where guest code can write, is run under the guest threads' filter, and its end and result are an
//! allegation. So there are errands only for what guest code might as well do to itself (`filter.rs`: unmap its
//! memory, put zeroes in its place, throw contents away), and the Sentry relies on their results for nothing else.
//! All other operations are the agent's.
//!
//! A thread that claims to be stopped and is not would leave its Sentry thread waiting for ever: the wait has a limit, and its end is
//! the end of the guest. So that no honest guest meets it, what may take long is no errand.

use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::agent::{Failed, Operation};
use crate::layout::{AREA_LEN, area, state};
use crate::reaper::PATIENCE;
use crate::spin::Spin;
use crate::sys::{futex_wait_for, futex_wake};
use crate::threads::{Stub, Thread};

/// The flags of the only mappings that are made by errand.
pub(crate) const ANONYMOUS: i32 =
    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
/// Whatever is in this much memory is thrown away in a small part of the limit.
const MOST_BYTES: u64 = 256 << 20;

thread_local! {
    /// The guest thread that this host thread stopped last.
    static LAST: RefCell<Weak<Runner>> = const { RefCell::new(Weak::new()) };
}

#[derive(Debug, Default)]
struct Turn {
    /// It waits for the Sentry, as far as it says.
    stopped: bool,
    spin: Spin,
}

/// A guest thread that a context has, as a runner of errands.
#[derive(Debug)]
pub(crate) struct Runner {
    stub: Arc<Stub>,
    thread: Thread,
    /// Held while it is on an errand.
    turn: Mutex<Turn>,
}

/// Whether it may be an errand. The filter has the last word.
fn is_errand(operation: &Operation) -> bool {
    let [_, len, third, flags, ..] = operation.args;
    let short = len <= MOST_BYTES;
    match operation.number as libc::c_long {
        libc::SYS_munmap => short,
        libc::SYS_mmap => short && flags == ANONYMOUS as u64,
        libc::SYS_madvise => short && [libc::MADV_DONTNEED as u64, libc::MADV_FREE as u64].contains(&third),
        libc::SYS_getrusage => true,
        _ => false,
    }
}

impl Runner {
    pub(crate) fn new(stub: Arc<Stub>, thread: Thread) -> Arc<Runner> {
        Arc::new(Runner { stub, thread, turn: Mutex::default() })
    }

    /// It is about to run guest code, or nobody's any more.
    pub(crate) fn leaves(&self) {
        self.turn.lock().stopped = false;
    }

    /// It has stopped, and this host thread works for it.
    pub(crate) fn arrives(self: &Arc<Runner>) {
        self.turn.lock().stopped = true;
        LAST.with_borrow_mut(|last| {
            if !std::ptr::eq(last.as_ptr(), Arc::as_ptr(self)) {
                *last = Arc::downgrade(self);
            }
        });
    }

    /// What the operation returned, as the guest says. `None`: nothing was done.
    fn run(&self, operation: &Operation) -> Option<Result<u64, Failed>> {
        let mut turn = self.turn.lock();
        if !turn.stopped {
            return None;
        }
        let (areas, own) = (&self.stub.areas, self.thread.index * AREA_LEN);
        let field = |at: usize| areas.u64(own + at);
        field(area::ERRAND).store(operation.number, Ordering::Relaxed);
        for (i, arg) in operation.args.into_iter().enumerate() {
            field(area::ERRAND + 8 + 8 * i).store(arg, Ordering::Relaxed);
        }
        let word = self.stub.state(self.thread.index);
        let order = Ordering::SeqCst;
        // It has ended, or has been written to: the agent knows better.
        word.compare_exchange(state::EVENT, state::ERRAND, order, Ordering::Relaxed).ok()?;
        if areas.u32(own + area::STUB_SLEEPS).load(order) != 0 {
            futex_wake(word);
        }
        let ended = self.wait(&mut turn.spin);
        Some(ended.map(|()| field(area::ERRAND_RESULT).load(Ordering::Relaxed)))
    }

    fn wait(&self, spin: &mut Spin) -> Result<(), Failed> {
        let word = self.stub.state(self.thread.index);
        let look = || match word.load(Ordering::SeqCst) {
            state::ERRAND => None,
            state::DEAD => Some(Err(Failed::Ended)),
            _ => Some(Ok(())),
        };
        let (start, limit) = (Instant::now(), Duration::from_nanos(spin.next()));
        loop {
            if let Some(result) = look() {
                spin.learn(true);
                return result;
            }
            if start.elapsed() >= limit {
                break;
            }
            std::hint::spin_loop();
        }
        spin.learn(false);
        let sleeps = self.stub.areas.u32(self.thread.index * AREA_LEN + area::SENTRY_SLEEPS);
        sleeps.store(1, Ordering::SeqCst);
        // Twice, as with kicks: a machine that was suspended uses up one.
        let mut left = 2;
        let result = loop {
            if let Some(result) = look() {
                break result;
            }
            if left == 0 {
                tracing::warn!("a guest thread does not do what it was told to: its process is killed");
                self.stub.process.kill();
                break Err(Failed::Ended);
            }
            if futex_wait_for(word, state::ERRAND, PATIENCE).timed_out() {
                left -= 1;
            }
        };
        sleeps.store(0, Ordering::Relaxed);
        result
    }
}

/// Has the guest thread of `stub` that this host thread stopped last, if it is still stopped, run the operation. `None`: there
/// is none, or it is no errand, and nothing was done.
pub(crate) fn run(stub: &Stub, operation: &Operation) -> Option<Result<u64, Failed>> {
    if !is_errand(operation) {
        return None;
    }
    let runner = LAST.with_borrow(Weak::upgrade)?;
    if !std::ptr::eq(&*runner.stub, stub) {
        return None;
    }
    runner.run(operation)
}
