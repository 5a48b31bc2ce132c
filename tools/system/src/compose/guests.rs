//! Guests and the functions that are assigned to them.

use pci::{MAX_MSIX_PAGES, MODEL_RESET_PAGES};
use spec::{
    BADGE_CALL, Cache, FAULT_SLOT, Function, Mapping, NONE, Name, ObjectKind, OnExit, OnFault,
    PERIOD_US, ResourceKind, Rights, SLOTS, Thread,
};

use super::builder::{Builder, Place};
use super::components::badge_of;
use super::{ComposeError, PAGE, Programs};
use crate::manifest::Authority;
use crate::model::{Guest, Model, Policy};

const LARGE_PAGE_BITS: u32 = 21;
/// A guest's: its fault endpoint and nothing else.
const GUEST_CNODE_BITS: u32 = 2;
/// Slots for the IRQ handler capabilities of one guest: one a badge bit.
const SLOT_CNODE_BITS: u32 = 5;
/// BAR pages that one vmm can be given; each is a slot of its CNode.
const BAR_SLOTS: u32 = 4096;
/// Memory from which a vmm makes the page tables for BARs: 503 tables at most,
/// 4 KiB each (`vmm::MMIO_WINDOW`).
const VMM_UNTYPED_BITS: u32 = 21;
/// Slots for those tables.
const VMM_TABLE_SLOTS: u32 = 512;

/// Makes a guest and what its vmm has of it; gives its RAM.
pub fn add_guest(
    builder: &mut Builder,
    model: &Model,
    index: usize,
    guest: &Guest,
    console: Option<usize>,
    places: &mut [Place],
    programs: &Programs,
) -> u32 {
    let name = format!("guest:{}", guest.name);
    let cnode = builder.object(&name, ObjectKind::CNode, GUEST_CNODE_BITS, 1);
    let vspace = builder.object(&name, ObjectKind::VSpace, 0, 1);
    let tcb = builder.object(&name, ObjectKind::Tcb, 0, 1);
    let pages = guest.memory >> LARGE_PAGE_BITS;
    let ram = builder.object(&name, ObjectKind::Memory, LARGE_PAGE_BITS, pages);
    builder.image.objects[ram as usize].address = guest.address;
    let endpoint = places[guest.vmm].endpoint;
    builder.capability(
        cnode,
        FAULT_SLOT as u32,
        endpoint,
        Rights::FAULT,
        BADGE_CALL,
    );
    builder.image.threads.push(Thread {
        name: Name::new(&name),
        tcb,
        cnode,
        vspace,
        ipc_buffer: NONE,
        notification: NONE,
        priority: u32::from(guest.priority),
        max_priority: 0,
        may_stop: 0,
        stack: NONE,
        start: 0,
        ipc_address: 0,
        entry: 0,
        stack_top: 0,
        fault_slot: FAULT_SLOT,
        tls_base: PAGE * (index as u64 + 1),
        on_fault: OnFault::Stop as u64,
        guest: index as u64,
    });
    let slots = builder.object(
        &format!("{name}:slots"),
        ObjectKind::CNode,
        SLOT_CNODE_BITS,
        1,
    );
    let routes = builder.memory(&format!("{name}:routes"), PAGE);
    let events = builder.memory(&format!("{name}:events"), PAGE);
    let notification = places[guest.vmm].notification;
    let ring_size = size_of::<shm::Ring>() as u64;
    let output = builder.memory(&format!("{name}:console"), ring_size);

    let place = &mut places[guest.vmm];
    // Threads of components come first, in the components' order.
    let vmm = &mut builder.image.threads[guest.vmm];
    vmm.max_priority = vmm.priority;
    vmm.may_stop = u32::from(guest.on_exit == OnExit::Stop);
    let (own_tcb, own_priority) = (vmm.tcb, u64::from(vmm.priority));
    builder.grant(place, "own-tcb", own_tcb, Rights::ALL, 0, 0);
    let priority = u64::from(guest.priority);
    place.tell(ResourceKind::Number, "priorities", own_priority, priority);
    let (start, length) = turn(model, index);
    place.tell(ResourceKind::Number, "share", start, length);
    builder.grant(place, "guest-tcb", tcb, Rights::ALL, 0, 0);
    builder.grant(place, "guest-vspace", vspace, Rights::ALL, 0, 0);
    let untyped = builder.object(&name, ObjectKind::Untyped, VMM_UNTYPED_BITS, 1);
    builder.grant(
        place,
        "guest-untyped",
        untyped,
        Rights::ALL,
        0,
        u64::from(VMM_UNTYPED_BITS),
    );
    let (own_cnode, bits) = (place.cnode, u64::from(place.cnode_bits));
    builder.grant(place, "cnode", own_cnode, Rights::ALL, 0, bits);
    builder.grant(
        place,
        "slots",
        slots,
        Rights::ALL,
        0,
        u64::from(SLOT_CNODE_BITS),
    );
    let first = place.slots(VMM_TABLE_SLOTS);
    place.tell(
        ResourceKind::Number,
        "free-slots",
        u64::from(first),
        u64::from(VMM_TABLE_SLOTS),
    );
    let here = place.reserve(guest.memory, 1 << LARGE_PAGE_BITS);
    for (vspace, address) in [(vspace, guest.address), (place.vspace, here)] {
        let holder_slot = place.slots(pages as u32);
        builder.image.mappings.push(Mapping {
            vspace,
            object: ram,
            address,
            rights: Rights::READ_WRITE,
            cache: Cache::WriteBack as u32,
            holder: place.cnode,
            holder_slot,
        });
    }
    place.tell(ResourceKind::Memory, "guest-ram", here, guest.memory);
    place.tell(ResourceKind::Number, "guest-address", guest.address, 0);
    let file = programs
        .guests
        .get(&guest.name)
        .map_or(&[][..], Vec::as_slice);
    let image = builder.memory(&format!("{name}:image"), file.len() as u64);
    builder.fill(image, 0, file);
    builder.share(place, "guest-image", image, Rights::READ, file.len() as u64);
    let text = guest.command_line.as_bytes();
    let command_line = builder.memory(&format!("{name}:command-line"), text.len() as u64);
    builder.fill(command_line, 0, text);
    builder.share(
        place,
        "command-line",
        command_line,
        Rights::READ,
        text.len() as u64,
    );
    builder.share(place, "routes", routes, Rights::READ, PAGE);
    builder.share(place, "events", events, Rights::READ_WRITE, PAGE);
    place.tell(
        ResourceKind::Number,
        "interrupt-budget",
        guest.interrupt_budget,
        0,
    );
    place.tell(ResourceKind::Number, "on-exit", guest.on_exit as u64, 0);
    builder.share(
        place,
        "guest-console",
        output,
        Rights::READ_WRITE,
        ring_size,
    );

    if let Some(console) = console {
        let name = format!("events:{}", guest.name);
        builder.share(&mut places[console], &name, events, Rights::READ, PAGE);
        let name = format!("guest-console:{}", guest.name);
        builder.share(
            &mut places[console],
            &name,
            output,
            Rights::READ_WRITE,
            ring_size,
        );
    }
    if let Some(router) = model.holder(Authority::IrqControl) {
        let place = &mut places[router];
        let bits = u64::from(SLOT_CNODE_BITS);
        builder.grant(
            place,
            &format!("slots:{}", guest.name),
            slots,
            Rights::ALL,
            0,
            bits,
        );
        let name = format!("vmm-notification:{}", guest.name);
        // Unbadged: the router mints one badge bit for each slot.
        builder.grant(place, &name, notification, Rights::WRITE, 0, SLOTS as u64);
        builder.share(
            place,
            &format!("routes:{}", guest.name),
            routes,
            Rights::READ_WRITE,
            PAGE,
        );
    }
    ram
}

/// When in each period a guest has its turn: start and length in microseconds.
/// Guests of the same priority share the period in the file's order.
fn turn(model: &Model, index: usize) -> (u64, u64) {
    let equals = |guest: &&Guest| guest.priority == model.guests[index].priority;
    let sum = |guests: &[Guest]| -> u64 { guests.iter().filter(equals).map(|g| g.share).sum() };
    let all = sum(&model.guests).max(1);
    let at = |share: u64| share * PERIOD_US / all;
    let start = at(sum(&model.guests[..index]));
    (start, at(sum(&model.guests[..=index])) - start)
}

pub fn functions(
    builder: &mut Builder,
    model: &Model,
    rams: &[u32],
    places: &mut [Place],
) -> Result<(), ComposeError> {
    for (index, device) in model.devices.iter().enumerate() {
        let holders = Authority::NEEDED.map(|authority| model.holder(authority));
        let (Some(owner), [Some(router), Some(msix), Some(config)]) = (model.owner(index), holders)
        else {
            return Err(ComposeError(format!(
                "device {} has no owner or no component that serves it",
                device.name
            )));
        };
        let vmm = model.guests[owner].vmm;
        let name = &device.name;
        let info = builder.memory(&format!("function:{name}"), PAGE);
        let iommu = model.holder(Authority::Iommu);
        for component in [config, msix, vmm].into_iter().chain(iommu) {
            let resource = format!("function:{name}");
            builder.share(&mut places[component], &resource, info, Rights::READ, PAGE);
        }
        let number = |place: &mut Place, value| {
            place.tell(ResourceKind::Number, &format!("owner:{name}"), value, 0);
        };
        number(&mut places[config], badge_of(model, "PciConfig", vmm));
        number(&mut places[msix], badge_of(model, "MsixTable", vmm));
        number(&mut places[router], owner as u64);
        if let Some(iommu) = iommu {
            number(&mut places[iommu], badge_of(model, "DmaControl", vmm));
            let name = format!("stop-on-dma-fault:{name}");
            let stop = u64::from(device.stop_on_dma_fault);
            places[iommu].tell(ResourceKind::Number, &name, stop, 0);
        }
        if let Some(pin) = device.intx {
            let resource = format!("intx:{name}");
            let pin = u64::from(pin);
            places[router].tell(ResourceKind::Number, &resource, index as u64, pin);
            // Room for the vmm's copy of the handler capability.
            let slot = places[vmm].slots(1);
            places[vmm].tell(ResourceKind::Number, &resource, slot.into(), pin);
        }
        let place = &mut places[config];
        let (config_slot, config_address) = (place.slots(1), place.reserve(PAGE, PAGE));
        place.tell(
            ResourceKind::Memory,
            &format!("config:{name}"),
            config_address,
            PAGE,
        );
        let (registers_slot, registers_address) = (
            place.slots(MODEL_RESET_PAGES as u32),
            place.reserve(MODEL_RESET_PAGES * PAGE, PAGE),
        );
        place.tell(
            ResourceKind::Memory,
            &format!("registers:{name}"),
            registers_address,
            MODEL_RESET_PAGES * PAGE,
        );
        let place = &mut places[msix];
        let size = MAX_MSIX_PAGES as u64 * PAGE;
        let (msix_slot, msix_address) = (
            place.slots(MAX_MSIX_PAGES as u32),
            place.reserve(size, PAGE),
        );
        place.tell(
            ResourceKind::Memory,
            &format!("msix:{name}"),
            msix_address,
            size,
        );
        let place = &mut places[vmm];
        place.tell(
            ResourceKind::Number,
            &format!("function-index:{name}"),
            index as u64,
            0,
        );
        let bar_slots = BAR_SLOTS / model.guests[owner].devices.len() as u32;
        let bar_slot = place.slots(bar_slots);
        builder.image.functions.push(Function {
            name: Name::new(name),
            selector: device.selector as u32,
            value: device.value,
            guest_bdf: u32::from(device.guest_address.requester_id()),
            permissive: u32::from(device.policy == Policy::Permissive),
            intx: device.intx.map_or(0, u32::from),
            trusted: u32::from(device.trusted),
            info,
            config_vspace: places[config].vspace,
            config_cnode: places[config].cnode,
            config_slot,
            config_address,
            msix_vspace: places[msix].vspace,
            msix_cnode: places[msix].cnode,
            msix_slot,
            bar_cnode: places[vmm].cnode,
            msix_address,
            registers_address,
            registers_slot,
            reset_optional: u32::from(device.reset_optional),
            bar_slot,
            bar_slots,
            ram: rams[owner],
            reserved: 0,
        });
    }
    Ok(())
}

/// Tells a component how guests and functions are called, in their order, for
/// what it says to people.
pub fn names(place: &mut Place, model: &Model) {
    for (index, guest) in model.guests.iter().enumerate() {
        let name = format!("guest:{}", guest.name);
        place.tell(ResourceKind::Number, &name, index as u64, 0);
    }
    for (index, device) in model.devices.iter().enumerate() {
        let guest = model.owner(index).unwrap_or_default() as u64;
        let name = format!("guest-of:{}", device.name);
        let address = device.guest_address.requester_id();
        place.tell(ResourceKind::Number, &name, guest, address.into());
    }
}
