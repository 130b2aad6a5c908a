//! `cargo xtask docs`: the pages that are written from the sources.

use crate::build::{self, Profile};
use crate::{process, setup};
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

/// A generated page, and what makes its text.
type Page = (&'static str, fn() -> Result<String>);

const PAGES: &[Page] = &[("docs/compatibility.md", compatibility), ("docs/commands.md", commands)];

/// Writes every generated page.
pub(crate) fn run() -> Result<bool> {
    for (page, make) in PAGES {
        let file = setup::root().join(page);
        fs::write(&file, make()?).with_context(|| file.display().to_string())?;
        println!("wrote {page}");
    }
    Ok(true)
}

/// Complains of a page that is not what the sources say now.
pub(crate) fn check() -> Result<()> {
    let mut stale = Vec::new();
    for (page, make) in PAGES {
        let wanted = make()?;
        if fs::read_to_string(setup::root().join(page)).is_ok_and(|text| text == wanted) {
            continue;
        }
        stale.push(*page);
    }
    if !stale.is_empty() {
        bail!("not current: {}; run `cargo xtask docs`", stale.join(", "));
    }
    Ok(())
}

/// From the syscall table.
fn compatibility() -> Result<String> {
    let mut command = build::cargo();
    command.args(["run", "--quiet", "--package", "quicksand-sentry", "--example", "compatibility"]);
    process::text(&mut command, build::CARGO_LIMIT)
}

/// From what the commands say of themselves.
fn commands() -> Result<String> {
    let binary = build::quicksand(Profile::Debug)?;
    let help = |args: &[&str]| -> Result<String> {
        let mut command = Command::new(&binary);
        command.args(args).arg("--help").env_remove("XDG_RUNTIME_DIR");
        process::text(&mut command, Duration::from_secs(20))
    };
    let general = help(&[])?;
    let names: Vec<&str> = general
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // A name stands two columns in; the rest of a long description further.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    let mut page = String::from(
        "# Commands\n\nWritten by `cargo xtask docs` from what `quicksand --help` and `quicksand COMMAND --help` say; do not edit.\n\n\
         An error of Quicksand's own exits with 128, is told on standard error, and, with `--log`, in the log. `run`, `do` and `exec` exit \
         with the program's code, or with 128 + its signal.\n\n## quicksand\n\n",
    );
    writeln!(page, "```text\n{}\n```", general.trim_end())?;
    for name in names {
        let text = help(&[name])?;
        // The options of every command stand above.
        let own = text.split("\nOptions of every command:").next().unwrap_or(&text);
        writeln!(page, "\n## quicksand {name}\n\n```text\n{}\n```", own.trim_end())?;
    }
    Ok(page)
}
