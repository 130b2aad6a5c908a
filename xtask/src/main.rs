//! `cargo xtask`: every developer command, one place.
//!
//! A command does all of its own set-up: it installs the Debian packages it needs when it runs as root, and prints
//! the one line to run when it does not ([`setup`]). Every child process has a deadline ([`process`]), and a command
//! that checks things ends with one line, `N passed, N failed, N skipped` ([`report`]).

#![forbid(unsafe_code)]

mod apt;
mod bench;
mod build;
mod bundle;
mod check;
mod conformance;
mod demo;
mod docs;
mod fuzz;
mod http;
mod process;
mod report;
mod rootfs;
mod setup;
mod svm;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Quicksand's developer commands", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Formatting, lints, licences and advisories, the unsafe ratchet, generated pages
    Check(check::Args),
    /// Every test: the workspace's own, then programs that must behave in the sandbox as on the host
    Test(test::Args),
    /// A real function in the sandbox, a request, and where the time went
    Demo(demo::Args),
    /// Our figures beside the peers'
    Bench(bench::Args),
    /// Random system calls with hostile arguments
    Fuzz(fuzz::Args),
    /// Write the pages that come from the sources
    Docs,
    /// The KVM platform on (emulated) hardware virtualisation
    Svm(svm::Args),
    /// The part of `svm` that runs in the emulated machine
    #[command(hide = true)]
    SvmGuest(svm::GuestArgs),
}

fn main() -> ExitCode {
    process::end_children_on_interrupt();
    let result = match Cli::parse().command {
        Command::Check(args) => check::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Docs => docs::run(),
        Command::Svm(args) => svm::run(&args),
        Command::SvmGuest(args) => svm::run_guest(&args),
    };
    finish(result)
}

/// Prints an error with its causes; the exit status says whether everything asked for held.
fn finish(result: Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
