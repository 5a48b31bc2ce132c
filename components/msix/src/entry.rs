//! One table entry as the guest sees it, and what stands behind it.

use channel::Error;

/// A source: one entry of a function's table.
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
    /// The mask bit in the device's entry.
    pub device_masked: bool,
    /// The message (address, data) in the device's entry while it is bound.
    pub bound: Option<(u64, u32)>,
    /// Why the last bind or unbind failed; gone with the next that succeeds.
    pub error: Option<Error>,
}

impl Entry {
    /// An entry after reset.
    pub const RESET: Self = Self {
        address: 0,
        data: 0,
        masked: true,
        updated: false,
        throttled: false,
        device_masked: true,
        bound: None,
        error: None,
    };

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
