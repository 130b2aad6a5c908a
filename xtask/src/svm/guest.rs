//! The part that runs inside the emulated machine: this same program, started by the machine's first script.

use super::jobs::{Answer, Job, Jobs};
use crate::{conformance, process};
use anyhow::{Context, Result};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The jobs file
    jobs: PathBuf,
    /// Where answers go, a line each
    results: PathBuf,
}

/// Runs every job: first those that want to be alone, then the others two at a time.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let text = std::fs::read_to_string(&args.jobs).with_context(|| args.jobs.display().to_string())?;
    let Jobs { jobs } = serde_json::from_str(&text)?;
    let results = std::fs::File::options().write(true).open(&args.results);
    let results = Mutex::new(results.with_context(|| args.results.display().to_string())?);
    let (alone, together): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.alone);
    for job in &alone {
        answer(job, &results)?;
    }
    conformance::in_parallel(&together, |job| answer(job, &results)).into_iter().collect::<Result<()>>()?;
    Ok(true)
}

fn answer(job: &Job, results: &Mutex<std::fs::File>) -> Result<()> {
    let dir = Path::new("/tmp/jobs").join(job.name.replace('/', "-"));
    conformance::fresh_folder(&dir)?;
    let (program, args) = job.argv.split_first().context("an empty command")?;
    let mut command = Command::new(program);
    command.args(args).current_dir(&dir);
    command.env_clear().envs(conformance::ENVIRONMENT.iter().copied()).env("TMPDIR", &dir);
    let done = process::capture(&mut command, Duration::from_secs(job.limit_s))?;
    // Nothing in the machine outlives it.
    let _kept = std::fs::remove_dir_all(&dir);
    let mut line = serde_json::to_vec(&Answer::new(&job.name, &done))?;
    line.push(b'\n');
    let mut results = results.lock().map_err(|_| anyhow::anyhow!("another job panicked"))?;
    results.write_all(&line).context("writing an answer")
}
