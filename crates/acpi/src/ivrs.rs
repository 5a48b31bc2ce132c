//! IVRS: the AMD units (AMD I/O Virtualization Technology (IOMMU) Specification,
//! 48882 revision 3.x, section 5.2).

use crate::bytes::{self, Records};
use core::ops::RangeInclusive;

use crate::{Found, Reserved, Units, Unusable, check_ioapic};

/// Bytes before the first block (section 5.2.1).
const HEAD: usize = 48;
/// Blocks that describe a unit (section 5.2.2): the oldest kind, and two later
/// ones that repeat it with more. A table may have all three for one unit.
const UNIT: u8 = 0x10;
const UNIT_FEATURES: u8 = 0x11;
const UNIT_NAMES: u8 = 0x40;
/// Blocks about memory (section 5.2.3): of all devices, of one, of a range.
const MEMORY_ALL: u8 = 0x20;
const MEMORY_ONE: u8 = 0x21;
const MEMORY_RANGE: u8 = 0x22;

/// Bytes of a unit's registers, and the alignment of their address (section 3.2,
/// "IOMMU Base Address": bits 13:0 are not part of it).
const REGISTERS: u64 = 0x4000;
/// Bytes of a block about memory.
const MEMORY: usize = 32;
/// Its flags: it is to be mapped one-to-one, to be read, to be written; it is an exclusion
/// range (section 5.2.3).
const UNITY: u8 = 1 << 0;
const READ: u8 = 1 << 1;
const WRITE: u8 = 1 << 2;
const EXCLUSION: u8 = 1 << 3;

/// Device entries (section 5.2.2.1 and following): all functions, one, the first and the
/// last of a range; one and the first with another id that is used, or with more data.
const ALL: u8 = 0x01;
const SELECT: u8 = 0x02;
const RANGE: u8 = 0x03;
const END_OF_RANGE: u8 = 0x04;
const ALIAS: u8 = 0x42;
const ALIAS_RANGE: u8 = 0x43;
const EXTENDED: u8 = 0x46;
const EXTENDED_RANGE: u8 = 0x47;
const SPECIAL: u8 = 0x48;
const NAMED: u8 = 0xf0;
/// The variety of a special device that is an I/O APIC.
const IOAPIC: u8 = 1;

/// Reads a table whose checksum is right.
pub fn parse(table: &[u8], assigned: &[u16]) -> Result<Found, Unusable> {
    let blocks = table.get(HEAD..).ok_or(Unusable::Malformed)?;
    let mut some = false;
    for block in blocks_in(blocks) {
        let block = block.ok_or(Unusable::Malformed)?;
        match block.first() {
            Some(&(UNIT | UNIT_FEATURES | UNIT_NAMES)) => {
                let unit = Unit::read(block).ok_or(Unusable::Malformed)?;
                unit.check(assigned)?;
                some = true;
            }
            Some(&(MEMORY_ALL | MEMORY_ONE | MEMORY_RANGE)) => {
                Memory::read(block).ok_or(Unusable::Malformed)?;
            }
            // Blocks of a later revision say nothing that we need.
            _ => {}
        }
    }
    if !some {
        return Ok(Found::None);
    }
    let own = || units_in(blocks).filter(|unit| unit.segment == 0);
    // A unit has up to three blocks.
    let repeats = |place: usize, unit: &Unit<'_>| {
        own()
            .take(place)
            .any(|before| before.registers == unit.registers)
    };
    let first_blocks = own().enumerate();
    let count = first_blocks
        .filter(|(place, unit)| !repeats(*place, unit))
        .count();
    let mut units = Units::default();
    for unit in own() {
        units.add(unit.registers, REGISTERS, count)?;
    }
    let [first, others @ ..] = &units.registers[..] else {
        return Err(Unusable::Segment);
    };
    // One unit has all, whether it says so or not.
    let alone = others.is_empty().then_some(*first);
    let owner = |id: u16| {
        let own = own().find(|unit| unit.has(id)).map(|unit| unit.registers);
        own.or(alone)
    };
    for &id in assigned {
        units.give(owner(id).ok_or(Unusable::NoUnit(id))?)?;
    }
    // Firmware tells of the I/O APIC where interrupts can be remapped.
    let ioapic = own().find_map(|unit| unit.ioapic());
    units.ioapic = ioapic.ok_or(Unusable::NoRemapping)?;
    for memory in memory_in(blocks) {
        for &id in assigned.iter().filter(|id| memory.functions.contains(id)) {
            units.reserve(memory.of(id, &units, owner(id))?)?;
        }
    }
    // What is left of the room is for functions that nobody has, where one is named. Which
    // are meant by a range, nobody knows.
    for memory in memory_in(blocks).filter(|memory| memory.functions.len() == 1) {
        let id = *memory.functions.start();
        if !assigned.contains(&id)
            && let Ok(reserved) = memory.of(id, &units, owner(id))
        {
            // That which cannot be reached is no reason to use no unit.
            let _ = units.reserve(reserved);
        }
    }
    Ok(Found::Amd(units))
}

/// Memory that firmware wants functions to reach (section 5.2.3).
struct Memory {
    flags: u8,
    functions: RangeInclusive<u16>,
    start: u64,
    length: u64,
}

impl Memory {
    fn read(block: &[u8]) -> Option<Self> {
        if block.len() < MEMORY {
            return None;
        }
        let (first, last) = (bytes::u16(block, 4)?, bytes::u16(block, 6)?);
        Some(Self {
            flags: bytes::u8(block, 1)?,
            functions: match *block.first()? {
                MEMORY_ALL => 0..=u16::MAX,
                MEMORY_ONE => first..=first,
                MEMORY_RANGE => first..=last,
                _ => return None,
            },
            start: bytes::u64(block, 16)?,
            length: bytes::u64(block, 24)?,
        })
    }

    /// Returns whether functions are to reach it, reading and writing. An exclusion range is
    /// memory that passes the unit by, which its tables say as well.
    const fn access(&self) -> (bool, bool) {
        let excluded = self.flags & EXCLUSION != 0;
        let unity = self.flags & UNITY != 0;
        (
            excluded || unity && self.flags & READ != 0,
            excluded || unity && self.flags & WRITE != 0,
        )
    }

    /// Returns it as that of a function, behind the unit with these registers.
    fn of(&self, requester: u16, units: &Units, unit: Option<u64>) -> Result<Reserved, Unusable> {
        let bad = Unusable::FirmwareMemory(requester);
        let (read, write) = self.access();
        Ok(Reserved {
            requester,
            unit: unit.and_then(|unit| units.position(unit)).ok_or(bad)?,
            start: self.start,
            end: self.start.checked_add(self.length).ok_or(bad)?,
            read,
            write,
        })
    }
}

/// Returns the firmware's memory among blocks that were checked.
fn memory_in(blocks: &[u8]) -> impl Iterator<Item = Memory> {
    let all = blocks_in(blocks).flatten().filter_map(Memory::read);
    all.filter(|memory| memory.access() != (false, false))
}

fn blocks_in(blocks: &[u8]) -> Records<'_> {
    Records::new(blocks, 4, |block| bytes::u16(block, 2).map(usize::from))
}

/// Returns the units' blocks among blocks that were checked.
fn units_in(blocks: &[u8]) -> impl Iterator<Item = Unit<'_>> {
    blocks_in(blocks).flatten().filter_map(Unit::read)
}

/// A block that describes a unit.
struct Unit<'a> {
    registers: u64,
    segment: u16,
    entries: &'a [u8],
}

impl<'a> Unit<'a> {
    /// Reads one; `None` for another kind of block, or one that is too short.
    fn read(block: &'a [u8]) -> Option<Self> {
        let entries = match *block.first()? {
            UNIT => 24,
            UNIT_FEATURES | UNIT_NAMES => 40,
            _ => return None,
        };
        Some(Self {
            registers: bytes::u64(block, 8)?,
            segment: bytes::u16(block, 16)?,
            entries: block.get(entries..)?,
        })
    }

    /// Returns whether its entries have this function.
    fn has(&self, function: u16) -> bool {
        let mut first = None;
        for entry in Records::new(self.entries, 4, entry_length).flatten() {
            let (Some(kind), Some(id)) = (bytes::u8(entry, 0), bytes::u16(entry, 1)) else {
                return false;
            };
            let has = match kind {
                ALL => true,
                SELECT | ALIAS | EXTENDED => id == function,
                RANGE | ALIAS_RANGE | EXTENDED_RANGE => {
                    first = Some(id);
                    false
                }
                END_OF_RANGE => first
                    .take()
                    .is_some_and(|first| (first..=id).contains(&function)),
                _ => false,
            };
            if has {
                return true;
            }
        }
        false
    }

    /// Returns the id of its first I/O APIC.
    fn ioapic(&self) -> Option<u16> {
        let mut entries = Records::new(self.entries, 4, entry_length).flatten();
        let ioapic = |entry: &[u8]| {
            [bytes::u8(entry, 0), bytes::u8(entry, 7)] == [Some(SPECIAL), Some(IOAPIC)]
        };
        entries
            .find(|entry| ioapic(entry))
            .and_then(|entry| bytes::u16(entry, 5))
    }

    /// Checks its entries: of another segment for their form alone.
    fn check(&self, assigned: &[u16]) -> Result<(), Unusable> {
        let assigned = if self.segment == 0 { assigned } else { &[] };
        // First id and the id that is used, of an open range of aliases.
        let mut range: Option<(u16, u16)> = None;
        for entry in Records::new(self.entries, 4, entry_length) {
            let entry = entry.ok_or(Unusable::Malformed)?;
            let read = || {
                let (kind, id) = (bytes::u8(entry, 0)?, bytes::u16(entry, 1)?);
                match kind {
                    ALIAS | ALIAS_RANGE | SPECIAL => Some((kind, id, bytes::u16(entry, 5)?)),
                    _ => Some((kind, id, 0)),
                }
            };
            let (kind, id, used) = read().ok_or(Unusable::Malformed)?;
            match kind {
                ALIAS => check_aliases(id, id, used, assigned)?,
                ALIAS_RANGE => range = Some((id, used)),
                END_OF_RANGE => {
                    if let Some((first, used)) = range.take() {
                        check_aliases(first, id, used, assigned)?;
                    }
                }
                SPECIAL if bytes::u8(entry, 7) == Some(IOAPIC) => {
                    check_ioapic(used, assigned)?;
                }
                _ => {}
            }
        }
        // A range without an end has none.
        range.map_or(Ok(()), |(first, used)| {
            check_aliases(first, u16::MAX, used, assigned)
        })
    }
}

/// Returns the bytes of a device entry: the top two bits of its type tell, but
/// for the one with a name in it (section 5.2.2).
fn entry_length(entry: &[u8]) -> Option<usize> {
    let kind = bytes::u8(entry, 0)?;
    if kind == NAMED {
        return Some(22 + usize::from(bytes::u8(entry, 21)?));
    }
    Some(4 << (kind >> 6))
}

/// Checks that no assigned function from `first` to `last` uses another's id.
fn check_aliases(first: u16, last: u16, used: u16, assigned: &[u16]) -> Result<(), Unusable> {
    let mut those = assigned.iter().filter(|id| (first..=last).contains(id));
    match those.find(|id| **id != used) {
        Some(id) => Err(Unusable::Alias(*id)),
        None => Ok(()),
    }
}
