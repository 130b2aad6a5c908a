//! OCI hooks: host programs that engines want run at certain points, with the container's state on standard input.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::error::{Context, Error, Result};
use crate::fail;
use crate::spec::Hook;

/// Runs hooks in order; the first that fails ends it.
pub fn run(kind: &str, hooks: &[Hook], state: &serde_json::Value) -> Result<()> {
    for hook in hooks {
        run_one(hook, state).context(format!("{kind} hook {}", hook.path))?;
    }
    Ok(())
}

/// Runs hooks whose failure is only logged (`poststart`, `poststop`).
pub fn run_lenient(kind: &str, hooks: &[Hook], state: &serde_json::Value) {
    for hook in hooks {
        if let Err(e) = run_one(hook, state) {
            tracing::warn!("{kind} hook {}: {e}", hook.path);
        }
    }
}

fn run_one(hook: &Hook, state: &serde_json::Value) -> Result<()> {
    let mut command = Command::new(&hook.path);
    // `args` begins with the program's own name.
    command.args(hook.args.iter().skip(1)).env_clear();
    for var in &hook.env {
        if let Some((name, value)) = var.split_once('=') {
            command.env(name, value);
        }
    }
    // A group of its own: what it has started goes with it when it is late.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().context("starting it")?;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
    let pid = pid.ok_or_else(|| Error::new("a process without a number"))?;
    let deadline =
        hook.timeout.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0).map(Duration::from_secs);
    let watched = watch(&mut child, pid, state.to_string().as_bytes(), deadline);
    if !matches!(watched, Ok((true, _))) {
        // It has not been waited for, so the number is still its own.
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let status = child.wait().context("waiting for it")?;
    let (ended, said) = watched?;
    if !ended {
        fail!("did not end within {} s", deadline.unwrap_or_default().as_secs());
    }
    if !status.success() {
        let text = String::from_utf8_lossy(&said).trim().to_owned();
        fail!("{status}{}{text}", if text.is_empty() { "" } else { ": " });
    }
    Ok(())
}

/// Feeds a hook and listens to what it says, until it ends or its time is up: whether it ended, and the beginning of what it
/// said. Neither a hook that does not read nor a child of its that keeps its standard error open is waited for.
fn watch(child: &mut Child, pid: Pid, input: &[u8], limit: Option<Duration>) -> Result<(bool, Vec<u8>)> {
    let doing = "watching it";
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).context(doing)?;
    let (mut stdin, mut stderr) =
        (child.stdin.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from));
    for fd in stdin.iter().chain(&stderr) {
        rustix::io::ioctl_fionbio(fd, true).context(doing)?;
    }
    let started = Instant::now();
    let (mut left, mut said) = (input, Vec::new());
    loop {
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(stderr.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(stdin.iter().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        let wait = limit.map(|limit| limit.saturating_sub(started.elapsed()));
        let wait =
            wait.map(|wait| Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 }));
        let ready = match poll(&mut fds, wait.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.context(doing)?,
        };
        let ended = !fds[0].revents().is_empty();
        drop(fds);
        if let Some(fd) = &stdin {
            match rustix::io::write(fd, left) {
                Ok(n) => left = &left[n..],
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                // A hook that does not read its input has closed the pipe: not our business.
                Err(_) => left = &[],
            }
            if left.is_empty() {
                stdin = None;
            }
        }
        while let Some(fd) = &stderr {
            let mut piece = [0; 4096];
            match rustix::io::read(fd, &mut piece[..]) {
                Ok(n) if n > 0 => {
                    said.extend_from_slice(&piece[..n.min(MOST_SAID.saturating_sub(said.len()))])
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => break,
                _ => stderr = None,
            }
        }
        if ended || ready == 0 {
            return Ok((ended, said));
        }
    }
}

/// How much of what a hook says goes into a message.
const MOST_SAID: usize = 4096;
