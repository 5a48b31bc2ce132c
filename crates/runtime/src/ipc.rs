//! Channels over endpoints, and the receive loop.

use channel::{Caller, Error, MESSAGE_WORDS, Message, Transport};
use sel4::MessageInfo;
use sel4::cap::Endpoint;
use spec::BADGE_CALL;

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

/// What a component woke up for.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// Bits of its notification word.
    Notification(u64),
    /// A request, to be answered with [`Server::reply`].
    Request(Caller, Message),
}

/// A server's receive loop: at most one request waits for its reply.
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    reply: Option<Message>,
}

impl Server {
    /// A server on this endpoint.
    #[must_use]
    pub const fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            reply: None,
        }
    }

    /// Sends the reply that was left, if any, and waits for what comes next.
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
            // Longer than any request; what does not fit is in the IPC buffer.
            self.reply(Message::error(Error::Malformed));
            return Event::Notification(0);
        }
        Event::Request(Caller(received.badge), request)
    }

    /// Leaves the reply to the last request for [`Server::wait`].
    pub const fn reply(&mut self, reply: Message) {
        self.reply = Some(reply);
    }
}
