//! The time of day, from the PC's clock chip.

use time::{Date, Month, PrimitiveDateTime, Time};

/// Port that chooses the register (MC146818A data sheet; Intel 300 series PCH, chapter
/// "RTC Indexed Registers"). Bit 7 masks NMIs and stays clear.
pub const INDEX_PORT: u16 = 0x70;
/// Port of the register's value.
pub const DATA_PORT: u16 = 0x71;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
/// Where PCs have the century (ACPI lets a machine say another place).
const CENTURY: u8 = 0x32;
/// An update may be in progress within the next 244 us.
const UPDATING: u8 = 1 << 7;
/// Values are binary, not BCD.
const BINARY: u8 = 1 << 2;
/// Hours count to 23.
const HOURS_24: u8 = 1 << 1;
/// In the other mode: afternoon.
const AFTERNOON: u8 = 1 << 7;
/// Reads of a register that is busy. An update takes 2 ms at most, and a port read
/// longer than 100 ns.
const PATIENCE: u32 = 20_000;

/// Reads the time as seconds since 1970-01-01 00:00 UTC: the chip is taken to count UTC.
/// Returns `None` if the chip is absent, or its time makes no sense.
pub fn unix_time(mut read: impl FnMut(u8) -> u8) -> Option<u64> {
    let registers = [SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR, CENTURY];
    let mut last = None;
    for _ in 0..PATIENCE {
        if read(STATUS_A) & UPDATING != 0 {
            last = None;
            continue;
        }
        let values = registers.map(&mut read);
        // An update between two reads would mix two times: only equal ones count.
        if last == Some(values) {
            return decode(values, read(STATUS_B));
        }
        last = Some(values);
    }
    None
}

fn decode(values: [u8; 7], mode: u8) -> Option<u64> {
    let number = |value: u8| match mode & BINARY {
        0 => (value & 0xf <= 9 && value >> 4 <= 9).then(|| (value >> 4) * 10 + (value & 0xf)),
        _ => Some(value),
    };
    let [seconds, minutes, hours, day, month, year, century] = values;
    let afternoon = mode & HOURS_24 == 0 && hours & AFTERNOON != 0;
    let hours = if mode & HOURS_24 == 0 {
        number(hours & !AFTERNOON)? % 12 + if afternoon { 12 } else { 0 }
    } else {
        number(hours)?
    };
    // A machine that has something else in the place of the century is of this one.
    let century = number(century).filter(|century| (19..=21).contains(century));
    let year = i32::from(century.unwrap_or(20)) * 100 + i32::from(number(year)?);
    let month = Month::try_from(number(month)?).ok()?;
    let date = Date::from_calendar_date(year, month, number(day)?).ok()?;
    let time = Time::from_hms(hours, number(minutes)?, number(seconds)?).ok()?;
    let time = PrimitiveDateTime::new(date, time).assume_utc();
    u64::try_from(time.unix_timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a chip with these registers.
    fn chip(registers: &[(u8, u8)]) -> Option<u64> {
        unix_time(|index| {
            let mut all = registers.iter();
            all.find(|&&(at, _)| at == index)
                .map_or(0, |&(_, value)| value)
        })
    }

    /// 2026-11-27 21:15:30 UTC.
    const EXPECTED: u64 = 1_795_814_130;

    #[test]
    fn the_formats_of_the_chip_mean_the_same() {
        let date = [(DAY, 0x27), (MONTH, 0x11), (YEAR, 0x26), (CENTURY, 0x20)];
        let time = [(MINUTES, 0x15), (SECONDS, 0x30)];
        for hours in [
            [(STATUS_B, HOURS_24), (HOURS, 0x21)],
            [(STATUS_B, 0), (HOURS, 0x89)],
        ] {
            let all = [&date[..], &time, &hours].concat();
            assert_eq!(chip(&all), Some(EXPECTED));
        }
        let binary = [
            (DAY, 27),
            (MONTH, 11),
            (YEAR, 26),
            (CENTURY, 20),
            (MINUTES, 15),
            (SECONDS, 30),
        ];
        for hours in [
            [(STATUS_B, BINARY | HOURS_24), (HOURS, 21)],
            [(STATUS_B, BINARY), (HOURS, 9 | AFTERNOON)],
        ] {
            assert_eq!(chip(&[&binary[..], &hours].concat()), Some(EXPECTED));
        }
        // Noon and midnight, where hours count to 12.
        for (hours, seconds) in [(0x92, 12 * 3600), (0x12, 0)] {
            let all = [&date[..], &[(STATUS_B, 0), (HOURS, hours)]].concat();
            assert_eq!(chip(&all), Some(EXPECTED / 86400 * 86400 + seconds));
        }
    }

    #[test]
    fn a_century_that_makes_no_sense_is_this_one() {
        let date = |century| [(DAY, 1), (MONTH, 1), (YEAR, 0x26), (CENTURY, century)];
        assert_eq!(chip(&date(0x20)), chip(&date(0xff)));
        assert!(chip(&date(0x20)).is_some());
    }

    #[test]
    fn no_chip_and_garbage_are_no_time() {
        assert_eq!(unix_time(|_| 0xff), None);
        assert_eq!(unix_time(|_| 0), None);
        for wrong in [(MONTH, 0x13), (DAY, 0x32), (HOURS, 0x24), (SECONDS, 0x6a)] {
            let good = [(DAY, 1), (MONTH, 1), (STATUS_B, HOURS_24)];
            assert!(chip(&good).is_some());
            assert_eq!(chip(&[&[wrong][..], &good].concat()), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_time_that_changes_meanwhile_is_read_again() {
        let mut reads = 0;
        let time = unix_time(|index| {
            reads += 1;
            match index {
                // The first look is in the middle of an update, the second before the
                // next second.
                STATUS_A if reads == 1 => UPDATING,
                SECONDS => u8::from(reads > 5),
                DAY | MONTH => 1,
                STATUS_B => HOURS_24,
                _ => 0,
            }
        });
        assert_eq!(time.map(|time| time % 60), Some(1));
    }
}
