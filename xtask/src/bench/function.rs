//! The function that is started and restored, from outside: its request, its response, its end.

use super::runners::Runner;
use crate::{bundle, process, rootfs, setup};
use anyhow::{Context, Result, bail, ensure};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

pub(super) const LIMIT: Duration = Duration::from_secs(120);

const EVENT: &str = r#"{"text": "The quick sand shifts, and the sand is quick, and the sea is slow"}"#;

/// A bundle of the function with a heap of that many MiB.
pub(super) fn bundle(dir: &Path, heap_mib: u32) -> Result<PathBuf> {
    let root = rootfs::cached(rootfs::Kind::Python)?;
    let heap = heap_mib.to_string();
    let argv = ["/usr/bin/python3", "/tmp/function/handler.py", "--stdio", "--heap-mib", &heap];
    let mut spec = bundle::spec(&root, &argv);
    let source = setup::root().join("tests/workloads/functions/python");
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.push(json!({ "destination": "/tmp/function", "type": "bind", "source": source, "options": ["rbind", "ro"] }));
    }
    bundle::write(dir, &spec)
}

/// A container that runs the function, and its command.
pub(super) struct Instance {
    runner: Runner,
    id: String,
    child: Child,
    group: process::Group,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    timeline: Option<OwnedFd>,
    started_ns: u64,
}

/// A milestone that `quicksand` reports.
#[derive(Deserialize)]
struct Event {
    event: String,
    t_ns: u64,
}

impl Instance {
    /// Runs `command`, which makes container `id`. `watched`: with a timeline.
    pub(super) fn start(runner: &Runner, command: Command, id: &str, watched: bool) -> Result<Self> {
        let mut command = command;
        let timeline = watched.then(|| pipe_with(PipeFlags::empty())).transpose().context("pipe")?;
        let mut writer = None;
        let timeline = timeline.map(|(read, write)| {
            // The flag belongs before the command, where the runner puts its own.
            command = with_flag(&command, "--timeline-fd", &write.as_raw_fd().to_string());
            writer = Some(write);
            read
        });
        if let Some(read) = &timeline {
            rustix::io::fcntl_setfd(read, rustix::io::FdFlags::CLOEXEC).context("fcntl")?;
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let started_ns = now_ns();
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", process::command_line(&command)))?;
        drop(writer);
        let group = process::Group::of(&child)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        let (runner, id) = (runner.clone(), id.to_owned());
        Ok(Self { runner, id, child, group, stdin, stdout, timeline, started_ns })
    }

    /// Sends the request; it may be read whenever the function gets there.
    pub(super) fn send(&mut self) -> Result<()> {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: function\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{EVENT}",
            EVENT.len()
        );
        let stdin = self.stdin.as_mut().context("its input was closed")?;
        stdin.write_all(request.as_bytes()).context("sending the request")
    }

    /// Waits for the line that says that it is ready.
    pub(super) fn ready(&mut self) -> Result<()> {
        let line = self.read(|out| {
            let mut line = String::new();
            out.read_line(&mut line).map(|_| line)
        })?;
        ensure!(line == "ready\n", "it printed {line:?}");
        Ok(())
    }

    /// Waits for the response; milliseconds since the start.
    pub(super) fn response(&mut self) -> Result<f64> {
        let (head, body) = self.read(|out| {
            let mut head = Vec::new();
            let mut length = 0;
            loop {
                let mut line = String::new();
                if out.read_line(&mut line)? == 0 || line == "\r\n" {
                    break;
                }
                if let Some(value) = line.strip_prefix("Content-Length: ") {
                    length = value.trim().parse().unwrap_or(0);
                }
                head.push(line);
            }
            let mut body = vec![0; length];
            out.read_exact(&mut body)?;
            Ok((head, String::from_utf8_lossy(&body).into_owned()))
        })?;
        let now = now_ns();
        let ok = head.first().is_some_and(|line| line.starts_with("HTTP/1.1 200 "));
        ensure!(ok && body.contains("\"words\": 14"), "it answered {head:?} {body:?}");
        Ok((now - self.started_ns) as f64 / 1e6)
    }

    /// Reads with a limit: a function that never answers is an error.
    fn read<T: Send + 'static>(
        &mut self,
        read: impl FnOnce(&mut BufReader<ChildStdout>) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut stdout = self.stdout.take().context("its output was closed")?;
        let (send, done) = channel();
        std::thread::spawn(move || {
            let result = read(&mut stdout);
            let _nobody_listens = send.send((result, stdout));
        });
        match done.recv_timeout(LIMIT) {
            Ok((result, stdout)) => {
                self.stdout = Some(stdout);
                result.context("reading its output")
            }
            Err(_) => bail!("it did not answer within {} s", LIMIT.as_secs()),
        }
    }

    /// Waits for the command, whose container goes on.
    pub(super) fn command_ended(&mut self) -> Result<()> {
        let status = process::wait_until(&mut self.child, Instant::now() + LIMIT)?;
        ensure!(status.is_some_and(|status| status.success()), "{}: {status:?}", self.id);
        Ok(())
    }

    /// Closes its input, waits for its end, and removes it. Its milestones, in milliseconds since the start.
    pub(super) fn end(mut self) -> Result<BTreeMap<String, f64>> {
        drop(self.stdin.take());
        let ended = process::wait_until(&mut self.child, Instant::now() + LIMIT);
        self.group.signal(rustix::process::Signal::KILL);
        if !self.runner.is_ours() {
            // The peer keeps a container that it restored.
            let _already_gone =
                process::capture(self.runner.oci().args(["delete", "--force", &self.id]), LIMIT);
        }
        ensure!(ended?.is_some(), "{} did not end within {} s", self.id, LIMIT.as_secs());
        let mut events = BTreeMap::new();
        if let Some(timeline) = self.timeline.take() {
            let mut text = String::new();
            File::from(timeline).read_to_string(&mut text).context("the timeline")?;
            for event in text.lines().filter_map(|line| serde_json::from_str::<Event>(line).ok()) {
                let ms = event.t_ns.saturating_sub(self.started_ns) as f64 / 1e6;
                events.entry(event.event).or_insert(ms);
            }
        }
        Ok(events)
    }
}

/// The command with one more flag before everything else.
fn with_flag(command: &Command, flag: &str, value: &str) -> Command {
    let mut new = Command::new(command.get_program());
    new.args([flag, value]).args(command.get_args());
    new
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
