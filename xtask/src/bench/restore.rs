//! Restoring a function from its image: to the first response, beside a cold start and beside `runsc restore`; whether it
//! depends on the size of the heap; what twenty restored instances hold in memory; how large an image is.
//!
//! The function is a Python HTTP handler that speaks on its standard streams: the same program, the same request and the same
//! boundaries for every runtime, whatever its network can be reached by.

use super::memory::{self, Memory};
use super::record::{Figure, Report};
use super::runners::{self, Runner};
use super::stats::Spread;
use super::{Options, function};
use crate::process;
use crate::rootfs;
use crate::setup;
use anyhow::{Context, Result, anyhow, bail, ensure};
use function::{Instance, LIMIT};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

const ROUNDS: usize = 15;
/// Of the heap, in MiB: what all figures are about, and the two whose restores are compared.
const HEAP: u32 = 64;
const SMALL: u32 = 16;
const LARGE: u32 = 1024;
/// How many instances of one image live at the same time.
const INSTANCES: usize = 20;

const COLD: &str = "cold start to first response";
const RESTORED: &str = "restore to first response";
const STARTED: &str = "restore to its threads' start";
const ENTERED: &str = "restore to first guest instruction";
const SMALL_HEAP: &str = "restore to first response, heap of 16 MiB";
const LARGE_HEAP: &str = "restore to first response, heap of 1 GiB";

/// An image of one runner's, and what it was taken of.
struct Image {
    path: PathBuf,
    bundle: PathBuf,
}

pub(super) fn measure(options: &Options) -> Result<Report> {
    setup::ensure(&[setup::BUILD, rootfs::NEEDS])?;
    let (mut runners, mut problems) = runners::all(options)?;
    runners.retain(Runner::is_sandbox);
    problems.retain(|problem| !problem.starts_with("runc "));
    let mut report = Report::new("restore", "Checkpoint and restore", &runners, problems);
    let rounds = options.runs.unwrap_or(ROUNDS).max(1);
    let mut samples = Samples::default();
    let mut images: BTreeMap<(usize, u32), Image> = BTreeMap::new();
    for (r, runner) in runners.iter().enumerate() {
        // The peer's restore reads its whole heap: that is known, and takes long.
        let heaps: &[u32] = if runner.is_ours() { &[HEAP, SMALL, LARGE] } else { &[HEAP] };
        for heap in heaps {
            match checkpoint(runner, *heap) {
                Ok(image) => drop(images.insert((r, *heap), image)),
                Err(error) => report.problems.push(format!("{}: checkpoint: {error:#}", runner.name)),
            }
        }
    }
    let progress = crate::report::progress((rounds + 1) * (images.len() + runners.len()));
    let mut broken = BTreeSet::new();
    // The first round fills the page cache and is not counted.
    for round in 0..=rounds {
        for (&(r, heap), image) in &images {
            let runner = &runners[r];
            let mut turn = |what: &'static str, outcome: Result<Taken>| {
                progress.inc(1);
                match outcome {
                    Ok(taken) if round > 0 => samples.add(r, heap, what, &taken),
                    Ok(_) => {}
                    Err(error) => {
                        if broken.insert((r, what)) {
                            report.problems.push(format!("{}: {what}: {error:#}", runner.name));
                        }
                    }
                }
            };
            if heap == HEAP {
                turn(COLD, cold(runner, image, round));
            }
            turn(RESTORED, restored(runner, image, round));
        }
    }
    progress.finish_and_clear();
    for what in [COLD, RESTORED, STARTED, ENTERED, SMALL_HEAP, LARGE_HEAP] {
        for (r, runner) in runners.iter().enumerate() {
            if let Some(spread) = samples.0.get(&(what, r)).and_then(|samples| Spread::of(samples)) {
                report.figures.push(Figure::new(what, &runner.name, "ms", spread));
            }
        }
    }
    for (r, ours) in runners.iter().enumerate().filter(|(_, runner)| runner.is_ours()) {
        let name = &ours.name;
        report.compare(RESTORED, name, "runsc systrap", Some(1.0 / 40.0));
        report.compare_whats(RESTORED, COLD, name, None);
        report.compare_whats(LARGE_HEAP, SMALL_HEAP, name, Some(1.3));
        report.limit(RESTORED, name, 8.0, "ms");
        if let Some(image) = images.get(&(r, HEAP)) {
            one_image(ours, image, &mut report)
                .unwrap_or_else(|error| report.problems.push(format!("{name}: {error:#}")));
        }
    }
    for image in images.values() {
        fs::remove_dir_all(&image.path).with_context(|| image.path.display().to_string())?;
    }
    Ok(report)
}

/// Milliseconds since the command was started.
struct Taken {
    response: f64,
    started: Option<f64>,
    entered: Option<f64>,
}

#[derive(Default)]
struct Samples(BTreeMap<(&'static str, usize), Vec<f64>>);

impl Samples {
    fn add(&mut self, runner: usize, heap: u32, what: &'static str, taken: &Taken) {
        let mut add = |what, ms: f64| self.0.entry((what, runner)).or_default().push(ms);
        match heap {
            SMALL => add(SMALL_HEAP, taken.response),
            LARGE => add(LARGE_HEAP, taken.response),
            _ => {
                add(what, taken.response);
                taken.started.into_iter().for_each(|ms| add(STARTED, ms));
                taken.entered.into_iter().for_each(|ms| add(ENTERED, ms));
            }
        }
    }
}

/// Starts the function, waits until it is ready, and makes an image of it.
fn checkpoint(runner: &Runner, heap: u32) -> Result<Image> {
    let dir = setup::work_dir("bench/restore")?;
    let bundle = function::bundle(&setup::work_dir("bench/bundles")?.join(format!("restore-{heap}")), heap)?;
    let path = dir.join(format!("{}-{heap}", runner.name.replace(' ', "-")));
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    fs::create_dir_all(&path)?;
    let id = format!("checkpoint-{}-{heap}", std::process::id());
    let mut instance = Instance::start(runner, runner.run(&bundle, &id)?, &id, false)?;
    instance.ready()?;
    let mut command = runner.oci();
    command.args(["checkpoint", "--image-path"]).arg(&path).arg(&id);
    process::text(&mut command, LIMIT)?;
    instance.end()?;
    if runner.is_ours() {
        // The first restore records what is used until the first output, as it would by itself; here it is waited for.
        let id = format!("record-{}-{heap}", std::process::id());
        let mut command = runner.restore(&path, &bundle, &id);
        command.args(["--detach", "--record-working-set"]);
        let mut instance = Instance::start(runner, command, &id, false)?;
        instance.send()?;
        instance.response()?;
        instance.command_ended()?;
        process::text(runner.oci().args(["delete", "--force", &id]), LIMIT)?;
    }
    Ok(Image { path, bundle })
}

fn cold(runner: &Runner, image: &Image, round: usize) -> Result<Taken> {
    let id = format!("cold-{}-{round}", std::process::id());
    let mut instance = Instance::start(runner, runner.run(&image.bundle, &id)?, &id, false)?;
    instance.send()?;
    instance.ready()?;
    let response = instance.response()?;
    instance.end()?;
    Ok(Taken { response, started: None, entered: None })
}

fn restored(runner: &Runner, image: &Image, round: usize) -> Result<Taken> {
    let id = format!("restore-{}-{round}", std::process::id());
    let command = runner.restore(&image.path, &image.bundle, &id);
    let mut instance = Instance::start(runner, command, &id, runner.is_ours())?;
    instance.send()?;
    let response = instance.response()?;
    let events = instance.end()?;
    let of = |name: &str| events.get(name).copied();
    Ok(Taken { response, started: of("started"), entered: of("first_guest_instruction") })
}

/// What is not a time: memory of live instances, the image's size.
fn one_image(runner: &Runner, image: &Image, report: &mut Report) -> Result<()> {
    let name = &runner.name;
    let mut figure = |what: &str, unit, value: f64| {
        let spread = Spread::of(&[value]).ok_or_else(|| anyhow!("{what}: nothing was measured"))?;
        report.figures.push(Figure::new(what, name, unit, spread));
        Ok::<(), anyhow::Error>(())
    };
    let (mapped, distinct) = image_bytes(&image.path)?;
    figure("image size / distinct pages that are not zero", "×", mapped as f64 / distinct as f64)?;
    let (cold, _) = live(runner, image, Start::Cold, 1)?;
    let (one, made) = live(runner, image, Start::Restored, 1)?;
    let (all, _) = live(runner, image, Start::Restored, INSTANCES)?;
    figure(OBJECTS, "%", made)?;
    let mib = |kib: u64| kib as f64 / 1024.0;
    figure("PSS of one cold instance", "MiB", mib(cold.pss_kib))?;
    figure("PSS of one restored instance", "MiB", mib(one.pss_kib))?;
    figure("PSS of twenty restored instances", "MiB", mib(all.pss_kib))?;
    figure("of that, what they have written", "MiB", mib(all.written_kib))?;
    let shared = all.pss_kib.saturating_sub(all.written_kib);
    figure(TWENTY, "×", shared as f64 / one.pss_kib as f64)?;
    figure(TWENTY_COLD, "×", shared as f64 / cold.pss_kib as f64)?;
    report.limit("image size / distinct pages that are not zero", name, 1.05, "×");
    report.limit(OBJECTS, name, 10.0, "%");
    report.limit(TWENTY, name, 1.5, "×");
    report.limit(TWENTY_COLD, name, 1.5, "×");
    Ok(())
}

const OBJECTS: &str = "kernel objects made before the first response";
const TWENTY: &str = "PSS of twenty without what they have written / one restored";
const TWENTY_COLD: &str = "PSS of twenty without what they have written / one cold";

/// Bytes that an image takes on disk, and bytes of the different pages in it that are not zero.
fn image_bytes(image: &Path) -> Result<(u64, u64)> {
    let mut disk = 0;
    let mut largest: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(image.join("blobs/blake3"))? {
        let path = entry?.path();
        let meta = fs::metadata(&path)?;
        disk += meta.blocks() * 512;
        if largest.as_ref().is_none_or(|(len, _)| *len < meta.len()) {
            largest = Some((meta.len(), path));
        }
    }
    // The page layer: raw, page after page.
    let (_, layer) = largest.ok_or_else(|| anyhow!("the image holds nothing"))?;
    let layer = fs::read(&layer)?;
    let pages: BTreeSet<&[u8]> =
        layer.chunks(4096).filter(|page| page.iter().any(|byte| *byte != 0)).collect();
    Ok((disk, pages.len() as u64 * 4096))
}

#[derive(Clone, Copy, PartialEq)]
enum Start {
    Cold,
    Restored,
}

/// Starts some instances, sends each a request, and looks at the memory of all; and how much of a hundred kernel objects the
/// first one made, where it was restored.
fn live(runner: &Runner, image: &Image, start: Start, count: usize) -> Result<(Memory, f64)> {
    let binary = runner.binary().ok_or_else(|| anyhow!("no runtime"))?;
    let copy = setup::work_dir("bench/live")?.join(format!("quicksand-{}", std::process::id()));
    rootfs::copy(binary, &copy)?;
    let runner = runner.with_binary(copy.clone());
    let mut ids = Vec::new();
    let mut instances = Vec::new();
    let mut start_all = || -> Result<(Memory, f64)> {
        for number in 0..count {
            let id = format!("live-{}-{number}", std::process::id());
            let mut command = match start {
                Start::Cold => runner.run(&image.bundle, &id)?,
                Start::Restored => runner.restore(&image.path, &image.bundle, &id),
            };
            command.arg("--detach");
            ids.push(id.clone());
            let mut instance = Instance::start(&runner, command, &id, false)?;
            instance.send()?;
            if start == Start::Cold {
                instance.ready()?;
            }
            instance.response()?;
            instance.command_ended()?;
            instances.push(instance);
        }
        Ok(match start {
            Start::Cold => (memory::of_sandboxes(&copy, None)?, 100.0),
            Start::Restored => {
                let made = objects_made(&runner, &format!("live-{}-0", std::process::id()))?;
                (memory::of_sandboxes(&copy, Some(&image.path))?, made)
            }
        })
    };
    let memory = start_all();
    // Whatever happened, nothing stays behind.
    for id in ids {
        let _already_gone =
            process::capture(runner.oci().args(["delete", "--force", &id]).stdin(Stdio::null()), LIMIT);
    }
    fs::remove_file(&copy)?;
    let (memory, made) = memory?;
    ensure!(memory.processes >= count, "only {} processes of {count} instances were found", memory.processes);
    if memory.pss_kib == 0 {
        bail!("the instances seem to have no memory");
    }
    Ok((memory, made))
}

/// Of a hundred kernel objects that the image holds, how many have been made.
fn objects_made(runner: &Runner, id: &str) -> Result<f64> {
    let text = process::text(runner.oci().args(["stats", "--format", "json", id]), LIMIT)?;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    let kinds = report["objects"].as_array().context("no objects in the statistics")?;
    let sum = |field: &str| kinds.iter().filter_map(|kind| kind[field].as_u64()).sum::<u64>() as f64;
    Ok(100.0 * sum("materialised") / sum("total"))
}
