//! The server against smoltcp clients on the other end of a wire, in simulated time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write;
use std::rc::Rc;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};
use web::http::Resource;
use web::report::Requests;
use web::server::{BODY_MAX, CONNECTIONS, Memory, REQUEST_MAX, Server};

type Frames = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// One end of a wire.
struct End {
    incoming: Frames,
    outgoing: Frames,
}

struct Frame(Vec<u8>);
struct Room(Frames);

impl RxToken for Frame {
    fn consume<T, F: FnOnce(&[u8]) -> T>(self, f: F) -> T {
        f(&self.0)
    }
}

impl TxToken for Room {
    fn consume<T, F: FnOnce(&mut [u8]) -> T>(self, length: usize, f: F) -> T {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.borrow_mut().push_back(frame);
        result
    }
}

impl Device for End {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Room;

    fn receive(&mut self, _: Instant) -> Option<(Frame, Room)> {
        let frame = self.incoming.borrow_mut().pop_front()?;
        Some((Frame(frame), Room(self.outgoing.clone())))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room> {
        Some(Room(self.outgoing.clone()))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// A host at one end of the wire.
struct Host {
    end: End,
    interface: Interface,
    sockets: SocketSet<'static>,
}

const SERVER: [u8; 4] = [10, 0, 0, 1];
const CLIENT: [u8; 4] = [10, 0, 0, 2];

impl Host {
    fn new(mut end: End, [a, b, c, d]: [u8; 4], places: usize) -> Self {
        let config = Config::new(EthernetAddress([2, 0, 0, 0, 0, d]).into());
        let mut interface = Interface::new(config, &mut end, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(IpAddress::v4(a, b, c, d), 24))
                .unwrap();
        });
        let places = (0..places)
            .map(|_| SocketStorage::EMPTY)
            .collect::<Vec<_>>();
        Self {
            end,
            interface,
            sockets: SocketSet::new(places.leak()),
        }
    }
}

/// Server, client and the wire between them.
struct World {
    now: Instant,
    server_host: Host,
    client_host: Host,
    server: Server<'static>,
    next_port: u16,
}

const CLIENTS: usize = CONNECTIONS + 4;

impl World {
    fn new() -> Self {
        let (left, right) = (Frames::default(), Frames::default());
        let server_end = End {
            incoming: left.clone(),
            outgoing: right.clone(),
        };
        let mut server_host = Host::new(server_end, SERVER, CONNECTIONS);
        let memory = Box::leak(Box::new(Memory::new()));
        let server = Server::new(80, memory, &mut server_host.sockets);
        let client_end = End {
            incoming: right,
            outgoing: left,
        };
        let client_host = Host::new(client_end, CLIENT, CLIENTS);
        Self {
            now: Instant::ZERO,
            server_host,
            client_host,
            server,
            next_port: 40_000,
        }
    }

    /// Lets 1 ms pass on both ends.
    fn step(&mut self) {
        self.now += Duration::from_millis(1);
        for host in [&mut self.client_host, &mut self.server_host] {
            host.interface
                .poll(self.now, &mut host.end, &mut host.sockets);
        }
        let mut content = |resource, requests: &Requests, out: &mut dyn Write| match resource {
            Resource::Health => out.write_str("ok\n"),
            Resource::Page => write!(out, "page {}", requests.answered),
            Resource::Metrics => {
                (0..BODY_MAX).try_for_each(|_| out.write_char('x'))?;
                if requests.answered == 0 {
                    out.write_char('x')
                } else {
                    Ok(())
                }
            }
            Resource::Bytes(_) => panic!("the server answers these by itself"),
        };
        let host = &mut self.server_host;
        while self.server.serve(self.now, &mut host.sockets, &mut content) {
            host.interface
                .poll(self.now, &mut host.end, &mut host.sockets);
        }
    }

    fn connect(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 4096].leak());
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_ack_delay(None);
        self.next_port += 1;
        let [a, b, c, d] = SERVER;
        let remote = (IpAddress::v4(a, b, c, d), 80);
        socket
            .connect(self.client_host.interface.context(), remote, self.next_port)
            .unwrap();
        let handle = self.client_host.sockets.add(socket);
        self.until(100, |world| world.client(handle).may_send());
        handle
    }

    fn client(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.client_host.sockets.get_mut(handle)
    }

    /// Steps until `done`, at most `steps` times.
    fn until(&mut self, steps: u32, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..steps {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("not done after {steps} steps");
    }

    fn send(&mut self, handle: SocketHandle, bytes: &[u8]) {
        let mut rest = bytes;
        self.until(1000, |world| {
            if !rest.is_empty() {
                rest = &rest[world.client(handle).send_slice(rest).unwrap()..];
            }
            rest.is_empty()
        });
    }

    /// Receives until `text` has `count` responses, or the server closes.
    fn receive(&mut self, handle: SocketHandle, count: usize) -> String {
        let mut text = Vec::new();
        self.until(2000, |world| {
            let socket = world.client(handle);
            while socket.can_recv() {
                let _ = socket.recv(|bytes| (bytes.len(), text.extend_from_slice(bytes)));
            }
            responses(&text).len() >= count || !socket.may_recv()
        });
        String::from_utf8(text).unwrap()
    }

    fn request(&mut self, handle: SocketHandle, text: &str) -> String {
        self.send(handle, text.as_bytes());
        self.receive(handle, 1)
    }

    /// Returns whether the server has ended the connection.
    fn ended(&mut self, handle: SocketHandle) -> bool {
        for _ in 0..5 {
            self.step();
        }
        !self.client(handle).may_recv()
    }
}

/// Returns the complete responses in `bytes`: status line and body.
fn responses(bytes: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(bytes);
    let mut rest = &text[..];
    let mut found = Vec::new();
    while let Some((header, after)) = rest.split_once("\r\n\r\n") {
        let length = header
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .map_or(0, |length| length.parse().unwrap());
        let Some(body) = after.get(..length) else {
            break;
        };
        found.push((header.lines().next().unwrap().to_string(), body.to_string()));
        rest = &after[length..];
    }
    found
}

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK";

#[test]
fn a_connection_stays_open_for_more_requests() {
    let mut world = World::new();
    let client = world.connect();
    for _ in 0..3 {
        let text = world.request(client, HEALTH);
        assert_eq!(
            responses(text.as_bytes()),
            [(OK.to_string(), "ok\n".to_string())]
        );
    }
    assert!(!world.ended(client));
    assert_eq!(world.server.requests().answered, 3);
    assert_eq!(world.server.requests().connections, 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut world = World::new();
    let client = world.connect();
    // More than the server can buffer of requests, and of responses.
    let page = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    world.send(client, page.repeat(200).as_bytes());
    let text = world.receive(client, 200);
    for (index, response) in responses(text.as_bytes()).iter().enumerate() {
        assert_eq!(response.1, format!("page {index}"));
    }
    assert_eq!(world.server.requests().answered, 200);
}

#[test]
fn large_responses_wait_for_room() {
    let mut world = World::new();
    let client = world.connect();
    assert!(world.request(client, HEALTH).starts_with(OK));
    let metrics = "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n";
    world.send(client, metrics.repeat(10).as_bytes());
    let text = world.receive(client, 10);
    let found = responses(text.as_bytes());
    assert_eq!(found.len(), 10);
    assert!(found.iter().all(|(_, body)| body.len() == BODY_MAX));
}

#[test]
fn bytes_are_sent_as_there_is_room() {
    let mut world = World::new();
    let client = world.connect();
    let bytes = |count| format!("GET /bytes/{count} HTTP/1.1\r\nHost: h\r\n\r\n");
    // Far more than the server can buffer, with requests behind it.
    let many = bytes(300_000) + &bytes(0) + HEALTH;
    world.send(client, many.as_bytes());
    let text = world.receive(client, 3);
    let found = responses(text.as_bytes());
    assert_eq!(found[0].1, ".".repeat(300_000));
    assert_eq!((found[1].1.as_str(), found[2].1.as_str()), ("", "ok\n"));
    // The connection ends behind the last of them, whoever says so.
    let last = bytes(100_000).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    world.send(client, last.as_bytes());
    let text = world.receive(client, usize::MAX);
    assert!(text.ends_with(&".".repeat(100_000)));
    let client = world.connect();
    world.send(client, bytes(100_000).as_bytes());
    world.client(client).close();
    assert_eq!(responses(world.receive(client, 1).as_bytes()).len(), 1);
    let client = world.connect();
    let head = bytes(5).replace("GET", "HEAD") + HEALTH;
    world.send(client, head.as_bytes());
    world.until(100, |world| world.server.requests().answered == 7);
    assert_eq!(world.server.requests().refused, 0);
}

/// A client that asks for much and reads nothing is ended as any that is silent.
#[test]
fn bytes_that_nobody_takes_are_given_up() {
    let mut world = World::new();
    let client = world.connect();
    world.send(client, b"GET /bytes/1000000 HTTP/1.1\r\nHost: h\r\n\r\n");
    world.until(60_000, |world| {
        world.client(client).state() == State::Closed
    });
    assert_eq!(world.server.deadline(), None);
    let client = world.connect();
    assert!(world.request(client, HEALTH).starts_with(OK));
}

#[test]
fn a_body_that_does_not_fit_is_an_error_of_ours() {
    let mut world = World::new();
    let client = world.connect();
    let text = world.request(client, "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 500 "), "{text}");
    assert_eq!(world.server.requests().refused, 1);
    assert!(
        world.request(client, HEALTH).starts_with(OK),
        "the next one works"
    );
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let mut world = World::new();
    let client = world.connect();
    for byte in HEALTH.bytes() {
        assert_eq!(world.server.requests().answered, 0);
        world.send(client, &[byte]);
        world.step();
        world.step();
    }
    assert!(world.receive(client, 1).starts_with(OK));
}

#[test]
fn errors_have_their_status_and_end_what_cannot_go_on() {
    for (request, status, ends) in [
        ("GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n", "404", false),
        ("DELETE / HTTP/1.1\r\nHost: h\r\n\r\n", "405", false),
        (
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 39\r\n\r\n",
            "405",
            true,
        ),
        ("GET /\r\n\r\n", "400", true),
        ("GET / HTTP/1.1\r\n\r\n", "400", true),
        ("\r\n\r\n\x16\x03\x01\x02", "400", true),
        ("GET / HTTP/3.0\r\n\r\n", "505", true),
        (
            "GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "200",
            true,
        ),
        ("GET /healthz HTTP/1.0\r\n\r\n", "200", true),
        (
            "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            "200",
            false,
        ),
    ] {
        let mut world = World::new();
        let client = world.connect();
        let text = world.request(client, request);
        assert!(
            text.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:?}: {text}"
        );
        assert_eq!(world.ended(client), ends, "{request:?}");
    }
}

#[test]
fn a_body_is_never_read_as_a_request() {
    let mut world = World::new();
    let client = world.connect();
    let length = HEALTH.len();
    let smuggled =
        format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{HEALTH}");
    world.send(client, smuggled.as_bytes());
    let text = world.receive(client, 2);
    assert_eq!(responses(text.as_bytes()).len(), 1);
    assert_eq!(world.server.requests().answered, 1);
}

#[test]
fn head_sends_the_header_only() {
    let mut world = World::new();
    let client = world.connect();
    world.send(
        client,
        b"HEAD /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    );
    let text = world.receive(client, usize::MAX);
    assert!(text.contains("\r\nContent-Length: 3\r\n"));
    assert!(text.ends_with("\r\n\r\n"));
}

#[test]
fn an_endless_header_is_refused() {
    let mut world = World::new();
    let client = world.connect();
    world.send(client, b"GET / HTTP/1.1\r\nHost: h\r\nX: ");
    world.send(client, &vec![b'a'; REQUEST_MAX]);
    let text = world.receive(client, usize::MAX);
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    assert!(world.ended(client));
}

#[test]
fn a_client_that_only_half_closes_still_gets_its_answer() {
    let mut world = World::new();
    let client = world.connect();
    world.send(client, HEALTH.as_bytes());
    world.client(client).close();
    assert!(world.receive(client, 1).starts_with(OK));
    world.until(100, |world| world.client(client).state() == State::TimeWait);
}

#[test]
fn reconnecting_clients_always_find_a_listener() {
    let mut world = World::new();
    let request = "GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    // Eight at a time, far more often than there are sockets: within the 10
    // seconds that a closed socket spends in TIME-WAIT.
    for _ in 0..50 {
        let clients: Vec<_> = (0..8).map(|_| world.connect()).collect();
        for &client in &clients {
            world.send(client, request.as_bytes());
        }
        for client in clients {
            assert!(world.receive(client, 1).starts_with(OK));
            world.client(client).close();
            world.until(100, |world| !world.client(client).is_active());
            world.client_host.sockets.remove(client);
        }
    }
    assert!(world.now < Instant::from_secs(10));
    assert_eq!(world.server.requests().answered, 400);
}

#[test]
fn silent_connections_are_ended_and_make_room() {
    let mut world = World::new();
    let silent: Vec<_> = (0..CONNECTIONS).map(|_| world.connect()).collect();
    for &client in &silent {
        // Trickling bytes do not keep a connection open.
        world.send(client, b"GET / HT");
    }
    assert!(world.server.deadline().is_some());
    world.until(16_000, |world| {
        world.server.requests().timeouts == CONNECTIONS as u64
    });
    for client in silent {
        assert!(world.ended(client));
        world.client(client).close();
    }
    for _ in 0..100 {
        world.step();
    }
    let client = world.connect();
    assert!(world.request(client, HEALTH).starts_with(OK));
}

#[test]
fn a_client_that_reads_nothing_is_aborted() {
    let mut world = World::new();
    let client = world.connect();
    world.send(
        client,
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(200).as_bytes(),
    );
    // Never read: timeout, then close timeout, then the reset.
    world.until(60_000, |world| {
        world.client(client).state() == State::Closed
    });
    assert_eq!(world.server.deadline(), None);
}
