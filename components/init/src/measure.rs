//! Measures what a function can reach, by trying it.

use core::fmt;

use dma_probe::{Engine, Memory, Registers, Stuck, UNUSUAL};
use spec::host_message;

/// Result of one attempt to reach something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was tried, and did not happen.
    Confined,
    /// It was tried, and happened.
    Open,
    /// It could not be tried.
    Unknown,
}

/// What a function reaches beyond its guest's memory and its own vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Memory, by DMA.
    pub memory: Answer,
    /// The CPU, by interrupts that were not bound for it.
    pub interrupts: Answer,
}

impl Verdict {
    /// Nothing was tried.
    pub const UNKNOWN: Self = Self {
        memory: Answer::Unknown,
        interrupts: Answer::Unknown,
    };

    /// Returns whether a guest may have the function without its owner's word.
    #[must_use]
    pub fn confined(&self) -> bool {
        (self.memory, self.interrupts) == (Answer::Confined, Answer::Confined)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.memory {
            Answer::Confined => "reaches its guest's memory only",
            Answer::Open => "reaches all memory",
            Answer::Unknown => "may reach all memory",
        })?;
        f.write_str(match self.interrupts {
            Answer::Confined => ", raises its own interrupts only",
            Answer::Open => ", raises any interrupt",
            Answer::Unknown => ", may raise any interrupt",
        })?;
        f.write_str(match (self.memory, self.interrupts) {
            (Answer::Unknown, Answer::Unknown) => " (not measured)",
            _ => " (measured)",
        })
    }
}

/// The measurement's needs besides the device.
pub trait Surroundings {
    /// Switches the function's bus mastering on, which is off so far. The reset has
    /// cleared any earlier owner's setup.
    fn let_it_master(&mut self);
    /// Reads memory that is not the guest's, at byte `offset` of 60.
    fn read_canary(&mut self, bytes: &mut [u8; UNUSUAL]);
    /// Writes it.
    fn write_canary(&mut self, bytes: &[u8; UNUSUAL]);
    /// Returns where a device would find it.
    fn canary(&self) -> u64;
    /// Returns the memory of the guest that the engine does not use itself:
    /// where it is, and the first 60 bytes there.
    fn allowed(&self) -> u64;
    /// Reads from there.
    fn read_allowed(&mut self, bytes: &mut [u8; UNUSUAL]);
    /// Returns whether the interrupt of user vector [`Surroundings::vector`]
    /// has come since this was last asked.
    fn interrupted(&mut self) -> bool;
    /// Returns an unused user vector.
    fn vector(&self) -> u8;
}

/// Two patterns that differ in every byte, and in none look like the type of a
/// frame that a device takes apart.
const ONE: [u8; UNUSUAL] = [0x5a; UNUSUAL];
const OTHER: [u8; UNUSUAL] = [0xa5; UNUSUAL];

/// Measures what the function reaches, and leaves the device silent. `memory` is the
/// engine's, at `bus_address` for the device.
///
/// # Errors
/// [`Stuck`] if the device does not even copy where it may, or cannot be reset:
/// then a missing effect proves nothing.
pub fn measure<R: Registers, M: Memory>(
    registers: R,
    memory: M,
    bus_address: u64,
    around: &mut impl Surroundings,
) -> Result<Verdict, Stuck> {
    let mut engine = Engine::new(registers, memory, bus_address)?;
    around.let_it_master();
    engine.set_up();
    let verdict = attempts(&mut engine, around);
    engine.quiesce()?;
    verdict
}

fn attempts<R: Registers, M: Memory>(
    engine: &mut Engine<R, M>,
    around: &mut impl Surroundings,
) -> Result<Verdict, Stuck> {
    let mut found = [0; UNUSUAL];
    engine.write(around.allowed(), &ONE)?;
    around.read_allowed(&mut found);
    if found != ONE {
        return Err(Stuck::Receive);
    }
    around.write_canary(&ONE);
    // Whether the device says that it is done proves nothing: the bytes do.
    let _ = engine.write(around.canary(), &OTHER);
    around.read_canary(&mut found);
    let written = found != ONE;
    around.write_canary(&ONE);
    let mut found = OTHER;
    let read = engine.read(around.canary(), &mut found).is_ok() && found == ONE;
    // Drain interrupts raised before the measurement.
    around.interrupted();
    // Not in the format that an IOMMU remaps.
    let (address, data) = host_message(around.vector());
    let _ = engine.forge_interrupt(address, data);
    let forged = around.interrupted();
    let answer = |open| if open { Answer::Open } else { Answer::Confined };
    Ok(Verdict {
        memory: answer(written || read),
        interrupts: answer(forged),
    })
}

#[cfg(test)]
mod tests;
