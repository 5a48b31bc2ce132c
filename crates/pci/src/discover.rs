//! Discovers a function's identity, BARs and MSI-X.

use crate::capability::CapabilityList;
use crate::virtio::common_registers;
use crate::{BarInfo, BarKind, Bdf, FUNCTION_BARS, FunctionInfo, MsixInfo, PAGE_SIZE, regs};

/// The configuration space of one function, whatever reaches it.
pub trait ConfigSpace {
    /// Reads the dword at `offset`, a multiple of 4.
    fn read32(&mut self, offset: u16) -> u32;
    /// Writes the dword at `offset`, a multiple of 4.
    fn write32(&mut self, offset: u16, value: u32);
    /// Writes the word at `offset`, a multiple of 2, and no other byte.
    fn write16(&mut self, offset: u16, value: u16);
}

/// Entries that a message control register can announce.
const MSIX_SIZE_MASK: u32 = 0x7ff;

/// Address bits of an expansion ROM's register.
const ROM_ADDRESS: u32 = !0x7ff;

/// Why there is no function that could be assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFunction {
    /// Nothing answers.
    Absent,
    /// Its ids read all ones, as those of an SR-IOV virtual function do: its BARs are
    /// in the capability of the physical function.
    Virtual,
    /// Its header is a bridge's, or another that is no device's: this type.
    Header(u8),
}

impl NoFunction {
    /// Returns the reason in words.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Absent => "it reads all ones: it is absent, asleep or broken",
            Self::Virtual => {
                "it is an SR-IOV virtual function, whose ids and BARs are the physical function's: \
                 only whole functions can be assigned"
            }
            Self::Header(1) => "it is no endpoint: a bridge cannot be assigned",
            Self::Header(_) => "its header is no endpoint's",
        }
    }
}

/// Describes the function behind `space`.
///
/// BARs are sized with decoding off, and both are restored. The function must
/// not be in use.
///
/// # Errors
///
/// If there is none, or if its header is not that of a device (type 0).
pub fn discover(
    space: &mut impl ConfigSpace,
    host: Bdf,
    guest: Bdf,
    permissive: bool,
) -> Result<FunctionInfo, NoFunction> {
    let id = space.read32(regs::VENDOR);
    let class = space.read32(regs::REVISION);
    if id as u16 == 0xffff {
        return Err(if class == u32::MAX {
            NoFunction::Absent
        } else {
            NoFunction::Virtual
        });
    }
    let header_type = space.read32(regs::HEADER_TYPE & !3) >> 16 & 0x7f;
    if header_type != 0 {
        return Err(NoFunction::Header(header_type as u8));
    }
    let bars = size_bars(space, FUNCTION_BARS);
    let capabilities = CapabilityList::read(space);
    let msix = match capabilities.find(regs::CAP_MSIX) {
        Some(offset) => find_msix(space, offset, &bars).unwrap_or(MsixInfo {
            capability: offset.into(),
            ..MsixInfo::default()
        }),
        None => MsixInfo::default(),
    };
    let info = FunctionInfo {
        vendor: id as u16,
        device: (id >> 16) as u16,
        class: class >> 8,
        host_bdf: host.requester_id(),
        guest_bdf: guest.requester_id(),
        permissive: u32::from(permissive),
        bars,
        msix,
        ..FunctionInfo::default()
    };
    Ok(FunctionInfo {
        common: common_registers(space, &info, &capabilities),
        ..info
    })
}

/// Sizes the first `count` BARs, with decoding off meanwhile.
pub fn size_bars(space: &mut impl ConfigSpace, count: usize) -> [BarInfo; FUNCTION_BARS] {
    // As a word: the other half of the dword is the status register, whose
    // bits a write clears.
    let command = space.read32(regs::COMMAND) as u16;
    let decode = regs::COMMAND_IO | regs::COMMAND_MEMORY;
    space.write16(regs::COMMAND, command & !decode);
    let mut bars = [BarInfo::default(); FUNCTION_BARS];
    let mut index = 0;
    while index < count {
        bars[index] = size_bar(space, index, count);
        index += if bars[index].kind == BarKind::Memory64 {
            2
        } else {
            1
        };
    }
    space.write16(regs::COMMAND, command);
    bars
}

/// Sizes one BAR (PCI Local Bus 3.0 section 6.2.5.1).
fn size_bar(space: &mut impl ConfigSpace, index: usize, count: usize) -> BarInfo {
    let offset = regs::BAR0 + 4 * index as u16;
    let (low, low_mask) = probe(space, offset);
    if low & 1 == 1 {
        return bar(BarKind::Io, false, low & !3, low_mask & !3);
    }
    let prefetchable = low & 8 != 0;
    // Type 1, below 1 MiB, is an old form of the 32-bit BAR.
    match low >> 1 & 3 {
        0 | 1 => bar(BarKind::Memory32, prefetchable, low & !15, low_mask & !15),
        2 if index + 1 < count => {
            let (high, high_mask) = probe(space, offset + 4);
            let join = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low & !15);
            wide_bar(
                BarKind::Memory64,
                prefetchable,
                join(high, low),
                join(high_mask, low_mask),
            )
        }
        _ => BarInfo::default(),
    }
}

/// Sizes the expansion ROM whose register this is, as a memory BAR; one without an address is
/// none.
pub fn size_rom(space: &mut impl ConfigSpace, offset: u16) -> BarInfo {
    if space.read32(offset) & ROM_ADDRESS == 0 {
        return BarInfo::default();
    }
    // Without the bit that switches it on.
    let (value, mask) = probe_by(space, offset, ROM_ADDRESS);
    bar(
        BarKind::Memory32,
        false,
        value & ROM_ADDRESS,
        mask & ROM_ADDRESS,
    )
}

/// Returns a BAR's value, and which of its bits can be set.
fn probe(space: &mut impl ConfigSpace, offset: u16) -> (u32, u32) {
    probe_by(space, offset, u32::MAX)
}

fn probe_by(space: &mut impl ConfigSpace, offset: u16, ones: u32) -> (u32, u32) {
    let value = space.read32(offset);
    space.write32(offset, ones);
    let mask = space.read32(offset);
    space.write32(offset, value);
    (value, mask)
}

fn bar(kind: BarKind, prefetchable: bool, address: u32, mask: u32) -> BarInfo {
    wide_bar(kind, prefetchable, address.into(), mask.into())
}

fn wide_bar(kind: BarKind, prefetchable: bool, address: u64, mask: u64) -> BarInfo {
    if mask == 0 {
        return BarInfo::default();
    }
    BarInfo {
        kind,
        prefetchable: u32::from(prefetchable),
        address,
        guest: address,
        // The lowest bit that can be set: a power of two whatever the device says.
        size: mask & mask.wrapping_neg(),
        first_slot: 0,
    }
}

/// Why a function's MSI-X cannot be offered to a guest (M16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMsix {
    /// The capability runs out of the space.
    Cut,
    /// The table does not lie in a memory BAR, or not inside it.
    Table,
    /// The PBA does not.
    Pba,
    /// Table and PBA overlap.
    Overlap,
    /// They need more pages than a function can have.
    Pages,
    /// One of them is in a BAR that the guest does not reach ([`place_bars`](crate::place_bars)).
    Unreachable,
    /// Another BAR lies on the page of one of them ([`claim_small_bars`](crate::claim_small_bars)).
    Shared,
}

impl NoMsix {
    /// Returns the reason in words.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Cut => "its capability runs out of configuration space",
            Self::Table => "its table does not lie in a memory BAR",
            Self::Pba => "its PBA does not lie in a memory BAR",
            Self::Overlap => "its table and PBA overlap",
            Self::Pages => "its table and PBA lie on too many pages",
            Self::Unreachable => "its table or PBA lies in a BAR that the guest cannot reach",
            Self::Shared => "another function's BAR lies on the page of its table or PBA",
        }
    }
}

/// Reads the MSI-X capability (PCIe 6.0 section 7.7.2).
///
/// # Errors
///
/// If table or PBA does not lie in a memory BAR, or if the two overlap (M16): such a
/// capability lies over other registers of the device.
pub fn find_msix(
    space: &mut impl ConfigSpace,
    capability: u16,
    bars: &[BarInfo; FUNCTION_BARS],
) -> Result<MsixInfo, NoMsix> {
    // The capability is 12 bytes; one that runs out of the space is none.
    if capability > 256 - 12 {
        return Err(NoMsix::Cut);
    }
    let table = space.read32(capability + regs::MSIX_TABLE);
    let pba = space.read32(capability + regs::MSIX_PBA);
    let mut info = MsixInfo {
        entries: (space.read32(capability) >> 16 & MSIX_SIZE_MASK) + 1,
        capability: capability.into(),
        table_bar: table & 7,
        table_offset: table & !7,
        pba_bar: pba & 7,
        pba_offset: pba & !7,
        ..MsixInfo::default()
    };
    let table_size = info.table_size();
    let pba_size = info.pba_size();
    let apart = info.table_bar != info.pba_bar
        || u64::from(info.table_offset) + table_size <= u64::from(info.pba_offset)
        || u64::from(info.pba_offset) + pba_size <= u64::from(info.table_offset);
    if !apart {
        return Err(NoMsix::Overlap);
    }
    if !inside(bars, info.table_bar, info.table_offset, table_size) {
        return Err(NoMsix::Table);
    }
    if !inside(bars, info.pba_bar, info.pba_offset, pba_size) {
        return Err(NoMsix::Pba);
    }
    let fit = add_pages(&mut info, table & 7, table & !7, table_size)
        && add_pages(&mut info, pba & 7, pba & !7, pba_size);
    if fit { Ok(info) } else { Err(NoMsix::Pages) }
}

/// Returns whether `size` bytes at `offset` lie in a memory BAR. Whether that has an
/// address is asked when it is placed.
fn inside(bars: &[BarInfo; FUNCTION_BARS], bar: u32, offset: u32, size: u64) -> bool {
    bars.get(bar as usize)
        .is_some_and(|bar| bar.is_memory() && u64::from(offset) + size <= bar.size)
}

/// Adds the pages of a range that are not there yet; false if they do not fit.
fn add_pages(info: &mut MsixInfo, bar: u32, offset: u32, size: u64) -> bool {
    let first = u64::from(offset) / PAGE_SIZE;
    let last = (u64::from(offset) + size - 1) / PAGE_SIZE;
    (first..=last)
        .all(|page| info.page_index(bar, page).is_some() || info.add_page(bar, page as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 256 bytes of configuration space with real BARs and a command register
    /// that must have decode off while a BAR is sized.
    struct Fake {
        dwords: [u32; 64],
        masks: [u32; 6],
        sized_while_decoding: bool,
    }

    impl Fake {
        fn new() -> Self {
            let mut dwords = [0; 64];
            dwords[0] = 0x10d3_8086;
            dwords[1] = 0x0010_0003;
            dwords[2] = 0x0200_0001;
            let mut fake = Self {
                dwords,
                masks: [0; 6],
                sized_while_decoding: false,
            };
            fake.set_bar(0, 0xfe00_0000, 0xfffe_0000);
            fake.set_bar(1, 0xc001, 0xffff_ffe1);
            fake.set_bar(2, 0xc000_000c, 0xffff_0000);
            fake.set_bar(3, 0x8, 0xffff_ffff);
            fake
        }

        fn set_bar(&mut self, index: usize, value: u32, mask: u32) {
            self.dwords[4 + index] = value;
            self.masks[index] = mask;
        }

        fn set_msix(&mut self, at: u16, next: u32, entries: u32, table: u32, pba: u32) {
            let at = usize::from(at / 4);
            self.dwords[0x34 / 4] = at as u32 * 4;
            self.dwords[at] = (entries - 1) << 16 | next << 8 | 0x11;
            self.dwords[at + 1] = table;
            self.dwords[at + 2] = pba;
        }

        fn discover(&mut self) -> Result<FunctionInfo, NoFunction> {
            let bdf = Bdf::from_requester_id(0x18);
            discover(self, bdf, bdf, false)
        }

        fn entries(&mut self) -> u32 {
            self.discover().expect("the function is there").msix.entries
        }
    }

    impl ConfigSpace for Fake {
        fn read32(&mut self, offset: u16) -> u32 {
            self.dwords[usize::from(offset / 4)]
        }

        fn write32(&mut self, offset: u16, value: u32) {
            let index = usize::from(offset / 4);
            match index {
                4..10 => {
                    self.sized_while_decoding |= self.dwords[1] & 3 != 0;
                    let mask = self.masks[index - 4];
                    let flags = self.dwords[index] & 15 & !mask;
                    self.dwords[index] = value & mask | flags;
                }
                _ => panic!("write at {offset:#x}"),
            }
        }

        fn write16(&mut self, offset: u16, value: u16) {
            assert_eq!(offset, regs::COMMAND);
            self.dwords[1] = self.dwords[1] & 0xffff_0000 | u32::from(value);
        }
    }

    #[test]
    fn what_cannot_be_assigned_is_named() {
        let mut fake = Fake::new();
        fake.dwords[0] = u32::MAX;
        assert_eq!(fake.discover().err(), Some(NoFunction::Virtual));
        fake.dwords[2] = u32::MAX;
        assert_eq!(fake.discover().err(), Some(NoFunction::Absent));
        let mut fake = Fake::new();
        fake.dwords[3] = 0x0081_0000;
        assert_eq!(fake.discover().err(), Some(NoFunction::Header(1)));
    }

    #[test]
    fn m16_why_msix_is_not_offered_is_named() {
        for (at, table, pba, why) in [
            (0x50, 0x1001, 0x2000, NoMsix::Table),
            (0x50, 0x1000, 0x2_0000, NoMsix::Pba),
            (0x50, 0x1000, 0x1040, NoMsix::Overlap),
            (0xf8, 0x1000, 0x2000, NoMsix::Cut),
        ] {
            let mut fake = Fake::new();
            fake.set_msix(0x50, 0, 5, table, pba);
            let bars = fake.discover().expect("the function is there").bars;
            let found = find_msix(&mut fake, at, &bars);
            assert_eq!(found.err(), Some(why), "{table:#x} {pba:#x}");
        }
    }

    #[test]
    fn c4_bars_are_sized_and_restored_with_decode_off() {
        let mut fake = Fake::new();
        let before = fake.dwords;
        let info = fake.discover().expect("the function is there");
        assert_eq!(fake.dwords, before);
        assert!(!fake.sized_while_decoding);
        let found = info.bars.map(|b| (b.kind, b.address, b.size));
        assert_eq!(found[0], (BarKind::Memory32, 0xfe00_0000, 0x2_0000));
        assert_eq!(found[1], (BarKind::Io, 0xc000, 0x20));
        assert_eq!(found[2], (BarKind::Memory64, 0x8_c000_0000, 0x1_0000));
        assert_eq!(found[3], (BarKind::None, 0, 0));
        assert_eq!(info.bars[2].prefetchable, 1);
        assert_eq!(
            (info.vendor, info.device, info.class),
            (0x8086, 0x10d3, 0x02_0000)
        );
    }

    #[test]
    fn c6_a_looped_list_ends_and_low_bits_are_ignored() {
        let mut fake = Fake::new();
        fake.set_msix(0x50, 0x40, 5, 0x1000, 0x2000);
        fake.dwords[0x34 / 4] = 0x43;
        fake.dwords[0x10] = 0x5101;
        let list = CapabilityList::read(&mut fake);
        let offsets = list.as_slice().iter().map(|c| c.offset);
        assert!(offsets.eq([0x40, 0x50]));
        assert_eq!(fake.entries(), 5);
    }

    #[test]
    fn c6_no_list_without_the_status_bit() {
        let mut fake = Fake::new();
        fake.set_msix(0x50, 0, 5, 0x1000, 0x2000);
        fake.dwords[1] = 3;
        assert!(CapabilityList::read(&mut fake).as_slice().is_empty());
    }

    #[test]
    fn m16_bad_places_leave_no_entries() {
        let cases = [
            (0x1000, 0x2000, 5),
            (0x1002, 0x2002, 5),
            // BIR 7, an I/O BAR, the upper half of a 64-bit BAR, no BAR.
            (0x1007, 0x2000, 0),
            (0x0001, 0x2000, 0),
            (0x1000, 0x2003, 0),
            (0x1004, 0x2000, 0),
            // The last byte is the last of the BAR, or one too many.
            (0x1_ffb0, 0x2000, 5),
            (0x1_ffb8, 0x2000, 0),
            (0x1000, 0x1_fff8, 5),
            (0x1000, 0x2_0000, 0),
        ];
        for (table, pba, entries) in cases {
            let mut fake = Fake::new();
            fake.set_msix(0x50, 0, 5, table, pba);
            assert_eq!(fake.entries(), entries, "{table:#x} {pba:#x}");
        }
        // A BAR of half a page will do: its page is msix's.
        for (mask, entries) in [(0xffff_f800, 5), (0xffff_fc00, 0)] {
            let mut fake = Fake::new();
            fake.masks[0] = mask;
            fake.set_msix(0x50, 0, 5, 0, 0x400);
            assert_eq!(fake.entries(), entries, "{mask:#x}");
        }
        // The PBA alone in a BAR of 256 bytes, as SN550-class NVMe have it.
        let mut fake = Fake::new();
        fake.set_bar(4, 0xfa90_4004, 0xffff_ff04);
        fake.set_bar(5, 0, 0xffff_ffff);
        fake.set_msix(0x50, 0, 17, 0x2000, 4);
        assert_eq!(fake.entries(), 17);
        // The capability itself runs out of the space.
        let mut fake = Fake::new();
        fake.dwords[0x34 / 4] = 0xf8;
        fake.dwords[0xf8 / 4] = 0x0004_0011;
        fake.dwords[0xfc / 4] = 0x1000;
        assert_eq!(fake.entries(), 0);
    }

    #[test]
    fn m16_table_and_pba_must_not_overlap() {
        let cases = [
            // As RTL5287 has it, both at the start of its registers.
            (0, 0, 1, 0),
            // 5 entries are 80 bytes, their PBA is 8: one byte less than apart
            // cannot be said, for both begin at a multiple of 8.
            (0x1000, 0x1048, 5, 0),
            (0x1000, 0x1050, 5, 5),
            (0x1000, 0x0ff8, 5, 5),
            // 65 entries have 16 bytes of PBA.
            (0x1000, 0x0ff8, 65, 0),
            (0x1000, 0x0ff0, 65, 65),
            // The same place of another BAR is another place.
            (0x1000, 0x1002, 5, 5),
        ];
        for (table, pba, entries, usable) in cases {
            let mut fake = Fake::new();
            fake.set_msix(0x50, 0, entries, table, pba);
            assert_eq!(fake.entries(), usable, "{table:#x} {pba:#x}");
        }
    }

    #[test]
    fn m16_a_bar_without_address_leaves_no_entries() {
        let mut fake = Fake::new();
        fake.set_msix(0x50, 0, 5, 0x1000, 0x2000);
        fake.dwords[4] = 0;
        let mut functions = [fake.discover().expect("the function is there")];
        crate::place_bars(&mut functions);
        assert_eq!(functions[0].msix.entries, 0);
    }

    #[test]
    fn m13_every_page_of_table_and_pba_is_listed_once() {
        let mut fake = Fake::new();
        // The table starts at 8 mod 16 and covers pages 1 to 9; the PBA
        // covers the end of page 10 and page 11.
        fake.set_msix(0x50, 0, 2048, 0x1ff8, 0xaff8);
        let info = fake.discover().expect("the function is there").msix;
        assert_eq!(info.entries, 2048);
        let pages = info.pages().iter().map(|p| p.page);
        assert!(pages.eq(1..=0xb));
    }
}
