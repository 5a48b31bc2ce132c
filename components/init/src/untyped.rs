//! Which untyped memory is free, and how to get a piece of it: a buddy
//! allocator that never frees.

use core::ops::Range;

use heapless::Vec;

/// Free pieces that can be kept: the kernel reports at most 166, and each
/// allocation at a given address leaves at most two for each size.
const MAX_FREE: usize = 512;

/// A free piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// Slot of its capability.
    slot: usize,
    address: u64,
    size_bits: u8,
    device: bool,
}

/// Cuts the untyped in a slot into two halves of 2^`size_bits` bytes. Returns the
/// slots of the lower and the upper one.
pub trait Split {
    /// Error of a split.
    type Error;
    /// Splits the untyped.
    ///
    /// # Errors
    /// The kernel's.
    fn split(&mut self, slot: usize, size_bits: u8) -> Result<(usize, usize), Self::Error>;
}

/// Why there is no such piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted<E> {
    /// No free memory of that size, or not at that address.
    NoMemory,
    /// More free pieces than can be kept.
    TooManyPieces,
    /// The kernel refused to split.
    Kernel(E),
}

/// The free memory.
#[derive(Debug, Default)]
pub struct Untypeds {
    free: Vec<Piece, MAX_FREE>,
}

impl Untypeds {
    /// Creates a pool without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { free: Vec::new() }
    }

    /// Adds a piece that the kernel reported; `false` if there is no room.
    pub fn add(&mut self, slot: usize, address: u64, size_bits: u8, device: bool) -> bool {
        self.free
            .push(Piece {
                slot,
                address,
                size_bits,
                device,
            })
            .is_ok()
    }

    /// Takes RAM of exactly 2^`size_bits` bytes. Returns its slot.
    ///
    /// # Errors
    /// See [`Exhausted`].
    pub fn take<S: Split>(
        &mut self,
        size_bits: u8,
        kernel: &mut S,
    ) -> Result<usize, Exhausted<S::Error>> {
        let best = self
            .free
            .iter()
            .enumerate()
            .filter(|(_, piece)| !piece.device && piece.size_bits >= size_bits)
            .min_by_key(|(_, piece)| (piece.size_bits, piece.address))
            .map(|(index, piece)| (index, piece.address));
        let (index, address) = best.ok_or(Exhausted::NoMemory)?;
        self.cut(index, address, size_bits, kernel)
    }

    /// Takes 2^`size_bits` bytes at `address`, RAM or a device's. Returns the slot.
    ///
    /// # Errors
    /// See [`Exhausted`].
    pub fn take_at<S: Split>(
        &mut self,
        address: u64,
        size_bits: u8,
        device: bool,
        kernel: &mut S,
    ) -> Result<usize, Exhausted<S::Error>> {
        let index = self
            .free
            .iter()
            .position(|piece| {
                piece.device == device
                    && piece.size_bits >= size_bits
                    && address
                        .checked_sub(piece.address)
                        .is_some_and(|offset| offset < 1 << piece.size_bits)
            })
            .ok_or(Exhausted::NoMemory)?;
        self.cut(index, address, size_bits, kernel)
    }

    /// Returns whether all of a range is a device's memory, or nobody's, and free: no RAM that
    /// the kernel has or gave, and nothing that was taken.
    #[must_use]
    pub fn is_free_device(&self, range: &Range<u64>) -> bool {
        // No two pieces have a byte in common.
        let device = self.free.iter().filter(|piece| piece.device);
        let inside: u64 = device
            .map(|piece| {
                let end = piece.address + (1 << piece.size_bits);
                let (start, end) = (range.start.max(piece.address), range.end.min(end));
                end.saturating_sub(start)
            })
            .sum();
        !range.is_empty() && inside == range.end - range.start
    }

    fn cut<S: Split>(
        &mut self,
        index: usize,
        address: u64,
        size_bits: u8,
        kernel: &mut S,
    ) -> Result<usize, Exhausted<S::Error>> {
        let mut piece = self.free.swap_remove(index);
        while piece.size_bits > size_bits {
            let bits = piece.size_bits - 1;
            let (low, high) = kernel.split(piece.slot, bits).map_err(Exhausted::Kernel)?;
            let low = Piece {
                slot: low,
                size_bits: bits,
                ..piece
            };
            let high = Piece {
                slot: high,
                address: piece.address + (1 << bits),
                ..low
            };
            let (kept, left) = if address >= high.address {
                (high, low)
            } else {
                (low, high)
            };
            self.free.push(left).map_err(|_| Exhausted::TooManyPieces)?;
            piece = kept;
        }
        if piece.address != address {
            return Err(Exhausted::NoMemory);
        }
        Ok(piece.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::collections::BTreeMap;
    use std::collections::BTreeSet;

    /// Records the range of each slot, to check that nothing is given out twice.
    struct Fake {
        next: usize,
        pieces: BTreeMap<usize, (u64, u8)>,
    }

    impl Split for Fake {
        type Error = ();
        fn split(&mut self, slot: usize, size_bits: u8) -> Result<(usize, usize), ()> {
            let (address, bits) = self.pieces.remove(&slot).ok_or(())?;
            assert_eq!(bits, size_bits + 1);
            let low = self.next;
            self.next += 2;
            self.pieces.insert(low, (address, size_bits));
            self.pieces
                .insert(low + 1, (address + (1 << size_bits), size_bits));
            Ok((low, low + 1))
        }
    }

    fn memory() -> (Untypeds, Fake) {
        let mut untypeds = Untypeds::new();
        let mut fake = Fake {
            next: 100,
            pieces: BTreeMap::new(),
        };
        for (slot, address, bits, device) in [
            (1, 0x10_0000u64, 20, false),
            (2, 0x1000_0000, 28, false),
            (3, 0xfe80_0000, 23, true),
        ] {
            untypeds.add(slot, address, bits, device);
            fake.pieces.insert(slot, (address, bits));
        }
        (untypeds, fake)
    }

    #[test]
    fn takes_the_smallest_that_fits() {
        let (mut untypeds, mut fake) = memory();
        let slot = untypeds.take(12, &mut fake).unwrap();
        assert_eq!(fake.pieces[&slot], (0x10_0000, 12));
        let slot = untypeds.take(25, &mut fake).unwrap();
        assert_eq!(fake.pieces[&slot], (0x1000_0000, 25));
    }

    #[test]
    fn takes_at_an_address() {
        let (mut untypeds, mut fake) = memory();
        let slot = untypeds.take_at(0x1400_0000, 21, false, &mut fake).unwrap();
        assert_eq!(fake.pieces[&slot], (0x1400_0000, 21));
        let slot = untypeds.take_at(0xfebf_3000, 12, true, &mut fake).unwrap();
        assert_eq!(fake.pieces[&slot], (0xfebf_3000, 12));
        // Taken, not there, of the other kind, not aligned.
        for (address, bits, device) in [
            (0x1400_0000, 21, false),
            (0x5000_0000, 12, false),
            (0xfebf_4000, 12, false),
            (0x1500_1000, 21, false),
        ] {
            assert_eq!(
                untypeds.take_at(address, bits, device, &mut fake),
                Err(Exhausted::NoMemory)
            );
        }
    }

    #[test]
    fn free_memory_of_devices_is_what_is_neither_ram_nor_taken() {
        let (mut untypeds, mut fake) = memory();
        untypeds.add(4, 0xff00_0000, 12, true);
        for (range, free) in [
            (0xfe80_0000..0xff00_0000, true),
            // Over two pieces, and past them.
            (0xfeff_f000..0xff00_1000, true),
            (0xfeff_f000..0xff00_2000, false),
            (0xfe7f_f000..0xfe80_1000, false),
            // RAM, and nothing.
            (0x1000_0000..0x1000_1000, false),
            (0xfe80_0000..0xfe80_0000, false),
        ] {
            assert_eq!(untypeds.is_free_device(&range), free, "{range:x?}");
        }
        let taken = untypeds.take_at(0xfe90_0000, 12, true, &mut fake);
        assert!(taken.is_ok());
        for (range, free) in [
            (0xfe80_0000..0xfe90_0000, true),
            (0xfe80_0000..0xfe90_1000, false),
            (0xfe90_0000..0xfe90_1000, false),
            (0xfe90_1000..0xff00_0000, true),
        ] {
            assert_eq!(untypeds.is_free_device(&range), free, "{range:x?}");
        }
    }

    #[test]
    fn gives_every_page_once() {
        let (mut untypeds, mut fake) = memory();
        let mut seen = BTreeSet::new();
        for _ in 0..256 {
            let slot = untypeds.take(12, &mut fake).unwrap();
            assert!(seen.insert(fake.pieces[&slot].0));
        }
        assert!(seen.iter().all(|&page| page < 0x20_0000));
        assert_eq!(untypeds.take(29, &mut fake), Err(Exhausted::NoMemory));
    }
}
