//! Adds to an ELF file without touching what is in it.

use object::elf::{PF_R, PT_LOAD};
use system::Segment;

/// Offsets in the header of an ELF64 file: its program headers, the size of one, and
/// their number.
const PROGRAM_HEADERS: usize = 32;
const HEADER_SIZE: usize = 54;
const HEADER_COUNT: usize = 56;
/// Bytes of a program header.
const SIZE: usize = 56;

/// Returns an ELF64 file with one segment more, read-only: the program headers move behind
/// all that is there, and the segment's bytes follow. `None` if it is not such a file.
pub fn with_segment(file: &[u8], segment: &Segment) -> Option<Vec<u8>> {
    let half = |at: usize| Some(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?));
    let start = file.get(PROGRAM_HEADERS..PROGRAM_HEADERS + 8)?;
    let start = usize::try_from(u64::from_le_bytes(start.try_into().ok()?)).ok()?;
    let count = half(HEADER_COUNT)?.checked_add(1)?;
    if usize::from(half(HEADER_SIZE)?) != SIZE {
        return None;
    }
    let end = start.checked_add(SIZE * usize::from(count - 1))?;
    let headers = file.get(start..end)?.to_vec();
    let mut out = file.to_vec();
    out.resize(out.len().next_multiple_of(8), 0);
    let moved = out.len() as u64;
    let data = moved + (headers.len() + SIZE) as u64;
    out.extend(headers);
    out.extend(PT_LOAD.0.to_le_bytes());
    out.extend(PF_R.0.to_le_bytes());
    for word in [
        data,
        segment.address,
        segment.address,
        segment.bytes.len() as u64,
        segment.size,
        8,
    ] {
        out.extend(word.to_le_bytes());
    }
    out.extend(&segment.bytes);
    out[PROGRAM_HEADERS..PROGRAM_HEADERS + 8].copy_from_slice(&moved.to_le_bytes());
    out[HEADER_COUNT..HEADER_COUNT + 2].copy_from_slice(&count.to_le_bytes());
    Some(out)
}
