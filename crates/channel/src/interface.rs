//! The macro that turns one interface into a server trait, a dispatch function
//! and a client.

/// Declares an interface.
///
/// Makes, in the module where it stands: the trait for the server, whose
/// operations learn the [`Caller`](crate::Caller); `dispatch`, which decodes a
/// request, runs the operation and encodes the reply; `interface`, which enters
/// it in a server's [`Dispatch`](crate::Dispatch); and `Client`, the stub over a
/// [`Transport`](crate::Transport). Operation numbers are the wire format: never
/// reuse one.
///
/// An operation that may be carried out twice without harm is `#[idempotent]`:
/// its stub repeats the call if the server dies in it, as
/// [`retry`](crate::retry()) does.
///
/// # Example
///
/// A user's own component can declare its interface anywhere. On the host the client
/// calls the server in place; in a component the transport is an endpoint
/// (`runtime::Channel`), and the server's receive loop `runtime::Server`.
///
/// ```
/// use channel::{Caller, Error, Local};
///
/// mod lamp {
///     channel::interface! {
///         /// A lamp that its clients share.
///         pub trait Lamp {
///             /// Switches it. Returns whether it was on before.
///             1 => fn switch(on: bool) -> bool;
///             /// Sets its brightness, in percent. [`Error::Refused`] above 100.
///             ///
///             /// [`Error::Refused`]: channel::Error::Refused
///             2 => #[idempotent] fn dim(percent: u8) -> ();
///         }
///     }
/// }
///
/// #[derive(Default)]
/// struct Bulb {
///     on: bool,
///     percent: u8,
/// }
///
/// impl lamp::Lamp for Bulb {
///     fn switch(&mut self, _: Caller, on: bool) -> Result<bool, Error> {
///         Ok(std::mem::replace(&mut self.on, on))
///     }
///     fn dim(&mut self, _: Caller, percent: u8) -> Result<(), Error> {
///         if percent > 100 {
///             return Err(Error::Refused);
///         }
///         self.percent = percent;
///         Ok(())
///     }
/// }
///
/// let mut bulb = Bulb::default();
/// let badge = Caller(7);
/// let mut client = lamp::Client(Local(|request| {
///     lamp::dispatch(&mut bulb, badge, request)
/// }));
/// assert_eq!(client.switch(true), Ok(false));
/// assert_eq!(client.dim(101), Err(Error::Refused));
/// assert_eq!(client.dim(40), Ok(()));
/// assert!(bulb.on && bulb.percent == 40);
/// ```
#[macro_export]
macro_rules! interface {
    (@call $call:ident) => {
        $call()
    };
    (@call $call:ident idempotent) => {
        $crate::retry(|_| $call())
    };
    (
        $(#[$trait_meta:meta])*
        pub trait $name:ident {
            $(
                $(#[$op_meta:meta])*
                $number:literal => $(#[$repeat:ident])?
                    fn $op:ident($($arg:ident: $type:ty),* $(,)?) -> $reply:ty;
            )*
        }
    ) => {
        $(#[$trait_meta])*
        pub trait $name {
            $(
                $(#[$op_meta])*
                ///
                /// `caller` is the badge that the kernel reports.
                fn $op(
                    &mut self,
                    caller: $crate::Caller,
                    $($arg: $type),*
                ) -> Result<$reply, $crate::Error>;
            )*
        }

        $(
            const _: () = {
                let arguments: &[&str] = &[$(stringify!($arg)),*];
                assert!(
                    arguments.len() <= $crate::MESSAGE_WORDS
                        && <$reply as $crate::Words>::LENGTH <= $crate::MESSAGE_WORDS,
                    "a message must fit the four registers of the fastpath"
                );
            };
        )*

        /// Runs the operation that `request` asks for on `server` and returns
        /// the reply. Never panics on a bad request.
        pub fn dispatch<S: $name + ?Sized>(
            server: &mut S,
            caller: $crate::Caller,
            request: $crate::Message,
        ) -> $crate::Message {
            let result = match request.label {
                $(
                    $number => (|| {
                        let mut words = request.words.iter().copied().take(request.length);
                        $(
                            let $arg = words
                                .next()
                                .and_then(<$type as $crate::Word>::from_word)
                                .ok_or($crate::Error::Malformed)?;
                        )*
                        if words.next().is_some() {
                            return Err($crate::Error::Malformed);
                        }
                        let value = server.$op(caller, $($arg),*)?;
                        let mut reply = $crate::Message {
                            label: 0,
                            length: <$reply as $crate::Words>::LENGTH,
                            words: [0; $crate::MESSAGE_WORDS],
                        };
                        $crate::Words::put(value, &mut reply.words);
                        Ok(reply)
                    })(),
                )*
                _ => Err($crate::Error::Malformed),
            };
            result.unwrap_or_else($crate::Message::error)
        }

        /// The name of the interface in system.toml.
        pub const NAME: &str = stringify!($name);

        /// Returns the interface as a part of a server's
        /// [`Dispatch`](crate::Dispatch).
        #[must_use]
        pub fn interface<S: $name>() -> $crate::Interface<S> {
            $crate::Interface { name: NAME, dispatch: dispatch::<S> }
        }

        /// The client's side of the channel.
        pub struct Client<T>(pub T);

        impl<T: $crate::Transport> Client<T> {
            $(
                $(#[$op_meta])*
                pub fn $op(&mut self, $($arg: $type),*) -> Result<$reply, $crate::Error> {
                    let values: &[u64] = &[$($crate::Word::to_word($arg)),*];
                    let mut request = $crate::Message {
                        label: $number,
                        length: values.len(),
                        words: [0; $crate::MESSAGE_WORDS],
                    };
                    request.words[..values.len()].copy_from_slice(values);
                    let mut call = || {
                        let reply = self.0.call(request);
                        if let Some(error) = reply.failure() {
                            return Err(error);
                        }
                        if reply.length != <$reply as $crate::Words>::LENGTH {
                            return Err($crate::Error::Malformed);
                        }
                        <$reply as $crate::Words>::get(&reply.words).ok_or($crate::Error::Malformed)
                    };
                    $crate::interface!(@call call $($repeat)?)
                }
            )*
        }
    };
}
