//! A sandbox as a function's: the moment at which it is ready, and events for it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::SystemTime;

use quicksand_sentry::boot::ProcessConfig;
use quicksand_sentry::entry::{EntryPoint, LineMatcher};
use quicksand_sentry::net::lambda::{OnOutcome, Outcome, RuntimeApi};
use regex::bytes::Regex;
use rustix::pipe::{PipeFlags, pipe_with};

use super::guest::{Program, Sandbox};
use crate::control::Moment;
use crate::error::{Context, Error, Result};
use crate::fail;

/// Where a function finds the Runtime API.
const API_VARIABLE: &str = "AWS_LAMBDA_RUNTIME_API";
/// What the variable is set to where it is not set.
const API_ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9001);

/// An event that was handed in.
#[derive(Debug)]
pub struct Invocation {
    api: Arc<RuntimeApi>,
    id: String,
    outcome: Receiver<Outcome>,
    /// Readable when there is an outcome, or will be none.
    pub told: OwnedFd,
}

impl Invocation {
    /// What came of it, where that is known by now.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.try_recv().ok()
    }
}

impl Drop for Invocation {
    fn drop(&mut self) {
        self.api.cancel(&self.id);
    }
}

impl Sandbox {
    /// Watches for a moment of the program that will be started. The descriptor becomes readable when it comes, and every
    /// process stands still then.
    pub fn watch(&self, moment: &Moment) -> Result<OwnedFd> {
        let point = match moment {
            Moment::Listen => EntryPoint::Listen,
            Moment::Accept => EntryPoint::Accept,
            Moment::Signal(signal) => EntryPoint::Signal(*signal),
            Moment::LambdaNext => EntryPoint::LambdaNext,
            Moment::Line(pattern) => {
                let pattern = Regex::new(pattern).context("the pattern of the line")?;
                EntryPoint::Line(LineMatcher(Box::new(move |line| pattern.is_match(line))))
            }
        };
        let (reached, writer) = pipe_with(PipeFlags::CLOEXEC).context("a pipe")?;
        let started = || Error::new("the container has been started already");
        self.with_program(|program| -> Result<()> {
            if let (Moment::LambdaNext, Program::Run(process)) = (moment, program) {
                self.serve_runtime_api(process)?;
            }
            // One byte, into an empty pipe: it is never waited for.
            let tell = move || {
                let _ = rustix::io::write(&writer, b"!");
            };
            match self.container.watch_entry(point, Box::new(tell)) {
                true => Ok(()),
                false => fail!("the container is watched already"),
            }
        })
        .ok_or_else(started)??;
        Ok(reached)
    }

    /// Nobody waits for the moment any longer.
    pub fn stop_watching(&self) {
        self.container.abandon_entry();
    }

    fn serve_runtime_api(&self, process: &mut ProcessConfig) -> Result<()> {
        let variable = |name: &str| {
            let value = |var: &Vec<u8>| {
                let value = var.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
                std::str::from_utf8(value).ok().map(str::to_owned)
            };
            process.envp.iter().rev().find_map(value)
        };
        let address = match variable(API_VARIABLE) {
            None => API_ADDRESS,
            Some(text) => text.parse().map_err(|_| {
                Error::new(format!("{API_VARIABLE}={text}: an IPv4 address and a port are expected"))
            })?,
        };
        let region = variable("AWS_REGION").unwrap_or_else(|| "us-east-1".into());
        let name = variable("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_else(|| self.container.id.clone());
        let arn = format!("arn:aws:lambda:{region}:000000000000:function:{name}");
        if variable(API_VARIABLE).is_none() {
            process.envp.push(format!("{API_VARIABLE}={address}").into_bytes());
        }
        match self.container.serve_runtime_api(RuntimeApi::new(address, arn)) {
            true => Ok(()),
            false => fail!("the container has a Runtime API already"),
        }
    }

    /// Hands an event to the function, which has this long for it.
    pub fn invoke(&self, event: Vec<u8>, timeout_ms: u64) -> Result<Invocation> {
        if !self.is_running() {
            fail!("the container is not running");
        }
        let Some(api) = self.container.runtime_api().cloned() else {
            fail!(
                "the container has no Lambda Runtime API: it was not started with --checkpoint-at=lambda-next"
            );
        };
        if let Some(kind) = api.failure() {
            fail!("the function could not be initialised: {kind}");
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let deadline_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX).saturating_add(timeout_ms);
        let mut random = [0; 36];
        self.container.kernel.random(&mut random);
        let (id, trace_id) = (request_id(&random), trace_id(&random[16..], now.as_secs()));
        let (told, writer) = pipe_with(PipeFlags::CLOEXEC).context("a pipe")?;
        let (send, outcome) = channel();
        let on_outcome = move |told| {
            let _nobody_waits = send.send(told);
            drop(writer);
        };
        let on_outcome = OnOutcome(Box::new(on_outcome));
        match api.invoke(id.clone(), trace_id, deadline_ms, event, on_outcome) {
            Ok(()) => Ok(Invocation { api, id, outcome, told }),
            Err(_) => fail!("too many events wait for the function"),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A random UUID.
fn request_id(random: &[u8]) -> String {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(random).for_each(|(to, from)| *to = *from);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// X-Ray's form: not sampled.
fn trace_id(random: &[u8], seconds: u64) -> String {
    let root = hex(random.get(..12).unwrap_or_default());
    let parent = hex(random.get(12..20).unwrap_or_default());
    format!("Root=1-{:08x}-{root};Parent={parent};Sampled=0", seconds as u32)
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_have_their_forms() {
        let id = super::request_id(&[0xff; 36]);
        assert_eq!(id, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let trace = super::trace_id(&[0xab; 20], 0x1234_5678);
        assert_eq!(trace, "Root=1-12345678-abababababababababababab;Parent=abababababababab;Sampled=0");
    }
}
