//! `IrqDump`: console to irq-router. Changes nothing.

use super::Source;
use crate::routes::Route;
use crate::{MESSAGE_WORDS, Words};

/// A slot in use, as a dump shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundSlot {
    /// The guest's position in system.toml.
    pub guest: u8,
    /// The bit of the notification word.
    pub slot: u8,
    /// The machine's vector: user vector of seL4, 0 to 107.
    pub vector: u8,
    /// What stands on the routing page.
    pub route: Route,
}

impl Words for BoundSlot {
    const LENGTH: usize = 2;
    fn put(self, words: &mut [u64; MESSAGE_WORDS]) {
        words[0] = u64::from(self.guest) | u64::from(self.slot) << 8 | u64::from(self.vector) << 16;
        words[1] = self.route.to_word();
    }
    fn get(words: &[u64; MESSAGE_WORDS]) -> Option<Self> {
        Some(Self {
            guest: words[0] as u8,
            slot: (words[0] >> 8) as u8,
            vector: (words[0] >> 16) as u8,
            route: Route::from_word(words[1])?,
        })
    }
}

interface! {
    /// Slots in use, one at a time.
    pub trait IrqDump {
        /// The first slot in use of a guest at or after `from`;
        /// [`NotFound`](crate::Error::NotFound) if there is none.
        1 => #[idempotent] fn next(guest: u8, from: u8) -> BoundSlot;
        /// The slot of a bound source;
        /// [`NotFound`](crate::Error::NotFound) if it is not bound.
        2 => #[idempotent] fn find(source: Source) -> BoundSlot;
    }
}
