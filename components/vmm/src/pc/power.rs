//! ACPI's fixed hardware (ACPI 6.5 section 4.8): the PM1 event and control registers and
//! the power management timer; and the ports by which a PC is reset.
//!
//! The machine is in ACPI mode from the start and raises no event, so that only the sleep
//! state S5 and the timer do anything.

use pci::Width;
use spec::acpi::{
    PM_TIMER, PM_TIMER_HZ, PM1_CONTROL, PM1_EVENT, RESET_PORT, RESET_VALUE, SLEEP_TYPE_S5,
};

/// PM1 control: the machine is in ACPI mode.
const SCI_ENABLED: u16 = 1 << 0;
/// PM1 control: sleep type, a number of three bits.
const SLEEP_TYPE_SHIFT: u16 = 10;
/// PM1 control: enter that sleep state. It reads 0.
const SLEEP: u16 = 1 << 13;
/// PM1 enable is behind the status, of two bytes each.
const PM1_ENABLE: u16 = PM1_EVENT + 2;
/// The bits of the timer; the FADT does not promise more.
const TIMER_MASK: u64 = 0xff_ffff;

/// The keyboard controller's status and command port.
pub const KEYBOARD_COMMAND: u16 = 0x64;
/// Command: pulse output line 0, the CPU's reset.
const KEYBOARD_RESET: u8 = 0xfe;
/// System control port A: line A20 and a reset.
pub const CONTROL_A: u16 = 0x92;
/// Its bit by which the CPU is reset.
const CONTROL_A_RESET: u8 = 1 << 0;
/// Its bit for line A20, which is always open here.
pub const CONTROL_A_A20: u8 = 1 << 1;

/// What a write did to the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It switched the machine off.
    Off,
    /// It reset the machine.
    Reset,
}

/// The registers that keep what is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Power {
    enable: u16,
    control: u16,
}

impl Power {
    /// Reads a port; `None` if it is not one of these.
    #[must_use]
    pub fn read(&self, port: u16, width: Width, now: u64, tsc_hz: u64) -> Option<u32> {
        let timer = || {
            let ticks = u128::from(now) * u128::from(PM_TIMER_HZ) / u128::from(tsc_hz);
            (ticks as u64 & TIMER_MASK) as u32
        };
        Some(match (port, width) {
            (PM1_EVENT, Width::Word) => 0,
            (PM1_EVENT, Width::Dword) => u32::from(self.enable) << 16,
            (PM1_ENABLE, Width::Word) => self.enable.into(),
            (PM1_CONTROL, Width::Word | Width::Dword) => (self.control | SCI_ENABLED).into(),
            (PM_TIMER, Width::Dword) => timer(),
            // Empty buffers: whoever waits for them goes on.
            (KEYBOARD_COMMAND, Width::Byte) => 0,
            (CONTROL_A, Width::Byte) => CONTROL_A_A20.into(),
            (RESET_PORT, Width::Byte) => 0,
            _ => return None,
        })
    }

    /// Writes a port. Returns `None` if it is not one of these, and otherwise what became
    /// of the machine, if anything.
    pub fn write(&mut self, port: u16, width: Width, value: u32) -> Option<Option<Transition>> {
        let mut transition = None;
        match (port, width) {
            (PM1_EVENT, Width::Word) => {}
            (PM1_EVENT, Width::Dword) => self.enable = (value >> 16) as u16,
            (PM1_ENABLE, Width::Word) => self.enable = value as u16,
            (PM1_CONTROL, Width::Word | Width::Dword) => {
                let value = value as u16;
                self.control = value & !(SLEEP | SCI_ENABLED);
                let sleep_type = value >> SLEEP_TYPE_SHIFT & 7;
                if value & SLEEP != 0 && sleep_type == u16::from(SLEEP_TYPE_S5) {
                    transition = Some(Transition::Off);
                }
            }
            (PM_TIMER, Width::Dword) => {}
            (KEYBOARD_COMMAND, Width::Byte) if value as u8 == KEYBOARD_RESET => {
                transition = Some(Transition::Reset);
            }
            (CONTROL_A, Width::Byte) if value as u8 & CONTROL_A_RESET != 0 => {
                transition = Some(Transition::Reset);
            }
            (RESET_PORT, Width::Byte) if value as u8 & RESET_VALUE & 4 != 0 => {
                transition = Some(Transition::Reset);
            }
            (KEYBOARD_COMMAND | CONTROL_A | RESET_PORT, Width::Byte) => {}
            _ => return None,
        }
        Some(transition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_s5_with_the_enable_bit_switches_off() {
        let mut power = Power::default();
        let mut write = |value| power.write(PM1_CONTROL, Width::Word, value);
        let s5 = u32::from(SLEEP_TYPE_S5) << 10;
        assert_eq!(write(s5), Some(None));
        assert_eq!(write(1 << 13 | 3 << 10), Some(None), "another sleep state");
        assert_eq!(write(1 << 13 | s5), Some(Some(Transition::Off)));
    }

    #[test]
    fn acpi_mode_is_on_and_sleep_reads_0() {
        let mut power = Power::default();
        assert_eq!(power.read(PM1_CONTROL, Width::Word, 0, 1), Some(1));
        power.write(PM1_CONTROL, Width::Word, 0xffff);
        assert_eq!(power.read(PM1_CONTROL, Width::Word, 0, 1), Some(0xdfff));
        power.write(PM1_EVENT, Width::Dword, 0x1234_ffff);
        assert_eq!(power.read(PM1_EVENT, Width::Dword, 0, 1), Some(0x1234_0000));
        assert_eq!(power.read(PM1_ENABLE, Width::Word, 0, 1), Some(0x1234));
    }

    #[test]
    fn the_timer_counts_at_its_frequency_and_wraps_at_24_bits() {
        let power = Power::default();
        let at = |now| power.read(PM_TIMER, Width::Dword, now, 3_000_000_000);
        assert_eq!(at(0), Some(0));
        assert_eq!(at(3_000_000_000), Some(3_579_545));
        assert_eq!(at(30_000_000_000), Some(35_795_450 & 0xff_ffff));
        assert!(at(u64::MAX).is_some());
    }

    #[test]
    fn three_ways_to_reset() {
        let mut power = Power::default();
        for (port, no, yes) in [
            (RESET_PORT, 2, 6),
            (KEYBOARD_COMMAND, 0xd1, 0xfe),
            (CONTROL_A, 2, 3),
        ] {
            assert_eq!(power.write(port, Width::Byte, no), Some(None));
            assert_eq!(
                power.write(port, Width::Byte, yes),
                Some(Some(Transition::Reset))
            );
        }
    }

    #[test]
    fn other_widths_and_ports_are_not_claimed() {
        let mut power = Power::default();
        for (port, width) in [
            (PM_TIMER, Width::Word),
            (PM1_CONTROL, Width::Byte),
            (0x60b, Width::Byte),
        ] {
            assert_eq!(power.read(port, width, 0, 1), None);
            assert_eq!(power.write(port, width, u32::MAX), None);
        }
    }
}
