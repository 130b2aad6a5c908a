//! `tests/conformance/KNOWN.toml`: the checks that are known to differ, each with its reason.
//!
//!     [["subsystem/program"]]
//!     checks = ["name", "prefix.*", "(end)"]
//!     reason = "why"
//!
//! A check is named by its line's name (what stands before the colon); a `*` at the end makes it a prefix, and `(end)` is how
//! the program ends. All other lines of the program must agree, and each of those named must differ, unless the entry says
//! `sometimes = true`: that is for races.

use super::Program;
use crate::setup;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Stands for how a program ends: its exit status, or that it does not end.
pub(super) const END: &str = "(end)";

/// Entries by program (`subsystem/file`, without `.c`).
#[derive(Debug, Default)]
pub(crate) struct Known(BTreeMap<String, Vec<Entry>>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    checks: Vec<String>,
    reason: String,
    /// They differ in some runs only: that they agree in this one is no news.
    #[serde(default)]
    sometimes: bool,
}

/// What is known of one program: patterns of checks with their reasons, and whether they must differ.
#[derive(Debug, Default)]
pub(crate) struct Reasons(BTreeMap<String, (String, bool)>);

impl Known {
    pub(crate) fn read() -> Result<Self> {
        match std::fs::read_to_string(setup::root().join("tests/conformance/KNOWN.toml")) {
            Ok(text) => Ok(Self(toml::from_str(&text).context("tests/conformance/KNOWN.toml")?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).context("tests/conformance/KNOWN.toml"),
        }
    }

    pub(crate) fn of(&self, program: &str) -> Reasons {
        let entries = self.0.get(program).into_iter().flatten();
        let checks = entries
            .flat_map(|e| e.checks.iter().map(|check| (check.clone(), (e.reason.clone(), !e.sometimes))));
        Reasons(checks.collect())
    }

    /// Entries that name no program of the suite.
    pub(crate) fn unknown_to<'a>(&'a self, programs: &'a [Program]) -> impl Iterator<Item = &'a str> {
        let names: BTreeSet<&str> = programs.iter().map(|program| program.name.as_str()).collect();
        self.0.keys().map(String::as_str).filter(move |name| !names.contains(name))
    }
}

impl Reasons {
    /// Pattern, reason, and whether it must differ.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, bool)> {
        self.0.iter().map(|(check, (reason, must))| (check.as_str(), reason.as_str(), *must))
    }
}

/// Whether a check's name is one that the pattern means.
pub(super) fn means(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Reasons {
    fn from(entries: [(&str, &str); N]) -> Self {
        Self(entries.map(|(check, reason)| (check.to_owned(), (reason.to_owned(), true))).into())
    }
}
