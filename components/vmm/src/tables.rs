//! The paging structures that map the guest's BARs: made as they are needed, and moved
//! once there are as many as there can be. A guest may move its BARs through the whole of
//! their windows; at one time they need few.

use core::ops::Range;

use heapless::Vec;
use pci::{
    FUNCTION_BARS, GUEST_BAR_SLOTS, GUEST_BAR_TABLES, GUEST_FUNCTIONS, LARGE_PAGE_SIZE,
    MAX_MSIX_PAGES, PAGE_SIZE,
};

/// BARs of all functions.
const BARS: usize = GUEST_FUNCTIONS * FUNCTION_BARS;
/// Bytes of the address space that a directory covers.
const DIRECTORY_SIZE: u64 = 1 << 30;
/// Page directories there can be; all others are page tables.
const DIRECTORIES: usize = 112;
const PAGE_TABLES: usize = GUEST_BAR_TABLES as usize - DIRECTORIES;

// At one time a page table is needed for each BAR below 2 MiB, and for each large page of
// which msix has a small one; a directory for each BAR below 1 GiB, and for each GiB.
const _: () = assert!(BARS + GUEST_FUNCTIONS * MAX_MSIX_PAGES <= PAGE_TABLES);
const _: () = assert!(
    BARS as u64 + GUEST_BAR_SLOTS as u64 * LARGE_PAGE_SIZE / DIRECTORY_SIZE <= DIRECTORIES as u64
);
const _: () = assert!(DIRECTORY_SIZE > LARGE_PAGE_SIZE && LARGE_PAGE_SIZE > PAGE_SIZE);

/// Kind of a paging structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A page table: small pages.
    PageTable,
    /// A page directory: page tables and large pages.
    Directory,
}

impl Level {
    /// Returns the addresses that the structure around `address` covers.
    const fn around(self, address: u64) -> Range<u64> {
        let size = match self {
            Self::PageTable => LARGE_PAGE_SIZE,
            Self::Directory => DIRECTORY_SIZE,
        };
        let start = address & !(size - 1);
        start..start + size
    }
}

/// A paging structure that is to be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// It is to be made, with this number.
    New(usize),
    /// The one with this number maps nothing that is needed: it is to be unmapped first.
    Again(usize),
}

/// Structures of one kind: the address that each is mapped around, in large pages;
/// [`UNMAPPED`] for one that is not mapped.
#[derive(Debug)]
struct Made<const N: usize>(Vec<u32, N>);

/// No BAR is there: the windows end below.
const UNMAPPED: u32 = u32::MAX;
const _: () = assert!(pci::HIGH_BAR_WINDOW.end / LARGE_PAGE_SIZE < UNMAPPED as u64);

const fn packed(address: u64) -> u32 {
    (address / LARGE_PAGE_SIZE) as u32
}

fn unpacked(packed: u32) -> u64 {
    u64::from(packed) * LARGE_PAGE_SIZE
}

impl<const N: usize> Made<N> {
    fn take(&mut self, address: u64, is_used: impl Fn(u64) -> bool) -> Option<Structure> {
        if self.0.push(packed(address)).is_ok() {
            return Some(Structure::New(self.0.len() - 1));
        }
        let unused = |&at: &u32| at == UNMAPPED || !is_used(unpacked(at));
        let index = self.0.iter().position(unused)?;
        self.0[index] = packed(address);
        Some(Structure::Again(index))
    }
}

/// All of them, and the BARs that they map.
#[derive(Debug)]
pub struct Tables {
    page_tables: Made<PAGE_TABLES>,
    directories: Made<DIRECTORIES>,
    /// First slot of each BAR that is mapped, and where.
    bars: Vec<(u64, Range<u64>), BARS>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            page_tables: Made(Vec::new()),
            directories: Made(Vec::new()),
            bars: Vec::new(),
        }
    }
}

impl Tables {
    /// Notes that the BAR with this first slot is mapped there from now on.
    pub fn map(&mut self, first_slot: u64, range: Range<u64>) {
        self.unmap(first_slot);
        // It has room for every BAR that there can be.
        let _ = self.bars.push((first_slot, range));
    }

    /// Notes that the BAR is no longer mapped.
    pub fn unmap(&mut self, first_slot: u64) {
        self.bars.retain(|(slot, _)| *slot != first_slot);
    }

    /// Returns a structure for the addresses around `address`; `None` if all are needed.
    /// Each has a number of its own, below [`GUEST_BAR_TABLES`].
    pub fn take(&mut self, level: Level, address: u64) -> Option<Structure> {
        let bars = &self.bars;
        let is_used = |at| {
            let covered = level.around(at);
            let overlaps =
                |range: &Range<u64>| range.start < covered.end && covered.start < range.end;
            bars.iter().any(|(_, range)| overlaps(range))
        };
        let Level::Directory = level else {
            return self.page_tables.take(address, is_used);
        };
        let before = self.directories.0.clone();
        let taken = self.directories.take(address, is_used)?;
        Some(match taken {
            Structure::New(index) => Structure::New(PAGE_TABLES + index),
            Structure::Again(index) => {
                // What is mapped by a directory goes with it.
                let covered = level.around(unpacked(before[index]));
                let tables = self.page_tables.0.iter_mut();
                tables
                    .filter(|at| covered.contains(&unpacked(**at)))
                    .for_each(|at| *at = UNMAPPED);
                Structure::Again(PAGE_TABLES + index)
            }
        })
    }

    /// Returns the page table around `address`, which is in the way of a large page and is
    /// to be unmapped; `None` if there is none.
    pub fn in_the_way(&mut self, address: u64) -> Option<usize> {
        let wanted = packed(address);
        let index = self.page_tables.0.iter().position(|at| *at == wanted)?;
        self.page_tables.0[index] = UNMAPPED;
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: u64 = LARGE_PAGE_SIZE;

    #[test]
    fn each_is_made_once_and_then_moved_from_where_no_bar_is() {
        let mut tables = Tables::default();
        // A BAR of 16 KiB that goes through the window.
        let at = |step: u64| pci::HIGH_BAR_WINDOW.start + step * LARGE + 0x4000;
        for step in 0..2 * PAGE_TABLES as u64 {
            tables.map(100, at(step)..at(step) + 0x4000);
            let expected = match step as usize {
                number @ ..PAGE_TABLES => Structure::New(number),
                PAGE_TABLES => Structure::Again(0),
                // The one before is free again.
                _ => continue,
            };
            assert_eq!(tables.take(Level::PageTable, at(step)), Some(expected));
        }
    }

    #[test]
    fn one_that_maps_a_bar_stays() {
        let mut tables = Tables::default();
        let at = |step: u64| 0x1_0000_0000 + step * DIRECTORY_SIZE;
        // Two that are used up to their last byte, and from their first.
        tables.map(1, at(1) - 0x1000..at(1));
        tables.map(2, at(1)..at(1) + 0x1000);
        for step in 0..DIRECTORIES {
            let taken = tables.take(Level::Directory, at(step as u64));
            assert_eq!(taken, Some(Structure::New(PAGE_TABLES + step)));
        }
        let next = |tables: &mut Tables| tables.take(Level::Directory, at(100));
        assert_eq!(next(&mut tables), Some(Structure::Again(PAGE_TABLES + 2)));
        tables.unmap(1);
        assert_eq!(next(&mut tables), Some(Structure::Again(PAGE_TABLES)));
        tables.map(3, at(0)..at(DIRECTORIES as u64));
        tables.map(99, at(100)..at(101));
        assert_eq!(next(&mut tables), None, "all are needed");
    }

    #[test]
    fn a_page_table_goes_with_its_directory_and_out_of_a_large_pages_way() {
        let mut tables = Tables::default();
        let at = |step: u64| 0x1_0000_0000 + step * DIRECTORY_SIZE;
        for step in 0..DIRECTORIES as u64 {
            tables.take(Level::Directory, at(step) + 0x1000);
        }
        tables.take(Level::PageTable, at(0) + LARGE + 0x3000);
        tables.take(Level::PageTable, at(1) + LARGE);
        tables.take(Level::Directory, at(100));
        assert_eq!(tables.in_the_way(at(0) + LARGE), None, "it is gone");
        assert_eq!(tables.in_the_way(at(1)), None, "the one before");
        assert_eq!(tables.in_the_way(at(1) + LARGE), Some(1));
        assert_eq!(tables.in_the_way(at(1) + LARGE), None, "unmapped");
    }
}
