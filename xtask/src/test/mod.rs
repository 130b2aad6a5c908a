//! `cargo xtask test`: the workspace's own tests, then programs that must behave in the sandbox as on the host.

mod bad_input;
mod console;
mod container;
mod engines;
mod entry;
mod hostile;
mod hostile_guest;
mod lifecycle;
mod python;
mod restore;
mod restore_images;
mod restore_objects;
mod scripts;

use crate::conformance::Sandbox;
use crate::report::{Tally, heading};
use crate::{build, conformance, process, setup};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the workspace's own tests
    #[arg(long)]
    unit: bool,
    /// Only the conformance suite
    #[arg(long)]
    conformance: bool,
    /// Only shell scripts and Python one-liners
    #[arg(long)]
    scripts: bool,
    /// Only CPython's own tests
    #[arg(long)]
    python: bool,
    /// Only the OCI commands, bad input, and an interactive shell
    #[arg(long)]
    containers: bool,
    /// Only random system calls, for 20 seconds (`cargo xtask fuzz` for longer)
    #[arg(long)]
    fuzz: bool,
    /// Only the container engines
    #[arg(long)]
    engines: bool,
    #[command(flatten)]
    select: conformance::Select,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    if args.select.list {
        return conformance::list(&args.select).map(|()| true);
    }
    setup::ensure(&[setup::BUILD, setup::TESTS])?;
    let others =
        args.conformance || args.scripts || args.python || args.containers || args.fuzz || args.engines;
    let all = !(args.unit || others);
    let mut tally = Tally::default();
    if args.unit || all {
        heading("unit and integration tests");
        tally += cargo_tests()?;
    }
    if args.unit && !others {
        return finish(tally);
    }
    let (sandboxes, missing) = Sandbox::all(&args.select)?;
    tally += missing;
    for sandbox in &sandboxes {
        tally += on_platform(args, all, sandbox);
    }
    finish(tally)
}

/// Everything that runs in a sandbox.
fn on_platform(args: &Args, all: bool, sandbox: &Sandbox) -> Tally {
    let filter = args.select.filter.as_deref();
    let mut tally = Tally::default();
    let title = |what: &str| heading(&format!("{}: {what}", sandbox.platform()));
    if args.conformance || all {
        title("conformance, the sandbox against the host");
        tally += part(conformance::run(&args.select, sandbox));
    }
    if args.scripts || all {
        title("shell scripts, the sandbox against the host");
        tally += part(scripts::run(sandbox, filter));
    }
    if args.python || all {
        title("CPython's own tests, the sandbox against the host");
        tally += part(python::run(sandbox, filter));
    }
    if args.containers || all {
        title("containers: the OCI commands, bad input, an interactive shell");
        tally += part(containers(sandbox, filter));
    }
    if args.fuzz || all {
        title("random system calls");
        tally += part(crate::fuzz::tally(sandbox, FUZZ_SECONDS, 1));
    }
    if args.engines || all {
        title("container engines");
        tally += part(engines::run(sandbox, filter));
    }
    tally
}

/// How long random calls are part of every test run.
const FUZZ_SECONDS: u64 = 20;

fn containers(sandbox: &Sandbox, filter: Option<&str>) -> Result<Tally> {
    if !setup::is_root() {
        println!("NOT RUN: containers with a spec of their own need root");
        return Ok(Tally::skipped());
    }
    let checks: Vec<container::Check> = [
        lifecycle::CHECKS,
        restore::CHECKS,
        restore_images::CHECKS,
        restore_objects::CHECKS,
        entry::CHECKS,
        bad_input::CHECKS,
        hostile::CHECKS,
        hostile_guest::CHECKS,
        console::CHECKS,
    ]
    .concat()
    .into_iter()
    .filter(|(name, _)| filter.is_none_or(|part| name.contains(part)))
    .collect();
    let runtime = container::Runtime::new(sandbox)?;
    let tally = runtime.run(&checks);
    runtime.end()?;
    Ok(tally)
}

fn finish(tally: Tally) -> Result<bool> {
    println!("\n{tally}");
    Ok(tally.ok())
}

/// A part that cannot be run at all is one failure, and does not keep the others from running.
fn part(result: Result<Tally>) -> Tally {
    let tally = result.unwrap_or_else(|error| {
        println!("FAILED: {error:#}");
        Tally::failed()
    });
    println!("{tally}");
    tally
}

/// The workspace's tests, with nextest where it is installed, and the examples in the documentation.
fn cargo_tests() -> Result<Tally> {
    let mut tally = Tally::default();
    let nextest = setup::find_program("cargo-nextest").is_some();
    let kinds: &[&[&str]] = if nextest {
        &[
            &["nextest", "run", "--workspace", "--no-fail-fast", "--no-tests=pass", "--status-level=fail"],
            &["test", "--quiet", "--workspace", "--doc", "--no-fail-fast"],
        ]
    } else {
        &[&["test", "--quiet", "--workspace", "--no-fail-fast"]]
    };
    for args in kinds {
        let mut command = build::cargo();
        command.args(*args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = process::command_line(&command);
        let mut child = command.spawn().with_context(|| format!("cannot start {line}"))?;
        // nextest reports on stderr, cargo test on stdout: both are shown as they come, and both are read.
        let out = child.stdout.take().map(|pipe| std::thread::spawn(move || relay(pipe)));
        let err = child.stderr.take().map(|pipe| std::thread::spawn(move || relay(pipe)));
        let status = process::wait_until(&mut child, Instant::now() + build::CARGO_LIMIT)?;
        let mut counted = Tally::default();
        for reader in [out, err].into_iter().flatten() {
            counted += reader.join().unwrap_or_default();
        }
        if !status.is_some_and(|status| status.success()) && counted.failed == 0 {
            println!("FAILED: {line}: {}", status.map_or("timed out".to_owned(), process::describe_status));
            counted += Tally::failed();
        }
        tally += counted;
    }
    println!("{tally}");
    Ok(tally)
}

/// Shows a stream and counts what its summary lines say.
fn relay(stream: impl std::io::Read) -> Tally {
    let mut tally = Tally::default();
    for line in BufReader::new(stream).split(b'\n').map_while(std::result::Result::ok) {
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally += count_summary(&line);
    }
    tally
}

/// `Summary [ 1.2s] 14 tests run: 13 passed, 1 failed, 2 skipped` or `test result: ok. 13 passed; 1 failed; 2 ignored; …`
pub(crate) fn count_summary(line: &str) -> Tally {
    let line = strip_colours(line);
    let line = line.trim_start();
    let counts = if let Some(rest) = line.strip_prefix("Summary [") {
        rest.split_once("run:").map(|(_, counts)| counts)
    } else {
        line.strip_prefix("test result:")
    };
    let Some(counts) = counts else { return Tally::default() };
    let mut tally = Tally::default();
    let words: Vec<&str> = counts.split([' ', ',', ';', '(', ')']).filter(|word| !word.is_empty()).collect();
    for pair in words.windows(2) {
        let [number, what] = pair else { continue };
        let Ok(number) = number.parse::<usize>() else { continue };
        match *what {
            "passed" => tally.passed += number,
            "failed" | "timed" => tally.failed += number,
            "skipped" | "ignored" => tally.skipped += number,
            _ => {}
        }
    }
    tally
}

fn strip_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.by_ref().find(|c| c.is_ascii_alphabetic());
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_runners_are_read() {
        let tally =
            count_summary("     Summary [   0.012s] 4 tests run: 3 passed (1 slow), 1 failed, 2 skipped");
        assert_eq!(tally, Tally { passed: 3, failed: 1, skipped: 2 });
        let tally =
            count_summary("test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        assert_eq!(tally, Tally { passed: 5, failed: 0, skipped: 1 });
        assert_eq!(count_summary("test foo ... ok"), Tally::default());
    }
}
