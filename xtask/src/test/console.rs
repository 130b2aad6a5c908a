//! An interactive shell with job control, through `--console-socket`.

use super::container::{Check, LIMIT, Runtime};
use super::lifecycle::wait_for_status;
use crate::process;
use crate::rootfs::{self, Kind};
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

pub(super) const CHECKS: &[Check] = &[
    ("console/interactive-shell", interactive_shell),
    ("console/hang-up", hang_up),
    ("console/restore", restored),
    ("console/do", do_command),
];

const PROMPT: &str = "ready> ";

/// The longest that one answer of the shell may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

fn interactive_shell(runtime: &Runtime) -> Result<()> {
    session(runtime, &["/bin/bash", "--norc", "-i"], |terminal| {
        terminal.wait_for(PROMPT)?;
        settings(terminal)?;
        foreground_jobs(terminal)?;
        background_jobs(terminal)?;
        python(terminal)?;
        terminal.say("echo still ''here; exit 3\n")?;
        terminal.wait_for("still here")
    })
}

/// When the terminal's other end goes, the session's leader hears of it.
fn hang_up(runtime: &Runtime) -> Result<()> {
    let script = "trap 'exit 5' HUP; sleep 1000 & echo in ''front; wait";
    let mut terminal = create(runtime, &["/bin/bash", "-c", script])?;
    runtime.ok(&["start", "test"])?;
    let seen = terminal.wait_for("in front");
    drop(terminal);
    let ended = seen.and_then(|()| wait_for_status(runtime, "test", "stopped"));
    runtime.ok(&["delete", "--force", "test"])?;
    ended
}

/// `do` from a terminal: the command has one of its own, and keys reach it.
fn do_command(runtime: &Runtime) -> Result<()> {
    let mut command = runtime.command();
    if Path::new(command.get_program()).file_name().is_none_or(|name| name != "quicksand") {
        return Ok(()); // no other runtime has it
    }
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    let before = tcgetattr(&slave)?;
    let mut terminal = Terminal::new(master);
    terminal.resize(30, 100)?;
    // The shell is the container's init, which ^C does nothing to; its children are in the same group. Python sleeps in short
    // pieces: a signal that comes just before a long sleep begins is not noticed until that ends, on any kernel.
    let script = "tty; stty size; trap 'echo inter''rupted' INT; python3 -c \"import time; print('star' + 'ted', flush=True); \
                  [time.sleep(0.05) for _ in iter(int, 1)]\" 2>/dev/null; echo status $?; exit 9";
    command.args(["do", "/bin/bash", "-c", script]).env("TERM", "dumb");
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave.try_clone()?);
    let mut child = command.spawn()?;
    drop(command);
    let talked = (|| {
        terminal.wait_for("/dev/pts/0")?;
        terminal.wait_for("30 100")?;
        terminal.wait_for("started")?;
        terminal.say("\u{3}")?;
        terminal.wait_for("interrupted")?;
        terminal.wait_for("status 130")
    })();
    if talked.is_err() {
        child.kill()?;
    }
    let status = process::wait_until(&mut child, Instant::now() + LIMIT)?;
    talked.with_context(|| format!("the session was:\n{}", terminal.all()))?;
    ensure!(status.and_then(|status| status.code()) == Some(9), "ended with {status:?}");
    let after = tcgetattr(&slave)?;
    let modes = |t: &Termios| (t.input_modes, t.output_modes, t.local_modes);
    ensure!(modes(&before) == modes(&after), "the terminal is not as it was");
    Ok(())
}

/// Waits until the process whose command line begins so sleeps in the foreground of its terminal.
fn in_foreground(runtime: &Runtime, command: &str) -> Result<()> {
    let script = format!(
        "while :; do for p in $(grep -la '^{command}' /proc/[0-9]*/cmdline); do \
         read -r _ _ state _ group _ _ foreground _ < ${{p%/cmdline}}/stat; \
         [ $state = S ] && [ $group = $foreground ] && exit; done; done"
    );
    runtime.ok(&["exec", "test", "/bin/bash", "-c", &script]).map(|_| ())
}

/// A shell goes on at another terminal.
fn restored(runtime: &Runtime) -> Result<()> {
    let argv = ["/bin/bash", "--norc", "-i"];
    let mut terminal = create(runtime, &argv)?;
    runtime.ok(&["start", "test"])?;
    let before = (|| {
        terminal.wait_for(PROMPT)?;
        terminal.say("kept=kep''t; sleep 1000 & sleep 1001\n")?;
        terminal.wait_for("[1] ")?;
        // Not before the job is in the foreground does the key stop it.
        in_foreground(runtime, "sleep.1001")?;
        terminal.say("\u{1a}")?;
        terminal.wait_for("Stopped")?;
        terminal.wait_for(PROMPT)
    })();
    before.with_context(|| format!("the session was:\n{}", terminal.all()))?;
    let image = runtime.scratch()?.join("image");
    runtime.ok(&["checkpoint", "--image-path", &image.to_string_lossy(), "test"])?;
    wait_for_status(runtime, "test", "stopped")?;
    runtime.ok(&["delete", "test"])?;
    drop(terminal);
    let mut terminal = create_with(runtime, &argv, |spec| {
        spec["annotations"]["dev.quicksand.image"] = json!(image);
    })?;
    runtime.ok(&["start", "test"])?;
    let after = (|| {
        terminal.say("echo =$kept=; tty; stty size; jobs; fg %2\n")?;
        terminal.wait_for("=kept=")?;
        terminal.wait_for("/dev/pts/0")?;
        terminal.wait_for("30 100")?;
        terminal.wait_for("[1]")?;
        terminal.wait_for("Stopped")?;
        in_foreground(runtime, "sleep.1001")?;
        terminal.say("\u{3}")?;
        terminal.wait_for(PROMPT)?;
        terminal.say("kill %1; wait %1; echo =$?=\n")?;
        terminal.wait_for("=143=")
    })();
    let ended = runtime.call(&["delete", "--force", "test"])?;
    after.with_context(|| format!("the session was:\n{}", terminal.all()))?;
    ensure!(ended.success(), "delete: {}", ended.stderr_text());
    Ok(())
}

/// A container with a terminal, created and not started; returns the terminal's other end.
fn create(runtime: &Runtime, argv: &[&str]) -> Result<Terminal> {
    create_with(runtime, argv, |_| {})
}

/// As [`create`]; the configuration can be changed first.
fn create_with(
    runtime: &Runtime,
    argv: &[&str],
    change: impl FnOnce(&mut serde_json::Value),
) -> Result<Terminal> {
    let root = rootfs::cached(Kind::Python)?;
    let bundle = runtime.bundle(argv, |spec| {
        spec["root"]["path"] = json!(root);
        spec["process"]["terminal"] = json!(true);
        spec["process"]["env"] = json!(["PATH=/usr/bin", "PS1=ready> ", "TERM=dumb"]);
        change(spec);
    })?;
    // A socket's path is short; a build's folder may not be.
    let path = std::env::temp_dir().join(format!("quicksand-console-{}", std::process::id()));
    let _stale = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
    let mut command = runtime.command();
    command.args(["create", "--bundle"]).arg(&bundle).arg("--console-socket").arg(&path).arg("test");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let created = process::show(&mut command, LIMIT);
    let terminal = created.and_then(|()| receive(&listener));
    std::fs::remove_file(&path)?;
    let terminal = Terminal::new(terminal?);
    terminal.resize(30, 100)?;
    Ok(terminal)
}

/// Runs a program on a terminal, talks to it, and takes it away.
fn session(runtime: &Runtime, argv: &[&str], talk: fn(&mut Terminal) -> Result<()>) -> Result<()> {
    let mut terminal = create(runtime, argv)?;
    runtime.ok(&["start", "test"])?;
    let session = talk(&mut terminal);
    let ended = runtime.call(&["delete", "--force", "test"])?;
    session.with_context(|| format!("the session was:\n{}", terminal.all()))?;
    ensure!(ended.success(), "delete: {}", ended.stderr_text());
    Ok(())
}

/// Waits for SIGWINCH.
const RESIZED: &str = "from signal import *; pthread_sigmask(SIG_BLOCK, [SIGWINCH]); \
    print('wait for' + ' it', flush=True); sigwait([SIGWINCH]); print('resi' + 'zed')";

/// The terminal's name, size and modes.
fn settings(terminal: &mut Terminal) -> Result<()> {
    terminal.say("stty size; tty; test -t 0 && echo 'is a ''terminal'\n")?;
    terminal.wait_for("30 100")?;
    terminal.wait_for("/dev/pts/0")?;
    terminal.wait_for("is a terminal")?;
    terminal.wait_for(PROMPT)?;
    // Who is in front learns of a new size by a signal, and whoever asks is told.
    terminal.say(&format!("python3 -c \"{RESIZED}\"\n"))?;
    terminal.wait_for("wait for it")?;
    terminal.resize(41, 123)?;
    terminal.wait_for("resized")?;
    terminal.wait_for(PROMPT)?;
    terminal.say("stty size\n")?;
    terminal.wait_for("41 123")?;
    terminal.wait_for(PROMPT)?;
    // Echo and line editing once the shell's own editor is out of the way: the kernel's kill character takes back what was typed.
    terminal.say("sh -c \"echo now ''cooked; exec cat\"\n")?;
    terminal.wait_for("now cooked")?;
    terminal.say("wrong\u{15}right\n")?;
    terminal.wait_for("right\r\nright")?;
    terminal.say("\u{4}")?;
    terminal.wait_for(PROMPT)?;
    // As a full-screen editor does: raw mode, single keys (^C among them), and everything as it was.
    terminal.run("saved=$(stty -g)")?;
    terminal.say("stty raw -echo; echo now ''raw; dd bs=1 count=3 2>/dev/null | od -An -tx1; stty $saved; echo back ''again\n")?;
    terminal.wait_for("now raw")?;
    terminal.say("a\u{3}\r")?;
    terminal.wait_for("61 03 0d")?;
    terminal.wait_for("back again\r\n")?;
    terminal.wait_for(PROMPT)?;
    terminal.say("test \"$(stty -g)\" = \"$saved\" && echo all ''restored\n")?;
    terminal.wait_for("all restored")?;
    terminal.wait_for(PROMPT)?;
    // Reading with a time limit (VMIN 0, VTIME 2), as editors do to tell the escape key from an arrow.
    terminal.say(
        "stty -icanon min 0 time 2; dd bs=10 count=1 2>/dev/null | wc -c; stty $saved; echo time ''over\n",
    )?;
    terminal.wait_for("0\r\n")?;
    terminal.wait_for("time over")?;
    terminal.wait_for(PROMPT)
}

fn foreground_jobs(terminal: &mut Terminal) -> Result<()> {
    // A foreground job says that it runs before it is signalled: until then the shell itself would get the signal.
    // ^C ends the foreground job, not the shell.
    terminal.say("sh -c \"echo start''ed; exec sleep 1000\"\n")?;
    terminal.wait_for("started")?;
    terminal.say("\u{3}")?;
    terminal.wait_for(PROMPT)?;
    terminal.say("echo status $?\n")?;
    terminal.wait_for("status 130")?;
    terminal.wait_for(PROMPT)?;
    // ^\ too. Not with a shell in front, which ignores it until it has executed the program.
    terminal.say("python3 -c \"import time; print('star' + 'ted', flush=True); [time.sleep(0.05) for _ in iter(int, 1)]\"\n")?;
    terminal.wait_for("started")?;
    terminal.say("\u{1c}")?;
    terminal.wait_for(PROMPT)?;
    terminal.say("echo status $?\n")?;
    terminal.wait_for("status 131")?;
    terminal.wait_for(PROMPT)?;
    // ^Z stops the foreground job; `fg` goes on with it, and gives it the terminal.
    terminal.say("sh -c \"echo to be stopp''ed; exec cat\"\n")?;
    terminal.wait_for("to be stopped")?;
    terminal.say("\u{1a}")?;
    terminal.wait_for("Stopped")?;
    terminal.say("jobs\n")?;
    terminal.wait_for("Stopped")?;
    terminal.say("fg\n")?;
    terminal.wait_for("fg\r\nsh -c")?;
    terminal.say("in front again\n")?;
    terminal.wait_for("in front again\r\nin front again")?;
    terminal.say("\u{4}")?;
    terminal.wait_for(PROMPT)
}

/// Says where it is on the terminal.
const WATCHER: &str = "import os, time; front = lambda: os.tcgetpgrp(0) == os.getpgrp(); \
    print('star' + 'ted', flush=True); [time.sleep(.01) for _ in iter(front, False)]; \
    print('be' + 'hind', flush=True); [time.sleep(.01) for _ in iter(front, True)]; \
    print('now in fr' + 'ont', flush=True); [time.sleep(0.05) for _ in iter(int, 1)]";

fn background_jobs(terminal: &mut Terminal) -> Result<()> {
    // From the foreground to the background and back; nothing but the job itself can tell when it is there.
    terminal.say(&format!("python3 -c \"{WATCHER}\"\n"))?;
    terminal.wait_for("started")?;
    terminal.say("\u{1a}")?;
    terminal.wait_for("Stopped")?;
    terminal.wait_for(PROMPT)?;
    terminal.say("bg\n")?;
    terminal.wait_for("behind")?;
    terminal.say("jobs\n")?;
    terminal.wait_for("Running")?;
    terminal.wait_for(PROMPT)?;
    terminal.say("fg\n")?;
    terminal.wait_for("now in front")?;
    terminal.say("\u{3}")?;
    terminal.wait_for(PROMPT)?;
    terminal.say("sleep 1000 &\n")?;
    terminal.wait_for(PROMPT)?;
    terminal.say("kill %1; wait %1; echo ended $?\n")?;
    terminal.wait_for("ended 143")?;
    terminal.wait_for(PROMPT)?;
    // A job in the background may not read the terminal, and with TOSTOP not write to it: it is stopped. By any name of
    // the terminal.
    terminal.say("cat /dev/tty & wait; jobs -l\n")?;
    terminal.wait_for("Stopped (tty input)")?;
    terminal.run("kill -9 %1; wait")?;
    terminal.say("stty tostop; echo loud & wait; jobs -l; stty -tostop\n")?;
    terminal.wait_for("Stopped (tty output)")?;
    terminal.say("fg\n")?;
    terminal.wait_for("\r\nloud\r\n")?;
    terminal.wait_for(PROMPT)?;
    // Nor change it.
    terminal.say("stty -echoe & wait; jobs -l\n")?;
    terminal.wait_for("Stopped (tty output)")?;
    terminal.run("kill -9 %1; wait")
}

/// An interpreter with line editing of its own.
fn python(terminal: &mut Terminal) -> Result<()> {
    terminal.say("python3 -q\n")?;
    terminal.wait_for(">>> ")?;
    // The cursor goes left, and what was forgotten is put in.
    terminal.say("print(6*)\u{1b}[D7\n")?;
    terminal.wait_for("42")?;
    terminal.wait_for(">>> ")?;
    terminal.say("import os; os.get_terminal_size()\n")?;
    terminal.wait_for("columns=123, lines=41")?;
    terminal.wait_for(">>> ")?;
    // At work; at its prompt there is a moment in which it does not notice.
    terminal.say("import time; print('wai' + 'ting'); [time.sleep(0.05) for _ in iter(int, 1)]\n")?;
    terminal.wait_for("waiting")?;
    terminal.say("\u{3}")?;
    terminal.wait_for("KeyboardInterrupt")?;
    terminal.wait_for(">>> ")?;
    terminal.say("\u{4}")?;
    terminal.wait_for(PROMPT)
}

/// The terminal's other end, as the runtime sends it.
fn receive(listener: &UnixListener) -> Result<OwnedFd> {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
    ensure!(poll(&mut fds, Some(&limit))? > 0, "nobody connected to the console socket");
    let (stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 4096];
    recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message
            && let Some(fd) = fds.next()
        {
            return Ok(fd);
        }
    }
    Err(anyhow!("the runtime sent no descriptor"))
}

/// Our end of the session.
struct Terminal {
    file: File,
    seen: Vec<u8>,
    /// What was already waited for.
    read_up_to: usize,
}

impl Terminal {
    fn new(fd: OwnedFd) -> Self {
        Self { file: File::from(fd), seen: Vec::new(), read_up_to: 0 }
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.file, size).context("setting the terminal's size")
    }

    /// Has the shell do something that says nothing.
    fn run(&mut self, line: &str) -> Result<()> {
        self.say(&format!("{line}\n"))?;
        self.wait_for(PROMPT)
    }

    fn say(&mut self, text: &str) -> Result<()> {
        self.file.write_all(text.as_bytes()).context("writing to the terminal")
    }

    /// Reads until this text has come, after what was waited for before.
    fn wait_for(&mut self, text: &str) -> Result<()> {
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let fresh = &self.seen[self.read_up_to..];
            if let Some(at) = fresh.windows(text.len()).position(|window| window == text.as_bytes()) {
                self.read_up_to += at + text.len();
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let limit =
                Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
            let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
            if poll(&mut fds, Some(&limit))? == 0 {
                bail!("{text:?} did not come");
            }
            let mut buffer = [0; 4096];
            match self.file.read(&mut buffer) {
                Ok(0) => bail!("the terminal was closed before {text:?} came"),
                Ok(count) => self.seen.extend_from_slice(&buffer[..count]),
                Err(error) => return Err(error).context("reading from the terminal"),
            }
        }
    }

    fn all(&self) -> String {
        String::from_utf8_lossy(&self.seen).replace('\r', "")
    }
}
