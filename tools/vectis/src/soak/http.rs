//! A small HTTP/1.1 client that keeps its connection, and whose waits can be cancelled.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Interval at which a wait for an answer checks whether the answer is still due.
const RECHECK: Duration = Duration::from_millis(100);
/// Longest wait for a connection: QEMU takes it at once or not at all.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest header section that is read.
const HEADER_MAX: usize = 4096;

/// A connection that is kept.
pub struct Connection {
    stream: TcpStream,
    /// Received bytes that were not consumed yet.
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to a port of this host.
    ///
    /// # Errors
    /// If it is refused.
    pub fn new(port: u16) -> std::io::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, CONNECT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(RECHECK))?;
        stream.set_write_timeout(Some(CONNECT))?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// Gets a path. Returns the status. Waits until `end`, or until an answer is not
    /// `due` any more.
    ///
    /// # Errors
    /// The reason why there is no answer.
    pub fn get(&mut self, path: &str, end: Instant, due: impl Fn() -> bool) -> Result<u16, String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: vectis\r\n\r\n");
        self.stream
            .write_all(request.as_bytes())
            .map_err(|error| format!("sending failed: {error}"))?;
        loop {
            if let Some((status, length)) = response(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(status);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(self.cut("the connection was closed")),
                Ok(length) => self.buffer.extend(&bytes[..length]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if !due() {
                        return Err(self.cut("the guest is gone"));
                    }
                    if Instant::now() >= end {
                        return Err(self.cut("no answer in time"));
                    }
                }
                Err(error) => return Err(self.cut(&error.to_string())),
            }
        }
    }

    fn cut(&self, why: &str) -> String {
        format!("{why}, after {} bytes of the answer", self.buffer.len())
    }
}

/// Returns the status and the length of the response that `bytes` begin with;
/// `None` if it is not complete.
fn response(bytes: &[u8]) -> Result<Option<(u16, usize)>, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        if bytes.len() > HEADER_MAX {
            return Err(format!("no end of headers in {} bytes", bytes.len()));
        }
        return Ok(None);
    };
    let header = String::from_utf8_lossy(&bytes[..end]);
    let status = header
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.split(' ').next()?.parse().ok());
    let length = header.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    let (Some(status), Some(length)) = (status, length) else {
        let line = header.lines().next().unwrap_or_default();
        return Err(format!("no status or no length: {line}"));
    };
    let whole = end + 4 + length;
    Ok((bytes.len() >= whole).then_some((status, whole)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn responses_are_taken_whole() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-Length: 3\r\n\r\nabcHTTP";
        let whole = text.len() - 4;
        for cut in 0..whole {
            assert_eq!(response(&text[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(response(text), Ok(Some((200, whole))));
        assert!(response(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(response(b"SSH-2.0\r\nContent-Length: 1\r\n\r\n").is_err());
        assert!(response(&[b'x'; HEADER_MAX + 1]).is_err());
    }

    #[test]
    fn an_answer_that_is_not_due_is_not_waited_for() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut connection = Connection::new(port).unwrap();
        let far = Instant::now() + Duration::from_secs(600);
        let error = connection.get("/", far, || false).unwrap_err();
        assert!(error.starts_with("the guest is gone"), "{error}");
        let error = connection.get("/", Instant::now(), || true).unwrap_err();
        assert!(error.starts_with("no answer in time"), "{error}");
    }
}
