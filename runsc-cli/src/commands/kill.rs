//! `kill`: a signal to a container.

use super::signals;
use crate::cli::{Global, KillArgs};
use crate::control::{self, Request, Target};
use crate::error::{Context, Result};
use crate::fail;
use crate::state::{self, State, Status};

pub fn run(global: &Global, args: &KillArgs) -> Result<u8> {
    // A command that is at work on it, or a hook that hangs, is not waited for.
    let root = global.state_root();
    let state = state::read(&root, &args.id)?;
    let signal = signals::parse(&args.signal)?;
    if state.status() == Status::Stopped {
        // As runc words it: engines look for "not running".
        fail!("container {:?} is not running", args.id);
    }
    if signal == libc::SIGKILL && args.pid.is_none() {
        kill_sandbox(&state)?;
        return Ok(0);
    }
    let target = match args.pid {
        Some(pid) => Target::Pid(pid),
        None if args.all => Target::All,
        None => Target::Own,
    };
    control::call(&state::control_socket(&root, &args.id), &Request::Signal { signal, target })?.done()?;
    Ok(0)
}

/// Ends a sandbox without asking it. Every process in it goes with the first of its pid namespace.
pub fn kill_sandbox(state: &State) -> Result<Option<std::os::fd::OwnedFd>> {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let Some(pid) = Pid::from_raw(state.pid) else { return Ok(None) };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(e) => fail!("the sandbox process {}: {e}", state.pid),
    };
    // Only now is it sure which process the descriptor is of.
    if state.status() == Status::Stopped {
        return Ok(None);
    }
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) => Ok(Some(pidfd)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        other => other.map(|()| None).context("killing the sandbox"),
    }
}
