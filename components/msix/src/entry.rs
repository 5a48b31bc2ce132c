//! One table entry as the guest sees it, and what stands behind it.

use channel::Error;

/// The state of a source: one entry of a function's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Message address, as the guest wrote it.
    pub address: u64,
    /// Message data, as the guest wrote it.
    pub data: u32,
    /// Vector control bit 0.
    pub masked: bool,
    /// Address or data were written since the entry was last bound (M8).
    pub updated: bool,
    /// Over its budget: masked in the device whatever the guest says (M23).
    pub throttled: bool,
    /// Bound by the router: the device's entry has the router's message.
    pub bound: bool,
    /// Why the last bind or unbind failed; reset by the next that succeeds.
    pub error: Option<Error>,
}

/// The first word of an entry in memory: bits 31:0 are the data, 47:40 the number
/// of the error or 0. The second word is the address.
const UNMASKED: u64 = 1 << 32;
const UPDATED: u64 = 1 << 33;
const THROTTLED: u64 = 1 << 34;
const BOUND: u64 = 1 << 35;
const ERROR_SHIFT: u32 = 40;

impl Entry {
    /// An entry after reset: two words of 0.
    pub const RESET: Self = Self::from_words([0, 0]);

    /// Decodes the two words of an entry.
    pub(crate) const fn from_words([state, address]: [u64; 2]) -> Self {
        let error = state >> ERROR_SHIFT & 0xff;
        Self {
            address,
            data: state as u32,
            masked: state & UNMASKED == 0,
            updated: state & UPDATED != 0,
            throttled: state & THROTTLED != 0,
            bound: state & BOUND != 0,
            error: match error {
                0 => None,
                error => Some(Error::from_label(error)),
            },
        }
    }

    /// Encodes the entry.
    pub(crate) fn to_words(self) -> [u64; 2] {
        let bit = |set: bool, mask: u64| if set { mask } else { 0 };
        let state = u64::from(self.data)
            | bit(!self.masked, UNMASKED)
            | bit(self.updated, UPDATED)
            | bit(self.throttled, THROTTLED)
            | bit(self.bound, BOUND)
            | self.error.map_or(0, Error::label) << ERROR_SHIFT;
        [state, self.address]
    }

    /// Vector control: bit 0, the others read as 0 (M9).
    pub(crate) const fn control(&self) -> u32 {
        self.masked as u32
    }

    /// Whether an update is due when the function lets it (M3, M9).
    pub(crate) const fn wants_update(&self) -> bool {
        !self.masked && self.updated
    }

    /// Whether the device's entry is to be masked while it is bound.
    pub(crate) const fn keep_masked(&self) -> bool {
        self.masked || self.throttled
    }
}
