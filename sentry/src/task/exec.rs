//! `execve(2)` and `execveat(2)`.
//!
//! The new program is loaded beside the old one; only when that is complete do the other threads end, and the last
//! step, [`commit`], cannot fail. Waiting for the threads is a wait like any other: the loaded program lies in
//! `pending_exec` meanwhile.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quicksand_abi::signal::{RtSigFrame, SS_DISABLE, StackT};
use quicksand_abi::{Errno, UserAddr};
use quicksand_platform::Registers;

use super::credentials::{Caps, Credentials, SECBIT_KEEP_CAPS, SECBIT_NOROOT};
use super::group::ExitStatus;
use super::{CurrentTask, Resource, exit, futex_pi, robust};
use crate::loader::{self, Arguments, ExecError, ExecHost, ExecIds, LoadContext, Loaded};
use crate::sync::Events;
use crate::syscalls::{Blocked, Fd, OnSignal, Resume, SyscallError, SyscallResult};
use crate::vfs::walk::WalkFlags;
use crate::vfs::{FdFlags, OpenFile, fd_table, open};

/// Personality bits that a program which gains rights does not inherit (PER_CLEAR_ON_SETID).
const PERSONALITY_CLEARED: u32 = 0x0004_0000 | 0x0040_0000 | 0x0020_0000 | 0x0010_0000;
/// READ_IMPLIES_EXEC: decided by each program anew.
const READ_IMPLIES_EXEC: u32 = 0x0040_0000;
/// Longest `comm`, without its NUL.
pub(crate) const COMM_LEN: usize = 15;

/// A loaded program that waits for its turn.
#[derive(Debug)]
pub(crate) struct PendingExec {
    loaded: Loaded,
    creds: Credentials,
    comm: Vec<u8>,
}

/// What the loader asks, and what it is remembered for.
struct Host<'a> {
    task: &'a CurrentTask,
    creds: RefCell<Option<Credentials>>,
}

impl ExecHost for Host<'_> {
    fn open_exec(&self, path: &[u8]) -> Result<Arc<OpenFile>, Errno> {
        open::open_exec(self.task, Fd::CWD, path, WalkFlags::FOLLOW)
    }
    fn ids(&self, program: &Arc<OpenFile>) -> Result<ExecIds, Errno> {
        let (creds, secure) = credentials_for(self.task, program)?;
        let ids = ExecIds { uid: creds.ruid, euid: creds.euid, gid: creds.rgid, egid: creds.egid, secure };
        *self.creds.borrow_mut() = Some(creds);
        Ok(ids)
    }
}

/// `execve(2)`.
pub fn sys_execve(task: &CurrentTask, path: UserAddr, argv: UserAddr, envp: UserAddr) -> SyscallResult {
    sys_execveat(task, Fd::CWD, path, argv, envp, 0)
}

/// `execveat(2)`.
pub fn sys_execveat(
    task: &CurrentTask,
    dirfd: Fd,
    path: UserAddr,
    argv: UserAddr,
    envp: UserAddr,
    flags: i32,
) -> SyscallResult {
    if task.take_resume() == Resume::Exec {
        return finish(task);
    }
    if flags & !(libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let path = task.read_path(path)?;
    let stack_limit = task.group().rlimit(Resource::Stack).soft;
    let shown = shown_path(dirfd, &path);
    let file = open_program(task, dirfd, &path, flags)?;
    let arguments = Arguments::read(&task.mm(), &shown, argv, envp, stack_limit)?;
    // A script given by a descriptor that closes could not be opened by its interpreter.
    let by_fd = dirfd != Fd::CWD && path.first() != Some(&b'/');
    let path_lost =
        by_fd && task.files().get_with_flags(dirfd).is_ok_and(|(_, flags)| flags.contains(FdFlags::CLOEXEC));
    let pending = match load(task, file, &shown, path_lost, arguments) {
        Ok(pending) => pending,
        Err(ExecError::Errno(e)) => return Err(e.into()),
        Err(ExecError::Kill(e)) => {
            tracing::debug!("execve of {:?} fails too late to go back: {e}", String::from_utf8_lossy(&shown));
            let status = ExitStatus::signal(libc::SIGSEGV);
            task.group().kill_all(status);
            task.exiting.set(Some(status));
            return Err(SyscallError::NoReturn);
        }
    };
    *task.pending_exec.borrow_mut() = Some(pending);
    finish(task)
}

/// As `bprm->filename`: a path by descriptor is shown by way of `/dev/fd`.
fn shown_path(dirfd: Fd, path: &[u8]) -> Vec<u8> {
    if dirfd == Fd::CWD || path.first() == Some(&b'/') {
        return path.to_vec();
    }
    let mut shown = format!("/dev/fd/{}", dirfd.0).into_bytes();
    if !path.is_empty() {
        shown.push(b'/');
        shown.extend_from_slice(path);
    }
    shown
}

fn open_program(task: &CurrentTask, dirfd: Fd, path: &[u8], flags: i32) -> Result<Arc<OpenFile>, Errno> {
    let mut walk = WalkFlags::empty();
    if flags & libc::AT_SYMLINK_NOFOLLOW == 0 {
        walk |= WalkFlags::FOLLOW;
    }
    if flags & libc::AT_EMPTY_PATH != 0 {
        walk |= WalkFlags::EMPTY;
    }
    open::open_exec(task, dirfd, path, walk)
}

/// Loads a program for `task`, which it does not touch.
fn load(
    task: &CurrentTask,
    file: Arc<OpenFile>,
    shown: &[u8],
    path_lost: bool,
    arguments: Arguments,
) -> Result<PendingExec, ExecError> {
    let kernel = task.kernel();
    let space = kernel.platform.address_space().map_err(|e| {
        tracing::warn!("execve: {e}");
        Errno::ENOMEM
    })?;
    let mut random = [0; 64];
    kernel.random(&mut random);
    let host = Host { task, creds: RefCell::new(None) };
    // As Linux's `get_sigframe_size`: frame, extended state with its magic, alignment.
    let frame = size_of::<RtSigFrame>() + kernel.platform.extended_state_len() + 4 + 63 + 8 + 16;
    let personality = task.state.lock().personality;
    let context = LoadContext {
        task,
        host: &host,
        rlimits: task.group().state.lock().rlimits,
        personality,
        random,
        space,
        signal_frame: (frame as u64).next_multiple_of(16),
    };
    let loaded = loader::load(&context, file, shown, path_lost, arguments)?;
    let creds = host.creds.take().unwrap_or_else(|| (*task.creds()).clone());
    let name = shown.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let comm = name[..name.len().min(COMM_LEN)].to_vec();
    Ok(PendingExec { loaded, creds, comm })
}

/// For a container's first program and `exec`ed ones: loads into a task that has run nothing yet.
pub(crate) fn start_program(
    task: &CurrentTask,
    path: &[u8],
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
) -> Result<(), Errno> {
    let file = open_program(task, Fd::CWD, path, 0)?;
    let stack_limit = task.group().rlimit(Resource::Stack).soft;
    let arguments = Arguments::new(path, argv, envp, stack_limit)?;
    let pending = load(task, file, path, false, arguments).map_err(|e| match e {
        ExecError::Errno(e) | ExecError::Kill(e) => e,
    })?;
    commit(task, pending);
    Ok(())
}

/// Waits until this is the only thread, then commits.
fn finish(task: &CurrentTask) -> SyscallResult {
    {
        let mut state = task.group().state.lock();
        if state.exit_status.is_some() || state.exec.is_some_and(|other| other != task.id) {
            // Somebody else is ending the group, or was first: this task will not see the result.
            return Err(Errno::EINTR.into());
        }
        state.exec = Some(task.id);
    }
    if !exit::end_other_tasks(task) {
        return Err(Blocked::on(task.group().child_queue.clone(), Events::IN)
            .resume(Resume::Exec)
            .on_signal(OnSignal::Killable)
            .into());
    }
    if let Some(pending) = task.pending_exec.take() {
        commit(task, pending);
    }
    Err(SyscallError::NoReturn)
}

/// The old program is gone, the new one is there (`begin_new_exec`, `setup_new_exec`, `start_thread`).
fn commit(task: &CurrentTask, pending: PendingExec) {
    let PendingExec { loaded, creds, comm } = pending;
    let group = task.group().clone();
    take_leadership(task);
    robust::release_on_exit(task);
    futex_pi::release_owned(task);
    task.left_futexes.store(false, Ordering::SeqCst);
    task.set_mm(loaded.mm);
    exit::leave_vfork(task.task());
    {
        let mut state = group.state.lock();
        state.actions = state.actions.for_exec();
        state.pending.discard_timers();
        state.exec = None;
        state.membarrier = 0;
        let gains = loaded.ids.secure || creds.euid != creds.ruid || creds.egid != creds.rgid;
        state.dumpable = if gains { 0 } else { 1 };
    }
    task.signals.pending.lock().discard_timers();
    group.timers.exec();
    group.exit_signal.store(libc::SIGCHLD, Ordering::SeqCst);
    group.execs.fetch_add(1, Ordering::SeqCst);
    {
        let mut state = task.state.lock();
        if loaded.ids.secure || creds.euid != state.creds.euid || creds.egid != state.creds.egid {
            state.pdeath_signal = 0;
            state.personality &= !PERSONALITY_CLEARED;
        }
        state.personality &= !READ_IMPLIES_EXEC;
        if *state.creds != creds {
            state.creds = Arc::new(creds);
        }
        state.name = comm;
    }
    task.answers.invalidate();
    task.altstack.set(StackT { flags: SS_DISABLE, ..StackT::default() });
    *task.restart_block.borrow_mut() = None;
    close_on_exec(task);
    let regs = Registers { rip: loaded.entry.0, rsp: loaded.stack_pointer.0, ..Registers::default() };
    *task.regs.borrow_mut() = regs;
    if let Err(e) = task.context.borrow_mut().reset_extended_state() {
        task.platform_failed(&e);
    }
}

/// A thread that was not the leader takes over the leader's number.
fn take_leadership(task: &CurrentTask) {
    let pid = task.group().pid();
    if task.tid() == pid {
        return;
    }
    let mut tables = task.pids().lock();
    tables.tasks.remove(&task.tid());
    task.set_tid(pid);
    tables.tasks.insert(pid, task.task().clone());
    let before = tables.procs.get_mut(&pid).and_then(|p| p.ended_leader.take());
    // Without the lock: this may be the last reference.
    drop(tables);
    drop(before);
}

fn close_on_exec(task: &CurrentTask) {
    let mut files = task.files();
    // This function, the task's shared state and its loop hold one reference each: more are other processes'.
    if Arc::strong_count(&files) > 3 {
        files = Arc::new(files.duplicate());
        task.set_files(files.clone());
    }
    for file in files.remove_where(|_, flags| flags.contains(FdFlags::CLOEXEC)) {
        // `execve` has no way to tell.
        let _ = fd_table::close_file(files.id, &file);
    }
}

/// Whom a program runs as, and whether that gives it rights its caller does not have (`bprm_fill_uid`,
/// `cap_bprm_creds_from_file`).
fn credentials_for(task: &CurrentTask, program: &Arc<OpenFile>) -> Result<(Credentials, bool), Errno> {
    let old = task.creds();
    let mut new = (*old).clone();
    let no_new_privs = task.state.lock().no_new_privs;
    let may_gain = !no_new_privs && !program.path.mount.flags().contains(crate::vfs::MountFlags::NOSUID);
    let mut file_caps = None;
    if may_gain {
        let attr = program.inode.attr()?;
        if attr.perm & libc::S_ISUID != 0 {
            new.euid = attr.uid;
        }
        if attr.perm & libc::S_ISGID != 0 && attr.perm & libc::S_IXGRP != 0 {
            new.egid = attr.gid;
        }
        file_caps = read_file_caps(program);
    }
    let set_id = new.euid != old.ruid || new.egid != old.rgid;
    let privileged_root = new.securebits & SECBIT_NOROOT == 0;
    let root_by_id = privileged_root && (new.euid == 0 || new.ruid == 0);
    // A set-id root program that also has file capabilities runs with those alone.
    let root_ignored = file_caps.is_some() && new.ruid != 0 && new.euid == 0;
    let (file_permitted, file_inheritable, mut effective) = match file_caps {
        Some((permitted, inheritable, effective)) => (permitted, inheritable, effective),
        None => (Caps::empty(), Caps::empty(), false),
    };
    if root_by_id && !root_ignored {
        new.permitted = old.bounding | old.inheritable;
        effective = new.euid == 0;
    } else {
        new.permitted = (file_permitted & old.bounding) | (file_inheritable & old.inheritable);
    }
    if file_caps.is_some() || set_id {
        new.ambient = Caps::empty();
    }
    new.permitted |= new.ambient;
    new.effective = if effective { new.permitted } else { new.ambient };
    (new.suid, new.fsuid) = (new.euid, new.euid);
    (new.sgid, new.fsgid) = (new.egid, new.egid);
    new.securebits &= !SECBIT_KEEP_CAPS;
    let grew = !new.ambient.contains(new.permitted);
    let secure = set_id || ((!privileged_root || new.ruid != 0) && (effective || grew));
    Ok((new, secure))
}

/// `security.capability`: permitted, inheritable, and whether they are effective at once.
fn read_file_caps(program: &Arc<OpenFile>) -> Option<(Caps, Caps, bool)> {
    let inode = &program.inode;
    let bytes = inode.ops.get_xattr(inode, b"security.capability").ok()?;
    let word = |i: usize| Some(u32::from_le_bytes(bytes.get(i * 4..i * 4 + 4)?.try_into().ok()?));
    let magic = word(0)?;
    let (low, high) = match magic >> 24 {
        1 => ((word(1)?, word(2)?), (0, 0)),
        // Version 3 adds the user namespace's root, which is always ours.
        2 | 3 => ((word(1)?, word(2)?), (word(3)?, word(4)?)),
        _ => return None,
    };
    let caps = |low: u32, high: u32| Caps::from_bits_truncate(u64::from(low) | u64::from(high) << 32);
    Some((caps(low.0, high.0), caps(low.1, high.1), magic & 1 != 0))
}
