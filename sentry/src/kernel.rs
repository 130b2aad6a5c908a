//! The top object of a sandbox, and its containers.

use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use quicksand_platform::Platform;

use crate::fs::anon::AnonFs;
use crate::fs::pipe::FifoTable;
use crate::fs::tty::devpts::DevPts;
use crate::fs::tty::job;
use crate::machine::Machine;
use crate::net::NetNamespace;
use crate::sync::{Level, Mutex};
use crate::task::futex::FutexTable;
use crate::task::host_threads::HostThreads;
use crate::task::quiesce::{Quiesce, Quiesced};
use crate::task::{ExitStatus, FsInfo, PidNamespace};
use crate::time::{Clocks, TimerService};

/// What a sandbox is started with.
#[derive(Debug)]
pub struct KernelConfig {
    pub platform: Arc<dyn Platform>,
    /// Processors and memory; made while the host's proc can still be seen.
    pub machine: Machine,
    /// Log every system call.
    pub strace: bool,
    /// Called once, when the first task is about to run its first instruction.
    pub first_entry: Option<FirstEntry>,
}

/// A call that is made once; see [`KernelConfig::first_entry`].
pub struct FirstEntry(pub Box<dyn FnOnce() + Send>);

impl fmt::Debug for FirstEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FirstEntry")
    }
}

/// One sandbox's kernel. Holds what belongs to no container.
pub struct Kernel {
    pub platform: Arc<dyn Platform>,
    pub clocks: Clocks,
    /// Timers that are not just a blocked task's deadline.
    pub timers: TimerService,
    /// Pipes, sockets, eventfds and their like.
    pub anon: AnonFs,
    /// All terminals, by number.
    pub terminals: job::Registry,
    /// Processors and memory as guests see them.
    pub machine: Machine,
    /// `/proc/sys/kernel/random/boot_id`: of this sandbox alone.
    boot_id: [u8; 16],
    /// The network namespace.
    pub net: Arc<NetNamespace>,
    /// FIFOs that are open.
    pub fifos: FifoTable,
    /// Who waits for whose POSIX file locks.
    pub lock_waits: crate::vfs::locks::Waits,
    pub(crate) futexes: FutexTable,
    /// Where all tasks wait while the world stands still.
    pub quiesce: Quiesce,
    pub(crate) host_threads: Arc<HostThreads>,
    containers: Mutex<Vec<Weak<Container>>>,
    strace: bool,
    /// Taken by the first task.
    first_entry: Mutex<Option<FirstEntry>>,
    /// Taken by the first output, which somebody waits for.
    first_output: Mutex<Option<FirstEntry>>,
    awaits_output: AtomicBool,
    next_id: AtomicU64,
    /// Calls that were logged as unsupported, by number.
    logged: Mutex<HashSet<u64>>,
}

impl Kernel {
    pub fn new(config: KernelConfig) -> Arc<Kernel> {
        let clocks = Clocks::default();
        if let Some(ticks) = config.platform.guest_tsc_offset() {
            clocks.keeper.set_guest_tsc_offset(ticks);
        }
        let kernel = Kernel {
            platform: config.platform,
            terminals: job::Registry::default(),
            machine: config.machine,
            boot_id: random_id(),
            clocks,
            timers: TimerService::default(),
            anon: AnonFs::default(),
            net: Arc::default(),
            fifos: FifoTable::default(),
            lock_waits: crate::vfs::locks::Waits::default(),
            futexes: FutexTable::default(),
            quiesce: Quiesce::default(),
            host_threads: HostThreads::new(),
            containers: Mutex::new(Level::Kernel, Vec::new()),
            strace: config.strace,
            first_entry: Mutex::new(Level::Leaf, config.first_entry),
            first_output: Mutex::new(Level::Leaf, None),
            awaits_output: AtomicBool::new(false),
            next_id: AtomicU64::new(1),
            logged: Mutex::new(Level::Leaf, HashSet::new()),
        };
        let kernel = Arc::new(kernel);
        crate::vfs::set_clock(&kernel);
        let weak = Arc::downgrade(&kernel);
        kernel.platform.on_loss(Box::new(move || {
            if let Some(kernel) = weak.upgrade() {
                kernel.kill_lost();
            }
        }));
        kernel
    }
    /// The boot id, as a raw version 4 UUID.
    pub fn boot_id(&self) -> [u8; 16] {
        self.boot_id
    }
    /// Time since boot, as `uptime(1)` tells: the monotonic clock.
    pub fn uptime(&self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.clocks.monotonic().0)
    }
    /// The containers that are still in use.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.containers.lock().iter().filter_map(Weak::upgrade).collect()
    }
    /// Stops all tasks at the quiesce barrier until the answer is dropped. Not called from a task's own thread.
    pub fn stop_the_world(&self) -> Quiesced<'_> {
        let containers = self.containers();
        let tasks: Vec<_> = containers.iter().flat_map(|c| c.pids.tasks()).collect();
        self.quiesce.stop(&tasks)
    }
    /// Stops all tasks until [`Kernel::resume`]. Not called twice without one in between: the second call would wait for it.
    pub fn pause(&self) {
        self.stop_the_world().hold();
    }
    /// Ends what [`Kernel::pause`] began.
    pub fn resume(&self) {
        self.quiesce.release();
    }
    /// Kills the processes whose memory the host has taken away. Those that run find out by themselves; those that wait do not.
    fn kill_lost(&self) {
        for task in self.containers().iter().flat_map(|c| c.pids.tasks()) {
            if task.mm_opt().is_some_and(|mm| mm.space.is_lost()) {
                tracing::error!(
                    "process {} is killed: the host has taken its memory away",
                    task.group().pid()
                );
                task.group().kill_all(ExitStatus::signal(libc::SIGKILL));
            }
        }
    }
    /// A number for a new object: unique in the sandbox, never reused.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
    /// What waits for the first task, if this is it.
    pub(crate) fn take_first_entry(&self) -> Option<FirstEntry> {
        self.first_entry.lock().take()
    }
    /// Has `call` made when a guest puts something out for the first time from now on: to a stream of the host's (a standard
    /// stream), or to an internet socket.
    pub fn on_first_output(&self, call: FirstEntry) {
        *self.first_output.lock() = Some(call);
        self.awaits_output.store(true, Ordering::Release);
    }
    /// Something was put out.
    pub(crate) fn has_put_out(&self) {
        if self.awaits_output.load(Ordering::Relaxed) && self.awaits_output.swap(false, Ordering::AcqRel) {
            let call = self.first_output.lock().take();
            if let Some(call) = call {
                (call.0)();
            }
        }
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
        host_random(out);
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

fn host_random(out: &mut [u8]) {
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

fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    host_random(&mut id);
    id
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel({})", self.platform.name())
    }
}

/// A container: a root, a mount namespace, a pid namespace, and an init task. A sandbox can hold several.
pub struct Container {
    pub id: String,
    pub kernel: Arc<Kernel>,
    pub pids: Arc<PidNamespace>,
    /// System V shared memory, semaphores and message queues.
    pub(crate) ipc: crate::ipc::IpcNamespace,
    names: Mutex<Names>,
    initial_fs: Arc<FsInfo>,
    /// The open files that its first process was given as standard streams, with their inodes, and its terminal, by their numbers.
    stdio: std::sync::OnceLock<Stdio>,
    /// The first devpts that was mounted: where `/dev/ptmx` outside of any devpts leads.
    devpts: std::sync::OnceLock<Arc<DevPts>>,
    /// The moment that is watched for, where one is.
    pub(crate) entry: std::sync::OnceLock<crate::entry::Watch>,
    /// The Lambda Runtime API, where it is served.
    runtime_api: std::sync::OnceLock<Arc<crate::net::lambda::RuntimeApi>>,
}

/// What a container's first process was given.
#[derive(Debug)]
struct Stdio {
    files: [(u64, u64); 3],
    console: Option<u64>,
}

#[derive(Debug)]
struct Names {
    host: Vec<u8>,
    domain: Vec<u8>,
}

impl Container {
    pub(crate) fn new(
        kernel: &Arc<Kernel>,
        id: String,
        names: (Vec<u8>, Vec<u8>),
        pids: Arc<PidNamespace>,
        initial_fs: Arc<FsInfo>,
    ) -> Arc<Container> {
        let container = Arc::new(Container {
            id,
            kernel: kernel.clone(),
            pids,
            ipc: crate::ipc::IpcNamespace::default(),
            names: Mutex::new(Level::Leaf, Names { host: names.0, domain: names.1 }),
            initial_fs,
            stdio: std::sync::OnceLock::new(),
            devpts: std::sync::OnceLock::new(),
            entry: std::sync::OnceLock::new(),
            runtime_api: std::sync::OnceLock::new(),
        });
        let mut containers = kernel.containers.lock();
        containers.retain(|c| c.strong_count() > 0);
        containers.push(Arc::downgrade(&container));
        drop(containers);
        container
    }
    /// The view of the file system that its first task starts with.
    pub fn initial_fs(&self) -> Arc<FsInfo> {
        self.initial_fs.clone()
    }
    /// Which of the standard streams that its first process was given a file is, or leads to (`/dev/stdout`).
    pub(crate) fn stdio_number(&self, file: &crate::vfs::OpenFile) -> Option<usize> {
        let stdio = &self.stdio.get()?.files;
        let by = |is: &dyn Fn(&(u64, u64)) -> bool| stdio.iter().position(is);
        by(&|(id, _)| *id == file.id).or_else(|| by(&|(_, inode)| *inode == file.inode.id))
    }
    /// The number of the terminal that its first process was given.
    pub(crate) fn console(&self) -> Option<u64> {
        self.stdio.get()?.console
    }
    /// Those of the first process count.
    pub(crate) fn set_stdio(&self, files: [Option<Arc<crate::vfs::OpenFile>>; 3], console: Option<u64>) {
        let numbers = [0, 1, 2].map(|fd| {
            files[fd].as_ref().map_or((0, 0), |file: &Arc<crate::vfs::OpenFile>| (file.id, file.inode.id))
        });
        if self.stdio.set(Stdio { files: numbers, console }).is_ok()
            && let (Some(entry), [_, Some(output), Some(error)]) = (self.entry(), &files)
        {
            entry.set_streams(output, error);
        }
    }
    /// The Lambda Runtime API that is served to the container's programs.
    pub fn runtime_api(&self) -> Option<&Arc<crate::net::lambda::RuntimeApi>> {
        self.runtime_api.get()
    }
    /// Serves the Lambda Runtime API to the container's programs. False where one is served already.
    pub fn serve_runtime_api(&self, api: Arc<crate::net::lambda::RuntimeApi>) -> bool {
        self.runtime_api.set(api).is_ok()
    }
    pub fn devpts(&self) -> Option<Arc<DevPts>> {
        self.devpts.get().cloned()
    }
    /// A devpts was mounted; the first one counts.
    pub fn set_devpts(&self, devpts: Arc<DevPts>) {
        let _ = self.devpts.set(devpts);
    }
    /// Host name and domain name, as `uname(2)` shows them.
    pub fn names(&self) -> (Vec<u8>, Vec<u8>) {
        let names = self.names.lock();
        (names.host.clone(), names.domain.clone())
    }
    pub fn set_hostname(&self, name: Vec<u8>) {
        self.names.lock().host = name;
    }
    pub fn set_domainname(&self, name: Vec<u8>) {
        self.names.lock().domain = name;
    }
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Container({})", self.id)
    }
}
