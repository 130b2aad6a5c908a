//! What the tests of the OCI commands share: a runtime with a state folder of its own, bundles, and a look at what
//! is left behind on the host.

use crate::bundle;
use crate::conformance::{self, Sandbox};
use crate::process::{self, Captured};
use crate::report::Tally;
use crate::rootfs::{self, Kind};
use crate::setup;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The limit for one runtime command.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// How long processes may take to be gone after the last command.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// A runtime under test, started from a copy of its binary, so that its processes are known by what they execute.
pub(super) struct Runtime {
    binary: PathBuf,
    flags: Vec<String>,
    state: PathBuf,
    dir: PathBuf,
    pub(super) root: PathBuf,
}

/// One named check.
pub(super) type Check = (&'static str, fn(&Runtime) -> Result<()>);

impl Runtime {
    pub(super) fn new(sandbox: &Sandbox) -> Result<Self> {
        let dir = setup::work_dir("containers")?.join(std::process::id().to_string());
        conformance::fresh_folder(&dir)?;
        let name = sandbox.binary().file_name().unwrap_or_default();
        let binary = dir.join(name);
        rootfs::copy(sandbox.binary(), &binary)?;
        // Any OCI runtime can stand in, to try the tests themselves.
        let flags = if name == "quicksand" { sandbox.flags() } else { Vec::new() };
        Ok(Self { binary, flags, state: dir.join("state"), root: rootfs::cached(Kind::Busybox)?, dir })
    }

    /// Runs each check; after each, the host must be as it was.
    pub(super) fn run(&self, checks: &[Check]) -> Tally {
        let mut tally = Tally::default();
        for (name, check) in checks {
            let before = mounts();
            let outcome = check(self).and_then(|()| self.nothing_left(&before));
            match &outcome {
                Ok(()) => println!("ok      {name}"),
                Err(error) => println!("FAILED  {name}: {error:#}"),
            }
            tally += Tally::of(outcome.is_ok());
            if outcome.is_err() {
                self.clean();
            }
        }
        tally
    }

    /// The runtime with its global flags.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.state).args(&self.flags);
        command
    }

    /// The platform that it runs on, where it is ours.
    pub(super) fn platform(&self) -> Option<&str> {
        let place = self.flags.iter().position(|flag| flag == "--platform")?;
        self.flags.get(place + 1).map(String::as_str)
    }

    /// As [`Runtime::command`], on another platform.
    pub(super) fn command_on(&self, platform: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.state).args(["--platform", platform]);
        command
    }

    /// Runs one runtime command.
    pub(super) fn call(&self, args: &[&str]) -> Result<Captured> {
        process::capture(self.command().args(args), LIMIT)
    }

    /// As [`Runtime::call`], and it must succeed; its standard output.
    pub(super) fn ok(&self, args: &[&str]) -> Result<String> {
        let done = self.call(args)?;
        if !done.success() {
            bail!("{}: {}\n{}", args.join(" "), done.describe(), done.stderr_text().trim_end());
        }
        Ok(done.stdout_text())
    }

    /// `create`, with the container's output going nowhere.
    pub(super) fn create(&self, bundle: &Path, id: &str) -> Result<()> {
        let mut command = self.command();
        command.args(["create", "--bundle"]).arg(bundle).arg(id);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        process::show(&mut command, LIMIT)
    }

    /// A fresh bundle that runs a shell script; the configuration can be changed first.
    pub(super) fn shell(&self, script: &str, change: impl FnOnce(&mut Value)) -> Result<PathBuf> {
        self.bundle(&["/bin/sh", "-c", script], change)
    }

    pub(super) fn bundle(&self, argv: &[&str], change: impl FnOnce(&mut Value)) -> Result<PathBuf> {
        let mut spec = bundle::spec(&self.root, argv);
        spec["linux"]["cgroupsPath"] = format!("/{}", cgroup_name()).into();
        change(&mut spec);
        let dir = self.dir.join("bundle");
        conformance::fresh_folder(&dir)?;
        bundle::write(&dir, &spec)
    }

    /// A folder for what a check needs.
    pub(super) fn scratch(&self) -> Result<PathBuf> {
        let dir = self.dir.join("scratch");
        conformance::fresh_folder(&dir)?;
        Ok(dir)
    }

    /// `run` of a bundle.
    pub(super) fn run_bundle(&self, bundle: &Path) -> Result<Captured> {
        self.call(&["run", "--bundle", &bundle.to_string_lossy(), "test"])
    }

    /// The script's output, which must end with `code`.
    pub(super) fn expect(&self, bundle: &Path, code: i32, stdout: &str) -> Result<()> {
        let done = self.run_bundle(bundle)?;
        ensure!(
            done.status.and_then(|status| status.code()) == Some(code) && done.stdout_text() == stdout,
            "{}, printed {:?}; expected exit {code} and {stdout:?}\n{}",
            done.describe(),
            done.stdout_text(),
            done.stderr_text().trim_end()
        );
        Ok(())
    }

    /// A failure must be one of ours: no success, no time-out, no panic, and words that help.
    pub(super) fn fails_clearly(&self, args: &[&str], must_say: &str) -> Result<()> {
        let done = self.call(args)?;
        let stderr = done.stderr_text();
        ensure!(done.status.is_some(), "{}: {}", args.join(" "), done.describe());
        ensure!(!done.success(), "{} succeeded", args.join(" "));
        ensure!(!stderr.contains("panicked"), "it panicked:\n{stderr}");
        ensure!(!stderr.trim().is_empty(), "it failed without a word");
        let lower = stderr.to_lowercase();
        ensure!(
            lower.contains(&must_say.to_lowercase()),
            "the message does not mention {must_say:?}: {}",
            stderr.trim()
        );
        ensure!(stderr.trim().lines().count() <= 3, "more than one message:\n{}", stderr.trim());
        Ok(())
    }

    /// Where the runtime keeps its containers.
    pub(super) fn state_folder(&self) -> &Path {
        &self.state
    }

    /// Those cgroups of our containers that are there. Their name is ours alone: others may test at the same time.
    pub(super) fn cgroups(&self) -> Vec<PathBuf> {
        let mount = Path::new("/sys/fs/cgroup");
        let parents = fs::read_dir(mount).into_iter().flatten().flatten().map(|entry| entry.path());
        let groups = parents.chain([mount.to_path_buf()]).map(|parent| parent.join(cgroup_name()));
        groups.filter(|group| group.exists()).collect()
    }

    /// Every process that runs our copy of the binary.
    pub(super) fn processes(&self) -> Vec<i32> {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let ours = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == self.binary);
        pids.filter(ours).collect()
    }

    /// No process, no mount, no state.
    fn nothing_left(&self, before: &BTreeSet<String>) -> Result<()> {
        let deadline = Instant::now() + GONE_LIMIT;
        while let Some(pid) = self.processes().first() {
            // Nothing tells us when a stranger's child is gone, so this asks again.
            if Instant::now() > deadline {
                let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                bail!("a process is left over: {pid} {}", line.replace('\0', " "));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Some(mount) = mounts().difference(before).next() {
            bail!("a mount is left over: {mount}");
        }
        if let Some(entry) = fs::read_dir(&self.state).into_iter().flatten().flatten().next() {
            bail!("state is left over: {}", entry.path().display());
        }
        if let Some(cgroup) = self.cgroups().first() {
            bail!("a cgroup is left over: {}", cgroup.display());
        }
        Ok(())
    }

    /// After a failed check: makes room for the next one.
    fn clean(&self) {
        for id in fs::read_dir(&self.state).into_iter().flatten().flatten() {
            let _best_effort = self.call(&["delete", "--force", &id.file_name().to_string_lossy()]);
        }
        for pid in self.processes() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _best_effort = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _best_effort = fs::remove_dir_all(&self.state);
    }

    /// Takes everything away.
    pub(super) fn end(self) -> Result<()> {
        self.clean();
        fs::remove_dir_all(&self.dir).with_context(|| format!("{} is still in use", self.dir.display()))
    }
}

fn cgroup_name() -> String {
    format!("quicksand-test-{}", std::process::id())
}

fn mounts() -> BTreeSet<String> {
    fs::read_to_string("/proc/self/mounts").unwrap_or_default().lines().map(str::to_owned).collect()
}
