//! From an image to a container that runs on.
//!
//! The container has been made as a new one is: its root, its mounts. Restoring puts the files in memory back, then makes
//! address spaces, open files, processes and threads from their records, and starts the threads last, all of them: nothing
//! of the guest runs before everything is there.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quicksand_abi::signal::{SigAction, StackT};
use quicksand_abi::{Errno, SigInfo, UserAddr};
use quicksand_checkpoint::{Image, ImageError, WorkingSet};
use quicksand_platform::{PlatformError, Registers};
use zerocopy::FromBytes;

use super::records::{self as rec, kind};
use super::restore_files::{Files, Given};
use super::stages::Stages;
use crate::boot::Started;
use crate::kernel::Container;
use crate::mm::{MemoryManager, SharedMemory};
use crate::signal::{Actions, Queue, SignalSet};
use crate::syscalls::{OnSignal, Resume};
use crate::task::cputime::Usage;
use crate::task::credentials::Caps;
use crate::task::pid::{PID_MAX, Parentage};
use crate::task::run::TrapInfo;
use crate::task::{
    Credentials, CurrentTask, ExitStatus, FsInfo, RestartBlock, Rlimit, Rlimits, Task, TaskState,
    ThreadGroup, run, sched,
};
use crate::time::Monotonic;
use crate::vfs::locks::{self, LockOwner, Record};
use crate::vfs::walk::{WalkFlags, lookup_in};
use crate::vfs::{FdFlags, FdTable, OpenFile};

/// Why a container could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("the image was made by another version of this program (records {found}, here {})", rec::VERSION)]
    Version { found: u32 },
    #[error("the image needs another processor or platform: {0}")]
    Processor(String),
    #[error("the image is damaged: {0}")]
    Record(String),
    #[error("the container has no such mount now: {0}")]
    Mount(String),
    #[error("gone since the checkpoint: {0}")]
    Gone(String),
    #[error("cannot be opened again: {0}")]
    Socket(String),
    #[error("{0}")]
    Memory(String),
    #[error("a standard descriptor cannot be used: {0}")]
    Stdio(Errno),
    #[error("no host thread: {0}")]
    Thread(Errno),
    #[error(transparent)]
    Platform(#[from] PlatformError),
}

/// What a container is restored from.
#[derive(Debug)]
pub struct RestoreConfig {
    pub image: Arc<Image>,
    /// Takes the place of what the checkpointed container had.
    pub stdio: [OwnedFd; 3],
    /// The standard streams are one terminal, which is to be the container's.
    pub terminal: bool,
}

/// A container that goes on.
#[derive(Debug)]
pub struct Restored {
    /// Its first process.
    pub started: Started,
    /// How long each stage took, in their order.
    pub stages: Vec<(&'static str, Duration)>,
}

fn damaged<T>(what: impl Into<String>) -> Result<T, RestoreError> {
    Err(RestoreError::Record(what.into()))
}

/// A thread that is made and does not run yet.
struct Made {
    current: CurrentTask,
    call: Option<RestartBlock>,
    record: rec::Task,
}

/// A session's number, terminal, and foreground process group.
type SessionTty = (i32, Option<u64>, i32);

/// `open`, `creat`, `openat`, `openat2`.
const OPENS: [u64; 4] = [2, 85, 257, 437];

impl Made {
    /// Lets an opener of a FIFO be seen by others before any of them runs: one that does not wait for a partner must find it.
    fn begin_waiting(&mut self) {
        let opens = |call: &&mut RestartBlock| OPENS.contains(&call.number);
        let Some(call) = self.call.as_mut().filter(opens) else { return };
        self.call = self.current.begin_call(call.clone());
    }
}

impl Container {
    /// Makes the container what the image holds, and lets it go on. Nothing runs in it yet.
    pub fn restore(self: &Arc<Self>, config: RestoreConfig) -> Result<Restored, RestoreError> {
        let mut stages = Stages::begin("files in memory");
        let image = &*config.image;
        let sandbox: rec::Sandbox = image.section(rec::SANDBOX)?.read()?;
        self.check(&sandbox)?;
        super::identity::renew(self, &sandbox);
        super::lambda::restore(self, image)?;
        for id in ids(image, kind::TREE)? {
            super::trees::restore(self, &image.records(kind::TREE)?.read(id)?, image)?;
        }
        stages.enter("processes");
        let groups = self.groups(image)?;
        let mut made = self.tasks(image, &groups)?;
        let (stdio, terminal) = (config.stdio, config.terminal);
        let given = Given { stdio, terminal, console: sandbox.console.as_ref() };
        // First: a path may lead to a process.
        self.enter(image, &groups, &made, sandbox.last_pid)?;
        let sessions = self.furnish(image, given, &sandbox, &groups, &made, &mut stages)?;
        stages.enter("start");
        self.give_terminals(&sessions)?;
        let init = self.pids.group(sandbox.init).ok_or_else(|| {
            RestoreError::Record(format!("the first process, {}, is not there", sandbox.init))
        })?;
        for group in groups.values().filter(|group| !group.is_dead()) {
            let record: rec::Process = image.records(kind::PROCESS)?.read(group.pid() as u64)?;
            super::processes::restore_timers(&self.kernel, group, &record.timers)?;
            crate::task::cpu_limit::arm(&self.kernel, group);
        }
        for one in &mut made {
            one.begin_waiting();
        }
        for Made { current, call, .. } in made {
            let task = current.task().clone();
            if let Err(errno) = run::spawn_in_call(current, call) {
                crate::task::exit::abandon(&task);
                init.kill_all(ExitStatus::signal(libc::SIGKILL));
                return Err(RestoreError::Thread(errno));
            }
        }
        if let Some(api) = self.runtime_api() {
            api.thaw();
        }
        let started = Started { group: init, terminal: self.console().filter(|_| terminal) };
        Ok(Restored { started, stages: stages.end() })
    }

    fn check(&self, sandbox: &rec::Sandbox) -> Result<(), RestoreError> {
        if sandbox.version != rec::VERSION {
            return Err(RestoreError::Version { found: sandbox.version });
        }
        let platform = &self.kernel.platform;
        let here = (platform.xcr0(), platform.extended_state_len());
        let there = (sandbox.xcr0, sandbox.extended_state_len as usize);
        if there.0 & !here.0 != 0 {
            return Err(RestoreError::Processor(format!(
                "its programs use processor state {:#x}, and here is {:#x}",
                there.0, here.0
            )));
        }
        Ok(())
    }

    fn groups(&self, image: &Image) -> Result<BTreeMap<i32, Arc<ThreadGroup>>, RestoreError> {
        let mut all_actions: HashMap<u64, Arc<Actions>> = HashMap::new();
        let mut groups = BTreeMap::new();
        let table = image.records(kind::PROCESS)?;
        for id in ids(image, kind::PROCESS)? {
            let record: rec::Process = table.read(id)?;
            let pid = record.pid;
            if !(1..PID_MAX).contains(&pid) || id != pid as u64 {
                return damaged(format!("process {id}: its number"));
            }
            let actions = match all_actions.get(&record.actions) {
                Some(actions) => actions.clone(),
                None => {
                    let actions = actions(&image.records(kind::ACTIONS)?.read(record.actions)?)?;
                    all_actions.insert(record.actions, actions.clone());
                    actions
                }
            };
            let mut rlimits = Rlimits::default();
            if record.rlimits.len() != rlimits.0.len() {
                return damaged(format!("process {pid}: its limits"));
            }
            for (to, (soft, hard)) in rlimits.0.iter_mut().zip(&record.rlimits) {
                *to = Rlimit { soft: *soft.min(hard), hard: *hard };
            }
            let group = ThreadGroup::new(self.kernel.next_id(), pid, self.pids.clone(), actions, rlimits);
            group.exit_signal.store(record.exit_signal & 0x7f, Ordering::SeqCst);
            group.execs.store(record.execs, Ordering::SeqCst);
            {
                let mut state = group.state.lock();
                state.pending = queue(&record.pending)?;
                state.dumpable = record.dumpable;
                state.membarrier = record.membarrier;
                state.oom_score_adj = record.oom_score_adj;
                state.unkillable = record.unkillable;
                state.ended = Usage::from_numbers(record.ended);
                state.children = Usage::from_numbers(record.children);
                super::processes::restore_job(&mut state, &record.job);
                if let Some(zombie) = &record.zombie {
                    state.dead = true;
                    state.exit_status = Some(match zombie.signal {
                        0 => ExitStatus::Code(zombie.code),
                        signal => {
                            let signal = signal.clamp(1, quicksand_abi::signal::NSIG);
                            ExitStatus::Signal { signal, core_dumped: zombie.core_dumped }
                        }
                    });
                    state.zombie = Some((Arc::new(creds(&zombie.creds)), zombie.name.clone()));
                }
            }
            groups.insert(pid, group);
        }
        Ok(groups)
    }

    /// The threads, without memory, files and numbers.
    fn tasks(
        self: &Arc<Self>,
        image: &Image,
        groups: &BTreeMap<i32, Arc<ThreadGroup>>,
    ) -> Result<Vec<Made>, RestoreError> {
        let table = image.records(kind::TASK)?;
        let mut made = Vec::new();
        for id in ids(image, kind::TASK)? {
            let record: rec::Task = table.read(id)?;
            let tid = record.tid;
            let wrong = |what: &str| RestoreError::Record(format!("thread {tid}: {what}"));
            if !(1..PID_MAX).contains(&tid) || id != tid as u64 {
                return Err(wrong("its number"));
            }
            let group = groups.get(&record.pid).ok_or_else(|| wrong("its process"))?;
            let mm = MemoryManager::nowhere();
            let files = Arc::new(FdTable::default());
            let creds = Arc::new(creds(&record.creds));
            let fs = self.initial_fs();
            let mut state = TaskState::new(mm.clone(), files.clone(), fs, creds);
            state.name = record.name.iter().copied().take(15).collect();
            state.clear_child_tid = UserAddr(record.clear_child_tid);
            state.robust_list = UserAddr(record.robust_list);
            state.pdeath_signal = record.pdeath_signal.clamp(0, 64);
            state.no_new_privs = record.no_new_privs;
            state.personality = record.personality;
            state.timer_slack_ns = record.timer_slack_ns;
            let policy = crate::mm::numa::MemPolicy::from_bits(record.mem_policy);
            state.mem_policy = policy.ok_or_else(|| wrong("its memory policy"))?;
            let s = record.sched;
            state.sched = sched::SchedState {
                policy: s.policy,
                priority: s.priority,
                nice: s.nice.clamp(-20, 19),
                reset_on_fork: s.reset_on_fork,
                affinity: s.affinity,
                io_priority: s.io_priority,
            };
            let mut context = self.kernel.platform.context()?;
            // Components that this platform has and the image has not are in their initial state: zero.
            let mut extended = record.extended_state.clone();
            extended.resize(self.kernel.platform.extended_state_len(), 0);
            context.set_extended_state(&extended)?;
            let regs = registers(&record.regs, &wrong)?;
            let kernel = self.kernel.clone();
            let task = Task::new(kernel.next_id(), tid, kernel, self.clone(), group.clone(), state);
            task.signals.set_blocked(SignalSet(record.blocked));
            task.cpu.go_on_from(&Usage::from_numbers(record.used));
            *task.signals.pending.lock() = queue(&record.pending)?;
            let current = CurrentTask::new(task, regs, context, mm, files);
            let (sp, flags, size) = record.altstack;
            current.altstack.set(StackT { sp, flags, size, ..StackT::default() });
            current.saved_mask.set(record.saved_mask);
            let (number, error_code, cr2) = record.trap;
            current.trap.set(TrapInfo { number, error_code, cr2 });
            current.restart.set(record.restart.map(|code| on_signal(code, &wrong)).transpose()?);
            *current.restart_block.borrow_mut() = record.restart_block.as_ref().map(call);
            // Signals that are pending are looked at before anything else.
            current.set_work(crate::task::Work::SIGNAL);
            made.push(Made { call: record.call.as_ref().map(call), current, record });
        }
        let ids: HashMap<i32, u64> = made.iter().map(|one| (one.record.tid, one.current.id)).collect();
        for one in &mut made {
            let parent = one.record.vfork_parent.map(|pid| groups.get(&pid).cloned());
            if let Some(parent) = parent {
                let wrong = || RestoreError::Record(format!("thread {}: its parent", one.record.tid));
                one.current.state.lock().vfork_parent = Some(parent.ok_or_else(wrong)?);
            }
            if let Some(RestartBlock { resume: Resume::Vfork { task, tid }, .. }) = &mut one.call {
                // One that is not there has ended: nobody is waited for.
                *task = ids.get(tid).copied().unwrap_or(0);
            }
        }
        if made.is_empty() { damaged("it holds no thread") } else { Ok(made) }
    }

    /// Gives the threads their memory, files and directories. Returns the sessions with their terminals.
    fn furnish(
        self: &Arc<Self>,
        image: &Image,
        given: Given<'_>,
        sandbox: &rec::Sandbox,
        groups: &BTreeMap<i32, Arc<ThreadGroup>>,
        made: &[Made],
        stages: &mut Stages,
    ) -> Result<Vec<SessionTty>, RestoreError> {
        let Some(first) = made.first() else { return damaged("it holds no thread") };
        let vdso = self.kernel.clocks.keeper.vdso_memory();
        let working_set = image.working_set().unwrap_or_else(|error| {
            tracing::warn!("{error}");
            None
        });
        let working_set = Arc::new(working_set.unwrap_or_default());
        let mut files = Files::new(self, image, given, &first.current, groups)?;
        let mut spaces: HashMap<u64, Arc<MemoryManager>> = HashMap::new();
        let mut shared: HashMap<u64, (Arc<SharedMemory>, u64)> = HashMap::new();
        let shared_of = &mut |id| match shared.get(&id) {
            Some(known) => Ok(known.clone()),
            None => {
                let stored: rec::Shared = image.records(kind::SHARED)?.read(id)?;
                let memory = super::memory::restore_shared(id, &stored, image)?;
                shared.insert(id, (memory.clone(), stored.size));
                Ok((memory, stored.size))
            }
        };
        super::ipc::restore(self, image, groups, sandbox.ipc_generations, shared_of)?;
        let mut tables: HashMap<u64, Arc<FdTable>> = HashMap::new();
        let mut views: HashMap<u64, Arc<FsInfo>> = HashMap::new();
        for one in made.iter() {
            let record = &one.record;
            let mm = match spaces.get(&record.mm) {
                Some(mm) => mm.clone(),
                None => {
                    stages.enter("address spaces");
                    let mm = MemoryManager::new(self.kernel.platform.address_space()?);
                    stages.enter("memory");
                    let space: rec::Mm = image.records(kind::MM)?.read(record.mm)?;
                    let file_of = &mut |id| files.get(id);
                    super::memory::restore(&mm, record.mm, &space, image, vdso.as_ref(), file_of, shared_of)?;
                    super::identity::renew_memory(&self.kernel, &mm);
                    prefetch(&mm, record.mm, &working_set);
                    spaces.insert(record.mm, mm.clone());
                    mm
                }
            };
            stages.enter("files");
            let table = match tables.get(&record.fds) {
                Some(table) => table.clone(),
                None => {
                    let stored: rec::Fds = image.records(kind::FDS)?.read(record.fds)?;
                    let table = Arc::new(FdTable::default());
                    for (file, start, end, exclusive, pid) in stored.locks {
                        let owner = LockOwner::Table(table.id);
                        put_back(&*files.get(file)?, Record { owner, start, end, exclusive, pid })?;
                    }
                    for (fd, file, flags) in stored.open {
                        let flags = FdFlags::from_bits_truncate(flags);
                        let file = files.get_as(fd, file)?;
                        let placed = table.install_at(crate::syscalls::Fd(fd), file, flags, u64::MAX);
                        if placed.is_err() {
                            return damaged(format!("descriptor {fd}"));
                        }
                    }
                    tables.insert(record.fds, table.clone());
                    table
                }
            };
            let fs = match views.get(&record.fs) {
                Some(fs) => fs.clone(),
                None => {
                    let fs = self.view(&image.records(kind::FS)?.read(record.fs)?)?;
                    views.insert(record.fs, fs.clone());
                    fs
                }
            };
            files.watch()?;
            one.current.set_mm(mm);
            one.current.set_files(table);
            let old = one.current.state.lock().fs.replace(fs);
            drop(old);
            stages.enter("processes");
        }
        files.seal();
        files.sessions(&sandbox.sessions)
    }

    /// What stands for the first thread of a process that has ended.
    fn ended_leader(self: &Arc<Self>, group: &Arc<ThreadGroup>, leader: Option<&rec::Leader>) -> Arc<Task> {
        let creds = match leader {
            Some(leader) => Arc::new(creds(&leader.creds)),
            None => group.credentials().unwrap_or_else(|| Arc::new(creds(&rec::Creds::default()))),
        };
        let files = Arc::new(FdTable::default());
        let mut state = TaskState::new(MemoryManager::nowhere(), files, self.initial_fs(), creds);
        (state.mm, state.files, state.fs) = (None, None, None);
        state.name = leader.map_or_else(|| group.name(), |l| l.name.iter().copied().take(15).collect());
        let kernel = self.kernel.clone();
        Task::new(kernel.next_id(), group.pid(), kernel, self.clone(), group.clone(), state)
    }

    fn view(&self, record: &rec::Fs) -> Result<Arc<FsInfo>, RestoreError> {
        let base = self.initial_fs();
        let find = |path: &[u8]| {
            let found = lookup_in(&base.root(), path, WalkFlags::empty());
            let found = found.ok().filter(|at| at.dentry.inode.is_dir());
            found
                .ok_or_else(|| RestoreError::Gone(format!("the directory {}", String::from_utf8_lossy(path))))
        };
        let fs = FsInfo::new(find(&record.root)?, find(&record.cwd)?, 0, base.namespace());
        fs.set_umask(record.umask);
        Ok(fs)
    }

    /// Gives processes and threads their numbers. Nothing runs yet that could see them.
    fn enter(
        self: &Arc<Self>,
        image: &Image,
        groups: &BTreeMap<i32, Arc<ThreadGroup>>,
        made: &[Made],
        last_pid: i32,
    ) -> Result<(), RestoreError> {
        let mut left: Vec<rec::Process> = Vec::new();
        for pid in groups.keys() {
            left.push(image.records(kind::PROCESS)?.read(*pid as u64)?);
        }
        // Whose children a process's are: its first thread's, or, where that has ended, any other's.
        let mut leaders: HashMap<i32, u64> = HashMap::new();
        for one in made {
            let first = one.record.tid == one.record.pid;
            if first || !leaders.contains_key(&one.record.pid) {
                leaders.insert(one.record.pid, one.current.id);
            }
        }
        let of_zombies = made.iter().any(|m| m.current.group().is_dead());
        for process in &left {
            let first = made.iter().any(|m| m.record.tid == process.pid);
            let there = process.zombie.is_some() || first != process.leader.is_some();
            let lives = leaders.contains_key(&process.pid) != process.zombie.is_some();
            if !there || !lives || of_zombies {
                return damaged(format!("process {}: its first thread", process.pid));
            }
        }
        for one in made {
            let mut state = one.current.group().state.lock();
            let task = one.current.task().clone();
            let at = if one.record.tid == one.record.pid { 0 } else { state.tasks.len() };
            state.tasks.insert(at, task);
        }
        let mut tables = self.pids.lock();
        if !tables.procs.is_empty() || tables.dying {
            return damaged("something runs in the container already");
        }
        // Parents first: a process is put among its parent's children.
        while !left.is_empty() {
            let before = left.len();
            left.retain(|process| {
                let parent_there = process.parent == 0 || tables.procs.contains_key(&process.parent);
                let Some(group) = groups.get(&process.pid).filter(|_| parent_there) else { return true };
                let place = Parentage {
                    parent: process.parent,
                    parent_task: leaders.get(&process.parent).copied().unwrap_or(0),
                    pgid: process.pgid,
                    sid: process.sid,
                };
                tables.insert_process(group, place);
                let gone = group.is_dead() || process.leader.is_some();
                let ended = gone.then(|| self.ended_leader(group, process.leader.as_ref()));
                if let Some(proc) = tables.procs.get_mut(&process.pid) {
                    proc.subreaper = process.subreaper;
                    let zombie = ended.as_ref().filter(|_| group.is_dead());
                    proc.zombie_uid = zombie.map_or(0, |task| task.creds().ruid);
                    proc.ended_leader = ended;
                }
                if group.is_dead() {
                    tables.count_user(group.credentials().map_or(0, |c| c.ruid));
                }
                false
            });
            if left.len() == before {
                return damaged("a process whose parent is not there");
            }
        }
        for one in made {
            tables.tasks.insert(one.record.tid, one.current.task().clone());
            tables.count_user(one.current.creds().ruid);
        }
        tables.go_on_from(last_pid);
        Ok(())
    }

    /// Gives sessions their terminals.
    fn give_terminals(&self, sessions: &[SessionTty]) -> Result<(), RestoreError> {
        let mut tables = self.pids.lock();
        for (sid, tty, foreground) in sessions {
            let session = tables.sessions.get_mut(sid);
            let session = session.ok_or_else(|| RestoreError::Record(format!("session {sid}")))?;
            (session.tty, session.foreground) = (*tty, *foreground);
        }
        Ok(())
    }
}

/// Fetches beside everything else what will be used.
fn prefetch(mm: &Arc<MemoryManager>, id: u64, set: &Arc<WorkingSet>) {
    if set.runs.iter().all(|run| run.space != id) {
        return;
    }
    let (mm, set) = (mm.clone(), set.clone());
    let fetch = move || super::memory::prefetch(&mm, id, &set);
    // Without a thread, each page comes when it is used.
    let _ = std::thread::Builder::new().name("prefetch".into()).spawn(fetch);
}

/// A lock that was held.
pub(super) fn put_back(file: &OpenFile, lock: Record) -> Result<(), RestoreError> {
    if lock.start > lock.end || lock.end > locks::LAST {
        return damaged("a lock's range");
    }
    locks::of(&file.inode).put_back(None, Some(lock));
    Ok(())
}

pub(super) fn ids(image: &Image, kind: &str) -> Result<Vec<u64>, RestoreError> {
    if !image.kinds().any(|k| k == kind) {
        return Ok(Vec::new());
    }
    Ok(image.records(kind)?.ids().collect())
}

fn queue(stored: &[Vec<u8>]) -> Result<Queue, RestoreError> {
    let mut queue = Queue::default();
    for bytes in stored {
        match SigInfo::read_from_bytes(bytes) {
            Ok(info) if crate::signal::is_valid(info.signo) => {
                queue.push(info);
            }
            _ => return damaged("a pending signal"),
        }
    }
    Ok(queue)
}

fn actions(record: &rec::Actions) -> Result<Arc<Actions>, RestoreError> {
    let actions = Actions::default();
    if record.table.len() != quicksand_abi::signal::NSIG as usize {
        return damaged("signal actions");
    }
    for (signal, [handler, flags, restorer, mask]) in (1..).zip(&record.table) {
        let unblockable = SignalSet::UNBLOCKABLE.contains(signal);
        let handler = if unblockable { quicksand_abi::signal::SIG_DFL } else { *handler };
        actions.set(signal, SigAction { handler, flags: *flags, restorer: *restorer, mask: *mask });
    }
    Ok(Arc::new(actions))
}

pub(super) fn creds(record: &rec::Creds) -> Credentials {
    let [ruid, euid, suid, fsuid] = record.uids;
    let [rgid, egid, sgid, fsgid] = record.gids;
    let [permitted, effective, inheritable, bounding, ambient] = record.caps.map(Caps::from_bits_truncate);
    let mut groups = record.groups.clone();
    groups.sort_unstable();
    Credentials {
        ruid,
        euid,
        suid,
        fsuid,
        rgid,
        egid,
        sgid,
        fsgid,
        groups,
        permitted,
        effective: effective & permitted,
        inheritable,
        bounding,
        ambient,
        securebits: record.securebits,
    }
}

fn registers(stored: &[u64; 23], wrong: &dyn Fn(&str) -> RestoreError) -> Result<Registers, RestoreError> {
    let [
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        orig_rax,
        rip,
        cs,
        eflags,
        rsp,
        ss,
        fs_base,
        gs_base,
    ] = *stored;
    if fs_base >= UserAddr::TASK_SIZE.0 || gs_base >= UserAddr::TASK_SIZE.0 {
        return Err(wrong("its thread pointer"));
    }
    Ok(Registers {
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        orig_rax,
        rip,
        cs,
        eflags,
        rsp,
        ss,
        fs_base,
        gs_base,
    })
}

fn on_signal(code: u8, wrong: &dyn Fn(&str) -> RestoreError) -> Result<OnSignal, RestoreError> {
    Ok(match code {
        1 => OnSignal::Restart,
        2 => OnSignal::RestartNoHandler,
        3 => OnSignal::RestartAlways,
        4 => OnSignal::RestartBlock,
        _ => return Err(wrong("how its call restarts")),
    })
}

fn call(record: &rec::Call) -> RestartBlock {
    let at = |deadline: Option<u64>| deadline.map(Monotonic);
    let resume = match record.resume {
        rec::Resume::None => Resume::None,
        rec::Resume::Transferred { bytes } => Resume::Transferred { bytes },
        rec::Resume::Io { bytes, deadline } => Resume::Io { bytes, deadline: at(deadline) },
        rec::Resume::Deadline(deadline) => Resume::Deadline(at(deadline)),
        rec::Resume::SavedMask { mask, deadline } => Resume::SavedMask { mask, deadline: at(deadline) },
        rec::Resume::CpuSleep { until_ns } => Resume::CpuSleep { until_ns },
        // Which task that is, is filled in when all are there.
        rec::Resume::Vfork { tid } => Resume::Vfork { task: 0, tid },
        rec::Resume::FifoMet => Resume::FifoMet,
        rec::Resume::Messages { received, deadline } => Resume::Messages { received, deadline: at(deadline) },
    };
    RestartBlock { number: record.number, args: record.args, resume }
}
