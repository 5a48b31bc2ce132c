//! Configuration space.

use pci::{FUNCTION_BARS, Width, regs};

/// The bytes of a function's configuration space: 256, or 4096 with extended space.
/// Only the bits of a BAR register that its mask has can be written.
#[derive(Clone, Debug)]
pub struct Registers {
    bytes: Vec<u8>,
    bar_masks: [u32; FUNCTION_BARS],
}

impl Registers {
    /// Creates a space of these bytes, in which every bit can be written.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            bar_masks: [u32::MAX; FUNCTION_BARS],
        }
    }

    /// Returns the space with a mask of writable bits for each BAR register.
    #[must_use]
    pub fn with_bar_masks(self, bar_masks: [u32; FUNCTION_BARS]) -> Self {
        Self { bar_masks, ..self }
    }

    /// Returns all bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns whether there are more than 256 bytes.
    #[must_use]
    pub fn is_extended(&self) -> bool {
        self.bytes.len() > 256
    }

    /// Reads a register.
    #[must_use]
    pub fn read(&self, offset: u16, width: Width) -> u32 {
        let start = usize::from(offset);
        let bytes = &self.bytes[start..start + width.bytes() as usize];
        bytes.iter().rev().fold(0, |v, b| v << 8 | u32::from(*b))
    }

    /// Writes a register, as the device lets software do.
    pub fn write(&mut self, offset: u16, width: Width, value: u32) {
        for (at, byte) in (usize::from(offset)..)
            .zip(value.to_le_bytes())
            .take(width.bytes() as usize)
        {
            let bar_byte = at.wrapping_sub(usize::from(regs::BAR0));
            let mask = self
                .bar_masks
                .get(bar_byte / 4)
                .map_or(0xff, |mask| mask.to_le_bytes()[bar_byte % 4]);
            self.bytes[at] = self.bytes[at] & !mask | byte & mask;
        }
    }

    /// Sets the first bytes of `value`, read-only bits included.
    pub fn put(&mut self, offset: u16, bytes: usize, value: u32) {
        let start = usize::from(offset);
        self.bytes[start..start + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    }
}
