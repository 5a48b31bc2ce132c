//! The devices of a PC that software older than ACPI's tables and MSIs expects, for
//! guests whose entry says `machine = "pc"`.
//!
//! Responsible for: the 8259 pair, the 8254, the real-time clock, ACPI's fixed hardware,
//! and the ports around them. Must never: do work that grows with the time between two
//! accesses, or with what the guest writes. May call: nothing; its time is an argument.
//! Invariants: the only interrupt is IRQ 0; edges that were not taken are one.

mod map;
mod pic;
mod pit;
mod power;
mod rtc;

use pci::Width;

pub use map::describe;
use pic::Pic;
use pit::Pit;
use power::Power;
pub use power::Transition;
use rtc::Rtc;

/// The keyboard controller's data port; there is no keyboard.
const KEYBOARD_DATA: u16 = 0x60;
/// System control port B: gate and output of the timer's channel 2.
const CONTROL_B: u16 = 0x61;
const CONTROL_B_GATE: u8 = 1 << 0;
const CONTROL_B_SPEAKER: u8 = 1 << 1;
/// It changes with each refresh of a PC's memory, every 15 us; some wait by it.
const CONTROL_B_REFRESH: u8 = 1 << 4;
const CONTROL_B_OUTPUT: u8 = 1 << 5;
/// Refreshes in a second.
const REFRESH_HZ: u64 = 66_287;
/// Writes to it show a diagnostic code on a PC, and are used as a short delay.
const DIAGNOSTIC: u16 = 0x80;
/// Which inputs of the 8259s are level-triggered: none.
const TRIGGER_MODES: u16 = 0x4d0;
const TRIGGER_MODES_LAST: u16 = TRIGGER_MODES + 1;

/// The 8259s' input that channel 0 of the timer drives.
const TIMER_IRQ: u8 = 0;

/// The devices' state.
#[derive(Clone, Copy, Debug)]
pub struct Pc {
    tsc_hz: u64,
    pic: Pic,
    pit: Pit,
    rtc: Rtc,
    power: Power,
    speaker: bool,
}

impl Pc {
    /// Creates the devices as at reset. The time stamp counter has this frequency in kHz,
    /// and was 0 at `start`, in seconds of Unix time.
    #[must_use]
    pub fn new(tsc_khz: u64, start: u64) -> Self {
        let tsc_hz = tsc_khz.saturating_mul(1000).max(1);
        Self {
            tsc_hz,
            pic: Pic::default(),
            pit: Pit::new(tsc_hz),
            rtc: Rtc::new(tsc_hz, start),
            power: Power::default(),
            speaker: false,
        }
    }

    /// Reads a port; `None` if no device is there.
    pub fn read(&mut self, port: u16, width: Width, now: u64) -> Option<u32> {
        if let Some(value) = self.power.read(port, width, now, self.tsc_hz) {
            return Some(value);
        }
        if width != Width::Byte {
            return None;
        }
        let value = match port {
            0x20 | 0x21 | 0xa0 | 0xa1 => self.pic.read(port >= 0xa0, port & 1 == 1),
            0x40..=0x43 => self.pit.read(port - 0x40, now),
            KEYBOARD_DATA => 0,
            CONTROL_B => self.control_b(now),
            0x70 => self.rtc.selected(),
            0x71 => self.rtc.read(now),
            DIAGNOSTIC | TRIGGER_MODES..=TRIGGER_MODES_LAST => 0,
            _ => return None,
        };
        Some(value.into())
    }

    /// Writes a port. Returns `None` if no device is there, and otherwise what became of
    /// the machine, if anything.
    pub fn write(
        &mut self,
        port: u16,
        width: Width,
        value: u32,
        now: u64,
    ) -> Option<Option<Transition>> {
        if let Some(done) = self.power.write(port, width, value) {
            return Some(done);
        }
        if width != Width::Byte {
            return None;
        }
        let value = value as u8;
        match port {
            0x20 | 0x21 | 0xa0 | 0xa1 => self.pic.write(port >= 0xa0, port & 1 == 1, value),
            0x40..=0x43 => self.pit.write(port - 0x40, value, now),
            CONTROL_B => {
                self.speaker = value & CONTROL_B_SPEAKER != 0;
                self.pit.set_gate(value & CONTROL_B_GATE != 0, now);
            }
            0x70 => self.rtc.select(value),
            0x71 => self.rtc.write(value),
            KEYBOARD_DATA | DIAGNOSTIC | TRIGGER_MODES..=TRIGGER_MODES_LAST => {}
            _ => return None,
        }
        Some(None)
    }

    fn control_b(&self, now: u64) -> u8 {
        let refreshes = u128::from(now) * u128::from(REFRESH_HZ) / u128::from(self.tsc_hz);
        spec::bit(self.pit.gate(), CONTROL_B_GATE)
            | spec::bit(self.speaker, CONTROL_B_SPEAKER)
            | spec::bit(refreshes & 1 == 1, CONTROL_B_REFRESH)
            | spec::bit(self.pit.output(now), CONTROL_B_OUTPUT)
    }

    /// Returns the time stamp at which [`Pc::tick`] has something to do. It may be past.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.pit.deadline()
    }

    /// Raises IRQ 0 if the timer's output has risen. Returns whether it has.
    pub fn tick(&mut self, now: u64) -> bool {
        let rises = self.pit.take_edges(now);
        if rises {
            self.pic.raise(TIMER_IRQ);
        }
        rises
    }

    /// Returns whether the 8259s ask for an interrupt.
    #[must_use]
    pub fn interrupts(&self) -> bool {
        self.pic.interrupts()
    }

    /// Acknowledges the 8259s' interrupt. Returns its vector.
    pub fn acknowledge(&mut self) -> u8 {
        self.pic.acknowledge()
    }
}

#[cfg(test)]
mod tests;
