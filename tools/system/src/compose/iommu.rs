//! What the iommu component gets: the units, memory for its tables, and a
//! capability for everything that it maps.

use spec::names::{self, Region, Slots};
use spec::{Cache, IommuPlace, Mapping, ObjectKind, Rights, UNITS};

use super::builder::{Builder, Place};
use super::guests::Ram;
use super::image::PAGE;
use super::ram::LARGE_PAGE_BITS;
use crate::manifest::Authority;
use crate::model::Model;

/// Large pages for tables: AMD's device table alone takes one (48882 rev 3.08,
/// section 2.2.2: 32 bytes for each of 65536 requester ids).
const TABLE_PAGES: u64 = 2;
/// Pages of registers: those of as many units as there can be, of which AMD-Vi's have 4.
const REGISTER_PAGES: u32 = 4 * UNITS as u32;

/// Returns the places for the units that init will find.
pub fn units(builder: &mut Builder, model: &Model, places: &mut [Place]) -> IommuPlace {
    let Some(index) = model.holder(Authority::Iommu) else {
        return IommuPlace::NONE;
    };
    let place = &mut places[index];
    let info = builder.memory("iommu-info", PAGE);
    builder.share(place, names::IOMMU_INFO, info, Rights::READ, PAGE);
    let tables = builder.object(
        "iommu-tables",
        ObjectKind::Memory,
        LARGE_PAGE_BITS,
        TABLE_PAGES,
    );
    let size = TABLE_PAGES << LARGE_PAGE_BITS;
    let address = place.reserve(size, 1 << LARGE_PAGE_BITS);
    // The component holds them itself: nobody else is to write them.
    let holder_slot = place.slots(TABLE_PAGES as u32);
    builder.image.mappings.push(Mapping {
        vspace: place.vspace,
        object: tables,
        address,
        rights: Rights::READ_WRITE,
        cache: Cache::WriteBack,
        holder: place.cnode,
        holder_slot,
    });
    let length = size;
    place.tell(names::IOMMU_TABLES, Region { address, length });
    let length = u64::from(REGISTER_PAGES) * PAGE;
    let (slot, address) = (place.slots(REGISTER_PAGES), place.reserve(length, PAGE));
    place.tell(names::IOMMU_REGISTERS, Region { address, length });
    IommuPlace {
        info,
        tables,
        vspace: place.vspace,
        cnode: place.cnode,
        slot,
        pages: REGISTER_PAGES,
        address,
    }
}

/// Grants the guests' RAM, a capability for each page, and tells which function may be given
/// which of it.
pub fn guests(builder: &mut Builder, model: &Model, rams: &[Ram], places: &mut [Place]) {
    let Some(index) = model.holder(Authority::Iommu) else {
        return;
    };
    let place = &mut places[index];
    for (guest, ram) in model.guests.iter().zip(rams) {
        let first = place.next_slot;
        let mut split = 0;
        for (piece, object) in ram {
            let slot = place.slots(piece.pages as u32);
            builder.capability(place.cnode, slot, *object, Rights::READ_WRITE, 0);
            if piece.size_bits < LARGE_PAGE_BITS {
                split |= 1 << (piece.offset >> LARGE_PAGE_BITS);
            }
        }
        for &device in &guest.devices {
            let name = &model.devices[device].name;
            let slots = Slots {
                first: first.into(),
                count: (place.next_slot - first).into(),
            };
            place.tell(names::DMA.of(name), slots);
            place.tell(names::DMA_SPLIT.of(name), split);
            place.tell(names::DMA_ADDRESS.of(name), guest.address);
        }
    }
}
