//! Which interface a caller has: one endpoint serves several.

use heapless::Vec;

use crate::{Caller, Error, Message};

/// Most clients that a server can have: a vmm for each guest, and a few more.
const CLIENTS: usize = spec::GUESTS + 8;

type Handler<S> = fn(&mut S, Caller, Message) -> Message;

/// An interface of a server.
pub struct Interface<S> {
    /// Its name in system.toml.
    pub name: &'static str,
    /// Runs an operation of the interface on the server.
    pub dispatch: Handler<S>,
}

/// A server's clients, each with the one interface that it may call.
pub struct Dispatch<S>(Vec<(Caller, Handler<S>), CLIENTS>);

impl<S> Dispatch<S> {
    /// Pairs each of the `clients`, given by the name of its interface and its
    /// badge, with that interface. A client of an interface that the server does
    /// not have is as unknown as one that is not there.
    ///
    /// # Panics
    /// If there are more clients than a system can have.
    pub fn new<'a>(
        interfaces: &[Interface<S>],
        clients: impl IntoIterator<Item = (&'a str, Caller)>,
    ) -> Self {
        let handler = |(name, caller)| {
            let interface = interfaces.iter().find(|interface| interface.name == name)?;
            Some((caller, interface.dispatch))
        };
        Self(clients.into_iter().filter_map(handler).collect())
    }

    /// Runs the operation that `caller` asks for and returns the reply. A caller
    /// that is unknown gets [`Error::NotFound`] and reaches no interface.
    pub fn dispatch(&self, server: &mut S, caller: Caller, request: Message) -> Message {
        match self.0.iter().find(|(known, _)| *known == caller) {
            Some((_, handler)) => handler(server, caller, request),
            None => Message::error(Error::NotFound),
        }
    }
}
