//! `--checkpoint-at`: a program is watched from its start, and an image is taken when it is ready.
//!
//! The watch is a connection to the sandbox that is there before the program starts: the sandbox says on it that the moment has
//! come, stands still, and is checkpointed over it. Where this command dies, the program goes on.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use super::checkpoint::{self, How};
use crate::cli::{At, EntryArgs};
use crate::control::{self, Moment, Request, Response, Target};
use crate::error::{Context, Error, Result};
use crate::fail;
use crate::state::Container;

/// The exit code where the moment did not come: `timeout(1)`'s.
pub const NOT_REACHED: u8 = 124;

/// A watch for the moment at which a program is ready.
#[derive(Debug)]
pub struct Watch {
    connection: UnixStream,
    at: At,
    path: PathBuf,
    how: How,
    timeout: Option<Duration>,
    id: String,
    bundle: PathBuf,
    socket: PathBuf,
}

/// What came of a watch.
#[derive(Debug)]
pub enum Outcome {
    /// There is an image.
    Taken,
    /// The program ended first, or the time was over: in words.
    NotReached(String),
}

impl Watch {
    /// Begins to watch a container that has been created and not started. `None` where that was not asked for.
    pub fn begin(args: &EntryArgs, container: &Container) -> Result<Option<Watch>> {
        let (Some(at), Some(path)) = (args.checkpoint_at.clone(), args.image_path.clone()) else {
            return Ok(None);
        };
        let moment = match &at {
            At::Listen => Moment::Listen,
            At::Accept => Moment::Accept,
            At::Line(pattern) => Moment::Line(pattern.as_str().to_owned()),
            At::LambdaNext => Moment::LambdaNext,
            At::Signal(signal) => Moment::Signal(*signal),
        };
        let socket = container.control_socket();
        let connection = control::connect(&socket)?;
        control::send(&connection, &Request::Watch { moment }, &[])?;
        match control::receive::<Response>(&connection)? {
            Some((response, _)) => response.done()?,
            None => fail!("the sandbox has ended"),
        }
        let how = How { compression: args.compression, tcp: args.tcp, leave_running: args.leave_running };
        let (id, bundle) = (container.state.id.clone(), container.state.bundle.clone());
        Ok(Some(Watch { connection, at, path, how, timeout: args.checkpoint_timeout, id, bundle, socket }))
    }

    /// What can be said before anything is made.
    pub fn check(args: &EntryArgs) -> Result<()> {
        let Some(path) = args.image_path.as_ref().filter(|_| args.checkpoint_at.is_some()) else {
            return Ok(());
        };
        if std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
            fail!("the image {}: already there; remove it first, or choose another name", path.display());
        }
        Ok(())
    }

    /// Waits for the moment and takes the image. A container that is not to go on has ended, or is about to, afterwards.
    pub fn wait(self) -> Result<Outcome> {
        let result = self.wait_and_take();
        if !self.how.leave_running && !matches!(result, Ok(Outcome::Taken)) {
            // It may have ended by itself.
            let kill = Request::Signal { signal: libc::SIGKILL, target: Target::All };
            let _ = control::call(&self.socket, &kill);
        }
        result
    }

    /// As [`Watch::wait`], on a thread of its own. What fails is told at once where the container goes on.
    pub fn spawn(self) -> Result<JoinHandle<Result<Outcome>>> {
        let goes_on = self.how.leave_running;
        let wait = move || {
            let result = self.wait();
            if let (true, Err(error)) = (goes_on, &result) {
                tracing::warn!("no image was taken: {error}");
            }
            result
        };
        std::thread::Builder::new().name("entry".into()).spawn(wait).context("a thread")
    }

    fn wait_and_take(&self) -> Result<Outcome> {
        let at = &self.at;
        let readable = wait_readable(&self.connection, self.timeout)?;
        if !readable {
            return Ok(Outcome::NotReached(format!(
                "no image: the program was not ready ({at}) in {} s",
                self.timeout.unwrap_or_default().as_secs_f64()
            )));
        }
        match control::receive::<Response>(&self.connection)? {
            Some((Response::Reached, _)) => {}
            Some((Response::Failed(message), _)) => fail!("{message}"),
            Some((other, _)) => fail!("the sandbox answered {other:?}"),
            None => {
                return Ok(Outcome::NotReached(format!(
                    "no image: the program ended before it was ready ({at})"
                )));
            }
        }
        checkpoint::take(&self.connection, &self.path, self.how, &self.id, &self.bundle, None)?;
        Ok(Outcome::Taken)
    }
}

/// Waits until there is something to read, or the end; false where the time was over first.
fn wait_readable(connection: &UnixStream, timeout: Option<Duration>) -> Result<bool> {
    use std::time::Instant;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = left.map(Timespec::try_from).transpose().context("a time")?;
        match poll(&mut [PollFd::new(connection, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::new(format!("waiting for the program: {}", io::Error::from(e)))),
        }
    }
}

/// Our exit code, given the container's, which has ended.
pub fn exit_code(
    watch: Option<JoinHandle<Result<Outcome>>>,
    leave_running: bool,
    code: Result<u8>,
) -> Result<u8> {
    let Some(watch) = watch else { return code };
    match watch.join().unwrap_or_else(|_| Err(Error::new("the thread that takes the image died")))? {
        Outcome::Taken if leave_running => code,
        Outcome::Taken => Ok(0),
        Outcome::NotReached(words) => {
            not_reached(&words);
            Ok(NOT_REACHED)
        }
    }
}

/// Tells why there is no image.
pub fn not_reached(words: &str) {
    crate::log::failure(words);
}
