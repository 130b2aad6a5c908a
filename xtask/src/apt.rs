//! Debian packages of another release, or as source, by package lists of our own: nothing of the host changes.

use crate::process;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// `apt-get` with its lists and its cache in a folder; downloads go there too.
pub(crate) struct Apt {
    dir: PathBuf,
}

impl Apt {
    /// `kind` is `deb` or `deb-src`. Fetches the lists.
    pub(crate) fn new(dir: &Path, kind: &str, release: &str) -> Result<Self> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(folder)).with_context(|| dir.display().to_string())?;
        }
        let keys = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
        let list = format!("{kind} {keys} http://deb.debian.org/debian {release} main\n");
        fs::write(dir.join("sources.list"), list)?;
        let apt = Self { dir: dir.to_path_buf() };
        apt.run(&["update", "-q"], 300)?;
        Ok(apt)
    }

    pub(crate) fn run(&self, args: &[&str], limit_s: u64) -> Result<()> {
        let mut command = Command::new("apt-get");
        let place = |name: &str| self.dir.join(name).display().to_string();
        for (key, value) in [
            ("Dir::Etc::sourcelist", place("sources.list")),
            ("Dir::Etc::sourceparts", "-".to_owned()),
            ("Dir::State::lists", place("lists")),
            ("Dir::Cache", place("cache")),
            ("APT::Sandbox::User", "root".to_owned()),
        ] {
            command.arg("-o").arg(format!("{key}={value}"));
        }
        command.args(args).current_dir(&self.dir);
        process::text(&mut command, Duration::from_secs(limit_s)).map(|_| ())
    }
}
