//! Who runs a bundle: the host itself in a chroot, `runc`, `runsc`, and ourselves.

use super::Options;
use crate::apt::Apt;
use crate::build::{self, Profile};
use crate::{process, setup};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// One way to run a bundle.
#[derive(Debug, Clone)]
pub(super) struct Runner {
    pub(super) name: String,
    kind: Kind,
    state: PathBuf,
}

#[derive(Debug, Clone)]
enum Kind {
    Chroot,
    Oci { binary: PathBuf, flags: Vec<String> },
}

/// Every runner there is here, ourselves last, once a platform; and why others are missing.
pub(super) fn all(options: &Options) -> Result<(Vec<Runner>, Vec<String>)> {
    if !setup::is_root() {
        bail!("the benchmarks compare with chroot and runc, and need root");
    }
    if options.with_peers {
        install_peers()?;
    }
    let mut missing = Vec::new();
    let mut runners = vec![Runner::new("native", Kind::Chroot)?];
    match setup::find_program("runc") {
        Some(binary) => runners.push(Runner::new("runc", Kind::Oci { binary, flags: Vec::new() })?),
        None => missing.push("runc is not installed (--with-peers)".to_owned()),
    }
    match runsc() {
        Some(binary) => {
            let flags =
                ["--platform=systrap", "--network=none", "--ignore-cgroups=true"].map(str::to_owned).to_vec();
            runners.push(Runner::new("runsc systrap", Kind::Oci { binary, flags })?);
        }
        None => missing.push("runsc is not installed (--with-peers)".to_owned()),
    }
    let binary = build::quicksand(Profile::Release)?;
    for platform in &options.platform {
        let flags = vec![format!("--platform={platform}"), "--network=none".to_owned()];
        runners.push(Runner::new(
            &format!("quicksand {platform}"),
            Kind::Oci { binary: binary.clone(), flags },
        )?);
    }
    if !options.only.is_empty() {
        runners.retain(|runner| options.only.iter().any(|name| runner.name.starts_with(name.as_str())));
    }
    Ok((runners, missing))
}

impl Runner {
    fn new(name: &str, kind: Kind) -> Result<Self> {
        let state = setup::work_dir("bench/state")?.join(name.replace(' ', "-"));
        fs::create_dir_all(&state)?;
        Ok(Self { name: name.to_owned(), kind, state })
    }

    /// A command that runs the bundle to its end, as container `id`.
    pub(super) fn run(&self, bundle: &Path, id: &str) -> Result<Command> {
        Ok(match &self.kind {
            Kind::Chroot => {
                let config: Value = serde_json::from_slice(&fs::read(bundle.join("config.json"))?)?;
                let mut command = Command::new("/usr/sbin/chroot");
                command.arg(config["root"]["path"].as_str().unwrap_or("/"));
                command.args(
                    config["process"]["args"].as_array().into_iter().flatten().filter_map(Value::as_str),
                );
                command.env_clear().env("PATH", "/usr/sbin:/usr/bin").env("LC_ALL", "C");
                command
            }
            Kind::Oci { .. } => {
                let mut command = self.oci();
                command.args(["run", "--bundle"]).arg(bundle).arg(id);
                command
            }
        })
    }

    /// A command that restores container `id` from an image.
    pub(super) fn restore(&self, image: &Path, bundle: &Path, id: &str) -> Command {
        let mut command = self.oci();
        command.args(["restore", "--image-path"]).arg(image).arg("--bundle").arg(bundle).arg(id);
        command
    }

    /// The runtime with its flags, for any of its commands.
    pub(super) fn oci(&self) -> Command {
        match &self.kind {
            Kind::Chroot => Command::new("false"),
            Kind::Oci { binary, flags } => {
                let mut command = Command::new(binary);
                command.arg("--root").arg(&self.state).args(flags);
                command
            }
        }
    }

    /// The runtime's binary, if it is one.
    pub(super) fn binary(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Chroot => None,
            Kind::Oci { binary, .. } => Some(binary),
        }
    }

    /// The same runtime from another copy of its binary.
    pub(super) fn with_binary(&self, copy: PathBuf) -> Self {
        let mut other = self.clone();
        if let Kind::Oci { binary, .. } = &mut other.kind {
            *binary = copy;
        }
        other
    }

    /// Whether it is ourselves, on some platform.
    pub(super) fn is_ours(&self) -> bool {
        self.name.starts_with("quicksand")
    }

    /// Whether the figure is about a sandbox of user space's own making.
    pub(super) fn is_sandbox(&self) -> bool {
        matches!(self.kind, Kind::Oci { .. }) && self.name != "runc"
    }

    /// Version words for the record.
    pub(super) fn version(&self) -> String {
        let Some(binary) = self.binary() else { return String::new() };
        process::text(Command::new(binary).arg("--version"), Duration::from_secs(10))
            .map(|text| text.lines().next().unwrap_or("").trim().to_owned())
            .unwrap_or_default()
    }
}

/// The runsc we unpacked, or an installed one.
fn runsc() -> Option<PathBuf> {
    let ours = setup::target_dir().join("peers/usr/bin/runsc");
    if ours.is_file() { Some(ours) } else { setup::find_program("runsc") }
}

/// `runc` from the host's own Debian; `runsc` from trixie (bookworm's is of 2022), unpacked below `target/peers` with package
/// lists of our own, so that nothing else of the host changes.
fn install_peers() -> Result<()> {
    setup::ensure(&[setup::PEERS])?;
    if runsc().is_some() {
        return Ok(());
    }
    println!("downloading runsc from Debian trixie");
    let dir = setup::work_dir("peers")?;
    let apt = Apt::new(&dir, "deb", "trixie")?;
    apt.run(&["download", "-q", "runsc"], 600)?;
    let package = fs::read_dir(&dir)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download runsc left no package")?;
    process::text(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&dir), Duration::from_secs(120))?;
    Ok(())
}
