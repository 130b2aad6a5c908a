//! What notices that a stub has ended.
//!
//! A stub can end at any time: the host's out-of-memory killer, an administrator, a guest that does away with itself. Whoever
//! waits for it then waits on a futex in memory that nobody else will ever write. So one thread waits for the end of all
//! stubs (by their pidfds), and wakes who waits for them. It also reaps the stubs that nobody needs any more, so that
//! ending one takes no time elsewhere.
//!
//! A process number stays a stub's for as long as the [`Process`] exists: only then is it reaped.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::event::epoll;
use rustix::process::{Signal, WaitId, WaitIdOptions};

/// What is to be told of the end of a stub.
pub(crate) trait Mourner: Send + Sync {
    /// The stub has ended: nobody writes its shared memory any more.
    fn ended(&self);
}

/// A stub's process, a child of ours.
#[derive(Debug)]
pub(crate) struct Process {
    pid: i32,
    pidfd: Arc<OwnedFd>,
    ended: AtomicBool,
    watched: AtomicBool,
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
        })
    }
    /// Its number, which is no other process's while this lives.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
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
}

impl std::fmt::Debug for Reaper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reaper").field("stubs", &self.entries.lock().1.len()).finish()
    }
}

impl Reaper {
    /// Starts the thread. It runs for as long as this process does.
    pub(crate) fn start() -> io::Result<Arc<Reaper>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let reaper = Arc::new(Reaper { epoll, entries: Mutex::default() });
        let of_thread = reaper.clone();
        std::thread::Builder::new()
            .name("reaper".into())
            .stack_size(64 << 10)
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

    fn run(&self) {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
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
                    }
                    None => reap(&entry.pidfd),
                }
            }
        }
    }
}
