//! Finds the IOMMU by the firmware's tables and hands its registers to the
//! iommu component.

use acpi_tables::{Found, PhysicalMemory, find as find_unit};
use heapless::Vec;
use pci::{Bdf, ConfigSpace as _, PAGE_SIZE, buses_behind};
use sel4::cap::{Granule, LargePage};
use sel4::init_thread::slot;
use sel4::{CapRights, VmAttributes};
use spec::{FUNCTIONS, IommuInfo, IommuKind, NONE};
use zerocopy::IntoBytes as _;

use super::builder::Builder;
use super::fatal::fatal;
use super::functions::{Found as Functions, Mechanism1, map_device};
use super::memory::SCRATCH;

/// Pages of firmware memory that are looked at: the 32 below 1 MiB, where the
/// root pointer is, and those with the tables.
const PAGES: usize = 128;
/// Longest table: that of a machine with one unit is much shorter.
const TABLE: usize = 4096;
/// Bytes of registers: AMD-Vi 16 KiB (48882 section 3.4), of VT-d those that
/// there is room for.
const AMD_SIZE: u64 = 4 * PAGE_SIZE;

/// Device memory, mapped a page at a time. RAM cannot be read: the tables are not in
/// it.
struct Firmware<'b, 'a> {
    builder: &'b mut Builder<'a>,
    /// Pages that were made so far.
    pages: Vec<(u64, Granule), PAGES>,
    /// The one that is mapped.
    mapped: Option<(u64, Granule)>,
}

impl Firmware<'_, '_> {
    /// Maps the page at an address, if it is one that can be.
    fn page(&mut self, address: u64) -> Option<()> {
        if self.mapped.is_some_and(|(mapped, _)| mapped == address) {
            return Some(());
        }
        self.unmap();
        let known = self.pages.iter().find(|(page, _)| *page == address);
        let frame = match known {
            Some((_, frame)) => *frame,
            None => {
                if self.pages.is_full() {
                    return None;
                }
                let frame = self.builder.try_device_page(address)?;
                let frame = Granule::from_bits(frame as u64);
                // There is room.
                let _ = self.pages.push((address, frame));
                frame
            }
        };
        self.builder.map(
            frame,
            slot::VSPACE.cap(),
            SCRATCH,
            CapRights::read_only(),
            VmAttributes::DEFAULT,
            "firmware tables",
        );
        self.mapped = Some((address, frame));
        Some(())
    }

    fn unmap(&mut self) {
        if let Some((_, frame)) = self.mapped.take() {
            // It is mapped, so that this cannot fail.
            let _ = frame.frame_unmap();
        }
    }

    /// Unmaps and deletes the pages.
    fn end(mut self) {
        self.unmap();
        for (_, frame) in &self.pages {
            let _ = super::own_slot(frame.bits() as usize).delete();
        }
    }
}

impl PhysicalMemory for Firmware<'_, '_> {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        // A table may lie about where another is.
        if address.checked_add(bytes.len() as u64).is_none() {
            return false;
        }
        let (mut at, mut rest) = (address, bytes);
        while !rest.is_empty() {
            let Some(()) = self.page(at & !(PAGE_SIZE - 1)) else {
                return false;
            };
            let start = (at % PAGE_SIZE) as usize;
            let (now, later) = rest.split_at_mut(rest.len().min(PAGE_SIZE as usize - start));
            let page = core::ptr::with_exposed_provenance::<u8>(SCRATCH);
            // SAFETY: the page was just mapped there, for this thread alone; the
            // firmware writes it no more.
            let page = unsafe { core::slice::from_raw_parts(page, PAGE_SIZE as usize) };
            now.copy_from_slice(&page[start..start + now.len()]);
            at += now.len() as u64;
            rest = later;
        }
        true
    }
}

/// Makes the pages of a unit's registers, unless one of them is RAM, the kernel's
/// (the local APIC and the I/O APIC), in the configuration window, or given to
/// somebody already.
fn register_pages(
    builder: &mut Builder<'_>,
    registers: u64,
    size: u64,
) -> Option<Vec<usize, { (AMD_SIZE / PAGE_SIZE) as usize }>> {
    let header = &builder.system.header;
    // 1 MiB for each bus (PCIe 6.0 section 7.2.2).
    let window = header.ecam..header.ecam.saturating_add(header.buses << 20);
    let mut frames = Vec::new();
    for page in 0..size / PAGE_SIZE {
        let address = registers + page * PAGE_SIZE;
        if window.contains(&address) {
            return None;
        }
        // There is room: `size` is `AMD_SIZE` at most.
        let _ = frames.push(builder.try_device_page(address)?);
    }
    Some(frames)
}

/// Finds the unit, if the system has a component for it, and hands its registers
/// and its description to that component. `root_pointer` is the one of the firmware's
/// tables, if the kernel passed it on. [`IommuKind::None`] if there is none
/// that can be used.
pub fn find(
    builder: &mut Builder<'_>,
    root_pointer: Option<&[u8]>,
    functions: &Functions,
) -> IommuInfo {
    let place = builder.system.header.iommu;
    if place.cnode == NONE {
        return IommuInfo::default();
    }
    let assigned: Vec<u16, FUNCTIONS> = functions
        .iter()
        .map(|(bdf, _)| bdf.requester_id())
        .collect();
    let mut firmware = Firmware {
        builder,
        pages: Vec::new(),
        mapped: None,
    };
    let mut buses = |id| {
        let read = |bdf, offset| Mechanism1(bdf).read32(offset);
        buses_behind(Bdf::from_requester_id(id), read)
    };
    let buffer = &mut [0; TABLE];
    let found = find_unit(&mut firmware, root_pointer, buffer, &assigned, &mut buses);
    firmware.end();
    let room = u64::from(place.pages) * PAGE_SIZE;
    let nothing = (IommuKind::None, 0, 0, 0);
    let (kind, registers, size, ioapic) = match found {
        Ok(Found::Amd {
            registers, ioapic, ..
        }) => (IommuKind::Amd, registers, AMD_SIZE.min(room), ioapic),
        Ok(Found::Intel {
            registers, ioapic, ..
        }) => (IommuKind::Intel, registers, PAGE_SIZE, ioapic),
        Ok(Found::None) => {
            defmt::warn!("the firmware tells of no IOMMU");
            nothing
        }
        Err(unusable) => {
            defmt::warn!("the IOMMU cannot be used: {=str}", unusable.reason());
            nothing
        }
    };
    let pages = register_pages(builder, registers, size);
    let (kind, registers, size, ioapic) = match pages {
        Some(_) => (kind, registers, size, ioapic),
        None => {
            defmt::warn!(
                "the IOMMU cannot be used: its ACPI table is malformed: it puts the registers at \
                 {=u64:#x}, where there is RAM, or another device, or nothing",
                registers
            );
            nothing
        }
    };
    for (page, frame) in (0..).zip(pages.unwrap_or_default()) {
        let address = place.address + page * PAGE_SIZE;
        map_device(builder, frame, place.vspace, address, "the IOMMU");
        let slot = place.slot + page as u32;
        builder.give(frame, place.cnode, slot, "the IOMMU");
    }
    let tables: LargePage = builder.cap(place.tables, 0);
    let Ok(tables) = tables.frame_get_address() else {
        fatal!("the IOMMU's tables have no address");
    };
    let info = IommuInfo {
        kind,
        ioapic: ioapic.into(),
        registers,
        registers_size: size,
        tables: tables as u64,
        tables_size: builder.system.objects[place.tables as usize].pages << 21,
    };
    builder.write(place.info, info.as_bytes());
    if kind != IommuKind::None {
        defmt::info!("{=str} unit at {=u64:#x}", kind.product(), registers);
    }
    info
}
