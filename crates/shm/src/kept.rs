//! Memory that outlives its component's crash: the next life reads what the
//! last one wrote.
//!
//! A component can die between any two instructions, but not within a store. So
//! every word is valid by itself, and what must change together is in one word;
//! there are no two copies and no version to choose between.

use core::sync::atomic::{AtomicU64, Ordering};

/// Words that are kept. Each is 0 until it is written; one that does not exist
/// reads 0, and writes to it are dropped.
pub trait Keep {
    /// Reads a word.
    fn get(&self, index: usize) -> u64;
    /// Writes a word.
    fn set(&self, index: usize, value: u64);
}

/// The words as they lie in memory, all of them atomics; all zeroes is how they
/// start.
#[repr(C)]
pub struct Kept<const WORDS: usize>([AtomicU64; WORDS]);

impl<const WORDS: usize> Kept<WORDS> {
    /// Words that were never written.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }
}

impl<const WORDS: usize> Default for Kept<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const WORDS: usize> Keep for Kept<WORDS> {
    fn get(&self, index: usize) -> u64 {
        self.0
            .get(index)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    // In order: what a later word says about an earlier one is true.
    fn set(&self, index: usize, value: u64) {
        if let Some(word) = self.0.get(index) {
            word.store(value, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_zero_until_written() {
        let kept = Kept::<2>::new();
        kept.set(1, 7);
        assert_eq!([0, 1].map(|index| kept.get(index)), [0, 7]);
    }

    #[test]
    fn a_word_that_is_not_there_is_zero_for_good() {
        let kept = Kept::<2>::new();
        kept.set(2, 7);
        assert_eq!(kept.get(2), 0);
    }
}
