//! `tests/conformance/KNOWN.toml`: programs that are known to differ, each with its reason.

use super::Program;
use crate::setup;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Program name (`subsystem/file`, without `.c`) to reason.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<String, String>);

impl Known {
    pub(super) fn read() -> Result<Self> {
        match std::fs::read_to_string(setup::root().join("tests/conformance/KNOWN.toml")) {
            Ok(text) => Ok(Self(toml::from_str(&text).context("tests/conformance/KNOWN.toml")?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).context("tests/conformance/KNOWN.toml"),
        }
    }

    pub(super) fn reason(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Entries that name no program of the suite.
    pub(super) fn unknown_to<'a>(&'a self, programs: &'a [Program]) -> impl Iterator<Item = &'a str> {
        let names: BTreeSet<&str> = programs.iter().map(|program| program.name.as_str()).collect();
        self.0.keys().map(String::as_str).filter(move |name| !names.contains(name))
    }
}
