//! The top object of a sandbox, and its containers.

use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quicksand_platform::Platform;

use crate::fs::anon::AnonFs;
use crate::fs::pipe::FifoTable;
use crate::sync::{Level, Mutex};
use crate::task::FsInfo;
use crate::time::{Clocks, TimerService};

/// What a sandbox is started with.
#[derive(Debug)]
pub struct KernelConfig {
    pub platform: Arc<dyn Platform>,
    /// Log every system call.
    pub strace: bool,
}

/// One sandbox's kernel. Holds what belongs to no container.
pub struct Kernel {
    pub platform: Arc<dyn Platform>,
    pub clocks: Clocks,
    /// Timers that are not just a blocked task's deadline.
    pub timers: TimerService,
    /// Pipes, sockets, eventfds and their like.
    pub anon: AnonFs,
    /// FIFOs that are open.
    pub fifos: FifoTable,
    /// Who waits for whose POSIX file locks.
    pub lock_waits: crate::vfs::locks::Waits,
    strace: bool,
    next_id: AtomicU64,
    /// Calls that were logged as unsupported, by number.
    logged: Mutex<HashSet<u64>>,
}

impl Kernel {
    pub fn new(config: KernelConfig) -> Arc<Kernel> {
        Arc::new(Kernel {
            platform: config.platform,
            clocks: Clocks::default(),
            timers: TimerService::default(),
            anon: AnonFs::default(),
            fifos: FifoTable::default(),
            lock_waits: crate::vfs::locks::Waits::default(),
            strace: config.strace,
            next_id: AtomicU64::new(1),
            logged: Mutex::new(Level::Leaf, HashSet::new()),
        })
    }
    /// A number for a new object: unique in the sandbox, never reused.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
    pub fn strace(&self) -> bool {
        self.strace
    }
    /// A `--strace` line.
    pub fn trace(&self, tid: i32, line: &str) {
        tracing::info!(target: "strace", "[{tid}] {line}");
    }
    /// Fills `out` with random bytes. The host's generator is asked each time, so clones of a sandbox never share any.
    pub fn random(&self, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            match rustix::rand::getrandom(&mut out[done..], rustix::rand::GetRandomFlags::empty()) {
                Ok(n) => done += n,
                Err(rustix::io::Errno::INTR) => {}
                // With no flags and a valid buffer, nothing else can happen on a kernel that has the call.
                Err(e) => panic!("getrandom on the host: {e}"),
            }
        }
    }
    /// Logs, the first time, that a guest asked for something that is not supported, by name.
    pub fn log_unsupported(&self, what: &str, errno: quicksand_abi::Errno) {
        let mut hasher = std::hash::DefaultHasher::new();
        what.hash(&mut hasher);
        // Above all system call numbers.
        self.log_once(hasher.finish() | 1 << 63, || format!("{what} is not supported; {errno}"));
    }
    /// Logs a message the first time that `key` is seen.
    pub fn log_once(&self, key: u64, message: impl FnOnce() -> String) {
        if self.logged.lock().insert(key) {
            tracing::warn!("{}", message());
        }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel({})", self.platform.name())
    }
}

/// A container: a root, a mount namespace, a pid namespace, and an init task. A sandbox can hold several.
pub struct Container {
    pub id: String,
    initial_fs: Arc<FsInfo>,
}

impl Container {
    /// The view of the file system that its first task starts with.
    pub fn initial_fs(&self) -> Arc<FsInfo> {
        self.initial_fs.clone()
    }
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Container({})", self.id)
    }
}
