//! The interfaces of irq-router: `IrqRouter` for msix, [`msi`] for pci-config,
//! [`dump`] for the console. One endpoint, told apart by badge.

use crate::{Error, MESSAGE_WORDS, Word, Words};
use spec::{FunctionId, bits};

pub mod dump;

/// The way in which a function raises an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SourceKind {
    /// By an entry of its MSI-X table.
    Msix = 0,
    /// By one of its MSI messages.
    Msi = 1,
    /// By its INTx pin (C9).
    Pin = 2,
}

impl SourceKind {
    /// Returns the kind of a number; `None` if the number is none.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Msix),
            1 => Some(Self::Msi),
            2 => Some(Self::Pin),
            _ => None,
        }
    }
}

impl Word for SourceKind {
    fn to_word(self) -> u64 {
        self as u64
    }
    fn from_word(word: u64) -> Option<Self> {
        Self::from_number(u8::try_from(word).ok()?)
    }
}

/// A device's interrupt: which function, and which of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The function.
    pub function: FunctionId,
    /// How it comes.
    pub kind: SourceKind,
    /// MSI-X entry (0 to 2047), MSI message (0 to 31), or the I/O APIC's pin.
    pub entry: u16,
}

impl Source {
    /// Creates an MSI-X entry.
    #[must_use]
    pub const fn msix(function: FunctionId, entry: u16) -> Self {
        Self {
            function,
            kind: SourceKind::Msix,
            entry,
        }
    }

    /// Creates an MSI message.
    #[must_use]
    pub const fn msi(function: FunctionId, message: u16) -> Self {
        Self {
            function,
            kind: SourceKind::Msi,
            entry: message,
        }
    }

    /// Creates an INTx pin, by its pin of the I/O APIC.
    #[must_use]
    pub const fn pin(function: FunctionId, pin: u8) -> Self {
        Self {
            function,
            kind: SourceKind::Pin,
            entry: pin as u16,
        }
    }
}

impl Source {
    /// Returns the bits of `entries`, of which bit `i` is the entry `i` after this one,
    /// with which `work` succeeds, in ascending order up to the first error.
    pub fn each_until(self, entries: u64, mut work: impl FnMut(Self) -> Result<(), Error>) -> u64 {
        let source = |bit| Self {
            entry: self.entry.wrapping_add(bit),
            ..self
        };
        bits(entries)
            .take_while(|&bit| work(source(bit)).is_ok())
            .fold(0, |done, bit| done | 1 << bit)
    }
}

impl Word for Source {
    fn to_word(self) -> u64 {
        (self.kind as u64) << 24 | u64::from(self.function.0) << 16 | u64::from(self.entry)
    }
    fn from_word(word: u64) -> Option<Self> {
        Some(Self {
            function: FunctionId((word >> 16) as u8),
            kind: SourceKind::from_word(word >> 24)?,
            entry: word as u16,
        })
    }
}

/// MSI-X entries of one function that are bound in one call, as many as a message has
/// room for.
pub const BATCH: usize = 3;

/// The entries of a [`bind_batch`](Client::bind_batch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The function.
    pub function: FunctionId,
    /// Its entries; `None` where there are fewer.
    pub entries: [Option<u16>; BATCH],
}

/// What stands for no entry: a table has 2048 at most.
const NO_ENTRY: u16 = u16::MAX;

impl Word for Batch {
    fn to_word(self) -> u64 {
        let function = u64::from(self.function.0);
        self.entries.into_iter().fold(function, |word, entry| {
            word << 16 | u64::from(entry.unwrap_or(NO_ENTRY))
        })
    }
    fn from_word(word: u64) -> Option<Self> {
        Some(Self {
            function: FunctionId(u8::try_from(word >> (16 * BATCH)).ok()?),
            entries: core::array::from_fn(|place| {
                let entry = (word >> (16 * (BATCH - 1 - place))) as u16;
                (entry != NO_ENTRY).then_some(entry)
            }),
        })
    }
}

/// A message whose address is below 4 GiB, as that of every local APIC is: it takes one
/// word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShortMessage {
    address: u32,
    data: u32,
}

impl ShortMessage {
    /// Returns the message; `None` if the address is at 4 GiB or above.
    #[must_use]
    pub fn new((address, data): (u64, u32)) -> Option<Self> {
        let address = u32::try_from(address).ok()?;
        Some(Self { address, data })
    }

    /// Returns address and data.
    #[must_use]
    pub fn parts(self) -> (u64, u32) {
        (self.address.into(), self.data)
    }
}

impl Word for ShortMessage {
    fn to_word(self) -> u64 {
        u64::from(self.address) << 32 | u64::from(self.data)
    }
    fn from_word(word: u64) -> Option<Self> {
        Some(Self {
            address: (word >> 32) as u32,
            data: word as u32,
        })
    }
}

/// The answer for each entry of a batch. One that was not asked for is
/// [`Error::NotFound`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answers(pub [Result<ShortMessage, Error>; BATCH]);

impl Answers {
    /// Returns the answers of a router that binds each entry of a batch for itself.
    pub fn of_each(
        batch: Batch,
        messages: [ShortMessage; BATCH],
        mut bind: impl FnMut(Source, u64, u32) -> Result<(u64, u32), Error>,
    ) -> Self {
        let mut answers = [Err(Error::NotFound); BATCH];
        for ((answer, entry), message) in answers.iter_mut().zip(batch.entries).zip(messages) {
            if let Some(entry) = entry {
                let (address, data) = message.parts();
                let bound = bind(Source::msix(batch.function, entry), address, data);
                *answer = bound.and_then(|message| ShortMessage::new(message).ok_or(Error::Failed));
            }
        }
        Self(answers)
    }
}

impl Words for Answers {
    const LENGTH: usize = BATCH;
    fn put(self, words: &mut [u64; MESSAGE_WORDS]) {
        for (word, answer) in words.iter_mut().zip(self.0) {
            *word = match answer {
                Ok(message) => message.to_word(),
                Err(error) => error.label(),
            };
        }
    }
    fn get(words: &[u64; MESSAGE_WORDS]) -> Option<Self> {
        let mut answers = [Err(Error::Failed); BATCH];
        for (answer, word) in answers.iter_mut().zip(words) {
            // No error has a number that reaches the address, and no message the
            // address 0.
            *answer = match u32::try_from(*word) {
                Ok(label) => Err(Error::from_label(label.into())),
                Err(_) => Ok(ShortMessage::from_word(*word)?),
            };
        }
        Some(Self(answers))
    }
}

interface! {
    /// Vectors, IRQ handler capabilities and slots for MSI-X entries; another
    /// kind of source is refused.
    pub trait IrqRouter {
        /// Obtains a vector and a slot for `source`, which keeps those that it
        /// has, and routes it to the guest by its message (`address`, `data`),
        /// unmasked. Returns the message (address, data) for the device.
        ///
        /// Errors: [`Refused`](crate::Error::Refused) for a message that no
        /// local APIC takes (M17), [`Exhausted`](crate::Error::Exhausted) when
        /// vectors or slots are used up (M22).
        1 => #[idempotent] fn bind(source: Source, address: u64, data: u32) -> (u64, u32);
        /// Releases vector and slot; [`NotFound`](crate::Error::NotFound) if `source` is
        /// not bound.
        2 => #[idempotent] fn unbind(source: Source) -> ();
        /// Sets whether events of a bound source are held back in the vmm (M20).
        3 => #[idempotent] fn set_masked(source: Source, masked: bool) -> ();
        /// Sets whether events of every MSI-X entry of a function are held back
        /// in the vmm (M20), those bound later too, whatever their own mask.
        4 => #[idempotent] fn set_function_masked(function: FunctionId, masked: bool) -> ();
        /// Unbinds every MSI-X entry of a function and ends its function mask.
        /// Goes on past an error and returns the first.
        5 => #[idempotent] fn unbind_function(function: FunctionId) -> ();
        /// Lets a bound source raise its vector, whatever became of an earlier
        /// permission, and returns the message (address, data) for its device;
        /// [`NotFound`](crate::Error::NotFound) if it is not bound. For a client
        /// that cannot know: it, or the router, died in a bind or unbind.
        6 => #[idempotent] fn restore(source: Source) -> (u64, u32);
        /// Binds several entries as so many calls of [`bind`](Client::bind) would, in
        /// order, with the IOMMU waited for once if their vectors follow each other.
        /// An entry that cannot be bound keeps none of the others from it: the reply
        /// has an answer for each.
        7 => #[idempotent] fn bind_batch(
            batch: Batch,
            first: ShortMessage,
            second: ShortMessage,
            third: ShortMessage
        ) -> Answers;
        /// Unbinds entries in ascending order, up to the first that fails: bit `i` of
        /// `entries` is the one `i` after `first`. Returns those that are not bound
        /// now; [`unbind`](Client::unbind) says why another one is.
        8 => #[idempotent] fn unbind_entries(first: Source, entries: u64) -> u64;
    }
}

/// The MSI messages of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The function.
    pub function: FunctionId,
    /// How many messages it may send: 1 << `log2`.
    pub log2: u8,
}

impl Word for Block {
    fn to_word(self) -> u64 {
        u64::from(self.function.0) << 8 | u64::from(self.log2)
    }
    fn from_word(word: u64) -> Option<Self> {
        let word = u16::try_from(word).ok()?;
        Some(Self {
            function: FunctionId((word >> 8) as u8),
            log2: word as u8,
        })
    }
}

/// `MsiRouter`: pci-config to irq-router. All messages of a function have one
/// address and data, of which the device changes the low bits, so that they are
/// bound and changed together.
pub mod msi {
    use super::Block;
    use spec::FunctionId;

    /// Most messages of a block: 1 << this. 32 would be more than a guest has slots on
    /// the bundled kernel ([`slots`](spec::slots)).
    pub const MAX_LOG2: u8 = 4;
    // The device puts a message's number into the low bits of its data: aligned
    // user vectors must be aligned CPU vectors.
    const _: () = assert!(spec::cpu_vector(0).is_multiple_of(1 << MAX_LOG2));

    interface! {
        /// Vectors, IRQ handler capabilities and slots for plain MSI.
        pub trait MsiRouter {
            /// Obtains a slot for each message of `block`, and vectors that
            /// follow each other, aligned to their number. Message `i` is routed
            /// by `address` and by `data` with its low bits replaced by `i`;
            /// bit `i` of `mask` holds its events back in the vmm (M20). The
            /// reply is message 0 (address, data) for the device.
            ///
            /// Errors: [`Refused`](crate::Error::Refused) if the function has a
            /// block already or `block` is too large,
            /// [`Exhausted`](crate::Error::Exhausted) when vectors or slots are
            /// used up (M22). A message that no local APIC takes (M17) is no
            /// error: events go nowhere until [`Client::set_message`] gives a
            /// better one, for the device must not be left with a vector that
            /// is somebody else's.
            1 => fn bind_block(block: Block, address: u64, data: u32, mask: u32) -> (u64, u32);
            /// Routes the bound messages of a function by another address and
            /// data (P1). Vectors, slots and the device's message stay, so that
            /// no event is lost.
            2 => #[idempotent] fn set_message(function: FunctionId, address: u64, data: u32) -> ();
            /// Sets which of the bound messages are held back in the vmm.
            3 => #[idempotent] fn set_mask(function: FunctionId, mask: u32) -> ();
            /// Releases vectors and slots; none bound is not an error. Goes on past an
            /// error and returns the first.
            4 => #[idempotent] fn unbind_block(function: FunctionId) -> ();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_and_its_answers_travel_in_words() {
        for entries in [[None; BATCH], [Some(0), None, Some(2047)]] {
            let batch = Batch {
                function: FunctionId(15),
                entries,
            };
            assert_eq!(Batch::from_word(batch.to_word()), Some(batch));
        }
        assert_eq!(Batch::from_word(1 << 56), None);
        assert_eq!(ShortMessage::new((1 << 32, 0)), None);
        let message = ShortMessage::new((0xfeef_f00c, u32::MAX));
        assert_eq!(
            message.map(ShortMessage::parts),
            Some((0xfeef_f00c, u32::MAX))
        );
        let answers = Answers([
            message.ok_or(Error::Failed),
            Err(Error::Exhausted),
            Err(Error::NotFound),
        ]);
        let mut words = [0; MESSAGE_WORDS];
        answers.put(&mut words);
        assert_eq!(Answers::get(&words), Some(answers));
    }

    #[test]
    fn entries_are_visited_in_order_up_to_the_first_error() {
        let first = Source::msix(FunctionId(1), 64);
        let mut visited = 0;
        let done = first.each_until(1 << 63 | 0b1011, |source| {
            visited += source.entry;
            if source.entry == 67 {
                Err(Error::Failed)
            } else {
                Ok(())
            }
        });
        assert_eq!((done, visited), (0b11, 64 + 65 + 67));
    }
}
