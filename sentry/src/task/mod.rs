//! Tasks and thread groups.
//!
//! A [`Task`] is a thread as Linux knows it; a [`ThreadGroup`] is a process. [`CurrentTask`] is a task together with what
//! only its own loop may touch: registers and the platform context. System call handlers take `&CurrentTask`; everything
//! else takes `&Task`.
//!
//! Invariants:
//! - A task that is not running guest code and not in a handler is fully described by its `Task` and saved registers: it
//!   needs no host thread.
//! - Whoever wants a task's attention sets a bit in `work` and calls [`Task::interrupt`]; the loop looks at `work` before
//!   each entry into the guest and before each park.

pub(crate) mod answers;
pub mod clone;
pub(crate) mod cpu_limit;
pub mod cputime;
pub mod credentials;
pub mod exec;
pub mod exit;
pub mod facts;
pub mod fs_info;
pub mod futex;
mod futex_pi;
pub mod futex_waitv;
pub mod group;
pub(crate) mod host_threads;
pub mod ioprio;
pub mod membarrier;
pub(crate) mod parked;
pub mod pid;
pub mod pidfd;
pub mod prctl;
pub mod quiesce;
pub mod refused;
pub mod rlimit;
pub mod robust;
pub mod run;
pub mod sched;
pub mod session;
pub mod syscalls;
pub mod syscalls_creds;
pub mod wait;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use quicksand_abi::signal::{SS_DISABLE, StackT};
use quicksand_abi::{Errno, UserAddr};
use quicksand_platform::{Context, Kicker, MemFault, Registers};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::kernel::{Container, Kernel};
use crate::mm::MemoryManager;
use crate::signal::TaskSignals;
use crate::sync::{Level, Mutex, Waiter};
use crate::syscalls::{Fd, OnSignal, Resume, WakeReason};
use crate::time::Monotonic;
use crate::vfs::{FdFlags, FdTable, IoDst, IoSrc, OpenFile};

pub use cputime::{CpuClock, CpuTimes};
pub use credentials::Credentials;
pub use fs_info::FsInfo;
pub use group::{ExitStatus, ThreadGroup};
pub use pid::PidNamespace;
pub use rlimit::{Resource, Rlimit, Rlimits};

bitflags::bitflags! {
    /// Why a task's loop must look up before it goes on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Work: u32 {
        /// A signal may be deliverable (recheck), or a stop or group exit is under way.
        const SIGNAL = 1;
        /// The task must exit now (`exit_group`, `execve` in another thread, SIGKILL).
        const KILL = 2;
        /// The world stops: park at the quiesce barrier.
        const QUIESCE = 4;
        /// A debugger or job control stop.
        const STOP = 8;
    }
}

/// A thread.
pub struct Task {
    /// Unique in the sandbox, never reused.
    pub id: u64,
    kernel: Arc<Kernel>,
    container: Arc<Container>,
    group: Arc<ThreadGroup>,
    /// Its number in the container's pid namespace. Changes only when a thread that is not the leader calls `execve`.
    tid: AtomicI32,
    pub waiter: Arc<Waiter>,
    work: AtomicU32,
    /// It waits in a system call.
    waiting: AtomicBool,
    /// Counts crossings into and out of guest code: odd while inside.
    crossings: AtomicU64,
    /// Interrupts guest code; set when the task first gets a context.
    kicker: OnceLock<Arc<dyn Kicker>>,
    /// What the platform may answer for it.
    pub(crate) answers: answers::TaskAnswers,
    /// It has given away the futexes it owned, and will not look again.
    left_futexes: AtomicBool,
    pub(crate) state: Mutex<TaskState>,
    /// What its loop holds, while it waits at the quiesce barrier.
    pub(crate) parked: Mutex<Option<Box<parked::Parked>>>,
    /// Its blocked set and its own queue; what is sent to the process is in the group.
    pub signals: TaskSignals,
    /// Processor time used.
    pub cpu: CpuClock,
    /// When it was made.
    pub start_time: Monotonic,
}

/// What may change in a task, and be looked at by others.
#[derive(Debug)]
pub struct TaskState {
    /// `None` once the task has exited.
    pub mm: Option<Arc<MemoryManager>>,
    pub files: Option<Arc<FdTable>>,
    pub fs: Option<Arc<FsInfo>>,
    pub creds: Arc<Credentials>,
    /// `comm`: up to 15 bytes.
    pub name: Vec<u8>,
    /// CLONE_CHILD_CLEARTID / `set_tid_address`.
    pub clear_child_tid: UserAddr,
    pub robust_list: UserAddr,
    /// PR_SET_PDEATHSIG.
    pub pdeath_signal: i32,
    pub no_new_privs: bool,
    pub sched: sched::SchedState,
    pub personality: u32,
    /// `set_mempolicy(2)`.
    pub(crate) mem_policy: crate::mm::numa::MemPolicy,
    /// PR_SET_TIMERSLACK, in nanoseconds.
    pub timer_slack_ns: u64,
    /// Its parent sits in `vfork(2)` until this task execs or exits.
    pub(crate) vfork_parent: Option<Arc<ThreadGroup>>,
}

impl TaskState {
    /// What a container's first task starts with, but for what is given.
    pub fn new(
        mm: Arc<MemoryManager>,
        files: Arc<FdTable>,
        fs: Arc<FsInfo>,
        creds: Arc<Credentials>,
    ) -> TaskState {
        TaskState {
            mm: Some(mm),
            files: Some(files),
            fs: Some(fs),
            creds,
            name: Vec::new(),
            clear_child_tid: UserAddr::NULL,
            robust_list: UserAddr::NULL,
            pdeath_signal: 0,
            no_new_privs: false,
            sched: sched::SchedState::default(),
            personality: 0,
            mem_policy: crate::mm::numa::MemPolicy::default(),
            timer_slack_ns: 50_000,
            vfork_parent: None,
        }
    }
}

impl Task {
    pub(crate) fn new(
        id: u64,
        tid: i32,
        kernel: Arc<Kernel>,
        container: Arc<Container>,
        group: Arc<ThreadGroup>,
        state: TaskState,
    ) -> Arc<Task> {
        let start_time = kernel.clocks.monotonic();
        Arc::new(Task {
            id,
            kernel,
            container,
            group,
            tid: AtomicI32::new(tid),
            waiter: Arc::new(Waiter::default()),
            work: AtomicU32::new(0),
            waiting: AtomicBool::new(false),
            crossings: AtomicU64::new(0),
            kicker: OnceLock::new(),
            answers: answers::TaskAnswers::default(),
            left_futexes: AtomicBool::new(false),
            state: Mutex::new(Level::Task, state),
            parked: Mutex::new(Level::Leaf, None),
            signals: TaskSignals::default(),
            cpu: CpuClock::default(),
            start_time,
        })
    }

    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }
    pub fn container(&self) -> &Arc<Container> {
        &self.container
    }
    pub fn group(&self) -> &Arc<ThreadGroup> {
        &self.group
    }
    /// The thread id in the container's pid namespace.
    pub fn tid(&self) -> i32 {
        self.tid.load(Ordering::Relaxed)
    }
    pub(crate) fn set_tid(&self, tid: i32) {
        self.tid.store(tid, Ordering::Relaxed);
        self.answers.invalidate();
    }
    /// Its address space; `None` once it has exited.
    pub fn mm_opt(&self) -> Option<Arc<MemoryManager>> {
        self.state.lock().mm.clone()
    }
    pub fn files_opt(&self) -> Option<Arc<FdTable>> {
        self.state.lock().files.clone()
    }
    pub fn fs_opt(&self) -> Option<Arc<FsInfo>> {
        self.state.lock().fs.clone()
    }
    /// The pid namespace of its container.
    pub fn pids(&self) -> &Arc<PidNamespace> {
        self.group.pids()
    }
    pub fn creds(&self) -> Arc<Credentials> {
        self.state.lock().creds.clone()
    }
    pub fn name(&self) -> Vec<u8> {
        self.state.lock().name.clone()
    }

    /// The task goes into guest code, or comes out of it.
    pub(crate) fn cross(&self) {
        self.crossings.fetch_add(1, Ordering::SeqCst);
    }
    /// Returns when the task is not inside the same stretch of guest code any more that it may be in now. Prompt: it is
    /// kicked out, and nothing it does inside can delay that.
    pub(crate) fn wait_for_crossing(&self) {
        let seen = self.crossings.load(Ordering::SeqCst);
        if seen.is_multiple_of(2) {
            return;
        }
        self.interrupt(Work::empty());
        while self.crossings.load(Ordering::SeqCst) == seen {
            std::thread::yield_now();
        }
    }
    /// Whether it waits in a system call (`S` in `/proc/PID/stat`).
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }
    pub(crate) fn set_waiting(&self, waiting: bool) {
        self.waiting.store(waiting, Ordering::Relaxed);
    }
    pub fn has_work(&self, which: Work) -> bool {
        self.work.load(Ordering::SeqCst) & which.bits() != 0
    }
    pub fn work(&self) -> Work {
        Work::from_bits_retain(self.work.load(Ordering::SeqCst))
    }
    /// Sets `which` without getting the task's attention: it looks before it goes on.
    pub(crate) fn set_work(&self, which: Work) {
        self.work.fetch_or(which.bits(), Ordering::SeqCst);
    }
    pub fn clear_work(&self, which: Work) {
        self.work.fetch_and(!which.bits(), Ordering::SeqCst);
    }
    /// Sets `which` and gets the task's attention, whether it runs guest code or is parked.
    pub fn interrupt(&self, which: Work) {
        self.work.fetch_or(which.bits(), Ordering::SeqCst);
        self.waiter.unpark();
        if let Some(kicker) = self.kicker.get() {
            kicker.kick();
        }
    }
    pub(crate) fn set_kicker(&self, kicker: Arc<dyn Kicker>) {
        // A task has one context for life: the first kicker stays valid.
        let _ = self.kicker.set(kicker);
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Task({})", self.tid())
    }
}

/// A task seen from its own loop. Never leaves its host thread.
pub struct CurrentTask {
    task: Arc<Task>,
    /// The guest's registers while it is not running.
    pub regs: RefCell<Registers>,
    pub context: RefCell<Box<dyn Context>>,
    /// The task's memory, kept at hand: `execve` replaces it.
    mm: RefCell<Arc<MemoryManager>>,
    files: RefCell<Arc<FdTable>>,
    pub(crate) wake_reason: Cell<WakeReason>,
    pub(crate) resume: RefCell<Resume>,
    /// What `restart_syscall` goes on with: the number and arguments of the interrupted call, and its progress.
    pub(crate) restart_block: RefCell<Option<RestartBlock>>,
    /// Set while a call that a signal interrupted has not been restarted or failed yet.
    pub(crate) restart: Cell<Option<OnSignal>>,
    /// The mask to put back, while a call runs under a temporary one.
    pub(crate) saved_mask: Cell<Option<u64>>,
    pub(crate) altstack: Cell<StackT>,
    /// The last exception, for signal frames.
    pub(crate) trap: Cell<run::TrapInfo>,
    /// Set by `exit`, or when a signal killed the task: the loop ends.
    pub(crate) exiting: Cell<Option<ExitStatus>>,
    /// A program that is loaded and waits for the other threads to end.
    pub(crate) pending_exec: RefCell<Option<exec::PendingExec>>,
    /// Queued while it waits for one futex, or for several.
    pub(crate) futex: RefCell<Vec<Arc<futex::FutexWaiter>>>,
}

/// An interrupted call that `restart_syscall` continues.
#[derive(Clone, Debug)]
pub struct RestartBlock {
    pub number: u64,
    pub args: [u64; 6],
    pub resume: Resume,
}

impl CurrentTask {
    pub(crate) fn new(
        task: Arc<Task>,
        regs: Registers,
        context: Box<dyn Context>,
        mm: Arc<MemoryManager>,
        files: Arc<FdTable>,
    ) -> CurrentTask {
        task.set_kicker(context.kicker());
        if let Some(answers) = context.answers() {
            task.answers.set_platform(answers);
        }
        CurrentTask {
            task,
            regs: RefCell::new(regs),
            context: RefCell::new(context),
            mm: RefCell::new(mm),
            files: RefCell::new(files),
            wake_reason: Cell::new(WakeReason::First),
            resume: RefCell::new(Resume::None),
            restart_block: RefCell::new(None),
            restart: Cell::new(None),
            saved_mask: Cell::new(None),
            altstack: Cell::new(StackT { flags: SS_DISABLE, ..StackT::default() }),
            trap: Cell::new(run::TrapInfo::default()),
            exiting: Cell::new(None),
            pending_exec: RefCell::new(None),
            futex: RefCell::new(Vec::new()),
        }
    }

    /// The shared part, to keep.
    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }
    pub fn mm(&self) -> Arc<MemoryManager> {
        self.mm.borrow().clone()
    }
    /// Whether other tasks use the same memory. Somebody who looks at it at this moment may count as one.
    pub(crate) fn shares_mm(&self) -> bool {
        // The task's shared state and its loop hold one reference each.
        Arc::strong_count(&self.mm.borrow()) > 2
    }
    /// After `execve`: also replaces it in the shared state.
    pub(crate) fn set_mm(&self, mm: Arc<MemoryManager>) {
        let shared = self.state.lock().mm.replace(mm.clone());
        let own = self.mm.replace(mm);
        // Outside the lock: these may be the last references.
        drop((shared, own));
    }
    pub fn files(&self) -> Arc<FdTable> {
        self.files.borrow().clone()
    }
    /// After `unshare(CLONE_FILES)` or `execve`.
    pub(crate) fn set_files(&self, files: Arc<FdTable>) {
        let shared = self.state.lock().files.replace(files.clone());
        let own = self.files.replace(files);
        // Outside the lock: these may be the last references.
        drop((shared, own));
    }
    /// Root, working directory, umask.
    pub fn fs(&self) -> Arc<FsInfo> {
        // A running task always has one.
        self.state.lock().fs.clone().unwrap_or_else(|| self.container.initial_fs())
    }

    /// The open file of a descriptor; O_PATH descriptors answer EBADF.
    pub fn file(&self, fd: Fd) -> Result<Arc<OpenFile>, Errno> {
        let file = self.files.borrow().get(fd)?;
        if file.flags().contains(crate::vfs::OpenFlags::PATH) {
            return Err(Errno::EBADF);
        }
        Ok(file)
    }
    /// As [`CurrentTask::file`], O_PATH descriptors included.
    pub fn file_or_path(&self, fd: Fd) -> Result<Arc<OpenFile>, Errno> {
        self.files.borrow().get(fd)
    }
    /// Installs at the lowest free descriptor, within RLIMIT_NOFILE.
    pub fn install_fd(&self, file: Arc<OpenFile>, flags: FdFlags) -> Result<Fd, Errno> {
        let limit = self.group.rlimit(Resource::Nofile).soft;
        self.files.borrow().install(file, flags, 0, limit)
    }

    // Guest memory.

    pub fn read_bytes(&self, addr: UserAddr, buf: &mut [u8]) -> Result<(), MemFault> {
        self.mm.borrow().read_bytes(addr, buf)
    }
    pub fn write_bytes(&self, addr: UserAddr, buf: &[u8]) -> Result<(), MemFault> {
        self.mm.borrow().write_bytes(addr, buf)
    }
    /// Copies a structure in.
    pub fn read_object<T: FromBytes + IntoBytes + FromZeros>(&self, addr: UserAddr) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.read_bytes(addr, value.as_mut_bytes())?;
        Ok(value)
    }
    /// Copies a structure out.
    pub fn write_object<T: IntoBytes + Immutable>(&self, addr: UserAddr, value: &T) -> Result<(), Errno> {
        Ok(self.write_bytes(addr, value.as_bytes())?)
    }
    /// An array of `count` elements. The caller has bounded `count`.
    pub fn read_array<T: FromBytes + IntoBytes + FromZeros>(
        &self,
        addr: UserAddr,
        count: usize,
    ) -> Result<Vec<T>, Errno> {
        let mut values = Vec::new();
        values.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        values.resize_with(count, T::new_zeroed);
        self.read_bytes(addr, values.as_mut_slice().as_mut_bytes())?;
        Ok(values)
    }
    pub fn write_array<T: IntoBytes + Immutable>(&self, addr: UserAddr, values: &[T]) -> Result<(), Errno> {
        Ok(self.write_bytes(addr, values.as_bytes())?)
    }
    /// A NUL-terminated string of at most `max` bytes, without its NUL. ENAMETOOLONG where it is longer, EFAULT where it
    /// cannot be read up to its NUL.
    pub fn read_cstring(&self, addr: UserAddr, max: usize) -> Result<Vec<u8>, Errno> {
        self.mm.borrow().read_cstring(addr, max)
    }
    /// A path argument: at most PATH_MAX with its NUL.
    pub fn read_path(&self, addr: UserAddr) -> Result<Vec<u8>, Errno> {
        self.read_cstring(addr, 4095)
    }
    pub fn io_dst(&self, addr: UserAddr, len: usize) -> IoDst<'static> {
        IoDst::user(self.mm(), addr, len.min(crate::vfs::io::MAX_RW_COUNT))
    }
    pub fn io_src(&self, addr: UserAddr, len: usize) -> IoSrc<'static> {
        IoSrc::user(self.mm(), addr, len.min(crate::vfs::io::MAX_RW_COUNT))
    }

    // Blocking.

    /// Why the handler is being called.
    pub fn wake_reason(&self) -> WakeReason {
        self.wake_reason.get()
    }
    /// The progress that the handler left when it last returned `Blocked`.
    pub fn take_resume(&self) -> Resume {
        std::mem::take(&mut *self.resume.borrow_mut())
    }

    /// A `--strace` line.
    pub fn trace(&self, line: &str) {
        self.kernel.trace(self.tid(), line);
    }
}

impl Deref for CurrentTask {
    type Target = Task;
    fn deref(&self) -> &Task {
        &self.task
    }
}

impl fmt::Debug for CurrentTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CurrentTask({})", self.tid())
    }
}
