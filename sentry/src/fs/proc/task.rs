//! `/proc/PID` and `/proc/PID/task/TID`: directories of processes and threads.
//!
//! A directory holds its process, so that an open one goes on answering ESRCH after the process has gone and its number
//! is taken by another. Who may look follows Linux: what shows memory or paths needs the rights of a tracer
//! (`ptrace_may_access`), the rest is for everybody.

use std::sync::{Arc, Weak};

use quicksand_abi::Errno;

use super::{fd, status};
use crate::fs::pseudo::{self, Directory, Manner, Perm, Text};
use crate::task::credentials::Caps;
use crate::task::{CurrentTask, Task, ThreadGroup};
use crate::vfs::{FileKind, FileName, Inode, Superblock};

/// The number of file `index` of task `pid`: distinct for all, and above the fixed files' numbers.
pub(super) fn ino(pid: i32, index: u64) -> u64 {
    (pid as u64 + 1) << 24 | index
}

/// Whose directory it is.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub group: Arc<ThreadGroup>,
    /// `None` for the process as a whole.
    pub task: Option<Arc<Task>>,
    /// The number it is listed under.
    pub number: i32,
}

impl Subject {
    /// The task to ask: the thread itself, or one that stands for the process. ESRCH where none is left.
    pub(super) fn task(&self) -> Result<Arc<Task>, Errno> {
        match &self.task {
            Some(task) => Ok(task.clone()),
            // A zombie's leader knows what it was.
            None => self
                .group
                .any_task()
                .or_else(|| {
                    self.group.pids().task(self.number).filter(|t| Arc::ptr_eq(t.group(), &self.group))
                })
                .ok_or(Errno::ESRCH),
        }
    }
    /// Whether the number still stands for it.
    fn alive(&self) -> bool {
        let pids = self.group.pids();
        match &self.task {
            Some(task) => pids.task(self.number).is_some_and(|t| Arc::ptr_eq(&t, task)),
            None => pids.group(self.number).is_some_and(|g| Arc::ptr_eq(&g, &self.group)),
        }
    }
    /// Owner of its files: the effective user, root where it is not dumpable.
    fn owner(&self, perm: u32) -> Perm {
        match self.task() {
            // A directory that everybody may list says nothing that needs hiding.
            Ok(task) if task.is_dumpable() || perm == 0o555 => {
                let creds = task.creds();
                Perm { perm, uid: creds.euid, gid: creds.egid }
            }
            _ => Perm::root(perm),
        }
    }
    /// `ptrace_may_access(PTRACE_MODE_READ_FSCREDS)`: EACCES where `caller` may not look inside.
    pub(super) fn check_access(&self, caller: &CurrentTask) -> Result<(), Errno> {
        if Arc::ptr_eq(caller.group(), &self.group) {
            return Ok(());
        }
        let task = self.task()?;
        let (mine, its) = (caller.creds(), task.creds());
        let same_user = [its.ruid, its.euid, its.suid].iter().all(|uid| *uid == mine.fsuid)
            && [its.rgid, its.egid, its.sgid].iter().all(|gid| *gid == mine.fsgid);
        let capable = mine.has(Caps::SYS_PTRACE);
        let subset = mine.permitted.contains(its.permitted);
        if capable || (same_user && task.is_dumpable() && subset) { Ok(()) } else { Err(Errno::EACCES) }
    }
}

/// A file of a task: what it is called and what makes its text.
struct Entry {
    name: &'static str,
    perm: u32,
    kind: What,
}

enum What {
    /// Text for everybody.
    Open(fn(&Subject, &CurrentTask) -> Result<Vec<u8>, Errno>),
    /// Text for those who may trace the task.
    Guarded(fn(&Subject, &CurrentTask) -> Result<Vec<u8>, Errno>),
    /// Text that can be written too.
    Writable(
        fn(&Subject, &CurrentTask) -> Result<Vec<u8>, Errno>,
        fn(&Subject, &CurrentTask, &[u8]) -> Result<(), Errno>,
    ),
    Link(fd::Magic),
    Fds,
    FdInfos,
    Namespaces,
    Net,
    Mem,
    Pagemap,
    /// `task`: only in the directory of a process.
    Tasks,
}

use What::{Guarded, Link, Open, Writable};

const ENTRIES: &[Entry] = &[
    Entry { name: "auxv", perm: 0o400, kind: Guarded(status::auxv) },
    Entry { name: "cgroup", perm: 0o444, kind: Open(status::cgroup) },
    Entry { name: "cmdline", perm: 0o444, kind: Open(status::cmdline) },
    Entry { name: "comm", perm: 0o644, kind: Writable(status::comm, status::set_comm) },
    Entry { name: "cwd", perm: 0o777, kind: Link(fd::Magic::Cwd) },
    Entry { name: "environ", perm: 0o400, kind: Guarded(status::environ) },
    Entry { name: "exe", perm: 0o777, kind: Link(fd::Magic::Exe) },
    Entry { name: "fd", perm: 0o500, kind: What::Fds },
    Entry { name: "fdinfo", perm: 0o555, kind: What::FdInfos },
    Entry { name: "gid_map", perm: 0o644, kind: Open(status::id_map) },
    Entry { name: "io", perm: 0o400, kind: Guarded(status::io) },
    Entry { name: "limits", perm: 0o444, kind: Open(status::limits) },
    Entry { name: "loginuid", perm: 0o644, kind: Open(status::loginuid) },
    Entry { name: "maps", perm: 0o444, kind: Guarded(status::maps) },
    Entry { name: "mem", perm: 0o600, kind: What::Mem },
    Entry { name: "mountinfo", perm: 0o444, kind: Open(status::mountinfo) },
    Entry { name: "mounts", perm: 0o444, kind: Open(status::mounts) },
    Entry { name: "net", perm: 0o555, kind: What::Net },
    Entry { name: "ns", perm: 0o511, kind: What::Namespaces },
    Entry { name: "oom_adj", perm: 0o644, kind: Open(status::oom_adj) },
    Entry { name: "oom_score", perm: 0o444, kind: Open(status::oom_score) },
    Entry {
        name: "oom_score_adj",
        perm: 0o644,
        kind: Writable(status::oom_score_adj, status::set_oom_score_adj),
    },
    Entry { name: "pagemap", perm: 0o400, kind: What::Pagemap },
    Entry { name: "personality", perm: 0o400, kind: Guarded(status::personality) },
    Entry { name: "root", perm: 0o777, kind: Link(fd::Magic::Root) },
    Entry { name: "schedstat", perm: 0o444, kind: Open(status::schedstat) },
    Entry { name: "sessionid", perm: 0o444, kind: Open(status::sessionid) },
    Entry { name: "setgroups", perm: 0o644, kind: Open(status::setgroups) },
    Entry { name: "smaps", perm: 0o444, kind: Guarded(status::smaps) },
    Entry { name: "smaps_rollup", perm: 0o444, kind: Guarded(status::smaps_rollup) },
    Entry { name: "stat", perm: 0o444, kind: Open(status::stat) },
    Entry { name: "statm", perm: 0o444, kind: Open(status::statm) },
    Entry { name: "status", perm: 0o444, kind: Open(status::status) },
    Entry { name: "task", perm: 0o555, kind: What::Tasks },
    Entry { name: "timerslack_ns", perm: 0o666, kind: Open(status::timerslack) },
    Entry { name: "uid_map", perm: 0o644, kind: Open(status::id_map) },
    Entry { name: "wchan", perm: 0o444, kind: Open(status::wchan) },
];

/// The directory of a process.
pub(super) fn process(sb: &Arc<Superblock>, pid: i32, group: Arc<ThreadGroup>) -> Arc<Inode> {
    make(sb, Subject { group, task: None, number: pid })
}

fn make(sb: &Arc<Superblock>, subject: Subject) -> Arc<Inode> {
    let index = if subject.task.is_some() { THREAD_FLAG } else { 0 };
    let perm = subject.owner(0o555);
    let number = ino(subject.number, index);
    pseudo::directory(sb, number, perm, Arc::new(TaskDir { sb: Arc::downgrade(sb), subject }))
}

/// Set in the file index of a thread's own files.
const THREAD_FLAG: u64 = 1 << 20;

#[derive(Debug)]
struct TaskDir {
    sb: Weak<Superblock>,
    subject: Subject,
}

impl TaskDir {
    fn number(&self, index: usize) -> u64 {
        let flag = if self.subject.task.is_some() { THREAD_FLAG } else { 0 };
        ino(self.subject.number, flag + 1 + index as u64)
    }
    fn shows(&self, entry: &Entry) -> bool {
        self.subject.task.is_none() || !matches!(entry.kind, What::Tasks)
    }
}

impl Directory for TaskDir {
    fn process(&self) -> Option<Arc<ThreadGroup>> {
        self.subject.task.is_none().then(|| self.subject.group.clone())
    }
    fn lookup(&self, _: &Inode, name: &FileName, _: Option<&CurrentTask>) -> Result<Arc<Inode>, Errno> {
        let found = ENTRIES.iter().enumerate().find(|(_, e)| e.name.as_bytes() == name && self.shows(e));
        let (index, entry) = found.ok_or(Errno::ENOENT)?;
        let sb = self.sb.upgrade().ok_or(Errno::ENOENT)?;
        let (number, perm) = (self.number(index), self.subject.owner(entry.perm));
        let subject = self.subject.clone();
        Ok(match &entry.kind {
            Open(_) | Guarded(_) | Writable(..) => {
                pseudo::file(&sb, number, perm, Arc::new(TaskText { subject, index }))
            }
            Link(magic) => {
                pseudo::magic_link(&sb, number, perm, Arc::new(fd::MagicLink { subject, magic: *magic }))
            }
            What::Fds => pseudo::directory(&sb, number, perm, Arc::new(fd::Fds::new(&sb, subject, false))),
            What::FdInfos => pseudo::directory(&sb, number, perm, Arc::new(fd::Fds::new(&sb, subject, true))),
            What::Namespaces => {
                pseudo::directory(&sb, number, perm, Arc::new(fd::Namespaces::new(&sb, subject)))
            }
            What::Net => pseudo::directory(&sb, number, perm, super::net::dir(&sb)),
            What::Mem => fd::mem(&sb, number, perm, subject),
            What::Pagemap => fd::pagemap(&sb, number, perm, subject),
            What::Tasks => {
                pseudo::directory(&sb, number, perm, Arc::new(Tasks { sb: self.sb.clone(), subject }))
            }
        })
    }
    fn entries(&self, _: &Inode, _: &CurrentTask) -> Result<Vec<(Vec<u8>, u64, FileKind)>, Errno> {
        if !self.subject.alive() {
            return Err(Errno::ENOENT);
        }
        let shown = ENTRIES.iter().enumerate().filter(|(_, e)| self.shows(e));
        Ok(shown
            .map(|(index, entry)| {
                let kind = match entry.kind {
                    Open(_) | Guarded(_) | Writable(..) | What::Mem | What::Pagemap => FileKind::Regular,
                    Link(_) => FileKind::Symlink,
                    _ => FileKind::Directory,
                };
                (entry.name.as_bytes().to_vec(), self.number(index), kind)
            })
            .collect())
    }
    fn alive(&self) -> bool {
        self.subject.alive()
    }
}

/// A text file of a task.
#[derive(Debug)]
struct TaskText {
    subject: Subject,
    index: usize,
}

impl Text for TaskText {
    fn open(&self, caller: &CurrentTask) -> Result<(), Errno> {
        match &ENTRIES[self.index].kind {
            Guarded(_) => self.subject.check_access(caller),
            _ => Ok(()),
        }
    }
    fn text(&self, caller: &CurrentTask) -> Result<Vec<u8>, Errno> {
        if !self.subject.alive() {
            return Err(Errno::ESRCH);
        }
        match &ENTRIES[self.index].kind {
            Guarded(text) => {
                self.subject.check_access(caller)?;
                text(&self.subject, caller)
            }
            Open(text) | Writable(text, _) => text(&self.subject, caller),
            _ => Err(Errno::EIO),
        }
    }
    fn manner(&self) -> Manner {
        // `mounts_open` and its like came to splice by way of `read_iter`.
        if matches!(ENTRIES[self.index].name, "mounts" | "mountinfo") {
            Manner::Sequence
        } else {
            Manner::Unspliced
        }
    }
    fn store(&self, caller: &CurrentTask, data: &[u8]) -> Result<(), Errno> {
        match &ENTRIES[self.index].kind {
            Writable(_, store) if self.subject.alive() => store(&self.subject, caller, data),
            Writable(..) => Err(Errno::ESRCH),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// `/proc/PID/task`.
#[derive(Debug)]
struct Tasks {
    sb: Weak<Superblock>,
    subject: Subject,
}

impl Tasks {
    /// The live tasks, and a leader that has ended.
    fn tasks(&self) -> Vec<Arc<Task>> {
        let group = &self.subject.group;
        let mut tasks = group.tasks();
        if let Some(leader) = group.pids().task(group.pid())
            && Arc::ptr_eq(leader.group(), group)
            && !tasks.iter().any(|t| t.id == leader.id)
        {
            tasks.push(leader);
        }
        tasks
    }
}

impl Directory for Tasks {
    fn lookup(&self, _: &Inode, name: &FileName, _: Option<&CurrentTask>) -> Result<Arc<Inode>, Errno> {
        let tid = super::root::parse_pid(name).ok_or(Errno::ENOENT)?;
        let sb = self.sb.upgrade().ok_or(Errno::ENOENT)?;
        let task = self.tasks().into_iter().find(|t| t.tid() == tid).ok_or(Errno::ENOENT)?;
        Ok(make(&sb, Subject { group: self.subject.group.clone(), task: Some(task), number: tid }))
    }
    fn entries(&self, _: &Inode, _: &CurrentTask) -> Result<Vec<(Vec<u8>, u64, FileKind)>, Errno> {
        let mut tids: Vec<i32> = self.tasks().iter().map(|t| t.tid()).collect();
        if tids.is_empty() {
            return Err(Errno::ENOENT);
        }
        tids.sort_unstable();
        let entry = |tid: i32| (tid.to_string().into_bytes(), ino(tid, THREAD_FLAG), FileKind::Directory);
        Ok(tids.into_iter().map(entry).collect())
    }
    fn cookie(&self, position: u64, name: &FileName) -> u64 {
        pseudo::number_cookie(position, name)
    }
    fn alive(&self) -> bool {
        self.subject.alive()
    }
    fn nlink(&self) -> u32 {
        2 + self.subject.group.tasks().len() as u32
    }
}
