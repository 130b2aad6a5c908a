//! Single operations: one static program, natively and in every sandbox.

use super::record::{Figure, Report};
use super::stats::Spread;
use super::{Options, runners};
use crate::build::{self, Linkage};
use crate::{bundle, process, rootfs, setup};
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::time::Duration;

const ROUNDS: usize = 5;
const LIMIT: Duration = Duration::from_secs(300);

pub(super) fn measure(options: &Options) -> Result<Report> {
    setup::ensure(&[setup::BUILD, rootfs::NEEDS])?;
    let (runners, problems) = runners::all(options)?;
    let mut report = Report::new("syscalls", "The cost of single operations", &runners, problems);
    let dir = setup::work_dir("bench/syscalls")?;
    let program = dir.join("syscall-bench");
    build::compile_c(
        &setup::root().join("tests/workloads/syscalls/bench.c"),
        &program,
        Linkage::Static,
        "-O2",
    )?;
    let root = bundle::root_with(&program, &dir.join("root"))?;
    let bundle = bundle::write(&dir.join("bundle"), &bundle::spec(&root, &["/usr/bin/syscall-bench"]))?;

    let rounds = options.runs.unwrap_or(ROUNDS).max(1);
    let progress = crate::report::progress(rounds * runners.len());
    let mut order: Vec<String> = Vec::new();
    let mut samples: BTreeMap<(String, usize), Vec<f64>> = BTreeMap::new();
    let mut broken: BTreeMap<usize, String> = BTreeMap::new();
    for round in 0..rounds {
        for (r, runner) in runners.iter().enumerate() {
            progress.inc(1);
            if broken.contains_key(&r) {
                continue;
            }
            let id = format!("bench-{}-{round}", std::process::id());
            match process::capture(&mut runner.run(&bundle, &id)?, LIMIT).and_then(|done| parse(&done)) {
                Ok(costs) => {
                    for (name, ns) in costs {
                        if !order.contains(&name) {
                            order.push(name.clone());
                        }
                        samples.entry((name, r)).or_default().push(ns / 1e3);
                    }
                }
                Err(error) => {
                    broken.insert(r, format!("{}: {error:#}", runner.name));
                }
            }
        }
    }
    progress.finish_and_clear();
    for name in &order {
        for (r, runner) in runners.iter().enumerate() {
            if let Some(spread) = samples.get(&(name.clone(), r)).and_then(|samples| Spread::of(samples)) {
                report.figures.push(Figure::new(name, &runner.name, "µs", spread));
            }
        }
        for ours in runners.iter().filter(|runner| runner.is_ours()) {
            report.compare(name, &ours.name, "runsc systrap", None);
        }
    }
    report.problems.extend(broken.into_values());
    Ok(report)
}

/// `name with spaces 12.3` per line, in nanoseconds.
fn parse(done: &process::Captured) -> Result<Vec<(String, f64)>> {
    if !done.success() {
        bail!("{}\n{}", done.describe(), done.stderr_text().trim_end());
    }
    let text = done.stdout_text();
    let line = |line: &str| {
        let (name, ns) = line.rsplit_once(' ')?;
        Some((name.to_owned(), ns.parse().ok()?))
    };
    Ok(text.lines().filter_map(line).collect())
}
