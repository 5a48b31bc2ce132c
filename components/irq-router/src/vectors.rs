//! Which user vectors are taken.

use crate::VECTORS;

/// The user vectors, 0 to [`VECTORS`] - 1.
pub struct Vectors {
    /// Bit `v` is set while vector `v` is taken or reserved.
    taken: u128,
    /// Where the next search starts, so that a vector which was just given
    /// back rests: an event still on its way then meets no new owner.
    next: u8,
}

impl Vectors {
    /// All free but those in `reserved` (bit `v` for vector `v`).
    pub const fn new(reserved: u128) -> Self {
        Self {
            taken: reserved | u128::MAX << VECTORS,
            next: 0,
        }
    }

    /// Takes `wanted` if it is free, else the next free one; `None` if there
    /// is none.
    pub fn take(&mut self, wanted: Option<u8>) -> Option<u8> {
        if let Some(vector) = wanted.filter(|&v| self.is_free(v)) {
            self.taken |= 1 << vector;
            return Some(vector);
        }
        let rest = self.taken | ((1 << self.next) - 1);
        let vector = match rest.trailing_ones() {
            128 => self.taken.trailing_ones(),
            vector => vector,
        };
        let vector = u8::try_from(vector).ok().filter(|&v| v < VECTORS)?;
        self.taken |= 1 << vector;
        self.next = (vector + 1) % VECTORS;
        Some(vector)
    }

    /// Gives a vector back that was taken.
    pub fn give_back(&mut self, vector: u8) {
        self.taken &= !(1 << vector);
    }

    fn is_free(&self, vector: u8) -> bool {
        vector < VECTORS && self.taken & 1 << vector == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m22_there_are_108_and_then_none() {
        let mut vectors = Vectors::new(0b101);
        let first = vectors.take(None);
        assert_eq!(first, Some(1));
        for expected in 3..VECTORS {
            assert_eq!(vectors.take(None), Some(expected));
        }
        assert_eq!(vectors.take(None), None);
        assert_eq!(vectors.take(Some(0)), None);
        vectors.give_back(50);
        assert_eq!(vectors.take(None), Some(50));
    }

    #[test]
    fn a_vector_given_back_rests() {
        let mut vectors = Vectors::new(0);
        assert_eq!(vectors.take(None), Some(0));
        vectors.give_back(0);
        assert_eq!(vectors.take(None), Some(1));
        assert_eq!(vectors.take(Some(0)), Some(0));
    }
}
