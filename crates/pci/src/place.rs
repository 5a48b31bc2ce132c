//! Assigns a guest's addresses to BARs that it could not reach where they are.

use core::ops::Range;

use crate::{BarInfo, FUNCTION_BARS, FunctionInfo, MsixInfo, PAGE_SIZE};

/// Guest addresses at which a vmm maps BARs: the hole below 4 GiB, up to the I/O
/// APIC's usual place. A BAR elsewhere decodes nothing.
pub const BAR_WINDOW: Range<u64> = 0xc000_0000..0xfec0_0000;

/// Functions that are placed together.
const MOST: usize = 8 * FUNCTION_BARS;

impl BarInfo {
    /// Returns whether the guest has it where a vmm maps it.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        let end = self.guest.checked_add(self.size);
        self.guest >= BAR_WINDOW.start && end.is_some_and(|end| end <= BAR_WINDOW.end)
    }

    /// Returns whether a guest address is to be found for it.
    fn is_lost(&self) -> bool {
        self.is_memory() && self.address != 0 && !self.is_reachable()
    }
}

/// Finds a guest address inside the window for each memory BAR that the firmware
/// put elsewhere: a guest's addresses are its own. The largest come first, from the
/// top down, aligned to their size and apart from every other BAR. One for which
/// there is no room stays where it is, and decodes nothing.
///
/// A function whose table or PBA lies in such a BAR, or in one without an address,
/// has no MSI-X (M16): it could not be programmed.
pub fn place_bars(functions: &mut [FunctionInfo]) {
    let mut taken: heapless::Vec<Range<u64>, MOST> = heapless::Vec::new();
    let bars = functions.iter().flat_map(|function| &function.bars);
    for bar in bars.filter(|bar| bar.is_memory() && bar.is_reachable()) {
        // A function that does not fit is one too many, and is not assigned.
        let _ = taken.push(bar.guest..bar.guest + bar.size);
    }
    while let Some(bar) = functions
        .iter_mut()
        .flat_map(|function| &mut function.bars)
        .filter(|bar| bar.is_lost() && bar.guest == bar.address)
        .max_by_key(|bar| bar.size)
    {
        match free(&taken, bar.size) {
            Some(range) if taken.push(range.clone()).is_ok() => bar.guest = range.start,
            // It is looked at once.
            _ => bar.guest = u64::MAX,
        }
    }
    for function in functions {
        for bar in &mut function.bars {
            if bar.guest == u64::MAX {
                bar.guest = bar.address;
            }
        }
        let msix = &function.msix;
        let reachable = |bar: u32| {
            let bar = function.bars.get(bar as usize);
            bar.is_some_and(|bar| bar.address != 0 && bar.is_reachable())
        };
        if msix.entries != 0 && !(reachable(msix.table_bar) && reachable(msix.pba_bar)) {
            function.msix = MsixInfo {
                capability: msix.capability,
                ..MsixInfo::default()
            };
        }
    }
}

/// Returns the highest free range of this size.
fn free(taken: &[Range<u64>], size: u64) -> Option<Range<u64>> {
    // A page at least: the rest of it has no owner.
    let step = size.max(PAGE_SIZE);
    let aligned = |end: u64| Some(end.checked_sub(step)? & !(step - 1));
    let mut start = aligned(BAR_WINDOW.end)?;
    while start >= BAR_WINDOW.start {
        let range = start..start + step;
        let hit = taken
            .iter()
            .find(|other| other.start < range.end && range.start < other.end);
        let Some(hit) = hit else {
            return Some(start..start + size);
        };
        start = aligned(hit.start)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BarKind, MsixPage};

    fn function(bars: &[(u64, u64)]) -> FunctionInfo {
        let mut info = FunctionInfo::default();
        for (bar, &(address, size)) in info.bars.iter_mut().zip(bars) {
            *bar = BarInfo {
                kind: BarKind::Memory64,
                address,
                guest: address,
                size,
                ..BarInfo::default()
            };
        }
        info.msix = MsixInfo {
            entries: 5,
            capability: 0xa0,
            page_count: 1,
            ..MsixInfo::default()
        };
        info.msix.pages[0] = MsixPage { bar: 0, page: 0 };
        info
    }

    fn placed(bars: &[(u64, u64)]) -> FunctionInfo {
        let mut functions = [function(bars)];
        place_bars(&mut functions);
        functions[0]
    }

    #[test]
    fn what_is_inside_stays() {
        for at in [0xc000_0000, 0xfe84_0000, 0xfebf_c000] {
            assert_eq!(placed(&[(at, 0x4000)]).bars[0].guest, at);
        }
    }

    #[test]
    fn what_is_outside_gets_an_address_inside() {
        // Places of BARs in public dumps, and one that only begins inside.
        for at in [
            0x5000_0000,
            0x7220_0000,
            0xbe00_0000,
            0xfec0_0000,
            0x84_0000_0000,
            0x206f_fff4_0000,
            0xfebf_c000,
        ] {
            let info = placed(&[(at, 0x8000)]);
            let bar = info.bars[0];
            assert_eq!(bar.address, at, "the host's does not move");
            assert_eq!(bar.guest, 0xfebf_8000, "{at:#x}");
            assert!(bar.is_reachable());
            assert_eq!(info.msix.entries, 5);
        }
    }

    #[test]
    fn a_place_may_touch_another_but_not_share_its_pages() {
        // Below one that is there, and in the gap between two.
        let below = placed(&[(0xfebf_c000, 0x4000), (0x4_0000_0000, 0x4000)]);
        assert_eq!(below.bars[1].guest, 0xfebf_8000);
        let between = placed(&[
            (0xfebf_c000, 0x4000),
            (0xfebf_4000, 0x4000),
            (0x4_0000_0000, 0x4000),
        ]);
        assert_eq!(between.bars[2].guest, 0xfebf_8000);
        // Two of one size, and two that are smaller than a page.
        for (size, first, second) in [
            (0x4000, 0xfebf_c000, 0xfebf_8000),
            (0x100, 0xfebf_f000, 0xfebf_e000),
        ] {
            let two = placed(&[(0x4_0000_0000, size), (0x5_0000_0000, size)]);
            let mut guests = [two.bars[0].guest, two.bars[1].guest];
            guests.sort_unstable();
            assert_eq!(guests, [second, first], "{size:#x}");
        }
    }

    #[test]
    fn nothing_is_laid_over_another_bar() {
        let mut functions = [
            function(&[(0x4_0000_0000, 0x4000), (0xfeb0_0000, 0x10_0000)]),
            function(&[(0x5_0000_0000, 0x1000_0000), (0xfea0_0000, 0x100)]),
        ];
        place_bars(&mut functions);
        let bars = functions.iter().flat_map(|function| &function.bars);
        let ranges = bars.filter(|bar| bar.size != 0);
        let ranges = ranges.map(|bar| bar.guest..bar.guest + bar.size);
        for (index, a) in ranges.clone().enumerate() {
            assert_eq!(a.start % (a.end - a.start), 0);
            for b in ranges.clone().skip(index + 1) {
                assert!(a.end <= b.start || b.end <= a.start, "{a:x?} {b:x?}");
            }
        }
        assert!(functions.iter().all(|f| f.bars[0].is_reachable()));
        assert!(
            functions
                .iter()
                .all(|f| f.bars[1].guest == f.bars[1].address)
        );
    }

    #[test]
    fn m16_a_table_that_cannot_be_reached_is_not_offered() {
        // Larger than the window, and one to which the firmware gave no address.
        for (at, size) in [(0x40_0000_0000, 0x8000_0000), (0, 0x4000)] {
            let info = placed(&[(at, size), (0x4_0000_0000, 0x4000)]);
            assert_eq!(info.bars[0].guest, at);
            assert!(info.bars[1].is_reachable());
            assert_eq!((info.msix.entries, info.msix.page_count), (0, 0));
            assert_eq!(info.msix.capability, 0xa0);
        }
    }
}
