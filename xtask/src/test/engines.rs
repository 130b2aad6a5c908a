//! Container engines end to end: `tests/engines/*.sh` drive podman and containerd with `quicksand` as their runtime.
//!
//! A script prints `ok NAME`, `not ok NAME: why` or `skip NAME: why` per check. It gets the binary, image root file systems and a scratch
//! folder in its environment, and leaves nothing behind.

use crate::conformance::{self, Sandbox};
use crate::report::Tally;
use crate::rootfs::{self, Kind};
use crate::{process, setup};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10 * 60);

pub(super) fn run(sandbox: &Sandbox, filter: Option<&str>) -> Result<Tally> {
    if !setup::is_root() {
        println!("NOT RUN: the engines need root");
        return Ok(Tally::skipped());
    }
    setup::ensure(&[rootfs::NEEDS, setup::ENGINES])?;
    let dir = setup::root().join("tests/engines");
    let mut tally = Tally::default();
    let mut scripts: Vec<_> = fs::read_dir(&dir)
        .with_context(|| dir.display().to_string())?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sh"))
        .filter(|path| filter.is_none_or(|part| path.to_string_lossy().contains(part)))
        .collect();
    scripts.sort();
    for script in scripts {
        tally += engine(&script, sandbox)?;
    }
    Ok(tally)
}

fn engine(script: &Path, sandbox: &Sandbox) -> Result<Tally> {
    let name = script.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    // Engines refuse long socket paths, and a build's folder may be deep.
    let scratch = std::env::temp_dir().join(format!("quicksand-{name}-{}", std::process::id()));
    conformance::fresh_folder(&scratch)?;
    // Engines pass no flags of ours.
    let runtime = scratch.join("quicksand");
    let line =
        format!("#!/bin/sh\nexec '{}' {} \"$@\"\n", sandbox.binary().display(), sandbox.flags().join(" "));
    fs::write(&runtime, line)?;
    rootfs::set_mode(&runtime, 0o755)?;
    let mut command = Command::new("/bin/bash");
    command
        .arg(script)
        .env("QUICKSAND", &runtime)
        .env("BUSYBOX_ROOT", rootfs::cached(Kind::Busybox)?)
        .env("PYTHON_ROOT", rootfs::cached(Kind::Python)?)
        .env("SCRATCH", &scratch);
    let done = process::capture(&mut command, LIMIT)?;
    let mut tally = Tally::default();
    for line in done.stdout_text().lines() {
        println!("{name}: {line}");
        tally += match line.split(' ').next() {
            Some("ok") => Tally::passed(),
            Some("not") => Tally::failed(),
            Some("skip") => Tally::skipped(),
            _ => Tally::default(),
        };
    }
    if !done.success() && tally.failed == 0 {
        tally += Tally::failed();
    }
    if tally.failed > 0 {
        println!("{name}: {}\n{}", done.describe(), done.stderr_text().trim_end());
    }
    fs::remove_dir_all(&scratch).with_context(|| format!("{} is still in use", scratch.display()))?;
    Ok(tally)
}
