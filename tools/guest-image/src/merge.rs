//! Puts an image, a shim and the block for it into one file.

use std::ops::Range;

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};
use spec::shim::{HANDOFF_OFFSET, HANDOFF_SIZE, Handoff, SIZE};
use system::Segment;
use zerocopy::IntoBytes as _;

use crate::Error;

/// Position of the class in an ELF file.
const EI_CLASS: usize = 4;
/// Bytes at the start of a guest's RAM that no image may use: the vmm's boot parameters lie
/// there.
const RESERVED: u64 = 0x1_0000;

/// An image made for another monitor, as it is to lie in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// First instruction.
    pub entry: u64,
    /// What lies at which physical address.
    pub segments: Vec<Segment>,
}

impl Foreign {
    /// Reads the loadable segments of an ELF file of either class, at their physical
    /// addresses.
    ///
    /// # Errors
    /// If the file is broken, or has nothing to load.
    pub fn from_elf(file: &[u8]) -> Result<Self, Error> {
        let parsed = match file.get(EI_CLASS) {
            Some(&class) if class == elf::ELFCLASS32.0 => {
                Self::read::<elf::FileHeader32<Endianness>>(file)
            }
            _ => Self::read::<elf::FileHeader64<Endianness>>(file),
        };
        parsed.ok_or_else(|| {
            Error::new(
                "its ELF headers are broken, or reach past its end",
                "copy or build it again",
            )
        })
    }

    fn read<H: FileHeader<Endian = Endianness>>(file: &[u8]) -> Option<Self> {
        let header = H::parse(file).ok()?;
        let endian = header.endian().ok()?;
        let mut segments = Vec::new();
        for segment in header.program_headers(endian, file).ok()? {
            let size: u64 = segment.p_memsz(endian).into();
            if segment.p_type(endian) != elf::PT_LOAD || size == 0 {
                continue;
            }
            let bytes = segment.data(endian, file).ok()?.to_vec();
            let flags = segment.p_flags(endian).0;
            let address: u64 = segment.p_paddr(endian).into();
            if bytes.len() as u64 > size || address.checked_add(size).is_none() {
                return None;
            }
            segments.push(Segment {
                address,
                size,
                bytes,
                writable: flags & elf::PF_W.0 != 0,
                executable: flags & elf::PF_X.0 != 0,
            });
        }
        let entry = header.e_entry(endian).into();
        (!segments.is_empty()).then_some(Self { entry, segments })
    }

    /// Returns whether something of the image lies at an address.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        let mut segments = self.segments.iter();
        segments.any(|s| (s.address..s.address + s.size).contains(&address))
    }

    /// Returns the addresses from the image's first byte to its last.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        let starts = self.segments.iter().map(|segment| segment.address);
        let ends = self
            .segments
            .iter()
            .map(|segment| segment.address + segment.size);
        starts.min().unwrap_or(0)..ends.max().unwrap_or(0)
    }
}

/// Returns the part of a guest's RAM that a shim is built for.
///
/// # Errors
/// If the RAM is too small for one.
pub fn shim_ram(ram: &Range<u64>) -> Result<Range<u64>, Error> {
    match ram.end.checked_sub(SIZE) {
        Some(start) if start >= ram.start + RESERVED => Ok(start..ram.end),
        _ => Err(Error::new(
            format!(
                "a shim runs beside such an image and takes {} MiB, but the guest has {} MiB",
                SIZE >> 20,
                (ram.end - ram.start) >> 20
            ),
            format!(
                "give the guest more `memory`: {} MiB and what the image needs",
                SIZE >> 20
            ),
        )),
    }
}

/// Returns one file with the image, the shim (a guest's file, built for [`shim_ram`] of
/// `ram`), and between them the block with this command line and payload, and `more`, which
/// lies in the shim's RAM. It is entered at the shim's entry.
///
/// # Errors
/// If the image lies where something else is, or out of RAM.
pub fn merge(
    image: &Foreign,
    shim: &[u8],
    ram: &Range<u64>,
    command_line: &[u8],
    payload: &[u8],
    more: Option<Segment>,
) -> Result<Vec<u8>, Error> {
    let own = shim_ram(ram)?;
    for segment in &image.segments {
        check(segment, ram, &own)?;
    }
    let shim = Foreign::from_elf(shim)?;
    let all = image.range();
    let head = Handoff::new(image.entry, (all.start, all.end), (ram.start, own.start))
        .with(command_line.len() as u64, payload.len() as u64);
    let block = [head.as_bytes(), command_line, payload].concat();
    if block.len() > HANDOFF_SIZE {
        return Err(Error::new(
            format!(
                "{} bytes are to be handed to its shim, which takes {HANDOFF_SIZE}",
                block.len()
            ),
            "shorten what comes with it",
        ));
    }
    let entry = shim.entry;
    let mut segments = image.segments.clone();
    segments.extend(shim.segments);
    segments.push(Segment {
        address: own.start + HANDOFF_OFFSET,
        size: block.len() as u64,
        bytes: block,
        writable: false,
        executable: false,
    });
    segments.extend(more);
    Ok(system::elf_file(entry, &segments))
}

/// Checks that a segment of an image lies in what RAM there is for it.
fn check(segment: &Segment, ram: &Range<u64>, shim: &Range<u64>) -> Result<(), Error> {
    let (start, end) = (segment.address, segment.address + segment.size);
    let part = format!("its part at {start:#x} to {end:#x}");
    let (ram_start, ram_end) = (ram.start, ram.end);
    if start < ram_start || start >= ram_end {
        return Err(Error::new(
            format!("{part} is not in the guest's RAM, {ram_start:#x} to {ram_end:#x}"),
            if start < ram_start {
                "give the guest `address = 0`, which its devices can use where an IOMMU \
                 translates (`--iommu amd`)"
            } else {
                "give the guest more `memory`"
            },
        ));
    }
    if start < ram_start + RESERVED {
        return Err(Error::new(
            format!(
                "{part} is in the first 64 KiB of RAM ({ram_start:#x} to {:#x}), where the boot \
                 parameters are",
                ram_start + RESERVED
            ),
            "link it at 0x100000 or above, as its project does",
        ));
    }
    if end > shim.start {
        return Err(Error::new(
            format!(
                "{part} overlaps its shim, which has the RAM from {:#x} to {:#x}",
                shim.start, shim.end
            ),
            "give the guest more `memory`: the shim moves up",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
