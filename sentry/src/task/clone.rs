//! `clone(2)`, `clone3(2)`, `fork(2)`, `vfork(2)`, `unshare(2)`, `setns(2)`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quicksand_abi::signal::{SS_DISABLE, StackT};
use quicksand_abi::task::{CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, CloneArgs};
use quicksand_abi::{Errno, PAGE_SIZE, UserAddr};
use zerocopy::{FromZeros, IntoBytes};

use super::credentials::Caps;
use super::pid::Parentage;
use super::{CurrentTask, Resource, Task, TaskState, ThreadGroup, Work, run};
use crate::sync::Events;
use crate::syscalls::{Blocked, Fd, OnSignal, Resume, SyscallResult};

const fn flag(f: i32) -> u64 {
    f as u32 as u64
}
const VM: u64 = flag(libc::CLONE_VM);
const FS: u64 = flag(libc::CLONE_FS);
const FILES: u64 = flag(libc::CLONE_FILES);
const SIGHAND: u64 = flag(libc::CLONE_SIGHAND);
const PIDFD: u64 = flag(libc::CLONE_PIDFD);
const VFORK: u64 = flag(libc::CLONE_VFORK);
const PARENT: u64 = flag(libc::CLONE_PARENT);
const THREAD: u64 = flag(libc::CLONE_THREAD);
const NEWNS: u64 = flag(libc::CLONE_NEWNS);
const SYSVSEM: u64 = flag(libc::CLONE_SYSVSEM);
const SETTLS: u64 = flag(libc::CLONE_SETTLS);
const PARENT_SETTID: u64 = flag(libc::CLONE_PARENT_SETTID);
const CHILD_CLEARTID: u64 = flag(libc::CLONE_CHILD_CLEARTID);
const DETACHED: u64 = flag(libc::CLONE_DETACHED);
const UNTRACED: u64 = flag(libc::CLONE_UNTRACED);
const CHILD_SETTID: u64 = flag(libc::CLONE_CHILD_SETTID);
const NEWCGROUP: u64 = flag(libc::CLONE_NEWCGROUP);
const NEWUTS: u64 = flag(libc::CLONE_NEWUTS);
const NEWIPC: u64 = flag(libc::CLONE_NEWIPC);
const NEWUSER: u64 = flag(libc::CLONE_NEWUSER);
const NEWPID: u64 = flag(libc::CLONE_NEWPID);
const NEWNET: u64 = flag(libc::CLONE_NEWNET);
const NEWTIME: u64 = 0x80;
const IO: u64 = flag(libc::CLONE_IO);
const PTRACE: u64 = flag(libc::CLONE_PTRACE);
const CSIGNAL: u64 = 0xff;

/// Namespaces, with their names for the log.
const NAMESPACES: &[(u64, &str)] = &[
    (NEWNS, "mount namespaces (CLONE_NEWNS)"),
    (NEWCGROUP, "cgroup namespaces (CLONE_NEWCGROUP)"),
    (NEWUTS, "UTS namespaces (CLONE_NEWUTS)"),
    (NEWIPC, "IPC namespaces (CLONE_NEWIPC)"),
    (NEWUSER, "user namespaces (CLONE_NEWUSER)"),
    (NEWPID, "pid namespaces (CLONE_NEWPID)"),
    (NEWNET, "network namespaces (CLONE_NEWNET)"),
    (NEWTIME, "time namespaces (CLONE_NEWTIME)"),
];

/// The smallest `clone_args` and the one we know.
const ARGS_SIZE_0: usize = 64;
const ARGS_SIZE: usize = size_of::<CloneArgs>();

/// `clone(2)`, with x86-64's order of arguments.
pub fn sys_clone(
    task: &CurrentTask,
    flags: u64,
    stack: UserAddr,
    parent_tid: UserAddr,
    child_tid: UserAddr,
    tls: u64,
) -> SyscallResult {
    // Only 32 bits of flags exist here.
    let flags = flags & 0xffff_ffff;
    let args = CloneArgs {
        flags: flags & !CSIGNAL,
        pidfd: parent_tid.0,
        child_tid: child_tid.0,
        parent_tid: parent_tid.0,
        exit_signal: flags & CSIGNAL,
        stack: stack.0,
        tls,
        ..CloneArgs::default()
    };
    if flags & PIDFD != 0
        && flags & PARENT_SETTID != 0
        && task.wake_reason() == crate::syscalls::WakeReason::First
    {
        return Err(Errno::EINVAL.into());
    }
    clone_or_wait(task, &args, &[])
}

/// `fork(2)`.
pub fn sys_fork(task: &CurrentTask) -> SyscallResult {
    let args = CloneArgs { exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    clone_or_wait(task, &args, &[])
}

/// `vfork(2)`.
pub fn sys_vfork(task: &CurrentTask) -> SyscallResult {
    let args = CloneArgs { flags: VFORK | VM, exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    clone_or_wait(task, &args, &[])
}

/// `clone3(2)`.
pub fn sys_clone3(task: &CurrentTask, at: UserAddr, size: usize) -> SyscallResult {
    if let Resume::Vfork { .. } = &*task.resume.borrow() {
        // Called again: the arguments have been used.
    } else {
        let (args, set_tid) = read_clone3(task, at, size)?;
        return clone_or_wait(task, &args, &set_tid);
    }
    clone_or_wait(task, &CloneArgs::default(), &[])
}

fn read_clone3(task: &CurrentTask, at: UserAddr, size: usize) -> Result<(CloneArgs, Vec<i32>), Errno> {
    if size as u64 > PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    if size < ARGS_SIZE_0 {
        return Err(Errno::EINVAL);
    }
    let mut bytes = [0; PAGE_SIZE as usize];
    task.read_bytes(at, &mut bytes[..size])?;
    if bytes[ARGS_SIZE.min(size)..size].iter().any(|b| *b != 0) {
        return Err(Errno::E2BIG);
    }
    let mut args = CloneArgs::new_zeroed();
    args.as_mut_bytes().copy_from_slice(&bytes[..ARGS_SIZE]);
    if args.set_tid_size > 32 || (args.set_tid == 0) != (args.set_tid_size == 0) {
        return Err(Errno::EINVAL);
    }
    if args.exit_signal & !CSIGNAL != 0 || args.exit_signal > quicksand_abi::signal::NSIG as u64 {
        return Err(Errno::EINVAL);
    }
    let known = VM
        | FS
        | FILES
        | SIGHAND
        | PIDFD
        | PTRACE
        | VFORK
        | PARENT
        | THREAD
        | SYSVSEM
        | SETTLS
        | PARENT_SETTID
        | CHILD_CLEARTID
        | UNTRACED
        | CHILD_SETTID
        | IO
        | CLONE_CLEAR_SIGHAND
        | CLONE_INTO_CGROUP
        | NAMESPACES.iter().fold(0, |all, (f, _)| all | f);
    if args.flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    if args.flags & SIGHAND != 0 && args.flags & CLONE_CLEAR_SIGHAND != 0 {
        return Err(Errno::EINVAL);
    }
    if args.flags & (THREAD | PARENT) != 0 && args.exit_signal != 0 {
        return Err(Errno::EINVAL);
    }
    if (args.stack == 0) != (args.stack_size == 0) {
        return Err(Errno::EINVAL);
    }
    if args.stack != 0 {
        // The stack is given by its lowest byte here.
        args.stack = args
            .stack
            .checked_add(args.stack_size)
            .filter(|end| *end <= UserAddr::TASK_SIZE.0)
            .ok_or(Errno::EINVAL)?;
    }
    if args.flags & CLONE_INTO_CGROUP != 0 {
        task.kernel().log_unsupported("clone3: CLONE_INTO_CGROUP", Errno::EOPNOTSUPP);
        return Err(Errno::EOPNOTSUPP);
    }
    let set_tid = match args.set_tid_size {
        0 => Vec::new(),
        n => {
            let tids = task.read_array::<i32>(UserAddr(args.set_tid), n as usize)?;
            // There is one level of pid namespaces.
            if tids.len() > 1 {
                return Err(Errno::EINVAL);
            }
            if !task.creds().effective.intersects(Caps::CHECKPOINT_RESTORE | Caps::SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            tids
        }
    };
    Ok((args, set_tid))
}

/// What `copy_process` refuses, in its order.
fn check_flags(task: &CurrentTask, flags: u64) -> Result<(), Errno> {
    let both = |a, b| flags & a != 0 && flags & b != 0;
    if both(NEWNS, FS) || both(NEWUSER, FS) {
        return Err(Errno::EINVAL);
    }
    if flags & THREAD != 0 && flags & SIGHAND == 0 || flags & SIGHAND != 0 && flags & VM == 0 {
        return Err(Errno::EINVAL);
    }
    if flags & PARENT != 0 && task.group().state.lock().unkillable {
        return Err(Errno::EINVAL);
    }
    if flags & THREAD != 0 && flags & (NEWUSER | NEWPID) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & PIDFD != 0 && flags & (DETACHED | THREAD) != 0 {
        return Err(Errno::EINVAL);
    }
    refuse_namespaces(task, flags)
}

/// New namespaces are not made inside a sandbox: EPERM without CAP_SYS_ADMIN, else EINVAL as from a kernel built without
/// them.
fn refuse_namespaces(task: &CurrentTask, flags: u64) -> Result<(), Errno> {
    let Some((flag, name)) = NAMESPACES.iter().find(|(f, _)| flags & f != 0) else { return Ok(()) };
    let errno =
        if *flag != NEWUSER && !task.creds().has(Caps::SYS_ADMIN) { Errno::EPERM } else { Errno::EINVAL };
    task.kernel().log_unsupported(name, errno);
    Err(errno)
}

fn clone_or_wait(task: &CurrentTask, args: &CloneArgs, set_tid: &[i32]) -> SyscallResult {
    if let Resume::Vfork { task: id, tid } = task.take_resume() {
        return wait_for_vfork(task, id, tid);
    }
    let child = clone_task(task, args, set_tid)?;
    if args.flags & VFORK != 0 {
        return wait_for_vfork(task, child.id, child.tid());
    }
    Ok(child.tid() as usize)
}

/// Until the child has its own memory or none.
fn wait_for_vfork(task: &CurrentTask, id: u64, tid: i32) -> SyscallResult {
    let waits = task.pids().task(tid).is_some_and(|t| t.id == id && t.state.lock().vfork_parent.is_some());
    if !waits {
        return Ok(tid as usize);
    }
    Err(Blocked::on(task.group().child_queue.clone(), Events::IN)
        .resume(Resume::Vfork { task: id, tid })
        .on_signal(OnSignal::Killable)
        .into())
}

/// Makes the new task and starts it (`kernel_clone`).
fn clone_task(task: &CurrentTask, args: &CloneArgs, set_tid: &[i32]) -> Result<Arc<Task>, Errno> {
    let flags = args.flags;
    check_flags(task, flags)?;
    if flags & SETTLS != 0 && args.tls >= UserAddr::TASK_SIZE.0 {
        return Err(Errno::EPERM);
    }
    let kernel = task.kernel();
    let failed = |e: quicksand_platform::PlatformError| {
        tracing::warn!("clone: {e}");
        Errno::EAGAIN
    };

    let mm = if flags & VM != 0 { task.mm() } else { task.mm().fork()? };
    let files = if flags & FILES != 0 { task.files() } else { Arc::new(task.files().duplicate()) };
    let fs = if flags & FS != 0 { task.fs() } else { task.fs().duplicate() };
    let mut context = kernel.platform.context().map_err(failed)?;
    {
        let mut state = vec![0; kernel.platform.extended_state_len()];
        task.context.borrow_mut().get_extended_state(&mut state).map_err(failed)?;
        context.set_extended_state(&state).map_err(failed)?;
    }
    let mut regs = *task.regs.borrow();
    regs.rax = 0;
    regs.orig_rax = u64::MAX;
    if args.stack != 0 {
        regs.rsp = args.stack;
    }
    if flags & SETTLS != 0 {
        regs.fs_base = args.tls;
    }

    let state = {
        let own = task.state.lock();
        TaskState {
            mm: Some(mm.clone()),
            files: Some(files.clone()),
            fs: Some(fs),
            creds: own.creds.clone(),
            name: own.name.clone(),
            clear_child_tid: if flags & CHILD_CLEARTID != 0 {
                UserAddr(args.child_tid)
            } else {
                UserAddr::NULL
            },
            robust_list: UserAddr::NULL,
            pdeath_signal: 0,
            no_new_privs: own.no_new_privs,
            sched: own.sched.for_child(),
            personality: own.personality,
            mem_policy: own.mem_policy,
            timer_slack_ns: own.timer_slack_ns,
            vfork_parent: (flags & VFORK != 0).then(|| task.group().clone()),
        }
    };
    // The group is made before the numbers are locked: it copies tables.
    let new_group = if flags & THREAD != 0 { None } else { Some(new_group(task, flags)?) };
    let (pidfd, pidfd_file) = match (&new_group, flags & PIDFD != 0) {
        (Some(group), true) => {
            let file = super::pidfd::new_file(kernel, group, false);
            let fd = task.install_fd(file.clone(), crate::vfs::FdFlags::CLOEXEC)?;
            (Some(fd), Some(file))
        }
        _ => (None, None),
    };
    let undo_pidfd = |e: Errno| {
        if let Some(fd) = pidfd {
            // It was installed just now; another thread may have closed it.
            let _ = task.files().remove(fd);
        }
        e
    };
    let inserted = insert(task, state, new_group, args, set_tid).map_err(undo_pidfd);
    drop(pidfd_file);
    let child = inserted?;

    if flags & THREAD == 0 {
        super::cpu_limit::arm(kernel, child.group());
    }
    let tid = child.tid();
    // As Linux: where the words cannot be written, the clone goes on all the same.
    if let Some(Fd(fd)) = pidfd {
        let _ = task.write_object(UserAddr(args.pidfd), &fd);
    }
    if flags & PARENT_SETTID != 0 {
        let _ = task.write_object(UserAddr(args.parent_tid), &tid);
    }
    if flags & CHILD_SETTID != 0 {
        let _ = mm.write_bytes(UserAddr(args.child_tid), &tid.to_ne_bytes());
    }
    let current = CurrentTask::new(child.clone(), regs, context, mm, files);
    if flags & VM == 0 || flags & VFORK != 0 {
        current.altstack.set(task.altstack.get());
    } else {
        current.altstack.set(StackT { flags: SS_DISABLE, ..StackT::default() });
    }
    if let Err(e) = run::spawn(current) {
        super::exit::abandon(&child);
        return Err(undo_pidfd(e));
    }
    Ok(child)
}

/// A process without tasks and without a number yet.
fn new_group(task: &CurrentTask, flags: u64) -> Result<NewGroup, Errno> {
    let own = task.group().state.lock();
    let actions = if flags & SIGHAND != 0 {
        own.actions.clone()
    } else if flags & CLONE_CLEAR_SIGHAND != 0 {
        own.actions.cleared()
    } else {
        own.actions.duplicate()
    };
    let group = ThreadGroup::new(task.kernel().next_id(), 0, task.pids().clone(), actions, own.rlimits);
    let dumpable = own.dumpable;
    let membarrier = own.membarrier;
    let oom_score_adj = own.oom_score_adj;
    drop(own);
    {
        let mut new = group.state.lock();
        new.dumpable = dumpable;
        new.membarrier = membarrier;
        new.oom_score_adj = oom_score_adj;
    }
    Ok(group)
}

type NewGroup = Arc<ThreadGroup>;

/// Gives the task its number and its place. From here on others can see it.
fn insert(
    task: &CurrentTask,
    state: TaskState,
    new_group: Option<NewGroup>,
    args: &CloneArgs,
    set_tid: &[i32],
) -> Result<Arc<Task>, Errno> {
    let creds = state.creds.clone();
    let exempt = creds.ruid == 0 || creds.effective.intersects(Caps::SYS_RESOURCE | Caps::SYS_ADMIN);
    let nproc = (!exempt).then(|| task.group().rlimit(Resource::Nproc).soft);
    let pids = task.pids();
    let mut tables = pids.lock();
    tables.check_limits(pids.limit().unwrap_or(u64::MAX), creds.ruid, nproc)?;
    let tid = match set_tid.first() {
        Some(number) => tables.allocate_exact(*number)?,
        None => tables.allocate()?,
    };
    let group = new_group.clone().unwrap_or_else(|| task.group().clone());
    let child = Task::new(
        task.kernel().next_id(),
        tid,
        task.kernel().clone(),
        task.container().clone(),
        group.clone(),
        state,
    );
    child.signals.set_blocked(match task.saved_mask.get() {
        Some(saved) => crate::signal::SignalSet(saved),
        None => task.signals.blocked(),
    });
    {
        // A killed parent has no more children; a stopping group stops the new thread too.
        let own = task.group().state.lock();
        if own.exit_status.is_some() || task.has_work(Work::KILL) {
            return Err(Errno::EINTR);
        }
        if own.stop.signal.is_some() && new_group.is_none() {
            child.set_work(Work::SIGNAL);
        }
    }
    match new_group {
        None => {
            let mut own = group.state.lock();
            if own.exit_status.is_some() || own.exec.is_some() {
                return Err(Errno::EINTR);
            }
            own.tasks.push(child.clone());
        }
        Some(_) => {
            group.set_pid(tid);
            group.exit_signal.store(args.exit_signal as i32, Ordering::SeqCst);
            group.state.lock().tasks.push(child.clone());
            let own = tables.procs.get(&task.group().pid()).ok_or(Errno::EINTR)?;
            let (pgid, sid) = (own.pgid, own.sid);
            let (parent, parent_task) = if args.flags & PARENT != 0 {
                group.exit_signal.store(task.group().exit_signal.load(Ordering::SeqCst), Ordering::SeqCst);
                (own.parent, own.parent_task)
            } else {
                (task.group().pid(), task.id)
            };
            tables.insert_process(&group, Parentage { parent, parent_task, pgid, sid });
        }
    }
    tables.tasks.insert(tid, child.clone());
    tables.count_user(creds.ruid);
    Ok(child)
}

/// `unshare(2)`.
pub fn sys_unshare(task: &CurrentTask, flags: u64) -> SyscallResult {
    let namespaces = NAMESPACES.iter().fold(0, |all, (f, _)| all | f);
    if flags & !(THREAD | FS | SIGHAND | VM | FILES | SYSVSEM | namespaces) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let threads = task.group().state.lock().tasks.len();
    // These are only possible where there is nothing to part from.
    if flags & (THREAD | SIGHAND | VM | NEWUSER) != 0 && threads > 1 {
        return Err(Errno::EINVAL.into());
    }
    refuse_namespaces(task, flags)?;
    if flags & FS != 0 {
        let fs = task.fs().duplicate();
        let old = task.state.lock().fs.replace(fs);
        // Outside the lock: it may be the last reference to a directory.
        drop(old);
    }
    if flags & FILES != 0 {
        let files = Arc::new(task.files().duplicate());
        task.set_files(files);
    }
    Ok(0)
}

/// `setns(2)`: nothing here is a namespace one could enter.
pub fn sys_setns(task: &CurrentTask, fd: Fd, _kind: i32) -> SyscallResult {
    task.file(fd)?;
    task.kernel().log_unsupported("setns", Errno::EINVAL);
    Err(Errno::EINVAL.into())
}
