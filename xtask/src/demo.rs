//! `cargo xtask demo`: a real function in the sandbox, a request, and where the time went.
//!
//! All times are `CLOCK_MONOTONIC`, which the sandbox's processes share with us: `quicksand` writes its own
//! milestones as JSON lines to a pipe (`--timeline-fd`), we add what is seen from outside.

use crate::build::{Linkage, Profile};
use crate::report::{Table, spinner};
use crate::{build, bundle, http, process, setup};
use anyhow::{Context, Result, anyhow, bail};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// How long the function may take to say that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How long it may take to end when told to.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Requests after the first one, for the median of a warm function.
const WARM_REQUESTS: usize = 20;

/// How often the function is started and restored for the table.
const COLD_STARTS: usize = 5;
const RESTORES: usize = 10;

const EVENT: &str = r#"{"text": "The quick sand shifts, and the sand is quick, and the sea is slow"}"#;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which function; without this, Python's when the host has Python
    #[arg(long, value_enum)]
    function: Option<Function>,
    /// The platform the sandbox uses
    #[arg(long, default_value = "auto")]
    platform: String,
    /// The same without a sandbox, to compare
    #[arg(long)]
    native: bool,
    /// The debug build, with every assertion
    #[arg(long)]
    debug: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Function {
    /// http.server and JSON in Python
    Python,
    /// The same in C, for hosts without Python
    Native,
}

/// A milestone that `quicksand` reports.
#[derive(Debug, Deserialize)]
struct Event {
    event: String,
    t_ns: u64,
}

/// What the running function tells us.
enum News {
    Milestone(Event),
    Printed(String, u64),
    Closed,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    let function = args.function.unwrap_or(if Path::new("/usr/bin/python3").exists() {
        Function::Python
    } else {
        Function::Native
    });
    let mut needs = vec![setup::BUILD];
    if function == Function::Python {
        needs.push(setup::PYTHON);
    }
    setup::ensure(&needs)?;
    let command_in_sandbox = command_of(function)?;

    let mut command = if args.native {
        let mut command = Command::new(&command_in_sandbox[0]);
        command.args(&command_in_sandbox[1..]);
        command
    } else {
        let waiting = spinner("building quicksand");
        let binary = build::quicksand(if args.debug { Profile::Debug } else { Profile::Release })?;
        waiting.finish_and_clear();
        let mut command = Command::new(binary);
        command.arg("--root").arg(setup::work_dir("demo-state")?);
        command.args(["--platform", &args.platform, "--network", "host"]);
        command
    };

    let what = match function {
        Function::Python => "a Python function (json, http.server)",
        Function::Native => "a native function (C)",
    };
    let place = if args.native { "on the host, without a sandbox" } else { "in a sandbox" };
    println!("{what}, {place}\n");

    let mut in_sandbox = vec![PathBuf::from("do")];
    in_sandbox.extend(command_in_sandbox.iter().cloned());
    let running = Running::start(&mut command, if args.native { &[] } else { &in_sandbox })?;
    let answer = watch(&running)?;
    running.end()?;
    print!("{}", answer.timeline);
    println!("\n  request   {EVENT}\n  response  {}", answer.response.trim());
    println!("  warm      {:.2} ms per request (median of {WARM_REQUESTS})", answer.warm_ms);
    if !args.native {
        println!("\n  the same function, checkpointed when it is ready, and restored {RESTORES} times\n");
        let binary = build::quicksand(if args.debug { Profile::Debug } else { Profile::Release })?;
        print!("{}", restores(&binary, &args.platform, &command_in_sandbox)?);
        println!("\n  Not yet on this screen: fork of this same function.");
    }
    Ok(true)
}

fn command_of(function: Function) -> Result<Vec<PathBuf>> {
    let functions = setup::root().join("tests/workloads/functions");
    Ok(match function {
        Function::Python => vec!["/usr/bin/python3".into(), functions.join("python/handler.py")],
        Function::Native => {
            let binary = setup::work_dir("demo")?.join("handler");
            build::compile_c(&functions.join("native/handler.c"), &binary, Linkage::Static, "-O2")?;
            vec![binary]
        }
    })
}

/// The started function and the channel its news come by.
struct Running {
    child: Child,
    group: process::Group,
    news: Receiver<News>,
    started_ns: u64,
    native: bool,
}

impl Running {
    /// Starts the command; `quicksand` gets the pipe's number and its own command appended.
    fn start(command: &mut Command, guest: &[PathBuf]) -> Result<Self> {
        let (timeline, writer) = pipe_with(PipeFlags::empty()).context("pipe")?;
        rustix::io::fcntl_setfd(&timeline, rustix::io::FdFlags::CLOEXEC).context("fcntl")?;
        if !guest.is_empty() {
            command.arg("--timeline-fd").arg(writer.as_raw_fd().to_string()).args(guest);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let started_ns = now_ns();
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", process::command_line(command)))?;
        let group = process::Group::of(&child)?;
        drop(writer);
        let (send, news) = channel();
        let stdout = child.stdout.take().ok_or_else(|| anyhow!("no stdout"))?;
        read_stdout(OwnedFd::from(stdout), send.clone());
        read_timeline(timeline, send);
        Ok(Self { child, group, news, started_ns, native: guest.is_empty() })
    }

    /// Ends it as an operator would, and insists when that does not help.
    fn end(mut self) -> Result<()> {
        self.group.signal(rustix::process::Signal::TERM);
        if process::wait_until(&mut self.child, Instant::now() + END_LIMIT)?.is_none() {
            println!("  (it did not end within {} s of SIGTERM and was killed)", END_LIMIT.as_secs());
        }
        Ok(())
    }
}

fn read_stdout(stdout: OwnedFd, send: Sender<News>) {
    std::thread::spawn(move || {
        for line in BufReader::new(File::from(stdout)).lines().map_while(std::result::Result::ok) {
            if send.send(News::Printed(line, now_ns())).is_err() {
                return;
            }
        }
        let _nobody_listens = send.send(News::Closed);
    });
}

fn read_timeline(timeline: OwnedFd, send: Sender<News>) {
    std::thread::spawn(move || {
        for line in BufReader::new(File::from(timeline)).lines().map_while(std::result::Result::ok) {
            if let Ok(event) = serde_json::from_str(&line)
                && send.send(News::Milestone(event)).is_err()
            {
                return;
            }
        }
    });
}

struct Answered {
    timeline: String,
    response: String,
    warm_ms: f64,
}

/// Milestones of one start: since its command was started, in milliseconds.
#[derive(Clone, Copy)]
struct Start {
    /// Everything is there; the guest may run.
    started: f64,
    first_guest_instruction: f64,
    first_response: f64,
}

/// Starts the function once in a container, takes an image of it, restores that; a table of both.
fn restores(binary: &Path, platform: &str, guest: &[PathBuf]) -> Result<Table> {
    let dir = setup::work_dir("demo")?;
    let argv: Vec<_> = guest.iter().map(|word| word.to_string_lossy()).collect();
    let argv: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
    let bundle = bundle::write(&dir.join("bundle"), &bundle::spec(Path::new("/"), &argv))?;
    let image = dir.join("image");
    if image.exists() {
        std::fs::remove_dir_all(&image)?;
    }
    let quicksand = || -> Result<Command> {
        let mut command = Command::new(binary);
        command.arg("--root").arg(setup::work_dir("demo-state")?);
        command.args(["--platform", platform, "--network", "host"]);
        Ok(command)
    };
    let tail = |words: &[&str], id: &str| -> Vec<PathBuf> {
        let words = words.iter().map(PathBuf::from);
        words.chain(["--bundle".into(), bundle.clone(), id.into()]).collect()
    };
    let id = format!("demo-{}", std::process::id());

    // It has chosen its port by the time that it waits for connections, and says so just before.
    let at = ["run", "--checkpoint-at=accept", "--image-path", &image.to_string_lossy()];
    let begun = Instant::now();
    let running = Running::start(&mut quicksand()?, &tail(&at, &id))?;
    let (port, _) = running.wait_ready(&mut BTreeMap::new())?;
    running.wait_end()?;
    let taken_ms = begun.elapsed().as_secs_f64() * 1e3;

    let mut cold = Vec::new();
    for _ in 0..COLD_STARTS {
        let running = Running::start(&mut quicksand()?, &tail(&["run"], &id))?;
        let mut seen = BTreeMap::new();
        let (port, _) = running.wait_ready(&mut seen)?;
        cold.push(running.answer(port, seen)?);
        running.end()?;
    }
    let mut restored = Vec::new();
    for _ in 0..RESTORES {
        let words = ["restore", "--image-path", &image.to_string_lossy()];
        let running = Running::start(&mut quicksand()?, &tail(&words, &id))?;
        let mut seen = BTreeMap::new();
        running.wait_started(&mut seen)?;
        restored.push(running.answer(port, seen)?);
        running.end()?;
    }
    let mut table = Table::new(["boundary, ms", "cold", "restore", "min - max", "cold / restore"]);
    type Boundary = (&'static str, fn(&Start) -> f64);
    let boundaries: [Boundary; 3] = [
        ("container started", |start| start.started),
        ("first guest instruction", |start| start.first_guest_instruction),
        ("first response", |start| start.first_response),
    ];
    for (name, of) in boundaries {
        let sorted = |starts: &[Start]| {
            let mut all: Vec<f64> = starts.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let (cold, restored) = (sorted(&cold), sorted(&restored));
        let (cold_median, median) = (cold[cold.len() / 2], restored[restored.len() / 2]);
        table.row([
            name.to_owned(),
            format!("{cold_median:.1}"),
            format!("{median:.1}"),
            format!("{:.1} - {:.1}", restored[0], restored[restored.len() - 1]),
            format!("{:.1}", cold_median / median),
        ]);
    }
    let mib = image_bytes(&image)? as f64 / f64::from(1 << 20);
    println!(
        "  started and checkpointed in {taken_ms:.0} ms, image {mib:.1} MiB; medians of {COLD_STARTS} and {RESTORES}\n"
    );
    Ok(table)
}

/// What an image takes on disk: holes do not count.
fn image_bytes(image: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(image.join("blobs/blake3"))? {
        bytes += entry?.metadata()?.blocks() * 512;
    }
    Ok(bytes)
}

impl Running {
    /// Waits for the function to say that it is ready: its port, and when.
    fn wait_ready(&self, seen: &mut BTreeMap<String, u64>) -> Result<(u16, u64)> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            match self.news.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(News::Milestone(event)) => {
                    seen.entry(event.event).or_insert(event.t_ns);
                }
                Ok(News::Printed(line, at)) => match line.strip_prefix("ready ").map(str::parse::<u16>) {
                    Some(Ok(port)) => return Ok((port, at)),
                    _ => println!("  {line}"),
                },
                Ok(News::Closed) => bail!("the function ended before it was ready"),
                Err(_) => bail!("the function was not ready after {} s", READY_LIMIT.as_secs()),
            }
        }
    }

    /// Waits for an end that comes by itself.
    fn wait_end(mut self) -> Result<()> {
        match process::wait_until(&mut self.child, Instant::now() + READY_LIMIT)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("no image was taken: {}", process::describe_status(status)),
            None => bail!("no image was taken in {} s", READY_LIMIT.as_secs()),
        }
    }

    /// Waits until everything that was restored is there.
    fn wait_started(&self, seen: &mut BTreeMap<String, u64>) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        while !seen.contains_key("started") {
            match self.news.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(News::Milestone(event)) => {
                    seen.entry(event.event).or_insert(event.t_ns);
                }
                Ok(News::Printed(line, _)) => println!("  {line}"),
                Ok(News::Closed) => bail!("the function ended while it was restored"),
                Err(_) => bail!("the function was not restored after {} s", READY_LIMIT.as_secs()),
            }
        }
        Ok(())
    }

    /// Sends the first request, and says when what happened.
    fn answer(&self, port: u16, mut seen: BTreeMap<String, u64>) -> Result<Start> {
        http::post(port, EVENT)?;
        let answered = now_ns();
        for news in self.news.try_iter() {
            if let News::Milestone(event) = news {
                seen.entry(event.event).or_insert(event.t_ns);
            }
        }
        let since = |at: u64| at.saturating_sub(self.started_ns) as f64 / 1e6;
        let of = |name: &str| {
            seen.get(name).copied().map(since).with_context(|| format!("{name} was not reported"))
        };
        Ok(Start {
            started: of("started")?,
            first_guest_instruction: of("first_guest_instruction")?,
            first_response: since(answered),
        })
    }
}

/// Waits for the function, sends its first request, and puts the milestones in order.
fn watch(running: &Running) -> Result<Answered> {
    let waiting = spinner("waiting for the function");
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let (port, ready_ns) = running.wait_ready(&mut seen)?;
    waiting.finish_and_clear();
    let response = http::post(port, EVENT)?;
    let answered_ns = now_ns();

    let mut warm = Vec::new();
    for _ in 0..WARM_REQUESTS {
        let sent = Instant::now();
        http::post(port, EVENT)?;
        warm.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    warm.sort_by(f64::total_cmp);
    for news in running.news.try_iter() {
        if let News::Milestone(event) = news {
            seen.entry(event.event).or_insert(event.t_ns);
        }
    }

    let milestones = [
        ("process start", seen.get("process_start").copied().or(Some(running.started_ns))),
        ("sandbox ready", seen.get("sandbox_ready").copied()),
        ("first guest instruction", seen.get("first_guest_instruction").copied()),
        ("function ready", Some(ready_ns)),
        ("first response", Some(answered_ns)),
    ];
    Ok(Answered {
        timeline: timeline(running.started_ns, running.native, &milestones),
        response,
        warm_ms: warm[warm.len() / 2],
    })
}

/// The milestones with the time since the start, the time since the one before, and a bar of the latter.
fn timeline(started_ns: u64, native: bool, milestones: &[(&str, Option<u64>)]) -> String {
    const BAR: f64 = 40.0;
    let total =
        milestones.iter().filter_map(|&(_, at)| at).max().unwrap_or(started_ns).saturating_sub(started_ns);
    let mut table = Table::new(["milestone", "at ms", "step ms", ""]);
    let mut before = started_ns;
    for &(name, at) in milestones {
        let Some(at) = at else {
            if native {
                continue;
            }
            table.row([name, "-", "-", "(not reported)"].map(str::to_owned));
            continue;
        };
        let step = at.saturating_sub(before);
        let cells = |ns: u64| (BAR * ns as f64 / total.max(1) as f64).round() as usize;
        let bar = format!("{}{}", " ".repeat(cells(before - started_ns)), "█".repeat(cells(step).max(1)));
        table.row([name.to_owned(), ms(at.saturating_sub(started_ns)), ms(step), format!("{bar:<42}")]);
        before = before.max(at);
    }
    table.to_string()
}

fn ms(ns: u64) -> String {
    format!("{:.1}", ns as f64 / 1e6)
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_has_a_row_per_milestone() {
        let text = timeline(1_000_000, false, &[("a", Some(1_000_000)), ("b", None), ("c", Some(3_500_000))]);
        assert_eq!(text.lines().count(), 5);
        assert!(text.contains("not reported"));
        assert!(text.lines().last().is_some_and(|line| line.contains("2.5")));
    }
}
