//! `cargo xtask bench`: our figures beside the peers', in one run.
//!
//! Machines differ and are noisy, so that only figures of one run are compared: every runner takes its turn, round after
//! round, and medians with their spread (the 10th and the 90th percentile) are reported. `--record` puts the table, the
//! raw figures and a chart into `docs/bench/`, the only place a claim about speed may point to.

mod chart;
mod function;
mod memory;
mod record;
mod restore;
mod runners;
mod startup;
mod stats;
mod syscalls;

use anyhow::Result;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// From the start of the command to its end, and the memory of an idle sandbox
    Startup(Options),
    /// From an image to the first response, beside a cold start; memory of instances, size of images
    Restore(Options),
    /// What single operations cost in the sandbox
    Syscalls(Options),
}

#[derive(clap::Args)]
struct Options {
    /// Install runc and runsc from Debian's packages when they are missing
    #[arg(long)]
    with_peers: bool,
    /// How many rounds
    #[arg(long)]
    runs: Option<usize>,
    /// Write the raw figures here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write table, figures and chart to docs/bench/
    #[arg(long)]
    record: bool,
    /// The platforms our sandbox uses, each a column of its own
    #[arg(long, value_delimiter = ',', default_value = "systrap,kvm")]
    platform: Vec<String>,
    /// Only these runners
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    let (options, report) = match &args.what {
        What::Startup(options) => (options, startup::measure(options)?),
        What::Restore(options) => (options, restore::measure(options)?),
        What::Syscalls(options) => (options, syscalls::measure(options)?),
    };
    print!("\n{}", report.table());
    for line in report.ratios() {
        println!("  {line}");
    }
    for problem in &report.problems {
        println!("NOT MEASURED: {problem}");
    }
    if let Some(file) = &options.json {
        report.write_json(file)?;
    }
    if options.record {
        report.record()?;
    }
    Ok(report.problems.is_empty())
}
