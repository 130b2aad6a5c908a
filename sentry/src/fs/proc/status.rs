//! The texts of `/proc/PID`'s files (`proc_pid_*(5)`).

use std::fmt::Write;
use std::sync::Arc;

use quicksand_abi::{Errno, UserAddr};

use super::task::Subject;
use crate::mm::MemoryManager;
use crate::mm::maps::{MapsEntry, MapsName};
use crate::task::credentials::Caps;
use crate::task::rlimit::INFINITY;
use crate::task::{CurrentTask, Resource, Task};

type Text = Result<Vec<u8>, Errno>;

/// What a process without memory (a zombie) shows for files about memory: nothing.
fn mm_of(subject: &Subject) -> Result<Option<Arc<MemoryManager>>, Errno> {
    match subject.task() {
        Ok(task) => Ok(task.mm_opt()),
        Err(Errno::ESRCH) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reads `[start, end)` of another's memory, at most 1 MiB, as far as it can be read.
fn peek(mm: &MemoryManager, start: UserAddr, end: UserAddr) -> Vec<u8> {
    let len = end.0.saturating_sub(start.0).min(1 << 20) as usize;
    let mut out = vec![0; len];
    if let Err(fault) = mm.read_bytes(start, &mut out) {
        out.truncate(fault.done);
    }
    out
}

pub(super) fn cmdline(subject: &Subject, _: &CurrentTask) -> Text {
    let Some(mm) = mm_of(subject)? else { return Ok(Vec::new()) };
    let marks = mm.marks();
    let mut args = peek(&mm, marks.arg_start, marks.arg_end);
    // `setproctitle`: a program that overwrote the last argument's NUL goes on into its environment.
    if args.last().is_some_and(|b| *b != 0) {
        args.extend(peek(&mm, marks.env_start, marks.env_end));
        if let Some(end) = args.iter().position(|b| *b == 0) {
            args.truncate(end + 1);
        }
    }
    Ok(args)
}

pub(super) fn environ(subject: &Subject, _: &CurrentTask) -> Text {
    let Some(mm) = mm_of(subject)? else { return Ok(Vec::new()) };
    let marks = mm.marks();
    Ok(peek(&mm, marks.env_start, marks.env_end))
}

pub(super) fn auxv(subject: &Subject, _: &CurrentTask) -> Text {
    Ok(mm_of(subject)?.map_or(Vec::new(), |mm| mm.marks().auxv))
}

/// The last column of a mapping, as the reader's root sees it.
fn maps_name(entry: &MapsEntry, caller: &CurrentTask) -> Vec<u8> {
    match &entry.name {
        MapsName::None => Vec::new(),
        MapsName::Text(text) => text.clone(),
        MapsName::File(file) => file.path.display(&caller.fs().root()),
    }
}

fn maps_text(mm: &MemoryManager, caller: &CurrentTask) -> Vec<u8> {
    mm.maps().iter().flat_map(|e| e.line(&maps_name(e, caller))).collect()
}

fn smaps_text(mm: &MemoryManager, caller: &CurrentTask) -> Vec<u8> {
    let mut out = Vec::new();
    for (entry, max_prot) in mm.maps_with_max_prot() {
        out.extend(entry.line(&maps_name(&entry, caller)));
        let kib = entry.range.len() / 1024;
        let rss = resident_kib(mm, &entry);
        let anonymous = if entry.anonymous { rss } else { 0 };
        let text = format!(
            "Size:           {kib:>8} kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n\
             Rss:            {rss:>8} kB\nPss:            {rss:>8} kB\nPss_Dirty:      {anonymous:>8} kB\n\
             Shared_Clean:          0 kB\nShared_Dirty:          0 kB\nPrivate_Clean:         0 kB\n\
             Private_Dirty:  {rss:>8} kB\nReferenced:     {rss:>8} kB\nAnonymous:      {anonymous:>8} kB\n\
             LazyFree:              0 kB\nAnonHugePages:         0 kB\nShmemPmdMapped:        0 kB\n\
             FilePmdMapped:         0 kB\nShared_Hugetlb:        0 kB\nPrivate_Hugetlb:       0 kB\n\
             Swap:                  0 kB\nSwapPss:               0 kB\nLocked:                0 kB\n\
             THPeligible:           0\n{}\n",
            entry.vm_flags(max_prot)
        );
        out.extend_from_slice(text.as_bytes());
    }
    out
}

/// What of a mapping is resident. A mapping of more than 4 GiB is not looked into: the table would be too large.
fn resident_kib(mm: &MemoryManager, entry: &MapsEntry) -> u64 {
    let pages = entry.range.len() / 4096;
    if pages > 1 << 20 {
        return 0;
    }
    let mut present = vec![false; pages as usize];
    mm.space.resident(entry.range, &mut present);
    present.iter().filter(|p| **p).count() as u64 * 4
}

fn smaps_rollup_text(mm: &MemoryManager) -> Vec<u8> {
    let entries = mm.maps();
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Vec::new() };
    let rss = mm.usage().resident * 4;
    format!(
        "{:08x}-{:08x} ---p 00000000 00:00 0                          [rollup]\n\
         Rss:            {rss:>8} kB\nPss:            {rss:>8} kB\nPss_Dirty:      {rss:>8} kB\n\
         Pss_Anon:       {rss:>8} kB\nPss_File:              0 kB\nPss_Shmem:             0 kB\n\
         Shared_Clean:          0 kB\nShared_Dirty:          0 kB\nPrivate_Clean:         0 kB\n\
         Private_Dirty:  {rss:>8} kB\nReferenced:     {rss:>8} kB\nAnonymous:      {rss:>8} kB\n\
         Swap:                  0 kB\nSwapPss:               0 kB\nLocked:                0 kB\n",
        first.range.start.0, last.range.end.0
    )
    .into_bytes()
}

pub(super) fn maps(subject: &Subject, caller: &CurrentTask) -> Text {
    Ok(mm_of(subject)?.map_or(Vec::new(), |mm| maps_text(&mm, caller)))
}

pub(super) fn smaps(subject: &Subject, caller: &CurrentTask) -> Text {
    Ok(mm_of(subject)?.map_or(Vec::new(), |mm| smaps_text(&mm, caller)))
}

pub(super) fn smaps_rollup(subject: &Subject, _: &CurrentTask) -> Text {
    Ok(mm_of(subject)?.map_or(Vec::new(), |mm| smaps_rollup_text(&mm)))
}

pub(super) fn statm(subject: &Subject, _: &CurrentTask) -> Text {
    let Some(mm) = mm_of(subject)? else { return Ok(b"0 0 0 0 0 0 0\n".to_vec()) };
    let u = mm.usage();
    Ok(format!("{} {} 0 {} 0 {} 0\n", u.total, u.resident, u.text, u.data + u.stack).into_bytes())
}

pub(super) fn comm(subject: &Subject, _: &CurrentTask) -> Text {
    let mut name = subject.task()?.name();
    name.push(b'\n');
    Ok(name)
}

pub(super) fn set_comm(subject: &Subject, caller: &CurrentTask, data: &[u8]) -> Result<(), Errno> {
    if !Arc::ptr_eq(caller.group(), &subject.group) {
        return Err(Errno::EINVAL);
    }
    let end = data.iter().position(|b| *b == 0 || *b == b'\n').unwrap_or(data.len());
    subject.task()?.set_name(&data[..end.min(15)]);
    Ok(())
}

/// Z for zombies, T for the stopped, S for tasks that wait in a system call, else R.
fn state(subject: &Subject, caller: &CurrentTask) -> (char, &'static str) {
    let task = subject.task().ok();
    let own = task.as_ref().is_some_and(|t| Arc::ptr_eq(t, caller.task()));
    let leader_gone = || subject.task.is_none() && subject.group.leader_has_ended();
    if subject.group.is_dead() || leader_gone() {
        ('Z', "zombie")
    } else if subject.group.is_stopped() {
        ('T', "stopped")
    } else if !own && task.is_none_or(|t| t.is_waiting()) {
        ('S', "sleeping")
    } else {
        ('R', "running")
    }
}

pub(super) fn stat(subject: &Subject, caller: &CurrentTask) -> Text {
    let group = &subject.group;
    let task = subject.task().ok();
    let name = task.as_ref().map_or_else(|| group.name(), |t| t.name());
    let mm = task.as_ref().and_then(|t| t.mm_opt());
    let ids = group.ids();
    let terminal = caller.kernel().terminals.of_group(group);
    let (tty, foreground) = terminal.map_or((0, -1), |(t, foreground)| (t.device().encode(), foreground));
    let times = match &subject.task {
        Some(task) => task.usage().times,
        None => group.cpu_times(),
    };
    let (user, system) = times.ticks();
    let (child_user, child_system) = group.children_usage().times.ticks();
    let start = task.as_ref().map_or(0, |t| t.start_time.0 / 10_000_000);
    let nice = task.as_ref().map_or(0, |t| t.nice());
    let (size, resident) = mm.as_ref().map_or((0, 0), |mm| {
        let usage = mm.usage();
        (usage.total * 4096, usage.resident)
    });
    let guarded = subject.check_access(caller).is_ok();
    let marks = mm.as_ref().filter(|_| guarded).map(|mm| mm.marks()).unwrap_or_default();
    let (ignored, caught) = group.ignored_and_caught();
    let (pending, blocked) =
        task.as_ref().map_or((0, 0), |t| (t.signals.pending_set().0, t.signals.blocked().0));
    let rss_limit = group.rlimit(Resource::Rss).soft;
    let mut out = format!("{} (", subject.number).into_bytes();
    out.extend_from_slice(&name);
    // Field numbers as in proc_pid_stat(5); what we do not count is 0, as on a kernel configured without it.
    let mut rest = String::new();
    let _ = write!(
        rest,
        ") {} {} {} {} {tty} {foreground} 4194304 0 0 0 0 {user} {system} {child_user} {child_system} {} {nice} {} 0 \
         {start} {size} {resident} {rss_limit} ",
        state(subject, caller).0,
        ids.ppid,
        ids.pgid,
        ids.sid,
        20 + nice,
        group.tasks().len(),
    );
    let _ = writeln!(
        rest,
        "{} {} {} 0 0 {} {} {} {} 0 0 0 {} 0 0 0 0 0 0 {} {} {} {} {} {} {} {}",
        marks.start_code.0,
        marks.end_code.0,
        marks.start_stack.0,
        pending & 0x7fff_ffff,
        blocked & 0x7fff_ffff,
        ignored.0 & 0x7fff_ffff,
        caught.0 & 0x7fff_ffff,
        libc::SIGCHLD,
        marks.start_data.0,
        marks.end_data.0,
        marks.start_brk.0,
        marks.arg_start.0,
        marks.arg_end.0,
        marks.env_start.0,
        marks.env_end.0,
        if guarded { group.exit_code() } else { 0 },
    );
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

/// A name with `\` and control characters escaped, as `status` shows it.
fn escape(name: &[u8]) -> String {
    let mut out = String::new();
    for b in name {
        match b {
            b'\n' => out.push_str("\\n"),
            b'\\' => out.push_str("\\\\"),
            _ => out.push(char::from(*b)),
        }
    }
    out
}

pub(super) fn status(subject: &Subject, caller: &CurrentTask) -> Text {
    let group = &subject.group;
    let task = subject.task().ok();
    let name = task.as_ref().map_or_else(|| group.name(), |t| t.name());
    let ids = group.ids();
    let (letter, word) = state(subject, caller);
    let mut out = String::with_capacity(1500);
    // Writing to a String cannot fail.
    let _ = writeln!(out, "Name:\t{}", escape(&name));
    if let Some(fs) = task.as_ref().and_then(|t| t.fs_opt()) {
        let _ = writeln!(out, "Umask:\t{:04o}", fs.umask());
    }
    let _ = write!(
        out,
        "State:\t{letter} ({word})\nTgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{}\nTracerPid:\t0\n",
        group.pid(),
        subject.number,
        ids.ppid
    );
    if let Some(task) = &task {
        let c = task.creds();
        let _ = writeln!(out, "Uid:\t{}\t{}\t{}\t{}", c.ruid, c.euid, c.suid, c.fsuid);
        let _ = writeln!(out, "Gid:\t{}\t{}\t{}\t{}", c.rgid, c.egid, c.sgid, c.fsgid);
        let slots = task.files_opt().map_or(0, |f| f.open_fds().last().map_or(0, |l| l.0.0 as usize + 1));
        let _ = write!(out, "FDSize:\t{}\nGroups:\t", slots.next_power_of_two().max(64));
        for g in &c.groups {
            let _ = write!(out, "{g} ");
        }
        let _ = write!(
            out,
            "\nNStgid:\t{}\nNSpid:\t{}\nNSpgid:\t{}\nNSsid:\t{}\n",
            group.pid(),
            subject.number,
            ids.pgid,
            ids.sid
        );
        if let Some(mm) = task.mm_opt() {
            memory_status(&mut out, &mm);
        }
        let _ = writeln!(out, "Threads:\t{}", group.tasks().len());
        signal_status(&mut out, subject, task);
        capability_status(&mut out, task);
    } else {
        let _ = writeln!(out, "Threads:\t1");
    }
    let _ = writeln!(out, "Speculation_Store_Bypass:\tthread vulnerable");
    let cpus = caller.kernel().machine.cpus();
    let _ = write!(
        out,
        "Cpus_allowed:\t{}\nCpus_allowed_list:\t{}\nMems_allowed:\t1\nMems_allowed_list:\t0\n",
        crate::fs::sys::cpu_mask(cpus),
        crate::fs::sys::cpu_list(cpus)
    );
    let switches = task.as_ref().map_or(0, |t| t.usage().voluntary_switches);
    let _ = write!(out, "voluntary_ctxt_switches:\t{switches}\nnonvoluntary_ctxt_switches:\t0\n");
    Ok(out.into_bytes())
}

fn memory_status(out: &mut String, mm: &MemoryManager) {
    let u = mm.usage();
    let kib = |pages: u64| pages * 4;
    let lines = [
        ("VmPeak", kib(u.peak_total)),
        ("VmSize", kib(u.total)),
        ("VmLck", kib(u.locked)),
        ("VmPin", 0),
        ("VmHWM", kib(u.peak_resident)),
        ("VmRSS", kib(u.resident)),
        ("RssAnon", kib(u.resident)),
        ("RssFile", 0),
        ("RssShmem", 0),
        ("VmData", kib(u.data)),
        ("VmStk", kib(u.stack)),
        ("VmExe", kib(u.text)),
        ("VmLib", kib(u.lib)),
        ("VmPTE", 0),
        ("VmSwap", 0),
        ("HugetlbPages", 0),
    ];
    for (name, value) in lines {
        let _ = writeln!(out, "{name}:\t{value:>8} kB");
    }
    let _ = write!(out, "CoreDumping:\t0\nTHP_enabled:\t0\n");
}

fn signal_status(out: &mut String, subject: &Subject, task: &Task) {
    let group = &subject.group;
    let (ignored, caught) = group.ignored_and_caught();
    let (queued, limit) = (group.pending_len(), group.rlimit(Resource::Sigpending).soft);
    let _ = write!(
        out,
        "SigQ:\t{queued}/{limit}\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}\n",
        task.signals.pending_set().0,
        group.pending_set().0,
        task.signals.blocked().0,
        ignored.0,
        caught.0
    );
}

fn capability_status(out: &mut String, task: &Task) {
    let c = task.creds();
    let _ = write!(
        out,
        "CapInh:\t{:016x}\nCapPrm:\t{:016x}\nCapEff:\t{:016x}\nCapBnd:\t{:016x}\nCapAmb:\t{:016x}\n",
        c.inheritable.bits(),
        c.permitted.bits(),
        c.effective.bits(),
        c.bounding.bits(),
        c.ambient.bits()
    );
    let no_new_privs = i32::from(task.no_new_privs());
    let _ = write!(out, "NoNewPrivs:\t{no_new_privs}\nSeccomp:\t0\nSeccomp_filters:\t0\n");
}

pub(super) fn limits(subject: &Subject, _: &CurrentTask) -> Text {
    const ROWS: [(&str, &str); Resource::COUNT] = [
        ("Max cpu time", "seconds"),
        ("Max file size", "bytes"),
        ("Max data size", "bytes"),
        ("Max stack size", "bytes"),
        ("Max core file size", "bytes"),
        ("Max resident set", "bytes"),
        ("Max processes", "processes"),
        ("Max open files", "files"),
        ("Max locked memory", "bytes"),
        ("Max address space", "bytes"),
        ("Max file locks", "locks"),
        ("Max pending signals", "signals"),
        ("Max msgqueue size", "bytes"),
        ("Max nice priority", ""),
        ("Max realtime priority", ""),
        ("Max realtime timeout", "us"),
    ];
    let show = |v: u64| if v == INFINITY { "unlimited".to_string() } else { v.to_string() };
    let mut out = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for (i, (name, unit)) in ROWS.iter().enumerate() {
        let Some(resource) = Resource::from_raw(i as u32) else { continue };
        let limit = subject.group.rlimit(resource);
        let _ = writeln!(out, "{name:<25} {:<20} {:<20} {unit:<10}", show(limit.soft), show(limit.hard));
    }
    Ok(out.into_bytes())
}

pub(super) fn mounts(subject: &Subject, _: &CurrentTask) -> Text {
    let fs = subject.task()?.fs_opt().ok_or(Errno::EINVAL)?;
    Ok(super::mounts::mounts(&fs.namespace(), &fs.root()))
}

pub(super) fn mountinfo(subject: &Subject, _: &CurrentTask) -> Text {
    let fs = subject.task()?.fs_opt().ok_or(Errno::EINVAL)?;
    Ok(super::mounts::mountinfo(&fs.namespace(), &fs.root()))
}

pub(super) fn cgroup(_: &Subject, _: &CurrentTask) -> Text {
    Ok(b"0::/\n".to_vec())
}

pub(super) fn id_map(_: &Subject, _: &CurrentTask) -> Text {
    Ok(format!("{:>10} {:>10} {:>10}\n", 0, 0, u32::MAX).into_bytes())
}

pub(super) fn setgroups(_: &Subject, _: &CurrentTask) -> Text {
    Ok(b"allow\n".to_vec())
}

pub(super) fn loginuid(_: &Subject, _: &CurrentTask) -> Text {
    Ok(u32::MAX.to_string().into_bytes())
}

pub(super) fn sessionid(_: &Subject, _: &CurrentTask) -> Text {
    Ok(u32::MAX.to_string().into_bytes())
}

pub(super) fn personality(subject: &Subject, _: &CurrentTask) -> Text {
    Ok(format!("{:08x}\n", subject.task()?.personality()).into_bytes())
}

pub(super) fn timerslack(subject: &Subject, _: &CurrentTask) -> Text {
    Ok(format!("{}\n", subject.task()?.timer_slack_ns()).into_bytes())
}

pub(super) fn wchan(_: &Subject, _: &CurrentTask) -> Text {
    Ok(b"0".to_vec())
}

pub(super) fn schedstat(subject: &Subject, _: &CurrentTask) -> Text {
    let ran = match &subject.task {
        Some(task) => task.usage().times.total(),
        None => subject.group.cpu_times().total(),
    };
    Ok(format!("{} 0 0\n", ran.as_nanos()).into_bytes())
}

pub(super) fn io(_: &Subject, _: &CurrentTask) -> Text {
    let names = ["rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes"];
    Ok(names.iter().map(|n| format!("{n}: 0\n")).collect::<String>().into_bytes())
}

pub(super) fn oom_score(subject: &Subject, _: &CurrentTask) -> Text {
    let score = i64::from(subject.group.oom_score_adj().0);
    Ok(format!("{}\n", (666 + score * 2 / 3).clamp(0, 2000)).into_bytes())
}

pub(super) fn oom_score_adj(subject: &Subject, _: &CurrentTask) -> Text {
    Ok(format!("{}\n", subject.group.oom_score_adj().0).into_bytes())
}

pub(super) fn oom_adj(subject: &Subject, _: &CurrentTask) -> Text {
    let adj = subject.group.oom_score_adj().0;
    Ok(format!("{}\n", if adj == 1000 { 15 } else { adj * 17 / 1000 }).into_bytes())
}

pub(super) fn set_oom_score_adj(subject: &Subject, caller: &CurrentTask, data: &[u8]) -> Result<(), Errno> {
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let adj: i32 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
    if !(-1000..=1000).contains(&adj) {
        return Err(Errno::EINVAL);
    }
    let privileged = caller.creds().has(Caps::SYS_RESOURCE);
    if adj < subject.group.oom_score_adj().1 && !privileged {
        return Err(Errno::EACCES);
    }
    subject.group.set_oom_score_adj(adj, privileged);
    Ok(())
}
