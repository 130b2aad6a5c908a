//! HTTP/1.1 requests from a stream of bytes, as far as clients of the Runtime API send them.
//!
//! Invariants: the bytes are a guest's. Heads, headers and bodies have limits; what is over one, or makes no sense, is an error
//! that ends the connection. After an error there is no more to be read. Nothing is looked at twice that was found whole before,
//! heads and chunk sizes aside.

use httparse::{EMPTY_HEADER, Header, Status};

/// The longest head, and the most headers in one.
pub(super) const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// The longest body: what Lambda allows for a response.
pub(super) const MAX_BODY: usize = 6 << 20;
/// Of a request that comes in chunks, their sizes included.
const MAX_RAW: usize = MAX_HEAD + 2 * MAX_BODY;
/// The longest line that says how long a chunk is.
const MAX_CHUNK_LINE: usize = 256;
/// The longest header value that is kept.
const MAX_VALUE: usize = 256;

/// A request that is there as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub head: Head,
    pub body: Vec<u8>,
}

/// What of a request's head matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub method: String,
    pub path: String,
    pub content_type: Option<String>,
    /// `Lambda-Runtime-Function-Error-Type`
    pub error_type: Option<String>,
    /// The connection ends with the answer.
    pub close: bool,
    /// The client waits for a word before it sends the body.
    pub expects: bool,
}

/// Why there can be no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Malformed,
    HeadTooLarge,
    BodyTooLarge,
}

/// How far the request at the beginning of the bytes is known.
#[derive(Debug)]
enum Progress {
    Head,
    /// Where the body begins, and how long it is.
    Body {
        head: Head,
        at: usize,
        len: usize,
    },
    /// Where the body begins, where the next chunk does, and how many bytes those before have.
    Chunks {
        head: Head,
        at: usize,
        next: usize,
        len: usize,
    },
}

/// Takes bytes, gives requests.
#[derive(Debug)]
pub(super) struct Reader {
    raw: Vec<u8>,
    progress: Progress,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader { raw: Vec::new(), progress: Progress::Head }
    }
}

impl Reader {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
    }
    /// What was fed and is not part of a request that was given: fed to another reader, it makes the same.
    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }
    /// The head of a request whose body is not all there.
    pub(super) fn head(&self) -> Option<&Head> {
        match &self.progress {
            Progress::Head => None,
            Progress::Body { head, .. } | Progress::Chunks { head, .. } => Some(head),
        }
    }

    /// The next request, once it is whole.
    pub(super) fn next(&mut self) -> Result<Option<Request>, Wrong> {
        if let Progress::Head = self.progress
            && !self.read_head()?
        {
            return Ok(None);
        }
        let (head, body, end) = match &mut self.progress {
            Progress::Head => return Ok(None),
            Progress::Body { head, at, len } => {
                let end = *at + *len;
                if self.raw.len() < end {
                    return Ok(None);
                }
                (std::mem::take(head), self.raw[*at..end].to_vec(), end)
            }
            Progress::Chunks { head, at, next, len } => {
                let Some(end) = read_chunks(&self.raw, next, len)? else { return Ok(None) };
                (std::mem::take(head), join_chunks(&self.raw[*at..*next], *len), end)
            }
        };
        self.progress = Progress::Head;
        self.raw.drain(..end);
        if self.raw.is_empty() {
            // What a large body took is not kept.
            self.raw = Vec::new();
        }
        Ok(Some(Request { head, body }))
    }

    /// True once the head is there.
    fn read_head(&mut self) -> Result<bool, Wrong> {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let looked_at = &self.raw[..self.raw.len().min(MAX_HEAD)];
        let at = match request.parse(looked_at) {
            Ok(Status::Complete(at)) => at,
            Ok(Status::Partial) if looked_at.len() == MAX_HEAD => return Err(Wrong::HeadTooLarge),
            Ok(Status::Partial) => return Ok(false),
            Err(httparse::Error::TooManyHeaders) => return Err(Wrong::HeadTooLarge),
            Err(_) => return Err(Wrong::Malformed),
        };
        let mut head = Head {
            method: request.method.unwrap_or_default().to_owned(),
            path: request.path.unwrap_or_default().to_owned(),
            close: request.version == Some(0),
            ..Head::default()
        };
        let mut length = None;
        let mut chunked = false;
        for Header { name, value } in request.headers.iter() {
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
            if is("content-length") {
                let len = decimal(value)?;
                if length.is_some_and(|before| before != len) {
                    return Err(Wrong::Malformed);
                }
                length = Some(len);
            } else if is("transfer-encoding") {
                if chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(Wrong::Malformed);
                }
                chunked = true;
            } else if is("connection") {
                let mut words = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
                if words.clone().any(|word| word.eq_ignore_ascii_case(b"close")) {
                    head.close = true;
                } else if words.any(|word| word.eq_ignore_ascii_case(b"keep-alive")) {
                    head.close = false;
                }
            } else if is("expect") {
                head.expects = value.trim_ascii().eq_ignore_ascii_case(b"100-continue");
            } else if is("content-type") {
                head.content_type = text(value);
            } else if is("lambda-runtime-function-error-type") {
                head.error_type = text(value);
            }
        }
        self.progress = match (chunked, length) {
            // Where the two disagree, nobody knows where the next request begins.
            (true, Some(_)) => return Err(Wrong::Malformed),
            (true, None) => Progress::Chunks { head, at, next: at, len: 0 },
            (false, length) => {
                let len = length.unwrap_or(0);
                Progress::Body { head, at, len }
            }
        };
        match self.progress {
            Progress::Body { len, .. } if len > MAX_BODY => Err(Wrong::BodyTooLarge),
            _ => Ok(true),
        }
    }
}

fn decimal(value: &[u8]) -> Result<usize, Wrong> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Wrong::Malformed);
    }
    // Of any number of digits: what does not fit is too long.
    let text = std::str::from_utf8(digits).map_err(|_| Wrong::Malformed)?;
    text.parse().map_err(|_| Wrong::BodyTooLarge)
}

/// A value that can be shown and sent on, cut.
fn text(value: &[u8]) -> Option<String> {
    let value = &value[..value.len().min(MAX_VALUE)];
    let fine = value.iter().all(|b| (b' '..=b'~').contains(b));
    fine.then(|| value.iter().map(|b| char::from(*b)).collect())
}

/// Passes over chunks from `next` on, and adds up their bytes. Where the last one and the trailer are there, the request's end;
/// `next` is where the last one begins then.
fn read_chunks(raw: &[u8], next: &mut usize, len: &mut usize) -> Result<Option<usize>, Wrong> {
    if raw.len() > MAX_RAW {
        return Err(Wrong::BodyTooLarge);
    }
    loop {
        let rest = &raw[*next..];
        let Some((line, size)) = chunk_size(rest)? else { return Ok(None) };
        if size == 0 {
            return Ok(trailer_end(&rest[line..])?.map(|end| *next + line + end));
        }
        if size > MAX_BODY - *len {
            return Err(Wrong::BodyTooLarge);
        }
        let end = line + size;
        match rest.get(end..end + 2) {
            Some(b"\r\n") => {}
            Some(_) => return Err(Wrong::Malformed),
            None => return Ok(None),
        }
        *len += size;
        *next += end + 2;
    }
}

/// The length of a chunk's first line, end included, and the chunk's own length.
fn chunk_size(bytes: &[u8]) -> Result<Option<(usize, usize)>, Wrong> {
    let looked_at = &bytes[..bytes.len().min(MAX_CHUNK_LINE)];
    let Some(end) = looked_at.windows(2).position(|two| two == b"\r\n") else {
        return if looked_at.len() == MAX_CHUNK_LINE { Err(Wrong::Malformed) } else { Ok(None) };
    };
    let line = &looked_at[..end];
    let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Wrong::Malformed);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Wrong::Malformed)?;
    let size = usize::from_str_radix(text, 16).map_err(|_| Wrong::BodyTooLarge)?;
    Ok(Some((end + 2, size)))
}

/// Where the headers after the last chunk end.
fn trailer_end(bytes: &[u8]) -> Result<Option<usize>, Wrong> {
    if bytes.starts_with(b"\r\n") {
        return Ok(Some(2));
    }
    let looked_at = &bytes[..bytes.len().min(MAX_HEAD)];
    match looked_at.windows(4).position(|four| four == b"\r\n\r\n") {
        Some(end) => Ok(Some(end + 4)),
        None if looked_at.len() == MAX_HEAD => Err(Wrong::HeadTooLarge),
        None => Ok(None),
    }
}

/// The bytes of chunks that [`read_chunks`] found, the last one left out.
fn join_chunks(mut chunks: &[u8], len: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(len);
    while let Ok(Some((line, size))) = chunk_size(chunks)
        && let Some(chunk) = chunks.get(line..line + size)
        && size > 0
    {
        body.extend_from_slice(chunk);
        chunks = chunks.get(line + size + 2..).unwrap_or_default();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], step: usize) -> Result<Vec<Request>, Wrong> {
        let mut reader = Reader::default();
        let mut found = Vec::new();
        for piece in bytes.chunks(step) {
            reader.feed(piece);
            while let Some(request) = reader.next()? {
                found.push(request);
            }
        }
        Ok(found)
    }

    #[test]
    fn requests_are_found_however_they_are_cut() {
        let bytes = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n\
            POST /a HTTP/1.1\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello\
            POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n\
            3\r\nabc\r\n0a;x=y\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n\
            GET /c HTTP/1.0\r\n\r\n";
        for step in 1..bytes.len() {
            let found = all(bytes, step).unwrap();
            let seen: Vec<_> = found.iter().map(|r| (r.head.path.as_str(), r.body.as_slice())).collect();
            let expected: [(&str, &[u8]); 4] =
                [("/next", b""), ("/a", b"hello"), ("/b", b"abc0123456789"), ("/c", b"")];
            assert_eq!(seen, expected, "in pieces of {step}");
            assert_eq!(found[1].head.content_type.as_deref(), Some("text/plain"));
            assert!(found[2].head.expects && found[3].head.close && !found[0].head.close);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let wrong = |bytes: &[u8]| all(bytes, 7).unwrap_err();
        assert_eq!(wrong(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), Wrong::Malformed);
        assert_eq!(
            wrong(b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            Wrong::Malformed
        );
        assert_eq!(wrong(b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), Wrong::Malformed);
        assert_eq!(wrong(b"GET / HTTP/1.1\r\nContent-Length: 6291457\r\n\r\n"), Wrong::BodyTooLarge);
        let digits = [b"GET / HTTP/1.1\r\nContent-Length: ", &[b'9'; 100][..], b"\r\n\r\n"].concat();
        assert_eq!(wrong(&digits), Wrong::BodyTooLarge);
        let both = b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(wrong(both), Wrong::Malformed);
        let chunks =
            |size: &str| format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\nabcd");
        assert_eq!(wrong(chunks("2").as_bytes()), Wrong::Malformed);
        assert_eq!(wrong(chunks("ffffffffffffffff").as_bytes()), Wrong::BodyTooLarge);
        assert_eq!(wrong(chunks("fffffffffffffffffff").as_bytes()), Wrong::BodyTooLarge);
        assert_eq!(wrong(chunks(&"0".repeat(300)).as_bytes()), Wrong::Malformed);
        let header = "A: b\r\n".repeat(MAX_HEADERS + 1);
        assert_eq!(wrong(format!("GET / HTTP/1.1\r\n{header}\r\n").as_bytes()), Wrong::HeadTooLarge);
        assert_eq!(wrong(&[b"GET /".to_vec(), vec![b'a'; MAX_HEAD]].concat()), Wrong::HeadTooLarge);
    }

    #[test]
    fn many_small_chunks_are_no_way_around_the_limit() {
        let mut reader = Reader::default();
        reader.feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunks = b"1\r\na\r\n".repeat(8 << 10);
        let mut fed = 0;
        let wrong = loop {
            reader.feed(&chunks);
            fed += chunks.len();
            match reader.next() {
                Ok(None) => assert!(fed < MAX_RAW + chunks.len()),
                Ok(Some(_)) => panic!("a request without an end"),
                Err(wrong) => break wrong,
            }
        };
        assert_eq!(wrong, Wrong::BodyTooLarge);
    }
}
