//! The logic's view of the machine: a unit's registers, and memory that the
//! unit reads.

/// A unit's registers.
pub trait Registers {
    /// Reads 32 bits at byte `offset`, a multiple of 4.
    fn read32(&mut self, offset: usize) -> u32;
    /// Writes 32 bits at byte `offset`, a multiple of 4.
    fn write32(&mut self, offset: usize, value: u32);
    /// Reads 64 bits at byte `offset`, a multiple of 8.
    fn read64(&mut self, offset: usize) -> u64;
    /// Writes 64 bits at byte `offset`, a multiple of 8.
    fn write64(&mut self, offset: usize, value: u64);
}

/// The memory for a unit's tables: zero at boot, and kept when the component is
/// started again.
pub trait Tables {
    /// Reads 64 bits at byte `offset`, a multiple of 8.
    fn read(&self, offset: usize) -> u64;
    /// Writes 64 bits at byte `offset`, a multiple of 8, in one piece.
    fn write(&mut self, offset: usize, value: u64);
    /// Writes the same four words `count` times from byte `offset` on, a multiple of 8.
    fn fill(&mut self, offset: usize, words: [u64; 4], count: usize);
    /// Writes the cache line that holds byte `offset` back to memory.
    fn flush(&mut self, offset: usize);
}

/// Bytes of a page, which is also the size of most tables.
pub(crate) const PAGE: usize = 4096;
/// Bytes of a cache line on every x86_64 CPU.
const LINE: usize = 64;
/// How often a bit is looked at before the unit counts as stuck: about a second
/// of uncached register reads, where a unit takes microseconds.
const POLLS: u32 = 1_000_000;

/// How often a unit is asked to forget something, if it stops at that: an error that comes
/// back has a cause that asking does not end.
pub(crate) const TRIES: usize = 4;

/// The step that the unit did not finish in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stuck(pub &'static str);

impl From<Stuck> for channel::Error {
    fn from(_: Stuck) -> Self {
        Self::Failed
    }
}

/// Looks until `done`, but not for ever.
pub(crate) fn poll(what: &'static str, mut done: impl FnMut() -> bool) -> Result<(), Stuck> {
    for _ in 0..POLLS {
        if done() {
            return Ok(());
        }
        core::hint::spin_loop();
    }
    Err(Stuck(what))
}

/// The tables' memory with its machine address. Every write reaches the memory
/// itself if the unit does not look into the CPU's caches.
#[derive(Debug)]
pub(crate) struct Region<T> {
    tables: T,
    base: u64,
    coherent: bool,
}

impl<T: Tables> Region<T> {
    pub fn new(tables: T, base: u64, coherent: bool) -> Self {
        Self {
            tables,
            base,
            coherent,
        }
    }

    /// Returns the machine address of a byte of it.
    pub fn address(&self, offset: usize) -> u64 {
        self.base + offset as u64
    }

    pub fn read(&self, offset: usize) -> u64 {
        self.tables.read(offset)
    }

    pub fn write(&mut self, offset: usize, value: u64) {
        self.tables.write(offset, value);
        if !self.coherent {
            self.tables.flush(offset);
        }
    }

    /// Writes the same four words `count` times from byte `offset` on.
    pub fn fill(&mut self, offset: usize, words: [u64; 4], count: usize) {
        self.tables.fill(offset, words, count);
        if !self.coherent {
            let size = count * size_of_val(&words);
            (offset..offset + size)
                .step_by(LINE)
                .for_each(|offset| self.tables.flush(offset));
        }
    }

    /// Writes all of it back, for a unit that does not look into caches: the
    /// zeros of boot may still lie there.
    pub fn flush(&mut self, size: usize) {
        if !self.coherent {
            (0..size)
                .step_by(LINE)
                .for_each(|offset| self.tables.flush(offset));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    /// Notes what is written, and whether a write was followed by the flush of its line.
    #[derive(Default)]
    struct Noted {
        filled: Vec<(usize, [u64; 4], usize)>,
        flushed: Vec<usize>,
    }

    impl Tables for &mut Noted {
        fn read(&self, _: usize) -> u64 {
            0
        }
        fn write(&mut self, _: usize, _: u64) {}
        fn fill(&mut self, offset: usize, words: [u64; 4], count: usize) {
            assert!(self.flushed.is_empty());
            self.filled.push((offset, words, count));
        }
        fn flush(&mut self, offset: usize) {
            self.flushed.push(offset);
        }
    }

    #[test]
    fn what_fills_memory_is_written_back_if_the_unit_needs_that() {
        for coherent in [true, false] {
            let mut noted = Noted::default();
            Region::new(&mut noted, 0, coherent).fill(64, [1, 2, 3, 4], 5);
            assert_eq!(noted.filled, [(64, [1, 2, 3, 4], 5)]);
            // Five entries of 32 bytes are in three lines.
            let lines: &[usize] = if coherent { &[] } else { &[64, 128, 192] };
            assert_eq!(noted.flushed, lines);
        }
    }
}
