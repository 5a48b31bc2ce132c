//! What init finds out about an assigned function, in a form that fits a page
//! shared read-only with the components which work on that function.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};

use spec::FunctionId;

use crate::virtio::COMMON_BYTES;
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

/// Where a modern virtio function has the registers that all kinds of them have (VIRTIO 1.1
/// section 4.1.4.3), checked against its BARs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct CommonRegisters {
    /// 1 if it has them; 0 if it is not such a function.
    pub there: u32,
    /// Their BAR.
    pub bar: u32,
    /// Their first byte in that BAR, a multiple of 4.
    pub offset: u64,
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
    /// The common registers of a virtio function.
    pub common: CommonRegisters,
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

/// Pages with registers by which a function is reset, at most.
pub const RESET_PAGES: u64 = 4;
/// Vendor and device of the Intel 82574L.
const INTEL_82574L: (u16, u16) = (0x8086, 0x10d3);

/// Pages of a BAR with the registers by which a function is reset: beside its vmm's, they are
/// pci-config's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetRegisters {
    /// The BAR.
    pub bar: usize,
    /// The first page's offset there.
    pub first: u64,
    /// How many pages, not more than [`RESET_PAGES`].
    pub pages: u64,
}

impl ResetRegisters {
    /// Returns the bytes of the pages.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.pages * PAGE_SIZE
    }

    /// Returns which of the pages is the one at `offset` in the BAR `bar`.
    #[must_use]
    pub fn page_of(&self, bar: usize, offset: u64) -> Option<u64> {
        let behind = offset.checked_sub(self.first)?;
        (bar == self.bar && behind < self.bytes()).then_some(behind / PAGE_SIZE)
    }
}

impl FunctionInfo {
    /// Returns the registers by which the function is reset (M24): those of a known model, or the
    /// device status of a virtio function. None of them is on a page of MSI-X or part of a
    /// large one.
    #[must_use]
    pub fn reset_registers(&self) -> Option<ResetRegisters> {
        if self.is_82574l() {
            self.reachable(0, 0, RESET_PAGES)
        } else {
            self.status_registers().map(|(registers, _)| registers)
        }
    }

    /// Returns whether the function is of a model that has a reset of its own, and its registers
    /// can be reached.
    #[must_use]
    pub fn has_model_reset(&self) -> bool {
        self.is_82574l() && self.reset_registers().is_some()
    }

    /// Returns where a virtio function's common registers begin on the first page of
    /// [`FunctionInfo::reset_registers`].
    #[must_use]
    pub fn common_offset(&self) -> Option<u64> {
        self.status_registers().map(|(_, offset)| offset)
    }

    fn is_82574l(&self) -> bool {
        (self.vendor, self.device) == INTEL_82574L
    }

    /// Returns the page with a virtio function's common registers, and where on it they begin.
    fn status_registers(&self) -> Option<(ResetRegisters, u64)> {
        let common = self.common;
        let offset = common.offset % PAGE_SIZE;
        if common.there != 1 || offset + COMMON_BYTES > PAGE_SIZE {
            return None;
        }
        let registers = self.reachable(common.bar as usize, common.offset - offset, 1)?;
        Some((registers, offset))
    }

    /// Returns pages of a BAR, if they are ones that can be mapped one by one.
    fn reachable(&self, index: usize, first: u64, pages: u64) -> Option<ResetRegisters> {
        let bar = self.bars.get(index)?;
        let end = first.checked_add(pages * PAGE_SIZE)?;
        let is_free = |page| self.msix.page_index(index as u32, page).is_none();
        (bar.is_memory()
            && (end..LARGE_PAGE_SIZE).contains(&bar.size)
            && bar.address != 0
            && (first / PAGE_SIZE..end / PAGE_SIZE).all(is_free))
        .then_some(ResetRegisters {
            bar: index,
            first,
            pages,
        })
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
            size: RESET_PAGES * PAGE_SIZE,
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

    #[test]
    fn m24_a_virtio_function_is_reset_by_registers_that_can_be_reached() {
        let mut known = FunctionInfo::default();
        known.bars[4] = BarInfo {
            kind: BarKind::Memory64,
            size: 4 * PAGE_SIZE,
            address: 0x1_fe00_0000,
            ..BarInfo::default()
        };
        known.common = CommonRegisters {
            there: 1,
            bar: 4,
            offset: PAGE_SIZE + 0xfc8,
        };
        known.msix.page_count = 1;
        known.msix.pages[0] = MsixPage { bar: 4, page: 2 };
        let registers = ResetRegisters {
            bar: 4,
            first: PAGE_SIZE,
            pages: 1,
        };
        assert_eq!(known.reset_registers(), Some(registers));
        assert_eq!(known.common_offset(), Some(0xfc8));
        assert!(!known.has_model_reset());
        for (bar, offset, page) in [
            (4, PAGE_SIZE, Some(0)),
            (4, 2 * PAGE_SIZE, None),
            (4, 0, None),
            (3, PAGE_SIZE, None),
        ] {
            assert_eq!(registers.page_of(bar, offset), page, "{bar} {offset:#x}");
        }
        let changes: [fn(&mut FunctionInfo); 12] = [
            |info| info.common.there = 0,
            |info| info.common.bar = 5,
            |info| info.common.bar = u32::MAX,
            |info| info.common.offset = u64::MAX,
            |info| info.common.offset = u64::MAX - 0xfff,
            |info| info.common.offset = 4 * PAGE_SIZE,
            // They run onto the next page.
            |info| info.common.offset += 4,
            |info| info.bars[4].kind = BarKind::Io,
            |info| info.bars[4].size = PAGE_SIZE / 2,
            |info| info.bars[4].size = LARGE_PAGE_SIZE,
            |info| info.bars[4].address = 0,
            |info| info.msix.pages[0].page = 1,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut info = known;
            change(&mut info);
            assert_eq!(info.reset_registers(), None, "change {index}");
            assert_eq!(info.common_offset(), None, "change {index}");
        }
    }
}
