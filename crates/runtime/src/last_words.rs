//! The text of a panic as words of a message.

use core::fmt;

use spec::PANIC_WORDS;

/// Text that is cut off where the message ends. The last byte stays 0.
pub struct LastWords {
    words: [u64; PANIC_WORDS],
    bytes: usize,
}

impl LastWords {
    /// Creates an empty text.
    pub const fn new() -> Self {
        Self {
            words: [0; PANIC_WORDS],
            bytes: 0,
        }
    }

    /// Returns the words.
    pub const fn words(&self) -> &[u64; PANIC_WORDS] {
        &self.words
    }
}

impl fmt::Write for LastWords {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.bytes == PANIC_WORDS * 8 - 1 {
                return Err(fmt::Error);
            }
            self.words[self.bytes / 8] |= u64::from(byte) << (self.bytes % 8 * 8);
            self.bytes += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write as _;

    #[test]
    fn a_text_fills_words_from_their_low_bytes_and_is_cut_off() {
        let mut words = LastWords::new();
        assert!(words.write_str("no HPET here").is_ok());
        let [first, second, rest @ ..] = words.words();
        assert_eq!(first.to_le_bytes(), *b"no HPET ");
        assert_eq!(second.to_le_bytes(), *b"here\0\0\0\0");
        assert!(rest.iter().all(|word| *word == 0));
        for _ in 0..PANIC_WORDS {
            let _ = words.write_str("12345678");
        }
        let last = words.words()[PANIC_WORDS - 1].to_le_bytes();
        assert_eq!(last[7], 0);
        assert_ne!(last[6], 0);
    }
}
