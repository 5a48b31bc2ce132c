//! The guest's own page table, at the moment that it is loaded.
//!
//! Ring 3 runs by the kernel's tables, in which guest-virtual is guest-physical, but for
//! RAM's second place if it has one. A guest with a table of its own can go on if that
//! says the same; one that says something else would run on with other memory than it
//! thinks.

use core::fmt;

use crate::host::GuestMemory;

/// Why a guest cannot run by its page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTable {
    /// It maps a page, first virtual and then physical address, elsewhere.
    Elsewhere(u64, u64),
    /// The table at this address is not in RAM.
    NotInRam(u64),
    /// It does not map the next instruction, which is here.
    NoCode(u64),
    /// It has more tables than are looked at.
    TooLarge,
}

impl fmt::Display for BadTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("page table ")?;
        match *self {
            Self::Elsewhere(from, to) => {
                write!(
                    f,
                    "maps {from:#x} to {to:#x}: each address must lead to itself"
                )
            }
            Self::NotInRam(table) => write!(f, "at {table:#x} is not in the guest's RAM"),
            Self::NoCode(rip) => write!(f, "does not map the next instruction, {rip:#x}"),
            Self::TooLarge => write!(f, "has more than {TABLES} tables"),
        }
    }
}

/// Tables that are looked at: twice as many as 4 GiB in pages of 4 KiB have.
pub const TABLES: usize = 4096;
/// Levels of tables, and entries of one.
const LEVELS: usize = 4;
const ENTRIES: u64 = 512;
/// Entry: present, and maps a page above the last level (SDM vol. 3 section 4.5.4).
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
/// Bits 51:12.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bytes that an entry of this level maps, 0 being the root.
const fn reach(level: usize) -> u64 {
    1 << (39 - 9 * level)
}

/// Checks that the table at CR3 maps each address that it maps to itself, and the code at
/// `rip` among them. What it does not map stays as it is.
///
/// # Errors
/// See [`BadTable`].
pub fn check(cr3: u64, rip: u64, ram: &mut impl GuestMemory) -> Result<(), BadTable> {
    let mut tables = [cr3 & ADDRESS; LEVELS];
    let mut index = [0; LEVELS];
    let (mut level, mut seen, mut code) = (0, 1, false);
    loop {
        if index[level] == ENTRIES {
            // This table is done: on with the one above.
            if level == 0 {
                break;
            }
            level -= 1;
            index[level] += 1;
            continue;
        }
        let table = tables[level];
        let entry = ram.read_word(table + 8 * index[level]);
        let entry = entry.ok_or(BadTable::NotInRam(table))?;
        let present = entry & PRESENT != 0;
        let is_page = level == LEVELS - 1 || level > 0 && entry & LARGE != 0;
        if present && !is_page {
            seen += 1;
            if seen > TABLES {
                return Err(BadTable::TooLarge);
            }
            level += 1;
            tables[level] = entry & ADDRESS;
            index[level] = 0;
            continue;
        }
        if present {
            let bits = (0..=level).fold(0, |sum, level| sum + index[level] * reach(level));
            // Bits 63:48 are those of bit 47.
            let virtual_address = ((bits << 16).cast_signed() >> 16).cast_unsigned();
            let physical = entry & ADDRESS & !(reach(level) - 1);
            if ram.physical(virtual_address) != physical {
                return Err(BadTable::Elsewhere(virtual_address, physical));
            }
            code |= rip.wrapping_sub(virtual_address) < reach(level);
        }
        index[level] += 1;
    }
    code.then_some(()).ok_or(BadTable::NoCode(rip))
}

#[cfg(test)]
mod tests;
