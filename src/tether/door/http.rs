//! HTTP/1.1 as the door speaks it: one request a connection, bounded, and nothing that is not needed.

use std::io::{self, Read, Write};

/// The longest head of a request, in bytes.
const HEAD: usize = 8 << 10;
/// The longest body of a request, in bytes.
const BODY: usize = 64 << 10;
/// The greatest number of header fields.
const FIELDS: usize = 64;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Method, e.g. `GET`.
    pub method: String,
    /// Target as it was sent, e.g. `/metrics`.
    pub target: String,
    /// Its Host, when it has one.
    pub host: Option<String>,
    /// Whether the body is said to be JSON and no web page sent it.
    pub deliberate: bool,
    /// Body.
    pub body: Vec<u8>,
}

/// Why there is no request.
#[derive(Debug)]
pub enum Fault {
    /// It is answered with this status.
    Refused(u16, &'static str),
    /// The other side is gone or silent.
    Gone,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Media type of the body.
    pub media: &'static str,
    /// Body.
    pub body: Vec<u8>,
}

/// What is known of a request before its body.
struct Head {
    request: Request,
    /// Length of the head itself.
    length: usize,
    /// Length of the body.
    body: usize,
    /// Whether the other side waits to be told to go on.
    waits: bool,
}

/// Reads one request.
pub fn read(stream: &mut (impl Read + Write)) -> Result<Request, Fault> {
    let mut bytes = Vec::new();
    let Head { mut request, length, body, waits } = loop {
        if let Some(head) = head(&bytes)? {
            break head;
        }
        if bytes.len() >= HEAD {
            return Err(Fault::Refused(431, "the head of the request is longer than 8 KiB"));
        }
        let room = HEAD - bytes.len();
        more(stream, &mut bytes, room)?;
    };
    if waits && bytes.len() < length + body {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|_| Fault::Gone)?;
    }
    while bytes.len() < length + body {
        let room = length + body - bytes.len();
        more(stream, &mut bytes, room)?;
    }
    request.body = bytes.drain(length..length + body).collect();
    Ok(request)
}

/// Reads at most `room` bytes, at least one.
fn more(stream: &mut impl Read, bytes: &mut Vec<u8>, room: usize) -> Result<(), Fault> {
    let mut buffer = [0; 4096];
    let room = room.min(buffer.len());
    loop {
        match stream.read(&mut buffer[..room]) {
            Ok(0) => return Err(Fault::Gone),
            Ok(count) => {
                bytes.extend_from_slice(&buffer[..count]);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Fault::Gone),
        }
    }
}

/// Reads a head, if it is there as a whole.
fn head(bytes: &[u8]) -> Result<Option<Head>, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Fault::Refused(431, "the request has more than 64 header fields"));
        }
        Err(_) => return Err(Fault::Refused(400, "this is not HTTP/1.1")),
    };
    let values = |name: &str| -> Vec<&[u8]> {
        let named = parsed.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value).collect()
    };
    if !values("transfer-encoding").is_empty() {
        return Err(Fault::Refused(501, "send the body with a Content-Length"));
    }
    let body = body_length(&values("content-length"))?;
    let host = match values("host")[..] {
        [] => None,
        [host] => Some(String::from_utf8_lossy(host).into_owned()),
        _ => return Err(Fault::Refused(400, "the Host is not one name")),
    };
    let json = matches!(values("content-type")[..], [media] if is_json(media));
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        host,
        deliberate: json && values("origin").is_empty(),
        body: Vec::new(),
    };
    let waits = values("expect").iter().any(|value| value.eq_ignore_ascii_case(b"100-continue"));
    Ok(Some(Head { request, length, body, waits }))
}

fn body_length(values: &[&[u8]]) -> Result<usize, Fault> {
    match values {
        [] => Ok(0),
        [one] if !one.is_empty() && one.iter().all(u8::is_ascii_digit) => {
            let length = str::from_utf8(one).ok().and_then(|digits| digits.parse().ok());
            match length {
                Some(length) if length <= BODY => Ok(length),
                _ => Err(Fault::Refused(413, "the body of the request is longer than 64 KiB")),
            }
        }
        _ => Err(Fault::Refused(400, "the Content-Length is not one number")),
    }
}

fn is_json(media: &[u8]) -> bool {
    let bare = media.split(|byte| *byte == b';').next().unwrap_or_default();
    bare.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

impl Answer {
    /// An answer in JSON.
    pub fn json(status: u16, value: &impl serde::Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(mut body) => {
                body.push(b'\n');
                Self { status, media: "application/json", body }
            }
            Err(error) => Self::error(500, "internal", &format!("cannot write the answer: {error}"), None),
        }
    }

    /// An error as the protocol tells it; `kind` is one of `input`, `unavailable`, `io`, `internal`.
    pub fn error(status: u16, kind: &str, message: &str, hint: Option<&str>) -> Self {
        let error = serde_json::json!({"message": message, "hint": hint, "kind": kind});
        let body = format!("{}\n", serde_json::json!({"error": error})).into_bytes();
        Self { status, media: "application/json", body }
    }

    /// What an unknown path gets, and everybody who may not know of a known one.
    pub fn not_found() -> Self {
        Self::error(404, "input", "there is nothing here", None)
    }

    /// Writes it; nothing follows on the same connection.
    pub fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        let Self { status, media, body } = self;
        let head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {media}\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
            reason(*status),
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        404 => "Not Found",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its input in pieces and keeps what is said.
    struct Pieces<'a>(Vec<&'a [u8]>, Vec<u8>);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(first) = self.0.first_mut() else { return Ok(0) };
            let count = first.len().min(buffer.len());
            buffer[..count].copy_from_slice(&first[..count]);
            *first = &first[count..];
            if first.is_empty() {
                self.0.remove(0);
            }
            Ok(count)
        }
    }

    impl Write for Pieces<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn request(text: &str) -> Result<Request, Fault> {
        read(&mut Pieces(vec![text.as_bytes()], Vec::new()))
    }

    fn refused(text: &str) -> u16 {
        match request(text) {
            Err(Fault::Refused(status, _)) => status,
            other => panic!("{text:.60}: {other:?}"),
        }
    }

    const POST: &str =
        "POST /v1/bonds HTTP/1.1\r\nHost: x\r\nContent-Type: application/json; charset=utf-8\r\n";

    #[test]
    fn a_request_is_read_however_it_is_cut_and_its_body_awaited() {
        let text = format!("{POST}Content-Length: 3\r\nExpect: 100-continue\r\n\r\n{{ }}");
        let mut whole = None;
        for size in [1, 7, 4096] {
            let mut pieces = Pieces(text.as_bytes().chunks(size).collect(), Vec::new());
            let read = read(&mut pieces).unwrap();
            assert_eq!(pieces.1.is_empty(), size == 4096, "told to go on when the body is not there yet");
            assert_eq!(whole.get_or_insert(read.clone()), &read);
        }
        let body = b"{ }".to_vec();
        let (method, target) = ("POST".into(), "/v1/bonds".into());
        let expected = Request { method, target, host: Some("x".into()), deliberate: true, body };
        assert_eq!(whole.unwrap(), expected);
    }

    #[test]
    fn what_a_web_page_can_send_is_not_deliberate() {
        let deliberate = |head: &str| request(&format!("{head}\r\n")).unwrap().deliberate;
        assert!(deliberate(POST));
        assert!(!deliberate(&format!("{POST}Origin: http://evil.example\r\n")));
        assert!(!deliberate("POST / HTTP/1.1\r\nContent-Type: text/plain\r\n"));
        assert!(!deliberate("POST / HTTP/1.1\r\n"));
    }

    #[test]
    fn what_is_too_long_or_ambiguous_is_refused() {
        assert_eq!(refused("hello\r\n\r\n"), 400);
        assert_eq!(refused("GET / HTTP/2.0\r\n\r\n"), 400);
        assert_eq!(refused(&format!("GET /{} HTTP/1.1\r\n", "x".repeat(9000))), 431);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65))), 431);
        for length in ["65537", "99999999999999999999999"] {
            assert_eq!(refused(&format!("{POST}Content-Length: {length}\r\n\r\n")), 413);
        }
        for length in ["", "-1", "+1", "1, 1", "1\r\nContent-Length: 1"] {
            assert_eq!(refused(&format!("{POST}Content-Length: {length}\r\n\r\n")), 400, "{length:?}");
        }
        assert_eq!(refused(&format!("{POST}Host: y\r\n\r\n")), 400, "two hosts");
        assert_eq!(refused(&format!("{POST}Transfer-Encoding: chunked\r\n\r\n")), 501);
        assert!(matches!(request("GET / HTTP/1.1\r\n"), Err(Fault::Gone)), "an end in the middle");
        assert!(matches!(request(&format!("{POST}Content-Length: 9\r\n\r\n{{")), Err(Fault::Gone)));
    }

    #[test]
    fn an_answer_says_how_long_it_is_and_that_it_is_the_last() {
        let mut bytes = Vec::new();
        Answer::error(404, "input", "no \"x\"", None).write(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n") && head.ends_with("Connection: close"));
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert_eq!(body, "{\"error\":{\"hint\":null,\"kind\":\"input\",\"message\":\"no \\\"x\\\"\"}}\n");
    }
}
