//! Instructions that were decoded before, by where they lie. A guest traps at the same few
//! again and again, and the decoder takes longer than what they do.

use crate::decode::{self, Decoded, MAX_INSTRUCTION, Op};
use crate::host::GuestMemory;

/// Instructions that are kept, a power of two.
const PLACES: usize = 64;
/// An address that no instruction has, since no RAM is there.
const NOWHERE: u64 = u64::MAX;

#[derive(Clone, Copy, Debug)]
struct Place {
    rip: u64,
    /// Its bytes, and which of the 16 read they are.
    bytes: u128,
    mask: u128,
    decoded: Decoded,
}

/// The instructions. What is kept is taken only for the same bytes at the same place.
#[derive(Debug)]
pub struct InstructionCache {
    places: [Place; PLACES],
    /// The last one so near to RAM's end that it is not kept.
    last: Decoded,
}

impl Default for InstructionCache {
    fn default() -> Self {
        let nothing = Decoded {
            op: Op::Other,
            length: 0,
        };
        Self {
            places: [Place {
                rip: NOWHERE,
                bytes: 0,
                mask: 0,
                decoded: nothing,
            }; PLACES],
            last: nothing,
        }
    }
}

impl InstructionCache {
    /// Decodes the instruction at `rip`; `None` if it is none, or lies outside of RAM.
    // Not a copy: it would be made at each trap.
    pub fn decode(&mut self, rip: u64, ram: &mut impl GuestMemory) -> Option<&Decoded> {
        let mut read = [0; 16];
        if !ram.read_ram(rip, &mut read) {
            self.last = uncached(decode::decode, rip, ram)?;
            return Some(&self.last);
        }
        let bytes = u128::from_le_bytes(read);
        let place = &mut self.places[(rip ^ rip >> 6) as usize % PLACES];
        if place.rip != rip || (place.bytes ^ bytes) & place.mask != 0 {
            let decoded = decode::decode(&read[..MAX_INSTRUCTION], rip)?;
            *place = Place {
                rip,
                bytes,
                mask: (1 << (8 * u32::from(decoded.length))) - 1,
                decoded,
            };
        }
        Some(&place.decoded)
    }
}

/// Decodes the instruction at `rip` by `decode`, and keeps nothing.
pub fn uncached(
    decode: fn(&[u8], u64) -> Option<Decoded>,
    rip: u64,
    ram: &mut impl GuestMemory,
) -> Option<Decoded> {
    let mut bytes = [0; MAX_INSTRUCTION];
    // Fewer bytes only where RAM ends.
    let length = (1..=bytes.len())
        .rev()
        .find(|&length| ram.read_ram(rip, &mut bytes[..length]))?;
    decode(&bytes[..length], rip)
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    struct Ram(Vec<u8>);

    impl GuestMemory for Ram {
        fn read_ram(&mut self, address: u64, bytes: &mut [u8]) -> bool {
            let start = address as usize;
            let found = start
                .checked_add(bytes.len())
                .and_then(|end| self.0.get(start..end));
            found.map(|found| bytes.copy_from_slice(found)).is_some()
        }
        fn write_ram(&mut self, _: u64, _: &[u8]) -> bool {
            false
        }
    }

    #[test]
    fn a_byte_that_changed_is_seen() {
        // cli, and mov eax, [rip + 0]: its displacement is part of it.
        let mut ram = Ram(Vec::from([0xfa; 64]));
        let mut cache = InstructionCache::default();
        let op = |cache: &mut InstructionCache, ram: &mut Ram| cache.decode(8, ram).map(|d| d.op);
        assert_eq!(op(&mut cache, &mut ram), Some(Op::Cli));
        ram.0[8] = 0xfb;
        assert_eq!(op(&mut cache, &mut ram), Some(Op::Sti));
        // What follows it is not.
        ram.0[9] = 0;
        assert_eq!(op(&mut cache, &mut ram), Some(Op::Sti));
        ram.0[8..14].copy_from_slice(&[0x8b, 0x05, 0, 0, 0, 0]);
        let first = op(&mut cache, &mut ram);
        ram.0[13] = 1;
        assert_ne!(op(&mut cache, &mut ram), first);
        ram.0[8] = 0x06;
        assert_eq!(op(&mut cache, &mut ram), None);
    }

    proptest! {
        /// Few places and few bytes, so that what is kept is asked for again.
        #[test]
        fn what_is_kept_is_what_would_be_decoded(
            writes in prop::collection::vec((0..48usize, 0..8usize), 1..200),
        ) {
            const BYTES: [u8; 8] = [0xfa, 0xfb, 0x0f, 0x30, 0x8b, 0x05, 0x66, 0x00];
            let mut ram = Ram(Vec::from([0; 48]));
            let mut cache = InstructionCache::default();
            for (at, byte) in writes {
                ram.0[at] = BYTES[byte];
                for rip in [0, 1, at as u64, 40, 47, 48, u64::MAX] {
                    let fresh = uncached(decode::decode, rip, &mut ram);
                    prop_assert_eq!(cache.decode(rip, &mut ram).copied(), fresh);
                }
            }
        }
    }
}
