//! Calling a server that can die in a call.

use crate::{Error, Message, Transport, Words};

/// How often a call is made again. A server that dies more often than this is
/// past being waited for: the monitor is about to give it up.
pub const RETRIES: u32 = 3;

/// Makes a call, and makes it again if its server died in it.
///
/// The stub of an `#[idempotent]` operation does this by itself ([`repeatable`]). Any other call must
/// see to it that a repetition does no harm: `call` is told whether it was made
/// before. After [`RETRIES`] deaths returns `Failed`, not `Gone`: `Gone` would tell
/// our caller that we died.
///
/// # Errors
/// The error that `call` returns.
pub fn retry<V>(mut call: impl FnMut(bool) -> Result<V, Error>) -> Result<V, Error> {
    match call(false) {
        Err(Error::Gone(_)) => call_again(call),
        result => result,
    }
}

/// Makes the call of an operation that may be carried out twice, and returns the reply's
/// value.
///
/// # Errors
/// As [`retry`](fn@retry), of [`Message::value`].
pub fn repeatable<T: Transport, V: Words>(transport: &mut T, request: Message) -> Result<V, Error> {
    match transport.call(request).value() {
        Err(Error::Gone(_)) => call_again(move |_| transport.call(request).value()),
        result => result,
    }
}

/// Makes a call whose server died in it: apart, so that the way of a call whose server
/// lives is short.
#[cold]
fn call_again<V>(mut call: impl FnMut(bool) -> Result<V, Error>) -> Result<V, Error> {
    for _ in 0..RETRIES {
        match call(true) {
            Err(Error::Gone(_)) => {}
            result => return result,
        }
    }
    Err(Error::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    fn calls(deaths: usize, then: Result<u8, Error>) -> (Vec<bool>, Result<u8, Error>) {
        let mut made = Vec::new();
        let result = retry(|again| {
            made.push(again);
            if made.len() <= deaths {
                Err(Error::Gone(made.len() as u32))
            } else {
                then
            }
        });
        (made, result)
    }

    #[test]
    fn a_call_is_made_once_if_its_server_lives() {
        for result in [Ok(1), Err(Error::NotFound)] {
            assert_eq!(calls(0, result), ([false].into(), result));
        }
    }

    #[test]
    fn a_call_is_made_again_if_its_server_died() {
        for result in [Ok(1), Err(Error::NotFound)] {
            assert_eq!(calls(2, result), ([false, true, true].into(), result));
            assert_eq!(calls(3, result).1, result);
        }
    }

    #[test]
    fn a_server_that_dies_each_time_has_failed() {
        let (made, result) = calls(4, Ok(1));
        assert_eq!((made.len(), result), (4, Err(Error::Failed)));
    }
}
