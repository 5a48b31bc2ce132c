//! Puts a composed image into init's ELF file.
//!
//! seL4 loads one file, the root task, and gives it the frames of its whole
//! virtual range. So the image becomes one more segment of init, and init
//! learns from a variable of its own where it lies.

use object::elf::{FileHeader64, SHT_SYMTAB};
use object::read::elf::{FileHeader, ProgramHeader, Sym};
use object::{LittleEndian, elf};

use crate::program::{Program, ProgramError, Segment};

/// The variable of init that says where the image is: address and length in
/// bytes, 64 bits each.
const SYMBOL: &str = "VECTIS_IMAGE";
const PAGE: u64 = 4096;
const HEADER_SIZE: u64 = 64;
const PROGRAM_HEADER_SIZE: u64 = 56;

/// Returns `init` with `image` attached: a file of loadable segments only, each
/// at its own page of the file, the image last, at the first page after init's
/// memory.
///
/// # Errors
/// If `init` is not a program, or its `VECTIS_IMAGE` (a `[u64; 2]` that init may
/// write) is missing.
pub fn attach(init: &[u8], image: &[u8]) -> Result<Vec<u8>, ProgramError> {
    let mut program = Program::parse(init)?;
    let end = program
        .segments
        .iter()
        .map(|segment| segment.address + segment.size)
        .max()
        .unwrap_or(0);
    let address = end.next_multiple_of(PAGE);
    let place = [address, image.len() as u64].map(u64::to_le_bytes).concat();
    set(init, &mut program.segments, SYMBOL, &place)?;
    program.segments.push(Segment {
        address,
        size: image.len() as u64,
        bytes: image.to_vec(),
        writable: false,
        executable: false,
    });
    Ok(elf_file(program.entry, &program.segments))
}

/// Returns the program with its variable `symbol` set to `value`, and with one more segment:
/// bytes that a loader puts at `address`, which lies behind the program.
///
/// # Errors
/// If it is not a program, or the variable is missing.
pub fn attach_to(
    file: &[u8],
    symbol: &str,
    value: &[u8],
    address: u64,
    bytes: Vec<u8>,
) -> Result<Vec<u8>, ProgramError> {
    let mut program = Program::parse(file)?;
    set(file, &mut program.segments, symbol, value)?;
    program.segments.push(Segment {
        address,
        size: bytes.len() as u64,
        bytes,
        writable: false,
        executable: false,
    });
    Ok(elf_file(program.entry, &program.segments))
}

/// Returns where the variable `symbol` is in `attached`, the file that [`attach`] made of
/// `program`.
///
/// # Errors
/// If one is not a program, or the variable is missing or zeroed memory, which is in no file.
pub fn offset_of(program: &[u8], attached: &[u8], symbol: &str) -> Result<u64, ProgramError> {
    let variable = address_of(program, symbol)?;
    let broken = |error: object::Error| ProgramError::new(format!("not a usable file: {error}"));
    let header = FileHeader64::<LittleEndian>::parse(attached).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    let segments = header.program_headers(endian, attached).map_err(broken)?;
    let place = segments.iter().find_map(|segment| {
        let offset = variable.checked_sub(segment.p_vaddr(endian))?;
        (offset < segment.p_filesz(endian)).then(|| segment.p_offset(endian) + offset)
    });
    place.ok_or_else(|| {
        ProgramError::new(format!(
            "{symbol} at {variable:#x} is not in the program's file"
        ))
    })
}

/// Sets a variable of a program's in its writable memory.
fn set(
    file: &[u8],
    segments: &mut [Segment],
    symbol: &str,
    value: &[u8],
) -> Result<(), ProgramError> {
    let variable = address_of(file, symbol)?;
    let place = segments
        .iter_mut()
        .filter(|segment| segment.writable)
        .find_map(|segment| place(segment, variable, value.len()))
        .ok_or_else(|| {
            ProgramError::new(format!(
                "{symbol} at {variable:#x} is not in the program's writable memory"
            ))
        })?;
    place.copy_from_slice(value);
    Ok(())
}

/// Returns so many bytes at an address, if they are in this segment. Memory past the
/// file's bytes becomes bytes of the file as far as needed.
fn place(segment: &mut Segment, address: u64, length: usize) -> Option<&mut [u8]> {
    let start = address.checked_sub(segment.address)?;
    let end = start.checked_add(length as u64)?;
    if end > segment.size {
        return None;
    }
    let (start, end) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
    if segment.bytes.len() < end {
        segment.bytes.resize(end, 0);
    }
    segment.bytes.get_mut(start..end)
}

fn address_of(file: &[u8], name: &str) -> Result<u64, ProgramError> {
    let broken = |error: object::Error| ProgramError::new(format!("no usable symbols: {error}"));
    let header = FileHeader64::<LittleEndian>::parse(file).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    let sections = header.sections(endian, file).map_err(broken)?;
    let symbols = sections.symbols(endian, file, SHT_SYMTAB).map_err(broken)?;
    symbols
        .iter()
        .find(|symbol| {
            symbol
                .name(endian, symbols.strings())
                .is_ok_and(|known| known == name.as_bytes())
        })
        .map(|symbol| symbol.st_value(endian))
        .ok_or_else(|| ProgramError::new(format!("no variable {name}")))
}

/// Returns an ELF file for x86-64 of these loadable segments, whose physical addresses are
/// their virtual ones (System V ABI, AMD64 supplement).
#[must_use]
pub fn elf_file(entry: u64, segments: &[Segment]) -> Vec<u8> {
    let count = segments.len() as u16;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    file.resize(16, 0);
    file.extend(elf::ET_EXEC.0.to_le_bytes());
    file.extend(elf::EM_X86_64.0.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    for word in [entry, HEADER_SIZE, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [HEADER_SIZE as u16, PROGRAM_HEADER_SIZE as u16, count] {
        file.extend(half.to_le_bytes());
    }
    file.resize(HEADER_SIZE as usize, 0);
    let mut offset = (HEADER_SIZE + PROGRAM_HEADER_SIZE * u64::from(count)).next_multiple_of(PAGE);
    let mut offsets = Vec::new();
    for segment in segments {
        // File offset and address agree below the page size.
        let start = offset + segment.address % PAGE;
        offsets.push(start as usize);
        file.extend(elf::PT_LOAD.0.to_le_bytes());
        file.extend(segment.flags().to_le_bytes());
        for word in [
            start,
            segment.address,
            segment.address,
            segment.bytes.len() as u64,
            segment.size,
            PAGE,
        ] {
            file.extend(word.to_le_bytes());
        }
        offset = (start + segment.bytes.len() as u64).next_multiple_of(PAGE);
    }
    for (segment, start) in segments.iter().zip(offsets) {
        file.resize(start, 0);
        file.extend_from_slice(&segment.bytes);
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a program of one segment with rights `flags`, a symbol table,
    /// and the symbol `name` at `variable`.
    fn init(flags: u32, name: &str, variable: u64) -> Vec<u8> {
        let program = Program {
            entry: 0x40_0000,
            stack: 0,
            segments: vec![Segment {
                address: 0x40_0000,
                size: 0x1800,
                bytes: vec![7; 32],
                writable: true,
                executable: false,
            }],
        };
        let mut file = elf_file(program.entry, &program.segments);
        file[HEADER_SIZE as usize + 4..][..4].copy_from_slice(&flags.to_le_bytes());
        let strings = file.len() as u64;
        file.push(0);
        file.extend(name.as_bytes());
        file.push(0);
        let symbols = file.len() as u64;
        file.extend([0; 24]);
        file.extend(1u32.to_le_bytes());
        // A global object in section 1.
        file.extend([0x11, 0, 1, 0]);
        file.extend(variable.to_le_bytes());
        file.extend(16u64.to_le_bytes());
        let sections = file.len() as u64;
        // Nothing, the symbols (linked to section 2, one local), the strings.
        let size = symbols - strings;
        for [kind, link, local, start, length, entry] in [
            [0; 6],
            [2, 2, 1, symbols, 48, 24],
            [3, 0, 0, strings, size, 0],
        ] {
            file.extend(0u32.to_le_bytes());
            file.extend((kind as u32).to_le_bytes());
            file.extend([0; 16]);
            file.extend(start.to_le_bytes());
            file.extend(length.to_le_bytes());
            file.extend((link as u32).to_le_bytes());
            file.extend((local as u32).to_le_bytes());
            file.extend(1u64.to_le_bytes());
            file.extend(entry.to_le_bytes());
        }
        file[40..48].copy_from_slice(&sections.to_le_bytes());
        file[58..60].copy_from_slice(&64u16.to_le_bytes());
        file[60..62].copy_from_slice(&3u16.to_le_bytes());
        file[62..64].copy_from_slice(&2u16.to_le_bytes());
        file
    }

    const WRITABLE: u32 = 6;

    #[test]
    fn the_image_is_the_last_segment_and_init_knows_where() {
        let attached = attach(&init(WRITABLE, SYMBOL, 0x40_0008), b"image").unwrap();
        let program = Program::parse(&attached).unwrap();
        assert_eq!(program.entry, 0x40_0000);
        let [own, image] = &program.segments[..] else {
            panic!("{program:?}");
        };
        assert_eq!(image.address, 0x40_2000);
        assert_eq!(image.bytes, b"image");
        assert!(!image.writable && !image.executable);
        assert_eq!(own.size, 0x1800);
        assert_eq!(own.bytes[..8], [7; 8]);
        assert_eq!(own.bytes[8..16], 0x40_2000u64.to_le_bytes());
        assert_eq!(own.bytes[16..24], 5u64.to_le_bytes());
        assert_eq!(own.bytes[24..], [7; 8]);
    }

    #[test]
    fn a_variable_in_zeroed_memory_gets_contents() {
        let attached = attach(&init(WRITABLE, SYMBOL, 0x40_1000), b"image").unwrap();
        let own = &Program::parse(&attached).unwrap().segments[0];
        assert_eq!(own.bytes.len(), 0x1010);
        assert_eq!(own.bytes[0x1000..0x1008], 0x40_2000u64.to_le_bytes());
        assert!(own.bytes[32..0x1000].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_variable_is_found_in_the_file_that_was_made() {
        let program = init(WRITABLE, SYMBOL, 0x40_0008);
        let attached = attach(&program, b"image").unwrap();
        let at = offset_of(&program, &attached, SYMBOL).unwrap() as usize;
        assert_eq!(attached[at..at + 8], 0x40_2000u64.to_le_bytes());
        let error = offset_of(&program, &attached, "OTHER").unwrap_err();
        assert!(error.to_string().contains("no variable OTHER"), "{error}");
        let zeroed = init(WRITABLE, "ZEROED", 0x40_1000);
        let error = offset_of(&zeroed, &attached, "ZEROED").unwrap_err();
        assert!(
            error.to_string().contains("is not in the program's file"),
            "{error}"
        );
    }

    #[test]
    fn file_offsets_agree_with_addresses() {
        let attached = attach(&init(WRITABLE, SYMBOL, 0x40_0000), &[1; 9000]).unwrap();
        let header = FileHeader64::<LittleEndian>::parse(&attached[..]).unwrap();
        let headers = header.program_headers(LittleEndian, &attached[..]).unwrap();
        assert_eq!(headers.len(), 2);
        for header in headers {
            let (offset, address) = (header.p_offset(LittleEndian), header.p_vaddr(LittleEndian));
            assert_eq!(offset % PAGE, address % PAGE);
            assert!(offset + header.p_filesz(LittleEndian) <= attached.len() as u64);
        }
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        let text = |file: &[u8]| attach(file, b"x").unwrap_err().to_string();
        assert!(text(&init(WRITABLE, "OTHER", 0x40_0000)).contains("no variable"));
        assert!(text(&init(WRITABLE, SYMBOL, 0x40_17f1)).contains("not in the program's"));
        assert!(text(&init(4, SYMBOL, 0x40_0000)).contains("not in the program's"));
        assert!(text(b"no file").contains("ELF"));
    }
}
