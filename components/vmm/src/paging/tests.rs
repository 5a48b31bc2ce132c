//! Tables of every shape, built in memory.

extern crate std;

use std::string::ToString as _;
use std::vec;
use std::vec::Vec;

use super::*;

/// Where the RAM with the tables begins.
const RAM: u64 = 0x4000_0000;
const RAM_SIZE: u64 = 0x2_0000;
const ROOT: u64 = RAM;
/// An address whose page every table below maps.
const RIP: u64 = RAM + 0x1_2345;
const WRITABLE: u64 = 3;
/// Where RAM is a second time.
const SECOND: u64 = 0xffff_8000_4000_0000;

struct Ram {
    bytes: Vec<u8>,
    next: u64,
    reads: usize,
}

impl GuestMemory for Ram {
    fn read_ram(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        self.reads += 1;
        let start = address.wrapping_sub(RAM) as usize;
        let found = self.bytes.get(start..start.wrapping_add(bytes.len()));
        found.map(|found| bytes.copy_from_slice(found)).is_some()
    }
    fn write_ram(&mut self, _: u64, _: &[u8]) -> bool {
        false
    }
    fn physical(&self, address: u64) -> u64 {
        match address.wrapping_sub(SECOND) {
            offset if offset < RAM_SIZE => RAM + offset,
            _ => address,
        }
    }
}

impl Ram {
    fn new() -> Self {
        Self {
            bytes: vec![0; RAM_SIZE as usize],
            next: ROOT + 0x1000,
            reads: 0,
        }
    }

    fn entry(&mut self, table: u64, index: u64) -> &mut [u8] {
        let at = (table - RAM + 8 * index) as usize;
        &mut self.bytes[at..at + 8]
    }

    fn set(&mut self, table: u64, index: u64, value: u64) {
        self.entry(table, index)
            .copy_from_slice(&value.to_le_bytes());
    }

    /// Maps a page of level 1 (1 GiB) to 3 (4 KiB), with tables as needed.
    fn map(&mut self, address: u64, physical: u64, level: usize) {
        let mut table = ROOT;
        for above in 0..level {
            let index = address / reach(above) % ENTRIES;
            let entry = self.entry(table, index);
            let mut value = u64::from_le_bytes(entry.try_into().unwrap());
            if value == 0 {
                value = self.next | WRITABLE;
                self.next += 0x1000;
                self.set(table, index, value);
            }
            table = value & ADDRESS;
        }
        let large = if level < 3 { LARGE } else { 0 };
        let index = address / reach(level) % ENTRIES;
        self.set(table, index, physical | large | WRITABLE);
    }

    /// Maps 4 GiB to itself, in pages of 1 GiB.
    fn identity() -> Self {
        let mut ram = Self::new();
        for gib in 0..4 {
            ram.map(gib << 30, gib << 30, 1);
        }
        ram
    }

    fn check(&mut self) -> Result<(), BadTable> {
        check(ROOT, RIP, self)
    }
}

#[test]
fn an_identity_map_of_any_pages_is_good() {
    assert_eq!(Ram::identity().check(), Ok(()));
    // CR3 has flags in its lower bits.
    assert_eq!(check(ROOT | 0xfff, RIP, &mut Ram::identity()), Ok(()));
    for level in 1..4 {
        let mut ram = Ram::new();
        let page = RIP & !(reach(level) - 1);
        ram.map(page, page, level);
        assert_eq!(ram.check(), Ok(()), "{level}");
        // Flags: accessed, dirty, global, PAT of a large page, no execution.
        let mut ram = Ram::new();
        let pat = if level < 3 { 1 << 12 } else { 0 };
        ram.map(page, page | 0x160 | pat | 1 << 63, level);
        assert_eq!(ram.check(), Ok(()), "{level}");
    }
}

#[test]
fn what_maps_elsewhere_is_named() {
    for level in 1..4 {
        let size = reach(level);
        for (virtual_address, physical) in [
            (5 << 30, (5 << 30) + size),
            (5 << 30, 0),
            (7 << 39, RAM & !(size - 1)),
            (0xffff_8000_0000_0000, 0),
            (u64::MAX - size + 1, (u64::MAX - size + 1) & ADDRESS),
        ] {
            let mut ram = Ram::identity();
            ram.map(virtual_address, physical, level);
            let bad = BadTable::Elsewhere(virtual_address, physical);
            assert_eq!(ram.check(), Err(bad), "{level}");
        }
    }
    let text = BadTable::Elsewhere(0xffff_8000_0000_0000, 0x1000);
    assert!(
        text.to_string()
            .starts_with("page table maps 0xffff800000000000 to 0x1000:")
    );
}

#[test]
fn what_is_not_present_says_nothing() {
    let mut ram = Ram::identity();
    // The root has no pages: that bit means nothing there.
    let empty = ram.next | LARGE | WRITABLE;
    ram.set(ROOT, 1, empty);
    assert_eq!(ram.check(), Ok(()));
    for index in 1..512 {
        ram.set(ROOT, index, !1);
    }
    assert_eq!(ram.check(), Ok(()));
}

#[test]
fn the_next_instruction_must_be_mapped() {
    let mut ram = Ram::new();
    assert_eq!(ram.check(), Err(BadTable::NoCode(RIP)));
    for page in [RIP - 0x1000, RIP + 0x1000] {
        ram.map(page & !0xfff, page & !0xfff, 3);
    }
    assert_eq!(ram.check(), Err(BadTable::NoCode(RIP)));
    ram.map(RIP & !0xfff, RIP & !0xfff, 3);
    assert_eq!(ram.check(), Ok(()));
}

#[test]
fn tables_outside_of_ram_are_named() {
    for table in [0, RAM - 0x1000, RAM + RAM_SIZE, 0xfee0_0000, ADDRESS] {
        let bad = Err(BadTable::NotInRam(table));
        assert_eq!(check(table, RIP, &mut Ram::identity()), bad);
        for level in 1..4 {
            let mut ram = Ram::identity();
            ram.map(9 << 39, 0, level);
            // The last table that was made holds the page; the entry above leads away.
            let place = (9 << 39) / reach(level - 1) % ENTRIES;
            let holder = if level == 1 { ROOT } else { ram.next - 0x2000 };
            ram.set(holder, place, table | WRITABLE);
            assert_eq!(ram.check(), bad, "{level}");
        }
    }
}

#[test]
fn tables_that_lead_to_themselves_end() {
    // The root as each of the lower tables: its pages then lie elsewhere.
    let mut ram = Ram::identity();
    ram.set(ROOT, 511, ROOT | WRITABLE);
    assert!(matches!(ram.check(), Err(BadTable::Elsewhere(..))));
    // Nothing but a loop.
    for index in [0, 256, 511] {
        let mut ram = Ram::new();
        ram.set(ROOT, index, ROOT | WRITABLE);
        assert!(ram.check().is_err(), "{index}");
    }
}

#[test]
fn a_table_without_an_end_is_cut() {
    // Each entry of the first three levels leads to one table that maps nothing: 512 *
    // 512 * 512 of them.
    let mut ram = Ram::new();
    for level in 0..3 {
        for index in 0..ENTRIES {
            ram.set(
                ROOT + 0x1000 * level,
                index,
                (ROOT + 0x1000 * (level + 1)) | WRITABLE,
            );
        }
    }
    assert_eq!(ram.check(), Err(BadTable::TooLarge));
    assert!(ram.reads <= TABLES * ENTRIES as usize + TABLES);
}

#[test]
fn a_table_may_map_the_second_place_of_ram() {
    let mut ram = Ram::identity();
    ram.map(SECOND + 0x3000, RAM + 0x3000, 3);
    assert_eq!(check(ROOT, RIP, &mut ram), Ok(()));
    ram.map(SECOND + 0x4000, RAM + 0x5000, 3);
    let bad = BadTable::Elsewhere(SECOND + 0x4000, RAM + 0x5000);
    assert_eq!(check(ROOT, RIP, &mut ram), Err(bad));
    // Behind its end it is no other place of anything.
    let mut ram = Ram::identity();
    ram.map(SECOND + RAM_SIZE, RAM + RAM_SIZE, 3);
    let bad = BadTable::Elsewhere(SECOND + RAM_SIZE, RAM + RAM_SIZE);
    assert_eq!(check(ROOT, RIP, &mut ram), Err(bad));
}
