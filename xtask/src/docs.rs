//! `cargo xtask docs`: the pages that are written from the sources.

use crate::{build, process, setup};
use anyhow::{Context, Result, bail};
use std::fs;

/// A generated page, and the example program that prints it.
const PAGES: &[(&str, &str, &str)] = &[("docs/compatibility.md", "quicksand-sentry", "compatibility")];

/// Writes every generated page.
pub(crate) fn run() -> Result<bool> {
    for (page, package, example) in PAGES {
        let file = setup::root().join(page);
        fs::write(&file, print(package, example)?).with_context(|| file.display().to_string())?;
        println!("wrote {page}");
    }
    Ok(true)
}

/// Complains of a page that is not what the sources say now.
pub(crate) fn check() -> Result<()> {
    let mut stale = Vec::new();
    for (page, package, example) in PAGES {
        let wanted = print(package, example)?;
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

fn print(package: &str, example: &str) -> Result<String> {
    let mut command = build::cargo();
    command.args(["run", "--quiet", "--package", package, "--example", example]);
    process::text(&mut command, build::CARGO_LIMIT)
}
