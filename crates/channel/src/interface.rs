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
    (@count $($arg:ident)*) => {
        <[&str]>::len(&[$(stringify!($arg)),*])
    };
    (@call $client:ident $request:ident) => {
        $crate::Transport::call(&mut $client.0, $request).value()
    };
    (@call $client:ident $request:ident idempotent) => {
        $crate::repeatable(&mut $client.0, $request)
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
                assert!(
                    $crate::interface!(@count $($arg)*) <= $crate::MESSAGE_WORDS
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
            match request.label {
                $(
                    $number => $crate::Message::reply((|| {
                        if request.length != $crate::interface!(@count $($arg)*) {
                            return Err($crate::Error::Malformed);
                        }
                        let [$($arg,)* ..] = request.words;
                        $(
                            let $arg = <$type as $crate::Word>::from_word($arg)
                                .ok_or($crate::Error::Malformed)?;
                        )*
                        server.$op(caller, $($arg),*)
                    })()),
                )*
                _ => $crate::Message::error($crate::Error::Malformed),
            }
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
                    let client = self;
                    let mut request = $crate::Message {
                        label: $number,
                        length: $crate::interface!(@count $($arg)*),
                        words: [0; $crate::MESSAGE_WORDS],
                    };
                    let values: &[u64] = &[$($crate::Word::to_word($arg)),*];
                    request.words[..values.len()].copy_from_slice(values);
                    $crate::interface!(@call client request $($repeat)?)
                }
            )*
        }
    };
}
