//! The image's memory, by its own addresses: everything that it names is checked here.

use core::ops::Range;

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The image's memory.
#[derive(Debug)]
pub struct Ram<'a> {
    start: u64,
    bytes: &'a mut [u8],
}

impl<'a> Ram<'a> {
    /// Takes the memory whose first address is `start`.
    pub fn new(start: u64, bytes: &'a mut [u8]) -> Self {
        Self { start, bytes }
    }

    /// Returns where that would lie in `bytes`, which has the last word.
    fn range(&self, address: u64, length: u64) -> Option<Range<usize>> {
        let start = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        Some(start..end)
    }

    /// Returns `length` bytes at `address`; `None` unless all of them are memory.
    pub fn get(&self, address: u64, length: u64) -> Option<&[u8]> {
        self.bytes.get(self.range(address, length)?)
    }

    /// Returns the same to be written.
    pub fn get_mut(&mut self, address: u64, length: u64) -> Option<&mut [u8]> {
        let range = self.range(address, length)?;
        self.bytes.get_mut(range)
    }

    /// Reads a structure, which need not be aligned.
    pub fn read<T: FromBytes>(&self, address: u64) -> Option<T> {
        T::read_from_bytes(self.get(address, size_of::<T>() as u64)?).ok()
    }

    /// Writes a structure. Returns `None`, with nothing written, unless all of it is
    /// memory.
    pub fn write<T: IntoBytes + Immutable>(&mut self, address: u64, value: &T) -> Option<()> {
        let place = self.get_mut(address, size_of::<T>() as u64)?;
        place.copy_from_slice(value.as_bytes());
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_memory_is_reached() {
        let mut bytes = [0; 64];
        let mut ram = Ram::new(0x1000, &mut bytes);
        assert_eq!(ram.write(0x1038, &0x1234_u64), Some(()));
        assert_eq!(ram.read(0x1038), Some(0x1234_u64));
        assert_eq!(ram.get(0x1040, 0), Some(&[][..]));
        for (address, length) in [
            (0xfff, 1),
            (0x1039, 8),
            (0x1041, 0),
            (0x1000, 65),
            (0, 0),
            (0x1000, u64::MAX),
            (u64::MAX, 1),
            (u64::MAX, u64::MAX),
        ] {
            assert_eq!(ram.get(address, length), None, "{address:#x} {length:#x}");
            assert_eq!(
                ram.get_mut(address, length),
                None,
                "{address:#x} {length:#x}"
            );
        }
        assert_eq!(ram.write(0x1039, &0_u64), None);
        assert_eq!(ram.read::<u64>(0xff8), None);
    }
}
