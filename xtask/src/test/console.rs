//! An interactive shell with job control, through `--console-socket`.

use super::container::{Check, LIMIT, Runtime};
use crate::process;
use crate::rootfs::{self, Kind};
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

pub(super) const CHECKS: &[Check] = &[("console/interactive-shell", interactive_shell)];

/// The longest that one answer of the shell may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

fn interactive_shell(runtime: &Runtime) -> Result<()> {
    let root = rootfs::cached(Kind::Python)?;
    let bundle = runtime.bundle(&["/bin/bash", "--norc", "-i"], |spec| {
        spec["root"]["path"] = json!(root);
        spec["process"]["terminal"] = json!(true);
        spec["process"]["env"] = json!(["PATH=/usr/bin", "PS1=ready> ", "TERM=dumb"]);
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
    let mut terminal = Terminal::new(terminal?);
    tcsetwinsize(&terminal.file, Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 })?;
    runtime.ok(&["start", "test"])?;

    let session = talk(&mut terminal);
    let ended = runtime.call(&["delete", "--force", "test"])?;
    session.with_context(|| format!("the session was:\n{}", terminal.all()))?;
    ensure!(ended.success(), "delete: {}", ended.stderr_text());
    Ok(())
}

fn talk(terminal: &mut Terminal) -> Result<()> {
    terminal.wait_for("ready> ")?;
    terminal.say("stty size; tty; test -t 0 && echo 'is a ''terminal'\n")?;
    terminal.wait_for("30 100")?;
    terminal.wait_for("/dev/pts/0")?;
    terminal.wait_for("is a terminal")?;
    // Echo and line editing once the shell's own editor is out of the way: the kernel's kill character takes back what was typed.
    terminal.say("sh -c \"echo now ''cooked; exec cat\"\n")?;
    terminal.wait_for("now cooked")?;
    terminal.say("wrong\u{15}right\n")?;
    terminal.wait_for("right\r\nright")?;
    terminal.say("\u{4}")?;
    terminal.wait_for("ready> ")?;
    // A foreground job says that it runs before it is signalled: until then the shell itself would get the signal.
    // ^C ends the foreground job, not the shell.
    terminal.say("sh -c \"echo start''ed; exec sleep 1000\"\n")?;
    terminal.wait_for("started")?;
    terminal.say("\u{3}")?;
    terminal.wait_for("ready> ")?;
    terminal.say("echo status $?\n")?;
    terminal.wait_for("status 130")?;
    terminal.wait_for("ready> ")?;
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
    terminal.wait_for("ready> ")?;
    // A background job does not read the terminal.
    terminal.say("sleep 1000 &\n")?;
    terminal.wait_for("ready> ")?;
    terminal.say("kill %1; wait %1; echo ended $?\n")?;
    terminal.wait_for("ended 143")?;
    terminal.say("echo still ''here; exit 3\n")?;
    terminal.wait_for("still here")
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
