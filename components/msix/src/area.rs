//! What an access to the claimed pages means.

use pci::{BarInfo, FunctionInfo, MsixInfo, PAGE_SIZE, Width};

/// Bytes of a table entry (PCIe 6.0 section 7.7.2).
pub const ENTRY_SIZE: u32 = 16;

/// Where an access goes that is none to a field of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// The PBA, at a width and alignment that M15 allows.
    Pba,
    /// Registers beside the two (M14).
    Adjacent,
    /// So many bytes of registers, and then the PBA (M14).
    RunsIntoPba {
        /// Bytes before the PBA, 1 to 7.
        bytes: u32,
    },
    /// Nothing: reads all ones, writes are dropped (M12, M14).
    Dropped,
    /// Not on a claimed page: none of our business.
    Unclaimed,
}

/// Returns where a BAR ends that is smaller than a page: what lies behind it on its
/// page is not the function's.
pub fn end_of(bar: &BarInfo) -> u64 {
    match bar.size {
        1..PAGE_SIZE => bar.size,
        _ => u64::MAX,
    }
}

/// Returns whether the byte at `offset` of a BAR is a register of the device on a page
/// that msix has (M14): a guest's access to it traps, and is passed on.
#[must_use]
pub fn is_adjacent(function: &FunctionInfo, bar: u8, offset: u32) -> bool {
    let info = function.bars.get(usize::from(bar));
    info.is_some_and(|bar| u64::from(offset) < end_of(bar))
        && Area::of(&function.msix, bar, offset, Width::Byte) == Area::Adjacent
}

/// Returns whether an access has a width and alignment that table and PBA take (M7, M15).
const fn is_regular(offset: u32, width: Width) -> bool {
    matches!(width, Width::Dword | Width::Qword) && width.is_aligned(offset as u64)
}

/// Returns the entry and the byte in it, 0, 4, 8 or 12, of an access to the table that has
/// a width and alignment that M7 allows. Nearly all accesses do: nothing else is looked at
/// for them, and the table is all on claimed pages.
pub fn field_of_table(info: &MsixInfo, bar: u8, offset: u32, width: Width) -> Option<(u16, u32)> {
    // From the table's start, not the address: a table may start at 8 mod 16 (M18).
    let place = offset.wrapping_sub(info.table_offset);
    let inside = u32::from(bar) == info.table_bar && u64::from(place) < info.table_size();
    let field = ((place / ENTRY_SIZE) as u16, place % ENTRY_SIZE);
    (inside && is_regular(offset, width)).then_some(field)
}

impl Area {
    /// Finds out where an access of `width` bytes at `offset` of `bar` goes, if it is none
    /// of [`field_of_table`].
    pub fn of(info: &MsixInfo, bar: u8, offset: u32, width: Width) -> Self {
        let bar = u32::from(bar);
        let start = u64::from(offset);
        let end = start + width.bytes();
        let claimed = |byte: u64| info.page_index(bar, byte / PAGE_SIZE).is_some();
        if !claimed(start) {
            return Self::Unclaimed;
        }
        let range = |its_bar: u32, at: u32, size: u64| {
            let at = u64::from(at);
            // A function without MSI-X has neither.
            (its_bar == bar && size != 0).then_some(at..at + size)
        };
        let table = range(info.table_bar, info.table_offset, info.table_size());
        let pba = range(info.pba_bar, info.pba_offset, info.pba_size());
        if table.as_ref().is_some_and(|range| range.contains(&start)) {
            return Self::Dropped;
        }
        if pba.as_ref().is_some_and(|range| range.contains(&start)) {
            return match is_regular(offset, width) {
                true => Self::Pba,
                false => Self::Dropped,
            };
        }
        let runs_into = |range: &Option<core::ops::Range<u64>>| {
            let range = range.as_ref()?;
            (start..end).contains(&range.start).then_some(range.start)
        };
        if runs_into(&table).is_some() || !claimed(end - 1) {
            return Self::Dropped;
        }
        match runs_into(&pba) {
            // It ends in the PBA, which has 8 bytes at least.
            Some(at) => Self::RunsIntoPba {
                bytes: (at - start) as u32,
            },
            None => Self::Adjacent,
        }
    }
}
