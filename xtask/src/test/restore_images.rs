//! Images that lead to each other, and what a restore says of itself: deltas, working sets, statistics.

use super::container::{Check, LIMIT, Runtime};
use super::restore::{Ready, bundle, checkpoint, clean_root, gone, restore, start, start_ready};
use crate::rootfs::{self, Kind};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::Path;

pub(super) const CHECKS: &[Check] = &[
    ("restore/statistics", statistics),
    ("restore/working-set", working_set),
    ("restore/delta", delta),
    ("restore/delta-of-delta", delta_of_delta),
];

/// Has some megabytes, of which no two pages are alike, and changes little of it between two stops.
const HOLDER: &str = "\
import hashlib, os, time
held = bytearray(os.urandom(8 << 20))
before = hashlib.sha256(held).hexdigest()
print('ready', flush=True)
def go(name):
    while not os.path.exists('/shared/' + name):
        time.sleep(0.01)
go('second')
held[4096 * 5] ^= 1
print('second', flush=True)
go('go')
held[4096 * 5] ^= 1
print(hashlib.sha256(held).hexdigest() == before)
";

fn start_holder(runtime: &Runtime) -> Result<Ready> {
    let root = rootfs::cached(Kind::Python)?;
    start_ready(runtime, bundle(runtime, &["/usr/bin/python3", "-c", HOLDER], &root)?)
}

fn inspect(runtime: &Runtime, image: &Path) -> Result<Value> {
    Ok(serde_json::from_str(&runtime.ok(&["image", "inspect", &image.to_string_lossy()])?)?)
}

fn statistics(runtime: &Runtime) -> Result<()> {
    let ready = start(runtime, "echo ready; until [ -e /shared/go ]; do sleep 0.02; done; echo done")?;
    checkpoint(runtime, &ready, &[])?;
    gone(runtime)?;
    let (image, bundle) = (ready.image.to_string_lossy(), ready.bundle.to_string_lossy());
    runtime.fails_clearly(&["stats", "test"], "test")?;
    let args = ["restore", "--image-path", &image, "--bundle", &bundle, "--detach", "test"];
    let done = runtime.call(&[&args[..], &["--stats=json"]].concat())?;
    ensure!(done.success(), "{}", done.stderr_text());
    let words = done.stderr_text();
    let first: Value = serde_json::from_str(&words).with_context(|| words.clone())?;
    let later: Value =
        serde_json::from_str(&runtime.ok(&["stats", "--format", "json", "--first-response", "test"])?)?;
    for report in [&first, &later] {
        let stages = report["stages"].as_array().context("stages")?;
        ensure!(stages.iter().any(|stage| stage["name"] == "memory"), "{report}");
        let objects = report["objects"].as_array().context("objects")?;
        let tasks = objects.iter().find(|kind| kind["kind"] == "task").context("tasks")?;
        ensure!(tasks["total"].as_u64().is_some_and(|total| total >= 1), "{report}");
        let count = |name: &str| report["pages"][name].as_u64().context("pages");
        ensure!(count("copied")? <= count("touched")? && count("total")? > 0, "{report}");
    }
    ensure!(first["firstResponseUs"].is_null() && later["firstResponseUs"].is_u64(), "{first} {later}");
    let table = runtime.ok(&["stats", "test"])?;
    ensure!(table.contains("memory") && table.contains("first response"), "{table}");
    runtime.ok(&["delete", "--force", "test"])?;
    clean_root(runtime);
    Ok(())
}

/// The first restore that stays records what it used; whatever is recorded, what is restored is the same.
fn working_set(runtime: &Runtime) -> Result<()> {
    let ready = start_holder(runtime)?;
    checkpoint(runtime, &ready, &[])?;
    gone(runtime)?;
    fs::write(ready.shared.join("second"), "")?;
    ensure!(inspect(runtime, &ready.image)?["workingSet"].is_null(), "there is a working set already");
    // Without --detach it would be recorded as well, and the program might end before.
    detached(runtime, &ready, &ready.output, &["--record-working-set"])?;
    let recorded = inspect(runtime, &ready.image)?["workingSet"].clone();
    ensure!(recorded[0].as_u64().is_some_and(|runs| runs > 0), "no working set: {recorded}");
    runtime.ok(&["image", "verify", &ready.image.to_string_lossy()])?;
    fs::write(ready.shared.join("go"), "")?;
    gone(runtime)?;
    let printed = fs::read_to_string(&ready.output)?;
    ensure!(printed == "second\nTrue\n", "it printed {printed:?}");
    let printed = restore(runtime, &ready, "two")?;
    ensure!(printed == "second\nTrue\n", "it printed {printed:?}");
    ensure!(inspect(runtime, &ready.image)?["workingSet"] == recorded, "it was recorded again");
    clean_root(runtime);
    Ok(())
}

/// Restores `from` as container `test`, with its output in a file.
fn detached(runtime: &Runtime, from: &Ready, output: &Path, flags: &[&str]) -> Result<()> {
    let mut command = runtime.command();
    command.args(["restore", "--detach", "--image-path"]).arg(&from.image).arg("--bundle").arg(&from.bundle);
    command.args(flags).arg("test").stdin(std::process::Stdio::null());
    command.stdout(fs::File::create(output)?).stderr(std::process::Stdio::null());
    crate::process::show(&mut command, LIMIT)
}

/// Restores `from`, lets it get to its second stop, and checkpoints it there.
fn second_stop(runtime: &Runtime, from: &Ready, to: &Ready, flags: &[&str]) -> Result<()> {
    detached(runtime, from, &from.output, &[])?;
    fs::write(from.shared.join("second"), "")?;
    let deadline = std::time::Instant::now() + LIMIT;
    while fs::read_to_string(&from.output)? != "second\n" {
        // The file does not tell when it grows.
        std::thread::sleep(std::time::Duration::from_millis(10));
        ensure!(std::time::Instant::now() < deadline, "it did not get to its second stop");
    }
    checkpoint(runtime, to, flags)?;
    gone(runtime)
}

fn delta(runtime: &Runtime) -> Result<()> {
    let first = start_holder(runtime)?;
    checkpoint(runtime, &first, &[])?;
    gone(runtime)?;
    let second = Ready { image: first.image.with_file_name("second"), ..first.copy() };
    second_stop(runtime, &first, &second, &[])?;
    let bytes =
        |image: &Path| Ok::<_, anyhow::Error>(inspect(runtime, image)?["diskBytes"].as_u64().unwrap_or(0));
    let (whole, delta) = (bytes(&first.image)?, bytes(&second.image)?);
    ensure!(whole > 8 << 20 && delta < whole / 4, "the first image has {whole} bytes, the delta {delta}");
    let again = restore(runtime, &second, "copy")?;
    ensure!(again == "True\n", "it printed {again:?}");

    // What needs another image says so, keeps it from being removed, and is nothing without it.
    let (one, two) =
        (first.image.to_string_lossy().into_owned(), second.image.to_string_lossy().into_owned());
    runtime.fails_clearly(&["image", "rm", &one], "second")?;
    let flat = Ready { image: first.image.with_file_name("flat"), ..first.copy() };
    runtime.ok(&["image", "flatten", &two, &flat.image.to_string_lossy()])?;
    let hidden = first.bundle.join("hidden");
    fs::rename(&first.image, &hidden)?;
    let bundle = first.bundle.to_string_lossy().into_owned();
    runtime.fails_clearly(&["restore", "--image-path", &two, "--bundle", &bundle, "copy"], "parent")?;
    let again = restore(runtime, &flat, "copy")?;
    ensure!(again == "True\n", "flattened, it printed {again:?}");
    fs::rename(&hidden, &first.image)?;

    // All of it, where that is wanted.
    fs::remove_file(first.shared.join("second"))?;
    let full = Ready { image: first.image.with_file_name("full"), ..first.copy() };
    second_stop(runtime, &first, &full, &["--full"])?;
    ensure!(bytes(&full.image)? > 8 << 20, "--full left pages out");
    clean_root(runtime);
    Ok(())
}

fn delta_of_delta(runtime: &Runtime) -> Result<()> {
    let first = start_holder(runtime)?;
    checkpoint(runtime, &first, &["--compression", "zstd"])?;
    gone(runtime)?;
    let second = Ready { image: first.image.with_file_name("second"), ..first.copy() };
    second_stop(runtime, &first, &second, &[])?;
    let third = Ready { image: first.image.with_file_name("third"), ..first.copy() };
    detached(runtime, &second, &first.output, &[])?;
    checkpoint(runtime, &third, &[])?;
    gone(runtime)?;
    let summary = inspect(runtime, &third.image)?;
    ensure!(summary["diskBytes"].as_u64().is_some_and(|bytes| bytes < 4 << 20), "{summary}");
    runtime.ok(&["image", "verify", &third.image.to_string_lossy()])?;
    let printed = restore(runtime, &third, "copy")?;
    ensure!(printed == "True\n", "it printed {printed:?}");
    clean_root(runtime);
    Ok(())
}
