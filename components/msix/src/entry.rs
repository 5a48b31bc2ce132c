//! One table entry as the guest sees it, and what stands behind it.

use channel::Error;

/// A flag of an entry: a bit of its first word.
#[derive(Clone, Copy)]
pub(crate) struct Flag(u64);

/// The inverse of vector control bit 0: all zeroes is an entry after reset.
pub(crate) const UNMASKED: Flag = Flag(1 << 32);
/// Address or data were written since the entry was last bound (M8).
pub(crate) const UPDATED: Flag = Flag(1 << 33);
/// Over its budget: masked in the device whatever the guest says (M23).
pub(crate) const THROTTLED: Flag = Flag(1 << 34);
/// Bound by the router: the device's entry has the router's message.
pub(crate) const BOUND: Flag = Flag(1 << 35);
/// The number of the last error, 8 bits, or 0.
const ERROR_SHIFT: u32 = 40;
const ERROR: u64 = 0xff << ERROR_SHIFT;

/// The state of a source: one entry of a function's table, as its two words lie in
/// memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Bits 31:0 are the message data, as the guest wrote it; then flags.
    pub(crate) state: u64,
    /// Message address, as the guest wrote it.
    pub(crate) address: u64,
}

impl Entry {
    /// An entry after reset.
    pub const RESET: Self = Self {
        state: 0,
        address: 0,
    };

    /// Returns the message data, as the guest wrote it.
    pub const fn data(&self) -> u32 {
        self.state as u32
    }

    pub(crate) const fn set_data(&mut self, data: u32) {
        self.state = self.state >> 32 << 32 | data as u64;
    }

    pub(crate) const fn is(&self, flag: Flag) -> bool {
        self.state & flag.0 != 0
    }

    pub(crate) const fn set(&mut self, flag: Flag, on: bool) {
        self.state = self.state & !flag.0 | if on { flag.0 } else { 0 };
    }

    /// Returns why the last bind or unbind failed; `None` once one has succeeded.
    pub const fn error(&self) -> Option<Error> {
        match (self.state & ERROR) >> ERROR_SHIFT {
            0 => None,
            number => Some(Error::from_label(number)),
        }
    }

    pub(crate) const fn set_error(&mut self, error: Option<Error>) {
        let number = match error {
            Some(error) => error.label(),
            None => 0,
        };
        self.state = self.state & !ERROR | number << ERROR_SHIFT;
    }

    /// Returns the vector control bit 0 (M9).
    pub const fn masked(&self) -> bool {
        !self.is(UNMASKED)
    }

    /// Returns whether an update is due when the function lets it (M3, M9).
    pub(crate) const fn wants_update(&self) -> bool {
        self.is(UNMASKED) && self.is(UPDATED)
    }

    /// Returns whether the device's entry is to be masked while it is bound.
    pub(crate) const fn keep_masked(&self) -> bool {
        self.masked() || self.is(THROTTLED)
    }
}
