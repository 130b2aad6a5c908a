//! What is kept of a container: `--root/ID/`, with `state.json` and the control socket.
//!
//! A container's status is computed, never stored: its sandbox process lives or not, and was started or not. Process ids
//! are told from later ones that happen to be the same by their start time.
//!
//! Invariants: the directory exists exactly as long as the container does. What a killed `run` left behind (its sandbox
//! dies with it) is removed by the next command that lists or needs the id.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Result};
use crate::fail;
use crate::spec::{Hooks, OCI_VERSION};

/// `state.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// The sandbox process; 0 while it is being made.
    pub pid: i32,
    /// Its start time in clock ticks after boot.
    pub start_time: u64,
    /// The gofer process; 0 where there is none.
    pub gofer_pid: i32,
    pub gofer_start_time: u64,
    /// RFC 3339.
    pub created: String,
    pub started: bool,
    #[serde(default)]
    pub paused: bool,
    /// Owned by a `run` that waits for it: gone when that is.
    pub transient: bool,
    pub owner_uid: u32,
    pub cgroup: Cgroup,
    pub annotations: BTreeMap<String, String>,
    /// Hooks still to be run.
    pub hooks: Hooks,
}

/// The status of the OCI runtime spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

impl State {
    pub fn status(&self) -> Status {
        match (self.pid, self.started) {
            (0, _) => Status::Creating,
            _ if start_time(self.pid) != Some(self.start_time) => Status::Stopped,
            (_, false) => Status::Created,
            (_, true) if self.paused => Status::Paused,
            (_, true) => Status::Running,
        }
    }
    /// Ends the gofer process, which would end by itself now that its sandbox has, and waits until it has gone.
    fn end_gofer(&self) {
        use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
        let Some(pid) = Pid::from_raw(self.gofer_pid) else { return };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        // Only now is it sure which process the descriptor is of.
        if start_time(self.gofer_pid) != Some(self.gofer_start_time) {
            return;
        }
        if pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
            let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
            while let Err(rustix::io::Errno::INTR) = rustix::event::poll(&mut fds, None) {}
        }
    }
    /// What `state` prints and hooks get.
    pub fn to_oci(&self) -> serde_json::Value {
        let status = self.status();
        let mut value = serde_json::json!({
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "status": status.name(),
            "pid": if status == Status::Stopped { 0 } else { self.pid },
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
            "owner": "",
        });
        if !self.annotations.is_empty() {
            value["annotations"] = serde_json::json!(self.annotations);
        }
        value
    }
}

/// A container's directory, locked against other commands that change it.
#[derive(Debug)]
pub struct Container {
    pub dir: PathBuf,
    pub state: State,
    lock: File,
}

/// An id names a directory, and must not do more than that.
pub fn check_id(id: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id == "." || id == ".." || id.len() > 255 || !id.chars().all(fine) {
        fail!("{id:?} is no container id: letters, digits and the characters _ + - . are");
    }
    Ok(())
}

impl Container {
    /// A new container's directory; an error where the id is taken.
    pub fn create(root: &Path, state: State) -> Result<Container> {
        check_id(&state.id)?;
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o711);
        builder.recursive(true).create(root).context(format!("making {}", root.display()))?;
        let dir = root.join(&state.id);
        let make = || {
            let mut builder = fs::DirBuilder::new();
            builder.mode(0o700).create(&dir)
        };
        let made = match make() {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                remove_if_stale(root, &state.id);
                make()
            }
            other => other,
        };
        made.map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::new(format!("container {:?} exists already", state.id))
            }
            _ => Error::new(format!("making {}: {e}", dir.display())),
        })?;
        let lock = open_lock(&dir)?;
        let container = Container { dir, state, lock };
        if let Err(e) = container.save() {
            let _ = fs::remove_dir_all(&container.dir);
            return Err(e);
        }
        Ok(container)
    }

    /// An existing container, locked.
    pub fn open(root: &Path, id: &str) -> Result<Container> {
        check_id(id)?;
        let dir = root.join(id);
        let missing = || Error::new(format!("container {id:?} does not exist"));
        let lock = open_lock(&dir).map_err(|_| missing())?;
        let text = fs::read(dir.join("state.json")).map_err(|_| missing())?;
        let state = crate::spec::parse_json(&text, "state.json")?;
        Ok(Container { dir, state, lock })
    }

    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.state).context("state.json")?;
        let (new, path) = (self.dir.join("state.json.new"), self.dir.join("state.json"));
        // A rename, so that a reader without the lock sees the old or the new one.
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .context(format!("writing {}", path.display()))
    }

    /// Gives up the lock, for a command that goes on to wait.
    pub fn unlock(&self) {
        // Fails only for a closed descriptor.
        let _ = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
    }
    pub fn relock(&self) {
        let _ = rustix::fs::flock(&self.lock, FlockOperation::LockExclusive);
    }

    pub fn control_socket(&self) -> PathBuf {
        self.dir.join("control.sock")
    }

    /// Removes the directory, and the cgroup. The sandbox process has ended.
    pub fn remove(self) -> Result<()> {
        self.state.end_gofer();
        self.state.cgroup.remove();
        fs::remove_dir_all(&self.dir).context(format!("removing {}", self.dir.display()))
    }
}

fn open_lock(dir: &Path) -> Result<File> {
    let file = File::open(dir).context(dir.display())?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).context(format!("locking {}", dir.display()))?;
    Ok(file)
}

/// Removes what a killed command left of `id`: a transient container whose sandbox is gone, or one that was never
/// finished and that nobody holds.
pub fn remove_if_stale(root: &Path, id: &str) {
    let dir = root.join(id);
    let Ok(file) = File::open(&dir) else { return };
    // Whoever is at work on it holds the lock.
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return;
    }
    let state = fs::read(dir.join("state.json")).ok();
    let state = state.and_then(|text| serde_json::from_slice::<State>(&text).ok());
    match state {
        Some(state) => {
            let gone = matches!(state.status(), Status::Stopped | Status::Creating);
            if gone && (state.transient || state.pid == 0) {
                state.end_gofer();
                state.cgroup.remove();
                let _ = fs::remove_dir_all(&dir);
            }
        }
        None => {
            let _ = fs::remove_dir_all(&dir);
        }
    }
}

/// All containers, by id.
pub fn list(root: &Path) -> Result<Vec<State>> {
    let entries = match fs::read_dir(root) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context(root.display())?,
    };
    let mut ids: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    ids.sort();
    let mut states = Vec::new();
    for id in ids {
        remove_if_stale(root, &id);
        if let Ok(text) = fs::read(root.join(&id).join("state.json"))
            && let Ok(state) = serde_json::from_slice(&text)
        {
            states.push(state);
        }
    }
    Ok(states)
}

/// When a process started, in clock ticks after boot; `None` where there is no such process, or it is a zombie.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.iter().rposition(|b| *b == b')')?;
    let text = String::from_utf8_lossy(&stat[after + 1..]).into_owned();
    let mut fields = text.split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
