//! What a kernel reads in the memory of a PC: Multiboot information and ACPI tables.
//!
//! Responsible for: finding the fields. Must never: believe a length or an address that
//! leads out of memory. May call: the [`Memory`] passed in. Invariants: any bytes yield a
//! result, without a panic and in bounded time.
#![no_std]
#![forbid(unsafe_code)]

pub mod acpi;
pub mod info;

/// Memory by physical address.
pub trait Memory {
    /// Reads a byte; `None` where there is no memory.
    fn byte(&self, address: u64) -> Option<u8>;

    /// Reads `SIZE` bytes.
    fn bytes<const SIZE: usize>(&self, address: u64) -> Option<[u8; SIZE]> {
        let mut bytes = [0; SIZE];
        for (at, byte) in (address..).zip(&mut bytes) {
            *byte = self.byte(at)?;
        }
        Some(bytes)
    }

    /// Reads a little-endian word of four bytes.
    fn word(&self, address: u64) -> Option<u32> {
        self.bytes(address).map(u32::from_le_bytes)
    }

    /// Returns whether the zero-terminated text at an address is `text`.
    fn is_text(&self, address: u64, text: &str) -> bool {
        let expected = text.bytes().chain([0]);
        (address..)
            .zip(expected)
            .all(|(at, byte)| self.byte(at) == Some(byte))
    }
}
