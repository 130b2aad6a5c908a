//! Shell scripts and one-liners that must behave in the sandbox as on the host.
//!
//! `tests/workloads/shell/*.sh` run under bash with the tools people use: coreutils, grep, sed, awk, tar, find, xargs,
//! git and gcc. Each prints one line per thing it tries, and both sides must print the same.

use crate::conformance::{self, Outcome, Reasons, Sandbox, Verdict};
use crate::report::{Table, Tally};
use crate::setup;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A compile in a debug build on nested KVM takes its time.
const LIMIT: Duration = Duration::from_secs(180);

/// What Python's standard library asks of a kernel at import.
const PYTHON_IMPORTS: &str = "import json, re, os, http.server, asyncio, sqlite3, ssl, subprocess, threading, multiprocessing; print('imported')";

struct Script {
    name: String,
    argv: Vec<String>,
}

pub(super) fn run(sandbox: &Sandbox, filter: Option<&str>) -> Result<Tally> {
    let mut scripts = discover()?;
    let python = ["/usr/bin/python3", "-c", PYTHON_IMPORTS].map(str::to_owned).to_vec();
    scripts.push(Script { name: "python/imports".to_owned(), argv: python });
    scripts.retain(|script| filter.is_none_or(|part| script.name.contains(part)));
    let out = setup::work_dir("workloads")?;
    let verdicts = conformance::in_parallel(&scripts, |script| {
        compare(script, sandbox, &out).unwrap_or_else(|error| Verdict::broken(&format!("{error:#}")))
    });
    let mut all = Tally::default();
    let mut table = Table::new(["script", "checks agree", "differ"]);
    for (script, verdict) in scripts.iter().zip(verdicts) {
        if !verdict.text.is_empty() {
            println!("--- {}\n{}", script.name, verdict.text.trim_end());
        }
        table.row([script.name.clone(), verdict.tally.passed.to_string(), verdict.tally.failed.to_string()]);
        all += verdict.tally;
    }
    print!("\n{table}");
    Ok(all)
}

fn discover() -> Result<Vec<Script>> {
    let dir = setup::root().join("tests/workloads/shell");
    let mut scripts = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sh") {
            let name = format!("shell/{}", path.file_stem().unwrap_or_default().to_string_lossy());
            scripts.push(Script {
                name,
                argv: vec!["/bin/bash".to_owned(), path.to_string_lossy().into_owned()],
            });
        }
    }
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(scripts)
}

fn compare(script: &Script, sandbox: &Sandbox, out: &Path) -> Result<Verdict> {
    let (program, args) = script.argv.split_first().context("an empty command")?;
    let name = script.name.replace('/', "-");
    let mut native = Command::new(program);
    native.args(args);
    let host = conformance::in_fresh_folder(&mut native, &name, LIMIT, &out.join("host"))?;
    let mut guest = sandbox.command(Path::new(program));
    guest.args(args);
    let got = conformance::in_fresh_folder(&mut guest, &name, LIMIT, &out.join("sandbox"))?;
    Ok(Verdict::new(&Outcome::of(&host), &Outcome::of(&got), &Reasons::default(), &got.stderr_text()))
}
