//! The pieces in which a BAR is mapped: each is a page with a capability of its own.

use crate::{FunctionInfo, PAGE_SIZE};

/// Bytes of a large page.
pub const LARGE_PAGE_SIZE: u64 = 1 << 21;

/// A page of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grain {
    /// Where it begins in the BAR.
    pub offset: u64,
    /// It is a large page.
    pub large: bool,
}

impl FunctionInfo {
    /// Returns the pages in which a memory BAR is mapped, in order: large ones where msix
    /// has none of their small pages, and small ones around those. BARs lie at a multiple
    /// of their size, and so do their pages.
    ///
    /// A BAR smaller than a page has none.
    pub fn grains(&self, bar: usize) -> impl Iterator<Item = Grain> + use<'_> {
        let end = self.memory_size(bar) & !(PAGE_SIZE - 1);
        let mut next = 0;
        core::iter::from_fn(move || {
            while next < end {
                let offset = next;
                let large = end >= LARGE_PAGE_SIZE
                    && offset.is_multiple_of(LARGE_PAGE_SIZE)
                    && !self.is_divided(bar, offset / LARGE_PAGE_SIZE);
                next += if large { LARGE_PAGE_SIZE } else { PAGE_SIZE };
                let claimed = self.msix.page_index(bar as u32, offset / PAGE_SIZE);
                if large || claimed.is_none() {
                    return Some(Grain { offset, large });
                }
            }
            None
        })
    }

    /// Returns how many pages [`FunctionInfo::grains`] returns, without a look at each: a
    /// device may say that it has a BAR of any size.
    #[must_use]
    pub fn grain_count(&self, bar: usize) -> u64 {
        let size = self.memory_size(bar);
        let claimed = || {
            let pages = self.msix.pages().iter();
            pages.filter(move |page| page.bar == bar as u32)
        };
        let small = |pages: u64| pages.saturating_sub(claimed().count() as u64);
        if size < LARGE_PAGE_SIZE {
            return small(size / PAGE_SIZE);
        }
        let chunk = |page: u32| u64::from(page) * PAGE_SIZE / LARGE_PAGE_SIZE;
        let divided = claimed()
            .enumerate()
            .filter(|(index, page)| {
                claimed()
                    .take(*index)
                    .all(|other| chunk(other.page) != chunk(page.page))
            })
            .count() as u64;
        (size / LARGE_PAGE_SIZE).saturating_sub(divided)
            + small(divided * (LARGE_PAGE_SIZE / PAGE_SIZE))
    }

    const fn memory_size(&self, bar: usize) -> u64 {
        let bar = &self.bars[bar];
        if bar.is_memory() { bar.size } else { 0 }
    }

    /// Returns how many capabilities a vmm needs for a BAR: one for each page, or one for
    /// all of its ports.
    #[must_use]
    pub fn slot_count(&self, bar: usize) -> u64 {
        self.grain_count(bar) + u64::from(self.bars[bar].has_ports())
    }

    /// Returns whether msix has a small page of this large one of a BAR.
    fn is_divided(&self, bar: usize, large: u64) -> bool {
        self.msix.pages().iter().any(|page| {
            page.bar == bar as u32 && u64::from(page.page) * PAGE_SIZE / LARGE_PAGE_SIZE == large
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BarKind, MsixPage};
    extern crate std;
    use std::vec::Vec;

    const LARGE: u64 = LARGE_PAGE_SIZE;

    /// A function with this BAR 2, of which msix has these pages.
    fn function(size: u64, pages: &[u32]) -> FunctionInfo {
        let mut info = FunctionInfo::default();
        info.bars[2].kind = BarKind::Memory64;
        info.bars[2].size = size;
        // Those of another BAR do not count.
        info.msix.pages[0] = MsixPage { bar: 1, page: 0 };
        for (place, &page) in info.msix.pages[1..].iter_mut().zip(pages) {
            *place = MsixPage { bar: 2, page };
        }
        info.msix.page_count = 1 + pages.len() as u32;
        info
    }

    #[test]
    fn pages_are_as_large_as_can_be_and_cover_what_msix_has_not() {
        for (size, pages, count) in [
            (0x100, &[][..], 0),
            (PAGE_SIZE, &[][..], 1),
            (PAGE_SIZE, &[0], 0),
            (0x2_0000, &[3], 31),
            (LARGE / 2, &[], 256),
            (LARGE, &[], 1),
            (LARGE, &[511], 511),
            (16 * LARGE, &[], 16),
            // Two pages of one large page, and one of the last.
            (16 * LARGE, &[512, 513, 16 * 512 - 1], 14 + 510 + 511),
        ] {
            let info = function(size, pages);
            let grains: Vec<Grain> = info.grains(2).collect();
            assert_eq!(grains.len() as u64, count, "{size:#x} {pages:?}");
            assert_eq!(info.grain_count(2), count, "{size:#x} {pages:?}");
            let mut end = 0;
            for grain in &grains {
                let claimed = (end..grain.offset).step_by(PAGE_SIZE as usize);
                let mut claimed = claimed.map(|at| (at / PAGE_SIZE) as u32);
                assert!(claimed.all(|page| pages.contains(&page)));
                let bytes = if grain.large { LARGE } else { PAGE_SIZE };
                assert!(grain.offset.is_multiple_of(bytes));
                end = grain.offset + bytes;
            }
        }
    }

    #[test]
    fn ports_have_one_capability_and_no_page() {
        let mut ports = function(0x1000, &[]);
        ports.bars[2].kind = BarKind::Io;
        assert_eq!((ports.grains(2).count(), ports.slot_count(2)), (0, 0));
        ports.bars[2].address = 0xc000;
        assert_eq!((ports.grain_count(2), ports.slot_count(2)), (0, 1));
    }

    #[test]
    fn any_size_is_counted_at_once() {
        let most = function(1 << 63, &[7]);
        assert_eq!(most.grain_count(2), (1 << 42) - 1 + 511);
    }
}
