//! From the OCI spec to the kernel's own terms: one sandbox with one container. [`super::function`]: what is for functions.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use quicksand_checkpoint::Image;
use quicksand_platform::Platform;
use quicksand_sentry::boot::{
    BootError, CapSets, ContainerConfig, MountConfig, MountKind, ProcessConfig, RootConfig, SignalTarget,
    Started,
};
use quicksand_sentry::fs::tty::job;
use quicksand_sentry::kernel::{Container, FirstEntry, Kernel, KernelConfig};
use quicksand_sentry::machine::Machine;
use quicksand_sentry::state::{RestoreConfig, RestoreError, SaveOptions, Saved};
use quicksand_sentry::task::credentials::Caps;
use quicksand_sentry::task::{ExitStatus, Resource, Rlimit, Rlimits};
use quicksand_sentry::vfs::MountFlags;

use super::Boot;
use super::Sources;
use super::files::is_bind;
use crate::cli::Overlay;
use crate::control::{ProcessInfo, Target};
use crate::error::{Context, Error, Result};
use crate::fail;
use crate::restored::{Objects, Report, Stage};
use crate::spec::{self, MountOptions, Spec, parse_caps, parse_options};
use crate::timeline::now_ns;

/// A booted kernel with its container.
#[derive(Debug)]
pub struct Sandbox {
    pub(super) container: Arc<Container>,
    /// The container's `/etc/passwd`.
    passwd: String,
    phase: Mutex<Phase>,
    /// Notified when the phase changes.
    changed: Condvar,
    /// Closed when the container has ended; with the container's own process once that runs.
    end: Mutex<Option<OwnedFd>>,
    /// All tasks are stopped.
    paused: Mutex<bool>,
    /// Until it is started.
    marks: Mutex<Option<Marks>>,
    restore: OnceLock<Restore>,
    /// When the guest ran its first instruction, where anybody wants to know.
    first_instruction_ns: Arc<OnceLock<u64>>,
    /// When a restored guest put something out for the first time, and whom to tell.
    first_output_ns: Arc<OnceLock<u64>>,
    tell_output: Mutex<Option<OwnedFd>>,
}

/// When the stages before a restore were done.
#[derive(Debug)]
pub struct Marks {
    begun_ns: u64,
    last_ns: u64,
    stages: Vec<Stage>,
}

impl Marks {
    pub fn new(begun_ns: u64) -> Marks {
        Marks { begun_ns, last_ns: begun_ns, stages: Vec::new() }
    }
    /// Stage `name` is done.
    pub fn reached(&mut self, name: &str) {
        let now = now_ns();
        self.stages.push(Stage { name: name.to_owned(), us: now.saturating_sub(self.last_ns) / 1000 });
        self.last_ns = now;
    }
}

/// A restore that has been done.
#[derive(Debug)]
struct Restore {
    image: Arc<Image>,
    begun_ns: u64,
    stages: Vec<Stage>,
    started_ns: u64,
    first_response_ns: Mutex<Option<u64>>,
}

impl Restore {
    fn report(&self, first_instruction_ns: Option<u64>, first_output_ns: Option<u64>) -> Report {
        let since = |ns: u64| ns.saturating_sub(self.begun_ns) / 1000;
        let layers = (0..self.image.layers()).filter_map(|number| self.image.layer(number));
        let kinds = self.image.stats().kinds.into_iter();
        // An image whose extents are damaged was not restored.
        let pages = self.image.extents().map_or(0, |extents| extents.all().iter().map(|e| e.pages).sum());
        let first_response = *self.first_response_ns.lock().unwrap_or_else(PoisonError::into_inner);
        Report {
            image: self.image.id().to_string(),
            stages: self.stages.clone(),
            started_us: since(self.started_ns),
            first_instruction_us: first_instruction_ns.map(since),
            first_output_us: first_output_ns.map(since),
            first_response_us: first_response.map(since),
            objects: kinds
                .map(|k| Objects { kind: k.kind, materialised: k.materialised, total: k.total })
                .collect(),
            layers: layers.map(|layer| layer.digest().hex()).collect(),
            image_pages: pages,
            pages: None,
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// Created: with what `start` will run.
    Waiting(Program),
    Starting,
    Running(Process),
    /// Ended before it was started, with this code.
    Cancelled(u8),
}

/// What a container begins with.
#[derive(Debug)]
pub(super) enum Program {
    Run(Box<ProcessConfig>),
    Restore(RestoreConfig),
}

/// The container goes on when this is dropped, unless it was paused before.
#[derive(Debug)]
pub struct Held<'a> {
    resumes: Option<&'a Sandbox>,
    /// Nobody pauses or resumes it meanwhile.
    _paused: MutexGuard<'a, bool>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(sandbox) = self.resumes {
            sandbox.container.kernel.resume();
        }
    }
}

/// A process that the host started.
#[derive(Clone, Debug)]
pub struct Process(Started);

impl Process {
    /// Its number in the container.
    pub fn pid(&self) -> i32 {
        self.0.group.pid()
    }
    /// Waits until it has ended; returns its exit code, or 128 + signal.
    pub fn wait(&self) -> u8 {
        match self.0.group.wait_host() {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal { signal, .. } => signal_code(signal),
        }
    }
    pub fn has_ended(&self) -> bool {
        self.0.group.is_dead()
    }
}

fn signal_code(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

impl Sandbox {
    /// Makes the kernel and the container; nothing runs yet.
    pub fn boot(
        boot: &mut Boot,
        platform: Arc<dyn Platform>,
        sources: Sources,
        machine: Machine,
        mut marks: Marks,
    ) -> Result<Sandbox> {
        let mut timeline = boot.timeline.another();
        let first_instruction_ns = Arc::new(OnceLock::new());
        let first_entry = (timeline.is_watched() || boot.image.is_some()).then(|| {
            let first = first_instruction_ns.clone();
            FirstEntry(Box::new(move || {
                let now = now_ns();
                // There is one first time.
                let _ = first.set(now);
                timeline.event("first_guest_instruction", now);
            }))
        });
        let kernel = Kernel::new(KernelConfig { platform, machine, strace: boot.strace, first_entry });
        let process =
            boot.spec.process.take().ok_or_else(|| Error::new("config.json: process is missing"))?;
        let passwd = std::mem::take(&mut boot.passwd);
        let config = container_config(&boot.id, &boot.spec, boot.overlay, sources)?;
        let container = kernel.create_container(config).map_err(boot_error)?;
        let copy = |fd: &OwnedFd| fd.try_clone().context("a descriptor");
        let [i, o, e] = &boot.stdio;
        let stdio = [copy(i)?, copy(o)?, copy(e)?];
        let program = match boot.image.take() {
            Some(image) => {
                let terminal = boot.controls_terminal;
                Program::Restore(RestoreConfig { image, stdio, terminal })
            }
            None => {
                let process = process_config(&process, &passwd, stdio, boot.controls_terminal);
                // Engines want to hear of a program that is not there from `create`.
                container.check_program(&process).map_err(boot_error)?;
                Program::Run(Box::new(process))
            }
        };
        marks.reached("container");
        Ok(Sandbox {
            container,
            passwd,
            phase: Mutex::new(Phase::Waiting(program)),
            changed: Condvar::new(),
            end: Mutex::new(None),
            paused: Mutex::new(false),
            marks: Mutex::new(Some(marks)),
            restore: OnceLock::new(),
            first_instruction_ns,
            first_output_ns: Arc::default(),
            tell_output: Mutex::new(boot.first_output.take()),
        })
    }

    /// Runs `f` on what will be started. `None` where it has been.
    pub(super) fn with_program<T>(&self, f: impl FnOnce(&mut Program) -> T) -> Option<T> {
        match &mut *self.phase() {
            Phase::Waiting(program) => Some(f(program)),
            _ => None,
        }
    }
    pub(super) fn is_running(&self) -> bool {
        matches!(*self.phase(), Phase::Running(_))
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn set_phase(&self, phase: Phase) {
        let mut now = self.phase();
        *now = phase;
        self.pass_on_end(&now);
        drop(now);
        self.changed.notify_all();
    }

    /// Closes `end` when the container's own process has ended, or will never run.
    pub fn close_at_end(&self, end: OwnedFd) {
        let phase = self.phase();
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        self.pass_on_end(&phase);
    }
    fn pass_on_end(&self, phase: &Phase) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        match phase {
            Phase::Waiting(_) | Phase::Starting => {}
            Phase::Running(init) => end.take().into_iter().for_each(|end| init.0.group.close_at_end(end)),
            Phase::Cancelled(_) => *end = None,
        }
    }

    /// Runs the container's own process. What that took, where it was a restore.
    pub fn start(&self) -> Result<Option<Report>> {
        let mut phase = self.phase();
        let program = match std::mem::replace(&mut *phase, Phase::Starting) {
            Phase::Waiting(program) => program,
            other => {
                *phase = other;
                fail!("the container has been started already");
            }
        };
        drop(phase);
        let started = match program {
            Program::Run(config) => self.container.start(*config).map_err(boot_error),
            Program::Restore(config) => {
                self.restore(config).map_err(|e| Error::new(format!("restoring: {e}")))
            }
        };
        match started {
            Ok(started) => {
                self.set_phase(Phase::Running(Process(started)));
                let report = self.restore.get().map(|restore| self.report(restore));
                if let Some(report) = &report {
                    tracing::debug!("restored: {}", serde_json::to_string(report).unwrap_or_default());
                }
                Ok(report)
            }
            Err(e) => {
                self.set_phase(Phase::Cancelled(crate::FAILED));
                Err(e)
            }
        }
    }

    fn restore(&self, config: RestoreConfig) -> std::result::Result<Started, RestoreError> {
        let image = config.image.clone();
        let first = self.first_output_ns.clone();
        let tell = self.tell_output.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.container.kernel.on_first_output(FirstEntry(Box::new(move || {
            let _ = first.set(now_ns());
            // Whoever wanted to know may have gone.
            let _ = tell.map(|tell| rustix::io::write(tell, &[1]));
        })));
        let waited = self.marks.lock().unwrap_or_else(PoisonError::into_inner).take();
        let restored = self.container.restore(config)?;
        let Some(Marks { begun_ns, mut stages, .. }) = waited else { return Ok(restored.started) };
        stages.extend(restored.stages.into_iter().map(|(name, spent)| Stage {
            name: name.to_owned(),
            us: u64::try_from(spent.as_micros()).unwrap_or(u64::MAX),
        }));
        let first_response_ns = Mutex::new(None);
        // A container is started once.
        let _ =
            self.restore.set(Restore { image, begun_ns, stages, started_ns: now_ns(), first_response_ns });
        Ok(restored.started)
    }

    fn report(&self, restore: &Restore) -> Report {
        restore.report(self.first_instruction_ns.get().copied(), self.first_output_ns.get().copied())
    }

    /// What its restore took so far. `first_response`: it has just given its first response.
    pub fn restored(&self, first_response: bool) -> Result<Report> {
        let Some(restore) = self.restore.get() else { fail!("the container was not restored from an image") };
        if first_response {
            let mut known = restore.first_response_ns.lock().unwrap_or_else(PoisonError::into_inner);
            known.get_or_insert_with(now_ns);
        }
        let report = self.report(restore);
        if first_response {
            tracing::debug!("first response: {}", serde_json::to_string(&report).unwrap_or_default());
        }
        Ok(report)
    }

    /// Stops every process where it is.
    pub fn pause(&self) -> Result<()> {
        if !matches!(*self.phase(), Phase::Running(_)) {
            fail!("the container is not running");
        }
        let mut paused = self.paused();
        if *paused {
            fail!("the container is paused already");
        }
        self.container.kernel.pause();
        *paused = true;
        Ok(())
    }
    /// Lets them go on.
    pub fn resume(&self) -> Result<()> {
        let mut paused = self.paused();
        if !std::mem::take(&mut *paused) {
            fail!("the container is not paused");
        }
        self.container.kernel.resume();
        Ok(())
    }
    /// Writes the container's state to `out`, in the form of [`crate::image_stream`]. The container stands still until what
    /// comes back is dropped.
    pub fn checkpoint(&self, out: OwnedFd, options: SaveOptions) -> Result<(Held<'_>, Saved)> {
        if !matches!(*self.phase(), Phase::Running(_)) {
            fail!("the container is not running");
        }
        let paused = self.paused();
        let held = match *paused {
            true => Held { resumes: None, _paused: paused },
            false => {
                self.container.kernel.pause();
                Held { resumes: Some(self), _paused: paused }
            }
        };
        let mut writer = crate::image_stream::Writer::new(out);
        let saved = self.container.save(&mut writer, options).map_err(|e| Error::new(e.to_string()))?;
        writer.finish().context("writing the image")?;
        Ok((held, saved))
    }
    fn paused(&self) -> MutexGuard<'_, bool> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a further process, on the three descriptors given.
    pub fn exec(
        self: &Arc<Sandbox>,
        process: &spec::Process,
        fds: Vec<OwnedFd>,
        terminal: bool,
    ) -> Result<Process> {
        if !matches!(*self.phase(), Phase::Running(_)) {
            fail!("the container is not running");
        }
        if *self.paused() {
            fail!("the container is paused");
        }
        let stdio = <[OwnedFd; 3]>::try_from(fds)
            .map_err(|fds| Error::new(format!("{} descriptors for standard streams", fds.len())))?;
        process.check("process")?;
        let started = self.container.start(process_config(process, &self.passwd, stdio, terminal));
        started.map(Process).map_err(boot_error)
    }

    /// Sends a signal; `own` is the process of the connection that asks.
    pub fn signal(&self, signal: i32, target: Target, own: Option<&Process>) -> Result<()> {
        let phase = self.phase();
        let init = match &*phase {
            Phase::Running(init) => init.clone(),
            Phase::Starting => fail!("the container is starting"),
            Phase::Cancelled(_) => return Ok(()),
            Phase::Waiting(_) => {
                // As with runc, whose process is there already, and has no handlers: what would kill that ends it.
                self.cancel(phase, signal);
                return Ok(());
            }
        };
        drop(phase);
        let process = own.unwrap_or(&init);
        let target = match target {
            Target::Own => SignalTarget::Pid(process.pid()),
            Target::All => SignalTarget::All,
            Target::Pid(pid) => SignalTarget::Pid(pid),
            Target::Foreground => {
                let pids = &self.container.pids;
                // Whichever session has that terminal by now.
                match process.0.terminal {
                    // The host's terminal is gone.
                    Some(tty) if signal == libc::SIGHUP => job::hang_up(tty, pids),
                    Some(tty) => pids.signal_foreground(tty, signal),
                    None => {}
                }
                return Ok(());
            }
        };
        self.container.signal(target, signal).context(format!("sending signal {signal}"))
    }

    fn cancel(&self, mut phase: MutexGuard<'_, Phase>, signal: i32) {
        let harmless = [0, libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
        let stops = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
        if !harmless.contains(&signal) && !stops.contains(&signal) {
            *phase = Phase::Cancelled(signal_code(signal));
            self.pass_on_end(&phase);
            drop(phase);
            self.changed.notify_all();
        }
    }

    pub fn processes(&self) -> Vec<ProcessInfo> {
        let info = |p: quicksand_sentry::task::pid::ProcessInfo| ProcessInfo {
            pid: p.pid,
            ppid: p.ppid,
            uid: p.group.credentials().map_or(0, |c| c.ruid),
            threads: u32::try_from(p.group.tasks().len()).unwrap_or(u32::MAX),
            command: String::from_utf8_lossy(&p.group.name()).into_owned(),
        };
        self.container.processes().into_iter().filter(|p| !p.group.is_dead()).map(info).collect()
    }

    /// Waits until the container's own process has ended.
    pub fn wait_init(&self) {
        let waiting = |phase: &mut Phase| matches!(phase, Phase::Waiting(_) | Phase::Starting);
        let phase = self.changed.wait_while(self.phase(), waiting).unwrap_or_else(PoisonError::into_inner);
        if let Phase::Running(init) = &*phase {
            let init = init.clone();
            drop(phase);
            init.wait();
        }
    }

    /// The exit code of the container's own process, which has ended.
    pub fn exit_code(&self) -> u8 {
        let init = match &*self.phase() {
            Phase::Running(init) => init.clone(),
            Phase::Cancelled(code) => return *code,
            Phase::Waiting(_) | Phase::Starting => return crate::FAILED,
        };
        init.wait()
    }
}

/// An error of the kernel's as a person would put it. Engines tell a missing program by the C library's words.
fn boot_error(e: BootError) -> Error {
    let words = |errno: quicksand_abi::Errno| {
        let text = std::io::Error::from_raw_os_error(errno.raw()).to_string();
        text.split(" (os error").next().unwrap_or_default().to_lowercase()
    };
    Error::new(match e {
        BootError::Program { program, errno } => format!("exec: {program:?}: {}", words(errno)),
        BootError::Cwd { cwd, errno } => format!("process.cwd: {cwd:?}: {}", words(errno)),
        BootError::Root(errno) => format!("root.path: {}", words(errno)),
        BootError::Mount { kind, destination, errno } => {
            format!("mounting {kind} at {destination}: {}", words(errno))
        }
        other => other.to_string(),
    })
}

fn container_config(id: &str, spec: &Spec, overlay: Overlay, sources: Sources) -> Result<ContainerConfig> {
    let mut binds = sources.binds.into_iter().peekable();
    let mut mounts = Vec::new();
    for (i, mount) in spec.mounts.iter().enumerate() {
        let options = parse_options(&mount.options);
        let bind = binds.next_if(|(at, _)| *at == i).map(|(_, bind)| bind);
        let kind = match bind {
            Some(bind) => MountKind::Bind(bind),
            None if is_bind(mount, &options) => fail!("mounts[{i}]: its source was not opened"),
            None => mount_kind(mount).ok_or_else(|| {
                Error::new(format!("config.json: mounts[{i}].type: {:?} is not supported", mount.kind))
            })?,
        };
        mounts.push(MountConfig {
            destination: mount.destination.clone().into_bytes(),
            kind,
            flags: mount_flags(&options),
            source: mount.source.clone().into_bytes(),
            data: options.data.into_bytes(),
        });
    }
    let root = RootConfig {
        source: sources.root,
        readonly: spec.root.as_ref().is_some_and(|r| r.readonly),
        overlay: overlay == Overlay::Memory,
    };
    let paths = |list: &[String]| list.iter().map(|p| p.clone().into_bytes()).collect();
    let limit = spec.linux.resources.pids.limit.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    Ok(ContainerConfig {
        id: id.to_owned(),
        hostname: spec.hostname.clone().into_bytes(),
        domainname: spec.domainname.clone().into_bytes(),
        root,
        mounts,
        masked_paths: paths(&spec.linux.masked_paths),
        readonly_paths: paths(&spec.linux.readonly_paths),
        pids_limit: limit,
    })
}

/// Which of the Sentry's file systems a mount asks for. A tmpfs at `/dev` is where runtimes put the devices.
fn mount_kind(mount: &spec::Mount) -> Option<MountKind> {
    let place = mount.destination.trim_end_matches('/');
    Some(match mount.kind.as_str() {
        "tmpfs" | "devtmpfs" if place == "/dev" => MountKind::Dev,
        "tmpfs" if place == "/dev/shm" => MountKind::Shm,
        "tmpfs" | "ramfs" => MountKind::Tmpfs,
        "proc" => MountKind::Proc,
        "sysfs" => MountKind::Sysfs,
        "devpts" => MountKind::Devpts,
        "mqueue" => MountKind::Mqueue,
        "cgroup" | "cgroup2" => MountKind::Cgroup,
        _ => return None,
    })
}

fn mount_flags(options: &MountOptions) -> MountFlags {
    let mut flags = MountFlags::RELATIME;
    flags.set(MountFlags::RDONLY, options.readonly);
    flags.set(MountFlags::NOSUID, options.nosuid);
    flags.set(MountFlags::NODEV, options.nodev);
    flags.set(MountFlags::NOEXEC, options.noexec);
    if options.noatime {
        flags.remove(MountFlags::RELATIME);
        flags.insert(MountFlags::NOATIME);
    }
    flags
}

fn process_config(
    process: &spec::Process,
    passwd: &str,
    stdio: [OwnedFd; 3],
    terminal: bool,
) -> ProcessConfig {
    let mut envp: Vec<Vec<u8>> = process.env.iter().map(|s| s.clone().into_bytes()).collect();
    if !process.own_environment && !envp.iter().any(|var| var.starts_with(b"HOME=")) {
        // As runc does.
        envp.push(format!("HOME={}", crate::passwd::home(passwd, process.user.uid)).into_bytes());
    }
    let bytes = |list: &[String]| list.iter().map(|s| s.clone().into_bytes()).collect::<Vec<_>>();
    let caps = process.capabilities.clone().unwrap_or_default();
    let set = |names: &[String]| Caps::from_bits_truncate(parse_caps(names));
    ProcessConfig {
        argv: bytes(&process.args),
        envp,
        cwd: process.cwd.clone().into_bytes(),
        uid: process.user.uid,
        gid: process.user.gid,
        groups: process.user.additional_gids.clone(),
        umask: process.user.umask.unwrap_or(0o022),
        caps: CapSets {
            permitted: set(&caps.permitted),
            effective: set(&caps.effective),
            inheritable: set(&caps.inheritable),
            bounding: set(&caps.bounding),
            ambient: set(&caps.ambient),
        },
        rlimits: rlimits(&process.rlimits),
        no_new_privs: process.no_new_privileges,
        stdio,
        terminal,
    }
}

fn rlimits(listed: &[spec::Rlimit]) -> Rlimits {
    let mut all = Rlimits::default();
    for limit in listed {
        let resource = crate::rlimits::number(&limit.kind).and_then(Resource::from_raw);
        if let Some(resource) = resource {
            all.set(resource, Rlimit { soft: limit.soft, hard: limit.hard });
        }
    }
    all
}
