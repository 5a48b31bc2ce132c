//! Puts a guest's image into its memory and describes the machine to it by the
//! Linux 64-bit boot protocol (Documentation/arch/x86/boot.rst and zero-page.rst
//! of Linux).

use core::ops::Range;

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::Class;

use crate::host::GuestMemory;

/// Where the boot parameters lie, from the start of guest RAM, in bytes.
pub const BOOT_PARAMS_OFFSET: u64 = 0x1000;
const COMMAND_LINE_OFFSET: u64 = 0x2000;
/// Longest command line, in bytes, without the NUL.
pub const COMMAND_LINE_MAX: usize = 2047;

const E820_COUNT: usize = 0x1e8;
const HEADER_MAGIC: usize = 0x202;
const TYPE_OF_LOADER: usize = 0x210;
const COMMAND_LINE_POINTER: usize = 0x228;
const COMMAND_LINE_SIZE: usize = 0x238;
const E820_TABLE: usize = 0x2d0;
const E820_RAM: u32 = 1;
const LOADER_UNDEFINED: u8 = 0xff;

/// Why an image cannot be a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// Not an ELF file, or a broken one.
    NotElf,
    /// For another machine: not ELF64, little-endian, x86-64.
    OtherMachine,
    /// Not a statically linked executable.
    NotExecutable,
    /// A segment (its address and size in bytes) reaches out of guest RAM, or
    /// into its first 64 KiB, where the boot parameters are.
    DoesNotFit(u64, u64),
    /// The entry point is in no segment.
    BadEntry(u64),
    /// The command line is longer than [`COMMAND_LINE_MAX`].
    CommandLine,
}

/// Bytes at the start of guest RAM that no image may use.
const RESERVED: u64 = 0x1_0000;
const CHUNK: usize = 4096;

/// Loads `image` into `ram` (guest addresses, zeroed by the kernel), with its
/// boot parameters and command line. Returns the entry point and the address of
/// the boot parameters, which goes into rsi.
///
/// # Errors
/// See [`LoadError`].
pub fn load(
    image: &[u8],
    command_line: &[u8],
    ram: Range<u64>,
    host: &mut impl GuestMemory,
) -> Result<(u64, u64), LoadError> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(image).map_err(|_| LoadError::NotElf)?;
    if elf.ehdr.class != Class::ELF64 || elf.ehdr.e_machine != EM_X86_64 {
        return Err(LoadError::OtherMachine);
    }
    if elf.ehdr.e_type != ET_EXEC {
        return Err(LoadError::NotExecutable);
    }
    let entry = elf.ehdr.e_entry;
    let mut entry_found = false;
    let usable = ram.start + RESERVED..ram.end;
    for segment in elf.segments().ok_or(LoadError::NotElf)?.iter() {
        if segment.p_type != PT_LOAD {
            continue;
        }
        let start = segment.p_paddr;
        let bad = LoadError::DoesNotFit(start, segment.p_memsz);
        let end = start.checked_add(segment.p_memsz).ok_or(bad)?;
        if start < usable.start || end > usable.end || segment.p_filesz > segment.p_memsz {
            return Err(bad);
        }
        // An image that is linked elsewhere is entered there.
        let place = segment.p_vaddr.wrapping_sub(start);
        entry_found |= (start..end).contains(&entry);
        entry_found |= (start..end).contains(&entry.wrapping_sub(place));
        let bytes = elf.segment_data(&segment).map_err(|_| LoadError::NotElf)?;
        for (index, chunk) in bytes.chunks(CHUNK).enumerate() {
            if !host.write_ram(start + (index * CHUNK) as u64, chunk) {
                return Err(bad);
            }
        }
        zero(host, start + bytes.len() as u64..end).ok_or(bad)?;
    }
    if !entry_found {
        return Err(LoadError::BadEntry(entry));
    }
    let params = ram.start + BOOT_PARAMS_OFFSET;
    if command_line.len() > COMMAND_LINE_MAX {
        return Err(LoadError::CommandLine);
    }
    let no_room = LoadError::DoesNotFit(ram.start, RESERVED);
    let page = boot_params(ram.clone(), command_line.len());
    if !host.write_ram(params, &page)
        || !host.write_ram(ram.start + COMMAND_LINE_OFFSET, command_line)
        || !host.write_ram(
            ram.start + COMMAND_LINE_OFFSET + command_line.len() as u64,
            &[0],
        )
    {
        return Err(no_room);
    }
    Ok((entry, params))
}

fn zero(host: &mut impl GuestMemory, range: Range<u64>) -> Option<()> {
    const ZEROS: [u8; CHUNK] = [0; CHUNK];
    let mut at = range.start;
    while at < range.end {
        let length = (range.end - at).min(CHUNK as u64);
        if !host.write_ram(at, &ZEROS[..length as usize]) {
            return None;
        }
        at += length;
    }
    Some(())
}

fn boot_params(ram: Range<u64>, command_line: usize) -> [u8; CHUNK] {
    let mut page = [0; CHUNK];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(E820_COUNT, &[1]);
    put(HEADER_MAGIC, b"HdrS");
    put(TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
    let pointer = ram.start + COMMAND_LINE_OFFSET;
    put(COMMAND_LINE_POINTER, &(pointer as u32).to_le_bytes());
    put(COMMAND_LINE_SIZE, &(command_line as u32).to_le_bytes());
    put(E820_TABLE, &ram.start.to_le_bytes());
    put(E820_TABLE + 8, &(ram.end - ram.start).to_le_bytes());
    put(E820_TABLE + 16, &E820_RAM.to_le_bytes());
    page
}

#[cfg(test)]
mod tests;
