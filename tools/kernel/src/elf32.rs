//! Rewrites the linked 64-bit kernel as a 32-bit ELF file.
//!
//! Multiboot loaders (QEMU's `-kernel`, GRUB) refuse 64-bit files. The kernel
//! starts in 32-bit mode and turns long mode on itself, so only the file's
//! form changes: the same segments at the same physical addresses.

/// `Elf64_Ehdr` and `Elf64_Phdr` sizes (System V ABI, AMD64 supplement).
const EHDR64: usize = 64;
const PHDR64: usize = 56;
/// `Elf32_Ehdr` and `Elf32_Phdr` sizes (System V ABI, Intel386 supplement).
const EHDR32: u32 = 52;
const PHDR32: u32 = 32;
const PT_LOAD: u32 = 1;
const EM_386: u16 = 3;
/// Segments start on pages in the file. The multiboot header at the start of
/// the first one is then within the first 8 KiB, where loaders look for it
/// (Multiboot Specification 0.6.96, 3.1).
const ALIGN: u32 = 4096;

/// A loadable segment of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    virt: u64,
    /// Where a loader puts it.
    pub phys: u32,
    /// Its bytes.
    pub data: &'a [u8],
    /// Bytes that it takes, zeros behind those of the file.
    pub memory: u32,
    flags: u32,
}

fn bytes<const N: usize>(file: &[u8], at: usize) -> Result<[u8; N], String> {
    file.get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or_else(|| format!("the file ends before offset {at}"))
}

fn half(file: &[u8], at: usize) -> Result<u16, String> {
    bytes(file, at).map(u16::from_le_bytes)
}

fn word(file: &[u8], at: usize) -> Result<u32, String> {
    bytes(file, at).map(u32::from_le_bytes)
}

fn long(file: &[u8], at: usize) -> Result<u64, String> {
    bytes(file, at).map(u64::from_le_bytes)
}

fn fits(value: u64, what: &str) -> Result<u32, String> {
    u32::try_from(value).map_err(|_| format!("{what} {value:#x} is above 4 GiB"))
}

/// Returns the loadable segments of a linked 64-bit kernel.
///
/// # Errors
/// A message if it is no such file.
pub fn segments(file: &[u8]) -> Result<Vec<Segment<'_>>, String> {
    let table = long(file, 32)? as usize;
    let entry_size = half(file, 54)? as usize;
    let count = half(file, 56)? as usize;
    if entry_size != PHDR64 {
        return Err(format!("program headers of {entry_size} bytes"));
    }
    let mut found = Vec::new();
    for index in 0..count {
        let at = index
            .checked_mul(PHDR64)
            .and_then(|offset| offset.checked_add(table))
            .ok_or("the program header table is out of range")?;
        if word(file, at)? != PT_LOAD {
            continue;
        }
        let start = long(file, at + 8)? as usize;
        let length = long(file, at + 32)? as usize;
        let data = start
            .checked_add(length)
            .and_then(|end| file.get(start..end))
            .ok_or_else(|| format!("segment {index} reaches beyond the file"))?;
        found.push(Segment {
            virt: long(file, at + 16)?,
            phys: fits(long(file, at + 24)?, "physical address")?,
            data,
            memory: fits(long(file, at + 40)?, "segment size")?,
            flags: word(file, at + 4)?,
        });
    }
    Ok(found)
}

/// Returns where a linked 64-bit kernel begins, in 32-bit mode.
///
/// # Errors
/// A message if it is no such file.
pub fn entry(file: &[u8]) -> Result<u32, String> {
    fits(long(file, 24)?, "entry point")
}

/// Returns the 32-bit form of `file`, a 64-bit little-endian ELF executable.
///
/// # Errors
/// A message if it is not such a file or does not fit below 4 GiB.
pub(crate) fn convert(file: &[u8]) -> Result<Vec<u8>, String> {
    // Magic, ELFCLASS64, ELFDATA2LSB, EV_CURRENT.
    if file.len() < EHDR64 || file[..7] != [0x7f, b'E', b'L', b'F', 2, 1, 1] {
        return Err("not a 64-bit little-endian ELF file".to_string());
    }
    let entry = entry(file)?;
    let segments = segments(file)?;
    let count = u16::try_from(segments.len()).map_err(|_| "too many segments")?;

    let mut out = vec![0x7f, b'E', b'L', b'F', 1, 1, 1];
    out.resize(16, 0);
    for value in [2u16, EM_386] {
        out.extend(value.to_le_bytes());
    }
    // Version, entry, program headers, no section headers, no flags.
    for value in [1, entry, EHDR32, 0, 0] {
        out.extend(value.to_le_bytes());
    }
    for value in [EHDR32 as u16, PHDR32 as u16, count, 0, 0, 0] {
        out.extend(value.to_le_bytes());
    }
    let mut offset = EHDR32 + PHDR32 * u32::from(count);
    let mut body = Vec::new();
    for segment in &segments {
        let start = offset.next_multiple_of(ALIGN);
        body.resize(body.len() + (start - offset) as usize, 0);
        body.extend(segment.data);
        let length = fits(segment.data.len() as u64, "segment size")?;
        offset = start.checked_add(length).ok_or("the file is above 4 GiB")?;
        // The upper half of a kernel virtual address is lost; loaders use the
        // physical one.
        let virt = segment.virt as u32;
        for value in [
            PT_LOAD,
            start,
            virt,
            segment.phys,
            length,
            segment.memory,
            segment.flags,
            ALIGN,
        ] {
            out.extend(value.to_le_bytes());
        }
    }
    out.extend(body);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(phys: u64) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        file.resize(EHDR64, 0);
        file[24..32].copy_from_slice(&0x10_0000u64.to_le_bytes());
        file[32..40].copy_from_slice(&(EHDR64 as u64).to_le_bytes());
        file[54..56].copy_from_slice(&(PHDR64 as u16).to_le_bytes());
        file[56..58].copy_from_slice(&1u16.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(5u32.to_le_bytes());
        let data = (EHDR64 + PHDR64) as u64;
        for value in [data, 0xffff_ffff_8010_0000, phys, 4, 0x2000, 0x1000] {
            file.extend(value.to_le_bytes());
        }
        file.extend(b"seL4");
        file
    }

    #[test]
    fn keeps_addresses_and_content() {
        let out = convert(&sample(0x10_0000)).unwrap();
        assert_eq!(out[4], 1);
        assert_eq!(word(&out, 24).unwrap(), 0x10_0000);
        let phdr = 52;
        let field = |i: usize| word(&out, phdr + 4 * i).unwrap();
        assert_eq!(
            [field(0), field(2), field(3), field(4), field(5), field(6)],
            [PT_LOAD, 0x8010_0000, 0x10_0000, 4, 0x2000, 5]
        );
        assert_eq!(&out[field(1) as usize..], b"seL4");
        assert!(field(1) < 8192);
    }

    #[test]
    fn refuses_what_it_cannot_convert() {
        assert!(convert(b"\x7fELF").is_err());
        assert!(
            convert(&sample(1 << 32))
                .unwrap_err()
                .contains("above 4 GiB")
        );
        let mut short = sample(0x10_0000);
        short.pop();
        assert!(convert(&short).unwrap_err().contains("beyond the file"));
    }
}
