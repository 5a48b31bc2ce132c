//! A ring of records: one writer, one reader, four pages.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Bytes of records that fit: four pages less the three indices.
pub const RING_CAPACITY: usize = 4 * 4096 - 24;
/// Longest record, in bytes.
pub const RING_RECORD_MAX: usize = 1024;
/// Each record begins with its length, 16 bits.
const LENGTH_BYTES: u64 = 2;

/// The ring as it lies in shared memory; all zeroes is an empty one.
#[repr(C)]
pub struct Ring {
    /// Bytes ever written.
    head: AtomicU64,
    /// Bytes ever read.
    tail: AtomicU64,
    /// Records that the writer could not place.
    dropped: AtomicU64,
    data: [AtomicU8; RING_CAPACITY],
}

impl Ring {
    /// Creates an empty ring.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            data: [const { AtomicU8::new(0) }; RING_CAPACITY],
        }
    }

    fn byte(&self, position: u64) -> &AtomicU8 {
        &self.data[(position % RING_CAPACITY as u64) as usize]
    }

    /// Returns the bytes in use; `None` if the indices make no sense.
    fn used(&self, head: u64, tail: u64) -> Option<u64> {
        head.checked_sub(tail)
            .filter(|&used| used <= RING_CAPACITY as u64)
    }

    /// Appends a record, for the writer. Returns `false`, and counts one more
    /// dropped, if there is no room or the record is longer than
    /// [`RING_RECORD_MAX`].
    pub fn push(&self, record: &[u8]) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        let tail = self.tail.load(Ordering::Acquire);
        let need = LENGTH_BYTES + record.len() as u64;
        let room = self
            .used(head, tail)
            .is_some_and(|used| RING_CAPACITY as u64 - used >= need);
        if !room || record.len() > RING_RECORD_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let length = (record.len() as u16).to_le_bytes();
        for (position, byte) in (head..).zip(length.iter().chain(record)) {
            self.byte(position).store(*byte, Ordering::Relaxed);
        }
        self.head.store(head + need, Ordering::Release);
        true
    }

    /// Takes the oldest record into `record`, for the reader. Returns its
    /// length; `None` if there is none. A record that the writer spoiled is skipped.
    pub fn pop(&self, record: &mut [u8; RING_RECORD_MAX]) -> Option<usize> {
        let tail = self.tail.load(Ordering::Relaxed);
        let head = self.head.load(Ordering::Acquire);
        let used = match self.used(head, tail) {
            Some(0) => return None,
            Some(used) => used,
            None => {
                self.tail.store(head, Ordering::Release);
                return None;
            }
        };
        let at = |offset: u64| self.byte(tail + offset).load(Ordering::Relaxed);
        let length = usize::from(u16::from_le_bytes([at(0), at(1)]));
        if length > RING_RECORD_MAX || used < LENGTH_BYTES + length as u64 {
            self.tail.store(head, Ordering::Release);
            return None;
        }
        for (offset, byte) in (LENGTH_BYTES..).zip(&mut record[..length]) {
            *byte = at(offset);
        }
        self.tail
            .store(tail + LENGTH_BYTES + length as u64, Ordering::Release);
        Some(length)
    }

    /// Returns whether there is nothing to read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Acquire) == self.tail.load(Ordering::Acquire)
    }

    /// Records that found no room since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::boxed::Box;
    use std::vec::Vec;

    fn pop(ring: &Ring) -> Option<Vec<u8>> {
        let mut record = [0; RING_RECORD_MAX];
        ring.pop(&mut record)
            .map(|length| record[..length].to_vec())
    }

    #[test]
    fn it_takes_four_pages() {
        assert_eq!(size_of::<Ring>(), 4 * 4096);
    }

    #[test]
    fn records_come_out_in_order_over_many_laps() {
        let ring = Box::new(Ring::new());
        for lap in 0..2000u32 {
            let record: Vec<u8> = (0..lap % 700).map(|i| (i + lap) as u8).collect();
            assert!(ring.push(&record));
            assert!(ring.push(&[7]));
            assert_eq!(pop(&ring), Some(record));
            assert_eq!(pop(&ring), Some(std::vec![7]));
            assert!(ring.is_empty() && pop(&ring).is_none());
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let ring = Box::new(Ring::new());
        let record = [1; RING_RECORD_MAX];
        let mut placed = 0;
        while ring.push(&record) {
            placed += 1;
        }
        assert_eq!(placed, RING_CAPACITY / (RING_RECORD_MAX + 2));
        assert!(!ring.push(&[0; RING_RECORD_MAX + 1]));
        assert_eq!(ring.dropped(), 2);
        assert_eq!(pop(&ring).map(|r| r.len()), Some(RING_RECORD_MAX));
        assert!(ring.push(&record));
    }

    #[test]
    fn a_record_can_be_as_long_as_the_rest_of_the_ring() {
        let ring = Box::new(Ring::new());
        let fill = |length: usize| assert!(ring.push(&std::vec![1; length]));
        let (records, rest) = (
            RING_CAPACITY / (RING_RECORD_MAX + 2),
            RING_CAPACITY % (RING_RECORD_MAX + 2),
        );
        assert!(ring.is_empty());
        (0..records).for_each(|_| fill(RING_RECORD_MAX));
        assert!(!ring.is_empty());
        // One byte more than there is room for; then all of it.
        assert!(!ring.push(&std::vec![1; rest - 1]));
        fill(rest - 2);
        assert!(!ring.push(&[]));
        assert_eq!(ring.dropped(), 2);
        (0..records).for_each(|_| assert_eq!(pop(&ring).map(|r| r.len()), Some(RING_RECORD_MAX)));
        assert_eq!(pop(&ring).map(|r| r.len()), Some(rest - 2));
        assert!(ring.is_empty());
    }

    /// Lengths that a writer can claim: longer than a record may be, however much
    /// it says it wrote, and longer than what it says.
    #[test]
    fn a_length_that_is_not_true_costs_the_writer_its_records() {
        let claim = |ring: &Ring, length: u16, written: u64| {
            let [low, high] = length.to_le_bytes();
            ring.data[0].store(low, Ordering::Relaxed);
            ring.data[1].store(high, Ordering::Relaxed);
            ring.head.store(written, Ordering::Relaxed);
        };
        let longest = RING_RECORD_MAX as u16;
        for (length, written, taken) in [
            (longest, u64::from(longest) + 2, Some(RING_RECORD_MAX)),
            (longest, u64::from(longest) + 1, None),
            (longest + 1, u64::from(longest) + 3, None),
            (longest + 1, RING_CAPACITY as u64, None),
            (u16::MAX, RING_CAPACITY as u64, None),
            (u16::MAX, RING_CAPACITY as u64 + 1, None),
            // Not even a length.
            (0, 1, None),
            (0, 2, Some(0)),
            (1, 2, None),
            (1, 3, Some(1)),
        ] {
            let ring = Box::new(Ring::new());
            claim(&ring, length, written);
            let found = pop(&ring).map(|record| record.len());
            assert_eq!(found, taken, "{length} of {written}");
            assert!(ring.is_empty(), "{length} of {written}");
            assert!(ring.push(b"good"));
            assert_eq!(pop(&ring), Some(b"good".to_vec()));
        }
        // The written position is impossible: before the read position, or too far behind it.
        for (head, tail) in [(0, 1), (RING_CAPACITY as u64 + 1, 0), (u64::MAX, 1)] {
            let ring = Box::new(Ring::new());
            ring.head.store(head, Ordering::Relaxed);
            ring.tail.store(tail, Ordering::Relaxed);
            assert!(!ring.push(b"x"));
            assert_eq!(pop(&ring), None);
            assert!(ring.is_empty());
        }
    }

    #[test]
    fn a_lying_writer_only_loses_its_own_records() {
        let ring = Box::new(Ring::new());
        ring.push(b"x");
        ring.head.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(pop(&ring), None);
        assert!(ring.is_empty());
        ring.head.store(0, Ordering::Relaxed);
        ring.tail.store(0, Ordering::Relaxed);
        ring.push(b"abc");
        ring.data[0].store(0xff, Ordering::Relaxed);
        ring.data[1].store(0xff, Ordering::Relaxed);
        assert_eq!(pop(&ring), None);
        assert!(ring.push(b"good"));
        assert_eq!(pop(&ring), Some(b"good".to_vec()));
    }
}
