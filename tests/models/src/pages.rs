//! Memory of BARs.

use std::collections::BTreeMap;

use pci::Width;

/// Bytes by BAR and offset; those that were never written are 0.
#[derive(Clone, Debug, Default)]
pub struct Pages(BTreeMap<(u8, u32), u8>);

impl Pages {
    /// Returns the byte, if it was ever written.
    #[must_use]
    pub fn byte(&self, bar: u8, offset: u32) -> Option<u8> {
        self.0.get(&(bar, offset)).copied()
    }

    /// Returns whether any byte of the BAR was ever written.
    #[must_use]
    pub fn has(&self, bar: u8) -> bool {
        self.0.range((bar, 0)..=(bar, u32::MAX)).next().is_some()
    }

    /// Reads bytes, little-endian.
    #[must_use]
    pub fn read(&self, bar: u8, offset: u32, width: Width) -> u64 {
        (0..width.bytes() as u32).rev().fold(0, |value, byte| {
            value << 8 | u64::from(self.byte(bar, offset + byte).unwrap_or(0))
        })
    }

    /// Writes bytes, little-endian.
    pub fn write(&mut self, bar: u8, offset: u32, width: Width, value: u64) {
        for (index, byte) in (0..width.bytes() as u32).zip(value.to_le_bytes()) {
            self.0.insert((bar, offset + index), byte);
        }
    }
}
