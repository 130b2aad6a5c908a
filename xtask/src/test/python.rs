//! CPython's own tests, from Debian's package, in the sandbox as on the host.
//!
//! Each test file runs on both sides; what is compared is every single test's result. A test that fails or is skipped
//! on the host may do so in the sandbox too; one that does only in the sandbox is a failure, unless
//! `tests/workloads/python/KNOWN.toml` gives the reason. The host's results are kept below `target/`, because they
//! change only with its Python and its kernel.

use crate::apt::Apt;
use crate::conformance::{self, Sandbox};
use crate::report::{Table, Tally};
use crate::{process, setup};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The files of CPython's test suite that must behave as on the host, the longest first.
const FILES: &[&str] = &[
    "test_asyncio",
    "test_multiprocessing_fork",
    "test_signal",
    "test_subprocess",
    "test_selectors",
    "test_threading",
    "test_fcntl",
    "test_json",
    "test_mmap",
    "test_os",
    "test_pathlib",
    "test_posix",
    "test_pty",
    "test_re",
    "test_select",
    "test_shutil",
    "test_sqlite3",
    "test_tempfile",
    "test_time",
];

/// Of these, what Debian's package leaves out; it comes from Debian's source of the same Python.
const NOT_PACKAGED: &[&str] = &["test_sqlite3"];

/// `python3 -m test`, with one more folder of tests (whose packages cannot discover their modules by the usual path).
const RUN_TESTS: &str = "\
import os, sys, test
from test import support
more = sys.argv.pop(1)
test.__path__.append(more)
discover = support.load_package_tests
def load_package_tests(folder, loader, tests, pattern):
    if not folder.startswith(more):
        return discover(folder, loader, tests, pattern)
    names = sorted(name[:-3] for name in os.listdir(folder) if name.startswith('test_'))
    tests.addTests(loader.loadTestsFromNames(f'test.{os.path.basename(folder)}.{name}' for name in names))
    return tests
support.load_package_tests = load_package_tests
from test.libregrtest import main
main()
";

/// The longest of them takes about two minutes on the host.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// What one test came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Status {
    Ok,
    Failed,
    Skipped,
    /// It began, and the run ended before it did.
    Unfinished,
}

/// One run of one test file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Results {
    tests: BTreeMap<String, Status>,
    /// The whole file was run.
    complete: bool,
    seconds: f64,
    /// The end of the output, kept when the run is not complete.
    tail: String,
}

/// Known differences: `test_file:test.id` to reason.
type Known = BTreeMap<String, String>;

pub(super) fn run(sandbox: &Sandbox, filter: Option<&str>) -> Result<Tally> {
    setup::ensure(&[setup::PYTHON, setup::PYTHON_TESTS])?;
    let mut files: Vec<&str> =
        FILES.iter().copied().filter(|file| filter.is_none_or(|part| file.contains(part))).collect();
    let known = known()?;
    let more = setup::work_dir("python-tests")?.join("more");
    let mut not_packaged =
        files.iter().any(|file| NOT_PACKAGED.contains(file)).then(|| add_not_packaged(&more));
    let python = fs::canonicalize("/usr/bin/python3").context("/usr/bin/python3")?;
    let key = stamp(&python)?;
    let mut all = Tally::default();
    if let Some(Err(error)) = not_packaged.take() {
        println!(
            "NOT RUN: {}: Debian's test package lacks it, and its source could not be had: {error:#}",
            NOT_PACKAGED.join(", ")
        );
        all += Tally::skipped();
        files.retain(|file| !NOT_PACKAGED.contains(file));
    }
    let outcomes = conformance::in_parallel(&files, |file| both(file, &python, &key, sandbox));

    let mut table = Table::new(["file", "tests", "agree", "differ", "known", "host s", "sandbox s"]);
    for (file, outcome) in files.iter().zip(outcomes) {
        let (host, guest) = match outcome {
            Ok(both) => both,
            Err(error) => {
                println!("--- {file}: {error:#}");
                all += Tally::failed();
                continue;
            }
        };
        let tally = judge(file, &host, &guest, &known);
        table.row(
            [file.to_string(), host.tests.len().to_string()]
                .into_iter()
                .chain([tally.passed, tally.failed, tally.skipped].map(|count| count.to_string()))
                .chain([format!("{:.1}", host.seconds), format!("{:.1}", guest.seconds)]),
        );
        all += tally;
    }
    print!("\n{table}");
    Ok(all)
}

/// Unpacks the tests that are not packaged from Debian's source package, once.
fn add_not_packaged(more: &Path) -> Result<()> {
    if NOT_PACKAGED.iter().all(|file| more.join(file).is_dir()) {
        return Ok(());
    }
    let dir = setup::work_dir("python-tests/source")?;
    let release = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
    let release =
        release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).context("no release name")?;
    println!("downloading the source of python3.11");
    Apt::new(&dir, "deb-src", release)?
        .run(&["source", "-q", "--download-only", "--tar-only", "python3.11"], 600)?;
    let archive = fs::read_dir(&dir)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains(".orig.tar."))
        .context("the source package has no archive")?;
    conformance::fresh_folder(more)?;
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(&archive).arg("-C").arg(more).args(["--strip-components=3", "--wildcards"]);
    tar.args(NOT_PACKAGED.iter().map(|file| format!("*/Lib/test/{file}")));
    process::text(&mut tar, Duration::from_secs(300)).map(|_| ())
}

fn both(file: &str, python: &Path, key: &str, sandbox: &Sandbox) -> Result<(Results, Results)> {
    let dir = setup::work_dir("python-tests")?;
    let cache = dir.join(format!("{file}.host.json"));
    let host = match read_cache(&cache, key) {
        Some(results) => results,
        None => {
            let results = run_file(&mut Command::new(python), file, &dir.join("host").join(file))?;
            anyhow::ensure!(results.complete, "the host itself does not finish it:\n{}", results.tail);
            fs::write(&cache, serde_json::to_vec(&(key, &results))?)?;
            results
        }
    };
    let guest = run_file(&mut sandbox.command(python), file, &dir.join("sandbox").join(file))?;
    Ok((host, guest))
}

fn run_file(command: &mut Command, file: &str, folder: &Path) -> Result<Results> {
    conformance::fresh_folder(folder)?;
    let limit = LIMIT.as_secs() - 30;
    // A hang is answered with the stacks of all threads, which says where it hangs.
    command.args(["-c", RUN_TESTS]).arg(setup::work_dir("python-tests")?.join("more"));
    command.args(["-v", "--timeout", &limit.to_string(), "--tempdir"]).arg(folder).arg(file);
    command
        .current_dir(folder)
        .env_clear()
        .envs(conformance::ENVIRONMENT.iter().copied())
        .env("LC_ALL", "C.UTF-8");
    command.env("HOME", "/root").env("TMPDIR", folder);
    let done = process::capture(command, LIMIT)?;
    fs::write(folder.with_extension("log"), [done.stdout.as_slice(), done.stderr.as_slice()].concat())?;
    let mut results = parse(&format!("{}\n{}", done.stdout_text(), done.stderr_text()));
    results.seconds = done.elapsed.as_secs_f64();
    if !results.complete {
        let text = done.stdout_text() + &done.stderr_text();
        let lines: Vec<&str> = text.lines().collect();
        results.tail = format!("{}\n{}", lines[lines.len().saturating_sub(15)..].join("\n"), done.describe());
    }
    // Tests leave what they like behind.
    let _best_effort = fs::remove_dir_all(folder);
    Ok(results)
}

fn judge(file: &str, host: &Results, guest: &Results, known: &Known) -> Tally {
    let mut tally = Tally::default();
    for (test, &expected) in &host.tests {
        let got = guest.tests.get(test).copied();
        if got == Some(expected) || got == Some(Status::Ok) {
            tally.passed += 1;
            continue;
        }
        let reason = known.get(&format!("{file}:{test}")).or_else(|| known.get(file));
        if let Some(reason) = reason {
            println!("--- {file}: {test}: known difference: {reason}");
            tally.skipped += 1;
        } else {
            let got = got.map_or("not run".to_owned(), |got| format!("{got:?}"));
            println!("--- {file}: {test}: host {expected:?}, sandbox {got}");
            tally.failed += 1;
        }
    }
    if !guest.complete {
        println!("--- {file}: the run did not reach its end:\n{}", guest.tail);
        tally.failed = tally.failed.max(1);
    }
    tally
}

fn known() -> Result<Known> {
    let file = setup::root().join("tests/workloads/python/KNOWN.toml");
    match fs::read_to_string(&file) {
        Ok(text) => toml::from_str(&text).with_context(|| file.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Known::new()),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

fn read_cache(cache: &PathBuf, key: &str) -> Option<Results> {
    let (made_for, results): (String, Results) = serde_json::from_slice(&fs::read(cache).ok()?).ok()?;
    (made_for == key).then_some(results)
}

/// Changes with the host's Python and kernel.
fn stamp(python: &Path) -> Result<String> {
    let meta = fs::metadata(python)?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(format!("{} {:?} {}", meta.len(), meta.modified()?, kernel.trim()))
}

/// Reads what `unittest` prints with `-v`.
fn parse(text: &str) -> Results {
    let mut results = Results::default();
    let mut current: Option<String> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("ERROR: ").or_else(|| line.strip_prefix("FAIL: ")) {
            if let Some(id) = test_id(rest) {
                results.tests.insert(id, Status::Failed);
            }
            continue;
        }
        if line.starts_with("Ran ") && line.contains(" test") {
            results.complete = true;
        }
        if let Some(id) = test_id(line) {
            results.tests.entry(id.clone()).or_insert(Status::Unfinished);
            current = Some(id);
        }
        let word = line.rsplit_once(" ... ").map_or(line, |(_, word)| word);
        let status = match word {
            "ok" | "expected failure" => Status::Ok,
            "FAIL" | "ERROR" | "unexpected success" => Status::Failed,
            _ if word.starts_with("skipped ") => Status::Skipped,
            _ => continue,
        };
        if let Some(id) = current.take() {
            results.tests.insert(id, status);
        }
    }
    if results.complete {
        // Something else was printed over their status; a failure would have been listed.
        for status in results.tests.values_mut().filter(|status| **status == Status::Unfinished) {
            *status = Status::Ok;
        }
    }
    results
}

/// `test_x (test.test_y.Class.test_x) …`: the part in brackets.
fn test_id(line: &str) -> Option<String> {
    let (name, rest) = line.split_once(" (")?;
    let (id, _) = rest.split_once(')')?;
    let plain =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
    (plain(name) && plain(id) && id.contains('.')).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
test_a (test.test_x.T.test_a) ... ok
test_b (test.test_x.T.test_b)
What it is about. ... skipped 'no reason'
test_c (test.test_x.T.test_c) ... Warning -- noise
FAIL
test_d (test.test_x.T.test_d) ... noise without an end
======
FAIL: test_c (test.test_x.T.test_c)
ERROR: test_e (test.test_x.T.test_e) (sub=1)
Ran 4 tests in 0.1s
";

    #[test]
    fn every_form_of_a_result_is_read() {
        let results = parse(TEXT);
        let status = |name: &str| results.tests.get(&format!("test.test_x.T.{name}")).copied();
        assert!(results.complete);
        assert_eq!(status("test_a"), Some(Status::Ok));
        assert_eq!(status("test_b"), Some(Status::Skipped));
        assert_eq!(status("test_c"), Some(Status::Failed));
        assert_eq!(status("test_d"), Some(Status::Ok));
        assert_eq!(status("test_e"), Some(Status::Failed));
    }

    #[test]
    fn only_what_the_host_passes_must_pass() {
        let (host, mut guest) = (parse(TEXT), parse(TEXT));
        assert_eq!(judge("test_x", &host, &guest, &Known::new()).failed, 0);
        guest.tests.insert("test.test_x.T.test_a".to_owned(), Status::Skipped);
        assert_eq!(judge("test_x", &host, &guest, &Known::new()).failed, 1);
        let known = Known::from([("test_x:test.test_x.T.test_a".to_owned(), "why".to_owned())]);
        assert_eq!(judge("test_x", &host, &guest, &known), Tally { passed: 4, failed: 0, skipped: 1 });
    }
}
