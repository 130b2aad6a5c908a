//! What runs in the sandbox process: it confines itself, boots the kernel, and serves its control socket until the
//! container's init process has ended.
//!
//! - [`gofer`]: the file server process, where there is one. [`files`]: the container's root and bind mounts, as descriptors of detached mounts. [`confine`]: namespaces, chroot,
//!   capabilities, the system call filter. [`guest`]: from the OCI spec to the kernel's own terms. [`function`]: entry points and events. [`serve`]: requests.
//!
//! Invariants: nothing of a guest runs before [`confine`] is done; the platform is made when all rights are given up, before
//! the filter is there, by the process's only thread. The process ends with its container's exit code, and all
//! its threads with it.

mod bpf;
mod confine;
mod files;
pub mod filter;
mod function;
pub mod gofer;
mod guest;
mod net;
mod serve;

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use quicksand_sentry::boot::RootSource;
use quicksand_sentry::machine::Machine;

use self::confine::Files;
use crate::cgroup::Entry;
use crate::cli::Overlay;
use crate::control::{self, Request, Response};
use crate::error::{Context, Result};
use crate::fail;
use crate::platform::Chosen;
use crate::spec::Spec;
use crate::timeline::{Timeline, now_ns};

/// What a sandbox process is given.
#[derive(Debug)]
pub struct Boot {
    pub id: String,
    pub spec: Spec,
    pub rootfs: PathBuf,
    /// Sockets of the gofer that serves the files; without one the sandbox opens them itself.
    pub gofer: Option<gofer::Sockets>,
    /// The container's `/etc/passwd`.
    pub passwd: String,
    pub platform: Chosen,
    pub overlay: Overlay,
    pub strace: bool,
    pub stdio: [OwnedFd; 3],
    /// What the container goes on from, instead of its program's start.
    pub image: Option<std::sync::Arc<quicksand_checkpoint::Image>>,
    /// Gets a byte when the restored container has put something out for the first time.
    pub first_output: Option<OwnedFd>,
    pub controls_terminal: bool,
    /// Ends when the process that made it does.
    pub foreground: bool,
    pub start_now: bool,
    /// It has a network namespace of its own.
    pub own_network: bool,
    /// When the command that made it was started.
    pub begun_ns: u64,
    pub timeline: Timeline,
    /// To the command that made it.
    pub channel: UnixStream,
    pub listener: UnixListener,
}

impl Boot {
    /// The descriptors that it needs.
    pub fn descriptors(&self) -> Vec<i32> {
        let mut all = vec![self.channel.as_raw_fd(), self.listener.as_raw_fd()];
        all.extend(self.platform.descriptors());
        all.extend(self.stdio.iter().map(AsRawFd::as_raw_fd));
        all.extend(self.gofer.iter().flat_map(gofer::Sockets::descriptors));
        all.extend(self.image.iter().flat_map(|image| image.descriptors()).map(|fd| fd.as_raw_fd()));
        all.extend(self.first_output.iter().map(AsRawFd::as_raw_fd));
        all.extend(self.timeline.fd().map(|fd| fd.as_raw_fd()));
        all
    }
}

/// Where the container's host files come from.
#[derive(Debug)]
pub struct Sources {
    pub root: RootSource,
    /// The bind mounts by their place in the spec.
    pub binds: Vec<(usize, RootSource)>,
}

impl Sources {
    fn direct(files: files::Files) -> Sources {
        let binds = files.binds.into_iter().map(|(i, fd)| (i, RootSource::Directfs(fd)));
        Sources { root: RootSource::Directfs(files.root), binds: binds.collect() }
    }
    fn served(sockets: gofer::Sockets) -> Sources {
        let binds = sockets.binds.into_iter().map(|(i, fd)| (i, RootSource::Gofer(fd)));
        Sources { root: RootSource::Gofer(sockets.root), binds: binds.collect() }
    }
}

/// The sandbox process's `main`.
pub fn main(boot: Boot, cgroup: Entry) -> u8 {
    let channel = match boot.channel.try_clone() {
        Ok(channel) => channel,
        Err(_) => return crate::FAILED,
    };
    match boot.run(cgroup) {
        Ok(code) => code,
        Err(e) => {
            // Whoever made us reports it; without them there is nobody to tell.
            let _ = control::send(&channel, &Response::Failed(e.to_string()), &[]);
            crate::FAILED
        }
    }
}

impl Boot {
    fn run(mut self, cgroup: Entry) -> Result<u8> {
        let mut marks = guest::Marks::new(self.begun_ns);
        marks.reached("command");
        cgroup.enter()?;
        marks.reached("cgroups");
        confine::detach(self.foreground, c"qs-sentry")?;
        match control::receive::<Request>(&self.channel)? {
            Some((Request::Go, _)) => {}
            Some((other, _)) => fail!("{other:?} before Go"),
            None => return Ok(crate::FAILED), // its maker has gone
        }
        marks.reached("process");
        self.timeline.event("sandbox_process", now_ns());
        confine::become_root()?;
        if let Some(score) = self.spec.process.as_ref().and_then(|p| p.oom_score_adj) {
            confine::oom_score(score)?;
        }
        if self.own_network {
            net::set_up().context("the sandbox's network")?;
        }
        if self.controls_terminal {
            rustix::process::ioctl_tiocsctty(&self.stdio[0]).context("taking the terminal")?;
        }
        let signals = serve::take_signals()?;
        // The host's descriptions of processor and memory cannot be opened from the empty root.
        let machine = Machine::new(memory_limit(&self.spec));
        let (sources, rights) = match self.gofer.take() {
            None => {
                let files = files::open(&self.spec, &self.rootfs, self.overlay)?;
                let rights = if files.writable { Files::Writable } else { Files::ReadOnly };
                (Sources::direct(files), rights)
            }
            Some(sockets) => (Sources::served(sockets), Files::None),
        };
        confine::give_up_rights(rights)?;
        let filter =
            filter::Process::Sentry { opens_files: rights != Files::None, platform: (&self.platform).into() };
        let platform = self.platform.make()?;
        filter::install(filter)?;
        marks.reached("confinement");
        self.timeline.event("confined", now_ns());
        let sandbox = guest::Sandbox::boot(&mut self, platform, sources, machine, marks)?;
        self.timeline.event("sandbox_ready", now_ns());
        let sandbox = std::sync::Arc::new(sandbox);
        let mut answer = Response::Done;
        if self.start_now {
            answer = sandbox.start()?.map_or(Response::Done, |report| Response::Restored(Box::new(report)));
            self.timeline.event("started", now_ns());
        }
        control::send(&self.channel, &answer, &[])?;
        let code = serve::serve(&sandbox, self.channel, self.listener, self.foreground, signals)?;
        // Taking everything apart piece by piece would only delay what the end of the process does at once.
        quicksand_host::process::exit_now(code)
    }
}

/// `linux.resources.memory.limit`, in bytes; 0 and below mean none.
fn memory_limit(spec: &Spec) -> Option<u64> {
    let limit = spec.linux.resources.memory.limit?;
    u64::try_from(limit).ok().filter(|limit| *limit > 0)
}
