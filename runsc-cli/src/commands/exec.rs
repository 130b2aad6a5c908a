//! `exec`: a further program in a running container.
//!
//! The program is the sandbox's, and no process of the host. Where somebody must be able to wait for it and to signal it (an
//! engine, with `--detach`), or its terminal needs a session (the host's line discipline sends signals to one), a small
//! process of ours stands for it: it passes signals on, and exits with the program's code.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use quicksand_host::process::{Namespaces, spawn};
use quicksand_host::signal::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};

use super::create::{check_preserved, write_pid_file};
use super::run_do::parse_user;
use super::{foreground, signals, stdio};
use crate::cli::{ExecArgs, Global};
use crate::control::{self, Request, Response, Target};
use crate::error::{Context, Result};
use crate::fail;
use crate::launch;
use crate::spec::{Process, Spec, parse_json};
use crate::state::{Container, Status};

pub fn run(global: &Global, args: ExecArgs) -> Result<u8> {
    check_preserved(args.preserve_fds)?;
    let container = Container::open(&global.state_root(), &args.id)?;
    container.unlock();
    match container.state.status() {
        Status::Running => {}
        status => fail!("container {:?} is {}: nothing can be run in it", args.id, status.name()),
    }
    let process = process(&args, &container)?;
    process.check("process")?;
    let streams = stdio::for_process(&process, args.console_socket.as_deref(), args.detach)?;
    let needs_helper = args.detach || streams.terminal;
    let signals = (!args.detach).then(signals::take).transpose()?;

    let connection = control::connect(&container.control_socket())?;
    let fds = [streams.stdio[0].as_fd(), streams.stdio[1].as_fd(), streams.stdio[2].as_fd()];
    let request = Request::Exec { process: Box::new(process), controls_terminal: streams.terminal };
    control::send(&connection, &request, &fds)?;
    match control::receive(&connection)? {
        Some((Response::Started(_), _)) => {}
        Some((Response::Failed(message), _)) => fail!("{message}"),
        Some((other, _)) => fail!("the sandbox answered {other:?}"),
        None => fail!("the sandbox has ended"),
    }
    if !needs_helper {
        drop(streams);
        let Some(signals) = signals else { return Ok(0) };
        write_pid(&args, i32::try_from(std::process::id()).unwrap_or(0))?;
        return follow(&connection, &signals, false);
    }

    let [terminal, ..] = streams.stdio;
    let mut keep = vec![connection.as_raw_fd(), terminal.as_raw_fd()];
    keep.extend(crate::log::descriptors());
    let controls_terminal = streams.terminal;
    let stand_in = move || match stand_in(&connection, controls_terminal.then_some(terminal)) {
        Ok(code) => code,
        Err(e) => {
            crate::log::failure(&e.to_string());
            crate::FAILED
        }
    };
    let child = spawn(Namespaces::empty(), None, &keep, stand_in).context("making a process")?;
    if let Err(e) = write_pid(&args, child.pid) {
        launch::kill(&child);
        return Err(e);
    }
    let Some(signals) = signals else { return Ok(0) };
    let pidfd = child.pidfd.try_clone().context("a descriptor")?;
    foreground::relay(
        &pidfd,
        streams.master,
        &signals,
        None::<(std::os::fd::OwnedFd, fn())>,
        &mut |signal| {
            if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
                // It has ended, then.
                let _ = rustix::process::pidfd_send_signal(&child.pidfd, signal);
            }
        },
    )?;
    foreground::exit_code(launch::wait(&child))
}

fn write_pid(args: &ExecArgs, pid: i32) -> Result<()> {
    args.pid_file.as_deref().map_or(Ok(()), |path| write_pid_file(path, pid))
}

/// The process that stands for the program on the host.
fn stand_in(connection: &UnixStream, terminal: Option<OwnedFd>) -> Result<u8> {
    rustix::process::setsid().context("setsid")?;
    if let Some(terminal) = &terminal {
        rustix::process::ioctl_tiocsctty(terminal).context("taking the terminal")?;
    }
    let signals = signals::take()?;
    follow(connection, &signals, terminal.is_some())
}

/// Passes signals on until the program has ended; returns its exit code.
fn follow(connection: &UnixStream, signals: &SignalFd, terminal: bool) -> Result<u8> {
    loop {
        let signal_fd = signals.as_fd();
        let mut fds = [PollFd::new(connection, PollFlags::IN), PollFd::new(&signal_fd, PollFlags::IN)];
        // EINTR: nothing is ready then.
        let _ = poll(&mut fds, None);
        let (answered, signalled) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if signalled {
            while let Ok(Some(taken)) = signals.take() {
                // The terminal's own signals go to whoever is in its foreground.
                let target = if terminal && taken.sender == 0 { Target::Foreground } else { Target::Own };
                control::send(connection, &Request::Signal { signal: taken.signal, target }, &[])?;
            }
        }
        if answered {
            return match control::receive(connection)? {
                Some((Response::Exited(code), _)) => Ok(code),
                Some((Response::Failed(message), _)) => fail!("{message}"),
                Some((other, _)) => fail!("the sandbox answered {other:?}"),
                // The container's init process ended, and took this one with it.
                None => Ok(137),
            };
        }
    }
}

/// The process to run: from a file, or from the container's own with what the arguments change.
fn process(args: &ExecArgs, container: &Container) -> Result<Process> {
    if let Some(path) = &args.process {
        if !args.command.is_empty() {
            fail!("both --process and a command are given");
        }
        let text = fs::read(path).context(format!("--process {}", path.display()))?;
        let mut process: Process = parse_json(&text, &path.display().to_string())?;
        process.terminal |= args.tty;
        return Ok(process);
    }
    if args.command.is_empty() {
        fail!("a command to run is missing");
    }
    let spec = Spec::load(&container.state.bundle)?;
    let mut process = spec.process.unwrap_or_default();
    process.args.clone_from(&args.command);
    process.terminal = args.tty;
    process.console_size = None;
    if let Some(cwd) = &args.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some(user) = &args.user {
        let user = parse_user(user)?;
        process.user.uid = user.uid;
        process.user.gid = user.gid;
        process.user.additional_gids.clear();
    }
    process.user.additional_gids.extend(&args.additional_gids);
    for var in &args.env {
        let name = var.split('=').next().unwrap_or_default();
        process.env.retain(|v| v.split('=').next() != Some(name));
        process.env.push(var.clone());
    }
    if let Some(no_new_privs) = args.no_new_privs {
        process.no_new_privileges = no_new_privs;
    }
    if !args.cap.is_empty() {
        let caps = process.capabilities.get_or_insert_default();
        for set in [&mut caps.bounding, &mut caps.effective, &mut caps.permitted] {
            set.extend(args.cap.iter().cloned());
        }
    }
    Ok(process)
}
