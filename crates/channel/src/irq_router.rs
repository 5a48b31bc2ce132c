//! `IrqRouter`: msix to irq-router.

use crate::Word;

/// A device's interrupt: which function, and which of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The function's position among all assigned functions.
    pub function: u8,
    /// MSI-X entry (0 to 2047) or MSI message (0 to 31).
    pub entry: u16,
}

impl Word for Source {
    fn to_word(self) -> u64 {
        u64::from(self.function) << 16 | u64::from(self.entry)
    }
    fn from_word(word: u64) -> Option<Self> {
        let word = u32::try_from(word).ok()?;
        (word < 1 << 24).then_some(Self {
            function: (word >> 16) as u8,
            entry: word as u16,
        })
    }
}

interface! {
    /// Vectors, IRQ handler capabilities and slots.
    pub trait IrqRouter {
        /// Obtains a vector and a slot for `source` and routes it to the guest
        /// by its message (`address`, `data`), `masked` or not. The reply is the
        /// message (address, data) for the device.
        ///
        /// Errors: [`Refused`](crate::Error::Refused) for a message that no
        /// local APIC takes (M17), [`Exhausted`](crate::Error::Exhausted) when
        /// vectors or slots are used up (M22).
        1 => fn bind(source: Source, address: u64, data: u32, masked: bool) -> (u64, u32);
        /// Gives vector and slot back. Error if `source` is not bound.
        2 => fn unbind(source: Source) -> ();
        /// Sets whether events of a bound source are held back in the vmm (M20).
        3 => fn set_masked(source: Source, masked: bool) -> ();
        /// Sets whether events of every source of a function are held back in
        /// the vmm (M20), those bound later too, whatever their own mask.
        4 => fn set_function_masked(function: u8, masked: bool) -> ();
        /// Unbinds every source of a function and ends its function mask. Goes
        /// on past an error, and then gives it.
        5 => fn unbind_function(function: u8) -> ();
    }
}
