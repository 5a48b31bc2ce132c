//! A client, a server and what goes wrong between them.

use crate::{Caller, Dispatch, Error, Local, MESSAGE_WORDS, Message, RETRIES};
use spec::FunctionId;

interface! {
    /// An interface for the tests.
    pub trait Probe {
        /// May not be repeated.
        1 => fn once(value: u64) -> ();
        /// May be repeated.
        2 => #[idempotent] fn again(value: u64) -> u64;
        /// Takes no argument.
        3 => fn bare() -> ();
    }
}

mod other {
    interface! {
        /// Another interface of the same server.
        pub trait Other {
            /// Does the only operation.
            1 => fn other(value: u64) -> u64;
        }
    }
}

/// Remembers the last call, and fails if told so.
#[derive(Default)]
struct Server {
    last: Option<(Caller, u64)>,
    error: Option<Error>,
}

impl Probe for Server {
    fn once(&mut self, caller: Caller, value: u64) -> Result<(), Error> {
        self.last = Some((caller, value));
        self.error.map_or(Ok(()), Err)
    }
    fn again(&mut self, caller: Caller, value: u64) -> Result<u64, Error> {
        self.once(caller, value).map(|()| value)
    }
    fn bare(&mut self, caller: Caller) -> Result<(), Error> {
        self.once(caller, 0)
    }
}

impl other::Other for Server {
    fn other(&mut self, caller: Caller, value: u64) -> Result<u64, Error> {
        self.last = Some((caller, value));
        Ok(!value)
    }
}

const VMM: Caller = Caller(7);

#[test]
fn a_call_arrives_with_its_caller_and_its_reply_comes_back() {
    let mut server = Server::default();
    let mut client = Client(Local(|request| dispatch(&mut server, VMM, request)));
    assert_eq!(client.once(u64::MAX), Ok(()));
    assert_eq!(server.last, Some((VMM, u64::MAX)));
    let mut client = Client(Local(|request| dispatch(&mut server, VMM, request)));
    assert_eq!(client.bare(), Ok(()));
    assert_eq!(server.last, Some((VMM, 0)));
}

#[test]
fn errors_keep_their_kind_on_the_wire() {
    for error in [
        Error::Malformed,
        Error::NotFound,
        Error::Exhausted,
        Error::Refused,
        Error::Failed,
        Error::Gone(0),
        Error::TooOften,
    ] {
        let mut server = Server {
            error: Some(error),
            ..Server::default()
        };
        let mut client = Client(Local(|request| dispatch(&mut server, VMM, request)));
        assert_eq!(client.once(1), Err(error));
        assert_eq!(Error::from_label(error.label()), error);
    }
    // A number that a newer server may have is an error to us as well.
    assert_eq!(Error::from_label(1000), Error::Failed);
}

#[test]
fn a_server_that_is_gone_says_its_generation() {
    for generation in [1, u32::MAX] {
        let gone = Error::Gone(generation);
        let mut client = Client(Local(|_| Message::error(gone)));
        assert_eq!(client.once(1), Err(gone));
    }
    // Without one, or with more than that, it is gone all the same.
    for length in [0, 2, 4] {
        let mut client = Client(Local(|_| Message {
            length,
            ..Message::error(Error::Gone(7))
        }));
        assert_eq!(client.once(1), Err(Error::Gone(0)));
    }
}

#[test]
fn only_an_idempotent_operation_is_repeated() {
    for deaths in 1..=RETRIES + 2 {
        let mut left = deaths;
        assert_eq!(Client(dies(&mut left)).once(1), Err(Error::Gone(1)));
        assert_eq!(left, deaths - 1);
        let mut left = deaths;
        // Our own callers must not take its death for ours.
        let result = (deaths <= RETRIES).then_some(0).ok_or(Error::Failed);
        assert_eq!(Client(dies(&mut left)).again(1), result);
        assert_eq!(left, deaths.saturating_sub(RETRIES + 1));
    }
}

#[test]
fn a_caller_reaches_its_own_interface_and_an_unknown_one_none() {
    let interfaces = [interface(), other::interface()];
    // The last one is a client of an interface that this server does not have.
    let clients = [(NAME, VMM), (other::NAME, Caller(8)), ("Timer", Caller(9))];
    let dispatch = Dispatch::new(&interfaces, clients);
    let request = Message {
        label: 1,
        length: 1,
        words: [5, 0, 0, 0],
    };
    let mut server = Server::default();
    let reply = dispatch.dispatch(&mut server, VMM, request);
    assert_eq!((reply.label, reply.length), (0, 0));
    assert_eq!(server.last.take(), Some((VMM, 5)));
    let link = |request| dispatch.dispatch(&mut server, Caller(8), request);
    assert_eq!(other::Client(Local(link)).other(5), Ok(!5));
    assert_eq!(server.last.take(), Some((Caller(8), 5)));
    for unknown in [0, 6, 9, 7 | 1 << 27, u64::MAX] {
        for label in 0..4 {
            let request = Message { label, ..request };
            let reply = dispatch.dispatch(&mut server, Caller(unknown), request);
            assert_eq!(reply, Message::error(Error::NotFound));
            assert_eq!(server.last, None);
        }
    }
}

/// Returns a server that dies in the first `deaths` calls and then answers 0.
fn dies(deaths: &mut u32) -> Local<impl FnMut(Message) -> Message> {
    Local(move |_| {
        if *deaths > 0 {
            *deaths -= 1;
            return Message::error(Error::Gone(1));
        }
        Message {
            length: 1,
            ..Message::default()
        }
    })
}

#[test]
fn a_write_that_was_cut_off_may_have_had_any_effect() {
    use crate::pci_config::{Client, Effect};
    use pci::{Bdf, Width};

    for (deaths, effect) in [
        (0, Effect::NONE),
        (1, Effect::DECODE),
        (3, Effect::DECODE),
        // It was never made whole, and may have been made in part.
        (9, Effect::DECODE),
    ] {
        let mut left = deaths;
        let mut config = Client(dies(&mut left));
        let bdf = Bdf::from_requester_id(8);
        assert_eq!(config.write_again(bdf, 4, Width::Word, 0), effect);
    }
}

#[test]
fn malformed_requests_are_answered_and_do_nothing() {
    let request = |label, length| Message {
        label,
        length,
        words: [9; MESSAGE_WORDS],
    };
    let mut server = Server::default();
    // No such operation; too few words; too many; more than there are.
    for bad in [
        request(0, 1),
        request(99, 1),
        request(u64::MAX, 0),
        request(1, 0),
        request(1, 2),
        request(3, 1),
        request(1, usize::MAX),
    ] {
        let reply = dispatch(&mut server, VMM, bad);
        assert_eq!(reply, Message::error(Error::Malformed), "{bad:?}");
    }
    assert_eq!(server.last, None);
}

#[test]
fn words_that_are_no_values_are_malformed() {
    use crate::pci_config::{self, Effect, PciConfig};
    use pci::{Bdf, Width};

    struct Nothing;
    impl PciConfig for Nothing {
        fn read(&mut self, _: Caller, _: Bdf, _: u16, _: Width) -> Result<u32, Error> {
            Ok(5)
        }
        fn write(&mut self, _: Caller, _: Bdf, _: u16, _: Width, _: u32) -> Result<Effect, Error> {
            Ok(Effect::NONE)
        }
        fn bar(&mut self, _: Caller, _: FunctionId, _: u8) -> Result<u64, Error> {
            Ok(0)
        }
        fn reset(&mut self, _: Caller, _: FunctionId) -> Result<u64, Error> {
            Ok(0)
        }
        fn throttle_msi(&mut self, _: Caller, _: FunctionId, _: bool) -> Result<(), Error> {
            Ok(())
        }
    }

    let read = |words: [u64; MESSAGE_WORDS]| {
        let request = Message {
            label: 1,
            length: 3,
            words,
        };
        pci_config::dispatch(&mut Nothing, VMM, request)
    };
    assert_eq!(read([8, 0, 4, 0]).label, 0);
    // A bdf, an offset and a width that there are not.
    for words in [[1 << 16, 0, 4, 0], [8, 1 << 16, 4, 0], [8, 0, 3, 0]] {
        assert_eq!(read(words), Message::error(Error::Malformed), "{words:?}");
    }
}

#[test]
fn a_reply_that_makes_no_sense_is_an_error() {
    let reply = |length, word| {
        let message = Message {
            label: 0,
            length,
            words: [word; MESSAGE_WORDS],
        };
        let mut client = crate::pci_config::Client(Local(move |_| message));
        client.write(pci::Bdf::from_requester_id(8), 0, pci::Width::Byte, 0)
    };
    assert_eq!(reply(0, 0), Err(Error::Malformed));
    assert_eq!(reply(1, 4), Err(Error::Malformed));
    assert!(reply(1, 3).is_ok());
}
