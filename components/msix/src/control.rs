//! Message control: rules M1 to M4 and M6.

use channel::irq_router::{Answers, BATCH, Batch, ShortMessage};
use channel::msix::control::MsixControl;
use channel::{Caller, Error, Transport};
use heapless::Vec;
use pci::regs::{MSIX_CONTROL_ENABLE, MSIX_CONTROL_FUNCTION_MASK};
use spec::{FunctionId, bits};

use crate::entry::BOUND;
use crate::function::source;
use crate::{Hardware, Msix};

/// Binds that fail in one pass before their answer is taken for the rest of it: the
/// IOMMU, the kernel or the router itself is the matter then, and not the entry.
const FAILURES: u32 = 8;

/// What a pass over the entries that are due has come to.
#[derive(Default)]
struct Pass {
    failures: u32,
    /// The router's answer for all entries that are left. It need not be asked again,
    /// up to 2048 times, for the same one.
    answer: Option<Error>,
    /// Entries that are bound together next, with their messages.
    waiting: Vec<(u16, ShortMessage), BATCH>,
}

impl Pass {
    /// Notes that an entry that was not bound could not be bound.
    fn failed(&mut self, error: Error) {
        self.failures += 1;
        if error == Error::Exhausted || self.failures >= FAILURES {
            self.answer = Some(error);
        }
    }
}

impl<H: Hardware, T: Transport, const FUNCTIONS: usize> Msix<'_, H, T, FUNCTIONS> {
    fn lookup_control(&mut self, function: FunctionId) -> Result<usize, Error> {
        self.counters.control_calls += 1;
        self.lookup(function)
    }

    /// Unbinds every bound entry in order (M4), up to the first error.
    fn unbind_all(&mut self, function: usize) -> Result<(), Error> {
        let bound = self.functions[function].bound;
        bound
            .words()
            .try_for_each(|(first, entries)| self.unbind_word(function, first, entries))
    }

    /// Unbinds bound entries, bit `i` of `entries` for the one `i` after `first`, in one
    /// call of the router. The device is masked before, and its messages are flushed.
    fn unbind_word(&mut self, function: usize, first: u16, entries: u64) -> Result<(), Error> {
        let listed = bits(entries);
        for bit in listed.clone() {
            self.set_vector_control(function, first + bit, true);
        }
        self.flush(function, first + entries.trailing_zeros() as u16);
        let gone = self
            .router
            .unbind_entries(source(function, first), entries)
            .unwrap_or(0);
        for bit in listed.clone() {
            let entry = first + bit;
            if gone >> bit & 1 == 1 {
                self.functions[function].open.set(entry, false);
                let stored = self.entry(function, entry);
                self.unbind_done(function, entry, stored);
            } else if self.functions[function].open.contains(entry) {
                // A router that died too often may have given its vector to another
                // source.
                let bound = self.router.restore(source(function, entry)).is_ok();
                self.mask_in_device(function, entry, !bound);
            }
        }
        // Asked again for itself, the first that is left says why.
        listed
            .filter(|bit| gone >> bit & 1 == 0)
            .try_for_each(|bit| {
                let entry = first + bit;
                let stored = self.entry(function, entry);
                self.unbind(function, entry, stored).map(drop)
            })
    }

    /// Updates every entry for which that is due, in order (M3).
    fn update_all(&mut self, function: usize) {
        let mut pass = Pass::default();
        // Entries that failed without a call: how many, and the last one.
        let mut silent: Option<(u32, u16, Error)> = None;
        for entry in self.functions[function].due.entries() {
            let stored = self.entry(function, entry);
            let (address, data) = (stored.address, stored.data());
            if stored.is(BOUND) {
                self.bind_waiting(function, &mut pass);
                if !self.update(function, entry, stored).is(BOUND) {
                    // Its slot and vector are free again.
                    pass.answer = pass.answer.filter(|error| *error != Error::Exhausted);
                }
                continue;
            }
            // What no local APIC takes costs no call, and says nothing of others.
            let error = if self.takes(address, data) {
                pass.answer
            } else {
                Some(Error::Refused)
            };
            if let Some(error) = error {
                self.set_error(function, entry, &stored, error);
                silent = Some((silent.map_or(1, |(count, ..)| count + 1), entry, error));
                continue;
            }
            match ShortMessage::new((address, data)) {
                Some(message) => {
                    // It is emptied as soon as it is full.
                    let _ = pass.waiting.push((entry, message));
                    if pass.waiting.is_full() {
                        self.bind_waiting(function, &mut pass);
                    }
                }
                None => {
                    self.bind_waiting(function, &mut pass);
                    if let Some(error) = self.update(function, entry, stored).error() {
                        pass.failed(error);
                    }
                }
            }
        }
        self.bind_waiting(function, &mut pass);
        if let Some((count, entry, error)) = silent {
            self.binds_failed(function, count, entry, error);
        }
    }

    /// Binds the entries that wait for it, in one call of the router.
    fn bind_waiting(&mut self, function: usize, pass: &mut Pass) {
        if pass.waiting.is_empty() {
            return;
        }
        let waiting = core::mem::take(&mut pass.waiting);
        let mut batch = Batch {
            function: FunctionId::at(function),
            entries: [None; BATCH],
        };
        let mut messages = [ShortMessage::default(); BATCH];
        for (place, &(entry, message)) in waiting.iter().enumerate() {
            batch.entries[place] = Some(entry);
            messages[place] = message;
        }
        let [first, second, third] = messages;
        let answers = self.router.bind_batch(batch, first, second, third);
        let Answers(answers) = answers.unwrap_or_else(|error| Answers([Err(error); BATCH]));
        for ((entry, _), answer) in waiting.into_iter().zip(answers) {
            match answer {
                Ok(message) => {
                    let stored = self.entry(function, entry);
                    self.bind_done(function, entry, stored, message.parts());
                }
                Err(error) => {
                    self.bind_failed(function, entry, error);
                    pass.failed(error);
                }
            }
        }
    }
}

impl<H: Hardware, T: Transport, const FUNCTIONS: usize> MsixControl for Msix<'_, H, T, FUNCTIONS> {
    fn read_control(&mut self, _caller: Caller, function: FunctionId) -> Result<u16, Error> {
        let function = self.lookup_control(function)?;
        Ok(self.functions[function].message_control())
    }

    fn write_control(
        &mut self,
        _caller: Caller,
        function: FunctionId,
        value: u16,
    ) -> Result<Option<u16>, Error> {
        let index = self.lookup_control(function)?;
        let enabled = value & MSIX_CONTROL_ENABLE != 0;
        let function_mask = value & MSIX_CONTROL_FUNCTION_MASK != 0;
        let was_enabled = self.functions[index].enabled;
        let was_masked = self.functions[index].function_mask;
        if (enabled, function_mask) == (was_enabled, was_masked) {
            return Ok(None);
        }
        if was_enabled && !enabled && self.unbind_all(index).is_err() {
            return Ok(None);
        }
        if function_mask != was_masked {
            // The device stops when pci-config writes the register; messages on
            // its way by then is held on the routing page (M20).
            let masked = self.router.set_function_masked(function, function_mask);
            self.counters.mask_failures += u64::from(masked.is_err());
        }
        if enabled && !function_mask {
            self.update_all(index);
        }
        self.commit_control(index, enabled, function_mask);
        Ok(Some(self.functions[index].message_control()))
    }

    fn reset(&mut self, _caller: Caller, function: FunctionId) -> Result<(), Error> {
        let function = self.lookup_control(function)?;
        self.reset_function(function)
            .inspect_err(|_| self.counters.unbind_failures += 1)
    }
}
