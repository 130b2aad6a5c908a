//! `cargo xtask check`: what must hold of the sources before a change is merged.

mod ratchet;

use crate::report::{Tally, heading};
use crate::{build, docs, process, setup};
use anyhow::Result;
use std::process::Command;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write today's counts of unsafe code into xtask/ratchet.toml; refuses to raise them where unsafe code is forbidden
    #[arg(long)]
    update_ratchet: bool,
    /// Let cargo-deny fetch the advisory database (without this it uses only what is on disk)
    #[arg(long)]
    online: bool,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    if args.update_ratchet {
        ratchet::update()?;
    }
    setup::ensure(&[setup::BUILD])?;
    let mut tally = Tally::default();

    heading("cargo fmt");
    let mut fmt = build::cargo();
    fmt.args(["fmt", "--all", "--check"]);
    tally += step(&mut fmt);

    heading("cargo clippy");
    let mut clippy = build::cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]);
    tally += step(&mut clippy);

    heading("cargo deny");
    tally += deny(args.online);

    heading("unsafe ratchet");
    tally += match ratchet::check() {
        Ok(ok) => Tally::of(ok),
        Err(error) => {
            println!("{error:#}");
            Tally::failed()
        }
    };

    heading("generated pages");
    tally += match docs::check() {
        Ok(()) => {
            println!("ok");
            Tally::passed()
        }
        Err(error) => {
            println!("FAILED: {error:#}");
            Tally::failed()
        }
    };

    println!("\n{tally}");
    Ok(tally.ok())
}

fn step(command: &mut Command) -> Tally {
    match process::show(command, build::CARGO_LIMIT) {
        Ok(()) => {
            println!("ok");
            Tally::passed()
        }
        Err(error) => {
            println!("FAILED: {error:#}");
            Tally::failed()
        }
    }
}

/// Licences, banned and duplicate crates, sources, and advisories. It takes minutes to build, so that its absence is
/// announced and counted, not repaired.
fn deny(online: bool) -> Tally {
    if setup::find_program("cargo-deny").is_none() {
        println!("NOT RUN: cargo-deny is not installed (cargo install --locked cargo-deny)");
        return Tally::skipped();
    }
    let mut tally = Tally::default();
    let mut licences = build::cargo();
    licences.args(["deny", "--offline", "--log-level", "error", "check", "licenses", "bans", "sources"]);
    tally += step(&mut licences);

    let mut advisories = build::cargo();
    advisories.args(["deny", "--log-level", "error", "check", "advisories"]);
    if online {
        tally += step(&mut advisories);
    } else {
        println!("NOT RUN: advisories need the network (cargo xtask check --online)");
        tally += Tally::skipped();
    }
    tally
}
