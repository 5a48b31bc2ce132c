//! The root pointer, and the table of tables that it leads to (ACPI 6.5
//! sections 5.2.5 to 5.2.8).

use crate::{PhysicalMemory, Unusable, bytes};

/// Where a PC's firmware has the root pointer (section 5.2.5.1), if not at the beginning of
/// the extended BIOS data area. What boots us from UEFI puts a copy there.
const AREA: core::ops::Range<u64> = 0xe_0000..0x10_0000;
/// Where the segment of that area is, and how many bytes of it are looked at.
const DATA_AREA: u64 = 0x40e;
const DATA_AREA_BYTES: u64 = 1024;
const STEP: usize = 16;
const SIGNATURE: [u8; 8] = *b"RSD PTR ";
/// Bytes of the root pointer of ACPI 1.0, which the first checksum covers.
const OLD: usize = 20;
/// Bytes of it since ACPI 2.0, which the second covers.
const NEW: usize = 36;
/// Bytes of the head that every table has (section 5.2.6).
pub const HEAD: usize = 36;
/// Tables that a machine may have: most have twenty.
const TABLES: usize = 256;
/// The longest table of tables: that many 64-bit addresses.
const LONGEST: usize = HEAD + TABLES * 8;

/// The table of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    address: u64,
    /// Bytes of an address in it: 4 in the RSDT, 8 in the XSDT.
    width: usize,
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Returns whether memory is there and its bytes add up to 0.
fn adds_up(memory: &mut impl PhysicalMemory, address: u64, length: usize) -> bool {
    let mut total = 0u8;
    let mut chunk = [0; 64];
    for offset in (0..length).step_by(chunk.len()) {
        let chunk = &mut chunk[..(length - offset).min(64)];
        let Some(at) = address.checked_add(offset as u64) else {
            return false;
        };
        if !memory.read(at, chunk) {
            return false;
        }
        total = total.wrapping_add(sum(chunk));
    }
    total == 0
}

/// Returns the signature and length of the table at an address.
fn head(memory: &mut impl PhysicalMemory, address: u64) -> Option<([u8; 4], usize)> {
    let mut head = [0; 8];
    if !memory.read(address, &mut head) {
        return None;
    }
    let length = bytes::u32(&head, 4)? as usize;
    Some((bytes::array(&head, 0)?, length))
}

/// A root pointer; the older one is shorter, and what follows it means nothing.
pub type Pointer = [u8; NEW];

/// Finds the first valid root pointer. Invalid ones are skipped, as ACPICA
/// does (`AcpiTbScanMemoryForRsdp`); if all are invalid, the tables are
/// unusable.
pub fn find(memory: &mut impl PhysicalMemory) -> Result<Option<Pointer>, Unusable> {
    let mut broken = false;
    let mut segment = [0; 2];
    let start = if memory.read(DATA_AREA, &mut segment) {
        u64::from(u16::from_le_bytes(segment)) << 4
    } else {
        0
    };
    // None says 0.
    let end = if start == 0 {
        0
    } else {
        start + DATA_AREA_BYTES
    };
    let places = (start..end).step_by(STEP).chain(AREA.step_by(STEP));
    for address in places {
        let mut signature = [0; 8];
        if memory.read(address, &mut signature) && signature == SIGNATURE {
            match at(memory, address) {
                Some(pointer) => return Ok(Some(pointer)),
                None => broken = true,
            }
        }
    }
    if broken {
        return Err(Unusable::Checksum);
    }
    Ok(None)
}

/// Returns the root pointer at an address; `None` if a checksum of it is
/// wrong.
fn at(memory: &mut impl PhysicalMemory, address: u64) -> Option<Pointer> {
    let mut pointer = [0; NEW];
    // The old one may be the last in its memory.
    let there = memory.read(address, &mut pointer)
        || memory.read(address, pointer.first_chunk_mut::<OLD>()?);
    (there && Root::of(&pointer).is_some()).then_some(pointer)
}

impl Root {
    /// Returns the root that a loader's pointer leads to, else the one that is found.
    pub fn given_or_found(
        memory: &mut impl PhysicalMemory,
        pointer: Option<&[u8]>,
    ) -> Result<Option<Self>, Unusable> {
        match pointer {
            Some(pointer) => Self::of(pointer).map(Some).ok_or(Unusable::Checksum),
            None => Ok(find(memory)?.and_then(|pointer| Self::of(&pointer))),
        }
    }

    /// Returns what a root pointer points to; `None` if it is cut short, its signature or
    /// a checksum of it is wrong.
    pub fn of(pointer: &[u8]) -> Option<Self> {
        let old = pointer.first_chunk::<OLD>()?;
        if !pointer.starts_with(&SIGNATURE) || sum(old) != 0 {
            return None;
        }
        let narrow = Self {
            address: bytes::u32(pointer, 16)?.into(),
            width: 4,
        };
        if bytes::u8(pointer, 15)? < 2 {
            return Some(narrow);
        }
        let pointer = pointer.first_chunk::<NEW>()?;
        if sum(pointer) != 0 {
            return None;
        }
        // Firmware that has no XSDT leaves 0 there; ACPICA uses the RSDT then
        // (`AcpiTbParseRootTable`).
        let wide = Self {
            address: bytes::u64(pointer, 24)?,
            width: 8,
        };
        Some(if wide.address == 0 { narrow } else { wide })
    }

    /// Checks the root table (RSDT or XSDT). Returns its length.
    fn length(self, memory: &mut impl PhysicalMemory) -> Option<usize> {
        let (expected, longest) = if self.width == 4 {
            (*b"RSDT", HEAD + TABLES * 4)
        } else {
            (*b"XSDT", LONGEST)
        };
        let (own, length) = head(memory, self.address)?;
        let sound = own == expected
            && (HEAD..=longest).contains(&length)
            && adds_up(memory, self.address, length);
        sound.then_some(length)
    }

    /// Copies the first valid table with this signature into `buffer` and returns
    /// it. Entries that point outside memory are skipped. If every table with the
    /// signature is invalid, that is an error: ACPICA warns about a wrong checksum
    /// and uses the table, but isolation must not rest on a damaged one.
    pub fn table<'a>(
        self,
        memory: &mut impl PhysicalMemory,
        signature: [u8; 4],
        buffer: &'a mut [u8],
    ) -> Result<Option<&'a [u8]>, Unusable> {
        let all = self.length(memory).ok_or(Unusable::Root)?;
        let mut wrong = None;
        for offset in (HEAD..all).step_by(self.width) {
            let mut entry = [0; 8];
            let place = self.address.checked_add(offset as u64);
            if !place.is_some_and(|place| memory.read(place, &mut entry[..self.width])) {
                break;
            }
            let address = u64::from_le_bytes(entry);
            let Some((found, length)) = head(memory, address) else {
                continue;
            };
            if found != signature {
                continue;
            }
            let Some(table) = buffer.get_mut(..length) else {
                return Err(Unusable::TooLarge);
            };
            if length < HEAD || !memory.read(address, table) {
                wrong = Some(Unusable::Malformed);
            } else if sum(table) != 0 {
                wrong = Some(Unusable::Checksum);
            } else {
                return Ok(buffer.get(..length));
            }
        }
        wrong.map_or(Ok(None), Err)
    }
}
