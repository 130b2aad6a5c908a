//! `quicksand`: runs programs in a sandbox, behind the command line that container engines expect of an OCI runtime.
//!
//! - [`cli`]: the arguments. [`commands`]: one file per command.
//! - [`spec`]: the OCI `config.json`. [`state`]: what is kept of a container under `--root`. [`cgroup`]: its limits.
//! - [`launch`]: the host's side of starting a sandbox. [`sandbox`]: what runs inside the sandbox process.
//! - [`control`]: the messages between the two. [`restored`]: what a restore took. [`working_set`]: what a restored
//!   container used first. [`platform`], [`costs`]: which platform is used, and what it costs here.
#![forbid(unsafe_code)]
// A binary has no users of its items: `pub` here says that another module may use one.
#![allow(unreachable_pub)]

mod cgroup;
mod cli;
mod commands;
mod console;
mod control;
mod costs;
mod error;
mod hooks;
mod image_stream;
mod launch;
mod log;
mod passwd;
mod platform;
mod progress;
mod restored;
mod rlimits;
mod sandbox;
mod spec;
mod state;
mod timeline;
mod working_set;

use std::process::ExitCode;

/// The exit code for errors of our own, apart from those of programs.
const FAILED: u8 = 128;

fn main() -> ExitCode {
    let started_ns = timeline::now_ns();
    // A file that may not grow is an error (EFBIG), not the end: neither for a command nor for a guest's files.
    let _ = quicksand_host::signal::ignore(libc::SIGXFSZ);
    let cli = cli::parse();
    if let Err(e) = log::start(&cli.global) {
        error::complain(format_args!("quicksand: {e}"));
        return ExitCode::from(FAILED);
    }
    match commands::run(cli, started_ns) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            log::failure(&e.to_string());
            ExitCode::from(FAILED)
        }
    }
}
