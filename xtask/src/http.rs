//! Just enough of an HTTP client to send a function on this host one request.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a connection and each read may take.
const LIMIT: Duration = Duration::from_secs(20);

/// The most an answer may hold.
const ANSWER_LIMIT_BYTES: u64 = 1 << 20;

/// Sends `POST /` with a JSON body to a port of 127.0.0.1, and returns the body of a successful answer.
pub(crate) fn post(port: u16, body: &str) -> Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream =
        TcpStream::connect_timeout(&address, LIMIT).with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).context("sending the request")?;
    let mut answer = String::new();
    stream.take(ANSWER_LIMIT_BYTES).read_to_string(&mut answer).context("reading the answer")?;
    let Some((head, content)) = answer.split_once("\r\n\r\n") else { bail!("no HTTP answer but {answer:?}") };
    if head.split(' ').nth(1) != Some("200") {
        bail!("the function answered: {}", head.lines().next().unwrap_or(""));
    }
    Ok(content.to_owned())
}
