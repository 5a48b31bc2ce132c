//! Finds the IOMMU's units by the firmware's tables and hands their registers to the
//! iommu component.

use core::ops::Range;

use acpi_tables::{Found, Reserved, Units, find as find_unit};
use defmt::Display2Format;
use heapless::Vec;
use init::check_reserved;
use pci::{Bdf, PAGE_SIZE, buses_behind};
use sel4::cap::LargePage;
use spec::{
    BehindUnit, Configuration, FUNCTIONS, FirmwareMemory, IommuInfo, IommuKind, NONE, ReservedInfo,
    UNITS, UnitInfo,
};
use zerocopy::IntoBytes as _;

use super::builder::Builder;
use super::fatal::fatal;
use super::firmware::{Firmware, Pages};
use super::functions::{Found as Functions, map_device, read};

/// Longest table: that of a machine with some units is much shorter.
pub const TABLE: usize = 4096;
/// Bytes of a unit's registers: AMD-Vi 16 KiB (48882 section 3.4), of VT-d a page.
const AMD_SIZE: u64 = 4 * PAGE_SIZE;

/// Slots of the frames of a unit's registers.
type Frames = Vec<usize, { (AMD_SIZE / PAGE_SIZE) as usize }>;

/// Returns the configuration window: 1 MiB for each bus (PCIe 6.0 section 7.2.2); of one that
/// is not there, nothing.
fn configuration(builder: &Builder<'_>) -> Range<u64> {
    let places = &builder.places;
    let buses = match places.configuration() {
        Configuration::Window => places.buses,
        Configuration::Ports => 0,
    };
    places.ecam..places.ecam.saturating_add(buses << 20)
}

/// Makes the pages of a unit's registers, unless one of them is RAM, the kernel's
/// (the local APIC and the I/O APIC), in the configuration window, or given to
/// somebody already.
fn register_pages(builder: &mut Builder<'_>, registers: u64, size: u64) -> Option<Frames> {
    let window = configuration(builder);
    let mut frames = Frames::new();
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

/// Makes the pages of all units' registers, and tells of what makes them unusable.
fn all_pages(
    builder: &mut Builder<'_>,
    registers: &[u64],
    size: u64,
) -> Option<Vec<Frames, UNITS>> {
    let room = u64::from(builder.system.header.iommu.pages) * PAGE_SIZE;
    if registers.len() as u64 * size > room {
        defmt::warn!("the IOMMU cannot be used: the image has no room for all its registers");
        return None;
    }
    let mut all = Vec::new();
    for &registers in registers {
        let Some(frames) = register_pages(builder, registers, size) else {
            defmt::warn!(
                "the IOMMU cannot be used: its ACPI table is malformed: it puts the registers at \
                 {=u64:#x}, where there is RAM, or another device, or nothing",
                registers
            );
            return None;
        };
        // There are as many at most.
        let _ = all.push(frames);
    }
    Some(all)
}

/// Finds the units, if the system has a component for them, and hands their registers
/// and their description to that component. `root_pointer` is the one of the firmware's
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
    let mut info = IommuInfo::default();
    match &found {
        Ok(Found::Amd(units)) => {
            hand_over(
                builder,
                &mut info,
                (IommuKind::Amd, AMD_SIZE),
                units,
                &assigned,
            );
        }
        Ok(Found::Intel(units)) => {
            hand_over(
                builder,
                &mut info,
                (IommuKind::Intel, PAGE_SIZE),
                units,
                &assigned,
            );
        }
        Ok(Found::None) => defmt::warn!("the firmware tells of no IOMMU"),
        Err(unusable) => {
            defmt::warn!("the IOMMU cannot be used: {}", Display2Format(unusable));
        }
    }
    let tables: LargePage = builder.cap(place.tables, 0);
    let Ok(tables) = tables.frame_get_address() else {
        fatal!("the IOMMU's tables have no address");
    };
    info.tables = tables as u64;
    info.tables_size = builder.system.objects[place.tables as usize].pages << 21;
    builder.write(place.info, info.as_bytes());
    info
}

/// Hands the units' registers to the component, and describes them; nothing, if they cannot
/// be used. A unit has `size` bytes of registers.
fn hand_over(
    builder: &mut Builder<'_>,
    info: &mut IommuInfo,
    (kind, size): (IommuKind, u64),
    units: &Units,
    assigned: &[u16],
) {
    let Some(pages) = all_pages(builder, &units.registers, size) else {
        return;
    };
    let place = builder.system.header.iommu;
    for (page, frame) in (0..).zip(pages.into_iter().flatten()) {
        let address = place.address + page * PAGE_SIZE;
        map_device(builder, frame, place.vspace, address, "the IOMMU");
        let slot = place.slot + page as u32;
        builder.give(frame, place.cnode, slot, "the IOMMU");
    }
    info.kind = kind;
    info.ioapic = units.ioapic.into();
    info.unit_count = units.registers.len() as u32;
    for (unit, &registers) in info.units.iter_mut().zip(&units.registers) {
        *unit = UnitInfo { registers, size };
        defmt::info!("{=str} unit at {=u64:#x}", kind.product(), registers);
    }
    info.function_count = assigned.len() as u32;
    for (function, (&requester, &unit)) in
        (info.functions.iter_mut()).zip(assigned.iter().zip(&units.of))
    {
        let unit = unit.into();
        *function = BehindUnit { requester, unit };
        if units.registers.len() > 1 {
            defmt::info!(
                "{=u16:#06x} is behind the unit at {=u64:#x}",
                requester,
                units.registers[usize::from(unit)]
            );
        }
    }
    for reserved in &units.reserved {
        if may_reach(builder, reserved, assigned) {
            let place = info.reserved_count as usize;
            info.reserved[place] = ReservedInfo {
                start: reserved.start,
                end: reserved.end,
                requester: reserved.requester,
                unit: reserved.unit.into(),
                read: reserved.read.into(),
                write: reserved.write.into(),
            };
            info.reserved_count += 1;
        }
    }
}

/// Decides whether a function may reach a piece of the firmware's memory, and says so.
fn may_reach(builder: &Builder<'_>, reserved: &Reserved, assigned: &[u16]) -> bool {
    let Reserved {
        requester,
        start,
        end,
        ..
    } = *reserved;
    let bdf = Bdf::from_requester_id(requester);
    let position = assigned.iter().position(|own| *own == requester);
    let function = position.map(|position| &builder.system.functions[position]);
    if let Some(function) = function {
        let name = function.name.as_str();
        match function.firmware_memory {
            FirmwareMemory::Map => {}
            FirmwareMemory::Withhold => {
                defmt::warn!(
                    "device {=str}: it does not reach the firmware's memory at {}",
                    name,
                    Display2Format(reserved)
                );
                return false;
            }
            FirmwareMemory::Refuse => fatal!(
                "device {name} at {bdf}: firmware wants it to reach memory of its own at \
                 {reserved}. `firmware-memory = \"withhold\"` in [device.{name}] keeps \
                 it away, as suits USB controllers and graphics, which firmware uses before the \
                 boot; with \"map\" its guest can write what firmware reads"
            ),
        }
    }
    let guest = function.map(|function| {
        let ram = &builder.system.objects[function.ram as usize];
        function.guest_address..function.dma_address + (ram.pages << ram.size_bits)
    });
    let free = |range: &Range<u64>| builder.is_free_device(range);
    let checked = check_reserved(&(start..end), &configuration(builder), guest.as_ref(), free);
    match (checked, function) {
        (Ok(()), _) => {
            defmt::info!(
                "{=u16:#06x} reaches the firmware's memory at {}",
                requester,
                Display2Format(reserved)
            );
            true
        }
        (Err(why), Some(function)) => fatal!(
            "device {} at {bdf}: the firmware's memory at {reserved} cannot be \
             mapped for it: {why}",
            function.name.as_str()
        ),
        (Err(why), None) => {
            defmt::warn!(
                "{=u16:#06x} does not reach the firmware's memory at {}: {}",
                requester,
                Display2Format(reserved),
                Display2Format(&why)
            );
            false
        }
    }
}
