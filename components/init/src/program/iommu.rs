//! Finds the IOMMU by the firmware's tables and hands its registers to the
//! iommu component.

use acpi_tables::{Found, find as find_unit};
use heapless::Vec;
use pci::{Bdf, PAGE_SIZE, buses_behind};
use sel4::cap::LargePage;
use spec::{Configuration, FUNCTIONS, IommuInfo, IommuKind, NONE};
use zerocopy::IntoBytes as _;

use super::builder::Builder;
use super::fatal::fatal;
use super::firmware::{Firmware, Pages};
use super::functions::{Found as Functions, map_device, read};

/// Longest table: that of a machine with one unit is much shorter.
pub const TABLE: usize = 4096;
/// Bytes of registers: AMD-Vi 16 KiB (48882 section 3.4), of VT-d those that
/// there is room for.
const AMD_SIZE: u64 = 4 * PAGE_SIZE;

/// Makes the pages of a unit's registers, unless one of them is RAM, the kernel's
/// (the local APIC and the I/O APIC), in the configuration window, or given to
/// somebody already.
fn register_pages(
    builder: &mut Builder<'_>,
    registers: u64,
    size: u64,
) -> Option<Vec<usize, { (AMD_SIZE / PAGE_SIZE) as usize }>> {
    let places = &builder.places;
    // 1 MiB for each bus (PCIe 6.0 section 7.2.2); of one that is not there, nothing.
    let buses = match places.configuration() {
        Configuration::Window => places.buses,
        Configuration::Ports => 0,
    };
    let window = places.ecam..places.ecam.saturating_add(buses << 20);
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
    pages: &mut Pages,
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
    let mut firmware = Firmware::new(builder, pages);
    let mut buses = |id| buses_behind(Bdf::from_requester_id(id), read);
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
