//! HTTP/1.x requests: one request in, a decision out (RFC 9110, RFC 9112).

use core::fmt;

/// Most header fields in a request; more are refused.
const MAX_HEADERS: usize = 48;
/// Most bytes of [`Resource::Bytes`].
pub const MAX_BYTES: u32 = 1 << 30;

/// A status that this server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 200.
    Ok,
    /// 400: not a request.
    BadRequest,
    /// 404: no such path.
    NotFound,
    /// 405: neither GET nor HEAD.
    MethodNotAllowed,
    /// 431: header section too large.
    HeadersTooLarge,
    /// 500: the answer does not fit.
    InternalError,
    /// 505: neither HTTP/1.0 nor HTTP/1.1.
    VersionNotSupported,
}

impl Status {
    /// Returns the number and reason phrase.
    pub fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::BadRequest => "400 Bad Request",
            Status::NotFound => "404 Not Found",
            Status::MethodNotAllowed => "405 Method Not Allowed",
            Status::HeadersTooLarge => "431 Request Header Fields Too Large",
            Status::InternalError => "500 Internal Server Error",
            Status::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }
}

/// The resource to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `/`: the page.
    Page,
    /// `/metrics`: figures in Prometheus' text format.
    Metrics,
    /// `/healthz`: whether the server answers at all.
    Health,
    /// `/bytes/N`: so many bytes, to measure a transfer by; [`MAX_BYTES`] at most.
    Bytes(u32),
}

impl Resource {
    /// Returns the media type of its representation.
    pub fn content_type(self) -> &'static str {
        match self {
            Resource::Page => "text/html; charset=utf-8",
            Resource::Metrics => "text/plain; version=0.0.4; charset=utf-8",
            Resource::Health => "text/plain; charset=utf-8",
            Resource::Bytes(_) => "application/octet-stream",
        }
    }
}

/// How to answer one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The resource, or why there is none.
    pub outcome: Result<Resource, Status>,
    /// Whether the body is left out (HEAD).
    pub head_only: bool,
    /// Whether the connection ends after the response.
    pub close: bool,
    /// Whether the client uses HTTP/1.0, where keeping the connection must be announced.
    pub http_1_0: bool,
}

/// State of the bytes received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The header section is not complete.
    Incomplete,
    /// A request that takes this many bytes, and its answer.
    Request(usize, Answer),
}

/// Returns the answer to bytes that are not a request; the connection ends, because
/// the start of the next request is unknown.
pub fn refusal(status: Status) -> Answer {
    Answer {
        outcome: Err(status),
        head_only: false,
        close: true,
        http_1_0: false,
    }
}

/// Reads the request at the start of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Parsed::Incomplete,
        Err(error) => {
            let status = match error {
                httparse::Error::TooManyHeaders => Status::HeadersTooLarge,
                httparse::Error::Version => Status::VersionNotSupported,
                _ => Status::BadRequest,
            };
            return Parsed::Request(bytes.len(), refusal(status));
        }
    };
    Parsed::Request(length, answer(&request))
}

fn answer(request: &httparse::Request) -> Answer {
    let http_1_0 = request.version == Some(0);
    let mut close = http_1_0;
    let mut hosts = 0;
    let mut has_body = false;
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("host") {
            hosts += 1;
        } else if header.name.eq_ignore_ascii_case("connection") {
            for option in header
                .value
                .split(|&byte| byte == b',')
                .map(<[u8]>::trim_ascii)
            {
                if option.eq_ignore_ascii_case(b"close") {
                    close = true;
                } else if http_1_0 && option.eq_ignore_ascii_case(b"keep-alive") {
                    close = false;
                }
            }
        } else if header.name.eq_ignore_ascii_case("content-length") {
            has_body |= header.value.trim_ascii() != b"0";
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            has_body = true;
        }
    }
    // RFC 9112, 3.2: exactly one Host in HTTP/1.1.
    if hosts > 1 || hosts == 0 && !http_1_0 {
        return refusal(Status::BadRequest);
    }
    let method = request.method.unwrap_or("");
    let target = request.path.unwrap_or("");
    let outcome = match method {
        "GET" | "HEAD" => resource(target),
        _ => Err(Status::MethodNotAllowed),
    };
    Answer {
        outcome,
        head_only: method == "HEAD",
        // No body is ever read: after one, the next request cannot be found.
        close: close || has_body,
        http_1_0,
    }
}

/// Returns the resource that a request target names, in origin form or absolute
/// form (RFC 9112, 3.2); a query is ignored.
fn resource(target: &str) -> Result<Resource, Status> {
    let scheme = target
        .get(..7)
        .filter(|start| start.eq_ignore_ascii_case("http://"));
    let target = match scheme {
        Some(_) => {
            let authority_and_path = &target[7..];
            match authority_and_path.find(['/', '?']) {
                Some(at) => &authority_and_path[at..],
                None => "/",
            }
        }
        None => target,
    };
    match target.split('?').next().unwrap_or("") {
        "/" | "" => Ok(Resource::Page),
        "/metrics" => Ok(Resource::Metrics),
        "/healthz" => Ok(Resource::Health),
        path => bytes(path).map(Resource::Bytes).ok_or(Status::NotFound),
    }
}

/// Returns the number of a path `/bytes/N`, if it is not too large.
fn bytes(path: &str) -> Option<u32> {
    let digits = path.strip_prefix("/bytes/")?;
    let number = digits.parse().ok().filter(|&number| number <= MAX_BYTES);
    number.filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Writes status line and header section for a body of `length` bytes.
pub fn write_header(
    out: &mut impl fmt::Write,
    answer: &Answer,
    status: Status,
    length: usize,
) -> fmt::Result {
    let content_type = match answer.outcome {
        Ok(resource) if status == Status::Ok => resource.content_type(),
        _ => "text/plain; charset=utf-8",
    };
    write!(
        out,
        "HTTP/1.1 {}\r\nServer: Vectis\r\nContent-Type: {content_type}\r\n\
         Content-Length: {length}\r\nCache-Control: no-store\r\n",
        status.line()
    )?;
    if status == Status::MethodNotAllowed {
        out.write_str("Allow: GET, HEAD\r\n")?;
    }
    if answer.close {
        out.write_str("Connection: close\r\n")?;
    } else if answer.http_1_0 {
        out.write_str("Connection: keep-alive\r\n")?;
    }
    out.write_str("\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::format;
    use std::string::String;

    fn request(text: &str) -> Answer {
        match parse(text.as_bytes()) {
            Parsed::Request(length, answer) => {
                assert_eq!(length, text.len());
                answer
            }
            Parsed::Incomplete => panic!("incomplete: {text:?}"),
        }
    }

    #[test]
    fn resources_and_statuses() {
        let outcome = |line: &str| request(&format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n")).outcome;
        assert_eq!(outcome("GET /"), Ok(Resource::Page));
        assert_eq!(outcome("GET /?x=/metrics"), Ok(Resource::Page));
        assert_eq!(outcome("GET http://h/metrics"), Ok(Resource::Metrics));
        assert_eq!(outcome("GET HTTP://h"), Ok(Resource::Page));
        assert_eq!(outcome("HEAD /healthz"), Ok(Resource::Health));
        assert_eq!(outcome("GET /healthz/"), Err(Status::NotFound));
        assert_eq!(outcome("GET /bytes/0?x"), Ok(Resource::Bytes(0)));
        assert_eq!(
            outcome("GET /bytes/1073741824"),
            Ok(Resource::Bytes(MAX_BYTES))
        );
        for bad in ["", "1073741825", "99999999999", "-1", "+1", "1k", "1/"] {
            let line = format!("GET /bytes/{bad}");
            assert_eq!(outcome(&line), Err(Status::NotFound), "{bad}");
        }
        assert_eq!(outcome("GET *"), Err(Status::NotFound));
        assert_eq!(outcome("POST /"), Err(Status::MethodNotAllowed));
        assert_eq!(outcome("get /"), Err(Status::MethodNotAllowed));
    }

    #[test]
    fn head_has_no_body() {
        assert!(request("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").head_only);
        assert!(!request("GET / HTTP/1.1\r\nHost: h\r\n\r\n").head_only);
    }

    #[test]
    fn connections_stay_open_as_the_client_says() {
        let close = |version: &str, header: &str| {
            request(&format!("GET / HTTP/{version}\r\nHost: h\r\n{header}\r\n")).close
        };
        assert!(!close("1.1", ""));
        assert!(close("1.1", "Connection: close\r\n"));
        assert!(close("1.1", "connection: foo ,CLOSE\r\n"));
        assert!(!close("1.1", "Connection: closed\r\n"));
        assert!(close("1.0", ""));
        assert!(!close("1.0", "Connection: Keep-Alive\r\n"));
        assert!(close("1.1", "Content-Length: 5\r\n"));
        assert!(!close("1.1", "Content-Length: 0\r\n"));
        assert!(close("1.1", "Transfer-Encoding: chunked\r\n"));
    }

    #[test]
    fn malformed_requests_are_refused_and_close() {
        for (text, status) in [
            ("\x01\x02\x03\r\n\r\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\n\r\n", Status::BadRequest),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                Status::BadRequest,
            ),
            ("GET / HTTP/1.1\r\nHost h\r\n\r\n", Status::BadRequest),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nA\0: b\r\n\r\n",
                Status::BadRequest,
            ),
            (
                "GET / HTTP/2.0\r\nHost: h\r\n\r\n",
                Status::VersionNotSupported,
            ),
        ] {
            let answer = request(text);
            assert_eq!(answer.outcome, Err(status), "{text:?}");
            assert!(answer.close, "{text:?}");
        }
        let mut many = String::from("GET / HTTP/1.1\r\nHost: h\r\n");
        many.push_str(&"a: b\r\n".repeat(MAX_HEADERS));
        many.push_str("\r\n");
        assert_eq!(request(&many).outcome, Err(Status::HeadersTooLarge));
    }

    #[test]
    fn every_prefix_of_a_request_is_incomplete() {
        let text = b"GET /metrics HTTP/1.1\r\nHost: example\r\nAccept: */*\r\n\r\n";
        for length in 0..text.len() {
            assert_eq!(parse(&text[..length]), Parsed::Incomplete, "{length}");
        }
    }

    #[test]
    fn only_the_first_of_two_requests_is_taken() {
        let text = b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /metrics HTTP/1.1\r\nHost: h\r\n\r\n";
        let Parsed::Request(length, first) = parse(text) else {
            panic!()
        };
        assert_eq!(first.outcome, Ok(Resource::Page));
        let Parsed::Request(_, second) = parse(&text[length..]) else {
            panic!()
        };
        assert_eq!(second.outcome, Ok(Resource::Metrics));
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut state = 0x9e37_79b9_u32;
        let mut bytes = *b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        for _ in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let at = state as usize % bytes.len();
            bytes[at] = (state >> 24) as u8;
            if let Parsed::Request(length, _) = parse(&bytes) {
                assert!(length <= bytes.len());
            }
        }
    }

    #[test]
    fn header_section_says_what_applies() {
        let mut text = String::new();
        write_header(
            &mut text,
            &refusal(Status::BadRequest),
            Status::BadRequest,
            12,
        )
        .unwrap();
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"));
        assert!(text.contains("\r\nContent-Length: 12\r\n"));
        assert!(text.ends_with("Connection: close\r\n\r\n"));
        text.clear();
        let old = Answer {
            http_1_0: true,
            close: false,
            ..refusal(Status::MethodNotAllowed)
        };
        write_header(&mut text, &old, Status::MethodNotAllowed, 0).unwrap();
        assert!(text.contains("\r\nAllow: GET, HEAD\r\n"));
        assert!(text.ends_with("Connection: keep-alive\r\n\r\n"));
    }
}
