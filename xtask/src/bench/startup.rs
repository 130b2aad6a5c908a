//! Cold starts: from the start of the command to its end; and what an idle sandbox keeps resident.

use super::record::{Figure, Report};
use super::runners::{self, Runner};
use super::stats::Spread;
use super::{Options, memory};
use crate::rootfs::{self, Kind};
use crate::{bundle, process, setup};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

const ROUNDS: usize = 15;
const LIMIT: Duration = Duration::from_secs(60);

struct Workload {
    name: &'static str,
    bundle: PathBuf,
    expected: &'static str,
}

pub(super) fn measure(options: &Options) -> Result<Report> {
    setup::ensure(&[setup::BUILD, rootfs::NEEDS])?;
    let (runners, problems) = runners::all(options)?;
    let mut report = Report::new("startup", "Cold start and idle memory", &runners, problems);
    let workloads = [
        workload("busybox echo", Kind::Busybox, &["/bin/busybox", "echo", "hello"], "hello\n")?,
        workload(
            "python import line",
            Kind::Python,
            &["/usr/bin/python3", "-c", "import json,re,os,http.server; print()"],
            "\n",
        )?,
    ];
    let rounds = options.runs.unwrap_or(ROUNDS).max(1);
    let progress = crate::report::progress((rounds + 1) * workloads.len() * runners.len());
    let mut samples: BTreeMap<(usize, usize), Vec<f64>> = BTreeMap::new();
    let mut broken: BTreeMap<(usize, usize), String> = BTreeMap::new();
    // The first round fills the page cache and is not counted.
    for round in 0..=rounds {
        for (w, workload) in workloads.iter().enumerate() {
            for (r, runner) in runners.iter().enumerate() {
                progress.inc(1);
                if broken.contains_key(&(w, r)) {
                    continue;
                }
                match once(runner, workload, round) {
                    Ok(ms) if round > 0 => samples.entry((w, r)).or_default().push(ms),
                    Ok(_) => {}
                    Err(error) => {
                        broken.insert((w, r), format!("{}: {}: {error:#}", runner.name, workload.name));
                    }
                }
            }
        }
    }
    progress.finish_and_clear();
    for (w, workload) in workloads.iter().enumerate() {
        for (r, runner) in runners.iter().enumerate() {
            if let Some(spread) = samples.get(&(w, r)).and_then(|samples| Spread::of(samples)) {
                report.figures.push(Figure::new(workload.name, &runner.name, "ms", spread));
            }
        }
    }
    report.problems.extend(broken.into_values());
    idle_memory(&runners, rounds.min(5), &mut report)?;
    for ours in runners.iter().filter(|runner| runner.is_ours()) {
        report.compare("busybox echo", &ours.name, "runc", Some(0.25));
        report.compare("python import line", &ours.name, "native", None);
        report.compare("python import line", &ours.name, "runsc systrap", Some(0.6));
        report.limit("idle memory", &ours.name, 10.0, "MiB");
    }
    Ok(report)
}

fn workload(name: &'static str, kind: Kind, argv: &[&str], expected: &'static str) -> Result<Workload> {
    let dir = setup::work_dir("bench/bundles")?.join(name.replace(' ', "-"));
    Ok(Workload { name, bundle: bundle::write(&dir, &bundle::spec(&rootfs::cached(kind)?, argv))?, expected })
}

/// One start, in milliseconds; it must print what it should.
fn once(runner: &Runner, workload: &Workload, round: usize) -> Result<f64> {
    let id = format!("bench-{}-{round}", std::process::id());
    let mut command = runner.run(&workload.bundle, &id)?;
    let done = process::capture(&mut command, LIMIT)?;
    if !done.success() || done.stdout_text() != workload.expected {
        bail!("{}, printed {:?}\n{}", done.describe(), done.stdout_text(), done.stderr_text().trim_end());
    }
    Ok(done.elapsed.as_secs_f64() * 1e3)
}

/// What all processes of a sandbox hold privately while its only program waits.
fn idle_memory(runners: &[Runner], rounds: usize, report: &mut Report) -> Result<()> {
    let dir = setup::work_dir("bench/bundles")?.join("idle");
    let root = rootfs::cached(Kind::Busybox)?;
    let bundle = bundle::write(&dir, &bundle::spec(&root, &["/bin/sh", "-c", "echo idle; exec sleep 1000"]))?;
    for runner in runners.iter().filter(|runner| runner.is_sandbox()) {
        let mut samples = Vec::new();
        for round in 0..rounds {
            match memory::idle_mib(runner, &bundle, round)
                .with_context(|| format!("{}: idle memory", runner.name))
            {
                Ok(mib) => samples.push(mib),
                Err(error) => {
                    report.problems.push(format!("{error:#}"));
                    break;
                }
            }
        }
        if let Some(spread) = Spread::of(&samples) {
            report.figures.push(Figure::new("idle memory", &runner.name, "MiB", spread));
        }
    }
    Ok(())
}
