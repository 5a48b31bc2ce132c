//! Emulates the MSI-X table, the PBA and message control of each function for its
//! guest, and keeps the device's own table out of the guest's hands.
//!
//! Responsible for: the guest's view of table and control (rules M1 to M19),
//! the device's table entries, and forwarding to the registers that share
//! their pages (M14); BARs that are smaller than a page, which have nothing else there.
//! Must never: write a guest's message into a device, leave an entry that is
//! not bound unmasked, or touch configuration space.
//! May call: irq-router.
//! Invariants: the device's entry is unmasked only while it is bound, unmasked
//! by the guest and not throttled; no operation on one entry walks the table. An
//! msix that takes over from one that died, at whichever instruction, finds all
//! that was kept and makes device and router agree with it.

#![no_std]
#![forbid(unsafe_code)]

mod area;
mod bitmap;
mod control;
mod dump;
mod entry;
mod function;
mod kept;
mod table;
mod takeover;

pub use area::is_adjacent;
pub use entry::Entry;
pub use function::{Counters, Failure, Msix};
pub use kept::kept_words;

use channel::msix::FunctionBar;
use pci::Width;

/// The pages that msix has (`FunctionInfo::msix.pages`), and only
/// these: no other offset is ever asked for.
pub trait Hardware {
    /// Reads `width` bytes, aligned, at byte `offset` of the BAR.
    fn read(&mut self, place: FunctionBar, offset: u32, width: Width) -> u64;
    /// Writes `width` bytes, aligned, at byte `offset` of the BAR.
    fn write(&mut self, place: FunctionBar, offset: u32, width: Width, value: u64);
}

#[cfg(test)]
mod tests;
