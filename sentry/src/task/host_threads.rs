//! The host threads that run tasks: a few that have ended a task are kept for the next one.
//!
//! A guest that starts threads or processes one after the other would otherwise have the host map a stack, make a thread, end
//! it and unmap the stack for each, and unmapping interrupts every other processor that the Sentry runs on.
//!
//! An idle thread holds nothing of a kernel's. It ends when the kernel is gone that it worked for.

use std::io;
use std::sync::{Arc, Weak};

use parking_lot::Condvar;

use crate::sync::{Level, Mutex};

/// What a host thread is to do: to run a task to its end.
type Job = Box<dyn FnOnce() + Send>;

/// So many are kept; a thread that ends when there are enough is not.
const MOST_IDLE: usize = 4;

/// Stack of a task's host thread, in bytes of address space. The deepest paths are a path walk through symbolic links
/// into an overlay over a gofer (about 40 KiB in a debug build); what is not touched costs nothing.
const STACK_SIZE: usize = 512 << 10;

enum Next {
    Nothing,
    Job(Job),
    End,
}

/// An idle thread's ear.
struct Idle {
    next: Mutex<Next>,
    changed: Condvar,
}

impl Idle {
    fn tell(&self, next: Next) {
        *self.next.lock() = next;
        self.changed.notify_one();
    }
    fn wait(&self) -> Option<Job> {
        let mut next = self.next.lock();
        loop {
            match std::mem::replace(&mut *next, Next::Nothing) {
                Next::Job(job) => return Some(job),
                Next::End => return None,
                Next::Nothing => self.changed.wait(next.raw()),
            }
        }
    }
}

/// A kernel's host threads.
pub(crate) struct HostThreads {
    idle: Mutex<Vec<Arc<Idle>>>,
}

impl std::fmt::Debug for HostThreads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostThreads")
    }
}

impl HostThreads {
    pub(crate) fn new() -> Arc<HostThreads> {
        Arc::new(HostThreads { idle: Mutex::new(Level::Leaf, Vec::new()) })
    }

    /// Has a thread of that name do `job`.
    pub(crate) fn run(self: &Arc<HostThreads>, name: String, job: Job) -> io::Result<()> {
        let idle = self.idle.lock().pop();
        if let Some(idle) = idle {
            idle.tell(Next::Job(Box::new(move || {
                if let Ok(name) = std::ffi::CString::new(name) {
                    // For whoever looks at the host's list of threads; where it fails nothing is lost.
                    let _ = rustix::thread::set_name(&name);
                }
                job();
            })));
            return Ok(());
        }
        let all = Arc::downgrade(self);
        std::thread::Builder::new().name(name).stack_size(STACK_SIZE).spawn(move || work(&all, job))?;
        Ok(())
    }

    /// Keeps the calling thread, if more are wanted.
    fn keep(&self) -> Option<Arc<Idle>> {
        let mut all = self.idle.lock();
        if all.len() >= MOST_IDLE {
            return None;
        }
        let idle = Arc::new(Idle { next: Mutex::new(Level::Leaf, Next::Nothing), changed: Condvar::new() });
        all.push(idle.clone());
        Some(idle)
    }
}

fn work(all: &Weak<HostThreads>, mut job: Job) {
    loop {
        job();
        // Not upgraded for longer than that: the threads of a kernel that is gone are to end.
        let Some(idle) = all.upgrade().and_then(|all| all.keep()) else { return };
        let Some(next) = idle.wait() else { return };
        job = next;
    }
}

impl Drop for HostThreads {
    fn drop(&mut self) {
        let all = std::mem::take(&mut *self.idle.lock());
        for idle in all {
            idle.tell(Next::End);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::mpsc;
    use std::thread::ThreadId;

    #[test]
    fn a_thread_that_is_done_takes_the_next_job_and_ends_with_the_kernel() {
        let threads = HostThreads::new();
        let (ids, seen) = mpsc::channel::<ThreadId>();
        let mut all = HashSet::new();
        for _ in 0..20 {
            let ids = ids.clone();
            let job = Box::new(move || ids.send(std::thread::current().id()).expect("the test waits"));
            threads.run("job".into(), job).expect("a thread");
            all.insert(seen.recv().expect("an id"));
            while threads.idle.lock().is_empty() {
                std::thread::yield_now();
            }
        }
        assert_eq!(all.len(), 1);
        let idle = threads.idle.lock()[0].clone();
        drop(threads);
        // The thread lets go of it when it ends.
        while Arc::strong_count(&idle) > 1 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn no_more_are_kept_than_are_wanted() {
        let threads = HostThreads::new();
        let (go, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let (done, ended) = mpsc::channel::<()>();
        for _ in 0..3 * MOST_IDLE {
            let (wait, done) = (wait.clone(), done.clone());
            let job = Box::new(move || {
                let _ = wait.lock().map(|wait| wait.recv());
                drop(done);
            });
            threads.run("job".into(), job).expect("a thread");
        }
        drop((go, done));
        assert!(ended.recv().is_err());
        while threads.idle.lock().len() < MOST_IDLE {
            std::thread::yield_now();
        }
        assert_eq!(threads.idle.lock().len(), MOST_IDLE);
    }
}
