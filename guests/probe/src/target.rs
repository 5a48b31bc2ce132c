//! The function under test: its registers, its MSI-X structures, and the way back.

use kit::pci::Bdf;

use crate::check::{Stop, Verdict};
use crate::machine::{self, Machine};

/// Command register.
pub const COMMAND: u8 = 0x04;
/// I/O decode.
pub const IO: u16 = 1;
/// Command: memory decode.
pub const MEMORY: u16 = 1 << 1;
/// Command: bus mastering.
pub const BUS_MASTER: u16 = 1 << 2;
/// Command: INTx disable.
pub const INTX_DISABLE: u16 = 1 << 10;
/// First BAR register.
pub const BAR0: u8 = 0x10;
/// Capability pointer.
pub const CAPABILITIES: u8 = 0x34;
/// MSI-X message control: enable.
pub const ENABLE: u16 = 1 << 15;
/// MSI-X message control: function mask.
pub const FUNCTION_MASK: u16 = 1 << 14;
/// MSI message control: enable.
pub const MSI_ENABLE: u16 = 1;
/// BAR bits that are not part of the address: I/O, type, prefetchable.
const BAR_FLAGS: u32 = 0xf;
/// BAR type field: 64-bit memory.
const BAR_WIDE: u32 = 0x4;

/// Field of a table entry.
pub const ADDRESS: u64 = 0;
/// Upper half of the address.
pub const ADDRESS_HIGH: u64 = 4;
/// Message data.
pub const DATA: u64 = 8;
/// Vector control.
pub const CONTROL: u64 = 12;

/// A function's MSI-X structures.
#[derive(Clone, Copy, Debug)]
pub struct Msix {
    /// Offset of the capability.
    pub capability: u8,
    /// Table entries, 1 to 2048.
    pub entries: u32,
    /// BAR of the table and offset there.
    pub table: (u8, u32),
    /// BAR of the PBA and offset there.
    pub pba: (u8, u32),
}

/// A function's MSI capability (PCIe 6.0 section 7.7.1).
#[derive(Clone, Copy, Debug)]
pub struct Msi {
    /// Its offset.
    pub capability: u8,
    /// It has an upper half of the address.
    pub wide: bool,
    /// It has mask and pending bits.
    pub maskable: bool,
}

impl Msi {
    /// Returns the offset of the address.
    pub fn address(&self) -> u8 {
        self.capability + 4
    }

    /// Returns the offset of the data.
    pub fn data(&self) -> u8 {
        self.capability + if self.wide { 12 } else { 8 }
    }

    /// Returns the offset behind its last register.
    pub fn end(&self) -> u8 {
        self.data() + if self.maskable { 12 } else { 4 }
    }
}

/// A function, as it was found and as it is now.
pub struct Target<'m, M> {
    /// The machine it is in.
    pub machine: &'m mut M,
    /// Where it is.
    pub bdf: Bdf,
    /// Its configuration space is emulated by Vectis.
    pub emulated: bool,
    /// Command register as found.
    pub command: u16,
    bars: [u32; 6],
    msix: Option<Msix>,
    msi: Option<Msi>,
    /// Entries below this one may have been written.
    touched: u32,
}

impl<'m, M: Machine> Target<'m, M> {
    /// Looks at the function at `bdf`, which must exist, without changing it.
    pub fn new(machine: &'m mut M, bdf: Bdf, emulated: bool) -> Self {
        let mut target = Self {
            machine,
            bdf,
            emulated,
            command: 0,
            bars: [0; 6],
            msix: None,
            msi: None,
            touched: 0,
        };
        target.command = target.word(COMMAND);
        for index in 0..6u8 {
            target.bars[usize::from(index)] = target.dword(BAR0 + 4 * index);
        }
        target.msix = target.capability(0x11).map(|capability| Msix {
            capability,
            entries: (u32::from(target.word(capability + 2)) & 0x7ff) + 1,
            table: split(target.dword(capability + 4)),
            pba: split(target.dword(capability + 8)),
        });
        // A capability that would end outside of the space does not count.
        let msi = target.capability(0x05).filter(|at| *at <= 0xe8);
        target.msi = msi.map(|capability| {
            let control = target.word(capability + 2);
            Msi {
                capability,
                wide: control >> 7 & 1 != 0,
                maskable: control >> 8 & 1 != 0,
            }
        });
        target
    }

    /// Takes the function back to how it was found; table entries go back to
    /// their state after reset, which is how a guest finds them.
    pub fn restore(&mut self) {
        self.set_command(self.command & !MEMORY);
        for index in 0..6u8 {
            self.set_dword(BAR0 + 4 * index, self.bars[usize::from(index)]);
        }
        if let Some(msi) = self.msi.filter(|_| self.emulated) {
            self.set_word(msi.capability + 2, 0);
            for offset in (msi.address()..msi.end()).step_by(4) {
                self.set_dword(offset, 0);
            }
        }
        if let Some(msix) = self.msix {
            self.set_word(msix.capability + 2, 0);
            self.set_command(self.command | MEMORY);
            // A machine without a way to the table has had nothing written.
            for entry in 0..self.touched {
                for (field, value) in [(CONTROL, 1), (ADDRESS, 0), (ADDRESS_HIGH, 0), (DATA, 0)] {
                    let _ = self.set_entry(entry, field, 4, value);
                }
            }
        }
        self.touched = 0;
        self.set_command(self.command);
    }

    /// Reads `bytes` bytes of configuration space.
    pub fn config(&mut self, offset: u8, bytes: u8) -> u32 {
        machine::config_read(self.machine, self.bdf, offset, bytes)
    }

    /// Writes `bytes` bytes of configuration space.
    pub fn set_config(&mut self, offset: u8, bytes: u8, value: u32) {
        machine::config_write(self.machine, self.bdf, offset, bytes, value);
    }

    /// Reads a dword of configuration space.
    pub fn dword(&mut self, offset: u8) -> u32 {
        self.config(offset, 4)
    }

    /// Writes a dword of configuration space.
    pub fn set_dword(&mut self, offset: u8, value: u32) {
        self.set_config(offset, 4, value);
    }

    /// Reads a word of configuration space.
    pub fn word(&mut self, offset: u8) -> u16 {
        self.config(offset, 2) as u16
    }

    /// Writes a word of configuration space.
    pub fn set_word(&mut self, offset: u8, value: u16) {
        self.set_config(offset, 2, value.into());
    }

    /// Writes the command register.
    pub fn set_command(&mut self, command: u16) {
        self.set_word(COMMAND, command);
    }

    /// Switches memory decode on or off, and keeps the rest as found.
    pub fn decode(&mut self, on: bool) {
        let rest = self.command & !MEMORY;
        self.set_command(if on { rest | MEMORY } else { rest });
    }

    /// Capabilities in list order: offset and identifier. It ends at a pointer
    /// that leads out of the space, and after as many as fit in it.
    pub fn capabilities(&mut self) -> impl Iterator<Item = (u8, u8)> + use<M> {
        let mut found = [(0, 0); 48];
        let mut count = 0;
        let mut next = self.config(CAPABILITIES, 1) as u8 & 0xfc;
        while next >= 0x40 && count < found.len() {
            let header = self.word(next);
            found[count] = (next, header as u8);
            count += 1;
            next = (header >> 8) as u8 & 0xfc;
        }
        found.into_iter().take(count)
    }

    /// Returns the offset of the first capability with identifier `id`.
    pub fn capability(&mut self, id: u8) -> Option<u8> {
        self.capabilities()
            .find(|(_, its)| *its == id)
            .map(|(offset, _)| offset)
    }

    /// Returns the places of the MSI-X structures.
    ///
    /// # Errors
    /// [`Stop::Skip`] if there are none.
    pub fn msix(&self) -> Verdict<Msix> {
        self.msix.ok_or(Stop::Skip("no MSI-X capability"))
    }

    /// Returns the places of the MSI registers.
    ///
    /// # Errors
    /// [`Stop::Skip`] if there are none.
    pub fn msi(&self) -> Verdict<Msi> {
        self.msi.ok_or(Stop::Skip("no MSI capability"))
    }

    /// Returns a BAR register's value as found.
    pub fn found_bar(&self, index: u8) -> u32 {
        self.bars[usize::from(index)]
    }

    /// Returns whether BAR register `index` holds the upper half of the one
    /// before it.
    pub fn is_upper_half(&self, index: u8) -> bool {
        // A register whose predecessor is an upper half itself stands alone.
        let mut upper = false;
        for before in 0..index {
            upper = !upper && is_wide(self.bars[usize::from(before)]);
        }
        upper
    }

    /// Returns BAR register `index` after all ones were written to it, with decode
    /// off.
    pub fn size_mask(&mut self, index: u8) -> u32 {
        let offset = BAR0 + 4 * index;
        let value = self.dword(offset);
        self.set_dword(offset, u32::MAX);
        let mask = self.dword(offset);
        self.set_dword(offset, value);
        mask
    }

    /// Returns the address in memory BAR `index`, as found.
    pub fn bar_address(&self, index: u8) -> u64 {
        let low = self.bars[usize::from(index)];
        let high = if is_wide(low) && index < 5 {
            self.bars[usize::from(index) + 1]
        } else {
            0
        };
        u64::from(low & !BAR_FLAGS) | u64::from(high) << 32
    }

    /// Reads device memory.
    ///
    /// # Errors
    /// [`Stop::Skip`] if the machine has no way there.
    pub fn load(&mut self, address: u64, bytes: u8) -> Verdict<u64> {
        self.machine
            .memory_read(address, bytes)
            .ok_or(Stop::Skip("the BAR is outside the PCI window"))
    }

    /// Writes device memory.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn store(&mut self, address: u64, bytes: u8, value: u64) -> Verdict {
        if self.machine.memory_write(address, bytes, value) {
            Ok(())
        } else {
            Err(Stop::Skip("the BAR is outside the PCI window"))
        }
    }

    /// Returns the address of the table.
    ///
    /// # Errors
    /// [`Stop::Skip`] without MSI-X.
    pub fn table(&self) -> Verdict<u64> {
        let (bar, offset) = self.msix()?.table;
        Ok(self.bar_address(bar) + u64::from(offset))
    }

    /// Returns the address of the PBA.
    ///
    /// # Errors
    /// [`Stop::Skip`] without MSI-X.
    pub fn pba(&self) -> Verdict<u64> {
        let (bar, offset) = self.msix()?.pba;
        Ok(self.bar_address(bar) + u64::from(offset))
    }

    /// Reads `bytes` bytes at byte `field` of a table entry.
    ///
    /// # Errors
    /// [`Stop::Skip`] if there is no table or no way to it.
    pub fn entry(&mut self, entry: u32, field: u64, bytes: u8) -> Verdict<u64> {
        let at = self.table()? + 16 * u64::from(entry) + field;
        self.load(at, bytes)
    }

    /// Writes `bytes` bytes at byte `field` of a table entry.
    ///
    /// # Errors
    /// As [`entry`](Self::entry).
    pub fn set_entry(&mut self, entry: u32, field: u64, bytes: u8, value: u64) -> Verdict {
        self.touched = self.touched.max(entry + 1);
        let at = self.table()? + 16 * u64::from(entry) + field;
        self.store(at, bytes, value)
    }

    /// Returns whether the PBA shows entry `entry` pending.
    ///
    /// # Errors
    /// As [`entry`](Self::entry).
    pub fn is_pending(&mut self, entry: u32) -> Verdict<bool> {
        let at = self.pba()? + u64::from(entry / 32 * 4);
        Ok(self.load(at, 4)? >> (entry % 32) & 1 != 0)
    }

    /// Writes MSI-X message control.
    ///
    /// # Errors
    /// [`Stop::Skip`] without MSI-X.
    pub fn set_control(&mut self, bits: u16) -> Verdict {
        let at = self.msix()?.capability + 2;
        self.set_word(at, bits);
        Ok(())
    }

    /// Reads MSI-X message control.
    ///
    /// # Errors
    /// [`Stop::Skip`] without MSI-X.
    pub fn control(&mut self) -> Verdict<u16> {
        let at = self.msix()?.capability + 2;
        Ok(self.word(at))
    }
}

fn is_wide(bar: u32) -> bool {
    bar & 1 == 0 && bar & 0b110 == BAR_WIDE
}

/// Returns the BAR indicator and offset of a table register.
fn split(register: u32) -> (u8, u32) {
    ((register & 7) as u8, register & !7)
}

/// One check of a function.
pub struct Check<M: Machine> {
    /// The rule, and which part of it.
    pub name: &'static str,
    /// It holds for Vectis' emulation and not for every real function.
    pub emulated_only: bool,
    /// Does it.
    pub run: fn(&mut Target<M>) -> Verdict,
}

impl<M: Machine> Check<M> {
    /// Makes the check.
    ///
    /// # Errors
    /// If it fails, or does not apply.
    pub fn verdict(&self, target: &mut Target<M>) -> Verdict {
        if self.emulated_only && !target.emulated {
            return Err(Stop::Skip("not on Vectis"));
        }
        (self.run)(target)
    }
}
