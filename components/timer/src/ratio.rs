//! From time stamp counter to ticks of a clock.

use core::num::NonZeroU32;

/// Femtoseconds in a microsecond.
const FEMTOSECONDS: u64 = 1_000_000_000;

/// Ticks in one cycle of the time stamp counter, in units of 2^-32.
#[derive(Clone, Copy, Debug)]
pub struct Ratio(u64);

impl Ratio {
    /// Creates the ratio for a time stamp counter of `mhz` MHz and a tick of `period`
    /// femtoseconds (1 to 1,000,000,000).
    pub const fn new(mhz: NonZeroU32, period: u32) -> Self {
        // Below 2^62 over at most 2^62: never an overflow.
        Self((FEMTOSECONDS << 32) / (mhz.get() as u64 * period as u64))
    }

    /// Returns the ticks in `cycles`, at most `limit`; rounded up, and then one
    /// more for the part of a tick that has gone by.
    pub fn ticks(self, cycles: u64, limit: u32) -> u32 {
        let ticks = ((u128::from(cycles) * u128::from(self.0)) >> 32) + 2;
        u32::try_from(ticks).unwrap_or(limit).min(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(mhz: u32, period: u32) -> Ratio {
        Ratio::new(NonZeroU32::new(mhz).expect("not 0"), period)
    }

    #[test]
    fn ticks_are_close_and_never_too_few() {
        for (mhz, period) in [
            (1000, 10_000_000),
            (2893, 69_841_279),
            (1, 100_000_000),
            (1000, 838_095_345),
        ] {
            for cycles in [0, 1, 999, 1_000_000, 400_000_000_u64] {
                let exact =
                    u128::from(cycles) * 1_000_000_000 / (u128::from(mhz) * u128::from(period));
                let ticks = u128::from(ratio(mhz, period).ticks(cycles, u32::MAX));
                // The ratio is cut off after 32 bits: 1 in 4 million here.
                let slack = exact / 4_000_000;
                assert!(ticks + slack > exact, "{ticks} {exact}");
                assert!(ticks <= exact + 2, "{ticks} {exact}");
            }
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        for (mhz, period) in [(1, 1), (u32::MAX, 1_000_000_000)] {
            assert_eq!(ratio(mhz, period).ticks(u64::MAX, 77), 77);
            assert_eq!(ratio(mhz, period).ticks(0, 77), 2);
        }
    }
}
