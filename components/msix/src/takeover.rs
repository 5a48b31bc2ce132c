//! Taking over from an msix that died: device and router are made to agree with
//! the words that it kept.

use channel::{Error, Transport};
use spec::FunctionId;

use crate::entry::{BOUND, UPDATED};
use crate::function::{Msix, source};
use crate::{Entry, Hardware};

impl<H: Hardware, T: Transport, const FUNCTIONS: usize> Msix<'_, H, T, FUNCTIONS> {
    /// Takes a function over; `false` if no msix had it before.
    pub(crate) fn adopt(&mut self, function: usize) -> bool {
        let Some((enabled, function_mask)) = self.kept.function(function) else {
            return false;
        };
        self.functions[function].enabled = enabled;
        self.functions[function].function_mask = function_mask;
        let masked = self
            .router
            .set_function_masked(FunctionId::at(function), function_mask);
        self.counters.mask_failures += u64::from(masked.is_err());
        for entry in 0..self.functions[function].info.entries as u16 {
            let kept = self.entry(function, entry);
            // Only an entry that is no longer as after reset was ever bound.
            if kept != Entry::RESET {
                self.functions[function].index_entry(entry, &kept);
                self.adopt_entry(function, entry, &kept);
            }
        }
        true
    }

    /// Makes device and router agree with an entry. An event that comes while the
    /// device's entry is masked waits in its PBA.
    fn adopt_entry(&mut self, function: usize, entry: u16, kept: &Entry) {
        let source = source(function, entry);
        self.mask_in_device(function, entry, true);
        match (self.router.restore(source), kept.is(BOUND)) {
            (Ok(message), true) => {
                self.write_message(function, entry, message);
                let masked = self.router.set_masked(source, kept.masked());
                self.counters.mask_failures += u64::from(masked.is_err());
                if !kept.keep_masked() {
                    self.mask_in_device(function, entry, false);
                }
            }
            (Ok(_), false) => {
                // The last msix died before it recorded the bind.
                if let Err((error, _)) = self.unbind_in_router(source) {
                    self.unbind_failed(function, entry, error);
                    let stored = self.entry(function, entry);
                    self.change(function, entry, stored, |entry| {
                        entry.set(BOUND, true);
                        entry.set(UPDATED, true);
                    });
                }
            }
            (Err(error), was_bound) => {
                if error != Error::NotFound {
                    self.unbind_failed(function, entry, error);
                }
                let stored = self.entry(function, entry);
                self.change(function, entry, stored, |entry| {
                    entry.set(BOUND, false);
                    entry.set(UPDATED, was_bound || entry.is(UPDATED));
                });
            }
        }
    }
}
