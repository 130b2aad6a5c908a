//! A stub as the Sentry sees it: its process, its agent, and its guest threads.
//!
//! Guest threads are made when first needed and go back to the stub's pool when their context has done with them; an idle
//! one waits in its signal handler. Nothing proves that it does: a guest can make one of its threads claim so and run on,
//! as it can have a thread run in the first place. It cannot leave its process.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use quicksand_platform::PlatformError;

use crate::agent::{self, Failed, Line, Operation};
use crate::fpu::Cpu;
use crate::frame::Frame;
use crate::layout::{AREA_LEN, FIRST_THREAD_AREA, MAX_AREAS, area, state};
use crate::reaper::{Mourner, Process};
use crate::sys::{SharedMemory, futex_wake};
use crate::{NAME, host_error};

/// A guest thread of a stub.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread {
    /// Its area's number.
    pub(crate) index: usize,
    /// Its thread id, as the stub says.
    pub(crate) tid: i32,
    /// Whether it has stopped in a patched call: its registers are in its area, and there is no frame.
    pub(crate) in_call: bool,
}

#[derive(Debug)]
struct Pool {
    idle: Vec<Thread>,
    /// The thread that the stub was born with is still to be had.
    first: bool,
    /// The first area that was never used.
    next: usize,
    ended: bool,
}

#[derive(Debug)]
pub(crate) struct Stub {
    pub(crate) process: Arc<Process>,
    line: Line,
    pub(crate) areas: SharedMemory,
    pool: Mutex<Pool>,
}

pub(crate) fn ended() -> PlatformError {
    host_error("running guest code", std::io::Error::other("its process was killed"))
}

impl Stub {
    /// `first`: it makes a thread in the first area as soon as it is born.
    pub(crate) fn new(process: Arc<Process>, line: Line, areas: SharedMemory, first: bool) -> Stub {
        let next = FIRST_THREAD_AREA + usize::from(first);
        let pool = Pool { idle: Vec::new(), first, next, ended: false };
        Stub { process, line, areas, pool: Mutex::new(pool) }
    }

    /// See [`Line::order`]; without files.
    pub(crate) fn order(&self, operations: &[Operation], results: &mut [u64]) -> Result<(), Failed> {
        self.line.order(&self.areas, &[], operations, results)
    }

    /// With files.
    pub(crate) fn order_with(
        &self,
        files: &[std::os::fd::BorrowedFd<'_>],
        operations: &[Operation],
    ) -> Result<(), Failed> {
        self.line.order(&self.areas, files, operations, &mut [])
    }

    /// A copy, with its agent and one guest thread. That is made while the Sentry does something else.
    pub(crate) fn fork(&self, cpu: &Cpu) -> Result<Stub, PlatformError> {
        let (line, areas, dowry) = Line::new().map_err(|e| host_error("making a stub's pages", e))?;
        areas.u32(FIRST_THREAD_AREA * AREA_LEN + area::STATE).store(state::EVENT, Ordering::SeqCst);
        Frame::prepare(&areas, FIRST_THREAD_AREA, cpu);
        line.order_first(&agent::thread(FIRST_THREAD_AREA));
        match self.line.order(&self.areas, &dowry.files(), &[agent::fork()], &mut []) {
            Ok(()) => {}
            Err(Failed::Errno(libc::EAGAIN | libc::ENOMEM)) => {
                return Err(PlatformError::Exhausted { platform: NAME, what: "processes" });
            }
            Err(Failed::Errno(errno)) => {
                return Err(host_error("forking a stub", std::io::Error::from_raw_os_error(errno)));
            }
            Err(Failed::Ended) => return Err(ended()),
        }
        drop(dowry);
        let pid = line.await_birth().map_err(|e| host_error("waiting for a stub", e))?;
        let process = Process::new(pid).map_err(|e| host_error("pidfd_open", e))?;
        Ok(Stub::new(Arc::new(process), line, areas, true))
    }

    /// A thread that waits for the Sentry, with a frame. `true`: it is new.
    pub(crate) fn take_thread(&self, cpu: &Cpu) -> Result<(Thread, bool), PlatformError> {
        let (index, first) = {
            let mut pool = self.pool.lock();
            if pool.ended {
                return Err(ended());
            }
            if let Some(thread) = pool.idle.pop() {
                return Ok((thread, false));
            }
            if std::mem::take(&mut pool.first) {
                (FIRST_THREAD_AREA, true)
            } else if pool.next < MAX_AREAS {
                let index = pool.next;
                pool.next += 1;
                // Under the lock, so that the end of the stub is not overwritten.
                self.state(index).store(state::EVENT, Ordering::SeqCst);
                (index, false)
            } else {
                return Err(PlatformError::Exhausted { platform: NAME, what: "threads of one process" });
            }
        };
        let made = if first {
            self.line.first_result(&self.areas)
        } else {
            Frame::prepare(&self.areas, index, cpu);
            let mut tid = [0];
            self.order(&[agent::thread(index)], &mut tid).map(|()| tid[0])
        };
        match made {
            Ok(tid) => Ok((Thread { index, tid: i32::try_from(tid).unwrap_or(0), in_call: false }, true)),
            Err(Failed::Ended) => Err(ended()),
            // The area stays unused: this is the end of the process, or near it.
            Err(Failed::Errno(_)) => Err(PlatformError::Exhausted { platform: NAME, what: "threads" }),
        }
    }

    /// A context has done with it.
    pub(crate) fn give_back(&self, thread: Thread) {
        self.pool.lock().idle.push(thread);
    }

    pub(crate) fn state(&self, index: usize) -> &std::sync::atomic::AtomicU32 {
        self.areas.u32(index * AREA_LEN + area::STATE)
    }

    /// Sends the thread a signal.
    pub(crate) fn signal(&self, thread: Thread, signal: i32) {
        let (pid, tid) = (self.process.pid(), thread.tid);
        if tid > 0 {
            // SAFETY: touches no memory of ours. The process is ours for as long as `self.process` lives, and the kernel
            // sees to it that the thread is one of that process.
            unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
        }
    }
}

impl Mourner for Stub {
    fn ended(&self) {
        self.line.ended();
        let mut pool = self.pool.lock();
        pool.ended = true;
        for index in FIRST_THREAD_AREA..pool.next {
            self.state(index).store(state::DEAD, Ordering::SeqCst);
            futex_wake(self.state(index));
        }
    }
}
