//! Emulates the configuration space of each assigned function for its guest.
//!
//! Responsible for: which registers a guest sees and what its writes do (rules
//! C1 to C8, P1 to P3), the guest's BARs and decode bits, and the order in which a
//! function is taken back (M24).
//! Must never: touch a function that is not assigned, move a BAR of the host,
//! switch the host's memory decode off, or follow a capability pointer after
//! start.
//! May call: msix, irq-router.
//! Invariants: the handlers of a function's register table are sorted and do
//! not overlap; INTx is off in the device while MSI-X or MSI is on, and never
//! both of these are; a message register of the device is written only with what
//! irq-router gave, under every policy. A pci-config that takes over from one
//! that died, at whichever instruction, quiesces nothing: it finds all that was
//! kept and makes device, msix and irq-router agree with it.

#![no_std]
#![forbid(unsafe_code)]

mod access;
mod bar;
mod counters;
mod function;
mod kept;
mod layout;
mod messages;
mod msi;
mod peers;
mod quirk;
mod registers;
mod reset;
mod server;
mod state;
mod virtio;

pub use counters::Counters;
pub use kept::kept_words;
pub use reset::RESET_MS;
pub use server::Functions;
pub use state::{Method, Trouble};

use pci::Width;

/// The configuration space of one function, and nothing else.
pub trait Hardware {
    /// Reads `width` bytes (1, 2 or 4) at `offset`, aligned.
    fn read(&mut self, offset: u16, width: Width) -> u32;
    /// Writes `width` bytes (1, 2 or 4) at `offset`, aligned.
    fn write(&mut self, offset: u16, width: Width, value: u32);
    /// Returns whether the registers by which the function is reset can be reached: init maps
    /// them ([`pci::ResetRegisters`]).
    fn has_registers(&self) -> bool {
        false
    }
    /// Reads the register of `width` bytes (1, 2 or 4) at `offset` of these, aligned.
    fn read_register(&mut self, offset: u32, width: Width) -> u32 {
        let _ = (offset, width);
        u32::MAX
    }
    /// Writes the register of `width` bytes (1, 2 or 4) at `offset` of these, aligned.
    fn write_register(&mut self, offset: u32, width: Width, value: u32) {
        let _ = (offset, width, value);
    }
    /// Returns whether `offset` may be above 255.
    fn has_extended_space(&self) -> bool;
    /// Returns the milliseconds since a moment that every pci-config of this
    /// boot shares.
    fn now_ms(&mut self) -> u64;
}

#[cfg(test)]
mod tests;
