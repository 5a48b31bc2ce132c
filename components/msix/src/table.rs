//! Table, PBA and the registers beside them: rules M7 to M15.

use channel::irq_router::{Source, SourceKind};
use channel::msix::FunctionBar;
use channel::msix::table::MsixTable;
use channel::{Caller, Error, Transport};
use pci::Width;
use spec::FunctionId;

use crate::area::{Area, field_of_table};
use crate::entry::{BOUND, THROTTLED, UPDATED};
use crate::function::source;
use crate::{Entry, Hardware, Msix};

impl<H: Hardware, T: Transport, const FUNCTIONS: usize> Msix<'_, H, T, FUNCTIONS> {
    fn lookup_table(&mut self, caller: Caller, function: FunctionId) -> Result<usize, Error> {
        self.counters.table_calls += 1;
        let index = function.index();
        match self.functions.get(index) {
            // One without MSI-X may have BARs that are smaller than a page.
            Some(found) if found.info.page_count != 0 && found.owner == caller => Ok(index),
            _ => {
                self.counters.not_found += 1;
                Err(Error::NotFound)
            }
        }
    }

    /// Writes vector control (M9).
    fn write_vector_control(&mut self, function: usize, entry: u16, value: u32) {
        let masked = value & 1 == 1;
        let mut stored = self.entry(function, entry);
        if masked == stored.masked() {
            return;
        }
        let state = &self.functions[function];
        let live = state.enabled && !state.function_mask;
        if live && !masked && stored.is(UPDATED) {
            stored = self.update(function, entry, stored);
        } else if stored.is(BOUND) {
            self.mask_bound(function, entry, masked, stored.is(THROTTLED));
        }
        self.commit_mask(function, entry, stored, masked);
    }

    /// Masks or unmasks a bound entry in device and router.
    fn mask_bound(&mut self, function: usize, entry: u16, masked: bool, throttled: bool) {
        // Unmasked in the device last: its messages then find their route open.
        if masked {
            self.mask_in_device(function, entry, true);
        }
        let routed = self.router.set_masked(source(function, entry), masked);
        if routed.is_err() {
            self.counters.mask_failures += 1;
        }
        if !masked && !throttled {
            self.mask_in_device(function, entry, false);
        }
    }

    /// Changes address or data of an entry (M8).
    fn write_message_of(&mut self, function: usize, entry: u16, write: impl FnOnce(&mut Entry)) {
        let stored = self.entry(function, entry);
        self.change(function, entry, stored, |entry| {
            write(entry);
            entry.set(UPDATED, true);
        });
    }

    /// Writes 4 or 8 bytes of the table (M7, M8); of `value` no more count.
    fn write_table(&mut self, function: usize, entry: u16, field: u32, width: Width, value: u64) {
        let low = value as u32;
        let high = (value >> 32) as u32;
        let whole = width == Width::Qword;
        let control = match field {
            0 if whole => return self.write_message_of(function, entry, |e| e.address = value),
            0 => {
                return self.write_message_of(function, entry, |e| {
                    e.address = e.address >> 32 << 32 | u64::from(low);
                });
            }
            4 => {
                return self.write_message_of(function, entry, |e| {
                    e.address = e.address & 0xffff_ffff | value << 32;
                });
            }
            8 => {
                self.write_message_of(function, entry, |e| e.set_data(low));
                if !whole {
                    return;
                }
                high
            }
            _ => low,
        };
        self.write_vector_control(function, entry, control);
    }

    fn read_adjacent(&mut self, place: FunctionBar, offset: u32, width: Width) -> u64 {
        if width.is_aligned(offset.into()) {
            return self.hardware.read(place, offset, width);
        }
        self.read_bytes(place, offset, width.bytes() as u32)
    }

    fn write_adjacent(&mut self, place: FunctionBar, offset: u32, width: Width, value: u64) {
        if width.is_aligned(offset.into()) {
            self.hardware.write(place, offset, width, value);
            return;
        }
        self.write_bytes(place, offset, width.bytes() as u32, value);
    }

    /// Reads the registers before the PBA byte by byte; the PBA's bytes are ones.
    fn read_up_to_pba(&mut self, place: FunctionBar, offset: u32, width: Width, bytes: u32) -> u64 {
        let ones = width.all_ones() & u64::MAX << (8 * bytes);
        ones | self.read_bytes(place, offset, bytes)
    }

    fn read_bytes(&mut self, place: FunctionBar, offset: u32, bytes: u32) -> u64 {
        (0..bytes).fold(0, |value, byte| {
            value | (self.hardware.read(place, offset + byte, Width::Byte) & 0xff) << (8 * byte)
        })
    }

    fn write_bytes(&mut self, place: FunctionBar, offset: u32, bytes: u32, value: u64) {
        for byte in 0..bytes {
            let value = value >> (8 * byte) & 0xff;
            self.hardware
                .write(place, offset + byte, Width::Byte, value);
        }
    }
}

/// Reads 4 or 8 bytes of the table (M11).
fn read_table(entry: &Entry, field: u32, width: Width) -> u64 {
    let address = entry.address;
    let tail = u64::from(entry.data()) | u64::from(entry.masked()) << 32;
    let value = match field {
        0 => address,
        4 => address >> 32,
        8 => tail,
        _ => tail >> 32,
    };
    value & width.all_ones()
}

impl<H: Hardware, T: Transport, const FUNCTIONS: usize> MsixTable for Msix<'_, H, T, FUNCTIONS> {
    fn read(
        &mut self,
        caller: Caller,
        place: FunctionBar,
        offset: u32,
        width: Width,
    ) -> Result<u64, Error> {
        let function = self.lookup_table(caller, place.function)?;
        let state = &self.functions[function];
        if let Some((entry, field)) = field_of_table(&state.info, place.bar, offset, width) {
            return Ok(read_table(&self.entry(function, entry), field, width));
        }
        match state.area(place.bar, offset, width) {
            Area::Pba => Ok(self.hardware.read(place, offset, width)),
            Area::Adjacent => Ok(self.read_adjacent(place, offset, width)),
            Area::RunsIntoPba { bytes } => Ok(self.read_up_to_pba(place, offset, width, bytes)),
            Area::Dropped => {
                self.counters.dropped += 1;
                Ok(width.all_ones())
            }
            Area::Unclaimed => Err(Error::Refused),
        }
    }

    fn write(
        &mut self,
        caller: Caller,
        place: FunctionBar,
        offset: u32,
        width: Width,
        value: u64,
    ) -> Result<(), Error> {
        let function = self.lookup_table(caller, place.function)?;
        let state = &self.functions[function];
        if let Some((entry, field)) = field_of_table(&state.info, place.bar, offset, width) {
            self.write_table(function, entry, field, width, value);
            return Ok(());
        }
        let value = value & width.all_ones();
        match state.area(place.bar, offset, width) {
            Area::Pba if state.permissive => {
                self.hardware.write(place, offset, width, value);
            }
            Area::Adjacent => self.write_adjacent(place, offset, width, value),
            Area::RunsIntoPba { bytes } => self.write_bytes(place, offset, bytes, value),
            Area::Pba | Area::Dropped => self.counters.dropped += 1,
            Area::Unclaimed => return Err(Error::Refused),
        }
        Ok(())
    }

    fn set_throttled(
        &mut self,
        caller: Caller,
        source: Source,
        throttled: bool,
    ) -> Result<(), Error> {
        let function = self.lookup_table(caller, source.function)?;
        let is_entry = source.kind == SourceKind::Msix
            && u32::from(source.entry) < self.functions[function].info.entries;
        if !is_entry {
            self.counters.not_found += 1;
            return Err(Error::NotFound);
        }
        let before = self.entry(function, source.entry);
        let after = self.change(function, source.entry, before, |entry| {
            entry.set(THROTTLED, throttled)
        });
        self.counters.throttled += u64::from(throttled && !before.is(THROTTLED));
        let open = !after.keep_masked();
        if before.is(BOUND) && open != self.functions[function].open.contains(source.entry) {
            self.mask_in_device(function, source.entry, !open);
        }
        Ok(())
    }
}
