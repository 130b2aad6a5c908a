//! `invoke`: an event for a Lambda function in a container, and its response.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use quicksand_sentry::net::lambda::MAX_EVENT;

use crate::cli::{Global, InvokeArgs};
use crate::control::{self, Request, Response, Target};
use crate::error::{Context, Error, Result};
use crate::fail;
use crate::state::{self, Status};

/// The exit code where the function reports an error.
const FUNCTION_FAILED: u8 = 1;

pub fn run(global: &Global, args: &InvokeArgs) -> Result<u8> {
    let root = global.state_root();
    let status = state::read(&root, &args.id)?.status();
    if status != Status::Running {
        fail!("container {:?} is {}, not running", args.id, status.name());
    }
    invoke(&state::control_socket(&root, &args.id), &read_event(&args.event)?, args.timeout)
}

/// The event in a file; `-` is standard input.
pub fn read_event(path: &Path) -> Result<Vec<u8>> {
    let doing = format!("the event {}", path.display());
    let input: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(File::open(path).context(&doing)?),
    };
    let mut event = Vec::new();
    input.take(MAX_EVENT as u64 + 1).read_to_end(&mut event).context(&doing)?;
    if event.len() > MAX_EVENT {
        fail!("{doing}: it is longer than {} MiB", MAX_EVENT >> 20);
    }
    Ok(event)
}

/// Hands an event in and prints what comes back; the exit code.
fn invoke(socket: &Path, event: &[u8], timeout: Duration) -> Result<u8> {
    let connection = control::connect(socket)?;
    let len = u32::try_from(event.len()).context("an event")?;
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    control::send(&connection, &Request::Invoke { len, timeout_ms }, &[])?;
    control::send_bytes(&connection, event)?;
    let (error, len) = match control::receive::<Response>(&connection)? {
        Some((Response::Invoked { error, len }, _)) => (error, len),
        Some((Response::Failed(message), _)) => fail!("{message}"),
        Some((other, _)) => fail!("the sandbox answered {other:?}"),
        None => fail!("the function ended before it gave a response"),
    };
    let body = control::receive_bytes(&connection, len, MAX_EVENT)?;
    let mut out = std::io::stdout().lock();
    let printed =
        out.write_all(&body).and_then(|()| if body.ends_with(b"\n") { Ok(()) } else { out.write_all(b"\n") });
    printed.and_then(|()| out.flush()).context("standard output")?;
    match error {
        None => Ok(0),
        Some(kind) => {
            // Some clients say it in the description only.
            let described = serde_json::from_slice::<serde_json::Value>(&body).ok();
            let described = described.as_ref().and_then(|body| body["errorType"].as_str());
            let kind = described.filter(|_| kind == "Runtime.Unknown").unwrap_or(&kind);
            crate::log::failure(&format!("the function failed: {kind}"));
            Ok(FUNCTION_FAILED)
        }
    }
}

/// Hands an event in as [`invoke`] does, on a thread of its own, and ends the container then.
pub fn spawn_and_end(socket: &Path, event: Vec<u8>, timeout: Duration) -> Result<JoinHandle<Result<u8>>> {
    let socket = socket.to_owned();
    let invoke = move || {
        let result = invoke(&socket, &event, timeout);
        // It may have ended by itself.
        let kill = Request::Signal { signal: libc::SIGKILL, target: Target::All };
        let _ = control::call(&socket, &kill);
        result
    };
    std::thread::Builder::new().name("invoke".into()).spawn(invoke).context("a thread")
}

/// What came of [`spawn_and_end`].
pub fn exit_code(invocation: JoinHandle<Result<u8>>) -> Result<u8> {
    invocation.join().unwrap_or_else(|_| Err(Error::new("the thread that waits for the response died")))
}
