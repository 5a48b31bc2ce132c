//! ACPI's root pointer, where the kernel and init look for it.

use acpi_tables::PhysicalMemory;

/// Bytes of a root pointer of ACPI 2.0 and newer.
pub const POINTER: usize = 36;
const OLD_POINTER: usize = 20;

/// Where the root pointer has to be written, for the kernel to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootPlace {
    /// Machine address of the copy.
    pub address: u64,
    /// The copy.
    pub bytes: [u8; POINTER],
    /// Segment of the extended BIOS data area, which begins with it.
    pub segment: u16,
}

/// Returns what has to be written so that the loader's `pointer` is found by who looks for it
/// as on a PC with BIOS (ACPI 6.5 section 5.2.5.1): nothing if one is there already.
/// `low_page` is a page below 640 KiB that is free.
pub fn root_place(
    memory: &mut impl PhysicalMemory,
    pointer: &[u8],
    low_page: u64,
) -> Option<RootPlace> {
    if acpi_tables::pointer(memory).is_some() {
        return None;
    }
    let mut bytes = [0; POINTER];
    let length = if pointer.len() < POINTER {
        OLD_POINTER
    } else {
        POINTER
    };
    bytes
        .get_mut(..length)?
        .copy_from_slice(pointer.get(..length)?);
    Some(RootPlace {
        address: low_page,
        bytes,
        segment: u16::try_from(low_page >> 4).ok()?,
    })
}

/// Returns whether a root pointer leads to a table of 32-bit addresses, the only one that
/// seL4 reads.
#[must_use]
pub fn has_rsdt(pointer: &[u8]) -> bool {
    pointer.get(16..20).is_some_and(|address| address != [0; 4])
}
