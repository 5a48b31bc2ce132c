//! The state that outlives a crash: a word for each function, and two for each
//! entry. There is no other copy of them.
//!
//! The words describe the state before the current request, except that binds
//! and unbinds are recorded as they happen. A new msix makes device and router
//! agree with them, and the client makes its request again: so each request has a
//! commit point, its last store. A crash before it leaves a state in which the
//! repeated request redoes the work.

use core::sync::atomic::{AtomicU64, Ordering};

use shm::Keep;
use spec::bit;

use crate::entry::Entry;

/// A function's word: msix has taken it over.
const STARTED: u64 = 1 << 63;
const ENABLED: u64 = 1;
const FUNCTION_MASK: u64 = 2;

/// Returns how many words are kept for so many functions and entries.
#[must_use]
pub const fn kept_words(functions: usize, entries: usize) -> usize {
    functions + 2 * entries
}

/// The words: those of `functions` functions come first.
#[derive(Clone, Copy)]
pub struct Words<'a> {
    kept: &'a dyn Keep,
    /// The entries' words in `kept`, loaded without a call through a trait object.
    entries: &'a [[AtomicU64; 2]],
    functions: usize,
}

impl<'a> Words<'a> {
    pub fn new(kept: &'a dyn Keep, functions: usize) -> Self {
        let entries = kept.words().get(functions..).unwrap_or_default();
        Self {
            kept,
            entries: entries.as_chunks().0,
            functions,
        }
    }

    /// Loads entry `index` of all functions' entries.
    pub fn entry(&self, index: usize) -> Entry {
        let [state, address] = &self.entries[index];
        Entry {
            state: state.load(Ordering::Acquire),
            address: address.load(Ordering::Acquire),
        }
    }

    /// Stores what changed of an entry. The two words need not change together:
    /// an address is written only with the mark that it was.
    #[inline]
    pub fn set_entry(&self, index: usize, before: &Entry, after: &Entry) {
        let first = self.functions + 2 * index;
        if before.state != after.state {
            self.kept.set(first, after.state);
        }
        if before.address != after.address {
            self.kept.set(first + 1, after.address);
        }
    }

    /// Stores a function's enable and function mask.
    pub fn set_function(&self, function: usize, enabled: bool, function_mask: bool) {
        let word = STARTED | bit(enabled, ENABLED) | bit(function_mask, FUNCTION_MASK);
        self.kept.set(function, word);
    }

    /// Loads enable and function mask; `None` if no msix had taken the function
    /// over.
    pub fn function(&self, function: usize) -> Option<(bool, bool)> {
        let word = self.kept.get(function);
        (word & STARTED != 0).then_some((word & ENABLED != 0, word & FUNCTION_MASK != 0))
    }
}
