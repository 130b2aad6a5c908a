//! The commands, one file each. A command returns the exit code, or the error that `main` reports.

mod checkpoint;
mod create;
mod delete;
mod doctor;
mod entry;
mod exec;
mod features;
mod foreground;
mod image;
mod invoke;
mod kill;
mod list;
mod pause;
mod ps;
mod restore;
mod run;
mod run_do;
mod signals;
mod spec;
mod start;
mod state;
mod stats;
mod stdio;
mod wait;

use crate::cli::{Cli, Command};
use crate::error::Result;
use crate::fail;

pub use signals::parse as signal_by_name;

/// Runs the command.
pub fn run(cli: Cli, started_ns: u64) -> Result<u8> {
    let global = &cli.global;
    if global.version {
        return features::version().map(|()| 0);
    }
    let Some(command) = cli.command else {
        fail!("a command is missing; `quicksand --help` lists them");
    };
    match command {
        Command::Do(args) => run_do::run(global, args, started_ns),
        Command::Run(args) => run::run(global, args, started_ns),
        Command::Create(args) => create::run(global, args),
        Command::Start(args) => start::run(global, &args),
        Command::State(args) => state::run(global, &args.id),
        Command::Exec(args) => exec::run(global, *args),
        Command::Kill(args) => kill::run(global, &args),
        Command::Ps(args) => ps::run(global, &args),
        Command::Wait(args) => wait::run(global, &args.id),
        Command::Pause(args) => pause::pause(global, &args.id),
        Command::Resume(args) => pause::resume(global, &args.id),
        Command::Checkpoint(args) => checkpoint::run(global, &args),
        Command::Restore(args) => restore::run(global, args, started_ns),
        Command::Stats(args) => stats::run(global, &args),
        Command::Invoke(args) => invoke::run(global, &args),
        Command::Image(command) => image::run(command),
        Command::Delete(args) => delete::run(global, &args),
        Command::List(args) => list::run(global, &args),
        Command::Spec(args) => spec::run(args),
        Command::Features => features::run(),
        Command::Doctor(args) => doctor::run(&args),
    }
}
