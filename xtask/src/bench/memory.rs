//! The memory of live sandboxes: every process that runs the runtime's binary, and every descendant.
//!
//! The runtime is started from a copy of its binary, so that its processes are told from any other's by what they
//! execute, however they are related.

use super::runners::Runner;
use crate::{process, rootfs, setup};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// Creates and starts a container, waits until its program says that it is idle, and sums up.
pub(super) fn idle_mib(runner: &Runner, bundle: &Path, round: usize) -> Result<f64> {
    let binary = runner.binary().ok_or_else(|| anyhow!("no runtime"))?;
    let copy = setup::work_dir("bench/idle")?.join(format!(
        "{}-{}",
        runner.name.replace(' ', "-"),
        std::process::id()
    ));
    rootfs::copy(binary, &copy)?;
    let runner = runner.with_binary(copy.clone());
    let id = format!("idle-{}-{round}", std::process::id());
    let measured = measure(&runner, bundle, &id, &copy);
    // Whatever happened, nothing stays behind.
    let _already_gone = process::capture(runner.oci().args(["kill", &id, "KILL"]), LIMIT);
    let deleted = process::capture(runner.oci().args(["delete", "--force", &id]), LIMIT);
    fs::remove_file(&copy)?;
    let kib = measured?;
    if !deleted?.success() {
        bail!("the container could not be deleted");
    }
    Ok(kib as f64 / 1024.0)
}

fn measure(runner: &Runner, bundle: &Path, id: &str, copy: &Path) -> Result<u64> {
    let mut create = runner.oci();
    create.args(["create", "--bundle"]).arg(bundle).arg(id);
    create.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut child = create.spawn().context("create")?;
    let stdout = child.stdout.take().ok_or_else(|| anyhow!("no stdout"))?;
    let (send, lines) = channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        let _nobody_listens = send.send(read.map(|_| line));
    });
    let status = process::wait_until(&mut child, std::time::Instant::now() + LIMIT)?;
    if !status.is_some_and(|status| status.success()) {
        bail!("create failed");
    }
    process::text(runner.oci().args(["start", id]), LIMIT)?;
    let line = lines.recv_timeout(LIMIT).context("the program never said that it is idle")??;
    if line != "idle\n" {
        bail!("the program said {line:?}");
    }
    // `start` may still be on its way out of the list of processes, and the program on its way into its sleep: the smallest
    // of a few looks is the idle one.
    let mut least = u64::MAX;
    for _ in 0..5 {
        least = least.min(private_kib(copy)?);
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(least)
}

/// The private memory of every process of the sandbox.
fn private_kib(binary: &Path) -> Result<u64> {
    Ok(processes(binary)?.into_iter().map(|pid| rollup(pid, "Private_")).sum())
}

/// What several sandboxes hold together.
pub(super) struct Memory {
    pub(super) processes: usize,
    /// Shared pages count once.
    pub(super) pss_kib: u64,
    /// Pages of the image that are no longer shared with it: guests have written to them.
    pub(super) written_kib: u64,
}

/// All sandboxes that run from `binary`, restored from the image in the directory `image`.
pub(super) fn of_sandboxes(binary: &Path, image: Option<&Path>) -> Result<Memory> {
    let processes = processes(binary)?;
    let mut memory = Memory { processes: processes.len(), pss_kib: 0, written_kib: 0 };
    for pid in processes {
        memory.pss_kib += rollup(pid, "Pss:");
        if let Some(image) = image {
            memory.written_kib += written_kib(pid, &image.join("blobs"));
        }
    }
    Ok(memory)
}

/// Private pages in a process's mappings of files below `dir`.
fn written_kib(pid: u32, dir: &Path) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let mut within = false;
    let mut kib = 0;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Anonymous:") if within => {
                kib += words.next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
            }
            // `START-END perms offset device inode path`
            Some(first) if !first.ends_with(':') => {
                within = words.nth(4).is_some_and(|path| Path::new(path).starts_with(dir));
            }
            _ => {}
        }
    }
    kib
}

/// The processes of all sandboxes that run from `binary`.
fn processes(binary: &Path) -> Result<BTreeSet<u32>> {
    let parents = parents()?;
    let mut ours: BTreeSet<u32> = parents.keys().copied().filter(|&pid| executes(pid, binary)).collect();
    loop {
        let more: Vec<u32> = parents
            .iter()
            .filter(|&(pid, parent)| !ours.contains(pid) && ours.contains(parent))
            .map(|(&pid, _)| pid)
            .collect();
        if more.is_empty() {
            break;
        }
        ours.extend(more);
    }
    if ours.is_empty() {
        bail!("no process of the sandbox was found");
    }
    Ok(ours)
}

fn executes(pid: u32, binary: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == binary)
}

/// Every process with its parent.
fn parents() -> Result<BTreeMap<u32, u32>> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may be gone by now.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        if let Some(parent) = after_name.split_whitespace().nth(1).and_then(|parent| parent.parse().ok()) {
            parents.insert(pid, parent);
        }
    }
    Ok(parents)
}

/// The sum of the fields of `smaps_rollup` whose names begin so, in KiB.
fn rollup(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with(field));
    lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}
