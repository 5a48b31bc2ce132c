//! Programs the 8254 programmable interval timer: its counter 0 as a one-shot, for machines
//! without an HPET that can be used. The kernel has measured the time stamp counter by it
//! before, and is done with it.
//!
//! Section names are those of the Intel 8254 datasheet (231164).

use crate::clock::Clock;

/// The 8254's four ports: its counters, and the control word.
pub trait Ports {
    /// Writes the port `offset` ports after the first, 0 to 3.
    fn write(&mut self, offset: u16, value: u8);
}

/// Offsets of the ports that are written.
const COUNTER: u16 = 0;
const CONTROL: u16 = 3;
/// The control word: counter 0, low byte and then high byte, mode 0, binary ("Control Word
/// Format").
const ONE_SHOT: u8 = 0b0011_0000;
/// Femtoseconds of a tick: the clock of every PC's is 1,193,181.8 Hz, a twelfth of the colour
/// carrier's 14.31818 MHz.
const PERIOD: u32 = 838_095_345;

/// The 8254 with its counter 0 ours, stopped or counting down to one interrupt.
///
/// Mode 0 ("Interrupt on Terminal Count") holds the output low from the first byte of a new
/// count until it is reached, and then high until the next: each count raises one edge, which
/// it cannot overtake since it counts from when it is written.
pub struct Pit<P>(P);

impl<P: Ports> Pit<P> {
    /// Ends the periodic interrupt that the firmware left running; nothing is armed.
    pub fn new(mut ports: P) -> Self {
        ports.write(CONTROL, ONE_SHOT);
        Self(ports)
    }
}

impl<P: Ports> Clock for Pit<P> {
    /// A count has 16 bits: 54.9 ms.
    const LONGEST: u32 = 0xffff;

    fn period(&self) -> u32 {
        PERIOD
    }

    fn arm(&mut self, ticks: u32) -> bool {
        // The first byte stops the count that runs, the second begins the new one.
        let [low, high, ..] = ticks.to_le_bytes();
        self.0.write(COUNTER, low);
        self.0.write(COUNTER, high);
        true
    }

    /// Without effect: what is armed comes once, within 54.9 ms, and nobody waits for it. That
    /// costs less than a port access for each deadline that is dropped.
    fn disarm(&mut self) {}

    /// Without effect: an edge holds nothing.
    fn acknowledge(&mut self) {}
}
