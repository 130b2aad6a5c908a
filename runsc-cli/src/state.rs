//! What is kept of a container: `--root/ID/`, with `state.json` and the control socket.
//!
//! A container's status is computed, never stored: its sandbox process lives or not, and was started or not. Process ids
//! are told from later ones that happen to be the same by their start time.
//!
//! Invariants: the directory exists exactly as long as the container does. It gets its name when it is whole and locked, and
//! loses it before anything in it is taken away, so that no command ever sees half of it. What a killed command left behind
//! is removed by the next one that lists or needs the id: a container that was not finished, whatever a `run` made (its sandbox
//! dies with it), and directories that are between names.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, renameat_with};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::error::{Context, Result};
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
    /// All that makes a container has been done.
    #[serde(default)]
    pub complete: bool,
    #[serde(default)]
    pub paused: bool,
    /// Owned by a `run` that waits for it: gone when that is.
    pub transient: bool,
    pub owner_uid: u32,
    /// The image that it was restored from.
    #[serde(default)]
    pub image: Option<PathBuf>,
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
            _ if !self.complete => Status::Creating,
            (_, false) => Status::Created,
            (_, true) if self.paused => Status::Paused,
            (_, true) => Status::Running,
        }
    }
    /// Kills what is left of the container's processes and waits until they have gone. The gofer would end by itself now that
    /// its sandbox has.
    fn end_processes(&self) {
        for (pid, started) in [(self.pid, self.start_time), (self.gofer_pid, self.gofer_start_time)] {
            let Some(process) = Pid::from_raw(pid) else { continue };
            let Ok(pidfd) = pidfd_open(process, PidfdFlags::empty()) else { continue };
            // Only now is it sure which process the descriptor is of. One that counts as ended may still have threads that end.
            if stat_of(pid).map(|(_, time)| time) != Some(started) {
                continue;
            }
            if pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
                let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
                while let Err(rustix::io::Errno::INTR) = rustix::event::poll(&mut fds, None) {}
            }
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
        loop {
            let new = nameless(root);
            let mut builder = fs::DirBuilder::new();
            builder.mode(0o700).create(&new).context(format!("making {}", new.display()))?;
            // Another command may have taken it for a left-over.
            let lock = match open_lock(&new) {
                Ok(Some(lock)) => lock,
                Ok(None) => continue,
                Err(e) => {
                    let _ = remove_files(&new);
                    return Err(e);
                }
            };
            let mut container = Container { dir: new, state: state.clone(), lock };
            if let Err(e) = container.save() {
                let _ = remove_files(&container.dir);
                return Err(e);
            }
            let mut named = fs::rename(&container.dir, &dir);
            if named.is_err() {
                remove_if_stale(root, &container.state.id);
                named = fs::rename(&container.dir, &dir);
            }
            let Err(e) = named else {
                container.dir = dir;
                return Ok(container);
            };
            let _ = remove_files(&container.dir);
            let taken = [rustix::io::Errno::NOTEMPTY, rustix::io::Errno::EXIST];
            if taken.iter().any(|errno| Some(errno.raw_os_error()) == e.raw_os_error()) {
                fail!("container {:?} exists already", container.state.id);
            }
            fail!("making {}: {e}", dir.display());
        }
    }

    /// An existing container, locked.
    pub fn open(root: &Path, id: &str) -> Result<Container> {
        check_id(id)?;
        let dir = root.join(id);
        let Some(lock) = open_lock(&dir)? else { fail!("container {id:?} does not exist") };
        let text = fs::read(dir.join(STATE));
        let text = text.context(format!("container {id:?}: state.json"))?;
        let state = crate::spec::parse_json(&text, "state.json")?;
        Ok(Container { dir, state, lock })
    }

    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.state).context("state.json")?;
        let (new, path) = (self.dir.join(NEW_STATE), self.dir.join(STATE));
        let context = || format!("writing {}", path.display());
        fs::write(&new, text).context(context())?;
        // At once, so that a reader without the lock sees the old or the new one. An exchange rather than a replacement:
        // some file systems write a file to the disk before it replaces another, and a state is short-lived.
        match renameat_with(CWD, &new, CWD, &path, RenameFlags::EXCHANGE) {
            Ok(()) => fs::remove_file(&new),
            // There is no old one, or the file system cannot do it.
            Err(_) => fs::rename(&new, &path),
        }
        .context(context())
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
        self.dir.join(SOCKET)
    }

    /// Removes the directory, and the cgroup. The sandbox process has been told to end, at least.
    pub fn remove(self) -> Result<()> {
        self.state.end_processes();
        self.state.cgroup.remove();
        remove_directory(&self.dir).context(format!("removing {}", self.dir.display()))
    }
}

/// What is known of a container, without waiting for commands that change it.
pub fn read(root: &Path, id: &str) -> Result<State> {
    check_id(id)?;
    remove_if_stale(root, id);
    let dir = root.join(id);
    let owned = fs::metadata(&dir).and_then(|meta| check_owner(&meta));
    let text = match owned.and_then(|()| fs::read(dir.join(STATE))) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => fail!("container {id:?} does not exist"),
        other => other.context(format!("container {id:?}: state.json"))?,
    };
    crate::spec::parse_json(&text, "state.json")
}

/// The control socket of a container.
pub fn control_socket(root: &Path, id: &str) -> PathBuf {
    root.join(id).join(SOCKET)
}

/// Removes a container that nothing can be known of.
pub fn remove_unreadable(root: &Path, id: &str) -> Result<()> {
    check_id(id)?;
    let dir = root.join(id);
    let Some(_lock) = open_lock(&dir)? else { return Ok(()) };
    tracing::warn!("container {id:?}: its state cannot be read; processes and cgroups of it may be left");
    remove_directory(&dir).context(format!("removing {}", dir.display()))
}

/// A name below `root` that no id has.
fn nameless(root: &Path) -> PathBuf {
    root.join(format!("{NAMELESS}{}-{:x}", std::process::id(), crate::timeline::now_ns()))
}

/// What the names of directories without an id begin with.
const NAMELESS: char = '~';

/// Frees the name at once, whenever this process is killed.
fn remove_directory(dir: &Path) -> std::io::Result<()> {
    let gone = dir.parent().map(nameless).unwrap_or_else(|| dir.to_owned());
    fs::rename(dir, &gone)?;
    remove_files(&gone)
}

/// Removes a directory with what we have put there. By name: that takes no descriptor, of which there may be none left.
fn remove_files(dir: &Path) -> std::io::Result<()> {
    for name in [STATE, NEW_STATE, SOCKET] {
        // What cannot be removed shows next.
        let _ = fs::remove_file(dir.join(name));
    }
    fs::remove_dir(dir).or_else(|_| fs::remove_dir_all(dir))
}

const STATE: &str = "state.json";
const NEW_STATE: &str = "state.json.new";
const SOCKET: &str = "control.sock";

/// The directory, locked; `None` where there is none (any more).
fn open_lock(dir: &Path) -> Result<Option<File>> {
    lock(dir, FlockOperation::LockExclusive).context(format!("locking {}", dir.display()))
}

fn lock(dir: &Path, how: FlockOperation) -> std::io::Result<Option<File>> {
    loop {
        let file = match File::open(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let meta = file.metadata()?;
        check_owner(&meta)?;
        rustix::fs::flock(&file, how)?;
        // Who waited for the lock may have got that of a directory that is gone.
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        if fs::metadata(dir).is_ok_and(|now| identity(now) == identity(meta)) {
            return Ok(Some(file));
        }
    }
}

/// A container of somebody else's would have us end processes of ours.
fn check_owner(meta: &fs::Metadata) -> std::io::Result<()> {
    let user = rustix::process::geteuid();
    match user.is_root() || meta.uid() == user.as_raw() {
        true => Ok(()),
        false => Err(std::io::Error::other("it belongs to another user")),
    }
}

/// Removes what a killed command left of `id`: a transient container whose sandbox is gone, or one that was never
/// finished and that nobody holds.
pub fn remove_if_stale(root: &Path, id: &str) {
    let dir = root.join(id);
    // Whoever is at work on it holds the lock.
    let Ok(Some(_lock)) = lock(&dir, FlockOperation::NonBlockingLockExclusive) else { return };
    if id.starts_with(NAMELESS) {
        let _ = remove_files(&dir);
        return;
    }
    let state = fs::read(dir.join(STATE)).ok();
    let Some(state) = state.and_then(|text| serde_json::from_slice::<State>(&text).ok()) else { return };
    let stale = match state.status() {
        Status::Creating => true,
        Status::Stopped => state.transient || !state.complete,
        _ => false,
    };
    if stale {
        state.end_processes();
        state.cgroup.remove();
        let _ = remove_directory(&dir);
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
        if check_id(&id).is_err() {
            continue;
        }
        if let Ok(text) = fs::read(root.join(&id).join(STATE))
            && let Ok(state) = serde_json::from_slice(&text)
        {
            states.push(state);
        }
    }
    Ok(states)
}

/// When a process started, in clock ticks after boot; `None` where there is no such process, or it is a zombie.
pub fn start_time(pid: i32) -> Option<u64> {
    let (state, time) = stat_of(pid)?;
    (state != "Z" && state != "X").then_some(time)
}

/// A process's parent; `None` where there is no such process.
pub fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.iter().rposition(|b| *b == b')')?;
    String::from_utf8_lossy(&stat[after + 1..]).split_ascii_whitespace().nth(1)?.parse().ok()
}

/// State and start time of a process, as `/proc/PID/stat` has them.
fn stat_of(pid: i32) -> Option<(String, u64)> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.iter().rposition(|b| *b == b')')?;
    let text = String::from_utf8_lossy(&stat[after + 1..]).into_owned();
    let mut fields = text.split_ascii_whitespace();
    let state = fields.next()?.to_owned();
    Some((state, fields.nth(18)?.parse().ok()?))
}
