//! Channels over endpoints, and the receive loop.

use channel::{Caller, Dispatch, Error, Interface, MESSAGE_WORDS, Message, Transport};
use sel4::MessageInfo;
use sel4::cap::Endpoint;
use shm::{Counter, Places};
use spec::{BADGE_CALL, names};

use crate::Context;

/// A client's end of a channel.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    /// Where the server receives.
    pub endpoint: Endpoint,
    /// The channel's interface, for the log.
    pub interface: &'static str,
}

fn info(message: &Message) -> MessageInfo {
    MessageInfo::new(message.label, 0, 0, message.length.min(MESSAGE_WORDS))
}

fn message(info: MessageInfo, words: [u64; MESSAGE_WORDS]) -> Message {
    Message {
        label: info.label(),
        length: info.length(),
        words,
    }
}

impl Transport for Channel {
    fn call(&mut self, request: Message) -> Message {
        let reply = self.endpoint.call_with_mrs(info(&request), request.words);
        let reply = message(reply.info, reply.msg);
        if let Some(Error::Gone(generation)) = reply.failure() {
            defmt::warn!(
                "{=str}: the server died in a call, it is generation {=u32} now",
                self.interface,
                generation
            );
        }
        reply
    }
}

/// Answers the call that a component was serving when it died. If there was
/// none, the kernel drops the reply.
pub(crate) fn reply_gone(generation: u64) {
    let gone = Message::error(Error::Gone(generation as u32));
    sel4::reply_with_mrs(info(&gone), gone.words);
}

/// The event that woke a component.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// Bits of its notification word.
    Notification(u64),
    /// A request, to be answered with [`Server::answer`].
    Request(Caller, Message),
}

/// The receive loop of the server `S`: at most one request waits for its reply.
pub struct Server<S> {
    endpoint: Endpoint,
    dispatch: Dispatch<S>,
    reply: Option<Message>,
    /// Requests, of every kind.
    calls: Counter,
}

impl<S> Server<S> {
    /// Creates a server of these interfaces. Which client has which, the build tool
    /// wrote into the component's resources. Requests are counted as `calls` in the next
    /// of `places`.
    #[must_use]
    pub fn new(context: &Context, interfaces: &[Interface<S>], places: &mut Places) -> Self {
        let mut calls = Counter::default();
        calls.show(places, "calls");
        let clients = context.resources.each(names::CLIENT);
        let clients = clients.filter_map(|(name, badge)| {
            let (interface, _) = name.split_once(':')?;
            Some((interface, Caller(badge)))
        });
        Self {
            endpoint: context.endpoint(),
            dispatch: Dispatch::new(interfaces, clients),
            reply: None,
            calls,
        }
    }

    /// Sends the reply that was left, if any, and waits for the next message.
    pub fn wait(&mut self) -> Event {
        let received = match self.reply.take() {
            Some(reply) => self.endpoint.reply_recv_with_mrs(info(&reply), reply.words),
            None => self.endpoint.recv_with_mrs(()),
        };
        if received.badge & BADGE_CALL == 0 {
            return Event::Notification(received.badge);
        }
        let request = message(received.info, received.msg);
        if request.length > MESSAGE_WORDS {
            // Longer than any request: the rest is in the IPC buffer.
            self.reply = Some(Message::error(Error::Malformed));
            return Event::Notification(0);
        }
        Event::Request(Caller(received.badge), request)
    }

    /// Runs the operation that was asked for and leaves its reply for
    /// [`Server::wait`].
    pub fn answer(&mut self, server: &mut S, caller: Caller, request: Message) {
        self.calls += 1;
        self.reply = Some(self.dispatch.dispatch(server, caller, request));
    }
}
