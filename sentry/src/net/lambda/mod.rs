//! The Lambda Runtime API, served by the sandbox itself to programs that are written for Lambda.
//!
//! It has no socket of the host's: a TCP socket of the container that connects to the API's address is connected to
//! [`RuntimeApi`] ([`socket`]), and what it sends are requests ([`http`]). A function's poll for its next event is thus data
//! like anything else in the Sentry: it is still there after a checkpoint, and an event that is handed in answers it.
//!
//! Invariants: a container without the API pays one look at a word per socket that it makes. Clients are guests: everything
//! they send has a limit, and so has the number of connections. While the API is frozen no event is delivered: what a
//! checkpoint stores has seen none that came after the moment for which it was taken. Nothing is woken or called with the
//! state locked.

mod http;
mod saved;
pub(crate) mod socket;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddrV4;
use std::sync::Arc;

use self::http::{Reader, Request, Wrong};
use crate::entry::Watch;
use crate::sync::{Events, Level, Mutex, WaitQueue};

pub use saved::{Connection as SavedConnection, Saved};

/// The longest event.
pub const MAX_EVENT: usize = http::MAX_BODY;
/// The most connections at a time. A client has one or two.
const MAX_CONNECTIONS: usize = 32;
/// The most events that wait for a poll, and the most that were delivered and have no response.
const MAX_QUEUED: usize = 1024;
/// How much a connection may send ahead of the answer that it waits for.
const MAX_AHEAD: usize = 64 << 10;
/// How much may wait to be read before further requests are looked at.
const MAX_BEHIND: usize = 64 << 10;

/// What became of an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Response(Vec<u8>),
    /// The function failed, and said so: the error's type, and its description in JSON.
    Error {
        kind: String,
        body: Vec<u8>,
    },
}

/// Is told the outcome, once. Called with nothing locked.
pub struct OnOutcome(pub Box<dyn FnOnce(Outcome) + Send>);

impl fmt::Debug for OnOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnOutcome")
    }
}

/// An event on its way to the function.
#[derive(Debug)]
struct Invocation {
    id: String,
    deadline_ms: u64,
    trace_id: String,
    event: Vec<u8>,
    on_outcome: OnOutcome,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    /// The next event.
    Next,
    /// To be restored (`restore/next`).
    Restore,
}

/// One connection, by its number.
#[derive(Debug)]
struct Connection {
    reader: Reader,
    /// What was answered and not read, from `read` on.
    output: Vec<u8>,
    read: usize,
    poll: Option<Poll>,
    /// After what is in `output`, the stream ends.
    closing: bool,
    /// `100 Continue` was said for the request that is under way.
    continued: bool,
    shut_read: bool,
    shut_write: bool,
    queue: Arc<WaitQueue>,
    /// The client's.
    port: u16,
}

impl Connection {
    fn unread(&self) -> usize {
        self.output.len() - self.read
    }
    fn answer(&mut self, status: &str, headers: &str, body: &[u8], close: bool) {
        if self.read == self.output.len() {
            (self.output, self.read) = (Vec::new(), 0);
        }
        let connection = if close { "Connection: close\r\n" } else { "" };
        let head =
            format!("HTTP/1.1 {status}\r\n{connection}{headers}Content-Length: {}\r\n\r\n", body.len());
        self.output.extend_from_slice(head.as_bytes());
        self.output.extend_from_slice(body);
        self.closing |= close;
    }
    fn events(&self) -> Events {
        let mut events = Events::empty();
        if self.unread() > 0 || self.closing || self.shut_read {
            events |= Events::READABLE;
        }
        if self.closing || self.shut_write || self.reader.raw().len() < self.limit() {
            events |= Events::WRITABLE;
        }
        if self.closing || self.shut_read {
            events |= Events::RDHUP;
        }
        if (self.closing || self.shut_read) && self.shut_write {
            events |= Events::HUP;
        }
        events
    }
    /// How many bytes may wait to be looked at. A request under way has limits of its own.
    fn limit(&self) -> usize {
        let busy = self.poll.is_some() || self.unread() > MAX_BEHIND;
        if busy { MAX_AHEAD } else { usize::MAX }
    }
}

#[derive(Debug, Default)]
struct State {
    frozen: bool,
    connections: BTreeMap<u64, Connection>,
    last_connection: u64,
    /// Connections that wait for an event, first come, first served.
    polls: VecDeque<u64>,
    queued: VecDeque<Invocation>,
    /// Events that were delivered, by their request ids. Who waits for the outcome may be of the time before a restore.
    running: BTreeMap<String, Option<OnOutcome>>,
    failed: Option<String>,
}

/// What is to be done when the state is no longer locked.
#[derive(Debug, Default)]
struct Effects {
    wake: Vec<Arc<WaitQueue>>,
    outcomes: Vec<(OnOutcome, Outcome)>,
    /// The moment that is watched for has come.
    reached: bool,
}

impl Effects {
    fn carry_out(self) -> bool {
        for queue in self.wake {
            queue.notify(Events::READABLE | Events::WRITABLE | Events::RDHUP);
        }
        for (on_outcome, outcome) in self.outcomes {
            (on_outcome.0)(outcome);
        }
        self.reached
    }
}

/// The API of one container.
pub struct RuntimeApi {
    address: SocketAddrV4,
    function_arn: String,
    state: Mutex<State>,
}

impl RuntimeApi {
    /// Served at `address`, to a function of this name.
    pub fn new(address: SocketAddrV4, function_arn: String) -> Arc<RuntimeApi> {
        let function_arn: String = function_arn.chars().filter(|c| c.is_ascii_graphic()).take(256).collect();
        let state = Mutex::new(Level::Socket, State::default());
        Arc::new(RuntimeApi { address, function_arn, state })
    }

    /// Hands an event in. `id` and `trace_id` are for headers; the deadline is in milliseconds since 1970. `Err` where too many
    /// wait already.
    pub fn invoke(
        &self,
        id: String,
        trace_id: String,
        deadline_ms: u64,
        event: Vec<u8>,
        on_outcome: OnOutcome,
    ) -> Result<(), OnOutcome> {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        if state.queued.len() >= MAX_QUEUED || state.running.len() >= MAX_QUEUED || event.len() > MAX_EVENT {
            return Err(on_outcome);
        }
        state.queued.push_back(Invocation { id, deadline_ms, trace_id, event, on_outcome });
        self.deliver(&mut state, &mut effects);
        drop(state);
        effects.carry_out();
        Ok(())
    }
    /// Nobody waits for this event's outcome any longer. Where it was not delivered, it will not be.
    pub fn cancel(&self, id: &str) {
        let dropped = {
            let mut state = self.state.lock();
            let at = state.queued.iter().position(|invocation| invocation.id == id);
            let queued = at.and_then(|at| state.queued.remove(at));
            (queued, state.running.get_mut(id).and_then(Option::take))
        };
        drop(dropped);
    }
    /// Why the function's initialisation failed, where it said so.
    pub fn failure(&self) -> Option<String> {
        self.state.lock().failed.clone()
    }

    /// No event is delivered until [`RuntimeApi::thaw`].
    pub(crate) fn freeze(&self) {
        self.state.lock().frozen = true;
    }
    pub(crate) fn thaw(&self) {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        state.frozen = false;
        // Whoever waits to be restored goes on: it was, or nobody will.
        for connection in state.connections.values_mut().filter(|c| c.poll == Some(Poll::Restore)) {
            connection.poll = None;
            connection.answer("200 OK", "Content-Type: application/json\r\n", b"", false);
            effects.wake.push(connection.queue.clone());
        }
        self.deliver(&mut state, &mut effects);
        drop(state);
        effects.carry_out();
    }

    /// Looks at what a connection has sent, and at what can be delivered then.
    fn run(&self, state: &mut State, id: u64, watch: Option<&Watch>, effects: &mut Effects) {
        advance(state, id, watch, effects);
        self.deliver(state, effects);
    }

    /// Answers polls with events, as long as there are both.
    fn deliver(&self, state: &mut State, effects: &mut Effects) {
        while !state.frozen
            && !state.queued.is_empty()
            && let Some(id) = state.polls.pop_front()
            && let Some(connection) = state.connections.get_mut(&id)
            && let Some(invocation) = state.queued.pop_front()
        {
            connection.poll = None;
            let headers = format!(
                "Content-Type: application/json\r\n\
                 Lambda-Runtime-Aws-Request-Id: {}\r\n\
                 Lambda-Runtime-Deadline-Ms: {}\r\n\
                 Lambda-Runtime-Invoked-Function-Arn: {}\r\n\
                 Lambda-Runtime-Trace-Id: {}\r\n",
                invocation.id, invocation.deadline_ms, self.function_arn, invocation.trace_id
            );
            connection.answer("200 OK", &headers, &invocation.event, false);
            effects.wake.push(connection.queue.clone());
            state.running.insert(invocation.id, Some(invocation.on_outcome));
            advance(state, id, None, effects);
        }
    }
}

/// Looks at the requests of a connection, as far as they can be answered without an event.
fn advance(state: &mut State, id: u64, watch: Option<&Watch>, effects: &mut Effects) {
    loop {
        let Some(connection) = state.connections.get_mut(&id) else { return };
        if connection.poll.is_some() || connection.closing || connection.unread() > MAX_BEHIND {
            return;
        }
        match connection.reader.next() {
            Ok(Some(request)) => {
                connection.continued = false;
                effects.wake.push(connection.queue.clone());
                handle(state, id, request, watch, effects);
            }
            Ok(None) => {
                let waits = connection.reader.head().is_some_and(|head| head.expects);
                if waits && !connection.continued {
                    connection.continued = true;
                    connection.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    effects.wake.push(connection.queue.clone());
                }
                return;
            }
            Err(wrong) => return refuse(state, id, wrong, effects),
        }
    }
}

/// Ends a connection on which no further request can be found.
fn refuse(state: &mut State, id: u64, wrong: Wrong, effects: &mut Effects) {
    let Some(connection) = state.connections.get_mut(&id) else { return };
    let path = connection.reader.head().map(|head| head.path.clone()).unwrap_or_default();
    let (status, kind, words) = match wrong {
        Wrong::Malformed => ("400 Bad Request", "InvalidRequest", "this is no HTTP request"),
        Wrong::HeadTooLarge => {
            ("431 Request Header Fields Too Large", "InvalidRequest", "the head is too long")
        }
        Wrong::BodyTooLarge => ("413 Content Too Large", "RequestEntityTooLarge", "the body is over 6 MiB"),
    };
    connection.answer(status, JSON, error_body(kind, words).as_bytes(), true);
    connection.reader = Reader::default();
    effects.wake.push(connection.queue.clone());
    // Whoever waits for this response is told as well.
    if wrong == Wrong::BodyTooLarge
        && let Route::Response(request) | Route::Error(request) = route("POST", &path)
        && let Some(on_outcome) = state.running.remove(request).flatten()
    {
        let kind = "Function.ResponseSizeTooLarge";
        let body = error_body(kind, "the response is over 6 MiB").into_bytes();
        effects.outcomes.push((on_outcome, Outcome::Error { kind: kind.into(), body }));
    }
}

/// Answers a request, or lets the connection wait.
fn handle(state: &mut State, id: u64, request: Request, watch: Option<&Watch>, effects: &mut Effects) {
    let Request { head, body } = request;
    let Some(connection) = state.connections.get_mut(&id) else { return };
    let close = head.close;
    let kind = || head.error_type.clone().unwrap_or_else(|| "Runtime.Unknown".into());
    let (status, answer) = match route(&head.method, &head.path) {
        poll @ (Route::Next | Route::RestoreNext) => {
            let next = poll == Route::Next;
            if watch.is_some_and(Watch::take_lambda) {
                state.frozen = true;
                effects.reached = true;
            } else if !next && !state.frozen {
                // Nobody takes an image here.
                return connection.answer("200 OK", JSON, b"", close);
            }
            connection.poll = Some(if next { Poll::Next } else { Poll::Restore });
            if next {
                state.polls.push_back(id);
            }
            return;
        }
        route @ (Route::Response(invocation) | Route::Error(invocation)) => {
            match state.running.remove(invocation) {
                Some(on_outcome) => {
                    let outcome = match route {
                        Route::Error(_) => Outcome::Error { kind: kind(), body },
                        _ => Outcome::Response(body),
                    };
                    effects.outcomes.extend(on_outcome.map(|on_outcome| (on_outcome, outcome)));
                    ("202 Accepted", ACCEPTED.to_owned())
                }
                None => ("400 Bad Request", error_body("InvalidRequestID", "there is no such request")),
            }
        }
        Route::InitError => {
            tracing::warn!("the function says that it cannot start: {}", kind());
            state.failed = Some(kind());
            ("202 Accepted", ACCEPTED.to_owned())
        }
        Route::WrongMethod => {
            ("405 Method Not Allowed", error_body("InvalidMethod", "this cannot be done here"))
        }
        Route::Unknown => ("404 Not Found", error_body("NotFound", "there is nothing here")),
    };
    connection.answer(status, JSON, answer.as_bytes(), close);
}

impl fmt::Debug for RuntimeApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuntimeApi({})", self.address)
    }
}

const JSON: &str = "Content-Type: application/json\r\n";
const ACCEPTED: &str = "{\"status\":\"OK\"}\n";

fn error_body(kind: &str, message: &str) -> String {
    format!("{{\"errorMessage\":\"{message}\",\"errorType\":\"{kind}\"}}\n")
}

/// What a request is for.
#[derive(Debug, PartialEq, Eq)]
enum Route<'a> {
    Next,
    RestoreNext,
    /// Of an event, by its request id.
    Response(&'a str),
    Error(&'a str),
    InitError,
    WrongMethod,
    Unknown,
}

fn route<'a>(method: &str, path: &'a str) -> Route<'a> {
    let path = path.split('?').next().unwrap_or_default();
    let Some(path) = path.strip_prefix("/2018-06-01/runtime/") else { return Route::Unknown };
    let (wanted, route) = match path {
        "invocation/next" => ("GET", Route::Next),
        "restore/next" => ("GET", Route::RestoreNext),
        "init/error" | "restore/error" => ("POST", Route::InitError),
        _ => {
            let Some((id, what)) = path.strip_prefix("invocation/").and_then(|rest| rest.split_once('/'))
            else {
                return Route::Unknown;
            };
            match what {
                "response" => ("POST", Route::Response(id)),
                "error" => ("POST", Route::Error(id)),
                _ => return Route::Unknown,
            }
        }
    };
    if method == wanted { route } else { Route::WrongMethod }
}

#[cfg(test)]
mod tests;
