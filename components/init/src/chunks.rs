//! Pages in as few pieces of memory as possible.

/// Pages that are made by one retype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// First page, counted from the object's start.
    pub first: u64,
    /// Pages, a power of two, at most 256 (the kernel's retype limit).
    pub count: u64,
}

const MAX_COUNT: u64 = 256;

/// Divides `count` pages of 2^`page_bits` bytes, the first at `address` (or
/// anywhere), into aligned powers of two.
pub fn chunks(count: u64, address: Option<u64>, page_bits: u32) -> impl Iterator<Item = Chunk> {
    let mut first = 0;
    core::iter::from_fn(move || {
        let left = count - first;
        if left == 0 {
            return None;
        }
        let page = (address.unwrap_or(0) >> page_bits) + first;
        let aligned = match address {
            Some(_) => 1 << page.trailing_zeros().min(8),
            None => MAX_COUNT,
        };
        let largest = 1 << (63 - left.leading_zeros());
        let chunk = Chunk {
            first,
            count: aligned.min(largest).min(MAX_COUNT),
        };
        first += chunk.count;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    fn counts(count: u64, address: Option<u64>, bits: u32) -> Vec<u64> {
        let chunks: Vec<Chunk> = chunks(count, address, bits).collect();
        let mut next = 0;
        for chunk in &chunks {
            assert_eq!(chunk.first, next);
            next += chunk.count;
        }
        assert_eq!(next, count);
        chunks.iter().map(|c| c.count).collect()
    }

    #[test]
    fn powers_of_two() {
        assert_eq!(counts(5, None, 12), [4, 1]);
        assert_eq!(counts(600, None, 12), [256, 256, 64, 16, 8]);
        assert_eq!(counts(0, None, 12), []);
    }

    #[test]
    fn aligned_to_the_address() {
        assert_eq!(counts(16, Some(0x1000_0000), 21), [16]);
        assert_eq!(counts(4, Some(0xfebf_1000), 12), [1, 2, 1]);
    }
}
