//! The Linux `boot_params` page, with the loader's memory map and command line.
//!
//! Linux x86 boot protocol, "zero page" (Documentation/arch/x86/zero-page.rst),
//! and the PVH start information (Xen public/arch-x86/hvm/start_info.h) of a bare
//! boot, which is converted to it.
#![forbid(unsafe_code)]

/// Size of the page in bytes.
pub const SIZE: usize = 4096;

const EXT_CMD_LINE_PTR: usize = 0x0c8;
const E820_ENTRIES: usize = 0x1e8;
const CMD_LINE_PTR: usize = 0x228;
const E820_TABLE: usize = 0x2d0;
const E820_ENTRY_SIZE: usize = 20;
/// `E820_MAX_ENTRIES_ZEROPAGE`: capacity of the page.
const E820_MAX: usize = 128;

/// `XEN_HVM_START_MAGIC_VALUE`.
const PVH_MAGIC: u32 = 0x336e_c578;
/// Size in bytes of `hvm_start_info` with the memory map fields of version 1.
pub const PVH_INFO_SIZE: usize = 56;
/// Size in bytes of one PVH memory map entry.
pub const PVH_ENTRY_SIZE: usize = 24;

/// Kind of a memory range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Plain memory (e820 type 1).
    Usable,
    /// Anything else.
    Reserved,
}

/// One range of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First physical address.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
    /// Its kind.
    pub kind: MemoryKind,
}

/// A view of a `boot_params` page.
#[derive(Clone, Copy)]
pub struct BootParams<'a> {
    page: &'a [u8; SIZE],
}

impl<'a> BootParams<'a> {
    /// Wraps the page that the loader handed over.
    pub fn new(page: &'a [u8; SIZE]) -> Self {
        Self { page }
    }

    /// Returns the physical address of the zero-terminated command line; 0 if
    /// there is none.
    pub fn command_line_address(&self) -> u64 {
        u64::from(read32(self.page, EXT_CMD_LINE_PTR)) << 32
            | u64::from(read32(self.page, CMD_LINE_PTR))
    }

    /// Returns the memory map. A count larger than the page can hold is cut.
    pub fn memory(&self) -> impl Iterator<Item = MemoryRange> + 'a {
        let page = self.page;
        let count = usize::from(page[E820_ENTRIES]).min(E820_MAX);
        (0..count).map(move |index| {
            let at = E820_TABLE + index * E820_ENTRY_SIZE;
            MemoryRange {
                start: read64(page, at),
                size: read64(page, at + 8),
                kind: match read32(page, at + 16) {
                    1 => MemoryKind::Usable,
                    _ => MemoryKind::Reserved,
                },
            }
        })
    }
}

/// The fields of PVH's `hvm_start_info` that a guest needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PvhInfo {
    /// Physical address of the command line; 0 if there is none.
    pub command_line: u64,
    /// Physical address of the memory map.
    pub memory_map: u64,
    /// Number of its entries, as the loader says; at most 128 are used.
    pub memory_entries: usize,
}

impl PvhInfo {
    /// Reads the start information; `None` if the magic number is wrong. A
    /// version 0 structure has no memory map.
    pub fn parse(info: &[u8; PVH_INFO_SIZE]) -> Option<Self> {
        if read32(info, 0) != PVH_MAGIC {
            return None;
        }
        let has_map = read32(info, 4) >= 1;
        Some(Self {
            command_line: read64(info, 24),
            memory_map: if has_map { read64(info, 40) } else { 0 },
            memory_entries: if has_map {
                (read32(info, 48) as usize).min(E820_MAX)
            } else {
                0
            },
        })
    }

    /// Fills a zeroed `boot_params` page from this and the bytes of the memory
    /// map (whole entries; those that do not fit are left out).
    pub fn fill(&self, memory_map: &[u8], page: &mut [u8; SIZE]) {
        let mut count = 0;
        let table = page[E820_TABLE..]
            .chunks_exact_mut(E820_ENTRY_SIZE)
            .take(E820_MAX);
        for (to, from) in table.zip(memory_map.chunks_exact(PVH_ENTRY_SIZE)) {
            // Same fields in the same order; PVH's entry only ends in 4
            // reserved bytes more. The type numbers are e820's.
            to.copy_from_slice(&from[..E820_ENTRY_SIZE]);
            count += 1;
        }
        page[E820_ENTRIES] = count;
        let address = self.command_line.to_le_bytes();
        page[CMD_LINE_PTR..CMD_LINE_PTR + 4].copy_from_slice(&address[..4]);
        page[EXT_CMD_LINE_PTR..EXT_CMD_LINE_PTR + 4].copy_from_slice(&address[4..]);
    }
}

fn read32(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn read64(bytes: &[u8], at: usize) -> u64 {
    u64::from(read32(bytes, at + 4)) << 32 | u64::from(read32(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pvh_info(version: u32, entries: u32) -> [u8; PVH_INFO_SIZE] {
        let mut info = [0; PVH_INFO_SIZE];
        info[0..4].copy_from_slice(&PVH_MAGIC.to_le_bytes());
        info[4..8].copy_from_slice(&version.to_le_bytes());
        info[24..32].copy_from_slice(&0x1_2345_6789_u64.to_le_bytes());
        info[40..48].copy_from_slice(&0x8000_u64.to_le_bytes());
        info[48..52].copy_from_slice(&entries.to_le_bytes());
        info
    }

    #[test]
    fn pvh_converts_to_boot_params() {
        let info = PvhInfo::parse(&pvh_info(1, 2)).unwrap();
        assert_eq!((info.memory_map, info.memory_entries), (0x8000, 2));
        let mut map = [0; 2 * PVH_ENTRY_SIZE];
        map[8..16].copy_from_slice(&0x9_fc00_u64.to_le_bytes());
        map[16] = 1;
        map[24..32].copy_from_slice(&0x1_0000_0000_u64.to_le_bytes());
        map[32..40].copy_from_slice(&0x1000_u64.to_le_bytes());
        map[40] = 2;
        let mut page = [0; SIZE];
        info.fill(&map, &mut page);
        let params = BootParams::new(&page);
        assert_eq!(params.command_line_address(), 0x1_2345_6789);
        let mut memory = params.memory();
        assert_eq!(
            memory.next(),
            Some(MemoryRange {
                start: 0,
                size: 0x9_fc00,
                kind: MemoryKind::Usable
            })
        );
        assert_eq!(
            memory.next(),
            Some(MemoryRange {
                start: 1 << 32,
                size: 0x1000,
                kind: MemoryKind::Reserved
            })
        );
        assert_eq!(memory.next(), None);
    }

    #[test]
    fn pvh_refuses_wrong_magic_and_bounds_the_map() {
        assert_eq!(PvhInfo::parse(&[0; PVH_INFO_SIZE]), None);
        assert_eq!(PvhInfo::parse(&pvh_info(0, 7)).unwrap().memory_entries, 0);
        let info = PvhInfo::parse(&pvh_info(1, u32::MAX)).unwrap();
        assert_eq!(info.memory_entries, E820_MAX);
        let map = [0xff; (E820_MAX + 9) * PVH_ENTRY_SIZE];
        let mut page = [0; SIZE];
        info.fill(&map, &mut page);
        assert_eq!(BootParams::new(&page).memory().count(), E820_MAX);
    }

    #[test]
    fn a_lying_count_stays_inside_the_page() {
        let page = [0xff; SIZE];
        assert_eq!(BootParams::new(&page).memory().count(), E820_MAX);
    }
}
