//! The HTTP server: a fixed pool of connections, each with its own socket and buffers.
//!
//! The pool is larger than the number of clients it is meant for, because a
//! socket that has just been closed is busy for a moment: a new client must
//! find another one listening.

use core::fmt::Write;

use heapless::{String, Vec};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};

use crate::http::{self, Answer, Parsed, Resource, Status};
use crate::report::Requests;

/// Connections that can be open at once.
pub const CONNECTIONS: usize = 32;
/// Largest header section of a request in bytes.
pub const REQUEST_MAX: usize = 2048;
/// Largest body of a response in bytes.
pub const BODY_MAX: usize = 11 * 1024;
/// Largest header section of a response in bytes.
const HEADER_MAX: usize = 512;
/// Bytes that a socket takes in before the server looks at them.
const RECEIVE_BUFFER: usize = 2048;
/// Room for two responses: a pipelined request is answered while the response
/// before it is still on its way.
const SEND_BUFFER: usize = 2 * (HEADER_MAX + BODY_MAX);

/// A connection on which no request was completed for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection that is being closed may take so long before it is aborted.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A closed connection keeps its socket in TIME-WAIT only while at least this
/// many others listen (RFC 9293, 3.6.1 allows a reuse).
const SPARE_LISTENERS: usize = 8;

/// All memory of the server; a `static` of the guest.
pub struct Memory {
    receive: [[u8; RECEIVE_BUFFER]; CONNECTIONS],
    send: [[u8; SEND_BUFFER]; CONNECTIONS],
    request: [[u8; REQUEST_MAX]; CONNECTIONS],
    body: String<BODY_MAX>,
}

impl Memory {
    /// Creates zeroed memory.
    pub const fn new() -> Self {
        Self {
            receive: [[0; RECEIVE_BUFFER]; CONNECTIONS],
            send: [[0; SEND_BUFFER]; CONNECTIONS],
            request: [[0; REQUEST_MAX]; CONNECTIONS],
            body: String::new(),
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes the body of a resource.
pub type Content<'c> =
    dyn FnMut(Resource, &Requests, &mut dyn Write) -> Result<(), core::fmt::Error> + 'c;

/// One socket and the request that arrives on it.
struct Connection<'a> {
    socket: SocketHandle,
    request: &'a mut [u8; REQUEST_MAX],
    length: usize,
    /// Accepted and not yet back to listening.
    open: bool,
    /// We have sent, or queued, our last byte.
    closing: bool,
    /// Bytes of a [`Resource::Bytes`] that are still to be queued. Until they are the socket
    /// is full, so that no other request is answered.
    left: usize,
    /// The connection ends with them.
    last: bool,
    /// When it was accepted, last completed a request, or began to close.
    since: Instant,
}

/// The server.
pub struct Server<'a> {
    port: u16,
    connections: Vec<Connection<'a>, CONNECTIONS>,
    body: &'a mut String<BODY_MAX>,
    requests: Requests,
}

impl<'a> Server<'a> {
    /// Creates a server for `port`, whose sockets are added to `sockets` (which
    /// must have room for [`CONNECTIONS`] more) and begin to listen with the
    /// first [`serve`](Self::serve).
    pub fn new(port: u16, memory: &'a mut Memory, sockets: &mut SocketSet<'a>) -> Self {
        let buffers = memory.receive.iter_mut().zip(memory.send.iter_mut());
        let connections = buffers
            .zip(memory.request.iter_mut())
            .map(|((receive, send), request)| {
                let mut socket = Socket::new(
                    SocketBuffer::new(&mut receive[..]),
                    SocketBuffer::new(&mut send[..]),
                );
                // A response is written whole: holding back its last segment
                // would only wait for the client's delayed acknowledgement.
                socket.set_nagle_enabled(false);
                Connection {
                    socket: sockets.add(socket),
                    request,
                    length: 0,
                    open: false,
                    closing: false,
                    left: 0,
                    last: false,
                    since: Instant::ZERO,
                }
            })
            .collect();
        Self {
            port,
            connections,
            body: &mut memory.body,
            requests: Requests::default(),
        }
    }

    /// Returns the counts so far.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Moves every connection on as far as it goes. True if the network stack
    /// has something to send because of it.
    pub fn serve(&mut self, now: Instant, sockets: &mut SocketSet, content: &mut Content) -> bool {
        let mut listeners = self
            .connections
            .iter()
            .filter(|connection| sockets.get::<Socket>(connection.socket).is_listening())
            .count();
        let mut moved = false;
        for connection in &mut self.connections {
            let socket = sockets.get_mut::<Socket>(connection.socket);
            match socket.state() {
                State::Listen => connection.open = false,
                State::TimeWait if listeners < SPARE_LISTENERS => {
                    // Listening again at once also keeps the reset that an
                    // abort would send from going out.
                    socket.abort();
                    listeners += connection.listen(socket, self.port);
                }
                State::Closed => listeners += connection.listen(socket, self.port),
                State::TimeWait => {}
                _ => {
                    if !connection.open {
                        connection.accept(now);
                        self.requests.connections += 1;
                    }
                    moved |=
                        connection.advance(now, socket, self.body, &mut self.requests, content);
                }
            }
        }
        moved
    }

    /// Returns when [`serve`](Self::serve) has to be called even if nothing arrives.
    pub fn deadline(&self) -> Option<Instant> {
        self.connections
            .iter()
            .filter(|connection| connection.open)
            .map(|connection| connection.since + connection.timeout())
            .min()
    }
}

impl Connection<'_> {
    /// Returns how many sockets began to listen: 1, as port and state are right.
    fn listen(&mut self, socket: &mut Socket, port: u16) -> usize {
        self.open = false;
        usize::from(socket.listen(port).is_ok())
    }

    fn accept(&mut self, now: Instant) {
        self.open = true;
        self.closing = false;
        self.left = 0;
        self.last = false;
        self.length = 0;
        self.since = now;
    }

    fn timeout(&self) -> Duration {
        if self.closing {
            CLOSE_TIMEOUT
        } else {
            IDLE_TIMEOUT
        }
    }

    fn close(&mut self, now: Instant, socket: &mut Socket) {
        socket.close();
        self.closing = true;
        self.since = now;
    }

    /// Receives data, answers complete requests, ends finished connections.
    fn advance(
        &mut self,
        now: Instant,
        socket: &mut Socket,
        body: &mut String<BODY_MAX>,
        requests: &mut Requests,
        content: &mut Content,
    ) -> bool {
        if now >= self.since + self.timeout() {
            if self.closing {
                socket.abort();
                // Timed from now on, should the reset find no way out.
                self.since = now;
            } else {
                requests.timeouts += 1;
                self.close(now, socket);
            }
            return true;
        }
        let mut moved = false;
        // Each round takes bytes or answers a request: the socket's buffer and
        // the request buffer bound their number.
        loop {
            moved |= self.send_left(now, socket);
            let taken = self.take(socket);
            if self.closing {
                return moved | taken;
            }
            let answer = self.next_answer(socket);
            if let Some(answer) = answer {
                self.left = respond(socket, &answer, body, requests, content);
                self.last = answer.close;
                self.since = now;
                moved = true;
                if answer.close && self.left == 0 {
                    self.close(now, socket);
                }
            } else if !taken {
                break;
            }
        }
        // The client will send no more, and its requests are answered, or can
        // never be complete.
        if !socket.may_recv() && socket.state() == State::CloseWait && self.is_answered(socket) {
            self.close(now, socket);
            moved = true;
        }
        moved
    }

    /// Queues as many of the bytes that are left as the socket has room for; whether there
    /// were any. They are written where the socket sends from: none of them is kept.
    fn send_left(&mut self, now: Instant, socket: &mut Socket) -> bool {
        let mut moved = false;
        while self.left > 0 && socket.can_send() {
            let sent = socket.send(|room| {
                let count = room.len().min(self.left);
                room[..count].fill(b'.');
                (count, count)
            });
            // A socket that can send has room.
            self.left -= sent.unwrap_or(self.left);
            self.since = now;
            moved = true;
        }
        if moved && self.left == 0 && self.last {
            self.close(now, socket);
        }
        moved
    }

    /// Moves received bytes into the request buffer, or drops them if the
    /// connection is closing; whether there were any.
    fn take(&mut self, socket: &mut Socket) -> bool {
        if !socket.can_recv() {
            return false;
        }
        let free = if self.closing {
            None
        } else {
            Some(&mut self.request[self.length..])
        };
        let taken = socket.recv(|bytes| match free {
            None => (bytes.len(), bytes.len()),
            Some(free) => {
                let count = free.len().min(bytes.len());
                free[..count].copy_from_slice(&bytes[..count]);
                (count, count)
            }
        });
        let count = taken.unwrap_or(0);
        if !self.closing {
            self.length += count;
        }
        count > 0
    }

    /// Returns whether the socket has room for any response.
    fn has_room(socket: &Socket) -> bool {
        socket.send_capacity() - socket.send_queue() >= HEADER_MAX + BODY_MAX
    }

    /// Returns whether neither a complete request nor a body waits for room in the socket.
    fn is_answered(&self, socket: &Socket) -> bool {
        self.left == 0 && (self.length == 0 || Self::has_room(socket))
    }

    /// Takes the first complete request out of the buffer, if its response has
    /// room in the socket.
    fn next_answer(&mut self, socket: &Socket) -> Option<Answer> {
        if self.length == 0 || !Self::has_room(socket) {
            return None;
        }
        match http::parse(&self.request[..self.length]) {
            Parsed::Request(used, answer) => {
                self.request.copy_within(used..self.length, 0);
                self.length -= used;
                Some(answer)
            }
            Parsed::Incomplete if self.length == REQUEST_MAX => {
                self.length = 0;
                Some(http::refusal(Status::HeadersTooLarge))
            }
            Parsed::Incomplete => None,
        }
    }
}

/// Writes the response into the socket, which has room for it: all of it but for the body
/// of a [`Resource::Bytes`], whose size it returns.
fn respond(
    socket: &mut Socket,
    answer: &Answer,
    body: &mut String<BODY_MAX>,
    requests: &mut Requests,
    content: &mut Content,
) -> usize {
    body.clear();
    let mut left = 0;
    let status = match answer.outcome {
        Ok(Resource::Bytes(count)) => {
            left = count as usize;
            Status::Ok
        }
        Ok(resource) => match content(resource, requests, body) {
            Ok(()) => Status::Ok,
            Err(_) => Status::InternalError,
        },
        Err(status) => status,
    };
    requests.answered += 1;
    if status != Status::Ok {
        requests.refused += 1;
        body.clear();
        // The longest reason phrase is far shorter than the buffer.
        let _ = writeln!(body, "{}", status.line());
    }
    let mut header = String::<HEADER_MAX>::new();
    // Header lines are constants but for one number; they fit.
    let _ = http::write_header(&mut header, answer, status, body.len() + left);
    // A socket that cannot send any more has lost its client.
    let _ = socket.send_slice(header.as_bytes());
    if answer.head_only {
        return 0;
    }
    let _ = socket.send_slice(body.as_bytes());
    left
}
