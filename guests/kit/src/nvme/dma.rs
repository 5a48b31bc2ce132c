//! The memory that driver and controller share: two pairs of queues and one page of data.
//!
//! Every word is an atomic, because the controller writes it at any time: that
//! makes sharing it defined without any unsafe code.

use core::sync::atomic::{AtomicU64, Ordering};

/// Entries of each queue: one command at a time needs two (NVMe 1.4
/// section 4.1: a queue is full with one entry free).
pub const QUEUE: usize = 4;

/// A submission entry of 64 bytes (NVMe 1.4 section 4.2).
pub(super) type Command = [u64; 8];

/// Queues start on a page (NVMe 1.4 sections 3.1.9 and 3.1.10), and data that
/// is a page needs one address only.
#[repr(C, align(4096))]
struct Page([AtomicU64; 512]);

impl Page {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 512])
    }

    fn address(&self) -> u64 {
        self.0.as_ptr().addr() as u64
    }
}

/// Bytes of the data page.
pub const DATA: usize = 4096;

/// A submission and a completion queue.
pub(super) struct QueuePair {
    submissions: Page,
    completions: Page,
}

impl QueuePair {
    const fn new() -> Self {
        Self {
            submissions: Page::new(),
            completions: Page::new(),
        }
    }

    /// Bus address of the submission queue.
    pub(super) fn submissions(&self) -> u64 {
        self.submissions.address()
    }

    /// Bus address of the completion queue.
    pub(super) fn completions(&self) -> u64 {
        self.completions.address()
    }

    /// Empties both queues, so that no entry has the first phase.
    pub(super) fn clear(&self) {
        for word in self.submissions.0.iter().chain(&self.completions.0) {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Writes submission entry `index`.
    pub(super) fn submit(&self, index: usize, command: &Command) {
        let words = &self.submissions.0[8 * index..8 * index + 8];
        for (word, value) in words.iter().zip(command) {
            word.store(*value, Ordering::Relaxed);
        }
    }

    /// Returns the second half of completion entry `index`, which holds the phase bit
    /// and is the last that the controller writes.
    pub(super) fn completion(&self, index: usize) -> u64 {
        self.completions.0[2 * index + 1].load(Ordering::Acquire)
    }

    /// Writes a completion as a controller would, for the tests' fake.
    #[cfg(test)]
    pub(super) fn complete_as_controller(&self, index: usize, word: u64) {
        self.completions.0[2 * index + 1].store(word, Ordering::Release);
    }

    /// Returns a submission entry as a controller reads it.
    #[cfg(test)]
    pub(super) fn submission(&self, index: usize) -> Command {
        core::array::from_fn(|word| self.submissions.0[8 * index + word].load(Ordering::Relaxed))
    }
}

/// Queues and data of one controller.
pub struct NvmeMemory {
    /// The admin queues, and those for reads and writes.
    pub(super) pairs: [QueuePair; 2],
    data: Page,
}

impl NvmeMemory {
    /// Zeroed memory.
    #[expect(
        clippy::new_without_default,
        reason = "it is a place for a static, not a value"
    )]
    pub const fn new() -> Self {
        Self {
            pairs: [const { QueuePair::new() }; 2],
            data: Page::new(),
        }
    }

    /// Bus address of the data page.
    pub(super) fn data(&self) -> u64 {
        self.data.address()
    }

    /// Clears the data page.
    pub(super) fn clear_data(&self) {
        for word in &self.data.0 {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Copies data from byte `offset`, a multiple of 8 inside the page.
    pub(super) fn copy_data(&self, offset: usize, to: &mut [u8]) {
        for (bytes, word) in to.chunks_mut(8).zip(&self.data.0[offset / 8..]) {
            let word = word.load(Ordering::Relaxed).to_le_bytes();
            bytes.copy_from_slice(&word[..bytes.len()]);
        }
    }

    /// Copies `from` to the start of the data page, at most a page.
    pub(super) fn fill_data(&self, from: &[u8]) {
        for (bytes, word) in from.chunks(8).zip(&self.data.0) {
            let mut value = [0; 8];
            value[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(value), Ordering::Relaxed);
        }
    }
}
