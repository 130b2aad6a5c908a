//! What must end in one clear message or the errno Linux gives, and leave the host as it was.

use super::container::{Check, LIMIT, Runtime};
use crate::process::{self, Group};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

pub(super) const CHECKS: &[Check] = &[
    ("bad-input/corrupt-elf", corrupt_elf),
    ("bad-input/no-config", no_config),
    ("bad-input/config-is-not-json", not_json),
    ("bad-input/spec-fields", spec_fields),
    ("bad-input/no-root", no_root),
    ("bad-input/no-program", no_program),
    ("bad-input/console-socket", console_socket),
    ("bad-input/ids", ids),
    ("bad-input/full-disk", full_disk),
    ("bad-input/memory-limit", memory_limit),
    ("bad-input/fork-bomb", fork_bomb),
    ("bad-input/killed-sandbox", killed_sandbox),
    ("bad-input/killed-gofer", killed_gofer),
    ("bad-input/killed-stubs", killed_stubs),
];

fn run_args(bundle: &Path) -> [String; 4] {
    ["run", "--bundle", &bundle.to_string_lossy(), "test"].map(str::to_owned)
}

/// `run` of this bundle fails with a message that mentions `must_say`.
fn run_fails(runtime: &Runtime, bundle: &Path, must_say: &str) -> Result<()> {
    let args = run_args(bundle);
    runtime.fails_clearly(&args.each_ref().map(String::as_str), must_say)
}

/// Every kind of damage to a program: the shell must get the errno Linux gives, or the sandbox end clearly.
fn corrupt_elf(runtime: &Runtime) -> Result<()> {
    let scratch = runtime.scratch()?;
    let good = fs::read(runtime.root.join("usr/bin/busybox"))?;
    type Damage = (&'static str, fn(&mut Vec<u8>));
    let damage: &[Damage] = &[
        ("empty", |bytes| bytes.clear()),
        ("short-header", |bytes| bytes.truncate(20)),
        ("no-segments", |bytes| bytes.truncate(64)),
        ("half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("wrong-class", |bytes| bytes[4] = 1),
        ("wrong-machine", |bytes| bytes[18] = 40),
        ("segments-beyond-end", |bytes| bytes[32..40].fill(0xff)),
        ("many-segments", |bytes| bytes[56..58].fill(0xff)),
        ("segment-sizes", |bytes| bytes[64 + 32..64 + 48].fill(0xff)),
        ("segment-address", |bytes| bytes[64 + 16..64 + 24].fill(0x7f)),
        ("entry", |bytes| bytes[24..32].fill(0xf0)),
    ];
    for (name, change) in damage {
        let mut bytes = good.clone();
        change(&mut bytes);
        fs::write(scratch.join(name), bytes)?;
        crate::rootfs::set_mode(&scratch.join(name), 0o755)?;
    }
    let script = "cd /corrupt; for f in *; do ./$f >/dev/null 2>&1; [ $? -ge 126 ] || echo \"$f: $?\"; done; echo done";
    let bundle = runtime.shell(script, |spec| {
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            mounts.push(json!({ "destination": "/corrupt", "type": "bind", "source": scratch, "options": ["bind", "ro"] }));
        }
    })?;
    let done = runtime.run_bundle(&bundle)?;
    let _not_there = fs::remove_dir(runtime.root.join("corrupt"));
    ensure!(done.success(), "{}\n{}", done.describe(), done.stderr_text());
    // What Linux runs, or runs as a script, is the shell's business; only a kernel that gives up is ours.
    ensure!(done.stdout_text().ends_with("done\n"), "{:?}", done.stdout_text());
    ensure!(!done.stderr_text().contains("panicked"), "{}", done.stderr_text());
    Ok(())
}

fn no_config(runtime: &Runtime) -> Result<()> {
    run_fails(runtime, &runtime.scratch()?, "config.json")
}

fn not_json(runtime: &Runtime) -> Result<()> {
    let dir = runtime.scratch()?;
    for content in ["", "{", "[]", "{\"process\": 3}"] {
        fs::write(dir.join("config.json"), content)?;
        run_fails(runtime, &dir, "")?;
    }
    Ok(())
}

fn spec_fields(runtime: &Runtime) -> Result<()> {
    let changes: &[(&str, Value, &str)] = &[
        ("/process/args", json!([]), "args"),
        ("/process/cwd", json!("relative"), "cwd"),
        ("/process/rlimits", json!([{ "type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1 }]), "RLIMIT_NOSUCH"),
        ("/process/capabilities/effective", json!(["CAP_NOSUCH"]), "CAP_NOSUCH"),
        ("/process/user/uid", json!(-1), ""),
        ("/ociVersion", json!("99.0"), ""),
        ("/mounts/0/destination", json!("proc-nowhere/../../x"), ""),
    ];
    for (pointer, value, must_say) in changes {
        let bundle = runtime.shell("true", |spec| {
            if let Some((parent, key)) = pointer.rsplit_once('/')
                && let Some(object) = spec.pointer_mut(parent)
            {
                object[key] = value.clone();
            }
        })?;
        let done = runtime.run_bundle(&bundle)?;
        ensure!(!done.stderr_text().contains("panicked"), "{pointer}: {}", done.stderr_text());
        // A field that can be ignored may be; one that cannot is named.
        if !must_say.is_empty() {
            ensure!(!done.success(), "{pointer} = {value} is accepted");
            let stderr = done.stderr_text();
            ensure!(
                stderr.contains(must_say),
                "{pointer}: the message does not mention it: {}",
                stderr.trim()
            );
        }
    }
    Ok(())
}

fn no_root(runtime: &Runtime) -> Result<()> {
    let bundle = runtime.shell("true", |spec| spec["root"]["path"] = json!("/no/such/root"))?;
    run_fails(runtime, &bundle, "/no/such/root")
}

fn no_program(runtime: &Runtime) -> Result<()> {
    run_fails(runtime, &runtime.bundle(&["/no/such/program"], |_| {})?, "/no/such/program")?;
    run_fails(runtime, &runtime.bundle(&["/etc/passwd"], |_| {})?, "/etc/passwd")
}

fn console_socket(runtime: &Runtime) -> Result<()> {
    let bundle = runtime.shell("true", |spec| spec["process"]["terminal"] = json!(true))?;
    let bundle = bundle.to_string_lossy();
    runtime.fails_clearly(
        &["create", "--bundle", &bundle, "--console-socket", "/no/such/socket", "test"],
        "socket",
    )
}

fn ids(runtime: &Runtime) -> Result<()> {
    let bundle = runtime.shell("true", |_| {})?;
    for id in ["../escape", "a/b", ".", "..", "", "a\u{1}b", &"x".repeat(2000)] {
        runtime.fails_clearly(&["run", "--bundle", &bundle.to_string_lossy(), id], "")?;
    }
    for command in ["start", "state", "delete"] {
        runtime.fails_clearly(&[command, "nobody"], "nobody")?;
    }
    Ok(())
}

fn full_disk(runtime: &Runtime) -> Result<()> {
    let bundle = runtime.shell("dd if=/dev/zero of=/small/f bs=4096 count=100 2>&1 | grep -c 'No space left'; echo more >/small/g", |spec| {
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            mounts.push(json!({ "destination": "/small", "type": "tmpfs", "source": "tmpfs", "options": ["size=16k"] }));
        }
    })?;
    let done = runtime.run_bundle(&bundle)?;
    let _not_there = fs::remove_dir(runtime.root.join("small"));
    ensure!(
        done.stdout_text() == "1\n" && !done.success(),
        "{}, printed {:?}",
        done.describe(),
        done.stdout_text()
    );
    ensure!(done.stderr_text().contains("No space left"), "{}", done.stderr_text());
    Ok(())
}

/// A guest that maps until it hits its limit gets ENOMEM, and lives.
fn memory_limit(runtime: &Runtime) -> Result<()> {
    let script = "ulimit -v 200000; x=0123456789abcdef; (while :; do x=$x$x; done) 2>/dev/null; [ $? -ne 0 ] && echo alive";
    runtime.expect(&runtime.shell(script, |_| {})?, 0, "alive\n")
}

fn fork_bomb(runtime: &Runtime) -> Result<()> {
    let script = "i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i + 1)); done 2>/dev/null; echo bounded";
    let bundle =
        runtime.shell(script, |spec| spec["linux"]["resources"] = json!({ "pids": { "limit": 40 } }))?;
    let done = runtime.run_bundle(&bundle)?;
    ensure!(done.status.is_some(), "{}", done.describe());
    ensure!(!done.stderr_text().contains("panicked"), "{}", done.stderr_text());
    Ok(())
}

/// A `run` in the background, and what it started, once its program is up.
fn with_running(runtime: &Runtime, act: impl FnOnce(&Runtime) -> Result<()>) -> Result<Option<i32>> {
    let scratch = runtime.scratch()?;
    let bundle = runtime.shell("echo up >/scratch/up; exec sleep 1000", |spec| {
        if let Some(mounts) = spec["mounts"].as_array_mut() {
            mounts.push(json!({ "destination": "/scratch", "type": "bind", "source": scratch, "options": ["bind", "rw"] }));
        }
    })?;
    let mut command = runtime.command();
    command
        .args(run_args(&bundle))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let mut child = command.spawn()?;
    let _killed_when_dropped = Group::of(&child)?;
    let deadline = Instant::now() + LIMIT;
    while !scratch.join("up").exists() {
        if process::wait_for(&mut child, Duration::from_millis(50))?.is_some() || Instant::now() > deadline {
            bail!("the program did not start");
        }
    }
    let _not_there = fs::remove_dir(runtime.root.join("scratch"));
    act(runtime)?;
    let status = process::wait_until(&mut child, Instant::now() + LIMIT)?;
    ensure!(status.is_some(), "`run` did not end");
    // What a killed sandbox left in the state folder is taken away by `delete`.
    let _not_there = runtime.call(&["delete", "--force", "test"])?;
    Ok(status.and_then(|status| status.code()))
}

/// Every process of the sandbox but the command that waits for it is killed.
fn killed_sandbox(runtime: &Runtime) -> Result<()> {
    let code = with_running(runtime, |runtime| {
        let state: Value = serde_json::from_str(&runtime.ok(&["state", "test"])?)?;
        let pid = state["pid"]
            .as_i64()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
            .context("no pid")?;
        kill_process(pid, Signal::KILL).context("kill")
    })?;
    ensure!(code.is_none_or(|code| code != 0), "`run` reports success");
    Ok(())
}

/// Systrap's processes, which run the program's code, are killed: so is the program, wherever it waits. Other platforms have
/// none.
fn killed_stubs(runtime: &Runtime) -> Result<()> {
    let mut stubs = Vec::new();
    let code = with_running(runtime, |runtime| {
        let is_stub = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "qs-stub")
        };
        stubs = runtime.processes().into_iter().filter(is_stub).collect();
        for pid in stubs.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            kill_process(pid, Signal::KILL).context("kill")?;
        }
        if stubs.is_empty() {
            runtime.call(&["kill", "test", "KILL"])?;
        }
        Ok(())
    })?;
    ensure!(code == Some(137), "`run` ended with {code:?}, {} stubs", stubs.len());
    Ok(())
}

/// The file server is killed: the sandbox may go on or end, but nothing hangs and nothing is left.
fn killed_gofer(runtime: &Runtime) -> Result<()> {
    with_running(runtime, |runtime| {
        let is_gofer = |pid: &i32| {
            let name = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            name("cmdline").contains("gofer") || name("comm").contains("gofer")
        };
        if let Some(pid) = runtime.processes().into_iter().find(is_gofer).and_then(Pid::from_raw) {
            kill_process(pid, Signal::KILL).context("kill")?;
        }
        runtime.call(&["kill", "test", "KILL"]).map(|_| ())
    })
    .map(|_| ())
}
