//! Which user vectors are taken.

use spec::{VECTORS, vector_bits};

/// The user vectors, 0 to [`VECTORS`] - 1.
pub struct Vectors {
    /// Bit `v` is set while vector `v` is taken or reserved. Those past the last
    /// vector always are, so that bits which a shift loses are never missed.
    taken: u128,
    /// Vectors that are never taken.
    reserved: u128,
    /// Free vectors whose handlers are still there for their last source.
    parked: u128,
    /// Where the next search starts, so that a vector which was just given
    /// back rests: an event still on its way then meets no new owner.
    next: u8,
}

impl Vectors {
    /// Creates the set with all vectors free but those in `reserved` (bit `v` for
    /// vector `v`).
    pub const fn new(reserved: u128) -> Self {
        let reserved = reserved | u128::MAX << VECTORS;
        Self {
            taken: reserved,
            reserved,
            parked: 0,
            next: 0,
        }
    }

    /// Returns how many were taken and not given back.
    pub const fn used(&self) -> u32 {
        (self.taken & !self.reserved).count_ones()
    }

    /// Returns how many are parked.
    pub const fn parked(&self) -> u32 {
        self.parked.count_ones()
    }

    /// Takes `count` vectors (a power of two, at most 16) that follow each
    /// other, the first a multiple of `count`: from `wanted` if these are free,
    /// else the next free ones of which none is parked, else the next free ones.
    /// Returns the first; `None` if there are none. Those that are parked stay so
    /// until [`unpark`](Self::unpark).
    pub fn take(&mut self, wanted: Option<u8>, count: u8) -> Option<u8> {
        let blocks = VECTORS / count;
        let start = self.next.div_ceil(count);
        let each = (0..blocks).map(|step| (start + step) % blocks * count);
        let first = wanted
            .into_iter()
            .chain(each.clone().filter(|&first| !self.is_parked(first, count)))
            .chain(each)
            .find(|&first| first % count == 0 && self.is_free(first, count))?;
        self.taken |= vector_bits(first, count);
        if wanted != Some(first) {
            self.next = (first + count) % VECTORS;
        }
        Some(first)
    }

    /// Takes this vector. Returns `false` if it is taken already or does not exist.
    pub fn claim(&mut self, vector: u8) -> bool {
        let free = vector < VECTORS && self.is_free(vector, 1);
        if free {
            self.taken |= vector_bits(vector, 1);
        }
        free
    }

    /// Starts the next search behind this vector, so that it rests.
    pub fn start_after(&mut self, vector: u8) {
        self.next = (vector + 1) % VECTORS;
    }

    /// Frees a vector that was taken.
    pub fn give_back(&mut self, vector: u8) {
        self.taken &= !(1 << vector);
    }

    /// Frees a vector whose handler stays.
    pub fn park(&mut self, vector: u8) {
        self.give_back(vector);
        self.parked |= 1 << vector;
    }

    /// Notes that a vector's handler is gone, or its last source's again.
    pub fn unpark(&mut self, vector: u8) {
        self.parked &= !(1 << vector);
    }

    /// Returns whether any of `count` vectors from `first` on is parked.
    pub fn is_parked(&self, first: u8, count: u8) -> bool {
        self.parked & vector_bits(first, count) != 0
    }

    /// Returns whether `count` vectors from `first` on are free.
    pub fn is_free(&self, first: u8, count: u8) -> bool {
        first < VECTORS && self.taken & vector_bits(first, count) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m22_there_are_108_and_then_none() {
        let mut vectors = Vectors::new(0b101);
        let first = vectors.take(None, 1);
        assert_eq!(first, Some(1));
        for expected in 3..VECTORS {
            assert_eq!(vectors.take(None, 1), Some(expected));
        }
        assert_eq!(vectors.take(None, 1), None);
        assert_eq!(vectors.take(Some(0), 1), None);
        assert_eq!(vectors.used(), u32::from(VECTORS) - 2);
        vectors.give_back(50);
        assert_eq!(vectors.used(), u32::from(VECTORS) - 3);
        assert_eq!(vectors.take(None, 1), Some(50));
    }

    #[test]
    fn a_vector_given_back_rests() {
        let mut vectors = Vectors::new(0);
        assert_eq!(vectors.take(None, 1), Some(0));
        vectors.give_back(0);
        assert_eq!(vectors.take(None, 1), Some(1));
        assert_eq!(vectors.take(Some(0), 1), Some(0));
    }

    #[test]
    fn what_is_parked_is_taken_last() {
        let mut vectors = Vectors::new(u128::MAX << 4);
        for vector in 0..4 {
            assert_eq!(vectors.take(None, 1), Some(vector));
        }
        vectors.park(1);
        vectors.park(2);
        vectors.give_back(3);
        assert_eq!(vectors.used(), 1);
        assert_eq!(vectors.take(None, 1), Some(3));
        assert_eq!(vectors.take(Some(2), 1), Some(2));
        vectors.unpark(2);
        assert!(vectors.is_parked(0, 4) && !vectors.is_parked(2, 2));
        assert_eq!(vectors.take(None, 1), Some(1));
        assert_eq!(vectors.take(None, 1), None);
    }

    #[test]
    fn a_vector_is_claimed_once() {
        let mut vectors = Vectors::new(1 << 3);
        assert!(vectors.claim(5));
        for taken in [3, 5, VECTORS, 127] {
            assert!(!vectors.claim(taken));
        }
        vectors.start_after(4);
        assert_eq!(vectors.take(None, 1), Some(6));
        vectors.start_after(VECTORS - 1);
        assert_eq!(vectors.take(None, 1), Some(0));
    }

    #[test]
    fn p2_blocks_are_aligned_and_whole() {
        let mut vectors = Vectors::new(1 << 17);
        assert_eq!(vectors.take(None, 1), Some(0));
        assert_eq!(vectors.take(None, 16), Some(32));
        assert_eq!(vectors.take(None, 4), Some(48));
        assert_eq!(vectors.take(Some(6), 4), Some(52), "6 is not aligned");
        for first in [64, 80] {
            assert_eq!(vectors.take(None, 16), Some(first));
        }
        assert_eq!(vectors.take(None, 16), None, "no block of 16 is whole");
        assert_eq!(vectors.take(Some(20), 4), Some(20));
        vectors.give_back(33);
        assert_eq!(vectors.take(None, 1), Some(96));
        assert_eq!(vectors.take(Some(33), 1), Some(33));
    }
}
