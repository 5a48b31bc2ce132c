//! Finds the machine's IOMMU, and what a board has, in the firmware's ACPI tables.
//!
//! Responsible for: finding the tables IVRS (AMD) and DMAR (Intel) from the root
//! pointer, and for deriving from them where the unit is, or why this system
//! cannot use it; and where configuration space, HPET, console and I/O APIC are.
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

pub use machine::{Description, Window, describe};
pub use root::Pointer;
use spec::MESSAGES;

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

/// The IOMMU that the firmware describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No table tells of an IOMMU.
    None,
    /// The AMD-Vi unit that has every assigned function.
    Amd {
        /// Machine address of its registers.
        registers: u64,
        /// Requester id of the unit itself.
        unit: u16,
        /// Requester id of the first I/O APIC.
        ioapic: u16,
    },
    /// The VT-d unit that has every assigned function.
    Intel {
        /// Machine address of its registers.
        registers: u64,
        /// Requester id of the first I/O APIC.
        ioapic: u16,
        /// Bits of the largest address that DMA can reach.
        address_bits: u8,
    },
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("the firmware tells of no IOMMU"),
            Self::Amd { registers, .. } => write!(f, "AMD-Vi unit at {registers:#x}"),
            Self::Intel { registers, .. } => write!(f, "VT-d unit at {registers:#x}"),
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
    /// There are so many units, and not one that has every assigned function, the I/O
    /// APIC and the HPET; or which one has a function cannot be told.
    Units(usize),
    /// The unit is not on PCI segment 0, or does not have every assigned function.
    Partial,
    /// It cannot remap interrupts, or the table does not tell whose those of
    /// the I/O APIC are.
    NoRemapping,
    /// Firmware reserved memory that this function must be able to reach.
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
            Self::Units(_) => {
                "there are several units, and not one that has all assigned functions, the I/O \
                 APIC and the HPET"
            }
            Self::Partial => "it does not have every assigned function",
            Self::NoRemapping => "it cannot remap interrupts",
            Self::FirmwareMemory(_) => "firmware needs an assigned function to reach its memory",
            Self::Alias(_) => "an assigned function's requests carry another id",
            Self::SharedId(_) => "an assigned function has the id of an I/O APIC",
        }
    }
}

/// Finds the IOMMU for a system whose assigned functions have these requester
/// ids, all on segment 0. `pointer` is the root pointer, if the boot loader gave it; else
/// it is looked for where a PC's firmware has it. `buffer` has to hold the table: 4 KiB are plenty for
/// a machine with one unit. `buses` tells of the
/// bridges.
///
/// Of several units the one is found that has all of them, with the I/O APIC and the HPET,
/// whose interrupts have to come to those who wait for them. The others stay as firmware
/// left them.
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
