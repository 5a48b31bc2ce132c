//! One bit for each entry of a table, so that control writes visit only the
//! entries that they concern.

use spec::bits;

/// Entries of the largest table (PCIe 6.0 section 7.7.2.2).
pub const MAX_ENTRIES: usize = 2048;

/// A set of entries.
#[derive(Clone, Copy)]
pub struct Bitmap([u64; MAX_ENTRIES / 64]);

impl Bitmap {
    /// No entry.
    pub const EMPTY: Self = Self([0; MAX_ENTRIES / 64]);

    /// Puts an entry in or takes it out.
    pub fn set(&mut self, entry: u16, present: bool) {
        let bit = 1 << (entry % 64);
        let word = &mut self.0[usize::from(entry) % MAX_ENTRIES / 64];
        if present {
            *word |= bit;
        } else {
            *word &= !bit;
        }
    }

    /// Returns whether an entry is in the set.
    pub fn contains(&self, entry: u16) -> bool {
        self.0[usize::from(entry) % MAX_ENTRIES / 64] >> (entry % 64) & 1 == 1
    }

    /// Returns the words that are not 0 in order, each with the entry of its bit 0.
    pub fn words(self) -> impl Iterator<Item = (u16, u64)> {
        let words = (0..).step_by(64).zip(self.0);
        words.filter(|&(_, word)| word != 0)
    }

    /// Returns the entries in order.
    pub fn entries(self) -> impl Iterator<Item = u16> {
        self.words()
            .flat_map(|(first, word)| bits(word).map(move |bit| first + bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_in_order() {
        let mut bitmap = Bitmap::EMPTY;
        for entry in [2047, 0, 64, 63, 700] {
            bitmap.set(entry, true);
        }
        bitmap.set(700, false);
        assert!(bitmap.entries().eq([0, 63, 64, 2047]));
        assert!(bitmap.contains(63) && !bitmap.contains(700));
        assert_eq!(Bitmap::EMPTY.entries().next(), None);
        let words = [(0, 1 << 63 | 1), (64, 1), (1984, 1 << 63)];
        assert!(bitmap.words().eq(words));
        assert_eq!(Bitmap::EMPTY.words().next(), None);
    }
}
