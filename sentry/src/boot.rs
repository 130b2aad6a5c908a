//! Containers and their first processes: from a configuration that the command line has checked to a running task.
//!
//! [`Kernel::create_container`] makes the root, the mounts, the pid namespace; nothing runs. [`Container::start`] makes a
//! process that no process of the container is the parent of: the first one is its init, later ones are what
//! `exec` asks for. The program is loaded before `start` returns, so that a wrong path is the caller's error, not the
//! guest's.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quicksand_abi::{Errno, SigInfo};
use quicksand_platform::{PlatformError, Registers};

use crate::fs::tty::devpts::{DevPts, Options as PtsOptions};
use crate::fs::{dev, gofer, overlay, proc, sys, tmpfs};
use crate::kernel::{Container, Kernel};
use crate::mm::MemoryManager;
use crate::signal::{Actions, send_to_group};
use crate::task::credentials::Caps;
use crate::task::pid::{Parentage, ProcessInfo};
use crate::task::{
    Credentials, CurrentTask, FsInfo, PidNamespace, Rlimits, Task, TaskState, ThreadGroup, exec, run,
};
use crate::vfs::inode::Owner;
use crate::vfs::walk::{WalkFlags, lookup_in};
use crate::vfs::{
    Dentry, FdFlags, FdTable, FileKind, Inode, Mount, MountFlags, MountNamespace, NewNode, OpenFile, Path,
};

/// Why a container or a process could not be started. Each message is for the person who asked.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("the container's root cannot be opened: {0}")]
    Root(Errno),
    #[error("cannot mount {kind} at {destination}: {errno}")]
    Mount { kind: &'static str, destination: String, errno: Errno },
    #[error("exec: {program:?}: {errno}")]
    Program { program: String, errno: Errno },
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotFound(String),
    #[error("cannot change to the working directory {cwd:?}: {errno}")]
    Cwd { cwd: String, errno: Errno },
    #[error("a standard descriptor cannot be used: {0}")]
    Stdio(Errno),
    #[error("the process has no arguments")]
    NoArguments,
    #[error("the container's init process has ended")]
    Ended,
    #[error("no host thread for the process: {0}")]
    Thread(Errno),
    #[error("the process could not be entered into the container: {0}")]
    Limits(Errno),
    #[error(transparent)]
    Platform(#[from] PlatformError),
}

/// Where a tree of host files comes from.
#[derive(Debug)]
pub enum RootSource {
    /// A descriptor of the directory (or file): the Sentry opens below it by itself.
    Directfs(OwnedFd),
    /// A socket to a gofer that serves it.
    Gofer(OwnedFd),
}

#[derive(Debug)]
pub struct RootConfig {
    pub source: RootSource,
    pub readonly: bool,
    /// Changes go to memory; the source stays as it is.
    pub overlay: bool,
}

/// What is mounted.
#[derive(Debug)]
pub enum MountKind {
    Tmpfs,
    Proc,
    Sysfs,
    /// The default devices.
    Dev,
    Devpts,
    Shm,
    Mqueue,
    Cgroup,
    Bind(RootSource),
}

impl MountKind {
    fn name(&self) -> &'static str {
        match self {
            MountKind::Tmpfs => "tmpfs",
            MountKind::Proc => "proc",
            MountKind::Sysfs => "sysfs",
            MountKind::Dev => "devtmpfs",
            MountKind::Devpts => "devpts",
            MountKind::Shm => "shm",
            MountKind::Mqueue => "mqueue",
            MountKind::Cgroup => "cgroup",
            MountKind::Bind(_) => "bind",
        }
    }
}

#[derive(Debug)]
pub struct MountConfig {
    pub destination: Vec<u8>,
    pub kind: MountKind,
    pub flags: MountFlags,
    pub source: Vec<u8>,
    /// Options of the file system, as `mount(2)`'s last argument.
    pub data: Vec<u8>,
}

#[derive(Debug)]
pub struct ContainerConfig {
    pub id: String,
    pub hostname: Vec<u8>,
    pub domainname: Vec<u8>,
    pub root: RootConfig,
    pub mounts: Vec<MountConfig>,
    /// Paths that show nothing, and paths that cannot be written to: what is not there is skipped.
    pub masked_paths: Vec<Vec<u8>>,
    pub readonly_paths: Vec<Vec<u8>>,
    /// The most tasks there may be.
    pub pids_limit: Option<u64>,
}

/// A process to start.
#[derive(Debug)]
pub struct ProcessConfig {
    /// `argv[0]` is looked up along PATH of `envp` where it has no slash.
    pub argv: Vec<Vec<u8>>,
    pub envp: Vec<Vec<u8>>,
    pub cwd: Vec<u8>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: u32,
    pub caps: CapSets,
    pub rlimits: Rlimits,
    pub no_new_privs: bool,
    pub stdio: [OwnedFd; 3],
    /// The three are one terminal, which is to control the process's session.
    pub terminal: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct CapSets {
    pub permitted: Caps,
    pub effective: Caps,
    pub inheritable: Caps,
    pub bounding: Caps,
    pub ambient: Caps,
}

impl Kernel {
    /// Makes a container in which nothing runs yet.
    pub fn create_container(self: &Arc<Self>, config: ContainerConfig) -> Result<Arc<Container>, BootError> {
        let root = root_mount(config.root).map_err(BootError::Root)?;
        let place = Path::root_of(&root);
        let pids = PidNamespace::new(self.next_id(), config.pids_limit);
        let mut devpts = None;
        for mount in config.mounts {
            let (kind, destination) = (mount.kind.name(), mount.destination.clone());
            self.mount(&place, mount, &pids, &mut devpts).map_err(|errno| BootError::Mount {
                kind,
                destination: String::from_utf8_lossy(&destination).into_owned(),
                errno,
            })?;
        }
        let narrowed = |path: Vec<u8>, result: Result<(), Errno>| {
            result.map_err(|errno| BootError::Mount {
                kind: "a restriction",
                destination: String::from_utf8_lossy(&path).into_owned(),
                errno,
            })
        };
        for path in config.readonly_paths {
            let done = make_readonly(&place, &path);
            narrowed(path, done)?;
        }
        for path in config.masked_paths {
            let done = mask(&place, &path);
            narrowed(path, done)?;
        }
        let namespace = MountNamespace::new(root);
        let fs = FsInfo::new(place.clone(), place, 0o022, namespace);
        let names = (config.hostname, config.domainname);
        let container = Container::new(self, config.id, names, pids, fs);
        if let Some(devpts) = devpts {
            container.set_devpts(devpts);
        }
        Ok(container)
    }

    /// Mounts one of a container's mounts. `devpts` is told of a devpts.
    fn mount(
        self: &Arc<Self>,
        root: &Path,
        config: MountConfig,
        pids: &Arc<PidNamespace>,
        devpts: &mut Option<Arc<DevPts>>,
    ) -> Result<(), Errno> {
        let flags = config.flags;
        let mount = match config.kind {
            MountKind::Tmpfs | MountKind::Shm => tmpfs::mount(&config.source, &config.data, flags)?,
            MountKind::Bind(source) => {
                let dentry = Dentry::new_root(open_source(source, false)?, b"/");
                Mount::new(dentry, flags, &config.source, b"")
            }
            MountKind::Proc => Mount::new(proc::new(pids), flags, b"proc", b""),
            MountKind::Devpts => {
                let (instance, root) = DevPts::new(PtsOptions::parse(&config.data)?);
                devpts.get_or_insert(instance);
                Mount::new(root, flags, b"devpts", &config.data)
            }
            MountKind::Sysfs => {
                let root = sys::new(self.machine.cpus());
                Mount::new(root, flags, b"sysfs", b"")
            }
            MountKind::Dev => {
                let mount = tmpfs::mount(b"tmpfs", &config.data, flags)?;
                dev::populate(&mount.root.inode)?;
                mount
            }
            other => {
                let destination = String::from_utf8_lossy(&config.destination);
                tracing::warn!("{} is not supported: nothing is mounted at {destination}", other.name());
                return Ok(());
            }
        };
        let at = mount_point(root, &config.destination, mount.root.inode.kind)?;
        mount.attach(at);
        Ok(())
    }
}

fn root_mount(config: RootConfig) -> Result<Arc<Mount>, Errno> {
    let mut flags = MountFlags::RELATIME;
    if config.readonly {
        flags |= MountFlags::RDONLY;
    }
    let exclusive = config.overlay || config.readonly;
    let tree = open_source(config.source, exclusive)?;
    if config.overlay {
        return overlay::mount(tree, flags);
    }
    Ok(Mount::new(Dentry::new_root(tree, b"/"), flags, b"none", b""))
}

fn open_source(source: RootSource, exclusive: bool) -> Result<Arc<Inode>, Errno> {
    match source {
        RootSource::Directfs(fd) => gofer::open_direct(fd, gofer::Options { exclusive }),
        RootSource::Gofer(socket) => gofer::open_remote(socket, gofer::Options { exclusive }),
    }
}

/// The place of a mount; what is missing on the way is made, as container runtimes do.
fn mount_point(root: &Path, destination: &[u8], kind: FileKind) -> Result<Path, Errno> {
    let names: Vec<&[u8]> =
        destination.split(|b| *b == b'/').filter(|n| !n.is_empty() && *n != b".").collect();
    if names.contains(&&b".."[..]) {
        return Err(Errno::EINVAL);
    }
    // The longest part of the way that is there. Most often that is all of it.
    let mut there = names.len();
    let mut at = loop {
        match lookup_in(root, &names[..there].join(&b'/'), WalkFlags::FOLLOW) {
            Err(Errno::ENOENT) if there > 1 => there -= 1,
            Err(Errno::ENOENT) => {
                there = 0;
                break root.clone();
            }
            found => break found?,
        }
    };
    for (i, name) in names.iter().enumerate().skip(there) {
        let last = i + 1 == names.len();
        let node = if last && kind != FileKind::Directory { NewNode::Regular } else { NewNode::Directory };
        let owner = Owner { uid: 0, gid: 0, perm: 0o755 };
        let dir = &at.dentry.inode;
        if !dir.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        dir.ops.create(dir, name, node, owner)?;
        // It has just been made, and leads nowhere else.
        at = lookup_in(&at, name, WalkFlags::FOLLOW)?;
    }
    Ok(at)
}

/// What is at a path that a restriction names; `None` where there is nothing.
fn restricted(root: &Path, path: &[u8]) -> Result<Option<Path>, Errno> {
    match lookup_in(root, path, WalkFlags::FOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Shows the same files through a mount that cannot be written to.
fn make_readonly(root: &Path, path: &[u8]) -> Result<(), Errno> {
    let Some(found) = restricted(root, path)? else { return Ok(()) };
    let flags = found.mount.flags() | MountFlags::RDONLY;
    let (source, options) = (found.mount.source.clone(), found.mount.options.clone());
    Mount::new(found.dentry.clone(), flags, &source, &options).attach(found);
    Ok(())
}

/// Covers a directory with an empty one, and anything else with `/dev/null`.
fn mask(root: &Path, path: &[u8]) -> Result<(), Errno> {
    let Some(found) = restricted(root, path)? else { return Ok(()) };
    if found.dentry.inode.is_dir() {
        let flags = MountFlags::RDONLY | MountFlags::RELATIME;
        tmpfs::mount(b"tmpfs", b"size=0k", flags)?.attach(found);
    } else if let Some(null) = restricted(root, b"/dev/null")? {
        let dentry = Dentry::new_root(null.dentry.inode.clone(), b"null");
        Mount::new(dentry, null.mount.flags(), b"tmpfs", b"").attach(found);
    }
    Ok(())
}

/// Whom [`Container::signal`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalTarget {
    Init,
    All,
    /// A process by its number in the container.
    Pid(i32),
}

/// A process that the host started.
#[derive(Clone, Debug)]
pub struct Started {
    pub group: Arc<ThreadGroup>,
    /// The number of the terminal that it was given.
    pub terminal: Option<u64>,
}

impl Container {
    /// Whether the program of a process is there and may be executed, without starting it: what can be said before `start`.
    pub fn check_program(&self, config: &ProcessConfig) -> Result<(), BootError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let program = config.argv.first().ok_or(BootError::NoArguments)?;
        let creds = credentials(&config.caps, config.uid, config.gid, config.groups.clone());
        let root = self.initial_fs().root();
        let try_one = |path: &[u8]| -> Result<(), Errno> {
            let path =
                if path.starts_with(b"/") { path.to_vec() } else { [&config.cwd[..], b"/", path].concat() };
            let found = lookup_in(&root, &path, WalkFlags::FOLLOW)?;
            let inode = &found.dentry.inode;
            if inode.kind != FileKind::Regular {
                return Err(Errno::EACCES);
            }
            crate::vfs::perm::check_attr(&creds, &inode.attr()?, crate::vfs::perm::Access::EXEC)
        };
        let mut worst = None;
        for path in candidates(program, &config.envp) {
            match try_one(&path) {
                Ok(()) => return Ok(()),
                Err(errno) if program.contains(&b'/') => {
                    return Err(BootError::Program { program: text(program), errno });
                }
                Err(Errno::EACCES) => worst = Some(Errno::EACCES),
                Err(_) => {}
            }
        }
        match worst {
            Some(errno) => Err(BootError::Program { program: text(program), errno }),
            None => Err(BootError::NotFound(text(program))),
        }
    }

    /// Starts a process that the host is the parent of. Its program is loaded when this returns.
    pub fn start(self: &Arc<Self>, config: ProcessConfig) -> Result<Started, BootError> {
        let kernel = &self.kernel;
        let context = kernel.platform.context()?;
        let mm = MemoryManager::nowhere();
        let files = Arc::new(FdTable::default());
        let terminal = self
            .install_stdio(&files, config.stdio, config.terminal, (config.uid, config.gid))
            .map_err(BootError::Stdio)?;
        let fs = self.initial_fs().duplicate();
        fs.set_umask(config.umask);
        let creds = credentials(&config.caps, config.uid, config.gid, config.groups);
        let mut state = TaskState::new(mm.clone(), files.clone(), fs.clone(), Arc::new(creds));
        state.no_new_privs = config.no_new_privs;

        let group = self.new_process(state, config.rlimits)?;
        let task = group.any_task().ok_or(BootError::Ended)?;
        let current = CurrentTask::new(task.clone(), Registers::default(), context, mm, files);
        let loaded = prepare(&current, &fs, &config.cwd, config.argv, config.envp);
        drop(fs);
        let started = loaded.and_then(|()| {
            if let Some(tty) = terminal {
                // A new session leader without a terminal: it cannot be refused, but for a terminal in use elsewhere.
                let _ = self.pids.set_controlling_tty(&group, tty, true);
            }
            crate::task::cpu_limit::arm(kernel, &group);
            run::spawn(current).map_err(BootError::Thread)
        });
        match started {
            Ok(()) => Ok(Started { group, terminal }),
            Err(e) => {
                crate::task::exit::abandon(&task);
                Err(e)
            }
        }
    }

    /// Standard input, output and error; the number of the terminal where they are one.
    fn install_stdio(
        &self,
        files: &FdTable,
        stdio: [OwnedFd; 3],
        terminal: bool,
        owner: (u32, u32),
    ) -> Result<Option<u64>, Errno> {
        let mut shared: Option<Arc<OpenFile>> = None;
        for fd in stdio {
            let file = match (&shared, self.devpts()) {
                (Some(file), _) => file.clone(),
                (None, Some(devpts)) if terminal => {
                    crate::fs::host::import_terminal(&self.kernel, fd, &devpts, owner, None)?
                }
                _ => crate::fs::host::import(&self.kernel, fd)?,
            };
            if terminal {
                // One open file behind all three, as a login gives.
                shared = Some(file.clone());
            }
            files.install(file, FdFlags::empty(), 0, 3)?;
        }
        let file = |fd| files.get(crate::syscalls::Fd(fd));
        let terminal_of = |fd| {
            let file = file(fd).ok()?;
            file.ops_as::<crate::fs::host::HostTty>().map(|tty| tty.terminal_id())
        };
        let console = (0..3).find_map(terminal_of);
        self.set_stdio([0, 1, 2].map(|fd| file(fd).ok()), console);
        Ok(console.filter(|_| terminal))
    }

    /// A process with one task and a number, in a session of its own.
    fn new_process(
        self: &Arc<Self>,
        state: TaskState,
        rlimits: Rlimits,
    ) -> Result<Arc<ThreadGroup>, BootError> {
        let kernel = &self.kernel;
        let actions = Arc::new(Actions::default());
        let group = ThreadGroup::new(kernel.next_id(), 0, self.pids.clone(), actions, rlimits);
        let uid = state.creds.ruid;
        let mut tables = self.pids.lock();
        if tables.dying {
            return Err(BootError::Ended);
        }
        tables.check_limits(self.pids.limit().unwrap_or(u64::MAX), uid, None).map_err(BootError::Limits)?;
        let pid = tables.allocate().map_err(BootError::Limits)?;
        group.set_pid(pid);
        let task = Task::new(kernel.next_id(), pid, kernel.clone(), self.clone(), group.clone(), state);
        {
            let mut own = group.state.lock();
            own.tasks.push(task.clone());
            own.unkillable = pid == 1;
        }
        group.exit_signal.store(libc::SIGCHLD, Ordering::SeqCst);
        tables.insert_process(&group, Parentage { parent: 0, parent_task: 0, pgid: pid, sid: pid });
        tables.tasks.insert(pid, task);
        tables.count_user(uid);
        Ok(group)
    }

    /// Sends a signal from outside. ESRCH where there is no such process.
    pub fn signal(&self, target: SignalTarget, signal: i32) -> Result<(), Errno> {
        if !crate::signal::is_valid(signal) {
            return Err(Errno::EINVAL);
        }
        // As a process of the parent namespace would: pid 0, root.
        let info = SigInfo::user(signal, quicksand_abi::signal::code::SI_USER, 0, 0);
        match target {
            SignalTarget::Init => send_to_group(&*self.pids.group(1).ok_or(Errno::ESRCH)?, info),
            SignalTarget::Pid(pid) => send_to_group(&*self.pids.group(pid).ok_or(Errno::ESRCH)?, info),
            SignalTarget::All => {
                for process in self.pids.processes() {
                    // One that is over RLIMIT_SIGPENDING does not spare the others.
                    let _ = send_to_group(&process.group, info);
                }
                Ok(())
            }
        }
    }

    /// All processes, zombies included.
    pub fn processes(&self) -> Vec<ProcessInfo> {
        self.pids.processes()
    }
}

fn credentials(caps: &CapSets, uid: u32, gid: u32, mut groups: Vec<u32>) -> Credentials {
    groups.sort_unstable();
    Credentials {
        ruid: uid,
        euid: uid,
        suid: uid,
        fsuid: uid,
        rgid: gid,
        egid: gid,
        sgid: gid,
        fsgid: gid,
        groups,
        permitted: caps.permitted,
        effective: caps.effective,
        inheritable: caps.inheritable,
        bounding: caps.bounding,
        ambient: caps.ambient,
        securebits: 0,
    }
}

/// Sets the working directory and loads the program.
fn prepare(
    task: &CurrentTask,
    fs: &FsInfo,
    cwd: &[u8],
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
) -> Result<(), BootError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let cwd_path = crate::vfs::walk::lookup(
        task,
        crate::syscalls::Fd::CWD,
        if cwd.is_empty() { b"/" } else { cwd },
        WalkFlags::FOLLOW | WalkFlags::DIRECTORY,
    )
    .map_err(|errno| BootError::Cwd { cwd: text(cwd), errno })?;
    fs.set_cwd(cwd_path);
    let program = argv.first().cloned().ok_or(BootError::NoArguments)?;
    let candidates = candidates(&program, &envp);
    let mut denied = None;
    for path in candidates {
        match exec::start_program(task, &path, argv.clone(), envp.clone()) {
            Ok(()) => return Ok(()),
            Err(Errno::ENOENT | Errno::ENOTDIR) if !program.contains(&b'/') => {}
            Err(Errno::EACCES) if !program.contains(&b'/') => denied = Some(Errno::EACCES),
            Err(errno) => return Err(BootError::Program { program: text(&path), errno }),
        }
    }
    match denied {
        Some(errno) => Err(BootError::Program { program: text(&program), errno }),
        None => Err(BootError::NotFound(text(&program))),
    }
}

/// Where a program may be: itself where it has a slash, else along PATH.
fn candidates(program: &[u8], envp: &[Vec<u8>]) -> Vec<Vec<u8>> {
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    let path = envp.iter().rev().find_map(|e| e.strip_prefix(b"PATH="));
    let path = path.unwrap_or(b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let join = |dir: &[u8]| {
        let dir = if dir.is_empty() { b"." } else { dir };
        [dir, b"/", program].concat()
    };
    path.split(|b| *b == b':').map(join).collect()
}
