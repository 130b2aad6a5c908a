//! The conformance suite: small C programs that run on the host and in the sandbox, and must agree.
//!
//! The host is the oracle: nothing about the expected answer is written down. Each program is compiled once, runs in
//! a fresh folder on either side, and its standard output and exit status are compared. A line of output is one check,
//! and checks are what is counted. What is known to differ stands in `tests/conformance/KNOWN.toml` with a reason; it
//! is shown and counted apart, and an entry that agrees by now is a failure, so that the list stays true.

mod known;
mod program;
mod verdict;

pub(crate) use known::{Known, Reasons};
pub(crate) use program::{ENVIRONMENT, Outcome, Program};
pub(crate) use verdict::Verdict;

use crate::build::Profile;
use crate::report::{Table, Tally};
use crate::{build, process, setup};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How many programs run at a time.
const WORKERS: usize = 2;

/// The exit status by which a program says that it could not set itself up.
const SETUP_FAILED: i32 = 100;

#[derive(clap::Args, Clone)]
pub(crate) struct Select {
    /// Only the conformance programs whose path contains this
    #[arg(long)]
    pub(crate) filter: Option<String>,
    /// The platforms that the sandbox uses, one after the other
    #[arg(long, value_delimiter = ',', default_value = "systrap,kvm")]
    pub(crate) platform: Vec<String>,
    /// List the conformance programs and stop
    #[arg(long)]
    pub(crate) list: bool,
    /// Use this quicksand instead of building one
    #[arg(long)]
    pub(crate) binary: Option<PathBuf>,
    /// Measure with the release build
    #[arg(long)]
    pub(crate) release: bool,
}

pub(crate) fn list(args: &Select) -> Result<()> {
    for program in programs(args.filter.as_deref())? {
        println!("{}", program.name);
    }
    Ok(())
}

/// Builds everything, runs everything, and prints a table by subsystem.
pub(crate) fn run(args: &Select, sandbox: &Sandbox) -> Result<Tally> {
    let programs = programs(args.filter.as_deref())?;
    if programs.is_empty() {
        println!("NOT RUN: no program in tests/conformance matches");
        return Ok(Tally::skipped());
    }
    let known = Known::read()?;
    if let Some(name) = known.unknown_to(&programs).next().filter(|_| args.filter.is_none()) {
        bail!("tests/conformance/KNOWN.toml names {name}, which does not exist");
    }
    let out = setup::work_dir("conformance")?;
    let verdicts = in_parallel(&programs, |program| verdict(program, sandbox, &known, &out));
    Ok(report(&programs, &verdicts))
}

/// The suite, or those of it whose path contains the filter.
pub(crate) fn programs(filter: Option<&str>) -> Result<Vec<Program>> {
    let mut programs = program::discover(&setup::root().join("tests/conformance"))?;
    if let Some(filter) = filter {
        programs.retain(|program| program.name.contains(filter));
    }
    Ok(programs)
}

/// How a command is run in the sandbox: `quicksand do`, with its own state folder.
pub(crate) struct Sandbox {
    binary: PathBuf,
    platform: String,
    state: PathBuf,
}

impl Sandbox {
    /// One for each platform that was asked for and is there; and how many are not.
    pub(crate) fn all(args: &Select) -> Result<(Vec<Self>, Tally)> {
        let profile = if args.release { Profile::Release } else { Profile::Debug };
        let binary = match &args.binary {
            Some(binary) => binary.clone(),
            None => build::quicksand(profile)?,
        };
        let (mut all, mut tally) = (Vec::new(), Tally::default());
        for platform in &args.platform {
            if platform == "kvm" && !Path::new("/dev/kvm").exists() {
                println!("NOT RUN: the tests on kvm: there is no /dev/kvm");
                tally += Tally::skipped();
                continue;
            }
            let state = setup::work_dir("conformance-state")?;
            all.push(Self { binary: binary.clone(), platform: platform.clone(), state });
        }
        Ok((all, tally))
    }

    pub(crate) fn platform(&self) -> &str {
        &self.platform
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// The global flags a test's sandboxes get.
    pub(crate) fn flags(&self) -> Vec<String> {
        vec!["--platform".to_owned(), self.platform.clone()]
    }

    /// `quicksand … do PROGRAM`, to be given arguments and a folder to run in.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.state).args(self.flags()).arg("do").arg(program);
        command
    }
}

/// Runs `work` on every item with [`WORKERS`] threads; answers come back in the items' order.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    let progress = crate::report::progress(items.len());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(items.len()) {
            scope.spawn(|| {
                while let Some((index, item)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    items.get(index).map(|item| (index, item))
                } {
                    let answer = work(item);
                    progress.inc(1);
                    if let Ok(mut done) = done.lock() {
                        done.insert(index, answer);
                    }
                }
            });
        }
    });
    progress.finish_and_clear();
    done.into_inner().map(|done| done.into_values().collect()).unwrap_or_default()
}

fn verdict(program: &Program, sandbox: &Sandbox, known: &Known, out: &Path) -> Verdict {
    match both_sides(program, sandbox, out) {
        Ok((host, guest, stderr)) => Verdict::new(&host, &guest, &known.of(&program.name), &stderr),
        Err(error) => Verdict::broken(&format!("{error:#}")),
    }
}

/// Runs a program on the host and in the sandbox; the text is what the sandbox said on stderr.
fn both_sides(program: &Program, sandbox: &Sandbox, out: &Path) -> Result<(Outcome, Outcome, String)> {
    let binary = program.compile(out)?;
    let expected = on_host(program, &binary, out)?;
    let got = in_fresh_folder(
        &mut sandbox.command(&binary),
        &program.file_stem(),
        program.limit,
        &out.join("sandbox"),
    )?;
    Ok((expected, Outcome::of(&got), got.stderr_text()))
}

/// The oracle's answer. A program that hangs there, cannot be set up, or leaves files behind is a broken test.
pub(crate) fn on_host(program: &Program, binary: &Path, out: &Path) -> Result<Outcome> {
    let expected =
        in_fresh_folder(&mut Command::new(binary), &program.file_stem(), program.limit, &out.join("host"))?;
    if expected.status.is_none() {
        bail!("broken test: on the host it does not end: {}", expected.describe());
    }
    let outcome = Outcome::of(&expected);
    if outcome.code == Some(SETUP_FAILED) {
        bail!("broken test: its set-up fails on the host\n{}", expected.stdout_text());
    }
    Ok(outcome)
}

/// Runs a command in an empty folder of its own, with nothing of the developer's environment; it must leave the folder empty.
pub(crate) fn in_fresh_folder(
    command: &mut Command,
    name: &str,
    limit: Duration,
    parent: &Path,
) -> Result<process::Captured> {
    let dir = parent.join(name);
    fresh_folder(&dir)?;
    command.current_dir(&dir).env_clear().envs(program::ENVIRONMENT.iter().copied()).env("TMPDIR", &dir);
    let done = process::capture(command, limit)?;
    let left: Vec<_> = std::fs::read_dir(&dir)?.flatten().map(|entry| entry.file_name()).collect();
    fresh_folder(&dir)?;
    std::fs::remove_dir(&dir)?;
    if !left.is_empty() && done.status.is_some() {
        bail!("broken test: it leaves {left:?} behind");
    }
    Ok(done)
}

/// An empty folder at this path, whatever was there.
pub(crate) fn fresh_folder(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot empty {}", dir.display())),
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

fn report(programs: &[Program], verdicts: &[Verdict]) -> Tally {
    let mut by_subsystem: BTreeMap<&str, (usize, Tally)> = BTreeMap::new();
    let mut all = Tally::default();
    for (program, verdict) in programs.iter().zip(verdicts) {
        if !verdict.text.is_empty() {
            println!("--- {}\n{}", program.name, verdict.text.trim_end());
        }
        let (count, tally) = by_subsystem.entry(program.subsystem()).or_default();
        *count += 1;
        *tally += verdict.tally;
        all += verdict.tally;
    }
    let mut table = Table::new(["subsystem", "programs", "checks agree", "differ", "known"]);
    let rows = by_subsystem.iter().map(|(name, &(count, tally))| (*name, count, tally));
    for (name, count, tally) in rows.chain([("all", programs.len(), all)]) {
        let counts = [count, tally.passed, tally.failed, tally.skipped].map(|count| count.to_string());
        table.row(std::iter::once(name.to_owned()).chain(counts));
    }
    print!("\n{table}");
    all
}
