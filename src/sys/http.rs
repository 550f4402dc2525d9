//! HTTP: one request, its answer as a stream.

pub mod fixed;
pub mod unix;

use std::io::{self, Read};
use std::time::Duration;

/// A connection pool. Proxies are taken from the usual environment variables.
#[derive(Debug, Clone)]
pub struct Client {
    agent: ureq::Agent,
    patience: Duration,
}

/// The body of an answer and where in the file it starts.
pub struct Answer {
    /// Offset in bytes of the first byte: what was asked for, or 0 when the server sends the whole file.
    pub start: u64,
    /// The bytes.
    pub body: Box<dyn Read>,
}

/// A request that brought no file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server has no such file (404, 410).
    #[error("{0} does not exist")]
    Missing(String),
    /// The part asked for lies behind the end (416).
    #[error("{0} is shorter than expected")]
    Range(String),
    /// Another answer than the file.
    #[error("{address} answered with status {status}")]
    Status {
        /// What was asked for.
        address: String,
        /// HTTP status.
        status: u16,
    },
    /// No answer.
    #[error("cannot fetch {address}")]
    Transport {
        /// What was asked for.
        address: String,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// Whether the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Missing(_) | Error::Range(_) => false,
            Error::Status { status, .. } => *status >= 500 || matches!(status, 408 | 425 | 429),
            Error::Transport { source, .. } => source.kind() != io::ErrorKind::InvalidInput,
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new(Duration::from_secs(30))
    }
}

impl Client {
    /// A client that gives a server `patience` to connect, to answer, and between any two reads.
    pub fn new(patience: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("sepulcher/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(patience))
            .timeout_recv_response(Some(patience))
            .timeout_per_read(Some(patience))
            .build();
        Self { agent: config.into(), patience }
    }

    /// A client for a host of our own: no proxy, no redirection. It has so long to connect, to be silent, and for all of its
    /// answer.
    pub fn direct(connect: Duration, silence: Duration, answer: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("sepulcher/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(connect))
            .timeout_per_read(Some(silence))
            .timeout_global(Some(answer))
            .build();
        Self { agent: config.into(), patience: answer }
    }

    /// Asks, with a JSON text or without, and returns status and body, which may have `limit` bytes.
    pub fn ask(&self, address: &str, json: Option<&[u8]>, limit: u64) -> Result<(u16, Vec<u8>), Error> {
        let answer = match json {
            Some(json) => self.agent.post(address).header("Content-Type", "application/json").send(json),
            None => self.agent.get(address).call(),
        };
        let read = answer.and_then(|answer| {
            let status = answer.status().as_u16();
            Ok((status, answer.into_body().into_with_config().limit(limit).read_to_vec()?))
        });
        read.map_err(|error| Error::Transport { address: address.to_owned(), source: error.into_io() })
    }

    /// How long to wait before a request that failed `failures` times in a row is made again.
    pub fn pause(&self, failures: u32) -> Duration {
        self.patience / 120 * 2_u32.saturating_pow(failures)
    }

    /// Asks for a file from byte `start` on. A server may send all of it instead: see [`Answer::start`].
    pub fn get(&self, address: &str, start: u64) -> Result<Answer, Error> {
        let mut request = self.agent.get(address);
        if start > 0 {
            request = request.header("Range", format!("bytes={start}-"));
        }
        let response = request.call().map_err(|error| Error::Transport {
            address: address.to_owned(),
            source: match error {
                ureq::Error::BadUri(_) => io::Error::new(io::ErrorKind::InvalidInput, error),
                error => error.into_io(),
            },
        })?;
        let status = response.status().as_u16();
        let resumed = response
            .headers()
            .get("content-range")
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with(&format!("bytes {start}-")));
        let start = match status {
            200 => 0,
            206 if resumed => start,
            404 | 410 => return Err(Error::Missing(address.to_owned())),
            416 => return Err(Error::Range(address.to_owned())),
            _ => return Err(Error::Status { address: address.to_owned(), status }),
        };
        Ok(Answer { start, body: Box::new(response.into_body().into_reader()) })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_server_that_stops_halfway_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            lines.find(String::is_empty).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").unwrap();
            // It keeps the connection until the other one gives up.
            lines.next();
        });
        let [connect, silence, answer] = [30_000, 200, 30_000].map(Duration::from_millis);
        let mut body = Client::direct(connect, silence, answer).get(&address, 0).unwrap().body;
        let mut read = Vec::new();
        let error = body.read_to_end(&mut read).unwrap_err();
        assert_eq!((read.as_slice(), error.to_string().as_str()), (&b"half"[..], "timeout: per read"));
        drop(body);
        server.join().unwrap();
    }
}
