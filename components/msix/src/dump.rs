//! Reports for the console: nothing here changes any state.

use channel::msix::dump::MsixDump;
use channel::msix::{EntryState, FunctionBar};
use channel::{Caller, Error, Transport};
use pci::Width;
use spec::FunctionId;

use crate::entry::{BOUND, THROTTLED, UPDATED};
use crate::function::Function;
use crate::{Entry, Hardware, Msix};

impl<H: Hardware, T: Transport, const FUNCTIONS: usize> Msix<'_, H, T, FUNCTIONS> {
    /// Returns the function, if it has MSI-X. The console probes; misses are
    /// not counted.
    fn shown(&self, function: FunctionId) -> Result<&Function, Error> {
        self.functions
            .get(function.index())
            .filter(|function| function.info.entries != 0)
            .ok_or(Error::NotFound)
    }

    /// Returns the device's pending bit of an entry (PCIe 6.0 section 7.7.2.7).
    fn pending(&mut self, function: FunctionId, entry: u16) -> bool {
        let info = &self.functions[function.index()].info;
        let place = FunctionBar {
            function,
            bar: info.pba_bar as u8,
        };
        let offset = info.pba_offset + u32::from(entry) / 32 * 4;
        self.hardware.read(place, offset, Width::Dword) >> (entry % 32) & 1 == 1
    }
}

impl<H: Hardware, T: Transport, const FUNCTIONS: usize> MsixDump for Msix<'_, H, T, FUNCTIONS> {
    fn state(&mut self, _caller: Caller, function: FunctionId) -> Result<u16, Error> {
        Ok(self.shown(function)?.message_control())
    }

    fn next_entry(
        &mut self,
        _caller: Caller,
        function: FunctionId,
        from: u16,
        all: bool,
    ) -> Result<EntryState, Error> {
        let entries = self.shown(function)?.info.entries as u16;
        let (index, entry) = (from..entries)
            .map(|index| (index, self.entry(function.index(), index)))
            .find(|(_, entry)| all || *entry != Entry::RESET)
            .ok_or(Error::NotFound)?;
        Ok(EntryState {
            entry: index,
            address: entry.address,
            data: entry.data(),
            masked: entry.masked(),
            throttled: entry.is(THROTTLED),
            updated: entry.is(UPDATED),
            bound: entry.is(BOUND),
            pending: self.pending(function, index),
            error: entry.error(),
        })
    }
}
