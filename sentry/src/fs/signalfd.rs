//! `signalfd(2)`: signals that are read.
//!
//! As in Linux, a signalfd gives the signals of whoever reads it, not of whoever made it. What it waits on is therefore the
//! queue of the process that looked last: a process that is about to wait has just looked.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quicksand_abi::signal::{SigInfo, code};
use quicksand_abi::{Errno, UserAddr};
use zerocopy::{Immutable, IntoBytes, KnownLayout};

use crate::signal::SignalSet;
use crate::sync::{Events, Level, Mutex, WaitQueue};
use crate::syscalls::{Fd, SyscallResult};
use crate::task::CurrentTask;
use crate::vfs::{FdFlags, FileOps, IoDst, OpenFile, OpenFlags, SeekFrom};

const SFD_CLOEXEC: u32 = libc::SFD_CLOEXEC as u32;
const SFD_NONBLOCK: u32 = libc::SFD_NONBLOCK as u32;

/// `struct signalfd_siginfo`.
#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SignalInfo {
    signo: u32,
    errno: i32,
    code: i32,
    pid: u32,
    uid: u32,
    fd: i32,
    tid: u32,
    band: u32,
    overrun: u32,
    trapno: u32,
    status: i32,
    int: i32,
    ptr: u64,
    utime: u64,
    stime: u64,
    addr: u64,
    addr_lsb: u16,
    pad2: u16,
    syscall: i32,
    call_addr: u64,
    arch: u32,
    pad: [[u8; 4]; 7],
}

const SIZE: usize = size_of::<SignalInfo>();
const _: () = assert!(SIZE == 128);

impl SignalInfo {
    /// `signalfd_copyinfo`: which fields count depends on code and signal.
    fn new(info: &SigInfo) -> SignalInfo {
        let mut out = SignalInfo {
            signo: info.signo as u32,
            errno: info.errno,
            code: info.code,
            ..SignalInfo::default()
        };
        let specific = info.code > code::SI_USER && info.code < code::SI_KERNEL;
        match info.signo {
            libc::SIGILL | libc::SIGFPE | libc::SIGSEGV | libc::SIGBUS | libc::SIGTRAP if specific => {
                out.addr = info.addr().0;
            }
            libc::SIGCHLD if specific => {
                out.pid = info.pid() as u32;
                out.uid = info.uid();
                out.status = info.status();
                out.utime = info.utime() as u64;
                out.stime = info.stime() as u64;
            }
            libc::SIGIO if specific => out.set_poll(info),
            _ => match info.code {
                code::SI_TIMER => {
                    out.tid = info.pid() as u32;
                    out.overrun = info.uid();
                    out.set_value(info);
                }
                code::SI_SIGIO => out.set_poll(info),
                other => {
                    out.pid = info.pid() as u32;
                    out.uid = info.uid();
                    if other < 0 && other != code::SI_TKILL {
                        out.set_value(info);
                    }
                }
            },
        }
        out
    }
    fn set_poll(&mut self, info: &SigInfo) {
        self.band = info.band() as u32;
        self.fd = info.value() as i32;
    }
    fn set_value(&mut self, info: &SigInfo) {
        self.ptr = info.value();
        self.int = info.value() as i32;
    }
}

/// A signalfd.
pub struct SignalFd {
    mask: AtomicU64,
    /// Of the process that looked last.
    queue: Mutex<Arc<WaitQueue>>,
}

/// `signalfd(2)`
pub fn sys_signalfd(task: &CurrentTask, fd: Fd, mask: UserAddr, size: u64) -> SyscallResult {
    sys_signalfd4(task, fd, mask, size, 0)
}

/// `signalfd4(2)`
pub fn sys_signalfd4(task: &CurrentTask, fd: Fd, mask: UserAddr, size: u64, flags: u32) -> SyscallResult {
    if size != 8 {
        return Err(Errno::EINVAL.into());
    }
    let mask = SignalSet(task.read_object(mask)?).without(SignalSet::UNBLOCKABLE).0;
    if flags & !(SFD_CLOEXEC | SFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let own_queue = task.group().signals.queue.clone();
    if fd.0 != -1 {
        let file = task.file(fd)?;
        let signalfd = file.ops_as::<SignalFd>().ok_or(Errno::EINVAL)?;
        signalfd.mask.store(mask, Ordering::SeqCst);
        own_queue.notify(Events::IN);
        return Ok(fd.0 as usize);
    }
    let ops = SignalFd { mask: AtomicU64::new(mask), queue: Mutex::new(Level::Leaf, own_queue) };
    let nonblock = OpenFlags::from_bits_retain(flags & SFD_NONBLOCK);
    let file = task.kernel().anon.file("signalfd", Box::new(ops), OpenFlags::RDWR | nonblock);
    let fd_flags = if flags & SFD_CLOEXEC != 0 { FdFlags::CLOEXEC } else { FdFlags::empty() };
    Ok(task.install_fd(file, fd_flags)?.0 as usize)
}

impl SignalFd {
    fn look(&self, task: &CurrentTask) -> SignalSet {
        let queue = task.group().signals.queue.clone();
        let old = std::mem::replace(&mut *self.queue.lock(), queue);
        drop(old);
        SignalSet(self.mask.load(Ordering::SeqCst))
    }
}

impl SignalFd {
    /// One that nobody has looked at yet.
    pub fn new(mask: u64) -> SignalFd {
        let queue = Mutex::new(Level::Leaf, WaitQueue::new());
        SignalFd { mask: AtomicU64::new(mask), queue }
    }
    /// The signals that it gives.
    pub fn mask(&self) -> u64 {
        self.mask.load(Ordering::SeqCst)
    }
}

impl FileOps for SignalFd {
    fn read(&self, _: &OpenFile, task: &CurrentTask, dst: &mut IoDst<'_>, _: u64) -> Result<usize, Errno> {
        if dst.remaining() < SIZE {
            return Err(Errno::EINVAL);
        }
        let mask = self.look(task);
        let mut done = 0;
        while dst.remaining() >= SIZE {
            let Some(info) = task.dequeue_signal(mask) else { break };
            match dst.put(SignalInfo::new(&info).as_bytes()) {
                Ok(SIZE) => done += SIZE,
                // The signal is gone, as in Linux.
                _ if done == 0 => return Err(Errno::EFAULT),
                _ => break,
            }
        }
        if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) }
    }

    fn is_stream(&self) -> bool {
        true
    }
    fn seek(&self, _: &OpenFile, _: SeekFrom) -> Result<u64, Errno> {
        Ok(0)
    }

    fn poll(&self, _: &OpenFile, task: &CurrentTask) -> Events {
        let mask = self.look(task);
        let ready = !task.pending_signals().intersect(mask).is_empty();
        if ready { Events::IN } else { Events::empty() }
    }

    fn wait_queue(&self, _: &OpenFile) -> Option<Arc<WaitQueue>> {
        Some(self.queue.lock().clone())
    }

    fn fdinfo(&self, _: &OpenFile) -> String {
        format!("sigmask:\t{:016x}\n", self.mask.load(Ordering::SeqCst))
    }
}

impl fmt::Debug for SignalFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignalFd")
    }
}
