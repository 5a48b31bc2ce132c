//! What outlives a crash: a word for each function, and two for each entry.
//!
//! They say what was true between two requests, but for what a request has
//! bound and unbound so far. A new msix brings device and router back to that,
//! and the client makes its request again: so each request stores what makes it
//! a thing of the past, such as the mask bit, last.

use channel::{Error, Transport};
use shm::Keep;
use spec::{FunctionId, bit};

use crate::function::source;
use crate::{Entry, Hardware, Msix};

/// A function's word: msix has taken it over.
const STARTED: u64 = 1 << 63;
const ENABLED: u64 = 1;
const FUNCTION_MASK: u64 = 2;

/// An entry's first word: bits 31:0 are the data. All zeroes is
/// [`Entry::RESET`]; the second word is the address.
const UNMASKED: u64 = 1 << 32;
const UPDATED: u64 = 1 << 33;
const THROTTLED: u64 = 1 << 34;
const BOUND: u64 = 1 << 35;

/// Words that are kept for so many functions and entries.
#[must_use]
pub const fn kept_words(functions: usize, entries: usize) -> usize {
    functions + 2 * entries
}

/// Words behind those of `functions` functions.
#[derive(Clone, Copy)]
pub struct Words<'a> {
    kept: &'a dyn Keep,
    functions: usize,
}

impl<'a> Words<'a> {
    pub const fn new(kept: &'a dyn Keep, functions: usize) -> Self {
        Self { kept, functions }
    }

    /// Keeps entry `index` of the storage. The words need not change together:
    /// an address is written only with the mark that it was.
    #[inline]
    pub fn set_entry(&self, index: usize, entry: &Entry) {
        let first = self.functions + 2 * index;
        self.kept.set(
            first,
            u64::from(entry.data)
                | bit(!entry.masked, UNMASKED)
                | bit(entry.updated, UPDATED)
                | bit(entry.throttled, THROTTLED)
                | bit(entry.bound.is_some(), BOUND),
        );
        self.kept.set(first + 1, entry.address);
    }

    /// The entry as it was kept, not bound; and whether it was.
    fn entry(&self, index: usize) -> (Entry, bool) {
        let first = self.functions + 2 * index;
        let word = self.kept.get(first);
        let entry = Entry {
            address: self.kept.get(first + 1),
            data: word as u32,
            masked: word & UNMASKED == 0,
            updated: word & UPDATED != 0,
            throttled: word & THROTTLED != 0,
            ..Entry::RESET
        };
        (entry, word & BOUND != 0)
    }

    /// Keeps a function's bits.
    pub fn set_function(&self, function: usize, enabled: bool, function_mask: bool) {
        let word = STARTED | bit(enabled, ENABLED) | bit(function_mask, FUNCTION_MASK);
        self.kept.set(function, word);
    }

    /// Whether the function was enabled, and masked; `None` if it was never
    /// taken over.
    fn function(&self, function: usize) -> Option<(bool, bool)> {
        let word = self.kept.get(function);
        (word & STARTED != 0).then_some((word & ENABLED != 0, word & FUNCTION_MASK != 0))
    }
}

impl<H: Hardware, T: Transport, const FUNCTIONS: usize> Msix<'_, H, T, FUNCTIONS> {
    /// Takes a function over from an msix that died; `false` if there was none.
    pub(crate) fn adopt(&mut self, function: usize) -> bool {
        let Some((enabled, function_mask)) = self.kept.function(function) else {
            return false;
        };
        self.functions[function].enabled = enabled;
        self.functions[function].function_mask = function_mask;
        let masked = self
            .router
            .set_function_masked(FunctionId::at(function), function_mask);
        if masked.is_err() {
            self.counters.mask_failures += 1;
        }
        for entry in 0..self.functions[function].info.entries as u16 {
            let index = self.functions[function].index(entry);
            let (kept, was_bound) = self.kept.entry(index);
            self.entries[index] = kept;
            // Only what is no longer as after reset was ever bound.
            if was_bound || kept != Entry::RESET {
                self.adopt_entry(function, entry, was_bound);
            }
        }
        true
    }

    /// Makes device, router and entry agree. An event that comes while the
    /// device's entry is masked waits in its PBA.
    fn adopt_entry(&mut self, function: usize, entry: u16, was_bound: bool) {
        let source = source(function, entry);
        self.mask_in_device(function, entry, true);
        match (self.router.restore(source), was_bound) {
            (Ok(message), true) => {
                self.write_message(function, entry, message);
                self.change(function, entry, |entry| entry.bound = Some(message));
                let masked = self.entry(function, entry).masked;
                if self.router.set_masked(source, masked).is_err() {
                    self.counters.mask_failures += 1;
                }
                if !self.entry(function, entry).keep_masked() {
                    self.mask_in_device(function, entry, false);
                }
            }
            (Ok(message), false) => {
                // Bound, and then nobody was told.
                if let Err((error, _)) = self.unbind_in_router(source) {
                    self.unbind_failed(function, entry, error);
                    self.change(function, entry, |entry| {
                        entry.bound = Some(message);
                        entry.updated = true;
                    });
                } else {
                    self.change(function, entry, |_| {});
                }
            }
            (Err(error), _) => {
                if error != Error::NotFound {
                    self.unbind_failed(function, entry, error);
                }
                self.change(function, entry, |entry| entry.updated |= was_bound);
            }
        }
    }
}
