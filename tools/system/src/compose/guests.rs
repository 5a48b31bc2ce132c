//! Guests and the functions that are assigned to them.

use std::ops::Range;

use pci::regs::{CONFIG_ADDRESS, CONFIG_DATA};
use pci::{GUEST_BAR_SLOTS, GUEST_BAR_TABLES, MAX_MSIX_PAGES, RESET_PAGES};
use spec::names::{
    self, Assigned, CNode, IntxHandler, IntxPin, Key, Ports, Priorities, Region, Slot, Turn,
};
use spec::{
    BADGE_CALL, BY_TABLES, Cache, FAULT_SLOT, Function, Mapping, NONE, Name, ObjectKind, OnExit,
    OnFault, PERIOD_US, Requires, Rights, Start, Thread,
};

use super::builder::{Builder, Place};
use super::components::badge_of;
use super::image::{ComposeError, PAGE, Programs, RING_SIZE};
use super::ram::{self, LARGE_PAGE_BITS, Piece};
use crate::manifest::Authority;
use crate::model::{Guest, Model, Policy};

/// A guest's: its fault endpoint and nothing else.
const GUEST_CNODE_BITS: u32 = 2;
/// Memory from which a vmm makes the paging structures for BARs, 4 KiB each.
const VMM_UNTYPED_BITS: u32 = GUEST_BAR_TABLES.ilog2() + 12;

/// A guest's RAM: its pieces, each with its object.
pub type Ram = Vec<(Piece, u32)>;

/// Makes a guest with so many slots and what components have of it, and returns its RAM.
pub fn add_guest(
    builder: &mut Builder,
    model: &Model,
    index: usize,
    slots: u64,
    console: Option<usize>,
    places: &mut [Place],
    programs: &Programs,
) -> Ram {
    let guest = &model.guests[index];
    let name = format!("guest:{}", guest.name);
    let endpoint = places[guest.vmm].endpoint;
    let read_only = programs.read_only.get(&guest.name);
    let own = own(builder, guest, index, endpoint, read_only);
    // For the IRQ handler capabilities: one for each slot.
    let handlers_bits = slots.next_power_of_two().ilog2().max(1);
    let handlers = builder.object(
        &format!("{name}:slots"),
        ObjectKind::CNode,
        handlers_bits,
        0,
    );
    let routes = builder.memory(&format!("{name}:routes"), PAGE);
    let events = builder.memory(&format!("{name}:events"), PAGE);
    let notification = places[guest.vmm].notification;
    let output = builder.memory(&format!("{name}:console"), RING_SIZE);

    let place = &mut places[guest.vmm];
    // Threads of components come first, in the components' order.
    let vmm = &mut builder.image.threads[guest.vmm];
    vmm.max_priority = vmm.priority;
    vmm.may_stop = u32::from(guest.on_exit == OnExit::Stop);
    let (own_tcb, own_priority) = (vmm.tcb, u64::from(vmm.priority));
    let untyped = builder.object(&name, ObjectKind::Untyped, VMM_UNTYPED_BITS, 0);
    for (key, object) in [
        (names::OWN_TCB, own_tcb),
        (names::GUEST_TCB, own.tcb),
        (names::GUEST_VSPACE, own.vspace),
        (names::GUEST_UNTYPED, untyped),
    ] {
        builder.grant(place, (key, Slot), object, Rights::ALL, 0);
    }
    let key = (names::EVENT_NOTIFICATION, Slot);
    builder.grant(place, key, notification, Rights::READ, 0);
    let priorities = Priorities {
        component: own_priority,
        guest: guest.priority.into(),
    };
    place.tell(names::PRIORITIES, priorities);
    place.tell(names::SHARE, turn(model, index));
    builder.grant_own_cnode(place);
    let slot_cnode = |slot| CNode {
        slot,
        bits: handlers_bits.into(),
    };
    builder.grant(place, (names::SLOTS, slot_cnode), handlers, Rights::ALL, 0);
    let table_slots = place.empty_slots(GUEST_BAR_TABLES);
    place.tell(names::TABLE_SLOTS, table_slots);
    let second = programs.second_addresses.get(&guest.name).copied();
    map_ram(builder, place, guest, second, &own);
    let file = programs
        .guests
        .get(&guest.name)
        .map_or(&[][..], Vec::as_slice);
    show(
        builder,
        place,
        names::GUEST_IMAGE,
        &format!("{name}:image"),
        file,
    );
    let shim = programs.shims.get(&guest.name);
    place.tell(names::SHIM, shim == Some(&true));
    let text = if shim.is_some() {
        ""
    } else {
        &guest.command_line
    };
    let (key, text) = (names::COMMAND_LINE, text.as_bytes());
    show(builder, place, key, &format!("{name}:command-line"), text);
    builder.share(place, names::ROUTES, routes, Rights::READ, PAGE);
    builder.share(place, names::EVENTS, events, Rights::READ_WRITE, PAGE);
    place.tell(names::INTERRUPT_BUDGET, guest.interrupt_budget);
    place.tell(names::ON_EXIT, guest.on_exit);
    place.tell(names::PC, guest.pc);
    let rewritten = programs.rewritten.contains(&guest.name);
    place.tell(names::REWRITTEN, rewritten);
    builder.share(
        place,
        names::GUEST_CONSOLE,
        output,
        Rights::READ_WRITE,
        RING_SIZE,
    );

    if let Some(console) = console {
        let place = &mut places[console];
        let key = names::EVENTS_OF.of(&guest.name);
        builder.share(place, key, events, Rights::READ, PAGE);
        let key = names::CONSOLE_OF.of(&guest.name);
        builder.share(place, key, output, Rights::READ_WRITE, RING_SIZE);
    }
    if let Some(router) = model.holder(Authority::IrqControl) {
        let place = &mut places[router];
        let key = (names::SLOTS_OF.of(&guest.name), slot_cnode);
        builder.grant(place, key, handlers, Rights::ALL, 0);
        place.tell(names::SLOT_COUNT_OF.of(&guest.name), slots);
        let key = (names::NOTIFICATION_OF.of(&guest.name), Slot);
        // Unbadged: the router mints one badge bit for each slot.
        builder.grant(place, key, notification, Rights::WRITE, 0);
        let key = names::ROUTES_OF.of(&guest.name);
        builder.share(place, key, routes, Rights::READ_WRITE, PAGE);
    }
    own.ram
}

/// What a guest has: objects of its own, and its RAM.
struct Own {
    vspace: u32,
    tcb: u32,
    ram: Ram,
}

/// Makes a guest's own objects. Its faults go to `endpoint`, its vmm's.
/// It cannot write the addresses `read_only`.
fn own(
    builder: &mut Builder,
    guest: &Guest,
    index: usize,
    endpoint: u32,
    read_only: Option<&Vec<Range<u64>>>,
) -> Own {
    let name = format!("guest:{}", guest.name);
    let cnode = builder.object(&name, ObjectKind::CNode, GUEST_CNODE_BITS, 0);
    let vspace = builder.object(&name, ObjectKind::VSpace, 0, 0);
    let tcb = builder.object(&name, ObjectKind::Tcb, 0, 0);
    let offset = |address: u64| address.saturating_sub(guest.address);
    let no_first = read_only.is_some() && guest.address == 0;
    let read_only: Vec<Range<u64>> = read_only
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .map(|part| offset(part.start)..offset(part.end))
        .collect();
    let pieces = ram::pieces(guest.memory, no_first, &read_only);
    let ram = pieces
        .into_iter()
        .map(|piece| {
            let object = builder.object(&name, ObjectKind::Memory, piece.size_bits, piece.pages);
            builder.image.objects[object as usize].address = guest.machine_address + piece.offset;
            (piece, object)
        })
        .collect();
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
        start: Start::Guest,
        ipc_address: 0,
        entry: 0,
        stack_top: 0,
        fault_slot: FAULT_SLOT,
        on_fault: OnFault::Stop,
        guest: index as u64,
    });
    Own { vspace, tcb, ram }
}

/// Maps a guest's RAM for the guest and for its vmm, which holds the pages of both.
/// The guest has it at a second address too, if there is one.
fn map_ram(
    builder: &mut Builder,
    place: &mut Place,
    guest: &Guest,
    second: Option<u64>,
    own: &Own,
) {
    let here = place.reserve(guest.memory, 1 << LARGE_PAGE_BITS);
    for (piece, object) in &own.ram {
        let at = |start| piece.rights.map(|rights| (own.vspace, start, rights));
        let there = [at(guest.address), second.and_then(at)];
        let here = (place.vspace, here, Rights::READ_WRITE);
        for (vspace, start, rights) in there.into_iter().flatten().chain([here]) {
            let holder_slot = place.slots(piece.pages as u32);
            builder.image.mappings.push(Mapping {
                vspace,
                object: *object,
                address: start + piece.offset,
                rights,
                cache: Cache::WriteBack,
                holder: place.cnode,
                holder_slot,
            });
        }
    }
    let region = Region {
        address: here,
        length: guest.memory,
    };
    place.tell(names::GUEST_RAM, region);
    place.tell(names::GUEST_ADDRESS, guest.address);
    place.tell(names::GUEST_SECOND_ADDRESS, second.unwrap_or_default());
}

/// Makes memory with these bytes and shows it to a component.
fn show(builder: &mut Builder, place: &mut Place, key: Key<'_, Region>, name: &str, bytes: &[u8]) {
    let length = bytes.len() as u64;
    let memory = builder.memory(name, length);
    builder.fill(memory, 0, bytes);
    builder.share(place, key, memory, Rights::READ, length);
}

/// Returns when in each period a guest has its turn. Guests of the same priority share
/// the period in the file's order.
fn turn(model: &Model, index: usize) -> Turn {
    let equals = |guest: &&Guest| guest.priority == model.guests[index].priority;
    let sum = |guests: &[Guest]| -> u64 { guests.iter().filter(equals).map(|g| g.share).sum() };
    let all = sum(&model.guests).max(1);
    let at = |share: u64| share * PERIOD_US / all;
    let start = at(sum(&model.guests[..index]));
    let length = at(sum(&model.guests[..=index])) - start;
    Turn { start, length }
}

/// Gives the ports of configuration space to the component that reaches it, on a board that
/// may have no window for that.
fn config_ports(builder: &mut Builder, model: &Model, places: &mut [Place]) {
    let (window, _) = model.board.ecam;
    let holder = model.holder(Authority::ConfigurationSpace);
    let Some(holder) = holder.filter(|_| !model.devices.is_empty()) else {
        return;
    };
    if ![0, BY_TABLES].contains(&window) {
        return;
    }
    let object = builder.object("configuration", ObjectKind::IoPorts, 0, 0);
    let ports = &mut builder.image.objects[object as usize];
    (ports.first_port, ports.last_port) = (CONFIG_ADDRESS, CONFIG_DATA + 3);
    ports.requires = Requires::ConfigPorts;
    let ports = |slot| Ports {
        slot,
        first: CONFIG_ADDRESS.into(),
    };
    let key = (names::CONFIG_PORTS, ports);
    builder.grant(&mut places[holder], key, object, Rights::ALL, 0);
}

pub fn functions(
    builder: &mut Builder,
    model: &Model,
    rams: &[Ram],
    places: &mut [Place],
) -> Result<(), ComposeError> {
    config_ports(builder, model, places);
    let mut bar_slots = vec![None; model.guests.len()];
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
        // Init tries what the function reaches in a large page: the last is one.
        let Some(measured) = rams[owner].last() else {
            return Err(ComposeError(format!("the guest of {name} has no memory")));
        };
        let info = builder.memory(&format!("function:{name}"), PAGE);
        let iommu = model.holder(Authority::Iommu);
        for component in [config, msix, vmm].into_iter().chain(iommu) {
            let key = names::FUNCTION.of(name);
            builder.share(&mut places[component], key, info, Rights::READ, PAGE);
        }
        let badge = |interface| badge_of(model, interface, vmm);
        let key = names::OWNER.of(name);
        places[config].tell(key, badge(channel::pci_config::NAME));
        places[msix].tell(key, badge(channel::msix::table::NAME));
        if let Some(iommu) = iommu {
            let place = &mut places[iommu];
            place.tell(key, badge(channel::iommu::dma::NAME));
            let key = names::STOP_ON_DMA_FAULT.of(name);
            place.tell(key, device.stop_on_dma_fault);
        }
        if let Some(pin) = device.intx.map(u64::from) {
            let function = index as u64;
            places[router].tell(names::INTX_PIN.of(name), IntxPin { function, pin });
            // Room for the vmm's copy of the handler capability.
            let slot = places[vmm].slots(1).into();
            places[vmm].tell(names::INTX_HANDLER.of(name), IntxHandler { slot, pin });
        }
        let place = &mut places[config];
        let (config_slot, config_address) = (place.slots(1), place.reserve(PAGE, PAGE));
        let region = |address, length| Region { address, length };
        place.tell(names::CONFIG.of(name), region(config_address, PAGE));
        let (registers_slot, registers_address) = (
            place.slots(RESET_PAGES as u32),
            place.reserve(RESET_PAGES * PAGE, PAGE),
        );
        let registers = region(registers_address, RESET_PAGES * PAGE);
        place.tell(names::RESET_REGISTERS.of(name), registers);
        let place = &mut places[msix];
        let size = MAX_MSIX_PAGES as u64 * PAGE;
        let (msix_slot, msix_address) = (
            place.slots(MAX_MSIX_PAGES as u32),
            place.reserve(size, PAGE),
        );
        place.tell(names::MSIX.of(name), region(msix_address, size));
        let place = &mut places[vmm];
        // Init shares them out among the functions of the guest.
        let bar_slot = *bar_slots[owner].get_or_insert_with(|| place.slots(GUEST_BAR_SLOTS));
        builder.image.functions.push(Function {
            name: Name::new(name),
            selector: device.selector,
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
            bar_slots: GUEST_BAR_SLOTS,
            ram: measured.1,
            dma_address: model.guests[owner].address + measured.0.offset,
            shares_group: u16::from(device.shares_group),
            firmware_memory: device.firmware_memory,
            guest_address: model.guests[owner].address,
        });
    }
    Ok(())
}

/// Tells a component how guests and functions are called, in their order, for
/// what it says to people.
pub fn whose(place: &mut Place, model: &Model) {
    for (index, guest) in model.guests.iter().enumerate() {
        place.tell(names::GUEST.of(&guest.name), index as u64);
    }
    for (index, device) in model.devices.iter().enumerate() {
        let assigned = Assigned {
            guest: model.owner(index).unwrap_or_default() as u64,
            bdf: device.guest_address.requester_id().into(),
        };
        place.tell(names::ASSIGNED.of(&device.name), assigned);
    }
}
