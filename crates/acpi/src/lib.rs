//! Finds the machine's IOMMU, and what a board has, in the firmware's ACPI tables.
//!
//! Responsible for: finding the tables IVRS (AMD) and DMAR (Intel) from the root
//! pointer, and for deriving from them where the units are and which has each function,
//! or why this system cannot use them; and where configuration space, HPET, console and I/O APIC are.
//! Must never: use a length, an address or a count from a table unchecked; write
//! anything.
//! May call: nothing but the [`PhysicalMemory`] passed in.
//! Invariants: any bytes yield a result, without a panic and in bounded time.
//!
//! The published ACPI crates parse interrupt, timer and processor tables, but neither IVRS
//! nor DMAR, and trust what firmware says; of the others five fields are needed here.

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

mod bytes;
mod dmar;
mod ivrs;
mod machine;
mod root;

use core::fmt;
use core::ops::RangeInclusive;

use heapless::Vec;
pub use machine::{Description, Window, describe};
pub use root::Pointer;
use spec::{FUNCTIONS, IommuKind, MESSAGES, RESERVED, UNITS};

#[cfg(test)]
mod tests;

/// Memory by machine address.
pub trait PhysicalMemory {
    /// Fills `bytes` from `address` on; `false` if it cannot.
    #[must_use]
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> bool;
}

/// Tells which buses lie behind the bridge with a requester id, its secondary bus first;
/// `None` if it is no bridge, or nobody knows.
pub type Buses<'b> = &'b mut dyn FnMut(u16) -> Option<RangeInclusive<u8>>;

/// Memory that firmware wants a function to reach at the same addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The function's requester id.
    pub requester: u16,
    /// The position of its unit.
    pub unit: u8,
    /// Address of the first page.
    pub start: u64,
    /// Address after the last page.
    pub end: u64,
    /// It is to be read.
    pub read: bool,
    /// It is to be written.
    pub write: bool,
}

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} to {:#x}", self.start, self.end.saturating_sub(1))
    }
}

/// The units of one kind that the firmware describes, of segment 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Machine address of each one's registers.
    pub registers: Vec<u64, UNITS>,
    /// Which of them each assigned function is behind, in the order in which they were
    /// asked about.
    pub of: Vec<u8, FUNCTIONS>,
    /// Requester id of the first I/O APIC.
    pub ioapic: u16,
    /// Memory of the firmware that assigned functions are to reach, and then that others are
    /// to, as far as there is room and it is told which.
    pub reserved: Vec<Reserved, RESERVED>,
}

impl Units {
    /// Returns the position of the unit with these registers.
    fn position(&self, registers: u64) -> Option<u8> {
        let unit = self.registers.iter().position(|own| *own == registers)?;
        // There are few.
        u8::try_from(unit).ok()
    }

    /// Adds memory of the firmware, which is whole pages.
    fn reserve(&mut self, reserved: Reserved) -> Result<(), Unusable> {
        let Reserved {
            requester,
            start,
            end,
            ..
        } = reserved;
        let pages = start.is_multiple_of(PAGE)
            && end.is_multiple_of(PAGE)
            && start < end
            && end <= 1 << ADDRESS_BITS;
        let room = pages && self.reserved.push(reserved).is_ok();
        room.then_some(())
            .ok_or(Unusable::FirmwareMemory(requester))
    }

    /// Adds a unit, if it is not there yet. `count` is how many the table has.
    fn add(&mut self, registers: u64, size: u64, count: usize) -> Result<(), Unusable> {
        check_registers(registers, size)?;
        if !self.registers.contains(&registers) && self.registers.push(registers).is_err() {
            return Err(Unusable::Units(count));
        }
        Ok(())
    }

    /// Records which unit, by its registers, the next assigned function is behind.
    fn give(&mut self, registers: u64) -> Result<(), Unusable> {
        let unit = self.position(registers).ok_or(Unusable::Malformed)?;
        self.of.push(unit).map_err(|_| Unusable::TooLarge)
    }

    /// Tells of the units that have functions that were asked about; of all, if there were
    /// none.
    fn tell(&self, f: &mut fmt::Formatter<'_>, kind: IommuKind) -> fmt::Result {
        let all = self.registers.len();
        let told = |unit: usize| {
            self.of.is_empty() || self.of.iter().any(|owner| usize::from(*owner) == unit)
        };
        let those = || (0..).zip(&self.registers).filter(|(unit, _)| told(*unit));
        let several = those().count() > 1;
        let word = if several { "units" } else { "unit" };
        write!(f, "{} {word} at ", kind.product())?;
        for (place, (_, registers)) in those().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(f, "{comma}{registers:#x}")?;
        }
        if those().count() < all {
            write!(f, ", of {all} units")?;
        }
        Ok(())
    }
}

/// The IOMMU that the firmware describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// No table tells of an IOMMU.
    None,
    /// AMD-Vi units, of which one has each assigned function.
    Amd(Units),
    /// VT-d units, of which one has each assigned function.
    Intel(Units),
}

impl Found {
    /// Returns the memory of the firmware that a function is to reach.
    pub fn reserved(&self, requester: u16) -> impl Iterator<Item = &Reserved> {
        let all: &[Reserved] = match self {
            Self::None => &[],
            Self::Amd(units) | Self::Intel(units) => &units.reserved,
        };
        all.iter().filter(move |piece| piece.requester == requester)
    }

    /// Returns the kind of the units.
    #[must_use]
    pub const fn kind(&self) -> IommuKind {
        match self {
            Self::None => IommuKind::None,
            Self::Amd(_) => IommuKind::Amd,
            Self::Intel(_) => IommuKind::Intel,
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("the firmware tells of no IOMMU"),
            Self::Amd(units) | Self::Intel(units) => units.tell(f, self.kind()),
        }
    }
}

/// Why the machine's IOMMU cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The table is larger than the buffer.
    TooLarge,
    /// A length in the table does not fit, or no unit's registers can be where
    /// it puts them.
    Malformed,
    /// The table, or every root pointer, has a wrong checksum.
    Checksum,
    /// The table of tables cannot be read, or is none.
    Root,
    /// There are so many units: more than there is room for.
    Units(usize),
    /// None of its units is on PCI segment 0.
    Segment,
    /// No unit has this function.
    NoUnit(u16),
    /// Which unit has this function cannot be told: it is behind a bridge that nobody knows.
    Unclear(u16),
    /// It cannot remap interrupts, or the table does not tell whose those of
    /// the I/O APIC are.
    NoRemapping,
    /// Firmware reserved memory for this function that is no whole pages, or too many pieces
    /// of it.
    FirmwareMemory(u16),
    /// This function's requests carry another function's id.
    Alias(u16),
    /// This function has the id of an I/O APIC.
    SharedId(u16),
}

impl Unusable {
    /// Returns the reason in words, for the log.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "its ACPI table is too large",
            Self::Malformed => {
                "its ACPI table is malformed: a length or the address of its registers is wrong"
            }
            Self::Checksum => "its ACPI table, or the pointer to all tables, has a wrong checksum",
            Self::Root => "the firmware's table of ACPI tables is malformed",
            Self::Units(_) => "there are more units than there is room for",
            Self::Segment => "its units are all on other PCI segments than 0",
            Self::NoUnit(_) => "no unit has an assigned function",
            Self::Unclear(_) => {
                "which unit has an assigned function cannot be told: its ACPI table has an \
                 unknown bridge on the way"
            }
            Self::NoRemapping => "it cannot remap interrupts",
            Self::FirmwareMemory(_) => {
                "memory that firmware wants mapped for an assigned function is no whole pages, \
                 or in too many pieces"
            }
            Self::Alias(_) => "an assigned function's requests carry another id",
            Self::SharedId(_) => "an assigned function has the id of an I/O APIC",
        }
    }
}

impl fmt::Display for Unusable {
    /// Tells the reason, and whose or how many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())?;
        match *self {
            Self::Units(count) => write!(f, " ({count}, and room for {UNITS})"),
            Self::NoUnit(id)
            | Self::Unclear(id)
            | Self::FirmwareMemory(id)
            | Self::Alias(id)
            | Self::SharedId(id) => {
                let [of_bus, bus] = id.to_le_bytes();
                write!(f, " ({bus:02x}:{:02x}.{:x})", of_bus >> 3, of_bus & 7)
            }
            Self::TooLarge
            | Self::Malformed
            | Self::Checksum
            | Self::Root
            | Self::Segment
            | Self::NoRemapping => Ok(()),
        }
    }
}

/// Finds the IOMMU for a system whose assigned functions have these requester
/// ids, all on segment 0. `pointer` is the root pointer, if the boot loader gave it; else
/// it is looked for where a PC's firmware has it. `buffer` has to hold the table: 4 KiB are plenty for
/// a machine with some units. `buses` tells of the
/// bridges.
///
/// Of several units all on segment 0 are found, and which of them has each function.
///
/// # Errors
///
/// See [`Unusable`].
pub fn find(
    memory: &mut impl PhysicalMemory,
    pointer: Option<&[u8]>,
    buffer: &mut [u8],
    assigned: &[u16],
    buses: Buses<'_>,
) -> Result<Found, Unusable> {
    let Some(root) = root::Root::given_or_found(memory, pointer)? else {
        return Ok(Found::None);
    };
    if let Some(table) = root.table(memory, *b"IVRS", buffer)? {
        return ivrs::parse(table, assigned);
    }
    match root.table(memory, *b"DMAR", buffer)? {
        Some(table) => dmar::parse(table, assigned, buses),
        None => Ok(Found::None),
    }
}

/// Returns the root pointer where a PC's firmware has it, for [`find`] and [`describe`], each
/// of which would look for it again.
pub fn pointer(memory: &mut impl PhysicalMemory) -> Option<Pointer> {
    root::find(memory).ok().flatten()
}

/// Bytes of a page.
const PAGE: u64 = 0x1000;
/// The first MiB is the PC's own: no unit's registers are there.
const FIRST_MIB: u64 = 0x10_0000;
/// No x86 processor has longer physical addresses (Intel SDM vol. 3 section
/// 4.1.4).
const ADDRESS_BITS: u32 = 52;

/// Checks where a unit's registers are said to be, of which there are `size`
/// bytes, aligned to that: a power of two.
fn check_registers(address: u64, size: u64) -> Result<(), Unusable> {
    // A store among the messages is an interrupt. Whether a device is at any other
    // address, the kernel knows.
    let possible = address.is_multiple_of(size)
        && address >= FIRST_MIB
        && address >> ADDRESS_BITS == 0
        && (address + size <= MESSAGES.start || address >= MESSAGES.end);
    possible.then_some(()).ok_or(Unusable::Malformed)
}

/// Checks that no assigned function has an I/O APIC's id.
fn check_ioapic(id: u16, assigned: &[u16]) -> Result<(), Unusable> {
    match assigned.contains(&id) {
        true => Err(Unusable::SharedId(id)),
        false => Ok(()),
    }
}
