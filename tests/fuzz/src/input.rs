//! Takes numbers from the front of the input.

use pci::Width;

/// The rest of the input; numbers are little-endian.
pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    /// Takes as many bytes as there are, padded with zeros.
    pub fn take_padded<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (taken, rest) = self.0.split_at(self.0.len().min(N));
        bytes[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        bytes
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub fn word(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub fn dword(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn qword(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub fn width(&mut self) -> Option<Width> {
        Width::from_bytes(1 << (self.byte()? % 4))
    }
}
