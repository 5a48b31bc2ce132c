//! `PciConfig`: vmm to pci-config.

use pci::{Bdf, Width};
use spec::FunctionId;

use crate::{Transport, Word, retry};

/// The effect of a configuration write beyond the register itself. The caller
/// acts on it before the guest goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect(u8);

impl Effect {
    /// Nothing that the caller has to act on.
    pub const NONE: Self = Self(0);
    /// A BAR appeared, moved or went: ask [`Client::bar`] for each.
    pub const DECODE: Self = Self(1);
    /// The function was reset: the vmm's copies of its state are void.
    pub const RESET: Self = Self(2);

    /// Returns both effects.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether every effect of `other` is in this one.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl Word for Effect {
    fn to_word(self) -> u64 {
        u64::from(self.0)
    }
    fn from_word(word: u64) -> Option<Self> {
        (word < 4).then_some(Self(word as u8))
    }
}

interface! {
    /// Configuration space of the functions assigned to the calling guest.
    pub trait PciConfig {
        /// Reads `width` bytes at `offset` (0 to 4095) of the function that the
        /// guest sees at `bdf`. A function that is not there, or is being reset,
        /// reads all ones.
        1 => #[idempotent] fn read(bdf: Bdf, offset: u16, width: Width) -> u32;
        /// Writes. A write that is not allowed is dropped and counted.
        2 => fn write(bdf: Bdf, offset: u16, width: Width, value: u32) -> Effect;
        /// Where BAR `index` of the guest's function `function` (its position in
        /// system.toml) is decoded now: guest address, or `u64::MAX` if it is not.
        3 => #[idempotent] fn bar(function: FunctionId, index: u8) -> u64;
        /// Takes the function back to its state at start (M24). Returns how many
        /// milliseconds it answers no access: a function-level reset is not waited
        /// for (C8).
        4 => #[idempotent] fn reset(function: FunctionId) -> u64;
        /// Keeps the function from sending any MSI message, or lets it again
        /// (M23). A function without mask bits forgets its pending messages.
        5 => #[idempotent] fn throttle_msi(function: FunctionId, throttled: bool) -> ();
    }
}

impl<T: Transport> Client<T> {
    /// Repeats [`Client::write`] if the server dies in it. The effect of the first
    /// write is then unknown, and [`Effect::DECODE`] is assumed: it does no harm to
    /// act on an effect that did not happen.
    pub fn write_again(&mut self, bdf: Bdf, offset: u16, width: Width, value: u32) -> Effect {
        retry(|again| {
            let effect = self.write(bdf, offset, width, value)?;
            Ok(if again {
                effect.and(Effect::DECODE)
            } else {
                effect
            })
        })
        .unwrap_or(Effect::DECODE)
    }
}
