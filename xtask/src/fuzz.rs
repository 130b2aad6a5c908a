//! `cargo xtask fuzz`: random system calls with hostile arguments, for as long as asked. The Sentry must survive them.

use crate::build::{self, Linkage};
use crate::conformance::{Sandbox, Select};
use crate::report::Tally;
use crate::{process, setup};
use anyhow::Result;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// For how long, on each platform
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// The first round's seed; without it, the time
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    select: Select,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    setup::ensure(&[setup::BUILD])?;
    let seconds = (args.minutes * 60.0).max(1.0) as u64;
    let seed = args
        .seed
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs()));
    let (sandboxes, mut all) = Sandbox::all(&args.select)?;
    for sandbox in sandboxes {
        println!("on {}:", sandbox.platform());
        all += tally(&sandbox, seconds, seed)?;
    }
    let tally = all;
    println!("\n{tally}");
    Ok(tally.ok())
}

/// One check: the sandbox is still there at the end.
pub(crate) fn tally(sandbox: &Sandbox, seconds: u64, seed: u64) -> Result<Tally> {
    let program = setup::work_dir("fuzz")?.join("random_calls");
    let source = setup::root().join("tests/workloads/fuzz/random_calls.c");
    build::compile_c(&source, &program, Linkage::Static, "-O1")?;
    println!("{seconds} s of random system calls, from seed {seed}");
    let mut command = sandbox.command(&program);
    command.arg(seconds.to_string()).arg(seed.to_string());
    let done = process::capture(&mut command, Duration::from_secs(seconds + 60))?;
    let (stdout, stderr) = (done.stdout_text(), done.stderr_text());
    let last = stdout.lines().last().unwrap_or("");
    let panicked = stderr.contains("panicked at");
    if done.success() && last.starts_with("survived") && !panicked {
        println!("{last}");
        return Ok(Tally::passed());
    }
    println!("FAILED: {}; the last line was {last:?}", done.describe());
    let lines: Vec<&str> = stderr.lines().collect();
    let from =
        lines.iter().position(|line| line.contains("panicked at")).unwrap_or(lines.len().saturating_sub(15));
    for line in lines.iter().skip(from).take(30) {
        println!("  stderr: {line}");
    }
    Ok(Tally::failed())
}
