//! Whether memory that firmware wants a function to reach may be mapped for it.

use core::fmt;
use core::ops::Range;

use spec::MESSAGES;

/// Why memory of the firmware is not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotMapped {
    /// Interrupt messages are sent to these addresses.
    Messages,
    /// Configuration space is there.
    Configuration,
    /// It is RAM that the kernel has, or a device's registers that somebody has.
    Taken,
    /// The guest has RAM at these addresses: the first of them.
    Guest(u64),
}

impl fmt::Display for NotMapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Messages => f.write_str("interrupt messages are sent there"),
            Self::Configuration => f.write_str("configuration space is there"),
            Self::Taken => f.write_str(
                "it is RAM of the kernel's, or a device's registers, and not set aside by firmware",
            ),
            Self::Guest(address) => write!(
                f,
                "its guest has RAM at these addresses, from {address:#x} on: give the guest \
                 another `address`, or less memory"
            ),
        }
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// Checks a piece of the firmware's memory. `configuration` is the configuration window,
/// `guest` the RAM of the function's guest, if somebody has it; `free` tells whether a range
/// is neither the kernel's RAM nor taken.
///
/// # Errors
/// Why it is not to be mapped.
pub fn check_reserved(
    range: &Range<u64>,
    configuration: &Range<u64>,
    guest: Option<&Range<u64>>,
    free: impl FnOnce(&Range<u64>) -> bool,
) -> Result<(), NotMapped> {
    if overlap(range, &MESSAGES) {
        return Err(NotMapped::Messages);
    }
    if overlap(range, configuration) {
        return Err(NotMapped::Configuration);
    }
    if let Some(guest) = guest
        && overlap(range, guest)
    {
        return Err(NotMapped::Guest(guest.start));
    }
    free(range).then_some(()).ok_or(NotMapped::Taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;

    #[test]
    fn memory_that_nobody_else_has_is_mapped() {
        let look = |range: Range<u64>| {
            let guest = 0x20_0000..0x1000_0000;
            check_reserved(&range, &(0xb000_0000..0xc000_0000), Some(&guest), |range| {
                range.start >= 0x7d00_0000
            })
        };
        assert_eq!(look(0x7d00_0000..0x7d10_0000), Ok(()));
        // Right beside others'.
        assert_eq!(look(0xaff0_0000..0xb000_0000), Ok(()));
        assert_eq!(look(0xc000_0000..0xc000_1000), Ok(()));
        assert_eq!(look(0xfedf_f000..0xfee0_0000), Ok(()));
        assert_eq!(look(0xfef0_0000..0xfef0_1000), Ok(()));
        for (range, why) in [
            (0xfedf_f000..0xfee0_1000, NotMapped::Messages),
            (0xfeef_f000..0xfef0_1000, NotMapped::Messages),
            (0xafff_f000..0xb000_1000, NotMapped::Configuration),
            (0x1f_f000..0x20_1000, NotMapped::Guest(0x20_0000)),
            (0x0fff_f000..0x1000_1000, NotMapped::Guest(0x20_0000)),
            (0x1000_0000..0x1000_1000, NotMapped::Taken),
        ] {
            assert_eq!(look(range.clone()), Err(why), "{range:x?}");
            assert!(std::string::ToString::to_string(&why).len() > 20);
        }
        // One that nobody has has no guest.
        let nobody = check_reserved(&(0x20_0000..0x20_1000), &(0..0), None, |_| true);
        assert_eq!(nobody, Ok(()));
    }
}
