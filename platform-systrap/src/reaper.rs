//! What notices that a stub has ended, or that it should.
//!
//! A stub can end at any time: the host's out-of-memory killer, an administrator, a guest that does away with itself. Whoever
//! waits for it then waits on a futex in memory that nobody else will ever write. So one thread waits for the end of all
//! stubs (by their pidfds), and wakes who waits for them. It also reaps the stubs that nobody needs any more, so that
//! ending one takes no time elsewhere.
//!
//! The same thread sees to it that a kick is followed. A guest that is deaf to the signal (it can be, by a mask of its own) may
//! also write to the word that its Sentry thread sleeps on; so that one cannot be relied on to notice.
//!
//! A process number stays a stub's for as long as the [`Process`] exists: only then is it reaped.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::process::{Signal, WaitId, WaitIdOptions};

/// What is to be told of the end of a stub.
pub(crate) trait Mourner: Send + Sync {
    /// The stub has ended: nobody writes its shared memory any more.
    fn ended(&self);
}

/// How long a kicked thread may take to stop, twice: a machine that was suspended uses up one.
pub(crate) const PATIENCE: Duration =
    if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(5) };

/// What is called when a stub has ended that was not to.
pub(crate) type Notify = Box<dyn Fn() + Send + Sync>;

/// A guest thread that was kicked.
pub(crate) trait Kicked: Send + Sync {
    /// Whether the run of this number still goes on.
    fn still_runs(&self, run: u64) -> bool;
    /// Ends that run, and the stub with it.
    fn give_up(&self, run: u64);
}

struct Watch {
    due: Instant,
    kicked: Weak<dyn Kicked>,
    run: u64,
    second: bool,
}

/// A stub's process, a child of ours.
#[derive(Debug)]
pub(crate) struct Process {
    pid: i32,
    pidfd: Arc<OwnedFd>,
    ended: AtomicBool,
    watched: AtomicBool,
    retired: AtomicBool,
}

impl Process {
    /// Of a child, `pid`, that has not been reaped.
    pub(crate) fn new(pid: i32) -> io::Result<Process> {
        let raw = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty())?;
        Ok(Process {
            pid,
            pidfd: Arc::new(pidfd),
            ended: AtomicBool::default(),
            watched: AtomicBool::default(),
            retired: AtomicBool::default(),
        })
    }
    /// Its number, which is no other process's while this lives.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
    /// Ends it, since nobody needs it any more.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.kill();
    }
    pub(crate) fn kill(&self) {
        // ESRCH: it has ended.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // While it is watched the reaper finds that nobody is left to be told.
        self.kill();
        if self.has_ended() || !self.watched.load(Ordering::Relaxed) {
            reap(&self.pidfd);
        }
    }
}

fn reap(pidfd: &OwnedFd) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::from_bits_retain(libc::__WALL as u32);
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options) {
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => break tracing::warn!("a stub cannot be reaped: {e}"),
            Ok(_) => break,
        }
    }
}

struct Entry {
    process: Weak<Process>,
    pidfd: Arc<OwnedFd>,
    mourner: Weak<dyn Mourner>,
}

/// The thread, and what it looks after.
pub(crate) struct Reaper {
    epoll: OwnedFd,
    entries: Mutex<(u64, HashMap<u64, Entry>)>,
    /// In the order in which they are due.
    watches: Mutex<VecDeque<Watch>>,
    /// Wakes the thread when there is a first watch.
    wake: OwnedFd,
    loss: Arc<OnceLock<Notify>>,
}

/// What `wake` is called in the epoll set; entries have other numbers.
const WAKE: u64 = u64::MAX;

impl std::fmt::Debug for Reaper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reaper").field("stubs", &self.entries.lock().1.len()).finish()
    }
}

impl Reaper {
    /// Starts the thread. It runs for as long as this process does.
    pub(crate) fn start(loss: Arc<OnceLock<Notify>>) -> io::Result<Arc<Reaper>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), edge)?;
        let (entries, watches) = (Mutex::default(), Mutex::default());
        let reaper = Arc::new(Reaper { epoll, entries, watches, wake, loss });
        let of_thread = reaper.clone();
        std::thread::Builder::new()
            .name("reaper".into())
            .stack_size(256 << 10)
            .spawn(move || of_thread.run())?;
        Ok(reaper)
    }

    /// From now on the end of `process` is noticed; `mourner` is told if it lives then.
    pub(crate) fn watch(&self, process: &Arc<Process>, mourner: Weak<dyn Mourner>) -> io::Result<()> {
        let mut entries = self.entries.lock();
        let id = entries.0;
        entries.0 += 1;
        let pidfd = process.pidfd.clone();
        let entry = Entry { process: Arc::downgrade(process), pidfd: pidfd.clone(), mourner };
        entries.1.insert(id, entry);
        epoll::add(&self.epoll, &*pidfd, epoll::EventData::new_u64(id), epoll::EventFlags::IN)?;
        process.watched.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The run of this number was kicked: it ends soon, or is ended.
    pub(crate) fn expect_stop(&self, kicked: Weak<dyn Kicked>, run: u64) {
        let mut watches = self.watches.lock();
        watches.push_back(Watch { due: Instant::now() + PATIENCE, kicked, run, second: false });
        if watches.len() == 1 {
            drop(watches);
            // It can only fail when it has been written to many times over, and then there is no need.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// Looks after the watches that are due; how long until the next one is.
    fn check_watches(&self) -> Option<Duration> {
        loop {
            let mut watches = self.watches.lock();
            let wait = watches.front()?.due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                return Some(wait);
            }
            let watch = watches.pop_front()?;
            drop(watches);
            let Some(kicked) = watch.kicked.upgrade().filter(|kicked| kicked.still_runs(watch.run)) else {
                continue;
            };
            if watch.second {
                kicked.give_up(watch.run);
            } else {
                let again = Watch { due: Instant::now() + PATIENCE, second: true, ..watch };
                self.watches.lock().push_back(again);
            }
        }
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            let timeout = self.check_watches().map(|wait| Timespec {
                tv_sec: wait.as_secs() as i64,
                tv_nsec: i64::from(wait.subsec_nanos()),
            });
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, buffer, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return tracing::error!("the ends of stubs are not noticed any more: {e}"),
            }
            for event in &events {
                let Some(entry) = self.entries.lock().1.remove(&event.data.u64()) else { continue };
                if let Err(e) = epoll::delete(&self.epoll, &*entry.pidfd) {
                    tracing::warn!("epoll: {e}");
                }
                match entry.process.upgrade() {
                    Some(process) => {
                        process.ended.store(true, Ordering::Release);
                        if let Some(mourner) = entry.mourner.upgrade() {
                            mourner.ended();
                        }
                        if !process.retired.load(Ordering::Acquire)
                            && let Some(notify) = self.loss.get()
                        {
                            notify();
                        }
                    }
                    None => reap(&entry.pidfd),
                }
            }
        }
    }
}
