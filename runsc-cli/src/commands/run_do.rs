//! `do`: a command on this machine's own files. They are below, read-only; what it writes is kept in memory and gone with it.

use std::path::{Path, PathBuf};

use super::entry::{self, Watch};
use super::{foreground, invoke, stdio};
use crate::cli::{DoArgs, Global};
use crate::console;
use crate::error::{Context, Error, Result};
use crate::fail;
use crate::launch::Plan;
use crate::spec::{Capabilities, Process, Root, Spec, User, template};
use crate::timeline::Timeline;

pub fn run(global: &Global, args: DoArgs, started_ns: u64) -> Result<u8> {
    let mut timeline = Timeline::new(global.timeline_fd)?;
    timeline.event("process_start", started_ns);
    if !args.rootfs.is_absolute() {
        fail!("--rootfs {} is not an absolute path", args.rootfs.display());
    }
    // With a terminal on both sides the command gets one of its own, so that its job control is its own.
    // What is to go on elsewhere goes on with any streams.
    let watched = args.entry.checkpoint_at.is_some();
    let terminal = console::is_terminal(std::io::stdin())
        && console::is_terminal(std::io::stdout())
        && !watched
        && args.image.is_none();
    Watch::check(&args.entry)?;
    if args.event.invoke.is_some() && (args.image.is_none() || watched) {
        fail!("--invoke goes with --image, and without --checkpoint-at");
    }
    let event = args.event.invoke.as_deref().map(invoke::read_event).transpose()?;
    let spec = spec(&args, terminal)?;
    let process = spec.process.clone().unwrap_or_default();
    let signals = super::signals::take()?;
    let mut streams = stdio::for_process(&process, None, false)?;
    if event.is_some() {
        streams.keep_output()?;
    }
    // Its state is nobody's business, but must not meet another's.
    let id = format!("do-{}-{:x}", std::process::id(), crate::timeline::now_ns());
    let mut global = global.clone();
    global.ignore_cgroups = true;
    let plan = Plan {
        global: &global,
        id,
        bundle: PathBuf::from("/"),
        spec,
        stdio: streams.stdio,
        image: args.image.clone(),
        record: None,
        controls_terminal: streams.terminal,
        foreground: true,
        start: !watched,
        begun_ns: started_ns,
        timeline,
    };
    let mut launched = plan.launch()?;
    let watch = match super::run::begin(&args.entry, &mut launched) {
        Ok(watch) => watch.map(Watch::spawn).transpose()?,
        Err(e) => {
            crate::launch::kill(&launched.child);
            crate::launch::wait(&launched.child);
            launched.container.remove()?;
            return Err(e);
        }
    };
    let invocation = event.map(|event| {
        invoke::spawn_and_end(&launched.container.control_socket(), event, args.event.invoke_timeout)
    });
    let invocation = invocation.transpose()?;
    let end = foreground::wait(&mut launched, streams.master, &signals)?;
    launched.container.relock();
    let invoked = invocation.map(invoke::exit_code);
    let code = entry::exit_code(watch, args.entry.leave_running, foreground::exit_code(end));
    launched.container.remove()?;
    invoked.unwrap_or(code)
}

fn spec(args: &DoArgs, terminal: bool) -> Result<Spec> {
    let mut spec = template(args.command.clone(), terminal);
    let path = args.rootfs.to_str().ok_or_else(|| Error::new("--rootfs is not UTF-8"))?;
    spec.root = Some(Root { path: path.into(), readonly: false });
    spec.hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let cwd = match &args.cwd {
        Some(cwd) => cwd.clone(),
        None => {
            let here = std::env::current_dir().context("the working directory")?;
            // Below another root the caller's directory means nothing.
            if args.rootfs.as_path() == Path::new("/") { here } else { PathBuf::from("/") }
        }
    };
    let cwd = cwd.to_str().ok_or_else(|| Error::new("the working directory is not UTF-8"))?;
    let mut env = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.to_str(), value.to_str()) {
            (Some(name), Some(value)) => env.push(format!("{name}={value}")),
            // A specification is text.
            _ => tracing::warn!("the environment variable {} is not UTF-8: left out", name.display()),
        }
    }
    for var in &args.env {
        let name = var.split('=').next().unwrap_or_default();
        env.retain(|v| v.split('=').next() != Some(name));
        env.push(var.clone());
    }
    let user = match &args.user {
        Some(user) => parse_user(user)?,
        None => User::default(),
    };
    let user = User { umask: Some(own_umask()), ..user };
    let all: Vec<String> = crate::spec::CAPABILITIES.iter().map(|c| format!("CAP_{c}")).collect();
    let caps = Capabilities {
        bounding: all.clone(),
        effective: if user.uid == 0 { all.clone() } else { Vec::new() },
        permitted: if user.uid == 0 { all } else { Vec::new() },
        ..Capabilities::default()
    };
    spec.process = Some(Process {
        terminal,
        args: args.command.clone(),
        env,
        cwd: cwd.to_owned(),
        user,
        capabilities: Some(caps),
        own_environment: true,
        ..Process::default()
    });
    // Memory of its own over the places that everybody writes to comes from the overlay: nothing to mount but the
    // kernel's own file systems.
    spec.mounts.retain(|m| m.destination != "/dev/mqueue");
    for mount in &mut spec.mounts {
        if mount.destination == "/sys" {
            mount.options.retain(|o| o != "ro");
        }
    }
    spec.linux.masked_paths.clear();
    spec.linux.readonly_paths.clear();
    Ok(spec)
}

fn own_umask() -> u32 {
    // There is no other way to ask, and no other thread yet.
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    mask.bits()
}

/// `UID[:GID]`.
pub fn parse_user(text: &str) -> Result<User> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    match (uid.parse(), gid.parse()) {
        (Ok(uid), Ok(gid)) => Ok(User { uid, gid, ..User::default() }),
        _ => fail!("--user {text:?}: numbers are expected, UID or UID:GID"),
    }
}
