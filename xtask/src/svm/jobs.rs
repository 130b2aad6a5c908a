//! What is asked of the emulated machine and what it answers: one JSON file in, one JSON line per job out.

use crate::conformance::Outcome;
use crate::process;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Where the machine's disk holds what was put there for the jobs.
pub(super) const FOLDER: &str = "/opt/quicksand";

/// One command to run in the machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) name: String,
    pub(super) argv: Vec<String>,
    pub(super) limit_s: u64,
    /// Alone, with nothing else running beside it.
    pub(super) alone: bool,
}

/// The jobs file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Jobs {
    pub(super) jobs: Vec<Job>,
}

/// One job's end.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) name: String,
    /// As in [`Outcome::code`].
    code: Option<i32>,
    /// In hexadecimal: the bytes are compared, and need not be text.
    stdout: String,
    pub(super) stderr_tail: String,
    pub(super) elapsed_ms: u64,
}

/// The most of a job's standard output that travels over the serial line.
const STDOUT_LIMIT_BYTES: usize = 256 << 10;

impl Answer {
    pub(super) fn new(name: &str, done: &process::Captured) -> Self {
        let outcome = Outcome::of(done);
        let mut stdout = String::new();
        for byte in outcome.stdout.iter().take(STDOUT_LIMIT_BYTES) {
            let _infallible = write!(stdout, "{byte:02x}");
        }
        let stderr = done.stderr_text();
        let lines: Vec<&str> = stderr.lines().collect();
        Self {
            name: name.to_owned(),
            code: outcome.code,
            stdout,
            stderr_tail: lines[lines.len().saturating_sub(60)..].join("\n"),
            elapsed_ms: u64::try_from(done.elapsed.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        let digits = self.stdout.as_bytes().chunks(2);
        let byte =
            |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
        Outcome { code: self.code, stdout: digits.map(|pair| byte(pair).unwrap_or(b'?')).collect() }
    }
}

/// A path below [`FOLDER`] as the machine sees it.
pub(super) fn guest_path(name: &str) -> String {
    PathBuf::from(FOLDER).join(name).to_string_lossy().into_owned()
}
