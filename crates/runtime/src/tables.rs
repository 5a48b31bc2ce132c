//! Memory whose machine address is known, for tables that a device reads.

use spec::names;

use crate::Context;

/// A region for a device's tables, as it lies in this component. No reference
/// to it is ever made: the device may write to it at any time.
#[derive(Debug)]
pub struct DeviceTables {
    here: usize,
    size: usize,
}

impl DeviceTables {
    /// Returns the memory for the IOMMU's tables.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        let region = context.get(names::IOMMU_TABLES);
        Self {
            here: region.address as usize,
            size: region.length as usize,
        }
    }

    /// Returns the bytes of it.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Returns where a word lies here, if it is aligned and inside.
    fn at(&self, offset: usize) -> Option<*mut u64> {
        let inside = offset.is_multiple_of(8) && offset < self.size / 8 * 8;
        inside.then(|| core::ptr::with_exposed_provenance_mut(self.here + offset))
    }

    /// Reads the word at byte `offset`; 0 if it is not aligned or lies outside.
    #[must_use]
    pub fn read(&self, offset: usize) -> u64 {
        // SAFETY: init mapped the region here, nothing unmaps it, and `at` checked the
        // place; every bit pattern is a number.
        self.at(offset)
            .map_or(0, |word| unsafe { word.read_volatile() })
    }

    /// Writes the word at byte `offset`, in one piece and after what was
    /// written before; dropped if it is not aligned or lies outside.
    pub fn write(&mut self, offset: usize, value: u64) {
        if let Some(word) = self.at(offset) {
            // SAFETY: as in `read`; init mapped the region for this component
            // alone.
            unsafe { word.write_volatile(value) };
        }
    }

    /// Writes the same four words `count` times from byte `offset` on; nothing if that is
    /// not aligned to 8 bytes or does not all lie inside. It is for tables with an entry
    /// for every requester id, of which the device reads none before the last is written.
    pub fn fill(&mut self, offset: usize, words: [u64; 4], count: usize) {
        let end = count
            .checked_mul(size_of_val(&words))
            .and_then(|size| size.checked_add(offset));
        if count == 0 || end.is_none_or(|end| end > self.size) {
            return;
        }
        if let Some(first) = self.at(offset) {
            let first = first.cast::<[u64; 4]>();
            for index in 0..count {
                // SAFETY: as in `write`; `count` entries from here on lie inside.
                unsafe { first.add(index).write_volatile(words) };
            }
        }
    }

    /// Writes the cache line with the word at byte `offset` back to memory, for
    /// a device that does not look into the CPU's caches. It is ordered with
    /// writes around it (SDM vol. 2, CLFLUSH).
    pub fn flush(&mut self, offset: usize) {
        if let Some(word) = self.at(offset) {
            // SAFETY: every x86_64 CPU has the instruction, and the place is
            // mapped.
            unsafe { core::arch::x86_64::_mm_clflush(word.cast()) };
        }
    }
}
