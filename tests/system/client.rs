//! A small HTTP/1.1 client that keeps its connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// A bound on failures, not a measurement.
const PATIENCE: Duration = Duration::from_secs(60);
/// QEMU's user network takes one connection at a time from its backlog, and
/// drops the others for a moment.
const ATTEMPTS: usize = 20;

/// A connection that is kept alive.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects to a port of this host and makes sure that the guest answers.
    pub fn connect(port: u16) -> Self {
        for _ in 0..ATTEMPTS {
            let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
                continue;
            };
            stream
                .set_read_timeout(Some(PATIENCE))
                .expect("a timeout can be set");
            let mut client = Self {
                stream: BufReader::new(stream),
            };
            if let Ok((200, _)) = client.request("/healthz") {
                return client;
            }
        }
        panic!("no connection to port {port}");
    }

    /// Gets a path: status and body.
    pub fn request(&mut self, path: &str) -> std::io::Result<(u16, String)> {
        let stream = self.stream.get_mut();
        // In one piece: a second one would wait for the first's acknowledgement.
        let request = format!("GET {path} HTTP/1.1\r\nHost: vectis\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let bad = |what: &str| std::io::Error::other(what.to_owned());
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| bad("no status line"))?;
        let mut length = None;
        loop {
            let mut header = String::new();
            self.stream.read_line(&mut header)?;
            let header = header.trim_end();
            if header.is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().ok();
            }
        }
        let mut body = vec![0; length.ok_or_else(|| bad("no content-length"))?];
        self.stream.read_exact(&mut body)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

/// Sends `requests` requests on each connection, at once; each must be answered.
pub fn all_answered(clients: Vec<Client>, requests: usize) {
    std::thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || {
                for _ in 0..requests {
                    let (status, body) = client.request("/").expect("an answer");
                    assert_eq!(status, 200);
                    assert!(body.contains("</html>"));
                }
            });
        }
    });
}

/// Returns the value of a line of Prometheus text that starts with `name`.
pub fn metric(text: &str, name: &str) -> f64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        .unwrap_or_else(|| panic!("no {name} in\n{text}"))
}
