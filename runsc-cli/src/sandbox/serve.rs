//! The sandbox's side of the control socket.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use quicksand_host::signal::SignalFd;
use quicksand_sentry::net::lambda::{MAX_EVENT, Outcome};
use quicksand_sentry::state::SaveOptions;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::guest::{Process, Sandbox};
use crate::control::{self, Moment, Request, Response, Target};
use crate::error::{Context, Error, Result};

/// Signals that are the guest's: from the terminal that the sandbox owns, or from somebody who took the sandbox's process for
/// the container's.
const FORWARDED: [i32; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTSTP,
    libc::SIGWINCH,
];

/// The most control connections at a time. Each has a thread; an `exec` keeps its own for as long as its process runs.
const MOST_CONNECTIONS: usize = 512;

/// How long a client may take to say what it wants, and to take an answer.
const CLIENT_LIMIT: Duration = Duration::from_secs(10);

/// Takes the guest's signals. Called before any other thread is started.
pub fn take_signals() -> Result<SignalFd> {
    SignalFd::new(&FORWARDED).context("signals")
}

/// Answers that must still be sent before the process may end.
#[derive(Debug, Default)]
struct Pending {
    count: Mutex<usize>,
    none: Condvar,
}

#[derive(Debug)]
struct PendingGuard(Arc<Pending>);

impl Pending {
    fn add(self: &Arc<Pending>) -> PendingGuard {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        PendingGuard(self.clone())
    }
    /// Waits until all have been sent; not for ever, since a client may have stopped listening.
    fn drain(&self) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.none.wait_timeout_while(count, Duration::from_secs(1), |n| *n > 0);
    }
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        let mut count = self.0.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.0.none.notify_all();
        }
    }
}

/// Serves until the container's init process has ended; returns its exit code.
pub fn serve(
    sandbox: &Arc<Sandbox>,
    channel: UnixStream,
    listener: UnixListener,
    foreground: bool,
    signals: SignalFd,
) -> Result<u8> {
    let pending = Arc::new(Pending::default());
    let connections = Arc::new(());
    let (ended, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("a pipe")?;
    sandbox.close_at_end(end); // the loop below sees it close

    let mut channel = Some(channel);
    loop {
        let (on_end, on_signal, on_connection, on_channel) =
            ready(&ended, &signals, &listener, channel.as_ref());
        if on_end {
            break;
        }
        if on_signal {
            while let Ok(Some(taken)) = signals.take() {
                forward(sandbox, taken.signal, taken.sender == 0);
            }
        }
        if on_connection && let Ok((connection, _)) = listener.accept() {
            // Beyond the limit, the client sees its connection close.
            if Arc::strong_count(&connections) > MOST_CONNECTIONS {
                continue;
            }
            let (sandbox, pending, counted) = (sandbox.clone(), pending.clone(), connections.clone());
            let handle = move || {
                let _counted = counted;
                if let Err(e) = handle(&sandbox, &connection, &pending) {
                    tracing::debug!("control connection: {e}");
                }
            };
            // Out of threads: the client sees its connection close.
            let _ = std::thread::Builder::new().name("control".into()).spawn(handle);
        }
        if on_channel && let Some(stream) = &channel {
            match control::receive(stream) {
                Ok(Some((Request::Start, _))) => {
                    let response = start(sandbox);
                    control::send(stream, &response, &[])?;
                }
                Ok(Some((Request::Signal { signal, target }, _))) => {
                    if let Err(e) = sandbox.signal(signal, target, None) {
                        tracing::debug!("signal {signal}: {e}");
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    if foreground {
                        return Ok(crate::FAILED); // its maker has gone
                    }
                    channel = None;
                }
            }
        }
    }
    pending.drain();
    Ok(sandbox.exit_code())
}

/// Waits until something is to be done: the end, a signal, a connection, the launch channel.
fn ready(
    ended: &OwnedFd,
    signals: &SignalFd,
    listener: &UnixListener,
    channel: Option<&UnixStream>,
) -> (bool, bool, bool, bool) {
    let signal_fd = signals.as_fd();
    let mut fds = vec![
        PollFd::new(ended, PollFlags::IN),
        PollFd::new(&signal_fd, PollFlags::IN),
        PollFd::new(listener, PollFlags::IN),
    ];
    fds.extend(channel.map(|c| PollFd::new(c, PollFlags::IN)));
    // EINTR: nothing is ready then.
    let _ = poll(&mut fds, None);
    let is = |i: usize| fds.get(i).is_some_and(|fd| !fd.revents().is_empty());
    (is(0), is(1), is(2), is(3))
}

/// Passes on a signal that the sandbox process got.
fn forward(sandbox: &Sandbox, signal: i32, from_terminal: bool) {
    let target = if from_terminal { Target::Foreground } else { Target::Own };
    if let Err(e) = sandbox.signal(signal, target, None) {
        tracing::debug!("signal {signal}: {e}");
    }
}

fn start(sandbox: &Sandbox) -> Response {
    answer(
        sandbox
            .start()
            .map(|report| report.map_or(Response::Done, |report| Response::Restored(Box::new(report)))),
    )
}

fn answer(result: Result<Response>) -> Response {
    result.unwrap_or_else(|e| Response::Failed(e.to_string()))
}

/// One control connection.
fn handle(sandbox: &Arc<Sandbox>, connection: &UnixStream, pending: &Arc<Pending>) -> Result<()> {
    connection.set_write_timeout(Some(CLIENT_LIMIT)).context("a connection")?;
    connection.set_read_timeout(Some(CLIENT_LIMIT)).context("a connection")?;
    let received = control::receive::<Request>(connection);
    let (request, fds) = match received {
        Ok(Some(received)) => received,
        Ok(None) => return Ok(()),
        Err(e) => {
            // It may still be told, unless it has gone.
            let _ = control::send(connection, &Response::Failed(e.to_string()), &[]);
            return Err(e);
        }
    };
    // From here on it may be silent for as long as it likes.
    connection.set_read_timeout(None).context("a connection")?;
    // The answer is sent even where it tells of what ends the sandbox.
    let guard = pending.add();
    let response = match request {
        Request::Go => Response::Failed("the sandbox has been launched".into()),
        Request::Start => start(sandbox),
        Request::Signal { signal, target } => {
            answer(sandbox.signal(signal, target, None).map(|()| Response::Done))
        }
        Request::Pause => answer(sandbox.pause().map(|()| Response::Done)),
        Request::Resume => answer(sandbox.resume().map(|()| Response::Done)),
        Request::Checkpoint { refuse_tcp } => return checkpoint(sandbox, connection, fds, refuse_tcp),
        Request::Restored { first_response } => {
            answer(sandbox.restored(first_response).map(|report| Response::Restored(Box::new(report))))
        }
        Request::Watch { moment } => {
            drop(guard); // the end of the sandbox is an answer
            return watch(sandbox, connection, &moment, pending);
        }
        Request::Invoke { len, timeout_ms } => {
            drop(guard);
            return invoke(sandbox, connection, len, timeout_ms);
        }
        Request::Processes => Response::Processes(sandbox.processes()),
        Request::Wait => {
            sandbox.wait_init();
            return control::send(connection, &Response::Exited(sandbox.exit_code()), &[]);
        }
        Request::Exec { process, controls_terminal } => {
            match sandbox.exec(&process, fds, controls_terminal) {
                Ok(process) => {
                    drop(guard); // it has one of its own
                    return follow(sandbox, connection, process, pending);
                }
                Err(e) => Response::Failed(e.to_string()),
            }
        }
    };
    control::send(connection, &response, &[])
}

/// Writes the container's state, and holds it as it is until the image is there.
fn checkpoint(
    sandbox: &Sandbox,
    connection: &UnixStream,
    fds: Vec<OwnedFd>,
    refuse_connections: bool,
) -> Result<()> {
    let saved = match <[OwnedFd; 1]>::try_from(fds) {
        Ok([out]) => sandbox.checkpoint(out, SaveOptions { refuse_connections }),
        Err(fds) => Err(Error::new(format!("{} descriptors for an image", fds.len()))),
    };
    let held = match saved {
        Ok((held, saved)) => {
            let (objects, pages, zero_pages) = (saved.objects, saved.pages, saved.zero_pages);
            control::send(connection, &Response::Saved { objects, pages, zero_pages }, &[])?;
            held
        }
        Err(e) => return control::send(connection, &Response::Failed(e.to_string()), &[]),
    };
    // A client that has gone has no image: the container goes on.
    let result = match control::receive::<Request>(connection) {
        Ok(Some((Request::Signal { signal, target }, _))) => {
            sandbox.signal(signal, target, None).map(|()| Response::Done)
        }
        Ok(Some(_)) => Ok(Response::Done),
        Ok(None) | Err(_) => return Ok(()),
    };
    drop(held);
    control::send(connection, &answer(result), &[])
}

/// Waits for the moment at which the program is ready, and is checkpointed then.
fn watch(sandbox: &Sandbox, connection: &UnixStream, moment: &Moment, pending: &Arc<Pending>) -> Result<()> {
    let reached = match sandbox.watch(moment) {
        Ok(reached) => reached,
        Err(e) => return control::send(connection, &Response::Failed(e.to_string()), &[]),
    };
    // Whatever happens here, the program does not stand still for ever.
    let _watched = Watched(sandbox);
    control::send(connection, &Response::Done, &[])?;
    if !wait_for(&reached, connection, None) {
        return Ok(());
    }
    let _guard = pending.add();
    control::send(connection, &Response::Reached, &[])?;
    match control::receive::<Request>(connection)? {
        Some((Request::Checkpoint { refuse_tcp }, fds)) => checkpoint(sandbox, connection, fds, refuse_tcp),
        _ => Ok(()),
    }
}

/// A watch that ends when this is dropped.
struct Watched<'a>(&'a Sandbox);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.stop_watching();
    }
}

/// Hands an event to the function and tells what comes of it.
fn invoke(sandbox: &Sandbox, connection: &UnixStream, len: u32, timeout_ms: u64) -> Result<()> {
    connection.set_read_timeout(Some(CLIENT_LIMIT)).context("a connection")?;
    let event = control::receive_bytes(connection, len, MAX_EVENT)?;
    let invocation = match sandbox.invoke(event, timeout_ms) {
        Ok(invocation) => invocation,
        Err(e) => return control::send(connection, &Response::Failed(e.to_string()), &[]),
    };
    let there = wait_for(&invocation.told, connection, Some(Duration::from_millis(timeout_ms)));
    let (error, body) = match invocation.outcome() {
        Some(Outcome::Response(body)) => (None, body),
        Some(Outcome::Error { kind, body }) => (Some(kind), body),
        None if there => {
            return control::send(connection, &Response::Failed("the event was dropped".into()), &[]);
        }
        None => {
            let words = format!("the function gave no response in {} s", timeout_ms as f64 / 1e3);
            return control::send(connection, &Response::Failed(words), &[]);
        }
    };
    let len = u32::try_from(body.len()).context("a response")?;
    control::send(connection, &Response::Invoked { error, len }, &[])?;
    control::send_bytes(connection, &body)
}

/// Waits until a descriptor says something; false where the client went, or the time was over, first.
fn wait_for(told: &OwnedFd, connection: &UnixStream, timeout: Option<Duration>) -> bool {
    let deadline = timeout.and_then(|timeout| std::time::Instant::now().checked_add(timeout));
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(std::time::Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [PollFd::new(told, PollFlags::IN), PollFd::new(connection, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(n) if n > 0 => return !fds[0].revents().is_empty(),
            _ => return false,
        }
    }
}

/// Stays with an `exec`ed process until it has ended.
fn follow(
    sandbox: &Arc<Sandbox>,
    connection: &UnixStream,
    process: Process,
    pending: &Arc<Pending>,
) -> Result<()> {
    control::send(connection, &Response::Started(process.pid()), &[])?;
    let guard = pending.add();
    let (waited, writer) = (process.clone(), connection.try_clone().context("a connection")?);
    let wait = move || {
        let code = waited.wait();
        let sent = control::send(&writer, &Response::Exited(code), &[]);
        // Wakes the reader below.
        let _ = writer.shutdown(std::net::Shutdown::Both);
        drop(guard);
        sent
    };
    std::thread::Builder::new().name("wait-exec".into()).spawn(wait).context("a thread")?;
    loop {
        match control::receive(connection) {
            Ok(Some((Request::Signal { signal, target }, _))) => {
                if let Err(e) = sandbox.signal(signal, target, Some(&process)) {
                    tracing::debug!("signal {signal}: {e}");
                }
            }
            Ok(Some(_)) => {}
            // Either it has ended, which a signal does not change, or whoever asked for it has gone.
            Ok(None) | Err(_) => {
                return sandbox
                    .signal(libc::SIGKILL, Target::Own, Some(&process))
                    .or_else(|e: Error| if process.has_ended() { Ok(()) } else { Err(e) });
            }
        }
    }
}
