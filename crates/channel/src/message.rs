//! What travels: a label and up to four words.

use pci::{Bdf, Width};
use spec::FunctionId;

/// Message registers of the fastpath on x86_64 (R10, R8, R9, R15).
pub const MESSAGE_WORDS: usize = 4;

/// A request or a reply. A request's label is the operation's number; a
/// reply's label is 0 or the number of an [`Error`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Operation or result.
    pub label: u64,
    /// How many of `words` count, 0 to 4.
    pub length: usize,
    /// The payload; words past `length` are ignored.
    pub words: [u64; MESSAGE_WORDS],
}

impl Message {
    /// Returns the reply to an operation that came out like this.
    pub fn reply<V: Words>(result: Result<V, Error>) -> Self {
        match result {
            Ok(value) => {
                let mut reply = Self {
                    label: 0,
                    length: V::LENGTH,
                    words: [0; MESSAGE_WORDS],
                };
                value.put(&mut reply.words);
                reply
            }
            Err(error) => Self::error(error),
        }
    }

    /// Returns the reply that carries an error and nothing else, but for a
    /// generation.
    #[must_use]
    #[cold]
    pub const fn error(error: Error) -> Self {
        let mut message = Self {
            label: error.label(),
            length: 0,
            words: [0; MESSAGE_WORDS],
        };
        if let Error::Gone(generation) = error {
            message.length = 1;
            message.words[0] = generation as u64;
        }
        message
    }

    /// Returns the error that a reply carries; `None` if the call succeeded.
    #[must_use]
    pub const fn failure(&self) -> Option<Error> {
        if self.label == 0 {
            return None;
        }
        Some(self.error_of_label())
    }

    /// Returns the value that a reply carries.
    ///
    /// # Errors
    /// The error that it carries; [`Error::Malformed`] if its words are no such value.
    pub fn value<V: Words>(&self) -> Result<V, Error> {
        if let Some(error) = self.failure() {
            return Err(error);
        }
        if self.length != V::LENGTH {
            return Err(Error::Malformed);
        }
        V::get(&self.words).ok_or(Error::Malformed)
    }

    /// Returns the error of a reply whose label is not 0: apart, so that the way of a call
    /// that succeeds is short.
    #[cold]
    const fn error_of_label(&self) -> Error {
        match Error::from_label(self.label) {
            Error::Gone(_) if self.length == 1 => Error::Gone(self.words[0] as u32),
            error => error,
        }
    }
}

/// Who called: the badge of the endpoint capability that was used. The kernel
/// vouches for it; a client cannot choose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller(pub u64);

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Unknown operation, wrong length, or a word that is not a value of its type.
    Malformed,
    /// The function, source or BAR named does not exist or is not the caller's.
    NotFound,
    /// Vectors, slots or table entries are used up.
    Exhausted,
    /// The value is well formed but not allowed here.
    Refused,
    /// The kernel or a component further on failed.
    Failed,
    /// The caller asks more often than it may: its request is carried out later.
    TooOften,
    /// The server died during the call and was started again: this is its new
    /// generation. What the call did is unknown; see [`retry`](fn@crate::retry).
    Gone(u32),
}

impl Error {
    /// Returns the error in words, for the log.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed request",
            Self::NotFound => "not found",
            Self::Exhausted => "no vector or slot left",
            Self::Refused => "refused",
            Self::Failed => "the kernel or a server failed",
            Self::TooOften => "asked too often: it comes later",
            Self::Gone(_) => "server gone",
        }
    }

    /// Returns its number: the label of a reply, part of the
    /// wire format.
    #[must_use]
    pub const fn label(self) -> u64 {
        match self {
            Self::Malformed => 1,
            Self::NotFound => 2,
            Self::Exhausted => 3,
            Self::Refused => 4,
            Self::Failed => 5,
            Self::Gone(_) => 6,
            Self::TooOften => 7,
        }
    }

    /// Decodes an error number; the generation of `Gone` is 0. An unknown number,
    /// which a newer server may send, becomes `Failed`.
    #[must_use]
    pub const fn from_label(label: u64) -> Self {
        match label {
            1 => Self::Malformed,
            2 => Self::NotFound,
            3 => Self::Exhausted,
            4 => Self::Refused,
            6 => Self::Gone(0),
            7 => Self::TooOften,
            _ => Self::Failed,
        }
    }
}

/// Carries a request to a server and its reply back.
pub trait Transport {
    /// Sends `request` and waits for the reply. A transport that cannot reach
    /// the server answers with [`Error::Gone`].
    fn call(&mut self, request: Message) -> Message;
}

/// The transport of host tests and of replay: calls the server's dispatch in
/// place.
pub struct Local<F>(pub F);

impl<F: FnMut(Message) -> Message> Transport for Local<F> {
    fn call(&mut self, request: Message) -> Message {
        (self.0)(request)
    }
}

impl<T: Transport + ?Sized> Transport for &mut T {
    fn call(&mut self, request: Message) -> Message {
        (**self).call(request)
    }
}

/// A value that travels in one message word.
pub trait Word: Sized {
    /// Returns the word that encodes the value.
    fn to_word(self) -> u64;
    /// Returns the value that a word encodes; `None` if it encodes none.
    fn from_word(word: u64) -> Option<Self>;
}

macro_rules! unsigned_words {
    ($($type:ty),*) => {$(
        impl Word for $type {
            fn to_word(self) -> u64 {
                u64::from(self)
            }
            fn from_word(word: u64) -> Option<Self> {
                Self::try_from(word).ok()
            }
        }
    )*};
}

unsigned_words!(u8, u16, u32, u64);

impl Word for bool {
    fn to_word(self) -> u64 {
        u64::from(self)
    }
    fn from_word(word: u64) -> Option<Self> {
        match word {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Word for Option<u16> {
    fn to_word(self) -> u64 {
        self.map_or(0, |value| 1 << 16 | u64::from(value))
    }
    fn from_word(word: u64) -> Option<Self> {
        match word >> 16 {
            0 => (word == 0).then_some(None),
            1 => Some(Some(word as u16)),
            _ => None,
        }
    }
}

impl Word for FunctionId {
    fn to_word(self) -> u64 {
        self.0.into()
    }
    fn from_word(word: u64) -> Option<Self> {
        u8::try_from(word).ok().map(Self)
    }
}

impl Word for Bdf {
    fn to_word(self) -> u64 {
        u64::from(self.requester_id())
    }
    fn from_word(word: u64) -> Option<Self> {
        u16::try_from(word).ok().map(Self::from_requester_id)
    }
}

impl Word for Width {
    fn to_word(self) -> u64 {
        self.bytes()
    }
    fn from_word(word: u64) -> Option<Self> {
        Self::from_bytes(word)
    }
}

/// A reply's value: up to four words.
pub trait Words: Sized {
    /// Words that it takes, at most [`MESSAGE_WORDS`].
    const LENGTH: usize;
    /// Writes the value into the first [`Words::LENGTH`] words.
    fn put(self, words: &mut [u64; MESSAGE_WORDS]);
    /// Reads it back; `None` if a word is not a value of its type.
    fn get(words: &[u64; MESSAGE_WORDS]) -> Option<Self>;
}

impl Words for () {
    const LENGTH: usize = 0;
    fn put(self, _words: &mut [u64; MESSAGE_WORDS]) {}
    fn get(_words: &[u64; MESSAGE_WORDS]) -> Option<Self> {
        Some(())
    }
}

impl<A: Word> Words for A {
    const LENGTH: usize = 1;
    fn put(self, words: &mut [u64; MESSAGE_WORDS]) {
        words[0] = self.to_word();
    }
    fn get(words: &[u64; MESSAGE_WORDS]) -> Option<Self> {
        A::from_word(words[0])
    }
}

impl<A: Word, B: Word> Words for (A, B) {
    const LENGTH: usize = 2;
    fn put(self, words: &mut [u64; MESSAGE_WORDS]) {
        words[0] = self.0.to_word();
        words[1] = self.1.to_word();
    }
    fn get(words: &[u64; MESSAGE_WORDS]) -> Option<Self> {
        Some((A::from_word(words[0])?, B::from_word(words[1])?))
    }
}
