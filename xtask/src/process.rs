//! Child processes with a deadline.
//!
//! Invariants: no child is waited for without a limit; a child that is captured runs in a process group of its own,
//! and the whole group is killed at the deadline and after the child's end, so that nothing it started stays behind;
//! captured output is bounded.

use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The most that is kept of each of a child's streams; what comes after is read and thrown away.
const CAPTURE_LIMIT_BYTES: usize = 8 << 20;

/// How long a stream may stay open after the child itself has ended (a grandchild may still hold it).
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Process groups to kill when the developer presses Ctrl-C.
static LIVE_GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// What a captured child left: its status, its output, and how long it took.
#[derive(Debug)]
pub(crate) struct Captured {
    /// `None` when the deadline passed and the child was killed.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) elapsed: Duration,
}

impl Captured {
    pub(crate) fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// `exit 3`, `signal 11` or `timed out`.
    pub(crate) fn describe(&self) -> String {
        match self.status {
            None => format!("timed out after {:.0} s", self.elapsed.as_secs_f64()),
            Some(status) => describe_status(status),
        }
    }

    pub(crate) fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// `exit N` or `signal N`.
pub(crate) fn describe_status(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}

/// Runs a command to its end or its deadline, with both output streams captured and standard input empty.
pub(crate) fn capture(command: &mut Command, limit: Duration) -> Result<Captured> {
    command.stdin(Stdio::null());
    capture_keeping_stdin(command, limit)
}

/// As [`capture`], but standard input stays what the caller made it.
pub(crate) fn capture_keeping_stdin(command: &mut Command, limit: Duration) -> Result<Captured> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let started = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    let group = Group::of(&child)?;
    let pidfd = pidfd_open(group.0, PidfdFlags::empty()).context("pidfd_open")?;
    let mut out = Stream::new(child.stdout.take().map(OwnedFd::from))?;
    let mut err = Stream::new(child.stderr.take().map(OwnedFd::from))?;

    let mut deadline = started + limit;
    let mut ended = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || (ended && out.closed() && err.closed()) {
            break;
        }
        let mut fds = Vec::with_capacity(3);
        if !ended {
            fds.push(PollFd::new(&pidfd, PollFlags::IN));
        }
        for stream in [&out, &err] {
            if let Some(fd) = stream.fd() {
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
        }
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        let exited = !ended && fds.first().is_some_and(|fd| fd.revents().contains(PollFlags::IN));
        drop(fds);
        out.drain()?;
        err.drain()?;
        if exited {
            ended = true;
            deadline = deadline.min(Instant::now() + DRAIN_LIMIT);
        }
    }
    let elapsed = started.elapsed();
    group.kill();
    let status = child.wait().context("wait")?;
    Ok(Captured { status: ended.then_some(status), stdout: out.kept, stderr: err.kept, elapsed })
}

/// Runs a command with the caller's own terminal and a deadline; an error names the command that failed.
pub(crate) fn show(command: &mut Command, limit: Duration) -> Result<()> {
    let line = command_line(command);
    let mut child = command.spawn().with_context(|| format!("cannot start {line}"))?;
    match wait_until(&mut child, Instant::now() + limit)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("{line}: {}", describe_status(status)),
        None => bail!("{line}: not done after {} s, killed", limit.as_secs()),
    }
}

/// Waits for a child until a deadline; kills and reaps it when that has passed, and then returns `None`.
pub(crate) fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    let status = wait_for(child, deadline.saturating_duration_since(Instant::now()))?;
    if status.is_none() {
        child.kill().context("kill")?;
        child.wait().context("wait")?;
    }
    Ok(status)
}

/// Waits for a child for a while; `None` when it has not ended by then.
pub(crate) fn wait_for(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    let pidfd = pidfd_open(pid_of(child)?, PidfdFlags::empty()).context("pidfd_open")?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(child.wait().context("wait")?)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
    }
}

/// The command as a developer would type it, for messages.
pub(crate) fn command_line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// Runs a small command whose output is wanted as text; anything but success is an error that carries its stderr.
pub(crate) fn text(command: &mut Command, limit: Duration) -> Result<String> {
    let line = command_line(command);
    let done = capture(command, limit)?;
    if !done.success() {
        bail!("{line}: {}\n{}", done.describe(), done.stderr_text().trim_end());
    }
    Ok(done.stdout_text())
}

/// Kills every captured child's group when the developer interrupts, then ends as an interrupted program does.
pub(crate) fn end_children_on_interrupt() {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else { return };
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            if let Ok(groups) = LIVE_GROUPS.lock() {
                for pid in groups.iter().filter_map(|&pid| Pid::from_raw(pid)) {
                    let _gone_already = kill_process_group(pid, Signal::KILL);
                }
            }
            std::process::exit(128 + signal);
        }
    });
}

/// The process group of one child; killed when dropped.
pub(crate) struct Group(Pid);

impl Group {
    /// The group of a child that was started with `process_group(0)`.
    pub(crate) fn of(child: &Child) -> Result<Self> {
        let pid = pid_of(child)?;
        if let Ok(mut groups) = LIVE_GROUPS.lock() {
            groups.insert(pid.as_raw_nonzero().get());
        }
        Ok(Self(pid))
    }

    fn kill(&self) {
        self.signal(Signal::KILL);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // ESRCH is the usual answer: nothing was left.
        let _gone_already = kill_process_group(self.0, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        if let Ok(mut groups) = LIVE_GROUPS.lock() {
            groups.remove(&self.0.as_raw_nonzero().get());
        }
    }
}

fn pid_of(child: &Child) -> Result<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| anyhow!("a child without a pid"))
}

fn timespec(left: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    }
}

/// One captured stream, read without blocking.
struct Stream {
    file: Option<std::fs::File>,
    kept: Vec<u8>,
}

impl Stream {
    fn new(fd: Option<OwnedFd>) -> Result<Self> {
        if let Some(fd) = &fd {
            rustix::io::ioctl_fionbio(fd, true).context("FIONBIO")?;
        }
        Ok(Self { file: fd.map(std::fs::File::from), kept: Vec::new() })
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    fn closed(&self) -> bool {
        self.file.is_none()
    }

    /// Reads what is there now; forgets the stream at its end.
    fn drain(&mut self) -> Result<()> {
        let mut buffer = [0; 16384];
        while let Some(file) = &mut self.file {
            match file.read(&mut buffer) {
                Ok(0) => self.file = None,
                Ok(count) => {
                    let room = CAPTURE_LIMIT_BYTES - self.kept.len();
                    self.kept.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading a child's output"),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_status_are_captured() {
        let done = capture(&mut shell("echo out; echo err >&2; exit 3"), Duration::from_secs(10)).unwrap();
        assert_eq!((done.stdout_text().as_str(), done.stderr_text().as_str()), ("out\n", "err\n"));
        assert_eq!(done.describe(), "exit 3");
    }

    #[test]
    fn a_hanging_child_ends_at_its_deadline_with_its_children() {
        let done = capture(&mut shell("sleep 1000 & echo $!; wait"), Duration::from_millis(300)).unwrap();
        assert!(done.status.is_none());
        let pid = done.stdout_text().trim().parse().ok().and_then(Pid::from_raw).unwrap();
        // The signal has been sent, which does not mean that it has taken effect: the end itself is waited for.
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        assert_eq!(
            poll(&mut fds, Some(&timespec(Duration::from_secs(30)))),
            Ok(1),
            "the grandchild is still there"
        );
    }

    #[test]
    fn a_flood_is_bounded() {
        let done = capture(&mut shell("head -c 20000000 /dev/zero"), Duration::from_secs(20)).unwrap();
        assert!(done.success());
        assert_eq!(done.stdout.len(), CAPTURE_LIMIT_BYTES);
    }
}
