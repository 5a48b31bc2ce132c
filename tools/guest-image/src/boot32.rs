//! Images that are entered in 32-bit mode: what their headers ask for, and what their
//! shim, `guests/boot32`, is told.

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};
use spec::shim::{Boot32, Boot32Module, protocol};
use system::Segment;
use zerocopy::IntoBytes as _;

use crate::kind::{self, Kind};
use crate::{Error, Foreign, Guest, acpi, merge, shim_ram};

/// The package of the shim.
pub const SHIM: &str = "boot32";

/// Flags of a Multiboot header (specification 0.6.96 section 3.1.2): modules on pages,
/// memory sizes, a video mode; and addresses in the header.
const ALIGNED: u32 = 1 << 0;
const MEMORY: u32 = 1 << 1;
const VIDEO: u32 = 1 << 2;
const ADDRESSES: u32 = 1 << 16;
/// The flags without which a loader must not go on.
const REQUIRED: u32 = 0xffff;

const PAGE: u64 = 4096;

/// Puts the image, its modules, ACPI tables and the shim into one file.
///
/// # Errors
/// If the image asks for something that is not there, or does not fit.
pub fn prepare(file: &[u8], kind: &Kind, guest: &Guest<'_>, shim: &[u8]) -> Result<Vec<u8>, Error> {
    let pvh = *kind == Kind::Pvh;
    let mut image = if pvh {
        pvh_image(file)?
    } else {
        multiboot(file)?
    };
    let entry = image.entry;
    if !image.contains(entry) {
        return Err(Error::new(
            format!("its 32-bit entry point {entry:#x} is in no segment"),
            "check the linker script and the header or note with the entry",
        ));
    }
    let end = image.range().end;
    let limit = shim_ram(&guest.ram)?.start;
    let modules = place(&guest.modules, limit, end)?;
    let payload = payload(pvh, guest, &modules);
    image
        .segments
        .extend(modules.into_iter().map(|(_, module)| module));
    if guest.pc {
        acpi::add(&mut image.segments)?;
    }
    // Multiboot loaders put the file's name before it, and kernels take that off.
    let line = if pvh {
        guest.command_line.to_owned()
    } else {
        format!("{} {}", guest.name, guest.command_line)
    };
    merge(&image, shim, &guest.ram, line.as_bytes(), &payload, None)
}

/// Returns the image of a file with a Multiboot header.
fn multiboot(file: &[u8]) -> Result<Foreign, Error> {
    let wrong = |cause: String| {
        Error::new(
            cause,
            "build it with a Multiboot 1 header that asks for what is there: pages and memory \
             sizes",
        )
    };
    let Some(at) = kind::multiboot_header(file) else {
        return Err(wrong("it has no Multiboot 1 header".into()));
    };
    let word = |index: usize| {
        let bytes = file.get(at + 4 * index..at + 4 * index + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let flags = word(1).unwrap_or(0);
    if flags & VIDEO != 0 {
        return Err(wrong("its Multiboot header asks for a video mode".into()));
    }
    let unknown = flags & REQUIRED & !(ALIGNED | MEMORY);
    if unknown != 0 {
        return Err(wrong(format!(
            "its Multiboot header asks for what no loader knows, flags {unknown:#x}"
        )));
    }
    if flags & ADDRESSES == 0 {
        let mut image = Foreign::from_elf(file).map_err(|_| {
            wrong("its Multiboot header has no addresses, and it is not a whole ELF file".into())
        })?;
        image.entry = physical(file, image.entry).unwrap_or(image.entry);
        return Ok(image);
    }
    addressed(file, at, [3, 4, 5, 6, 7].map(word))
        .ok_or_else(|| wrong("the addresses in its Multiboot header contradict each other".into()))
}

/// Returns the image of a file whose header, at offset `at`, has addresses: its own, of
/// the first byte loaded, behind the last one, behind what is zeroed, and of the entry.
fn addressed(file: &[u8], at: usize, fields: [Option<u32>; 5]) -> Option<Foreign> {
    let [
        Some(header),
        Some(start),
        Some(load_end),
        Some(zero_end),
        Some(entry),
    ] = fields
    else {
        return None;
    };
    let first = (at as u64).checked_sub(header.checked_sub(start)?.into())?;
    let rest = file.get(usize::try_from(first).ok()?..)?;
    let bytes = match load_end {
        // All of the file.
        0 => rest,
        end => rest.get(..end.checked_sub(start)? as usize)?,
    };
    let loaded = bytes.len() as u64;
    let size = match zero_end {
        0 => loaded,
        end => u64::from(end.checked_sub(start)?).max(loaded),
    };
    let segment = Segment {
        address: start.into(),
        size,
        bytes: bytes.to_vec(),
        // It does not say.
        writable: true,
        executable: true,
    };
    (size > 0).then(|| Foreign {
        entry: entry.into(),
        segments: vec![segment],
    })
}

/// Returns the physical address of an ELF file's virtual one.
fn physical(file: &[u8], address: u64) -> Option<u64> {
    fn of<H: FileHeader<Endian = Endianness>>(file: &[u8], address: u64) -> Option<u64> {
        let header = H::parse(file).ok()?;
        let endian = header.endian().ok()?;
        let segments = header.program_headers(endian, file).ok()?;
        segments.iter().find_map(|segment| {
            let start: u64 = segment.p_vaddr(endian).into();
            let size: u64 = segment.p_memsz(endian).into();
            let inside = segment.p_type(endian) == elf::PT_LOAD
                && (start..start.checked_add(size)?).contains(&address);
            inside.then(|| segment.p_paddr(endian).into() + (address - start))
        })
    }
    of::<elf::FileHeader64<Endianness>>(file, address)
        .or_else(|| of::<elf::FileHeader32<Endianness>>(file, address))
}

/// Returns the image of an ELF file with a PVH note.
fn pvh_image(file: &[u8]) -> Result<Foreign, Error> {
    let Some(entry) = kind::pvh_entry(file) else {
        return Err(Error::new(
            "it has no PVH note",
            "build it with a note XEN_ELFNOTE_PHYS32_ENTRY, or leave `boot` out",
        ));
    };
    let mut image = Foreign::from_elf(file)?;
    image.entry = entry;
    Ok(image)
}

/// Returns each module with the segment that it becomes, below `limit` and above `end`.
fn place(
    modules: &[(String, Vec<u8>)],
    limit: u64,
    end: u64,
) -> Result<Vec<(&str, Segment)>, Error> {
    let mut next = limit;
    let mut placed = Vec::new();
    for (name, bytes) in modules {
        let size = bytes.len() as u64;
        let start = next.checked_sub(size).map(|start| start / PAGE * PAGE);
        let start = start.filter(|&start| start >= end).ok_or_else(|| {
            Error::new(
                format!("its module {name} of {size} bytes does not fit between it and its shim"),
                "give the guest more `memory`",
            )
        })?;
        next = start;
        placed.push((
            name.as_str(),
            Segment {
                address: start,
                size,
                bytes: bytes.clone(),
                writable: true,
                executable: false,
            },
        ));
    }
    Ok(placed)
}

fn payload(pvh: bool, guest: &Guest<'_>, modules: &[(&str, Segment)]) -> Vec<u8> {
    let head = Boot32 {
        protocol: if pvh {
            protocol::PVH
        } else {
            protocol::MULTIBOOT
        },
        modules: modules.len() as u32,
        rsdp: if guest.pc { spec::acpi::RSDP } else { 0 },
        ram_end: guest.ram.end,
        rewritten: guest.rewritten.into(),
    };
    let mut payload = head.as_bytes().to_vec();
    for (name, module) in modules {
        let record = Boot32Module {
            start: module.address,
            end: module.address + module.size,
            name: name.len() as u64,
        };
        payload.extend(record.as_bytes());
    }
    for (name, _) in modules {
        payload.extend(name.as_bytes());
    }
    payload
}

#[cfg(test)]
mod tests;
