//! The root of procfs: global files, `self`, and a directory per process.

use std::fmt::Write;
use std::sync::{Arc, Weak};

use quicksand_abi::Errno;

use super::{sysctl, task as task_dir};
use crate::fs::pseudo::{self, Directory, Link, Perm, StaticDir};
use crate::task::syscalls::{RELEASE, VERSION};
use crate::task::{CurrentTask, PidNamespace};
use crate::vfs::{FileKind, FileName, Inode, LinkTarget, Superblock};

/// The inode number of the root, as Linux's.
const ROOT_INO: u64 = 1;

pub(super) fn new(sb: &Arc<Superblock>, pids: &Arc<PidNamespace>) -> Arc<Inode> {
    let mut fixed = StaticDir::new();
    fixed
        .made(sb, "cgroups", cgroups)
        .made(sb, "cmdline", cmdline)
        .made(sb, "cpuinfo", cpuinfo)
        .made(sb, "devices", devices)
        .made(sb, "diskstats", empty)
        .made(sb, "filesystems", filesystems)
        .made(sb, "interrupts", empty)
        .made(sb, "loadavg", loadavg)
        .made(sb, "meminfo", meminfo)
        .made(sb, "modules", empty)
        .made(sb, "partitions", partitions)
        .made(sb, "stat", stat)
        .made(sb, "swaps", swaps)
        .made(sb, "uptime", uptime)
        .made(sb, "version", version)
        .made(sb, "vmstat", vmstat)
        .made(sb, "zoneinfo", empty)
        .link(sb, "mounts", "self/mounts")
        .link(sb, "net", "self/net")
        .dir(sb, "sys", sysctl::new(sb));
    for name in ["bus", "driver", "fs", "irq", "sysvipc", "tty"] {
        fixed.dir(sb, name, StaticDir::new());
    }
    let pids = pids.clone();
    let this = pseudo::magic_link(sb, sb.next_ino(), Perm::root(0o777), Arc::new(SelfLink));
    fixed.add("self", this);
    let this = pseudo::magic_link(sb, sb.next_ino(), Perm::root(0o777), Arc::new(ThreadSelfLink));
    fixed.add("thread-self", this);
    let dir = Root { sb: Arc::downgrade(sb), fixed, pids };
    pseudo::directory(sb, ROOT_INO, Perm::root(0o555), Arc::new(dir))
}

#[derive(Debug)]
struct Root {
    /// The superblock does not own its root, so this never dangles while the root is in use.
    sb: Weak<Superblock>,
    fixed: StaticDir,
    pids: Arc<PidNamespace>,
}

impl Directory for Root {
    fn lookup(&self, _: &Inode, name: &FileName, _: Option<&CurrentTask>) -> Result<Arc<Inode>, Errno> {
        if let Some(inode) = self.fixed.get(name) {
            return Ok(inode.clone());
        }
        let pid = parse_pid(name).ok_or(Errno::ENOENT)?;
        let sb = self.sb.upgrade().ok_or(Errno::ENOENT)?;
        // A thread that is not a leader has a directory too; it just is not listed.
        let group = match self.pids.group(pid) {
            Some(group) => group,
            None => self.pids.task(pid).ok_or(Errno::ENOENT)?.group().clone(),
        };
        Ok(task_dir::process(&sb, pid, group))
    }
    fn entries(&self, _: &Inode, _: &CurrentTask) -> Result<Vec<(Vec<u8>, u64, FileKind)>, Errno> {
        let mut all = self.fixed.list();
        for process in self.pids.processes() {
            let ino = task_dir::ino(process.pid, 0);
            all.push((process.pid.to_string().into_bytes(), ino, FileKind::Directory));
        }
        Ok(all)
    }
    fn cookie(&self, position: u64, name: &FileName) -> u64 {
        pseudo::number_cookie(position, name)
    }
    fn nlink(&self) -> u32 {
        self.fixed.nlink() + self.pids.processes().len() as u32
    }
}

/// A pid as a name: decimal, positive, no leading zero.
pub(super) fn parse_pid(name: &FileName) -> Option<i32> {
    let text = std::str::from_utf8(name).ok()?;
    let pid: i32 = text.parse().ok()?;
    (pid > 0 && pid.to_string() == text).then_some(pid)
}

#[derive(Debug)]
struct SelfLink;

impl Link for SelfLink {
    fn target(&self, task: Option<&CurrentTask>) -> Result<LinkTarget, Errno> {
        let task = task.ok_or(Errno::ENOENT)?;
        Ok(LinkTarget::Path(task.group().pid().to_string().into_bytes()))
    }
}

#[derive(Debug)]
struct ThreadSelfLink;

impl Link for ThreadSelfLink {
    fn target(&self, task: Option<&CurrentTask>) -> Result<LinkTarget, Errno> {
        let task = task.ok_or(Errno::ENOENT)?;
        Ok(LinkTarget::Path(format!("{}/task/{}", task.group().pid(), task.tid()).into_bytes()))
    }
}

type Text = Result<Vec<u8>, Errno>;

fn empty(_: &CurrentTask) -> Text {
    Ok(Vec::new())
}

fn cmdline(_: &CurrentTask) -> Text {
    Ok(b"quicksand\n".to_vec())
}

fn cgroups(_: &CurrentTask) -> Text {
    Ok(b"#subsys_name\thierarchy\tnum_cgroups\tenabled\n".to_vec())
}

fn devices(_: &CurrentTask) -> Text {
    Ok(b"Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n".to_vec())
}

fn filesystems(_: &CurrentTask) -> Text {
    let all = ["sysfs", "tmpfs", "proc", "devtmpfs", "devpts", "overlay", "mqueue", "cgroup2"];
    Ok(all.iter().map(|name| format!("nodev\t{name}\n")).collect::<String>().into_bytes())
}

fn partitions(_: &CurrentTask) -> Text {
    Ok(b"major minor  #blocks  name\n\n".to_vec())
}

fn swaps(_: &CurrentTask) -> Text {
    Ok(b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".to_vec())
}

fn version(_: &CurrentTask) -> Text {
    Ok(format!("Linux version {RELEASE} (quicksand@quicksand) {VERSION}\n").into_bytes())
}

fn uptime(task: &CurrentTask) -> Text {
    let up = task.kernel().uptime();
    let busy: std::time::Duration = task.pids().processes().iter().map(|p| p.group.cpu_times().total()).sum();
    let idle = (up * task.kernel().machine.cpus() as u32).saturating_sub(busy);
    Ok(format!("{:.2} {:.2}\n", up.as_secs_f64(), idle.as_secs_f64()).into_bytes())
}

fn loadavg(task: &CurrentTask) -> Text {
    let pids = task.pids();
    // No load is averaged: what is true is how many tasks there are, and that this one runs.
    Ok(format!("0.00 0.00 0.00 1/{} {}\n", pids.task_count(), pids.last_pid()).into_bytes())
}

/// CPU time, boot time and process counts. The time is that of the container's living processes.
fn stat(task: &CurrentTask) -> Text {
    let kernel = task.kernel();
    let cpus = kernel.machine.cpus() as u64;
    let (mut user, mut system) = (0u64, 0u64);
    for process in task.pids().processes() {
        let (u, s) = process.group.cpu_times().ticks();
        user += u.max(0) as u64;
        system += s.max(0) as u64;
    }
    let up_ticks = (kernel.uptime().as_millis() / 10) as u64;
    let idle = (up_ticks * cpus).saturating_sub(user + system);
    let mut out = format!("cpu  {user} 0 {system} {idle} 0 0 0 0 0 0\n");
    for cpu in 0..cpus {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "cpu{cpu} {} 0 {} {} 0 0 0 0 0 0", user / cpus, system / cpus, idle / cpus);
    }
    let boot = kernel.clocks.realtime().0 / 1_000_000_000 - kernel.uptime().as_secs() as i64;
    let pids = task.pids();
    let _ = write!(
        out,
        "intr 0\nctxt 0\nbtime {boot}\nprocesses {}\nprocs_running 1\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
        pids.last_pid()
    );
    Ok(out.into_bytes())
}

fn meminfo(task: &CurrentTask) -> Text {
    let memory = task.kernel().machine.memory();
    let kib = |bytes: u64| bytes / 1024;
    let lines = [
        ("MemTotal", kib(memory.total)),
        ("MemFree", kib(memory.free)),
        ("MemAvailable", kib(memory.available)),
        ("Buffers", 0),
        ("Cached", kib(memory.available.saturating_sub(memory.free))),
        ("SwapCached", 0),
        ("Active", 0),
        ("Inactive", 0),
        ("Active(anon)", 0),
        ("Inactive(anon)", 0),
        ("Active(file)", 0),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", kib(memory.used)),
        ("Mapped", 0),
        ("Shmem", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("KernelStack", 0),
        ("PageTables", 0),
        ("CommitLimit", kib(memory.total)),
        ("Committed_AS", kib(memory.used)),
        ("VmallocTotal", 34_359_738_367),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
        ("AnonHugePages", 0),
        ("ShmemHugePages", 0),
    ];
    let mut out = String::new();
    for (name, value) in lines {
        let _ = writeln!(out, "{:<15} {value:>8} kB", format!("{name}:"));
    }
    for name in ["HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp"] {
        let _ = writeln!(out, "{:<15} {:>8}", format!("{name}:"), 0);
    }
    let _ = writeln!(out, "{:<15} {:>8} kB", "Hugepagesize:", 2048);
    Ok(out.into_bytes())
}

fn vmstat(task: &CurrentTask) -> Text {
    let memory = task.kernel().machine.memory();
    Ok(format!(
        "nr_free_pages {}\nnr_anon_pages {}\npgfault 0\npgmajfault 0\n",
        memory.free / 4096,
        memory.used / 4096
    )
    .into_bytes())
}

/// The host's description of its processors, for as many as the guest has: CPUID is the host's too.
fn cpuinfo(task: &CurrentTask) -> Text {
    Ok(task.kernel().machine.cpuinfo().to_vec())
}
