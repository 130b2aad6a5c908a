//! Host calls: memory that is shared with stubs, and futexes in it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

/// A mapping of a memfd that a stub maps as well.
///
/// Everything in it is only ever accessed atomically: another process may change it at any time, and may be hostile.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to no thread, and is only accessed atomically.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// New memory of `len` bytes, all zero and not there until touched, and a descriptor for it.
    pub(crate) fn new(name: &str, len: usize) -> io::Result<(SharedMemory, OwnedFd)> {
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, len as u64)?;
        // SAFETY: a new mapping, where the kernel finds a place.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd.as_fd(),
                0,
            )?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok((SharedMemory { start, len }, fd))
    }

    pub(crate) fn u32(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.len);
        // SAFETY: inside the mapping (checked), which lives as long as `self`, and aligned: it starts at a page boundary.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(at).cast()) }
    }

    pub(crate) fn u64(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.len);
        // SAFETY: as for `u32`.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(at).cast()) }
    }

    /// Copies whole words out; `at` and the length are multiples of eight.
    pub(crate) fn read(&self, at: usize, out: &mut [u8]) {
        for (i, chunk) in out.chunks_exact_mut(8).enumerate() {
            chunk.copy_from_slice(&self.u64(at + 8 * i).load(Ordering::Relaxed).to_ne_bytes());
        }
    }

    /// Copies whole words in; `at` and the length are multiples of eight.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        for (i, chunk) in bytes.as_chunks::<8>().0.iter().enumerate() {
            self.u64(at + 8 * i).store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
        }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and all references into it borrow from `self`.
        if let Err(e) = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) } {
            tracing::warn!("munmap of shared memory: {e}");
        }
    }
}

/// The processors that this thread may run on, as a set of `len` bytes.
pub(crate) fn processors(len: usize) -> io::Result<Vec<u8>> {
    let mut set = vec![0u8; len];
    // SAFETY: the kernel writes at most `len` bytes of the buffer.
    let result = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, len, set.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(set) }
}

/// The processor that this thread runs on, for the moment.
pub(crate) fn this_processor() -> usize {
    // SAFETY: takes nothing, and always succeeds on x86-64.
    usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0)
}

/// Has thread `tid` run on one processor only. Best effort.
pub(crate) fn bind(tid: i32, processor: usize) {
    let mut set = [0u64; 16];
    if let Some(word) = set.get_mut(processor / 64) {
        *word = 1 << (processor % 64);
        // SAFETY: the kernel reads the set.
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, tid, size_of_val(&set), set.as_ptr()) };
    }
}

/// Sleeps while `word` is `expected`, until woken. May return early.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32) {
    let no_limit = std::ptr::null::<libc::timespec>();
    // SAFETY: the word lives through the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, no_limit) };
}

/// How a wait ended that had a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waited(bool);

impl Waited {
    pub(crate) fn timed_out(self) -> bool {
        self.0
    }
}

/// As [`futex_wait`], for at most so long.
pub(crate) fn futex_wait_for(word: &AtomicU32, expected: u32, limit: Duration) -> Waited {
    let limit = libc::timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    // SAFETY: the word and the time live through the call.
    let result = unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, &raw const limit)
    };
    Waited(result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ETIMEDOUT))
}

/// Wakes all who sleep on `word`.
pub(crate) fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word lives through the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Whether a process can have all its threads notice that code has changed.
pub(crate) fn can_patch_code() -> bool {
    // SAFETY: asks which commands there are.
    let commands = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_QUERY, 0, 0) };
    commands > 0 && commands & libc::c_long::from(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE) != 0
}
