use std::sync::mpsc::{Receiver, channel};

use super::*;

fn api() -> Arc<RuntimeApi> {
    RuntimeApi::new("127.0.0.1:9001".parse().unwrap(), "arn:aws:lambda:x:0:function:f".into())
}

impl RuntimeApi {
    fn connect(&self) -> u64 {
        let mut state = self.state.lock();
        let id = state.last_connection + 1;
        state.last_connection = id;
        let connection = Connection {
            reader: Reader::default(),
            output: Vec::new(),
            read: 0,
            poll: None,
            closing: false,
            continued: false,
            shut_read: false,
            shut_write: false,
            queue: WaitQueue::new(),
            port: 1,
        };
        state.connections.insert(id, connection);
        id
    }
    fn says(&self, id: u64, text: &str) -> bool {
        self.says_bytes(id, text.as_bytes())
    }
    fn says_bytes(&self, id: u64, bytes: &[u8]) -> bool {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        state.connections.get_mut(&id).unwrap().reader.feed(bytes);
        self.run(&mut state, id, None, &mut effects);
        drop(state);
        effects.carry_out()
    }
    fn hears(&self, id: u64) -> String {
        let mut state = self.state.lock();
        let connection = state.connections.get_mut(&id).unwrap();
        let heard = String::from_utf8_lossy(&connection.output[connection.read..]).into_owned();
        connection.read = connection.output.len();
        heard
    }
    fn event(&self, id: &str, event: &str) -> Receiver<Outcome> {
        let (send, outcome) = channel();
        let told = OnOutcome(Box::new(move |outcome| drop(send.send(outcome))));
        assert!(self.invoke(id.into(), "Root=1".into(), 77, event.into(), told).is_ok());
        outcome
    }
}

const NEXT: &str = "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n";

fn post(path: &str, headers: &str, body: &str) -> String {
    let len = body.len();
    format!("POST /2018-06-01/runtime/{path} HTTP/1.1\r\n{headers}Content-Length: {len}\r\n\r\n{body}")
}

#[test]
fn an_event_answers_the_poll_and_its_response_goes_back() {
    let api = api();
    let client = api.connect();
    api.says(client, NEXT);
    assert_eq!(api.hears(client), "");
    let outcome = api.event("one", "{\"a\":1}");
    let heard = api.hears(client);
    assert!(heard.starts_with("HTTP/1.1 200 OK\r\n") && heard.ends_with("\r\n\r\n{\"a\":1}"), "{heard}");
    for header in [
        "Lambda-Runtime-Aws-Request-Id: one\r\n",
        "Lambda-Runtime-Deadline-Ms: 77\r\n",
        "Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:x:0:function:f\r\n",
        "Lambda-Runtime-Trace-Id: Root=1\r\n",
        "Content-Length: 7\r\n",
    ] {
        assert!(heard.contains(header), "{header:?} in {heard}");
    }
    api.says(client, &post("invocation/one/response", "", "done"));
    assert!(api.hears(client).starts_with("HTTP/1.1 202 "));
    assert_eq!(outcome.try_recv(), Ok(Outcome::Response("done".into())));
    // Once only.
    api.says(client, &post("invocation/one/response", "", "again"));
    assert!(api.hears(client).contains("InvalidRequestID"));
    // Events wait for polls, too.
    let outcome = api.event("two", "x");
    api.says(client, NEXT);
    assert!(api.hears(client).contains("Request-Id: two"));
    let kind = "Lambda-Runtime-Function-Error-Type: Bad\r\n";
    api.says(client, &post("invocation/two/error", kind, "{}"));
    assert_eq!(outcome.try_recv(), Ok(Outcome::Error { kind: "Bad".into(), body: "{}".into() }));
}

#[test]
fn other_requests_are_answered_too() {
    let api = api();
    let client = api.connect();
    let status = |text: &str| {
        api.says(client, text);
        api.hears(client).lines().next().unwrap_or_default().to_owned()
    };
    assert!(status("GET /elsewhere HTTP/1.1\r\n\r\n").contains("404"));
    assert!(status("GET /2018-06-01/runtime/invocation/x/other HTTP/1.1\r\n\r\n").contains("404"));
    assert!(status("DELETE /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n").contains("405"));
    assert!(status("GET /2018-06-01/runtime/restore/next HTTP/1.1\r\n\r\n").contains("200"));
    assert!(status(&post("init/error", "Lambda-Runtime-Function-Error-Type: E\r\n", "{}")).contains("202"));
    assert_eq!(api.failure().as_deref(), Some("E"));
    assert!(status("nonsense\r\n\r\n").contains("400"));
}

#[test]
fn a_response_that_is_too_long_is_told_to_both_sides() {
    let api = api();
    let client = api.connect();
    api.says(client, NEXT);
    let outcome = api.event("one", "{}");
    api.hears(client);
    api.says(
        client,
        &format!(
            "POST /2018-06-01/runtime/invocation/one/response HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
            MAX_EVENT + 1
        ),
    );
    assert!(api.hears(client).contains("RequestEntityTooLarge"));
    let Ok(Outcome::Error { kind, .. }) = outcome.try_recv() else { panic!("no error") };
    assert_eq!(kind, "Function.ResponseSizeTooLarge");
}

#[test]
fn what_expects_is_told_to_go_on_once() {
    let api = api();
    let client = api.connect();
    let head =
        "POST /2018-06-01/runtime/init/error HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    api.says(client, head);
    assert_eq!(api.hears(client), "HTTP/1.1 100 Continue\r\n\r\n");
    api.says(client, "{");
    assert_eq!(api.hears(client), "");
    api.says(client, "}");
    assert!(api.hears(client).starts_with("HTTP/1.1 202 "));
}

#[test]
fn what_is_frozen_is_saved_without_later_events() {
    let api = api();
    let (first, second) = (api.connect(), api.connect());
    api.says(second, NEXT);
    api.says(first, NEXT);
    api.says(first, NEXT);
    api.freeze();
    let outcome = api.event("late", "x");
    let saved = api.saved();
    assert_eq!(saved.polls, [second, first]);
    assert!(saved.connections.iter().all(|(_, connection)| connection.output.is_empty()));
    api.thaw();
    assert!(api.hears(second).contains("late") && outcome.try_recv().is_err());

    let copy = RuntimeApi::restored(&saved).unwrap();
    let _waits = copy.event("one", "1");
    assert_eq!(copy.hears(second), "");
    copy.thaw();
    assert!(copy.hears(second).contains("Request-Id: one"));
    let _waits = copy.event("two", "2");
    assert!(copy.hears(first).contains("Request-Id: two"));
    // The second request of the first connection was there already.
    let _waits = copy.event("three", "3");
    assert!(copy.hears(first).contains("Request-Id: three"));

    let wrong = |change: &dyn Fn(&mut Saved)| {
        let mut saved = saved.clone();
        change(&mut saved);
        assert!(RuntimeApi::restored(&saved).is_err());
    };
    wrong(&|saved| saved.polls.push(99));
    wrong(&|saved| saved.connections[0].1.poll = 3);
    wrong(&|saved| saved.connections[0].1.poll = 0);
    wrong(&|saved| saved.connections[0].0 = u64::MAX);
    wrong(&|saved| saved.running.push("a\r\nb".into()));
    wrong(&|saved| saved.connections = vec![saved.connections[0].clone(); MAX_CONNECTIONS + 1]);
}

#[test]
fn many_polls_ahead_meet_many_events() {
    let api = api();
    let client = api.connect();
    api.says(client, &NEXT.repeat(500));
    for number in 0..500 {
        let _nobody_waits = api.event(&number.to_string(), "");
    }
    let mut heard = String::new();
    loop {
        let more = api.hears(client);
        if more.is_empty() {
            break;
        }
        heard.push_str(&more);
        api.says(client, "");
    }
    assert_eq!(heard.matches("Request-Id").count(), 500);
    assert!(heard.contains("Request-Id: 499\r\n"));
}

#[test]
fn any_bytes_are_survived() {
    let mut seed = 1u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize
    };
    let pieces = [
        NEXT,
        "POST ",
        "/2018-06-01/runtime/",
        "invocation/",
        "x/response",
        " HTTP/1.1\r\n",
        "\r\n",
        "Content-Length: ",
        "5",
        "0",
        "Transfer-Encoding: chunked\r\n",
        "1\r\na\r\n",
        "0\r\n\r\n",
        "\0",
        "é",
        "Expect: 100-continue\r\n",
        "Connection: close\r\n",
    ];
    for _ in 0..300 {
        let api = api();
        let client = api.connect();
        for _ in 0..40 {
            api.says(client, pieces[random() % pieces.len()]);
            if random() % 8 == 0 {
                let _nobody_waits = api.event(&random().to_string(), "event");
            }
            api.hears(client);
        }
        let copy = RuntimeApi::restored(&api.saved()).unwrap();
        assert_eq!(copy.saved(), api.saved());
    }
}
