//! Building: cargo, and the small C programs that run in the sandbox.

use crate::{process, setup};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The triple everything of ours is built for (see `.cargo/config.toml`).
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A clean release build on two cores takes minutes, not an hour.
pub(crate) const CARGO_LIMIT: Duration = Duration::from_secs(45 * 60);

/// How the binary is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// With every debug assertion and the lock-order check: what tests run.
    Debug,
    /// What is measured and shipped.
    Release,
}

/// `cargo`, in the repository's root; the toolchain that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(setup::root());
    command
}

/// Builds `quicksand` and says where it is.
pub(crate) fn quicksand(profile: Profile) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--package", "quicksand"]);
    let folder = match profile {
        Profile::Debug => "debug",
        Profile::Release => {
            command.arg("--release");
            "release"
        }
    };
    process::show(&mut command, CARGO_LIMIT)?;
    let binary = setup::target_dir().join(TARGET).join(folder).join("quicksand");
    if !binary.is_file() {
        bail!("cargo built no {}", binary.display());
    }
    Ok(binary)
}

/// Builds a package's test binaries without running them, and says where they are.
pub(crate) fn test_binaries(package: &str) -> Result<Vec<PathBuf>> {
    let mut command = cargo();
    command.args(["test", "--no-run", "--quiet", "--message-format=json", "--package", package]);
    let messages = process::text(&mut command, CARGO_LIMIT)?;
    Ok(messages.lines().filter_map(test_binary).collect())
}

/// The executable of one of cargo's messages, if it tells of a test binary.
fn test_binary(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    is_test.then(|| message["executable"].as_str().map(PathBuf::from))?
}

/// How a C program is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linkage {
    Static,
    StaticPie,
    Dynamic,
}

/// Compiles one C file. The error carries the compiler's own words.
pub(crate) fn compile_c(source: &Path, output: &Path, linkage: Linkage, optimise: &str) -> Result<()> {
    let mut command = Command::new("gcc");
    command.args([optimise, "-pthread", "-Wall"]);
    match linkage {
        Linkage::Static => command.arg("-static"),
        Linkage::StaticPie => command.arg("-static-pie"),
        Linkage::Dynamic => &mut command,
    };
    command.arg("-o").arg(output).arg(source);
    let done = process::capture(&mut command, Duration::from_secs(120))?;
    if !done.success() {
        bail!("{} does not compile: {}\n{}", source.display(), done.describe(), done.stderr_text());
    }
    Ok(())
}
