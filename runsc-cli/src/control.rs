//! Messages between the command line and a sandbox: JSON with a length before it, descriptors beside it.
//!
//! One connection carries one request. `Exec` keeps its connection: the sandbox answers `Started`, later `Exited`, and
//! takes `Signal`s for the new process meanwhile; a connection that is closed early ends the process. `Watch` keeps its
//! connection for the checkpoint. The bytes of an event, and of a function's response, follow their messages as they are.
//!
//! Invariants: neither side trusts the other's lengths, and neither waits for the other while it holds a lock.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::fail;
use crate::restored::Report;
use crate::spec::Process;

/// The longest message: arguments and environment of a process take most.
const MAX_LEN: usize = 8 << 20;
/// The most descriptors with one message.
const MAX_FDS: usize = 4;

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Go on: ids are mapped, cgroups entered (launch channel only).
    Go,
    /// Run the container's process.
    Start,
    /// Run another one; three descriptors come with it. `controls_terminal`: they are a terminal of their own.
    Exec { process: Box<Process>, controls_terminal: bool },
    /// Send a signal.
    Signal { signal: i32, target: Target },
    /// List processes.
    Processes,
    /// Stop every process where it is.
    Pause,
    /// Let them go on.
    Resume,
    /// Stop every process and write the container's state to the descriptor that comes with this. When that has been
    /// answered, the processes go on as soon as the connection closes, unless a `Signal` that ends them comes first.
    Checkpoint { refuse_tcp: bool },
    /// Tell what its restore took. `first_response`: it has just given its first response.
    Restored { first_response: bool },
    /// Answer when the container's init process has ended.
    Wait,
    /// Before `Start`: when the program is ready, stop every process and say `Reached`. A `Checkpoint` comes next; where the
    /// connection closes instead, everything goes on.
    Watch { moment: Moment },
    /// Hand an event of `len` bytes, which follow, to the function.
    Invoke { len: u32, timeout_ms: u64 },
}

/// When a program is ready.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Moment {
    Listen,
    Accept,
    /// A regular expression.
    Line(String),
    LambdaNext,
    Signal(i32),
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// The process of this connection; else the container's init process.
    Own,
    All,
    Pid(i32),
    /// The foreground process group of the terminal of this connection's process.
    Foreground,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Response {
    Done,
    Failed(String),
    /// With the new process's number in the container.
    Started(i32),
    /// With its exit code, or 128 + signal.
    Exited(u8),
    Processes(Vec<ProcessInfo>),
    /// What a restore took; the answer to a start as well, where that was one.
    Restored(Box<Report>),
    /// What was written.
    Saved {
        objects: u64,
        pages: u64,
        zero_pages: u64,
    },
    /// What was watched for has come.
    Reached,
    /// The function's response, or its error, of `len` bytes, which follow.
    Invoked {
        error: Option<String>,
        len: u32,
    },
}

/// A line of `ps`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ProcessInfo {
    pub pid: i32,
    pub ppid: i32,
    pub uid: u32,
    pub threads: u32,
    pub command: String,
}

impl Response {
    /// For requests that have nothing to tell.
    pub fn done(self) -> Result<()> {
        match self {
            Response::Done | Response::Restored(_) => Ok(()),
            Response::Failed(message) => Err(Error::new(message)),
            other => fail!("the sandbox answered {other:?}"),
        }
    }
}

/// Connects to a sandbox's control socket. Unix addresses are short and `--root` need not be.
pub fn connect(path: &Path) -> Result<UnixStream> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let dir = std::fs::File::open(dir).context(dir.display())?;
    UnixStream::connect(short_path(dir.as_fd(), path)).context("reaching the sandbox")
}

/// Makes a sandbox's control socket.
pub fn listen(path: &Path) -> Result<std::os::unix::net::UnixListener> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let dir = std::fs::File::open(dir).context(dir.display())?;
    std::os::unix::net::UnixListener::bind(short_path(dir.as_fd(), path)).context("the control socket")
}

fn short_path(dir: BorrowedFd<'_>, path: &Path) -> String {
    use std::os::fd::AsRawFd;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())
}

/// Sends one message.
pub fn send<T: Serialize>(stream: &UnixStream, message: &T, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let text = serde_json::to_vec(message).context("a control message")?;
    let len = u32::try_from(text.len()).ok().filter(|n| *n as usize <= MAX_LEN);
    let Some(len) = len else { fail!("a control message of {} bytes is too long", text.len()) };
    let header = len.to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        fail!("a control message with {} descriptors", fds.len());
    }
    let doing = "talking to the sandbox";
    let sent = rustix::net::sendmsg(stream, &[IoSlice::new(&header)], &mut control, SendFlags::NOSIGNAL);
    if sent.context(doing)? != header.len() {
        fail!("{doing}: the message was cut");
    }
    let mut stream = stream;
    stream.write_all(&text).context(doing)
}

/// Receives one message; `None` where the other side has closed.
pub fn receive<T: serde::de::DeserializeOwned>(stream: &UnixStream) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let doing = "talking to the sandbox";
    let mut header = [0u8; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let slices = &mut [IoSliceMut::new(&mut header)];
        match rustix::net::recvmsg(stream, slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => break other.context(doing)?.bytes,
        }
    };
    if got == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    let mut stream = stream;
    stream.read_exact(&mut header[got..]).context(doing)?;
    let len = u32::from_le_bytes(header) as usize;
    if len > MAX_LEN {
        fail!("{doing}: a message of {len} bytes");
    }
    let mut text = vec![0; len];
    stream.read_exact(&mut text).context(doing)?;
    let message = crate::spec::parse_json(&text, "control message")?;
    Ok(Some((message, fds)))
}

/// Sends the bytes that were announced.
pub fn send_bytes(mut stream: &UnixStream, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).context("talking to the sandbox")
}

/// Receives the bytes that were announced: `len`, of which `most` are accepted.
pub fn receive_bytes(mut stream: &UnixStream, len: u32, most: usize) -> Result<Vec<u8>> {
    let doing = "talking to the sandbox";
    let len = usize::try_from(len).ok().filter(|len| *len <= most);
    let Some(len) = len else { fail!("{doing}: too many bytes") };
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).context(doing)?;
    Ok(bytes)
}

/// Asks for one thing and waits for the answer.
pub fn call(path: &Path, request: &Request) -> Result<Response> {
    let stream = connect(path)?;
    send(&stream, request, &[])?;
    match receive(&stream)? {
        Some((response, _)) => Ok(response),
        None => fail!("the sandbox has ended"),
    }
}
