//! What the host must have: Debian packages, installed when we are root, named in one line when we are not.

use crate::process;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// One thing a command needs: the file that proves it is there, and the package that brings it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    proof: &'static str,
    package: &'static str,
}

const fn need(proof: &'static str, package: &'static str) -> Need {
    Need { proof, package }
}

/// A linker and the static C library: what every build of ours needs.
pub(crate) const BUILD: &[Need] =
    &[need("/usr/bin/gcc", "gcc"), need("/usr/lib/x86_64-linux-gnu/libc.a", "libc6-dev")];
/// Debian's own Python.
pub(crate) const PYTHON: &[Need] = &[need("/usr/bin/python3", "python3")];
/// What installs packages from PyPI, for Debian's own Python.
pub(crate) const PIP: &[Need] = &[need("/usr/lib/python3/dist-packages/pip", "python3-pip")];
/// What small root file systems are made of.
pub(crate) const ROOTFS: &[Need] =
    &[need("/usr/bin/busybox", "busybox-static"), need("/usr/bin/python3", "python3")];
/// An emulated machine, and the tool that makes its disk.
pub(crate) const EMULATION: &[Need] =
    &[need("/usr/bin/qemu-system-x86_64", "qemu-system-x86"), need("/usr/sbin/mke2fs", "e2fsprogs")];
/// CPython's own tests.
pub(crate) const PYTHON_TESTS: &[Need] =
    &[need("/usr/lib/python3.11/test/test_json", "libpython3.11-testsuite")];
/// The container engines that are driven end to end, and what they need beside themselves.
pub(crate) const ENGINES: &[Need] = &[
    need("/usr/bin/podman", "podman"),
    need("/usr/bin/containerd", "containerd"),
    need("/usr/sbin/runc", "runc"),
];
/// Who we compare ourselves with, as far as the host's own Debian has it.
pub(crate) const PEERS: &[Need] = &[need("/usr/sbin/runc", "runc")];
/// What the tests run besides C programs.
pub(crate) const TESTS: &[Need] = &[
    need("/usr/bin/busybox", "busybox-static"),
    need("/usr/bin/python3", "python3"),
    need("/usr/bin/git", "git"),
    need("/usr/bin/gawk", "gawk"),
    need("/usr/bin/find", "findutils"),
];

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    // The manifest's folder is baked in when xtask is built, which is always in the tree it works on.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_path_buf()
}

/// A folder below `target/` for what xtask itself makes, created when missing.
pub(crate) fn work_dir(name: &str) -> Result<PathBuf> {
    let dir = target_dir().join(name);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Cargo's target folder.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes sure that everything listed is there.
pub(crate) fn ensure(lists: &[&[Need]]) -> Result<()> {
    let missing = missing_packages(lists);
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.into_iter().collect();
    if !is_root() || !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "these Debian packages are missing; run this once, then try again:\n\n    sudo apt-get update && sudo apt-get install -y --no-install-recommends {}\n",
            names.join(" ")
        );
    }
    println!("installing {}", names.join(" "));
    apt_get(&["update", "-qq"])?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(&names);
    apt_get(&args)?;
    let still = missing_packages(lists);
    if !still.is_empty() {
        bail!("installed, and yet missing: {}", still.into_iter().collect::<Vec<_>>().join(" "));
    }
    Ok(())
}

fn missing_packages(lists: &[&[Need]]) -> BTreeSet<&'static str> {
    lists
        .iter()
        .flat_map(|list| list.iter())
        .filter(|need| !Path::new(need.proof).exists())
        .map(|need| need.package)
        .collect()
}

pub(crate) fn apt_get(args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    let done = process::capture(&mut command, Duration::from_secs(900))?;
    if !done.success() {
        bail!("apt-get {}: {}\n{}", args.join(" "), done.describe(), done.stderr_text().trim_end());
    }
    Ok(())
}

/// Looks a program up as a shell would.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
