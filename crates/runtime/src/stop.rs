//! How a component ends the whole system in good order: by a message on its
//! fault endpoint.

use core::fmt;

use sel4::MessageInfo;
use sel4::cap::Endpoint;
use spec::{EXIT_RESET, EXIT_SUCCESS, Ending, STOP_LABEL};

/// Why the system stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The guest ended itself with this code.
    GuestExit(u32),
    /// The guest halted with interrupts off.
    GuestHalt,
    /// The guest took an exception with this vector that it could not handle.
    GuestFault(u8),
    /// The guest's image could not be loaded.
    GuestImage,
    /// The guest loaded a page table by which it cannot run.
    GuestPageTable,
    /// A number that means none of these.
    Unknown(u64),
}

/// The vector of #PF.
const PAGE_FAULT: u8 = 14;

impl Stop {
    /// Returns the word that encodes it.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        match self {
            Self::GuestExit(code) => code as u64,
            Self::GuestHalt => 1 << 32,
            Self::GuestFault(vector) => 2 << 32 | vector as u64,
            Self::GuestImage => 3 << 32,
            Self::GuestPageTable => 4 << 32,
            Self::Unknown(word) => word,
        }
    }

    /// Decodes a word.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        match word >> 32 {
            0 => Self::GuestExit(word as u32),
            1 => Self::GuestHalt,
            2 => Self::GuestFault(word as u8),
            3 => Self::GuestImage,
            4 => Self::GuestPageTable,
            _ => Self::Unknown(word),
        }
    }

    /// Returns the end of a system that stops for this.
    #[must_use]
    pub const fn ending(self) -> Ending {
        match self {
            Self::GuestExit(EXIT_SUCCESS) => Ending::Success,
            Self::GuestExit(_) => Ending::GuestFailed,
            Self::GuestHalt => Ending::GuestHalted,
            Self::GuestFault(_) => Ending::GuestException,
            Self::GuestImage => Ending::GuestImage,
            Self::GuestPageTable => Ending::GuestPageTable,
            Self::Unknown(_) => Ending::Failure,
        }
    }

    /// Returns whether the guest meant it.
    #[must_use]
    pub const fn orderly(self) -> bool {
        matches!(self.ending(), Ending::Success)
    }

    /// Asks the monitor to stop the system; does not return.
    pub fn request(self) -> ! {
        let monitor = Endpoint::from_bits(spec::FAULT_SLOT);
        loop {
            monitor.call_with_mrs(
                MessageInfo::new(STOP_LABEL, 0, 0, 1),
                [self.to_word(), 0, 0, 0],
            );
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::GuestExit(EXIT_SUCCESS) => f.write_str("guest finished"),
            Self::GuestExit(EXIT_RESET) => f.write_str("guest reset its machine"),
            Self::GuestExit(code) => write!(f, "guest failed with code {code:#x}"),
            Self::GuestHalt => f.write_str("guest halted with interrupts off"),
            Self::GuestFault(vector) => {
                write!(f, "guest triple fault, exception {vector}")?;
                // A page fault without a place for its frame: the stack is gone.
                // The other possible cause is a guest without a handler.
                if vector == PAGE_FAULT {
                    f.write_str(" (stack overflow, or no handler)")?;
                }
                Ok(())
            }
            Self::GuestImage => f.write_str("guest image cannot be loaded"),
            Self::GuestPageTable => {
                f.write_str("guest loaded a page table that is no identity map")
            }
            Self::Unknown(word) => write!(f, "unknown reason {word:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::string::ToString as _;

    #[test]
    fn a_page_fault_without_a_place_for_it_names_the_stack() {
        assert_eq!(
            Stop::GuestFault(14).to_string(),
            "guest triple fault, exception 14 (stack overflow, or no handler)"
        );
        assert_eq!(
            Stop::GuestFault(6).to_string(),
            "guest triple fault, exception 6"
        );
    }

    #[test]
    fn words_survive() {
        for stop in [
            Stop::GuestExit(0x10),
            Stop::GuestExit(u32::MAX),
            Stop::GuestHalt,
            Stop::GuestFault(255),
            Stop::GuestImage,
            Stop::GuestPageTable,
            Stop::Unknown(u64::MAX),
        ] {
            assert_eq!(Stop::from_word(stop.to_word()), stop);
        }
        assert_eq!(Stop::GuestExit(0x11).ending(), Ending::GuestFailed);
        assert_eq!(Stop::GuestHalt.ending(), Ending::GuestHalted);
        assert_eq!(Stop::GuestFault(14).ending(), Ending::GuestException);
        assert_eq!(Stop::GuestImage.ending(), Ending::GuestImage);
        assert_eq!(Stop::GuestPageTable.ending(), Ending::GuestPageTable);
        assert_eq!(Stop::Unknown(u64::MAX).ending(), Ending::Failure);
        assert!(Stop::GuestExit(0x10).orderly() && !Stop::GuestExit(0x11).orderly());
    }
}
