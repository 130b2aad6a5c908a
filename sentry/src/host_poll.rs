//! Readiness of host descriptors: one `epoll(7)` over all of them, whose thread notifies wait queues.
//!
//! A file that stands on a host descriptor (a host socket, standard input, a host tty) owns a [`WaitQueue`] as every file
//! does, and calls [`register`] the first time that somebody asks for it. From then on each change of the descriptor's
//! readiness notifies the queue. Interest is edge-triggered on the host's side: waiters look at the state after they have
//! registered on the queue, so an edge before that is not needed and one after it is not lost.
//!
//! What the host has to report is fetched and told under one lock ([`drain`]), by the thread or by whoever wants to be sure
//! that everything up to now has been told: an `epoll` instance before it says that nothing is ready.
//!
//! Invariants:
//! - The thread starts with the first registration. It touches nothing but the table below and wait queues.
//! - The table is enough to build everything anew: [`quiesce`] ends the thread, [`resume`] makes a new host epoll (a forked
//!   process must not share its parent's) and starts another thread.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use quicksand_abi::Errno;
use rustix::event::{EventfdFlags, PollFd, PollFlags, epoll, eventfd};

use crate::sync::{Events, Level, Mutex, WaitQueue};

/// The token of the descriptor that tells the thread to end.
const STOP: u64 = 0;

static STATE: Mutex<Option<State>> = Mutex::new(Level::Leaf, None);

struct State {
    entries: HashMap<u64, Entry>,
    next_token: u64,
    reactor: Option<Reactor>,
}

struct Entry {
    fd: Arc<OwnedFd>,
    events: Events,
    queue: Arc<WaitQueue>,
}

struct Reactor {
    host: Arc<HostEpoll>,
    stop: OwnedFd,
    thread: JoinHandle<()>,
}

struct HostEpoll {
    fd: OwnedFd,
    /// Held from when events are fetched from the host until their queues have been told.
    telling: Mutex<()>,
}

/// Interest in a host descriptor; dropping it ends the interest. Holds the descriptor open.
#[derive(Debug)]
pub struct HostInterest {
    token: u64,
}

/// Notifies `queue` whenever one of `events` (ERR and HUP included) becomes true of `fd`. A descriptor can be registered
/// once at a time (EEXIST). EPERM where the host cannot poll it (a regular file): it is always ready. What is ready already
/// is no change: the queue is told of it, if at all, before this returns.
pub fn register(fd: Arc<OwnedFd>, events: Events, queue: Arc<WaitQueue>) -> Result<HostInterest, Errno> {
    let mut guard = STATE.lock();
    let state =
        guard.get_or_insert_with(|| State { entries: HashMap::new(), next_token: STOP + 1, reactor: None });
    if state.reactor.is_none() {
        state.reactor = Some(Reactor::start()?);
    }
    let token = state.next_token;
    if let Some(reactor) = &state.reactor {
        add(&reactor.host.fd, &fd, token, events)?;
    }
    state.next_token += 1;
    state.entries.insert(token, Entry { fd, events, queue });
    drop(guard);
    drain();
    Ok(HostInterest { token })
}

impl Drop for HostInterest {
    fn drop(&mut self) {
        let entry = {
            let mut guard = STATE.lock();
            let Some(state) = guard.as_mut() else { return };
            let entry = state.entries.remove(&self.token);
            if let (Some(entry), Some(reactor)) = (&entry, &state.reactor) {
                // Fails only where the entry is gone already.
                let _ = epoll::delete(&reactor.host.fd, entry.fd.as_fd());
            }
            entry
        };
        drop(entry); // outside the lock: it may be the last reference to the descriptor or the queue
    }
}

/// Ends the thread. Readiness is not reported until [`resume`].
pub fn quiesce() {
    let reactor = STATE.lock().as_mut().and_then(|state| state.reactor.take());
    if let Some(reactor) = reactor {
        // An eventfd that nobody else writes takes a 1.
        let _ = rustix::io::write(&reactor.stop, &1u64.to_ne_bytes());
        let _ = reactor.thread.join();
    }
}

/// Builds the host epoll anew from the table and starts a thread, where anything is registered. What became ready in the
/// meantime is reported.
pub fn resume() -> Result<(), Errno> {
    let mut guard = STATE.lock();
    let Some(state) = guard.as_mut() else { return Ok(()) };
    if state.reactor.is_some() || state.entries.is_empty() {
        return Ok(());
    }
    let reactor = Reactor::start()?;
    for (token, entry) in &state.entries {
        // A fresh edge-triggered interest reports what is ready now.
        add(&reactor.host.fd, &entry.fd, *token, entry.events)?;
    }
    state.reactor = Some(reactor);
    Ok(())
}

fn add(epoll: &OwnedFd, fd: &OwnedFd, token: u64, events: Events) -> Result<(), Errno> {
    let flags = epoll::EventFlags::from_bits_retain(events.bits()) | epoll::EventFlags::ET;
    epoll::add(epoll, fd, epoll::EventData::new_u64(token), flags).map_err(host_errno)
}

fn host_errno(e: rustix::io::Errno) -> Errno {
    Errno::from_raw(e.raw_os_error())
}

impl Reactor {
    fn start() -> Result<Reactor, Errno> {
        let fd = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(host_errno)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(host_errno)?;
        epoll::add(&fd, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN).map_err(host_errno)?;
        let host = Arc::new(HostEpoll { fd, telling: Mutex::new(Level::HostEvents, ()) });
        let polled = host.clone();
        let thread = std::thread::Builder::new()
            .name("host-poll".into())
            .spawn(move || run(&polled))
            .map_err(Errno::from)?;
        Ok(Reactor { host, stop, thread })
    }
}

fn run(host: &HostEpoll) {
    loop {
        // The events themselves are fetched under the lock: see `drain`.
        let mut fds = [PollFd::new(&host.fd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => {
                tracing::error!("waiting for host descriptors failed: {e}");
                return;
            }
        }
        let stop = tell(host);
        crate::sync::run_deferred();
        if stop {
            return;
        }
    }
}

/// Tells the queues of all that the host has to report by now.
pub fn drain() {
    let host = STATE.lock().as_ref().and_then(|s| s.reactor.as_ref()).map(|r| r.host.clone());
    if let Some(host) = host {
        tell(&host);
    }
}

/// Fetches the host's events and tells their queues. True where the thread is to end.
fn tell(host: &HostEpoll) -> bool {
    const EVENT: epoll::Event =
        epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
    const NOW: rustix::time::Timespec = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut events = [EVENT; 64];
    let mut stop = false;
    let _telling = host.telling.lock();
    loop {
        let count = epoll::wait(&host.fd, &mut events[..], Some(&NOW)).unwrap_or(0);
        for event in &events[..count] {
            let (flags, data) = (event.flags, event.data);
            let token = data.u64();
            if token == STOP {
                stop = true;
                continue;
            }
            let queue = STATE.lock().as_ref().and_then(|s| s.entries.get(&token)).map(|e| e.queue.clone());
            if let Some(queue) = queue {
                let bits = flags.bits();
                queue.notify(Events::from_bits_truncate(bits) | companions(bits));
            }
        }
        if count < events.len() {
            return stop;
        }
    }
}

/// The bits that Linux reports together with IN and OUT, for those who wait for them only.
fn companions(bits: u32) -> Events {
    let mut events = Events::empty();
    if bits & Events::IN.bits() != 0 {
        events |= Events::READABLE;
    }
    if bits & Events::OUT.bits() != 0 {
        events |= Events::WRITABLE;
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Waiter;
    use std::time::{Duration, Instant};

    #[test]
    fn readiness_reaches_the_queue_before_and_after_a_restart() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let queue = WaitQueue::new();
        let waiter = Arc::new(Waiter::default());
        let _registration = queue.register(Events::IN, waiter.clone());
        let soon = || Some(Instant::now() + Duration::from_secs(10));

        let interest = register(Arc::new(read), Events::IN, queue.clone()).unwrap();
        rustix::io::write(&write, b"x").unwrap();
        assert!(waiter.park(soon()));

        quiesce();
        rustix::io::write(&write, b"y").unwrap();
        assert!(!waiter.take());
        resume().unwrap();
        assert!(waiter.park(soon()));
        drop(interest);

        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(register(Arc::new(file.into()), Events::IN, queue).unwrap_err(), Errno::EPERM);
    }
}
