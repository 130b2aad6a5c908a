//! The conformance suite: small C programs that run on the host and in the sandbox, and must agree.
//!
//! The host is the oracle: nothing about the expected answer is written down. Each program is compiled once, runs in
//! a fresh folder on either side, and its standard output and exit status are compared. What is known to differ
//! stands in `tests/conformance/KNOWN.toml` with a reason; it is shown and counted apart, and an entry whose program
//! agrees by now is a failure, so that the list stays true.

mod diff;
mod known;
mod program;

pub(crate) use program::{Outcome, Program};

use crate::build::Profile;
use crate::report::{Table, Tally};
use crate::{build, process, setup};
use anyhow::{Context, Result, bail};
use known::Known;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How many programs run at a time.
const WORKERS: usize = 2;

#[derive(clap::Args, Clone)]
pub(crate) struct Select {
    /// Only the conformance programs whose path contains this
    #[arg(long)]
    pub(crate) filter: Option<String>,
    /// The platform the sandbox uses
    #[arg(long, default_value = "auto")]
    pub(crate) platform: String,
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

/// What became of one program.
enum Verdict {
    Agrees,
    Differs(String),
    Known(String),
    Stale(String),
}

pub(crate) fn list(args: &Select) -> Result<()> {
    for program in selected(args)? {
        println!("{}", program.name);
    }
    Ok(())
}

/// Builds everything, runs everything, and prints a table by subsystem.
pub(crate) fn run(args: &Select) -> Result<Tally> {
    let programs = selected(args)?;
    if programs.is_empty() {
        println!("NOT RUN: no program in tests/conformance matches");
        return Ok(Tally::skipped());
    }
    let known = Known::read()?;
    if let Some(name) = known.unknown_to(&programs).next().filter(|_| args.filter.is_none()) {
        bail!("tests/conformance/KNOWN.toml names {name}, which does not exist");
    }
    let sandbox = Sandbox::new(args)?;
    let out = setup::work_dir("conformance")?;
    let verdicts = in_parallel(&programs, |program| verdict(program, &sandbox, &known, &out));
    Ok(report(&programs, &verdicts))
}

fn selected(args: &Select) -> Result<Vec<Program>> {
    let mut programs = program::discover(&setup::root().join("tests/conformance"))?;
    if let Some(filter) = &args.filter {
        programs.retain(|program| program.name.contains(filter.as_str()));
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
    pub(crate) fn new(args: &Select) -> Result<Self> {
        let profile = if args.release { Profile::Release } else { Profile::Debug };
        let binary = match &args.binary {
            Some(binary) => binary.clone(),
            None => build::quicksand(profile)?,
        };
        Ok(Self { binary, platform: args.platform.clone(), state: setup::work_dir("conformance-state")? })
    }

    /// `quicksand … do PROGRAM`, to be given arguments and a folder to run in.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.state).arg("--platform").arg(&self.platform).arg("do").arg(program);
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
    let difference = match compare(program, sandbox, out) {
        Ok(difference) => difference,
        Err(error) => Some(format!("{error:#}")),
    };
    match (difference, known.reason(&program.name)) {
        (None, None) => Verdict::Agrees,
        (Some(difference), None) => Verdict::Differs(difference),
        (Some(_), Some(reason)) => Verdict::Known(reason.to_owned()),
        (None, Some(reason)) => Verdict::Stale(reason.to_owned()),
    }
}

/// `None` when both sides agree, else what differs.
fn compare(program: &Program, sandbox: &Sandbox, out: &Path) -> Result<Option<String>> {
    let binary = program.compile(out)?;
    let mut native = Command::new(&binary);
    native.args(&program.args);
    let expected = in_fresh_folder(&mut native, program, &out.join("host"))?;
    if expected.status.is_none() {
        bail!("on the host it does not end: {}", expected.describe());
    }
    let mut guest = sandbox.command(&binary);
    guest.args(&program.args);
    let got = in_fresh_folder(&mut guest, program, &out.join("sandbox"))?;
    Ok(diff::outcomes(&Outcome::of(&expected), &Outcome::of(&got), &got.stderr_text()))
}

fn in_fresh_folder(command: &mut Command, program: &Program, parent: &Path) -> Result<process::Captured> {
    let dir = parent.join(program.file_stem());
    fresh_folder(&dir)?;
    command.current_dir(&dir).env_clear().envs(program::ENVIRONMENT.iter().copied());
    let done = process::capture(command, program.limit);
    // Left for a look after a failure only when it cannot be removed; the next run starts afresh anyway.
    let _kept = std::fs::remove_dir_all(&dir);
    done
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
    let mut by_subsystem: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    let mut tally = Tally::default();
    for (program, verdict) in programs.iter().zip(verdicts) {
        let column = match verdict {
            Verdict::Agrees => 0,
            Verdict::Differs(text) => {
                println!("--- {}: DIFFERS\n{}", program.name, text.trim_end());
                1
            }
            Verdict::Stale(reason) => {
                println!("--- {}: agrees now; take it out of KNOWN.toml (\"{reason}\")", program.name);
                1
            }
            Verdict::Known(reason) => {
                println!("--- {}: known difference: {reason}", program.name);
                2
            }
        };
        by_subsystem.entry(program.subsystem()).or_default()[column] += 1;
        tally += [Tally::passed(), Tally::failed(), Tally::skipped()][column];
    }
    let mut table = Table::new(["subsystem", "agree", "differ", "known"]);
    for (subsystem, counts) in &by_subsystem {
        table.row(std::iter::once((*subsystem).to_owned()).chain(counts.iter().map(ToString::to_string)));
    }
    table.row(
        ["all".to_owned()]
            .into_iter()
            .chain([tally.passed, tally.failed, tally.skipped].map(|n| n.to_string())),
    );
    print!("\n{table}");
    tally
}

/// The limit for one program unless its source asks for another.
pub(crate) const PROGRAM_LIMIT: Duration = Duration::from_secs(20);
