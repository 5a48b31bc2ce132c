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
    /// Returns the words as they lie in memory.
    fn words(&self) -> &[AtomicU64];

    /// Reads a word.
    fn get(&self, index: usize) -> u64 {
        let word = self.words().get(index);
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Writes a word. In order: what a later word says about an earlier one is true.
    fn set(&self, index: usize, value: u64) {
        if let Some(word) = self.words().get(index) {
            word.store(value, Ordering::Release);
        }
    }
}

/// The words as they lie in memory, all of them atomics; all zeroes is how they
/// start.
#[repr(C)]
pub struct Kept<const WORDS: usize>([AtomicU64; WORDS]);

impl<const WORDS: usize> Kept<WORDS> {
    /// Returns the words that were never written.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    /// Returns whether a program's manifest (component.toml) asks for so many words:
    /// for an assertion at compile time, since the build tool makes the memory by the
    /// manifest.
    #[must_use]
    pub const fn is_asked_for(manifest: &str) -> bool {
        let mut line = b"\nkept-words = ".as_slice();
        let mut text = manifest.as_bytes();
        while let [first, rest @ ..] = text {
            match line {
                [] => break,
                [wanted, left @ ..] if *first == *wanted => line = left,
                _ if *first == b'\n' => line = b"kept-words = ",
                _ => line = b"\nkept-words = ",
            }
            text = rest;
        }
        let mut words = 0;
        while let [digit @ b'0'..=b'9', rest @ ..] = text {
            words = words * 10 + (*digit - b'0') as usize;
            text = rest;
        }
        line.is_empty() && words == WORDS
    }
}

impl<const WORDS: usize> Default for Kept<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const WORDS: usize> Keep for Kept<WORDS> {
    fn words(&self) -> &[AtomicU64] {
        &self.0
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
    fn a_manifest_asks_for_a_number_of_words() {
        for manifest in [
            "# A comment.\nkept-words = 12\n\n[device.x]",
            "kept = 1\nkept-kept-words = 1\n\nkept-words = 12",
        ] {
            assert!(Kept::<12>::is_asked_for(manifest), "{manifest}");
            assert!(!Kept::<1>::is_asked_for(manifest), "{manifest}");
        }
        for manifest in ["", "calls = []\n", "\n# kept-words = 12", "\nkept-words ="] {
            assert!(!Kept::<12>::is_asked_for(manifest), "{manifest}");
            assert!(!Kept::<0>::is_asked_for(manifest), "{manifest}");
        }
    }

    #[test]
    fn a_word_that_is_not_there_is_zero_for_good() {
        let kept = Kept::<2>::new();
        kept.set(2, 7);
        assert_eq!(kept.get(2), 0);
    }
}
