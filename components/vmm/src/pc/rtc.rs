//! The clock and CMOS memory of a PC (Motorola MC146818A datasheet, sections
//! "Address map" and "Registers"), read through an index and a data port.
//!
//! It shows the machine's time, which a guest does not set, and raises no interrupts.

const SECONDS: u8 = 0x00;
const SECONDS_ALARM: u8 = 0x01;
const MINUTES: u8 = 0x02;
const MINUTES_ALARM: u8 = 0x03;
const HOURS: u8 = 0x04;
const HOURS_ALARM: u8 = 0x05;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_C: u8 = 0x0c;
const STATUS_D: u8 = 0x0d;
/// The century, where PCs keep it; the FADT names it.
const CENTURY: u8 = spec::acpi::RTC_CENTURY;

/// Status A: 32,768 Hz, and no update in progress: the time never changes in a read.
const A_RUNNING: u8 = 0x20;
/// Status B: the time stands still while the guest sets it.
const B_SET: u8 = 1 << 7;
/// Status B: binary numbers.
const B_BINARY: u8 = 1 << 2;
/// Status B: hours from 0 to 23.
const B_24_HOURS: u8 = 1 << 1;
/// Hours: afternoon.
const AFTERNOON: u8 = 1 << 7;
/// Status D: time and memory are valid.
const D_VALID: u8 = 1 << 7;

/// Bytes of memory, the clock's registers included.
const SIZE: usize = 128;
const SECONDS_A_DAY: u64 = 86_400;

/// The clock.
#[derive(Clone, Copy, Debug)]
pub struct Rtc {
    tsc_hz: u64,
    /// Unix time in seconds when the time stamp counter was 0.
    start: u64,
    index: u8,
    memory: [u8; SIZE],
}

impl Rtc {
    /// Creates the clock of a machine whose time stamp counter has this frequency in Hz,
    /// 1 at least, and was 0 at `start`, in seconds of Unix time.
    #[must_use]
    pub const fn new(tsc_hz: u64, start: u64) -> Self {
        let mut memory = [0; SIZE];
        memory[STATUS_B as usize] = B_24_HOURS;
        Self {
            tsc_hz,
            start,
            index: 0,
            memory,
        }
    }

    /// Selects the byte that the data port shows. Bit 7 masks NMIs, which there are none
    /// of.
    pub const fn select(&mut self, value: u8) {
        self.index = value & 0x7f;
    }

    /// Returns the selected index.
    #[must_use]
    pub const fn selected(&self) -> u8 {
        self.index
    }

    /// Reads the selected byte.
    #[must_use]
    pub fn read(&self, now: u64) -> u8 {
        let seconds = self.start.saturating_add(now / self.tsc_hz);
        let (days, second) = (seconds / SECONDS_A_DAY, seconds % SECONDS_A_DAY);
        let date = Date::of(days);
        let value = match self.index {
            SECONDS => second % 60,
            MINUTES => second / 60 % 60,
            HOURS => return self.hours(second / 3600),
            // 1 is Sunday; 1970-01-01 was a Thursday.
            WEEKDAY => (days + 4) % 7 + 1,
            DAY => date.day,
            MONTH => date.month,
            YEAR => date.year % 100,
            CENTURY => date.year / 100 % 100,
            STATUS_A => return A_RUNNING | self.memory[usize::from(STATUS_A)] & 0x0f,
            STATUS_C => return 0,
            STATUS_D => return D_VALID,
            index => return self.memory[usize::from(index)],
        };
        self.digits(value as u8)
    }

    fn hours(&self, hour: u64) -> u8 {
        let hour = hour as u8;
        if self.memory[usize::from(STATUS_B)] & B_24_HOURS != 0 {
            return self.digits(hour);
        }
        let twelve = self.digits((hour + 11) % 12 + 1);
        spec::bit(hour >= 12, AFTERNOON) | twelve
    }

    /// Returns a number below 100 as status B asks for it.
    const fn digits(&self, value: u8) -> u8 {
        if self.memory[STATUS_B as usize] & B_BINARY != 0 {
            value
        } else {
            16 * (value / 10) + value % 10
        }
    }

    /// Writes the selected byte. The time is not the guest's to set; the interrupts of
    /// status B cannot be switched on.
    pub fn write(&mut self, value: u8) {
        let writable = match self.index {
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY | STATUS_C
            | STATUS_D => return,
            SECONDS_ALARM | MINUTES_ALARM | HOURS_ALARM => 0xff,
            STATUS_B => B_SET | B_BINARY | B_24_HOURS | 1,
            _ => 0xff,
        };
        self.memory[usize::from(self.index)] = value & writable;
    }
}

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Date {
    year: u64,
    month: u64,
    day: u64,
}

impl Date {
    /// Returns the date so many days after 1970-01-01. Years begin in March here, so that
    /// a leap day is the last of its year.
    const fn of(days: u64) -> Self {
        const FOUR_CENTURIES: u64 = 146_097;
        /// Days from 0000-03-01 to 1970-01-01.
        const EPOCH: u64 = 719_468;
        // Far beyond what four digits of a year show.
        let days = days % (100 * FOUR_CENTURIES) + EPOCH;
        let (era, day) = (days / FOUR_CENTURIES, days % FOUR_CENTURIES);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        // Months from March on have 31, 30, 31, 30, 31 days, again and again.
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 {
            (month + 3, 0)
        } else {
            (month - 9, 1)
        };
        Self {
            year: 400 * era + year + next,
            month,
            day,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u64 = 1000;
    /// 2024-02-29 23:59:58, a Thursday.
    const LEAP: u64 = 1_709_251_198;

    fn read(rtc: &mut Rtc, index: u8, now: u64) -> u8 {
        rtc.select(index);
        rtc.read(now)
    }

    fn all(rtc: &mut Rtc, now: u64) -> [u8; 8] {
        [CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOURS, MINUTES, SECONDS]
            .map(|index| read(rtc, index, now))
    }

    #[test]
    fn decimal_time_by_default() {
        let mut rtc = Rtc::new(HZ, LEAP);
        assert_eq!(
            all(&mut rtc, 0),
            [0x20, 0x24, 0x02, 0x29, 5, 0x23, 0x59, 0x58]
        );
        assert_eq!(
            all(&mut rtc, 1999),
            [0x20, 0x24, 0x02, 0x29, 5, 0x23, 0x59, 0x59]
        );
        assert_eq!(all(&mut rtc, 2000), [0x20, 0x24, 0x03, 0x01, 6, 0, 0, 0]);
    }

    #[test]
    fn binary_time_and_twelve_hours() {
        let mut rtc = Rtc::new(HZ, LEAP);
        rtc.select(STATUS_B);
        rtc.write(B_BINARY);
        assert_eq!(all(&mut rtc, 0), [20, 24, 2, 29, 5, 0x80 | 11, 59, 58]);
        assert_eq!(read(&mut rtc, HOURS, 2000), 12, "midnight");
        assert_eq!(read(&mut rtc, HOURS, 2000 + 43_200_000), 0x8c, "noon");
    }

    #[test]
    fn status() {
        let mut rtc = Rtc::new(HZ, 0);
        assert_eq!(read(&mut rtc, STATUS_A, 0) & 0x80, 0);
        assert_eq!(read(&mut rtc, STATUS_B, 0), B_24_HOURS);
        assert_eq!(read(&mut rtc, STATUS_C, 0), 0);
        assert_eq!(read(&mut rtc, STATUS_D, 0), D_VALID);
        rtc.select(STATUS_B);
        rtc.write(0x7f);
        assert_eq!(rtc.read(0), 0x07, "no interrupts");
    }

    #[test]
    fn memory_is_kept_and_time_is_not_set() {
        let mut rtc = Rtc::new(HZ, LEAP);
        for index in 0..=0x7f {
            rtc.select(0x80 | index);
            rtc.write(0x55);
            if index > STATUS_D && index != CENTURY {
                assert_eq!(rtc.read(0), 0x55, "{index:#x}");
            }
        }
        assert_eq!(read(&mut rtc, MINUTES, 0), 59);
    }

    #[test]
    fn dates() {
        let date = |days| {
            let Date { year, month, day } = Date::of(days);
            (year, month, day)
        };
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(58), (1970, 2, 28));
        assert_eq!(date(59), (1970, 3, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(11_017), (2000, 3, 1));
        assert_eq!(date(47_540), (2100, 2, 28));
        assert_eq!(date(47_541), (2100, 3, 1));
        // Each day follows the one before.
        let mut last = (1970, 1, 1);
        for days in 1..60_000 {
            let next = date(days);
            let (year, month, day) = last;
            assert!(
                next == (year, month, day + 1)
                    || (next.2 == 1 && next == (year, month + 1, 1))
                    || next == (year + 1, 1, 1),
                "{last:?} {next:?}"
            );
            last = next;
        }
        date(u64::MAX / 86_400);
    }
}
