//! What init finds out about an assigned function, in a form that fits a page
//! shared read-only with the components which work on that function.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};

use spec::FunctionId;

use crate::{Bdf, LARGE_PAGE_SIZE};

/// BARs of a type 0 header.
pub const FUNCTION_BARS: usize = 6;
/// Bytes of a page: the grain in which BARs are mapped or claimed.
pub const PAGE_SIZE: u64 = 4096;
/// Pages that table and PBA can need: 2048 entries are 8 pages and 256 bytes
/// of PBA, each of the two may start in the middle of a page. Each BAR may be one that is
/// smaller than a page, besides.
pub const MAX_MSIX_PAGES: usize = 11 + FUNCTION_BARS;

/// Kind of a BAR (PCI Local Bus 3.0 section 6.2.5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable)]
#[repr(u32)]
pub enum BarKind {
    /// Not there, or the upper half of a 64-bit BAR.
    #[default]
    None = 0,
    /// I/O ports.
    Io = 1,
    /// 32-bit memory.
    Memory32 = 2,
    /// 64-bit memory; the next BAR is its upper half.
    Memory64 = 3,
}

/// One base address register as guests are started with it.
#[derive(Clone, Copy, Debug, Default, TryFromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BarInfo {
    /// Its kind.
    pub kind: BarKind,
    /// 1 if the memory is prefetchable.
    pub prefetchable: u32,
    /// Host-physical address, or port; 0 if it has none.
    pub address: u64,
    /// Where the guest finds it at start: `address`, unless that lies outside
    /// the windows in which a vmm maps BARs (see [`place_bars`](crate::place_bars)).
    pub guest: u64,
    /// Size in bytes, a power of two; 0 if there is no BAR.
    pub size: u64,
    /// First slot of the vmm's CSpace that holds this BAR's page capabilities, in the
    /// order of [`FunctionInfo::grains`], or the one to its ports. 0: none given.
    pub first_slot: u64,
}

impl BarInfo {
    /// Returns whether this is a memory BAR, 32 or 64-bit.
    #[must_use]
    pub const fn is_memory(&self) -> bool {
        matches!(self.kind, BarKind::Memory32 | BarKind::Memory64)
    }
}

/// One page of a BAR that msix has: it holds a byte of the MSI-X table or PBA, or a BAR
/// that is smaller than it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct MsixPage {
    /// BAR index, 0 to 5.
    pub bar: u32,
    /// Page number within the BAR.
    pub page: u32,
}

/// Where a function has its MSI-X capability, table and PBA, checked against
/// its BARs (M16): a function that fails the check has `entries` 0. It may have pages then:
/// those of BARs that are smaller than a page.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MsixInfo {
    /// Entries, 1 to 2048; 0 if there is no usable MSI-X.
    pub entries: u32,
    /// Offset of the capability in configuration space; 0 if there is none.
    pub capability: u32,
    /// BAR of the table.
    pub table_bar: u32,
    /// Byte offset of the table in that BAR, a multiple of 8.
    pub table_offset: u32,
    /// BAR of the PBA.
    pub pba_bar: u32,
    /// Byte offset of the PBA in that BAR, a multiple of 8.
    pub pba_offset: u32,
    /// How many of `pages` count.
    pub page_count: u32,
    /// Keeps the layout free of implicit padding.
    pub reserved: u32,
    /// The pages that hold table or PBA, and those of BARs that are smaller than a page, in
    /// the order in which they are mapped into the msix component, one after the other.
    pub pages: [MsixPage; MAX_MSIX_PAGES],
}

impl MsixInfo {
    /// Returns the bytes of the table: 16 an entry.
    #[must_use]
    pub const fn table_size(&self) -> u64 {
        self.entries as u64 * 16
    }

    /// Returns the bytes of the PBA (M15): 8 for each 64 entries begun.
    #[must_use]
    pub const fn pba_size(&self) -> u64 {
        (self.entries as u64).div_ceil(64) * 8
    }

    /// Adds a page; false if there is no room for it.
    pub(crate) fn add_page(&mut self, bar: u32, page: u32) -> bool {
        let place = self.pages.get_mut(self.page_count as usize);
        let there = place.map(|place| *place = MsixPage { bar, page });
        self.page_count += u32::from(there.is_some());
        there.is_some()
    }

    /// Returns the pages in use.
    #[must_use]
    pub fn pages(&self) -> &[MsixPage] {
        let count = (self.page_count as usize).min(MAX_MSIX_PAGES);
        &self.pages[..count]
    }

    /// Returns the position in [`MsixInfo::pages`] of a page, if it is one of
    /// them.
    #[must_use]
    pub fn page_index(&self, bar: u32, page: u64) -> Option<usize> {
        self.pages()
            .iter()
            .position(|p| p.bar == bar && u64::from(p.page) == page)
    }
}

/// An assigned function.
#[derive(Clone, Copy, Debug, Default, TryFromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FunctionInfo {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Class code, 24 bits: base class, subclass, programming interface.
    pub class: u32,
    /// Requester id on the host; see [`FunctionInfo::host`].
    pub host_bdf: u16,
    /// Requester id that the guest sees; see [`FunctionInfo::guest`].
    pub guest_bdf: u16,
    /// 1: gaps of configuration space pass (policy `permissive` of C2).
    pub permissive: u32,
    /// I/O APIC pin that its INTx pin raises; 0 if the guest is not offered it
    /// (C9). The virtual pin has the number of the real one.
    pub intx: u32,
    /// 1: the guest may start again although nothing resets the function (M24).
    pub reset_optional: u16,
    /// Which of the system's functions it is.
    pub index: FunctionId,
    /// Keeps the layout free of implicit padding.
    pub reserved: u8,
    /// The BARs as the firmware left them, or [`give_addresses`](crate::give_addresses).
    pub bars: [BarInfo; FUNCTION_BARS],
    /// MSI-X, if usable.
    pub msix: MsixInfo,
}

impl FunctionInfo {
    /// Returns the address on the host.
    #[must_use]
    pub const fn host(&self) -> Bdf {
        Bdf::from_requester_id(self.host_bdf)
    }

    /// Returns the address that the guest sees.
    #[must_use]
    pub const fn guest(&self) -> Bdf {
        Bdf::from_requester_id(self.guest_bdf)
    }
}

/// Pages of BAR 0 with the registers by which a known model is reset.
pub const MODEL_RESET_PAGES: u64 = 4;
/// Vendor and device of the Intel 82574L.
const INTEL_82574L: (u16, u16) = (0x8086, 0x10d3);

impl FunctionInfo {
    /// Returns whether the function is of a model whose reset is by registers
    /// on the first pages of BAR 0 (M24), and none of them is one of MSI-X or part of
    /// a large one.
    #[must_use]
    pub fn has_model_reset(&self) -> bool {
        let bar = &self.bars[0];
        (self.vendor, self.device) == INTEL_82574L
            && bar.is_memory()
            && (MODEL_RESET_PAGES * PAGE_SIZE..LARGE_PAGE_SIZE).contains(&bar.size)
            && bar.address != 0
            && (0..MODEL_RESET_PAGES).all(|page| self.msix.page_index(0, page).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BarKind;

    #[test]
    fn m24_only_an_82574l_with_its_registers_at_hand_has_a_reset_of_its_own() {
        let mut known = FunctionInfo {
            vendor: 0x8086,
            device: 0x10d3,
            ..FunctionInfo::default()
        };
        known.bars[0] = BarInfo {
            kind: BarKind::Memory32,
            size: 4 * PAGE_SIZE,
            address: 0xfeb8_0000,
            ..BarInfo::default()
        };
        // The page behind these may be one of MSI-X.
        known.msix.entries = 5;
        known.msix.page_count = 1;
        known.msix.pages[0] = MsixPage { bar: 0, page: 4 };
        assert!(known.has_model_reset());
        let changes: [fn(&mut FunctionInfo); 7] = [
            |info| info.vendor = 0x8087,
            |info| info.device = 0x10d4,
            |info| info.bars[0].kind = BarKind::Io,
            |info| info.bars[0].size = 2 * PAGE_SIZE,
            |info| info.bars[0].size = LARGE_PAGE_SIZE,
            |info| info.bars[0].address = 0,
            |info| info.msix.pages[0].page = 3,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut info = known;
            change(&mut info);
            assert!(!info.has_model_reset(), "change {index}");
        }
    }
}
