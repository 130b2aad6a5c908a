//! Checkpoint and restore of kernel objects of all kinds: programs of `tests/workloads/restore` make them and check after the
//! restore that nothing has changed. Each image is restored on the platform that it was made on and on the other one.

use super::container::{Check, LIMIT, Runtime};
use super::restore::{self, Ready};
use crate::build::{Linkage, compile_c};
use crate::process;
use crate::rootfs::{self, Kind};
use crate::setup;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

pub(super) const CHECKS: &[Check] = &[
    ("restore/objects/terminals", |runtime| program(runtime, "terminals.py")),
    ("restore/objects/timers", |runtime| program(runtime, "timers.py")),
    ("restore/objects/files", |runtime| program(runtime, "files.py")),
    ("restore/objects/jobs", |runtime| program(runtime, "jobs.py")),
    ("restore/objects/sockets", |runtime| program(runtime, "sockets.py")),
    ("restore/objects/ipc", |runtime| program(runtime, "ipc.py")),
    ("restore/objects/blocked", |runtime| program(runtime, "blocked.py")),
    ("restore/objects/programs", |runtime| program(runtime, "programs.py")),
    ("restore/objects/threads", threads),
];

/// Runs a program until it is ready, checkpoints it, and restores it on each platform, twice on its own.
fn program(runtime: &Runtime, name: &str) -> Result<()> {
    on_each_platform(runtime, &restore::start_python(runtime, name)?, name)
}

/// A C program with thirty threads.
fn threads(runtime: &Runtime) -> Result<()> {
    let source = setup::root().join("tests/workloads/restore/threads.c");
    let argv = ["/shared/threads", "/shared/go"];
    let ready = restore::bundle(runtime, &argv, &rootfs::cached(Kind::Busybox)?)?;
    compile_c(&source, &ready.shared.join("threads"), Linkage::Static, "-O1")?;
    on_each_platform(runtime, &restore::start_ready(runtime, ready)?, "threads")
}

fn on_each_platform(runtime: &Runtime, ready: &Ready, name: &str) -> Result<()> {
    restore::checkpoint(runtime, ready, &[])?;
    restore::gone(runtime)?;
    let own = runtime.platform().context("a platform")?;
    let other = if own == "kvm" { "systrap" } else { "kvm" };
    let mut platforms = vec![own, own];
    if other == "systrap" || Path::new("/dev/kvm").exists() {
        platforms.push(other);
    } else {
        println!("NOT RUN: {name} restored on kvm: there is no /dev/kvm");
    }
    for platform in platforms {
        let printed = restore_on(runtime, ready, platform)?;
        ensure!(printed == "ok\n", "restored on {platform}: {printed:?}");
    }
    restore::clean_root(runtime);
    Ok(())
}

fn restore_on(runtime: &Runtime, ready: &Ready, platform: &str) -> Result<String> {
    fs::write(ready.shared.join("go"), "")?;
    let mut command = runtime.command_on(platform);
    command
        .args(["restore", "--image-path"])
        .arg(&ready.image)
        .arg("--bundle")
        .arg(&ready.bundle)
        .arg("copy");
    let done = process::capture(&mut command, LIMIT)?;
    fs::remove_file(ready.shared.join("go"))?;
    let (code, said) = (done.describe(), done.stderr_text());
    // What it prints says why it failed.
    ensure!(done.success() || !done.stdout_text().is_empty(), "restored on {platform}: {code}\n{said}");
    if !said.trim().is_empty() {
        println!("        it said: {}", said.trim());
    }
    Ok(done.stdout_text())
}
