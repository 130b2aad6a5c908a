//! The host's side of starting a sandbox: state directory, cgroup, namespaces, process, hooks.
//!
//! The sandbox process is a fork of this one: everything it needs has been read and opened by then, and a fresh `exec`
//! would double the time that a start takes. It keeps only the descriptors that it is given.
//!
//! Invariants: an error undoes everything that was made before it. The sandbox process is our child, and exits with its
//! container's exit code: whoever becomes its parent after us (an engine's shim) reaps it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quicksand_checkpoint::{ARCH_X86_64, FeatureWord, Host, Image};
use quicksand_host::process::{Child, Namespaces, spawn};
use quicksand_sentry::state::records::VERSION;
use rustix::process::{Resource, WaitId, WaitIdOptions};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cgroup::Cgroup;
use crate::cli::{Global, Network};
use crate::control::{self, Request, Response};
use crate::error::{Context, Error, Result};
use crate::fail;
use crate::hooks;
use crate::platform::Chosen;
use crate::restored::Report;
use crate::sandbox::gofer::{Gofer, Sockets};
use crate::sandbox::{self, Boot};
use crate::spec::{IdMapping, Spec};
use crate::state::{self, Container, State};
use crate::timeline::Timeline;
use crate::working_set::Recorder;

/// What to start.
#[derive(Debug)]
pub struct Plan<'a> {
    pub global: &'a Global,
    pub id: String,
    pub bundle: PathBuf,
    pub spec: Spec,
    pub stdio: [OwnedFd; 3],
    /// The image to go on from; the spec's annotation names one where this does not.
    pub image: Option<PathBuf>,
    /// Whether to record the image's working set; where this does not say, a command that stays does where there is none.
    pub record: Option<bool>,
    /// `stdio` is a terminal that the sandbox is to take as its controlling terminal.
    pub controls_terminal: bool,
    /// The container ends when this process does.
    pub foreground: bool,
    /// Start the container's process as soon as it can be.
    pub start: bool,
    /// When the command was started, by [`crate::timeline::now_ns`].
    pub begun_ns: u64,
    pub timeline: Timeline,
}

/// A sandbox that has been made. Its container stays locked until this is dropped.
#[derive(Debug)]
pub struct Launched {
    pub container: Container,
    pub child: Child,
    pub channel: UnixStream,
    /// What its restore took, where it was one and has been started.
    pub restored: Option<Box<Report>>,
    /// Who records the image's working set, where that is wanted.
    pub recorder: Option<Recorder>,
}

impl Plan<'_> {
    /// Makes the sandbox: returns when its container is created, or has started where `start` is set.
    pub fn launch(self) -> Result<Launched> {
        if self.global.systemd_cgroup && !self.global.ignore_cgroups {
            fail!("--systemd-cgroup is not supported: use the cgroupfs driver, or --ignore-cgroups");
        }
        let rootfs = rootfs(&self.bundle, &self.spec)?;
        let image = self.open_image()?;
        let (first_output, recorder) = self.recorder(image.as_ref())?;
        let (image, image_path) = image.unzip();
        self.spec.log_ignored();
        let platform = Chosen::by_name(self.global.platform)?;
        // Known before it is made, so that whoever finds what a killed command left can take it away.
        let cgroup = match self.global.ignore_cgroups {
            true => Cgroup::default(),
            false => Cgroup::plan(&self.id, &self.spec.linux.cgroups_path, &self.spec.linux.resources)?,
        };
        let state = State {
            id: self.id.clone(),
            bundle: self.bundle.clone(),
            rootfs: rootfs.clone(),
            pid: 0,
            start_time: 0,
            gofer_pid: 0,
            gofer_start_time: 0,
            created: crate::log::rfc3339(std::time::SystemTime::now()),
            started: false,
            complete: false,
            paused: false,
            transient: self.foreground,
            owner_uid: rustix::process::geteuid().as_raw(),
            image: image_path,
            cgroup,
            annotations: self.spec.annotations.clone(),
            hooks: self.spec.hooks.clone(),
        };
        let mut container = Container::create(&self.global.state_root(), state)?;
        match self.launch_in(&mut container, rootfs, image, first_output, platform) {
            Ok((child, channel, restored)) => Ok(Launched { container, child, channel, restored, recorder }),
            Err(e) => {
                if let Err(more) = container.remove() {
                    tracing::warn!("{more}");
                }
                Err(e)
            }
        }
    }

    fn launch_in(
        self,
        container: &mut Container,
        rootfs: PathBuf,
        image: Option<Arc<Image>>,
        first_output: Option<OwnedFd>,
        platform: Chosen,
    ) -> Result<(Child, UnixStream, Option<Box<Report>>)> {
        let mut resources = self.spec.linux.resources.clone();
        resources.pids.limit = resources.pids.limit.map(|limit| platform.host_tasks(limit));
        container.state.cgroup.make(&resources)?;
        let namespaces = namespaces(self.global, &self.spec);
        let maps = IdMaps::new(&self.spec)?;
        let listener = control::listen(&container.control_socket())?;
        let (channel, far) = UnixStream::pair().context("a socket pair")?;
        raise_descriptor_limit();
        let joined = JoinedNetwork::enter(self.global, &self.spec)?;

        let passwd = crate::passwd::read(&rootfs);
        let gofer = match self.global.directfs {
            true => None,
            false => Some(self.launch_gofer(container, &rootfs, &maps)?),
        };

        let hooks_first = !self.spec.hooks.create_runtime.is_empty() || !self.spec.hooks.prestart.is_empty();
        let start_now = self.start && !hooks_first;
        let mut cgroup = container.state.cgroup.entry()?;
        let boot = Boot {
            id: self.id,
            rootfs,
            gofer,
            passwd,
            platform,
            overlay: self.global.overlay,
            strace: self.global.strace,
            stdio: self.stdio,
            image,
            first_output,
            controls_terminal: self.controls_terminal,
            foreground: self.foreground,
            start_now,
            own_network: namespaces.contains(Namespaces::NETWORK),
            spec: self.spec,
            begun_ns: self.begun_ns,
            timeline: self.timeline,
            channel: far,
            listener,
        };
        let mut keep = boot.descriptors();
        keep.extend(crate::log::descriptors());
        keep.extend(cgroup.descriptors());
        let made_in = cgroup.made_in.take();
        let child =
            spawn(namespaces, made_in.as_ref().map(AsFd::as_fd), &keep, move || sandbox::main(boot, cgroup))
                .context("making the sandbox process")?;
        drop(joined);

        container.state.pid = child.pid;
        container.state.start_time = state::start_time(child.pid).unwrap_or(0);
        // It goes no further than we tell it: were this process killed before the pid is written down, it would end.
        let result = container.save().and_then(|()| maps.write(child.pid)).and_then(|()| {
            let mut restored = answer(&channel, &Request::Go, &child)?;
            let hooks = container.state.hooks.clone();
            hooks::run("prestart", &hooks.prestart, &container.state.to_oci())?;
            hooks::run("createRuntime", &hooks.create_runtime, &container.state.to_oci())?;
            if self.start && !start_now {
                restored = answer(&channel, &Request::Start, &child)?;
            }
            container.state.started = self.start;
            container.state.complete = true;
            container.save()?;
            if self.start {
                hooks::run_lenient("poststart", &hooks.poststart, &container.state.to_oci());
            }
            Ok(restored)
        });
        match result {
            Ok(restored) => Ok((child, channel, restored)),
            Err(e) => {
                kill(&child);
                wait(&child);
                Err(last_words(&channel).unwrap_or(e))
            }
        }
    }
}

impl Launched {
    /// Runs the program of a sandbox that was made without that.
    pub fn start(&mut self) -> Result<()> {
        start(&mut self.container)
    }
}

/// Runs the program of a container that was created.
pub fn start(container: &mut Container) -> Result<()> {
    // First what may fail without harm.
    container.state.started = true;
    container.save()?;
    let started = control::call(&container.control_socket(), &Request::Start).and_then(Response::done);
    if let Err(e) = started {
        container.state.started = false;
        container.save()?;
        return Err(e);
    }
    hooks::run_lenient("poststart", &container.state.hooks.poststart, &container.state.to_oci());
    Ok(())
}

/// What of this processor programs can use, as images name it.
pub fn features() -> Vec<FeatureWord> {
    let word = |(name, bits): (&str, u32)| FeatureWord { name: name.to_owned(), bits: bits.into() };
    quicksand_host::cpu::features().into_iter().map(word).collect()
}

/// The size of the host's pages, and so of the guest's.
pub fn page_size() -> u32 {
    u32::try_from(rustix::param::page_size()).unwrap_or(0)
}

/// The annotation that names the image to go on from.
const IMAGE_ANNOTATION: &str = "dev.quicksand.image";

impl Plan<'_> {
    /// The image to go on from, opened whole: the sandbox may open nothing by itself.
    fn open_image(&self) -> Result<Option<(Arc<Image>, PathBuf)>> {
        let annotated = || self.spec.annotations.get(IMAGE_ANNOTATION).map(PathBuf::from);
        let Some(path) = self.image.clone().or_else(annotated) else { return Ok(None) };
        let path = fs::canonicalize(&path).context(format!("the image {}", path.display()))?;
        let doing = format!("the image {}", path.display());
        let image = Image::open(&path).context(&doing)?;
        let host = Host {
            arch: ARCH_X86_64,
            page_size: page_size(),
            records_version: VERSION,
            // Images hold nothing of a platform's own.
            platform_version: None,
            features: &features(),
        };
        image.check(&host).context(doing)?;
        Ok(Some((Arc::new(image), path)))
    }

    /// Who records the image's working set, and the descriptor by which it hears when.
    fn recorder(&self, image: Option<&(Arc<Image>, PathBuf)>) -> Result<(Option<OwnedFd>, Option<Recorder>)> {
        let Some((image, path)) = image else { return Ok((None, None)) };
        if !self.record.unwrap_or(self.foreground && !image.has_working_set()) {
            return Ok((None, None));
        }
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("a pipe")?;
        Ok((Some(write), Some(Recorder { image: path.clone(), first_output: read })))
    }

    /// Makes the gofer process; returns the sandbox's ends of its sockets.
    fn launch_gofer(&self, container: &mut Container, rootfs: &Path, maps: &IdMaps) -> Result<Sockets> {
        let (near, far) = Sockets::pairs(&self.spec)?;
        let (channel, far_channel) = UnixStream::pair().context("a socket pair")?;
        let gofer = Gofer {
            spec: self.spec.clone(),
            rootfs: rootfs.to_owned(),
            overlay: self.global.overlay,
            sockets: far,
            channel: far_channel,
            foreground: self.foreground,
        };
        let mut cgroup = container.state.cgroup.entry()?;
        let mut keep = gofer.descriptors();
        keep.extend(crate::log::descriptors());
        keep.extend(cgroup.descriptors());
        let made_in = cgroup.made_in.take();
        let namespaces = Namespaces::USER
            | Namespaces::PID
            | Namespaces::MOUNT
            | Namespaces::NETWORK
            | Namespaces::IPC
            | Namespaces::UTS;
        let child = spawn(namespaces, made_in.as_ref().map(AsFd::as_fd), &keep, move || gofer.main(cgroup))
            .context("making the gofer process")?;
        container.state.gofer_pid = child.pid;
        container.state.gofer_start_time = state::start_time(child.pid).unwrap_or(0);
        let result = maps.write(child.pid).and_then(|()| answer(&channel, &Request::Go, &child));
        match result {
            Ok(_) => Ok(near),
            Err(e) => {
                kill(&child);
                wait(&child);
                Err(last_words(&channel).unwrap_or(e))
            }
        }
    }
}

/// Why a process of ours that has ended could not go on, where it said so: whatever failed here failed for that.
fn last_words(channel: &UnixStream) -> Option<Error> {
    match control::receive::<Response>(channel) {
        Ok(Some((Response::Failed(message), _))) => Some(Error::new(message)),
        _ => None,
    }
}

/// Sends a request on the launch channel and waits for its answer: what a restore took, where there was one.
fn answer(channel: &UnixStream, request: &Request, child: &Child) -> Result<Option<Box<Report>>> {
    // A failure shows below. What it said before it ended, perhaps before it was asked, is there to be read.
    let _ = control::send(channel, request, &[]);
    match control::receive::<Response>(channel) {
        Ok(Some((Response::Restored(report), _))) => Ok(Some(report)),
        Ok(Some((response, _))) => response.done().map(|()| None),
        // The other end is closed, wholly or in the midst of an answer: it has ended, or is about to.
        Ok(None) | Err(_) => {
            fail!("the sandbox process ended while it was starting ({})", describe(wait(child)))
        }
    }
}

/// The directory that `root.path` names.
fn rootfs(bundle: &Path, spec: &Spec) -> Result<PathBuf> {
    let path = spec.root.as_ref().map(|r| r.path.as_str()).unwrap_or_default();
    let path = bundle.join(path);
    let path = fs::canonicalize(&path).context(format!("root.path: {}", path.display()))?;
    if !path.is_dir() {
        fail!("root.path: {} is not a directory", path.display());
    }
    Ok(path)
}

/// The namespaces of the sandbox process. It is never in the caller's pid, mount, ipc or uts namespace, whatever the spec
/// says: the container's own are the Sentry's.
fn namespaces(global: &Global, spec: &Spec) -> Namespaces {
    let mut all = Namespaces::USER | Namespaces::PID | Namespaces::MOUNT | Namespaces::IPC | Namespaces::UTS;
    let own_network = match global.network {
        Network::None => true,
        Network::Host => false,
        Network::Sandbox => spec.namespace("network").is_some_and(|n| n.path.is_empty()),
    };
    all.set(Namespaces::NETWORK, own_network);
    all
}

/// While this lives, children are made in the network namespace that the spec names.
#[derive(Debug)]
struct JoinedNetwork(Option<OwnedFd>);

impl JoinedNetwork {
    fn enter(global: &Global, spec: &Spec) -> Result<JoinedNetwork> {
        let path = spec.namespace("network").map(|n| n.path.as_str()).unwrap_or_default();
        if path.is_empty() || global.network != Network::Sandbox {
            return Ok(JoinedNetwork(None));
        }
        let doing = format!("joining the network namespace {path}");
        let open = |path: &str| {
            use rustix::fs::{Mode, OFlags};
            // What is no namespace at all must not hold us here.
            rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        };
        let own = open("/proc/self/ns/net").context(&doing)?;
        let target = open(path).context(&doing)?;
        move_into_link_name_space(target.as_fd(), Some(LinkNameSpaceType::Network)).context(&doing)?;
        Ok(JoinedNetwork(Some(own)))
    }
}

impl Drop for JoinedNetwork {
    fn drop(&mut self) {
        if let Some(own) = &self.0
            && let Err(e) = move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network))
        {
            tracing::warn!("going back to the own network namespace: {e}");
        }
    }
}

/// How ids in the sandbox's user namespace are mapped.
#[derive(Debug)]
struct IdMaps {
    uid: String,
    gid: String,
    /// An ordinary user may map one group only after giving up `setgroups(2)`.
    deny_setgroups: bool,
}

impl IdMaps {
    /// The spec's mappings where it has some; else each id that we have ourselves, as it is; an ordinary user becomes root.
    fn new(spec: &Spec) -> Result<IdMaps> {
        let euid = rustix::process::geteuid();
        let listed = |maps: &[IdMapping]| {
            let line = |m: &IdMapping| format!("{} {} {}\n", m.container_id, m.host_id, m.size);
            maps.iter().map(line).collect::<String>()
        };
        let linux = &spec.linux;
        if spec.namespace("user").is_some() && !linux.uid_mappings.is_empty() {
            let (uid, gid) = (listed(&linux.uid_mappings), listed(&linux.gid_mappings));
            return Ok(IdMaps { uid, gid, deny_setgroups: !euid.is_root() });
        }
        if !euid.is_root() {
            let gid = rustix::process::getegid().as_raw();
            let (uid, gid) = (format!("0 {} 1\n", euid.as_raw()), format!("0 {gid} 1\n"));
            return Ok(IdMaps { uid, gid, deny_setgroups: true });
        }
        // Ids as this process has them: the whole range, or what an engine's own namespace gives.
        let identity = |file: &str| -> Result<String> {
            let text = fs::read_to_string(file).context(file)?;
            let line = |line: &str| {
                let mut fields = line.split_ascii_whitespace();
                let (inside, _, count) = (fields.next()?, fields.next()?, fields.next()?);
                Some(format!("{inside} {inside} {count}\n"))
            };
            Ok(text.lines().filter_map(line).collect())
        };
        let (uid, gid) = (identity("/proc/self/uid_map")?, identity("/proc/self/gid_map")?);
        Ok(IdMaps { uid, gid, deny_setgroups: false })
    }

    fn write(&self, pid: i32) -> Result<()> {
        let write = |file: &str, text: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::write(&path, text).context(format!("mapping ids: {path}"))
        };
        if self.deny_setgroups {
            write("setgroups", "deny")?;
        }
        write("uid_map", &self.uid)?;
        write("gid_map", &self.gid)
    }
}

/// The Sentry holds a descriptor for every file that a guest has open: as many as the host allows.
fn raise_descriptor_limit() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = rustix::process::setrlimit(Resource::Nofile, limit) {
        tracing::debug!("RLIMIT_NOFILE stays as it is: {e}");
    }
}

/// Kills a sandbox and everything in it: it is the first process of its pid namespace.
pub fn kill(child: &Child) {
    // ESRCH: it has ended.
    let _ = rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
}

/// How a sandbox process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With its container's exit code.
    Code(u8),
    /// Killed: by this signal.
    Killed(i32),
}

/// Waits for the sandbox process, our child.
pub fn wait(child: &Child) -> End {
    loop {
        match rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => End::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
                    (_, signal) => End::Killed(signal.unwrap_or(0)),
                };
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return End::Killed(0),
        }
    }
}

/// For a message.
pub fn describe(end: End) -> String {
    match end {
        End::Code(code) => format!("exit code {code}"),
        End::Killed(libc::SIGSYS) => {
            "killed: it made a host system call that its filter does not allow".into()
        }
        End::Killed(libc::SIGKILL) => "killed; by the host's memory limit, perhaps".into(),
        End::Killed(signal) => format!("killed by signal {signal}"),
    }
}
