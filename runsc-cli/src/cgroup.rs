//! The container's cgroup: every process of a sandbox is in it, so guest memory and CPU time are the container's.
//!
//! Both hierarchies are served through the cgroup file system: version 1 controllers under `/sys/fs/cgroup/NAME` and the
//! unified version 2. As `runc` does, a limit that was asked for and cannot be set is an error for root; everything else
//! is best effort.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::fail;
use crate::spec::Resources;

const MOUNT: &str = "/sys/fs/cgroup";

/// Version 1 controllers that a container gets a group in, where they are mounted.
const CONTROLLERS: [&str; 5] = ["pids", "memory", "cpu", "cpuset", "freezer"];

/// The groups made for a container: one a controller, or a single unified one.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Cgroup {
    paths: Vec<PathBuf>,
    unified: bool,
}

/// How a new process gets into its groups.
#[derive(Debug, Default)]
pub struct Entry {
    /// The unified group that it is made in; to be taken by whoever makes it.
    pub made_in: Option<OwnedFd>,
    /// The version 1 groups' `tasks`, which it writes to.
    moves_to: Vec<OwnedFd>,
}

impl Entry {
    /// The descriptors that [`Entry::enter`] needs.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.moves_to.iter().map(AsRawFd::as_raw_fd)
    }

    /// Moves the calling process, which must have one thread only, into its groups.
    pub fn enter(self) -> Result<()> {
        for tasks in &self.moves_to {
            rustix::io::write(tasks, b"0").context("moving the sandbox into its cgroups")?;
        }
        Ok(())
    }
}

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
        .context(format!("moving the sandbox into {}", path.display()))
}

/// A file of a group and what is written to it.
type Setting = (&'static str, String);

impl Cgroup {
    /// The groups for `id`, which are yet to be made. `path` is `linux.cgroupsPath`.
    pub fn plan(id: &str, path: &str, resources: &Resources) -> Result<Cgroup> {
        let relative = if path.is_empty() { format!("quicksand/{id}") } else { path.to_owned() };
        if Path::new(&relative).components().any(|c| c == Component::ParentDir) {
            fail!("config.json: linux.cgroupsPath: {path:?} climbs out of its parent");
        }
        if relative.contains('\0') {
            fail!("config.json: linux.cgroupsPath: holds a NUL byte");
        }
        if !Path::new(&relative).components().any(|c| matches!(c, Component::Normal(_))) {
            fail!("config.json: linux.cgroupsPath: {path:?} names no group below the root");
        }
        if let Some(name) =
            resources.unified.keys().find(|name| name.contains(['/', '\0']) || name.starts_with('.'))
        {
            fail!("config.json: linux.resources.unified: {name:?} is no file of a cgroup");
        }
        let unified = Path::new(MOUNT).join("cgroup.controllers").exists();
        let paths = match unified {
            true => vec![unified_path(&relative)],
            false => v1_paths(&relative, resources)?,
        };
        Ok(Cgroup { paths, unified })
    }

    /// Makes them and sets their limits; those that cannot be made and are not needed are forgotten.
    pub fn make(&mut self, resources: &Resources) -> Result<()> {
        let mount = Path::new(MOUNT);
        let mut made = Vec::new();
        for group in &self.paths {
            let (settings, mount) = if self.unified {
                delegate(mount, group);
                (unified_settings(resources), mount.to_owned())
            } else {
                let below = group.strip_prefix(mount).unwrap_or(group);
                let controller =
                    below.components().next().and_then(|c| c.as_os_str().to_str()).unwrap_or_default();
                (v1_settings(controller, resources), mount.join(controller))
            };
            if !make_group(group, !settings.is_empty())? {
                continue;
            }
            made.push(group.clone());
            if group.starts_with(Path::new(MOUNT).join("cpuset")) {
                inherit_cpuset(&mount, group);
            }
            apply(group, &settings)?;
            if self.unified {
                for (name, value) in &resources.unified {
                    fs::write(group.join(name), value).context(group.join(name).display())?;
                }
            }
        }
        self.paths = made;
        Ok(())
    }

    /// The way into the groups, for a process that is about to be made.
    ///
    /// Moving a process from outside (`cgroup.procs`) makes the kernel wait until no thread of any process is being
    /// made or ended: 10 to 20 ms. A process that moves its only thread itself (`tasks`, version 1) or that is made in
    /// its group (version 2) waits for nobody.
    pub fn entry(&self) -> Result<Entry> {
        let mut entry = Entry::default();
        for group in &self.paths {
            if self.unified {
                entry.made_in = Some(open(group, OFlags::PATH | OFlags::DIRECTORY)?);
            } else {
                match open(&group.join("tasks"), OFlags::WRONLY) {
                    Ok(tasks) => entry.moves_to.push(tasks),
                    // Somebody else's group of that name.
                    Err(e) if !rustix::process::geteuid().is_root() => tracing::debug!("{e}"),
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(entry)
    }

    /// Removes the groups. Their processes have ended, or are about to.
    pub fn remove(&self) {
        for group in &self.paths {
            match remove_group(group) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => tracing::warn!("removing the cgroup {}: {e}", group.display()),
            }
            // The parent that the default path made goes with its last child.
            if let Some(parent) = group.parent()
                && parent.ends_with("quicksand")
            {
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

/// Removes one group. A process leaves its groups late in its end, which nothing announces: until then the kernel says EBUSY.
fn remove_group(group: &Path) -> std::io::Result<()> {
    const TRIES: u32 = 100;
    for _ in 1..TRIES {
        match fs::remove_dir(group) {
            Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            other => return other,
        }
    }
    fs::remove_dir(group)
}

/// Makes a group, and says whether it is there; where nothing was asked of it, it is fine if that cannot be done.
fn make_group(group: &Path, needed: bool) -> Result<bool> {
    match fs::create_dir_all(group) {
        Ok(()) => Ok(true),
        Err(e) if needed && rustix::process::geteuid().is_root() => {
            fail!("making the cgroup {}: {e}", group.display());
        }
        Err(e) => {
            tracing::debug!("no cgroup {}: {e}", group.display());
            Ok(false)
        }
    }
}

fn v1_paths(relative: &str, resources: &Resources) -> Result<Vec<PathBuf>> {
    let own = own_groups();
    let mut paths = Vec::new();
    for controller in CONTROLLERS {
        let mount = Path::new(MOUNT).join(controller);
        let settings = v1_settings(controller, resources);
        // A group that limits nothing is only worth having where it counts something.
        if controller == "cpuset" && settings.is_empty() {
            continue;
        }
        if !mount.join("cgroup.procs").exists() {
            if settings.is_empty() {
                continue;
            }
            fail!(
                "the container has {controller} limits, and no {controller} cgroup is mounted at {}",
                mount.display()
            );
        }
        let below = match relative.strip_prefix('/') {
            Some(absolute) => PathBuf::from(absolute.trim_start_matches('/')),
            None => own.iter().find(|(names, _)| names.split(',').any(|n| n == controller)).map_or_else(
                || PathBuf::from(relative),
                |(_, path)| Path::new(path.trim_start_matches('/')).join(relative),
            ),
        };
        paths.push(mount.join(below));
    }
    Ok(paths)
}

fn unified_path(relative: &str) -> PathBuf {
    let mount = Path::new(MOUNT);
    match relative.strip_prefix('/') {
        Some(absolute) => mount.join(absolute.trim_start_matches('/')),
        None => {
            let own = own_groups();
            let path = own.iter().find(|(names, _)| names.is_empty()).map_or("/", |(_, path)| path);
            // A group with processes cannot hand controllers down: the container goes beside us, not below.
            let parent = Path::new(path.trim_start_matches('/')).parent().unwrap_or(Path::new(""));
            mount.join(parent).join(relative)
        }
    }
}

fn apply(group: &Path, settings: &[Setting]) -> Result<()> {
    if !group.exists() {
        return Ok(()); // not made, which was said
    }
    for (file, value) in settings {
        let path = group.join(file);
        match fs::write(&path, value) {
            Ok(()) => {}
            // Swap accounting may be off.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                tracing::warn!("{} does not exist: {value} is not applied", path.display());
            }
            Err(e) => fail!("setting {} to {value}: {e}", path.display()),
        }
    }
    Ok(())
}

fn v1_settings(controller: &str, r: &Resources) -> Vec<Setting> {
    let mut out = Vec::new();
    let mut set = |file, value: Option<String>| out.extend(value.map(|v| (file, v)));
    match controller {
        "pids" => set("pids.max", r.pids.limit.map(|n| if n > 0 { n.to_string() } else { "max".into() })),
        "memory" => {
            set("memory.limit_in_bytes", r.memory.limit.filter(|n| *n != 0).map(|n| n.to_string()));
            set(
                "memory.soft_limit_in_bytes",
                r.memory.reservation.filter(|n| *n != 0).map(|n| n.to_string()),
            );
            set("memory.memsw.limit_in_bytes", r.memory.swap.filter(|n| *n > 0).map(|n| n.to_string()));
        }
        "cpu" => {
            set("cpu.shares", r.cpu.shares.filter(|n| *n != 0).map(|n| n.to_string()));
            set("cpu.cfs_period_us", r.cpu.period.filter(|n| *n != 0).map(|n| n.to_string()));
            set("cpu.cfs_quota_us", r.cpu.quota.filter(|n| *n != 0).map(|n| n.to_string()));
        }
        "cpuset" => {
            set("cpuset.cpus", Some(r.cpu.cpus.clone()).filter(|s| !s.is_empty()));
            set("cpuset.mems", Some(r.cpu.mems.clone()).filter(|s| !s.is_empty()));
        }
        _ => {}
    }
    out
}

fn unified_settings(r: &Resources) -> Vec<Setting> {
    let mut out = Vec::new();
    let mut set = |file, value: Option<String>| out.extend(value.map(|v| (file, v)));
    let or_max = |n: i64| if n > 0 { n.to_string() } else { "max".to_owned() };
    set("pids.max", r.pids.limit.map(or_max));
    set("memory.max", r.memory.limit.filter(|n| *n != 0).map(or_max));
    set("memory.low", r.memory.reservation.filter(|n| *n > 0).map(|n| n.to_string()));
    // The spec's number is memory and swap together.
    let swap = match (r.memory.swap, r.memory.limit) {
        (Some(swap), Some(limit)) if swap > 0 && limit > 0 => {
            Some(swap.saturating_sub(limit).max(0).to_string())
        }
        (Some(swap), _) if swap < 0 => Some("max".to_owned()),
        _ => None,
    };
    set("memory.swap.max", swap);
    // runc's mapping of 2..262144 shares to a weight of 1..10000.
    let weight = |shares: u64| 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
    set("cpu.weight", r.cpu.shares.filter(|n| *n != 0).map(|n| weight(n).to_string()));
    if r.cpu.quota.is_some() || r.cpu.period.is_some() {
        let quota = r.cpu.quota.filter(|n| *n > 0).map_or("max".to_owned(), |n| n.to_string());
        set("cpu.max", Some(format!("{quota} {}", r.cpu.period.filter(|n| *n != 0).unwrap_or(100_000))));
    }
    set("cpuset.cpus", Some(r.cpu.cpus.clone()).filter(|s| !s.is_empty()));
    set("cpuset.mems", Some(r.cpu.mems.clone()).filter(|s| !s.is_empty()));
    out
}

/// A new cpuset group has neither CPUs nor memory, and lets no process in: it gets its parent's, from the top down.
fn inherit_cpuset(mount: &Path, group: &Path) {
    let Ok(below) = group.strip_prefix(mount) else { return };
    let mut at = mount.to_owned();
    for part in below.components() {
        let parent = at.clone();
        at.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let empty = fs::read_to_string(at.join(file)).is_ok_and(|s| s.trim().is_empty());
            if empty && let Ok(value) = fs::read_to_string(parent.join(file)) {
                // A failure shows when the process cannot enter.
                let _ = fs::write(at.join(file), value);
            }
        }
    }
}

/// Hands the controllers down to the parents of a unified group, as far as they can be.
fn delegate(mount: &Path, group: &Path) {
    let Some(below) = group.parent().and_then(|p| p.strip_prefix(mount).ok()) else { return };
    let mut at = mount.to_owned();
    let enable = |at: &Path| {
        for controller in ["+pids", "+memory", "+cpu", "+cpuset"] {
            let _ = fs::write(at.join("cgroup.subtree_control"), controller);
        }
    };
    enable(&at);
    for part in below.components() {
        at.push(part);
        let _ = fs::create_dir(&at);
        enable(&at);
    }
}

/// The groups of this process: controller names and path, as `/proc/self/cgroup` lists them.
fn own_groups() -> Vec<(String, String)> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
    };
    text.lines().filter_map(line).collect()
}
