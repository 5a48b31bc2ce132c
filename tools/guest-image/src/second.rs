//! Images that are linked elsewhere than they are loaded, such as in the upper half.

use std::ops::Range;

use object::elf::{FileHeader64, PT_LOAD, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, U64};

use crate::Error;
use crate::kind::KERNEL_HALF;

/// Where the upper half of the canonical addresses begins, and the lower half ends.
const UPPER_HALF: u64 = 0xffff_8000_0000_0000;
const LOWER_HALF_END: u64 = 0x8000_0000_0000;
/// Below it, a virtual address is the physical one of something else: RAM, a BAR or an
/// APIC.
const FIRST: u64 = 1 << 32;
/// An entry of the root page table maps as much: an image whose physical addresses are in
/// the upper half too is taken to be linked for this distance.
const ROOT_ENTRY: u64 = 1 << 39;
const LARGE_PAGE: u64 = 2 << 20;

/// Returns the virtual address at which the RAM at `ram` must be a second time for this
/// ELF64 file; `None` if the file is linked at its physical addresses. Physical addresses
/// of the upper half, where there is no RAM, are made lower ones in `file`. `user_top` is
/// where the kernel's addresses begin, if it has the whole upper half.
///
/// # Errors
/// If the kernel cannot map RAM there.
pub fn second_address(
    file: &mut [u8],
    ram: &Range<u64>,
    user_top: Option<u64>,
) -> Result<Option<u64>, Error> {
    let Ok(header) = FileHeader64::<Endianness>::parse(&*file) else {
        return Ok(None);
    };
    let endian = header.endian().unwrap_or_default();
    let table = header.e_phoff(endian);
    let segments = header.program_headers(endian, &*file).unwrap_or_default();
    let mut places = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        if segment.p_type(endian) == PT_LOAD && segment.p_memsz(endian) > 0 {
            places.push((index, segment.p_vaddr(endian), segment.p_paddr(endian)));
        }
    }
    let lowest = places
        .iter()
        .map(|&(_, at, _)| at)
        .filter(|&at| at >= UPPER_HALF);
    let base = lowest.min().unwrap_or_default() / ROOT_ENTRY * ROOT_ENTRY;
    let mut distance = None;
    for (index, virtual_address, physical) in places {
        let lowered = if physical >= UPPER_HALF {
            physical - base
        } else {
            physical
        };
        if lowered != physical {
            let at = table as usize
                + index * size_of::<ProgramHeader64<Endianness>>()
                + std::mem::offset_of!(ProgramHeader64<Endianness>, p_paddr);
            let word = U64::new(endian, lowered);
            file[at..at + 8].copy_from_slice(object::bytes_of(&word));
        }
        let this = virtual_address.wrapping_sub(lowered);
        if *distance.get_or_insert(this) != this {
            return Err(Error::new(
                format!(
                    "its segment at {virtual_address:#x} is loaded at {lowered:#x}, and another \
                     not as far from its own address"
                ),
                "link all segments as far from their physical addresses: RAM can be at one \
                 other place only",
            ));
        }
    }
    let distance = distance.unwrap_or_default();
    if distance == 0 {
        return Ok(None);
    }
    let start = ram.start.wrapping_add(distance);
    let end = start.wrapping_add(ram.end - ram.start);
    let lower_end = user_top.unwrap_or(LOWER_HALF_END);
    let lower = FIRST <= start && start < end && end <= lower_end;
    let upper = user_top.is_none() && UPPER_HALF <= start && start < end && end <= KERNEL_HALF;
    if !distance.is_multiple_of(LARGE_PAGE) || !(lower || upper) {
        return Err(Error::new(
            format!(
                "it is linked {distance:#x} bytes above where it is loaded, so that RAM would \
                 be from {start:#x} to {end:#x}"
            ),
            match user_top {
                None => format!(
                    "link it a multiple of 2 MiB above, so that its RAM lies between {FIRST:#x} \
                     and {LOWER_HALF_END:#x}, or {UPPER_HALF:#x} and {KERNEL_HALF:#x}, which is \
                     seL4's"
                ),
                Some(top) => format!(
                    "link it a multiple of 2 MiB above, so that its RAM lies between {FIRST:#x} \
                     and {top:#x}, or use the bundled seL4: the installed one has the upper half \
                     of all addresses for itself"
                ),
            },
        ));
    }
    Ok(Some(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Load, elf};

    const RAM: Range<u64> = 0..0x200_0000;

    /// Returns an ELF file with segments of these virtual and physical addresses.
    fn file(segments: &[(u64, u64)]) -> Vec<u8> {
        let load = |&(linked, loaded): &(u64, u64)| Load {
            flags: 5,
            linked,
            loaded,
            size: 4096,
        };
        elf(0, &segments.iter().map(load).collect::<Vec<_>>())
    }

    fn of(segments: &[(u64, u64)]) -> Result<Option<u64>, String> {
        second_address(&mut file(segments), &RAM, None).map_err(|error| error.cause)
    }

    #[test]
    fn most_images_are_loaded_where_they_are_linked() {
        assert_eq!(
            of(&[(0x10_0000, 0x10_0000), (0x20_0000, 0x20_0000)]),
            Ok(None)
        );
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(second_address(&mut b"#!".to_vec(), &RAM, None), Ok(None));
    }

    #[test]
    fn ram_is_a_second_time_where_an_image_is_linked() {
        for base in [UPPER_HALF, 0xffff_ff00_0000_0000, 0x4000_0000_0000, FIRST] {
            let segments = [(base + 0x10_0000, 0x10_0000), (base + 0x40_0000, 0x40_0000)];
            assert_eq!(of(&segments), Ok(Some(base)), "{base:#x}");
        }
    }

    #[test]
    fn physical_addresses_of_the_upper_half_are_lowered() {
        let base = 0xffff_ff00_0000_0000;
        let high = [
            (base + 0x10_0000, base + 0x10_0000),
            (base + 0x20_1000, base + 0x20_1000),
        ];
        let mut changed = file(&high);
        assert_eq!(second_address(&mut changed, &RAM, None), Ok(Some(base)));
        let low = [(base + 0x10_0000, 0x10_0000), (base + 0x20_1000, 0x20_1000)];
        assert_eq!(changed, file(&low));
    }

    #[test]
    fn what_cannot_be_mapped_is_said() {
        let odd = of(&[(UPPER_HALF + 0x10_1000, 0x10_0000)]).unwrap_err();
        assert!(odd.contains("0xffff800000001000"), "{odd}");
        let below = of(&[(0x4010_0000, 0x10_0000)]).unwrap_err();
        assert!(below.contains("0x40000000 to 0x42000000"), "{below}");
        let last = KERNEL_HALF - 0x100_0000;
        assert!(of(&[(last + 0x10_0000, 0x10_0000)]).is_err());
        let hole = LOWER_HALF_END - 0x100_0000;
        assert!(of(&[(hole + 0x10_0000, 0x10_0000)]).is_err());
        let two = of(&[(UPPER_HALF + 0x10_0000, 0x10_0000), (0x20_0000, 0x20_0000)]);
        assert!(two.unwrap_err().contains("0x200000"));
    }
    #[test]
    fn a_kernel_that_has_the_upper_half_maps_nothing_there() {
        let top = 0x7fff_ffff_f000;
        let of = |base| {
            let segments = [(base + 0x10_0000, 0x10_0000)];
            second_address(&mut file(&segments), &RAM, Some(top))
        };
        assert_eq!(of(0x4000_0000_0000), Ok(Some(0x4000_0000_0000)));
        for base in [UPPER_HALF, LOWER_HALF_END - RAM.end] {
            let help = of(base).unwrap_err().help;
            assert!(
                help.contains("0x7ffffffff000, or use the bundled"),
                "{help}"
            );
        }
    }
}
