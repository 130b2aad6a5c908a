//! One conformance program: its source, what its header lines ask for, its binary.

use crate::build::Linkage;
use crate::{build, process};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The limit for one program unless its source asks for another.
const PROGRAM_LIMIT: Duration = Duration::from_secs(20);

/// The environment both sides start with: nothing of the developer's.
pub(crate) const ENVIRONMENT: &[(&str, &str)] = &[
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("LC_ALL", "C"),
    ("TZ", "UTC"),
];

/// A C file below `tests/conformance`.
#[derive(Debug)]
pub(crate) struct Program {
    /// `subsystem/file`, without `.c`.
    pub(crate) name: String,
    pub(crate) source: PathBuf,
    /// `// build: dynamic` or `// build: static-pie`
    pub(crate) linkage: Linkage,
    /// `// timeout: SECONDS`
    pub(crate) limit: Duration,
    /// `// processor: real …`: an emulated processor does something else.
    pub(crate) real_processor: bool,
}

/// What is compared: standard output and how the program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The exit code, or 128 + the signal, as a shell and `quicksand run` report it. `None`: it was killed at its limit.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
}

impl Outcome {
    pub(crate) fn of(done: &process::Captured) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = done
            .status
            .and_then(|status| status.code().or_else(|| status.signal().map(|signal| 128 + signal)));
        Self { code, stdout: done.stdout.clone() }
    }
}

impl Program {
    /// The first folder below `tests/conformance`.
    pub(crate) fn subsystem(&self) -> &str {
        self.name.split_once('/').map_or("(none)", |(subsystem, _)| subsystem)
    }

    /// A name for files that belong to this program.
    pub(crate) fn file_stem(&self) -> String {
        self.name.replace('/', "-")
    }

    /// Compiles, unless the binary is newer than every source beside it (a header may be shared).
    pub(crate) fn compile(&self, out: &Path) -> Result<PathBuf> {
        let bin = out.join("bin");
        std::fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
        let binary = bin.join(self.file_stem());
        if !is_current(&binary, &self.source)? {
            build::compile_c(&self.source, &binary, self.linkage, "-O1")?;
        }
        Ok(binary)
    }
}

/// Whether `binary` is newer than the source and every header in its folder and the one above.
fn is_current(binary: &Path, source: &Path) -> Result<bool> {
    let Ok(built) = modified(binary) else { return Ok(false) };
    if modified(source)? >= built {
        return Ok(false);
    }
    for dir in source.ancestors().skip(1).take(2) {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "h") && modified(&path)? >= built {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn modified(path: &Path) -> Result<SystemTime> {
    path.metadata().and_then(|meta| meta.modified()).with_context(|| path.display().to_string())
}

/// Every C file below `top`, in order.
pub(super) fn discover(top: &Path) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    if top.is_dir() {
        walk(top, top, &mut programs)?;
    }
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

fn walk(top: &Path, dir: &Path, programs: &mut Vec<Program>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            walk(top, &path, programs)?;
        } else if path.extension().is_some_and(|extension| extension == "c") {
            programs.push(read(top, path)?);
        }
    }
    Ok(())
}

fn read(top: &Path, source: PathBuf) -> Result<Program> {
    let text =
        std::fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let name = source.strip_prefix(top).unwrap_or(&source).with_extension("").to_string_lossy().into_owned();
    let mut program =
        Program { name, source, linkage: Linkage::Static, limit: PROGRAM_LIMIT, real_processor: false };
    for line in text.lines().filter_map(|line| line.trim().strip_prefix("// ")) {
        let Some((key, value)) = line.split_once(':') else { continue };
        match (key, value.trim()) {
            ("build", "dynamic") => program.linkage = Linkage::Dynamic,
            ("build", "static-pie") => program.linkage = Linkage::StaticPie,
            ("build", other) => bail!("{}: build: {other} is not known", program.name),
            ("processor", what) => program.real_processor = what.starts_with("real"),
            ("timeout", seconds) => {
                let seconds = seconds.parse().with_context(|| format!("{}: timeout", program.name))?;
                program.limit = Duration::from_secs(seconds);
            }
            _ => {}
        }
    }
    Ok(program)
}
