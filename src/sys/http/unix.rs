//! HTTP over a Unix socket: one small question to a program of this machine.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use super::Error;
use crate::sys::serve::Connection;

/// No answer is larger, in bytes: 10,000 peers take a fifth of it.
const LIMIT: u64 = 16 << 20;
/// For all of it, however the answer is cut.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a GET of `target` (`/v1/peers`) brings.
pub fn get(socket: &Path, target: &str) -> Result<Vec<u8>, Error> {
    let address = format!("{target} of {}", socket.display());
    let answer = ask(socket, target, PATIENCE)
        .map_err(|source| Error::Transport { address: address.clone(), source })?;
    let malformed = |why: &str| Error::Transport {
        address: address.clone(),
        source: io::Error::new(io::ErrorKind::InvalidData, why.to_owned()),
    };
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let start = match head.parse(&answer) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) => return Err(malformed("the answer ends within its head")),
        Err(error) => return Err(malformed(&error.to_string())),
    };
    let body = answer.get(start..).unwrap_or_default();
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    match head.code {
        Some(200) if length.is_some_and(|length| length != body.len()) => {
            Err(malformed("the answer ends within its body"))
        }
        Some(200) => Ok(body.to_vec()),
        Some(404 | 410) => Err(Error::Missing(address)),
        status => Err(Error::Status { address, status: status.unwrap_or_default() }),
    }
}

/// The whole answer. With HTTP/1.0 its end is the end of the connection, and it comes in one piece.
fn ask(socket: &Path, target: &str, time: Duration) -> io::Result<Vec<u8>> {
    let mut connection = Connection::open(socket, time)?;
    connection.write_all(
        format!("GET {target} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    connection.take(LIMIT + 1).read_to_end(&mut answer)?;
    if answer.len() as u64 > LIMIT {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("the answer is larger than {LIMIT} bytes"),
        ));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// What [`get`] makes of an answer.
    fn answered(answer: &'static [u8]) -> Result<Vec<u8>, Error> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("door.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let got = get(&socket, "/v1/peers");
        assert!(server.join().unwrap().starts_with("GET /v1/peers HTTP/1.0\r\n"));
        got
    }

    #[test]
    fn an_answer_is_its_body() {
        assert_eq!(answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap(), b"{}");
        assert_eq!(answered(b"HTTP/1.0 200 OK\r\n\r\n{}").unwrap(), b"{}");
    }

    #[test]
    fn who_answers_drop_by_drop_is_left_at_the_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("door.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut drops = 0;
            // Each comes well within the time that all of it may take.
            while drops < 1000 && stream.write_all(b"x").is_ok() {
                drops += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            drops
        });
        let error = ask(&socket, "/v1/peers", Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
        assert!((2..1000).contains(&server.join().unwrap()));
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        for cut in [
            &b""[..],
            b"HTTP/1.1 200",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
            b"SSH-2.0-x\r\n\r\n",
        ] {
            assert!(
                matches!(answered(cut), Err(Error::Transport { .. })),
                "{}",
                String::from_utf8_lossy(cut)
            );
        }
    }

    #[test]
    fn another_status_is_told() {
        assert!(matches!(answered(b"HTTP/1.1 404 Not Found\r\n\r\n"), Err(Error::Missing(_))));
        assert!(matches!(answered(b"HTTP/1.1 503 Busy\r\n\r\n"), Err(Error::Status { status: 503, .. })));
    }
}
