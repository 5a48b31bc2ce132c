//! Assigns a guest's addresses to BARs that it could not reach where they are.

use core::cmp::Reverse;
use core::ops::{Range, RangeInclusive};

use crate::{
    BarInfo, BarKind, Bdf, FUNCTION_BARS, FunctionInfo, MsixInfo, PAGE_SIZE, each_function, regs,
};

/// Guest addresses at which a vmm maps BARs: the hole below 4 GiB, up to the I/O
/// APIC's usual place.
pub const BAR_WINDOW: Range<u64> = 0xc000_0000..0xfec0_0000;
/// The same for 64-bit BARs: above 4 GiB, as far as the first top-level entry of the
/// guest's paging structures goes, which its RAM has anyway. A BAR that is in neither
/// window decodes nothing.
pub const HIGH_BAR_WINDOW: Range<u64> = 0x1_0000_0000..0x80_0000_0000;

/// I/O ports at which a BAR can be. 0 is no address.
const PORTS: Range<u64> = 1..0x1_0000;

/// Functions of one guest, at most: a vmm has room for so many.
pub const GUEST_FUNCTIONS: usize = 16;
/// Slots of a vmm's CNode for the pages of the BARs of all its guest's functions: in
/// large pages ([`FunctionInfo::grains`]) they are 8 GiB.
pub const GUEST_BAR_SLOTS: u32 = 4096;
/// Paging structures by which a vmm maps them.
pub const GUEST_BAR_TABLES: u32 = 512;

/// Functions that are placed together.
const MOST: usize = GUEST_FUNCTIONS * FUNCTION_BARS;

impl BarInfo {
    /// Returns whether a vmm can give the guest the BAR at this address.
    #[must_use]
    pub fn fits(&self, address: u64) -> bool {
        let inside = |window: Range<u64>| {
            let end = address.checked_add(self.size);
            window.start <= address && end.is_some_and(|end| end <= window.end)
        };
        match self.kind {
            BarKind::None => false,
            BarKind::Io => inside(PORTS),
            BarKind::Memory32 => inside(BAR_WINDOW),
            BarKind::Memory64 => inside(BAR_WINDOW) || inside(HIGH_BAR_WINDOW),
        }
    }

    /// Returns whether it has ports that a guest can use: those that the firmware gave it.
    #[must_use]
    pub fn has_ports(&self) -> bool {
        self.kind == BarKind::Io && self.fits(self.address)
    }

    /// Returns the machine's ports of a BAR that has some.
    #[must_use]
    pub const fn ports(&self) -> RangeInclusive<u16> {
        let first = self.address as u16;
        // The last may be port 0xffff.
        first..=first.wrapping_add((self.size as u16).wrapping_sub(1))
    }

    /// Returns whether the guest has it where a vmm maps it.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.fits(self.guest)
    }

    /// Returns whether a guest address is to be found for it: one that it has above 4 GiB
    /// is beyond what guests map at start.
    fn is_to_be_placed(&self) -> bool {
        let stays = self.fits(self.guest) && self.guest < BAR_WINDOW.end;
        self.is_memory() && self.address != 0 && !stays
    }
}

/// Finds a guest address for each memory BAR of one guest's functions that the firmware
/// put where its vmm cannot map it, or above 4 GiB: a guest's addresses are its own. The
/// BARs that have no other place than below 4 GiB come first, then the largest, from the
/// top down, aligned to their size and apart from every other BAR. A 64-bit one for which
/// there is no room there is placed above 4 GiB. What fits nowhere stays where it is, and
/// decodes nothing.
///
/// A function whose table or PBA lies in such a BAR, or in one without an address,
/// has no MSI-X (M16): it could not be programmed.
pub fn place_bars(functions: &mut [FunctionInfo]) {
    let mut taken: heapless::Vec<Range<u64>, MOST> = heapless::Vec::new();
    let bars = functions.iter().flat_map(|function| &function.bars);
    for bar in bars.filter(|bar| bar.is_memory() && bar.address != 0 && !bar.is_to_be_placed()) {
        // A function that does not fit is one too many, and is not assigned.
        let _ = taken.push(bar.guest..bar.guest + bar.size);
    }
    let mut wanted: heapless::Vec<&mut BarInfo, MOST> = heapless::Vec::new();
    let bars = functions.iter_mut().flat_map(|function| &mut function.bars);
    for bar in bars.filter(|bar| bar.is_to_be_placed()) {
        let _ = wanted.push(bar);
    }
    wanted.sort_unstable_by_key(|bar| Reverse((bar.kind == BarKind::Memory32, bar.size)));
    for bar in wanted {
        let place = free(&taken, BAR_WINDOW, bar.size).or_else(|| {
            let wide = bar.kind == BarKind::Memory64;
            wide.then(|| free(&taken, HIGH_BAR_WINDOW, bar.size))?
        });
        if let Some(range) = place
            && taken.push(range.clone()).is_ok()
        {
            bar.guest = range.start;
        }
    }
    for function in functions {
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

/// Gives msix the page of each memory BAR that is smaller than one and has it alone, or with
/// BARs of the same function only: the guest reaches the BAR through msix, which knows where
/// on the page it ends. `read` reads a dword of any function's configuration space.
///
/// Returns `false`, and the function has no MSI-X, if table or PBA lies on a page with a
/// BAR of another function (M16).
pub fn claim_small_bars(info: &mut FunctionInfo, mut read: impl FnMut(Bdf, u16) -> u32) -> bool {
    let small = info.bars.map(|bar| {
        let there = bar.is_memory() && bar.size < PAGE_SIZE && bar.address != 0;
        (there && bar.is_reachable()).then_some(bar.address & !(PAGE_SIZE - 1))
    });
    if small == [None; FUNCTION_BARS] {
        // Only for a BAR of this kind every function of the machine is looked at.
        return true;
    }
    let mut shared = [false; FUNCTION_BARS];
    let own = info.host();
    each_bar(&mut read, |bdf, address| {
        let page = Some(address & !(PAGE_SIZE - 1));
        for (shared, small) in shared.iter_mut().zip(small) {
            *shared |= small == page && bdf != own;
        }
    });
    let msix = &mut info.msix;
    let is_shared = |bar: u32| shared.get(bar as usize) == Some(&true);
    let offered = msix.entries == 0 || !is_shared(msix.table_bar) && !is_shared(msix.pba_bar);
    if !offered {
        *msix = MsixInfo {
            capability: msix.capability,
            ..MsixInfo::default()
        };
    }
    for bar in 0..FUNCTION_BARS {
        let claimed = msix.page_index(bar as u32, 0).is_some();
        if small[bar].is_some() && !shared[bar] && !claimed {
            msix.add_page(bar as u32, 0);
        }
    }
    offered
}

/// Calls `visit` with the address of every memory BAR of the machine that has one, and its
/// function.
fn each_bar(read: impl FnMut(Bdf, u16) -> u32, mut visit: impl FnMut(Bdf, u64)) {
    let read = core::cell::RefCell::new(read);
    let read = |bdf, offset| (read.borrow_mut())(bdf, offset);
    each_function(256, read, |bdf| {
        let bridge = read(bdf, regs::HEADER_TYPE & !3) >> 16 & 0x7f != 0;
        let registers = if bridge { 2 } else { 6 };
        let mut index = 0;
        while index < registers {
            let at = regs::BAR0 + 4 * index;
            let low = read(bdf, at);
            let wide = low & 7 == 4 && index + 1 < registers;
            let high = if wide { read(bdf, at + 4) } else { 0 };
            let address = u64::from(high) << 32 | u64::from(low & !15);
            if low & 1 == 0 && address != 0 {
                visit(bdf, address);
            }
            index += if wide { 2 } else { 1 };
        }
        false
    });
}

/// Returns the highest free range of this size in a window.
pub fn free(taken: &[Range<u64>], window: Range<u64>, size: u64) -> Option<Range<u64>> {
    // A page at least: the rest of it has no owner.
    let step = size.max(PAGE_SIZE);
    let aligned = |end: u64| Some(end.checked_sub(step)? & !(step - 1));
    let mut start = aligned(window.end)?;
    while start >= window.start {
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
    extern crate std;

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
    fn what_has_no_room_below_4_gib_goes_above() {
        const GIB: u64 = 1 << 30;
        let mut info = function(&[
            (0x2_0000_0000, GIB),
            (0x38_0000_0000, GIB / 2),
            (0x9000_0000, GIB / 4),
            (0x39_0000_0000, GIB / 4),
            (0x40_0000_0000, 16 * GIB),
            (0x100_0000_0000, 1024 * GIB),
        ]);
        info.bars[2].kind = BarKind::Memory32;
        // Where it would be placed, but for the larger one that is above it then.
        info.bars[0].address = HIGH_BAR_WINDOW.end - GIB;
        info.bars[0].guest = info.bars[0].address;
        let mut functions = [info];
        place_bars(&mut functions);
        let guests = functions[0].bars.map(|bar| bar.guest);
        let expected = [
            HIGH_BAR_WINDOW.end - 17 * GIB,
            0xc000_0000,
            // It has no other place, and is chosen first.
            0xe000_0000,
            HIGH_BAR_WINDOW.end - 17 * GIB - GIB / 4,
            HIGH_BAR_WINDOW.end - 16 * GIB,
            0x100_0000_0000,
        ];
        assert_eq!(guests, expected, "{guests:x?}");
        let reachable = functions[0].bars.map(|bar| bar.is_reachable());
        assert_eq!(reachable, [true, true, true, true, true, false]);
    }

    #[test]
    fn c4_ports_are_below_64_ki() {
        let ports = |address| BarInfo {
            kind: BarKind::Io,
            address,
            size: 0x20,
            ..BarInfo::default()
        };
        for (address, usable) in [
            (0, false),
            (0x20, true),
            (0xffe0, true),
            (0x1_0000, false),
            (0xffff_ffe0, false),
        ] {
            assert_eq!(ports(address).has_ports(), usable, "{address:#x}");
        }
    }

    #[test]
    fn one_that_is_in_its_place_above_4_gib_already_ends_there() {
        let top = HIGH_BAR_WINDOW.end - 0x4000_0000;
        assert_eq!(placed(&[(top, 0x4000_0000)]).bars[0].guest, top);
    }

    #[test]
    fn c4_only_a_64_bit_bar_is_mapped_above_4_gib() {
        let mut bar = function(&[(0xc000_0000, 0x4000)]).bars[0];
        let (first, last) = (HIGH_BAR_WINDOW.start, HIGH_BAR_WINDOW.end - 0x4000);
        assert!(bar.fits(first) && bar.fits(last));
        assert!(!bar.fits(first - 0x4000) && !bar.fits(last + 0x4000));
        bar.kind = BarKind::Memory32;
        assert!(!bar.fits(first) && !bar.fits(last));
    }

    #[test]
    fn m16_a_table_that_cannot_be_reached_is_not_offered() {
        // Larger than the windows, and one to which the firmware gave no address.
        for (at, size) in [(0x100_0000_0000, 0x100_0000_0000), (0, 0x4000)] {
            let info = placed(&[(at, size), (0x4_0000_0000, 0x4000)]);
            assert_eq!(info.bars[0].guest, at);
            assert!(info.bars[1].is_reachable());
            assert_eq!((info.msix.entries, info.msix.page_count), (0, 0));
            assert_eq!(info.msix.capability, 0xa0);
        }
    }

    /// A function at 00:03.0 with two BARs of 256 bytes on one page, of which the first has
    /// the PBA, and another beside it. Returns whether it has MSI-X, and msix's pages.
    fn beside(other: [u32; 2]) -> (bool, std::vec::Vec<u32>) {
        let mut info = function(&[
            (0xfeb0_1100, 0x100),
            (0xfeb1_0000, 0x1000),
            (0xfeb0_1800, 0x80),
        ]);
        info.host_bdf = 3 << 3;
        info.msix.table_bar = 1;
        info.msix.pba_bar = 0;
        info.msix.pages[0] = MsixPage { bar: 1, page: 0 };
        info.msix.pages[1] = MsixPage { bar: 0, page: 0 };
        info.msix.page_count = 2;
        let offered = claim_small_bars(&mut info, |bdf, offset| {
            match (bdf.bus(), bdf.device(), offset) {
                (0, 3 | 4, 0) => 0x0010_1b36,
                (0, 3, 0x10) => 0xfeb0_1104,
                (0, 3, 0x18) => 0xfeb1_0000,
                (0, 3, 0x1c) => 0xfeb0_1800,
                (0, 4, 0x10) => other[0],
                (0, 4, 0x14) => other[1],
                (0, 3 | 4, _) => 0,
                _ => u32::MAX,
            }
        });
        assert_eq!(info.msix.entries != 0, offered);
        let pages = info.msix.pages().iter().map(|page| page.bar);
        (offered, pages.collect())
    }

    #[test]
    fn m16_a_small_bar_with_a_table_has_no_page_with_another_function() {
        let refused = (false, std::vec![]);
        assert_eq!(beside([0xfeb0_1000, 0]), refused);
        assert_eq!(beside([0, 0xfeb0_1f00]), refused, "in any register");
        let alone = (true, std::vec![1, 0, 2]);
        assert_eq!(beside([0xfeb0_2000, 0xfeb0_0000]), alone);
        assert_eq!(beside([0xfeb0_1001, 0]), alone, "ports are elsewhere");
        assert_eq!(beside([0xfeb0_1004, 8]), alone, "above 4 GiB");
        // The upper half of one is no address of its own.
        assert_eq!(beside([4, 0xfeb0_1000]), alone);
    }

    #[test]
    fn only_for_a_small_bar_the_machine_is_looked_at() {
        let mut info = function(&[(0xfeb0_1000, 0x1000), (0, 0x100)]);
        let before = info.msix.page_count;
        assert!(claim_small_bars(&mut info, |_, _| panic!("a look")));
        assert_eq!(
            info.msix.page_count, before,
            "nor is one without an address"
        );
    }
}
