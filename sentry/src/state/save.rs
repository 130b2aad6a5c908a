//! From a stopped kernel to records.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rkyv::rancor;
use zerocopy::IntoBytes;

use super::records::{self as rec, kind};
use super::sink::ImageSink;
use crate::kernel::Container;
use crate::mm::{MemoryManager, SharedMemory};
use crate::net::unix::UnixSocket;
use crate::signal::{Actions, Queue};
use crate::syscalls::{OnSignal, Resume};
use crate::task::group::GroupState;
use crate::task::{Credentials, ExitStatus, FsInfo, RestartBlock, Task, ThreadGroup};
use crate::time::Monotonic;
use crate::vfs::locks::{LockOwner, Record};
use crate::vfs::{FdTable, OpenFile, Path};

/// Why there is no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Something that an image cannot hold; it is named.
    #[error("the container cannot be checkpointed: {0}")]
    Unsupported(String),
    #[error("the container cannot be checkpointed: it has ended")]
    Ended,
    #[error("writing the image: {0}")]
    Write(#[from] io::Error),
    #[error("an object has no archived form: {0}")]
    Archive(#[from] rancor::Error),
    #[error("reading guest memory: {0}")]
    Memory(String),
}

/// How a checkpoint is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct SaveOptions {
    /// A TCP connection refuses the checkpoint, instead of being reset in what is restored.
    pub refuse_connections: bool,
}

/// What a checkpoint holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Saved {
    pub objects: u64,
    /// Pages stored, and pages known to be zero.
    pub pages: u64,
    pub zero_pages: u64,
}

/// What goes into one image.
pub(super) struct Saver<'a> {
    pub(super) container: &'a Arc<Container>,
    pub(super) sink: &'a mut dyn ImageSink,
    pub(super) saved: Saved,
    pub(super) options: SaveOptions,
    seen: BTreeSet<(&'static str, u64)>,
    /// Whose pages are to be stored.
    spaces: BTreeMap<u64, Arc<MemoryManager>>,
    /// Open files without a name.
    pub(super) unnamed: BTreeMap<u64, Arc<OpenFile>>,
    /// Memory that address spaces share.
    pub(super) shared: BTreeMap<u64, Arc<SharedMemory>>,
    /// Files of `memfd_create(2)`, by inode.
    pub(super) memfds: BTreeMap<u64, Arc<OpenFile>>,
    /// Unix sockets whose records are to be made, and what leads there.
    pub(super) sockets: Vec<(Arc<UnixSocket>, String)>,
}

impl Container {
    /// Stores the container. Every task of the sandbox waits at the quiesce barrier, and goes on waiting.
    pub fn save(
        self: &Arc<Self>,
        sink: &mut dyn ImageSink,
        options: SaveOptions,
    ) -> Result<Saved, SaveError> {
        let mut saver = Saver {
            container: self,
            sink,
            saved: Saved::default(),
            options,
            seen: BTreeSet::new(),
            spaces: BTreeMap::new(),
            unnamed: BTreeMap::new(),
            shared: BTreeMap::new(),
            memfds: BTreeMap::new(),
            sockets: Vec::new(),
        };
        let api = self.runtime_api();
        // What comes from outside meanwhile comes after the checkpoint.
        let _frozen = api.map(|api| super::lambda::Frozen::new(api));
        saver.refuse_namespaces()?;
        saver.processes()?;
        let sessions = saver.sessions()?;
        saver.sockets()?;
        let ipc_generations = saver.ipc()?;
        // Pages go in the order of their spaces: memory first, then files.
        saver.pages()?;
        saver.trees()?;
        if let Some(api) = api {
            let bytes = rkyv::to_bytes::<rancor::Error>(&super::lambda::record(api))?;
            saver.sink.value(rec::LAMBDA, &bytes)?;
        }
        saver.sandbox(sessions, ipc_generations)?;
        Ok(saver.saved)
    }
}

pub(super) fn unsupported<T>(what: impl Into<String>) -> Result<T, SaveError> {
    Err(SaveError::Unsupported(what.into()))
}

impl Saver<'_> {
    /// Adds a record.
    pub(super) fn add(
        &mut self,
        kind: &str,
        id: u64,
        record: &impl quicksand_checkpoint::StoredRecord,
    ) -> Result<(), SaveError> {
        let bytes = rkyv::to_bytes::<rancor::Error>(record)?;
        self.saved.objects += 1;
        Ok(self.sink.record(kind, id, &bytes)?)
    }
    /// Whether this is the first time that an object is met.
    pub(super) fn meets(&mut self, kind: &'static str, id: u64) -> bool {
        self.seen.insert((kind, id))
    }

    fn sandbox(&mut self, sessions: Vec<rec::Session>, ipc_generations: [i32; 3]) -> Result<(), SaveError> {
        let kernel = &self.container.kernel;
        let platform = &kernel.platform;
        let (host_name, domain_name) = self.container.names();
        let record = rec::Sandbox {
            version: rec::VERSION,
            monotonic_ns: kernel.clocks.monotonic().0,
            realtime_ns: kernel.clocks.realtime().0,
            xcr0: platform.xcr0(),
            extended_state_len: u32::try_from(platform.extended_state_len()).unwrap_or(u32::MAX),
            last_pid: self.container.pids.last_pid(),
            host_name,
            domain_name,
            init: 1,
            sessions,
            console: self.console(),
            ipc_generations,
        };
        let bytes = rkyv::to_bytes::<rancor::Error>(&record)?;
        Ok(self.sink.value(rec::SANDBOX, &bytes)?)
    }

    /// What no process's record can hold yet.
    fn refuse_namespaces(&self) -> Result<(), SaveError> {
        if self.container.kernel.containers().len() > 1 {
            return unsupported("the sandbox holds another container");
        }
        let tables = self.container.pids.lock();
        if tables.procs.is_empty() || tables.dying { Err(SaveError::Ended) } else { Ok(()) }
    }

    fn processes(&mut self) -> Result<(), SaveError> {
        for info in self.container.pids.processes() {
            let tasks = info.group.tasks();
            self.process(&info.group)?;
            for task in tasks {
                self.task(&task)?;
            }
        }
        Ok(())
    }

    fn process(&mut self, group: &Arc<ThreadGroup>) -> Result<(), SaveError> {
        let pid = group.pid();
        let timers = super::processes::timers(&group.timers.saved());
        let (place, leader) = {
            let tables = self.container.pids.lock();
            let proc = tables.procs.get(&pid).ok_or(SaveError::Ended)?;
            ((proc.parent, proc.pgid, proc.sid, proc.subreaper), proc.ended_leader.clone())
        };
        let leader = leader.map(|task| {
            let state = task.state.lock();
            rec::Leader { creds: creds(&state.creds), name: state.name.clone() }
        });
        let state = group.state.lock();
        let zombie = state.dead.then(|| zombie(&state)).flatten();
        if zombie.is_none() && (state.exit_status.is_some() || state.exec.is_some()) {
            return unsupported(format!("process {pid} is ending, or in execve(2)"));
        }
        let actions = state.actions.clone();
        let actions_id = Arc::as_ptr(&actions).addr() as u64;
        let record = rec::Process {
            pid,
            parent: place.0,
            pgid: place.1,
            sid: place.2,
            subreaper: place.3,
            exit_signal: group.exit_signal.load(Ordering::SeqCst),
            execs: group.execs.load(Ordering::SeqCst),
            actions: actions_id,
            rlimits: state.rlimits.0.iter().map(|limit| (limit.soft, limit.hard)).collect(),
            pending: queue(&state.pending),
            dumpable: state.dumpable,
            membarrier: state.membarrier,
            oom_score_adj: state.oom_score_adj,
            unkillable: state.unkillable,
            timers: if zombie.is_none() { timers } else { rec::Timers::default() },
            job: super::processes::job(&state),
            ended: state.ended.to_numbers(),
            children: state.children.to_numbers(),
            leader: leader.filter(|_| zombie.is_none()),
            zombie,
        };
        drop(state);
        if self.meets(kind::ACTIONS, actions_id) {
            self.actions(actions_id, &actions)?;
        }
        self.add(kind::PROCESS, pid as u64, &record)
    }

    fn actions(&mut self, id: u64, actions: &Actions) -> Result<(), SaveError> {
        let row = |signal| {
            let action = actions.get(signal);
            [action.handler, action.flags, action.restorer, action.mask]
        };
        let table = (1..=quicksand_abi::signal::NSIG).map(row).collect();
        self.add(kind::ACTIONS, id, &rec::Actions { table })
    }

    fn task(&mut self, task: &Arc<Task>) -> Result<(), SaveError> {
        let (tid, pid) = (task.tid(), task.group().pid());
        let (Some(mm), Some(fds), Some(fs)) = (task.mm_opt(), task.files_opt(), task.fs_opt()) else {
            return Err(SaveError::Ended);
        };
        let fs_id = Arc::as_ptr(&fs).addr() as u64;
        let pending = queue(&task.signals.pending.lock());
        let used = task.usage().to_numbers();
        let record = {
            let state = task.state.lock();
            let guard = task.parked.lock();
            let Some(parked) = guard.as_deref() else {
                return unsupported(format!("thread {tid} has not stopped"));
            };
            if let Some(refusal) = parked.refusal {
                return unsupported(format!("thread {tid} {refusal}"));
            }
            let extended_state = parked.extended_state.clone().map_err(SaveError::Memory)?;
            let sched = &state.sched;
            rec::Task {
                tid,
                pid,
                mm: mm.id,
                fds: fds.id,
                fs: fs_id,
                creds: creds(&state.creds),
                name: state.name.clone(),
                clear_child_tid: state.clear_child_tid.0,
                robust_list: state.robust_list.0,
                pdeath_signal: state.pdeath_signal,
                no_new_privs: state.no_new_privs,
                personality: state.personality,
                timer_slack_ns: state.timer_slack_ns,
                mem_policy: state.mem_policy.bits(),
                sched: rec::Sched {
                    policy: sched.policy,
                    priority: sched.priority,
                    nice: sched.nice,
                    reset_on_fork: sched.reset_on_fork,
                    affinity: sched.affinity,
                    io_priority: sched.io_priority,
                },
                regs: registers(&parked.regs),
                extended_state,
                altstack: (parked.altstack.sp, parked.altstack.flags, parked.altstack.size),
                blocked: task.signals.blocked().0,
                saved_mask: parked.saved_mask,
                pending,
                call: parked.call.as_ref().map(call).transpose()?,
                restart_block: parked.restart_block.as_ref().map(call).transpose()?,
                restart: parked.restart.map(restart_code).transpose()?,
                trap: (parked.trap.number, parked.trap.error_code, parked.trap.cr2),
                vfork_parent: state.vfork_parent.as_ref().map(|parent| parent.pid()),
                used,
            }
        };
        self.add(kind::TASK, tid as u64, &record)?;
        if self.meets(kind::MM, mm.id) {
            self.memory(&mm)?;
        }
        if self.meets(kind::FDS, fds.id) {
            self.fds(&fds, pid)?;
        }
        if self.meets(kind::FS, fs_id) {
            self.fs(fs_id, &fs)?;
        }
        Ok(())
    }

    fn fds(&mut self, fds: &FdTable, pid: i32) -> Result<(), SaveError> {
        let mut open = Vec::new();
        let mut locks = Vec::new();
        let mut inodes = BTreeSet::new();
        for (fd, file, flags) in fds.open_fds() {
            // Each lock once, however many descriptors lead to its file.
            if inodes.insert(file.inode.id)
                && let Some(held) = file.inode.locks.get()
            {
                let own = |lock: &&Record| lock.owner == LockOwner::Table(fds.id);
                let row = |lock: &Record| (file.id, lock.start, lock.end, lock.exclusive, lock.pid);
                locks.extend(held.held().1.iter().filter(own).map(row));
            }
            self.file(&file, &format!("descriptor {} of process {pid}", fd.0))?;
            open.push((fd.0, file.id, flags.bits()));
        }
        self.add(kind::FDS, fds.id, &rec::Fds { open, locks })
    }

    fn fs(&mut self, id: u64, fs: &FsInfo) -> Result<(), SaveError> {
        if !Arc::ptr_eq(&fs.namespace(), &self.container.initial_fs().namespace()) {
            return unsupported("a process has a mount namespace of its own");
        }
        let root = self.path(&fs.root(), "a root directory")?;
        let cwd = self.path(&fs.cwd(), "a working directory")?;
        self.add(kind::FS, id, &rec::Fs { root, cwd, umask: fs.umask() })
    }

    /// A place by its path in the container, from which it can be found again.
    pub(super) fn path(&self, path: &Path, what: &str) -> Result<Vec<u8>, SaveError> {
        let text = path.text(&self.container.initial_fs().root());
        let shown = String::from_utf8_lossy(&text.text).into_owned();
        if text.deleted {
            return unsupported(format!("{what} was removed: {shown}"));
        }
        if !text.reachable || !text.text.starts_with(b"/") {
            return unsupported(format!("{what} cannot be reached from the root: {shown}"));
        }
        Ok(text.text)
    }

    fn memory(&mut self, mm: &Arc<MemoryManager>) -> Result<(), SaveError> {
        let (record, files, shared) = super::memory::describe(mm)?;
        self.shared.extend(shared.into_iter().map(|memory| (memory.id, memory)));
        for file in files {
            self.file(&file, "a mapped file")?;
        }
        self.spaces.insert(mm.id, mm.clone());
        self.add(kind::MM, mm.id, &record)
    }

    fn pages(&mut self) -> Result<(), SaveError> {
        for mm in std::mem::take(&mut self.spaces).into_values() {
            let (pages, zero_pages) = super::memory::save_pages(&mm, self.sink)?;
            self.saved.pages += pages;
            self.saved.zero_pages += zero_pages;
        }
        for memory in std::mem::take(&mut self.shared).into_values() {
            let size = super::memory::save_shared(&memory, self.sink, &mut self.saved.pages)?;
            self.add(kind::SHARED, memory.id, &rec::Shared { size, key: memory.key })?;
        }
        Ok(())
    }

    pub(super) fn stdio_number(&self, file: &OpenFile) -> Option<u8> {
        u8::try_from(self.container.stdio_number(file)?).ok()
    }
}

fn zombie(state: &GroupState) -> Option<rec::Zombie> {
    let (owner, name) = state.zombie.as_ref()?;
    let (code, signal, core_dumped) = match state.exit_status? {
        ExitStatus::Code(code) => (code, 0, false),
        ExitStatus::Signal { signal, core_dumped } => (0, signal, core_dumped),
    };
    Some(rec::Zombie { code, signal, core_dumped, creds: creds(owner), name: name.clone() })
}

fn queue(queue: &Queue) -> Vec<Vec<u8>> {
    queue.iter().map(|info| info.as_bytes().to_vec()).collect()
}

pub(super) fn creds(creds: &Credentials) -> rec::Creds {
    rec::Creds {
        uids: [creds.ruid, creds.euid, creds.suid, creds.fsuid],
        gids: [creds.rgid, creds.egid, creds.sgid, creds.fsgid],
        groups: creds.groups.clone(),
        caps: [creds.permitted, creds.effective, creds.inheritable, creds.bounding, creds.ambient]
            .map(|set| set.bits()),
        securebits: creds.securebits,
    }
}

fn registers(r: &quicksand_platform::Registers) -> [u64; 23] {
    [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx, r.rsi,
        r.rdi, r.orig_rax, r.rip, r.cs, r.eflags, r.rsp, r.ss, r.fs_base, r.gs_base,
    ]
}

fn restart_code(on_signal: OnSignal) -> Result<u8, SaveError> {
    Ok(match on_signal {
        OnSignal::Restart => 1,
        OnSignal::RestartNoHandler => 2,
        OnSignal::RestartAlways => 3,
        OnSignal::RestartBlock => 4,
        other => return unsupported(format!("an interrupted call is in a state of its own ({other:?})")),
    })
}

fn call(call: &RestartBlock) -> Result<rec::Call, SaveError> {
    let at = |deadline: Option<Monotonic>| deadline.map(|at| at.0);
    let resume = match &call.resume {
        Resume::None => rec::Resume::None,
        Resume::Transferred { bytes } => rec::Resume::Transferred { bytes: *bytes },
        Resume::Io { bytes, deadline } => rec::Resume::Io { bytes: *bytes, deadline: at(*deadline) },
        Resume::Deadline(deadline) => rec::Resume::Deadline(at(*deadline)),
        Resume::SavedMask { mask, deadline } => {
            rec::Resume::SavedMask { mask: *mask, deadline: at(*deadline) }
        }
        Resume::CpuSleep { until_ns } => rec::Resume::CpuSleep { until_ns: *until_ns },
        Resume::Messages { received, deadline } => {
            rec::Resume::Messages { received: *received, deadline: at(*deadline) }
        }
        Resume::Vfork { tid, .. } => rec::Resume::Vfork { tid: *tid },
        Resume::FifoMet => rec::Resume::FifoMet,
        Resume::Futex { .. } | Resume::Exec | Resume::FifoOpen { .. } => {
            return unsupported(format!("system call {} has gone half its way", call.number));
        }
    };
    Ok(rec::Call { number: call.number, args: call.args, resume })
}
