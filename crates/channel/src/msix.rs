//! The interfaces of the msix component: [`control`] for pci-config, [`table`]
//! for the vmm and [`dump`] for the console. One endpoint, told apart by badge.

use crate::{Error, MESSAGE_WORDS, Word, Words};
use spec::FunctionId;

/// A place in the BAR of an assigned function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionBar {
    /// The function.
    pub function: FunctionId,
    /// BAR index, 0 to 5.
    pub bar: u8,
}

impl Word for FunctionBar {
    fn to_word(self) -> u64 {
        u64::from(self.function.0) << 8 | u64::from(self.bar)
    }
    fn from_word(word: u64) -> Option<Self> {
        let word = u16::try_from(word).ok()?;
        Some(Self {
            function: FunctionId((word >> 8) as u8),
            bar: word as u8,
        })
    }
}

/// `MsixControl`: pci-config to msix.
pub mod control {
    use spec::FunctionId;

    interface! {
        /// Message control of each function.
        pub trait MsixControl {
            /// The register as the guest sees it (M1).
            1 => #[idempotent] fn read_control(function: FunctionId) -> u16;
            /// Carries out a guest's write of the whole register, merged by
            /// pci-config (M2). Returns what the device's register has to be
            /// written with (M6), if anything.
            2 => fn write_control(function: FunctionId, value: u16) -> Option<u16>;
            /// Masks and unbinds everything; the state is as at start (M24).
            3 => #[idempotent] fn reset(function: FunctionId) -> ();
        }
    }
}

/// `MsixTable`: vmm to msix.
pub mod table {
    use super::FunctionBar;
    use crate::irq_router::Source;
    use pci::Width;

    interface! {
        /// Table, PBA and the registers that share their pages.
        pub trait MsixTable {
            /// Reads `width` bytes at byte `offset` of the BAR, which must lie
            /// on a page that holds table or PBA.
            1 => #[idempotent] fn read(place: FunctionBar, offset: u32, width: Width) -> u64;
            /// Writes `width` bytes there.
            2 => #[idempotent] fn write(place: FunctionBar, offset: u32, width: Width, value: u64) -> ();
            /// Masks the device's entry whatever the guest's mask says, or
            /// stops doing so: a source over its budget (M23).
            3 => #[idempotent] fn set_throttled(source: Source, throttled: bool) -> ();
        }
    }
}

/// One table entry, as a dump shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// Its number.
    pub entry: u16,
    /// Address as the guest wrote it.
    pub address: u64,
    /// Data as the guest wrote it.
    pub data: u32,
    /// Masked by the guest.
    pub masked: bool,
    /// Masked for being over its budget (M23).
    pub throttled: bool,
    /// Written since it was last bound (M8).
    pub updated: bool,
    /// Bound to a slot.
    pub bound: bool,
    /// The device's pending bit.
    pub pending: bool,
    /// Why the last bind or unbind failed (M5).
    pub error: Option<Error>,
}

impl Words for EntryState {
    const LENGTH: usize = 3;
    fn put(self, words: &mut [u64; MESSAGE_WORDS]) {
        words[0] = u64::from(self.entry)
            | u64::from(self.masked) << 16
            | u64::from(self.throttled) << 17
            | u64::from(self.updated) << 18
            | u64::from(self.bound) << 19
            | u64::from(self.pending) << 20
            | self.error.map_or(0, Error::label) << 32;
        words[1] = self.address;
        words[2] = self.data.into();
    }
    fn get(words: &[u64; MESSAGE_WORDS]) -> Option<Self> {
        let bit = |n: u32| words[0] >> n & 1 == 1;
        let error = words[0] >> 32;
        Some(Self {
            entry: words[0] as u16,
            address: words[1],
            data: u32::try_from(words[2]).ok()?,
            masked: bit(16),
            throttled: bit(17),
            updated: bit(18),
            bound: bit(19),
            pending: bit(20),
            error: (error != 0).then(|| Error::from_label(error)),
        })
    }
}

/// `MsixDump`: console to msix. Changes nothing.
pub mod dump {
    use super::EntryState;
    use spec::FunctionId;

    interface! {
        /// State of each function's MSI-X, one entry at a time.
        pub trait MsixDump {
            /// Message control as the guest sees it (M1);
            /// [`NotFound`](crate::Error::NotFound) without MSI-X.
            1 => #[idempotent] fn state(function: FunctionId) -> u16;
            /// The first entry at or after `from` that is in use, or any if
            /// `all`; [`NotFound`](crate::Error::NotFound) if there is none.
            /// An entry is in use if it is not as after reset.
            2 => #[idempotent] fn next_entry(function: FunctionId, from: u16, all: bool) -> EntryState;
        }
    }
}
