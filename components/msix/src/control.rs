//! Message control: rules M1 to M4 and M6.

use channel::msix::control::MsixControl;
use channel::{Caller, Error, Transport};
use pci::regs::{MSIX_CONTROL_ENABLE, MSIX_CONTROL_FUNCTION_MASK};
use spec::FunctionId;

use crate::entry::BOUND;
use crate::{Hardware, Msix};

/// Binds that fail in one pass before their answer is taken for the rest of it: the
/// IOMMU, the kernel or the router itself is the matter then, and not the entry.
const FAILURES: u32 = 8;

impl<H: Hardware, T: Transport, const FUNCTIONS: usize> Msix<'_, H, T, FUNCTIONS> {
    fn lookup_control(&mut self, function: FunctionId) -> Result<usize, Error> {
        self.counters.control_calls += 1;
        self.lookup(function)
    }

    /// Unbinds every bound entry in order (M4), up to the first error.
    fn unbind_all(&mut self, function: usize) -> Result<(), Error> {
        let bound = self.functions[function].bound;
        bound
            .entries()
            .try_for_each(|entry| self.unbind(function, entry))
    }

    /// Updates every entry for which that is due, in order (M3).
    fn update_all(&mut self, function: usize) {
        let mut failures = 0;
        // The router's answer for all entries that are left. It need not be asked
        // again, up to 2048 times, for the same one.
        let mut answer = None;
        // Entries that failed without a call: how many, and the last one.
        let mut silent: Option<(u32, u16, Error)> = None;
        for entry in self.functions[function].due.entries() {
            let stored = self.entry(function, entry);
            let was_bound = stored.is(BOUND);
            if !was_bound {
                // What no local APIC takes costs no call, and says nothing of others.
                let error = if (self.takes)(stored.address, stored.data()) {
                    answer
                } else {
                    Some(Error::Refused)
                };
                if let Some(error) = error {
                    self.set_error(function, entry, &stored, error);
                    silent = Some((silent.map_or(1, |(count, ..)| count + 1), entry, error));
                    continue;
                }
            }
            self.update(function, entry);
            let stored = self.entry(function, entry);
            if was_bound && !stored.is(BOUND) {
                // Its slot and vector are free again.
                answer = answer.filter(|error| *error != Error::Exhausted);
            } else if let (false, Some(error)) = (was_bound, stored.error()) {
                failures += 1;
                let for_all = error == Error::Exhausted || failures == FAILURES;
                answer = for_all.then_some(error);
            }
        }
        if let Some((count, entry, error)) = silent {
            self.binds_failed(function, count, entry, error);
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
