//! The guest's memory.

use core::ops::Range;

use vmm::GuestMemory;

/// RAM from a guest address on.
#[derive(Clone, Debug)]
pub struct Ram {
    start: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Ram {
    /// Creates RAM of `size` bytes, all 0, from `start` on.
    #[must_use]
    pub fn new(start: u64, size: usize) -> Self {
        Self {
            start,
            bytes: vec![0; size],
        }
    }

    /// Returns the places of `length` bytes at an address, if all of them are RAM.
    fn range(&self, address: u64, length: usize) -> Option<Range<usize>> {
        let start = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let end = start.checked_add(length)?;
        (end <= self.bytes.len()).then_some(start..end)
    }
}

impl GuestMemory for Ram {
    fn read_ram(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        self.range(address, bytes.len())
            .map(|range| bytes.copy_from_slice(&self.bytes[range]))
            .is_some()
    }
    fn write_ram(&mut self, address: u64, bytes: &[u8]) -> bool {
        self.range(address, bytes.len())
            .map(|range| self.bytes[range].copy_from_slice(bytes))
            .is_some()
    }
}
