//! How a system ends, as a number that leaves the machine.

/// The end of a system: init writes its number to the machine's exit port, and `vectis
/// run` has it as its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// As intended.
    Success = 0,
    /// Init could not build the system, or a component failed.
    Failure = 1,
    /// The guest reported a failure.
    GuestFailed = 10,
    /// The guest halted with interrupts off.
    GuestHalted = 11,
    /// The guest had an exception that it could not handle.
    GuestException = 12,
    /// The guest's image could not be loaded.
    GuestImage = 13,
    /// The guest loaded a page table by which it cannot run.
    GuestPageTable = 14,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Success,
        Self::Failure,
        Self::GuestFailed,
        Self::GuestHalted,
        Self::GuestException,
        Self::GuestImage,
        Self::GuestPageTable,
    ];

    /// Returns the end that a number stands for; [`Failure`](Self::Failure) for a number
    /// that means none.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        let mut all = Self::ALL.into_iter();
        let known = all.find(|&ending| ending as u8 == number);
        known.unwrap_or(Self::Failure)
    }
}

// QEMU's isa-debug-exit keeps seven bits.
const _: () = {
    let mut index = 0;
    while index < Ending::ALL.len() {
        assert!((Ending::ALL[index] as u8) < 0x80);
        index += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::Ending;

    #[test]
    fn numbers_survive() {
        for ending in Ending::ALL {
            assert_eq!(Ending::from_number(ending as u8), ending);
        }
        for unknown in [2, 9, 0x7f] {
            assert_eq!(Ending::from_number(unknown), Ending::Failure);
        }
    }
}
