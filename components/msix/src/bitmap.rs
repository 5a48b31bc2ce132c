//! One bit for each entry of a table, so that control writes visit only the
//! entries that they concern.

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
        let word = &mut self.0[usize::from(entry / 64)];
        if present {
            *word |= bit;
        } else {
            *word &= !bit;
        }
    }

    /// The first entry at or after `from` that is in the set.
    pub fn next(&self, from: u16) -> Option<u16> {
        let first = usize::from(from / 64);
        let mut mask = u64::MAX << (from % 64);
        for (index, word) in self.0.iter().enumerate().skip(first) {
            let rest = word & mask;
            if rest != 0 {
                return Some(index as u16 * 64 + rest.trailing_zeros() as u16);
            }
            mask = u64::MAX;
        }
        None
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
        let mut at = 0;
        for expected in [0, 63, 64, 2047] {
            assert_eq!(bitmap.next(at), Some(expected));
            at = expected + 1;
        }
        assert_eq!(bitmap.next(at), None);
    }
}
