//! Time since boot, from the time stamp counter.

use crate::command_line::CommandLine;
use crate::cpu;

/// Input clock of the 8254 timer in Hz (ACPI 3.3.1 lists it as 1.193182 MHz).
const PIT_HZ: u64 = 1_193_182;
/// How long the counter is compared with the 8254, in microseconds.
const CALIBRATION_MICROS: u64 = 10_000;
/// Port 0x61: gate (bit 0), speaker (bit 1) and output (bit 5) of channel 2.
const PIT_CONTROL: u16 = 0x61;
/// Used where there is neither a `tsc_khz=` word nor a working 8254: a wrong
/// clock serves pages, no clock does not.
const DEFAULT_KHZ: u64 = 1_000_000;

/// Converts the time stamp counter to time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: u64,
    khz: u64,
    /// Microseconds per tick, as a 32.32 fixed-point number.
    scale: u64,
    /// Unix time at which the counter would have been 0, in nanoseconds.
    epoch_ns: Option<u64>,
}

impl Clock {
    /// Creates a clock that reads 0 when the counter is `start` and runs at
    /// `khz` (1 to 2^40).
    pub fn new(start: u64, khz: u64) -> Self {
        let khz = khz.clamp(1, 1 << 40);
        Self {
            start,
            khz,
            scale: (1000u64 << 32).div_ceil(khz),
            epoch_ns: None,
        }
    }

    /// Takes the frequency from `tsc_khz=N`, else measures it, and the time of day from
    /// `tsc_epoch_ns=N`.
    pub fn calibrated(start: u64, command_line: &CommandLine) -> Self {
        let khz = command_line.number("tsc_khz").unwrap_or_else(measure_khz);
        Self {
            epoch_ns: command_line.number("tsc_epoch_ns"),
            ..Self::new(start, khz)
        }
    }

    /// Returns the Unix time in nanoseconds at the counter value `tsc`, if the time of day
    /// is known.
    pub fn unix_ns_at(&self, tsc: u64) -> Option<u64> {
        let running = u128::from(tsc) * 1_000_000 / u128::from(self.khz);
        self.epoch_ns?.checked_add(u64::try_from(running).ok()?)
    }

    /// Returns the counter frequency in kHz.
    pub fn khz(&self) -> u64 {
        self.khz
    }

    /// Returns the microseconds from the start to the counter value `tsc`.
    pub fn micros_at(&self, tsc: u64) -> u64 {
        let ticks = tsc.saturating_sub(self.start);
        ((u128::from(ticks) * u128::from(self.scale)) >> 32) as u64
    }

    /// Returns the microseconds since the start.
    pub fn micros(&self) -> u64 {
        self.micros_at(cpu::tsc())
    }
}

/// Measures the counter against one shot of the 8254's channel 2 (mode 0: the
/// output rises when the count ends).
fn measure_khz() -> u64 {
    let count = PIT_HZ * CALIBRATION_MICROS / 1_000_000;
    let control = cpu::in8(PIT_CONTROL) & !0x03;
    cpu::out8(PIT_CONTROL, control);
    cpu::out8(0x43, 0xb0); // channel 2, low byte then high byte, mode 0
    cpu::out8(0x42, count as u8);
    cpu::out8(0x42, (count >> 8) as u8);
    cpu::out8(PIT_CONTROL, control | 0x01); // gate up: counting starts
    let start = cpu::tsc();
    let mut now = start;
    // 2^34 ticks are seconds on any CPU: with no 8254 the wait still ends.
    while cpu::in8(PIT_CONTROL) & 0x20 == 0 && now.wrapping_sub(start) < 1 << 34 {
        now = cpu::tsc();
    }
    let khz = cpu::tsc().wrapping_sub(start) * 1000 / CALIBRATION_MICROS;
    // Below 100 MHz or above 100 GHz it was not the 8254 that answered.
    if (100_000..100_000_000).contains(&khz) {
        khz
    } else {
        DEFAULT_KHZ
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, CommandLine};

    #[test]
    fn micros_follow_the_frequency_without_overflow() {
        let clock = Clock::new(1_000, 2_000_000);
        assert_eq!(clock.micros_at(1_000), 0);
        assert_eq!(clock.micros_at(0), 0);
        assert_eq!(clock.micros_at(1_000 + 2_000_000_000), 1_000_000);
        let year = 2_000_000_000 * 365 * 86_400;
        let expected = 365 * 86_400 * 1_000_000;
        assert!(clock.micros_at(1_000 + year).abs_diff(expected) < expected / 1_000_000);
    }

    #[test]
    fn the_time_of_day_follows_the_counter() {
        let line = CommandLine::new(b"tsc_khz=2000000 tsc_epoch_ns=1000000000000000001");
        let clock = Clock::calibrated(5, &line);
        assert_eq!(clock.unix_ns_at(0), Some(1_000_000_000_000_000_001));
        assert_eq!(
            clock.unix_ns_at(2_000_000_003),
            Some(1_000_000_001_000_000_002)
        );
        assert_eq!(Clock::new(5, 2_000_000).unix_ns_at(0), None);
        let line = CommandLine::new(b"tsc_khz=1 tsc_epoch_ns=18446744073709551615");
        assert_eq!(Clock::calibrated(0, &line).unix_ns_at(1), None);
    }

    #[test]
    fn absurd_frequencies_are_bounded() {
        assert_eq!(Clock::new(0, 0).khz(), 1);
        assert_eq!(Clock::new(0, u64::MAX).khz(), 1 << 40);
    }
}
