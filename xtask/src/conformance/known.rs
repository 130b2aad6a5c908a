//! `tests/conformance/KNOWN.toml`: programs that are known to differ, each with its reason.

use super::Program;
use crate::setup;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Reasons by program (`subsystem/file`, without `.c`) or by check (`subsystem/file:check`).
#[derive(Debug, Default)]
pub(crate) struct Known(BTreeMap<String, String>);

impl Known {
    pub(crate) fn read() -> Result<Self> {
        match std::fs::read_to_string(setup::root().join("tests/conformance/KNOWN.toml")) {
            Ok(text) => Ok(Self(toml::from_str(&text).context("tests/conformance/KNOWN.toml")?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).context("tests/conformance/KNOWN.toml"),
        }
    }

    /// What is known of one program: check name to reason; the empty name stands for the whole program.
    pub(crate) fn of(&self, program: &str) -> BTreeMap<String, String> {
        let entries = self.0.iter().filter_map(|(key, reason)| {
            let (name, check) = key.split_once(':').unwrap_or((key, ""));
            (name == program).then(|| (check.to_owned(), reason.clone()))
        });
        entries.collect()
    }

    /// Entries that name no program of the suite.
    pub(crate) fn unknown_to<'a>(&'a self, programs: &'a [Program]) -> impl Iterator<Item = &'a str> {
        let names: BTreeSet<&str> = programs.iter().map(|program| program.name.as_str()).collect();
        let program = |key: &'a str| key.split_once(':').map_or(key, |(name, _)| name);
        self.0.keys().map(String::as_str).filter(move |key| !names.contains(program(key)))
    }
}
