//! MSI-X of one function: capability, table, masks.
//!
//! PCI Express Base Specification 6.0, sections 7.7.2 (capability) and 6.1.4
//! (operation); message format from Intel SDM vol. 3, 10.11.
#![forbid(unsafe_code)]

use crate::mmio::Registers;
use crate::pci::{ConfigSpace, Function};

/// Capability identifier of MSI-X.
pub const CAPABILITY_ID: u8 = 0x11;

/// Message control, in the upper half of the capability's first dword.
const ENABLE: u32 = 1 << 31;
const FUNCTION_MASK: u32 = 1 << 30;

/// Most table entries that this crate drives; a larger table's other entries
/// stay masked, as reset leaves them.
pub const MAX_ENTRIES: usize = 32;

/// One table entry, as last written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
    /// Mask bit of the vector control word.
    pub masked: bool,
}

impl Entry {
    /// Returns the interrupt vector that the message raises.
    pub fn vector(&self) -> u8 {
        self.data as u8
    }
}

/// Why MSI-X cannot be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsixError {
    /// The function has no MSI-X capability.
    NoCapability,
    /// The table is not inside a memory BAR that is still free to map.
    BadTable,
    /// The entry is not in the table or beyond [`MAX_ENTRIES`].
    NoEntry,
}

/// Where a function keeps its MSI-X structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Configuration offset of the capability.
    pub offset: u8,
    /// Number of table entries, 1 to 2048.
    pub entries: usize,
    /// BAR that holds the table.
    pub table_bar: usize,
    /// Byte offset of the table in that BAR.
    pub table_offset: u32,
    /// BAR that holds the pending bits.
    pub pba_bar: usize,
    /// Byte offset of the pending bits in that BAR.
    pub pba_offset: u32,
}

impl Capability {
    /// Reads the capability of `function`.
    ///
    /// # Errors
    /// [`MsixError::NoCapability`] if there is none, [`MsixError::BadTable`] if
    /// the table does not lie inside one of its BARs.
    pub fn read(function: &Function<impl ConfigSpace>) -> Result<Self, MsixError> {
        let offset = function
            .capability(CAPABILITY_ID)
            .ok_or(MsixError::NoCapability)?;
        // The capability takes 12 bytes; one that runs out of the space is none.
        if offset > 0xf4 {
            return Err(MsixError::NoCapability);
        }
        let control = function.config.read(offset) >> 16;
        let table = function.config.read(offset + 4);
        let pba = function.config.read(offset + 8);
        let capability = Self {
            offset,
            entries: (control & 0x7ff) as usize + 1,
            table_bar: (table & 7) as usize,
            table_offset: table & !7,
            pba_bar: (pba & 7) as usize,
            pba_offset: pba & !7,
        };
        let end = u64::from(capability.table_offset) + capability.entries as u64 * 16;
        match function.bars.get(capability.table_bar) {
            Some(Some(bar)) if end <= bar.size => Ok(capability),
            _ => Err(MsixError::BadTable),
        }
    }
}

/// A function's MSI-X table, with a copy of the written values, so that reading an
/// entry needs no access to the device.
pub struct Msix<R> {
    capability: Capability,
    table: R,
    entries: [Entry; MAX_ENTRIES],
}

impl<R: Registers> Msix<R> {
    /// Takes over the table in `table`, the registers of the capability's table
    /// BAR, with every entry masked and MSI-X off.
    pub fn new(
        capability: Capability,
        table: R,
        function: &mut Function<impl ConfigSpace>,
    ) -> Self {
        let blank = Entry {
            address: 0,
            data: 0,
            masked: true,
        };
        let mut msix = Self {
            capability,
            table,
            entries: [blank; MAX_ENTRIES],
        };
        msix.control(function, 0);
        for index in 0..msix.len() {
            msix.write_control(index, true);
        }
        msix
    }

    /// Number of entries that can be used.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a table has at least one entry"
    )]
    pub fn len(&self) -> usize {
        self.capability.entries.min(MAX_ENTRIES)
    }

    /// Returns the entries as last written.
    pub fn entries(&self) -> &[Entry] {
        &self.entries[..self.len()]
    }

    /// Returns where the structures are.
    pub fn capability(&self) -> &Capability {
        &self.capability
    }

    /// Points entry `index` at `vector` of the CPU with APIC identifier
    /// `destination` (fixed delivery, edge), masked while it changes and
    /// unmasked afterwards.
    ///
    /// # Errors
    /// [`MsixError::NoEntry`] if there is no such entry.
    pub fn route(&mut self, index: usize, vector: u8, destination: u8) -> Result<(), MsixError> {
        self.set_masked(index, true)?;
        let address = spec::MESSAGES.start as u32 | u32::from(destination) << 12;
        let offset = self.offset(index);
        self.table.write(offset, address);
        self.table.write(offset + 4, 0);
        self.table.write(offset + 8, u32::from(vector));
        self.entries[index].address = u64::from(address);
        self.entries[index].data = u32::from(vector);
        self.set_masked(index, false)
    }

    /// Masks or unmasks entry `index`.
    ///
    /// # Errors
    /// [`MsixError::NoEntry`] if there is no such entry.
    pub fn set_masked(&mut self, index: usize, masked: bool) -> Result<(), MsixError> {
        if index >= self.len() {
            return Err(MsixError::NoEntry);
        }
        if self.entries[index].masked != masked {
            self.write_control(index, masked);
        }
        Ok(())
    }

    /// Switches MSI-X on, with no function mask.
    pub fn enable(&mut self, function: &mut Function<impl ConfigSpace>) {
        self.control(function, ENABLE);
    }

    fn write_control(&mut self, index: usize, masked: bool) {
        self.table.write(self.offset(index) + 12, u32::from(masked));
        self.entries[index].masked = masked;
    }

    fn offset(&self, index: usize) -> u32 {
        self.capability.table_offset + index as u32 * 16
    }

    fn control(&self, function: &mut Function<impl ConfigSpace>, bits: u32) {
        let offset = self.capability.offset;
        let header = function.config.read(offset) & !(ENABLE | FUNCTION_MASK);
        function.config.write(offset, header | bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::Bdf;
    use crate::pci::tests::FakeConfig;

    extern crate std;
    use std::vec::Vec;

    #[derive(Default)]
    struct FakeTable(Vec<(u32, u32)>);

    impl Registers for FakeTable {
        fn read(&self, _: u32) -> u32 {
            0
        }
        fn write(&mut self, offset: u32, value: u32) {
            self.0.push((offset, value));
        }
    }

    fn function() -> Function<FakeConfig> {
        Function::new(
            Bdf {
                bus: 0,
                device: 2,
                function: 0,
            },
            FakeConfig::e1000e(),
        )
    }

    #[test]
    fn capability_is_read_and_checked_against_the_bar() {
        let mut function = function();
        let capability = Capability::read(&function).unwrap();
        assert_eq!((capability.offset, capability.entries), (0xa0, 5));
        assert_eq!((capability.table_bar, capability.table_offset), (3, 0));
        assert_eq!((capability.pba_bar, capability.pba_offset), (3, 0x2000));
        for bad in [0x3ff3, 0x0004, 0x0007] {
            function.config.dwords[0xa4 / 4] = bad;
            assert_eq!(
                Capability::read(&function),
                Err(MsixError::BadTable),
                "{bad:#x}"
            );
        }
    }

    #[test]
    fn route_writes_a_masked_entry_then_unmasks_it() {
        let mut function = function();
        let capability = Capability::read(&function).unwrap();
        let mut msix = Msix::new(capability, FakeTable::default(), &mut function);
        assert_eq!(msix.entries().len(), 5);
        assert!(msix.entries().iter().all(|entry| entry.masked));
        msix.table.0.clear();
        msix.route(1, 0x52, 3).unwrap();
        assert_eq!(
            msix.table.0,
            [(0x10, 0xfee0_3000), (0x14, 0), (0x18, 0x52), (0x1c, 0)]
        );
        assert_eq!(msix.entries()[1].vector(), 0x52);
        msix.table.0.clear();
        msix.set_masked(1, false).unwrap();
        assert!(msix.table.0.is_empty(), "no access when nothing changes");
        msix.route(1, 0x53, 0).unwrap();
        assert_eq!(
            msix.table.0.first(),
            Some(&(0x1c, 1)),
            "masked before it changes"
        );
        assert_eq!(msix.route(5, 0x52, 0), Err(MsixError::NoEntry));
    }

    #[test]
    fn enable_clears_the_function_mask() {
        let mut function = function();
        function.config.dwords[0xa0 / 4] |= FUNCTION_MASK;
        let capability = Capability::read(&function).unwrap();
        let mut msix = Msix::new(capability, FakeTable::default(), &mut function);
        msix.enable(&mut function);
        assert_eq!(function.config.dwords[0xa0 / 4], 0x8004_0011);
    }
}
