//! Components: their programs, board devices and channels.

use spec::names::{self, Ports, Region, Signal, Slot};
use spec::{
    BADGE_FIRST_IRQ, BADGE_TIMER, Cache, ENDPOINT_SLOT, FAULT_SLOT, IPC_BUFFER_ADDRESS, Mapping,
    Name, ObjectKind, REGIONS_ADDRESS, Requires, Rights, STACK_TOP, Start, Thread, VECTORS,
    call_badge,
};

use super::builder::{Builder, Place};
use super::image::{ComposeError, PAGE, Programs};
use crate::board::{HPET, PIT, Trigger};
use crate::model::{Component, Model};

pub fn new_place(builder: &mut Builder, component: &Component) -> Place {
    let name = &component.name;
    let cnode_bits = component.program.cnode_bits;
    let cnode = builder.object(name, ObjectKind::CNode, cnode_bits, 0);
    let vspace = builder.object(name, ObjectKind::VSpace, 0, 0);
    let endpoint = builder.object(name, ObjectKind::Endpoint, 0, 0);
    let notification = builder.object(name, ObjectKind::Notification, 0, 0);
    Place {
        cnode,
        cnode_bits,
        vspace,
        endpoint,
        notification,
        next_slot: ENDPOINT_SLOT as u32 + 1,
        next_address: REGIONS_ADDRESS,
        resources: Vec::new(),
    }
}

/// Checks that each stack holds the calls of its component's program.
pub fn stacks(model: &Model, programs: &Programs) -> Result<(), ComposeError> {
    let small = model.components.iter().filter_map(|component| {
        let program = &component.program.name;
        let needed = programs
            .components
            .get(program)?
            .stack
            .next_multiple_of(PAGE);
        let (has, needs) = (component.stack >> 10, needed >> 10);
        let name = &component.name;
        (has < needs)
            .then(|| format!("{name} has a stack of {has}K, but {program}'s calls take {needs}K"))
    });
    let small: Vec<String> = small.collect();
    if small.is_empty() {
        return Ok(());
    }
    Err(ComposeError(small.join("; ")))
}

/// Returns the component's segments, stack, IPC buffer and thread.
pub fn program(
    builder: &mut Builder,
    component: &Component,
    guest: u64,
    place: &Place,
    programs: &Programs,
) -> Result<(), ComposeError> {
    let name = &component.name;
    let program = programs.components.get(&component.program.name);
    for (index, segment) in program.iter().flat_map(|p| &p.segments).enumerate() {
        let start = segment.address & !(PAGE - 1);
        let end = segment.address + segment.size;
        if start < STACK_TOP || end > REGIONS_ADDRESS {
            return Err(ComposeError(format!(
                "program {} has a segment at {start:#x} to {end:#x}; it must lie between \
                 {STACK_TOP:#x} and {REGIONS_ADDRESS:#x}",
                component.program.name
            )));
        }
        let memory = builder.memory(&format!("{name}:segment-{index}"), end - start);
        builder.fill(memory, segment.address - start, &segment.bytes);
        builder.image.objects[memory as usize].renewed = segment.writable;
        let rights = if segment.writable {
            Rights::READ_WRITE
        } else {
            Rights::READ
        };
        builder.map(place.vspace, memory, start, rights);
    }
    let stack = builder.memory(&format!("{name}:stack"), component.stack);
    builder.map(
        place.vspace,
        stack,
        STACK_TOP - component.stack,
        Rights::READ_WRITE,
    );
    let ipc_buffer = builder.memory(&format!("{name}:ipc-buffer"), PAGE);
    builder.map(
        place.vspace,
        ipc_buffer,
        IPC_BUFFER_ADDRESS,
        Rights::READ_WRITE,
    );
    let tcb = builder.object(name, ObjectKind::Tcb, 0, 0);
    builder.image.threads.push(Thread {
        name: Name::new(name),
        tcb,
        cnode: place.cnode,
        vspace: place.vspace,
        ipc_buffer,
        notification: place.notification,
        priority: u32::from(component.priority),
        max_priority: 0,
        may_stop: 0,
        stack,
        start: if component.program.starts_first {
            Start::First
        } else {
            Start::Boot
        },
        ipc_address: IPC_BUFFER_ADDRESS,
        entry: program.map_or(0, |program| program.entry),
        stack_top: STACK_TOP,
        fault_slot: FAULT_SLOT,
        on_fault: component.on_fault,
        guest,
    });
    Ok(())
}

/// Hands out ports, registers and interrupts. I/O APIC interrupts take user
/// vectors from the top; gives how many are left below them.
pub fn board_devices(builder: &mut Builder, model: &Model, places: &mut [Place]) -> u64 {
    let mut next_vector = u64::from(VECTORS);
    for (component, place) in model.components.iter().zip(places) {
        let mut badge = BADGE_FIRST_IRQ;
        for &device in &component.devices {
            let device = &model.board.devices[device];
            let requires = match device.name.as_str() {
                HPET => Requires::Hpet,
                PIT => Requires::Pit,
                _ => Requires::Nothing,
            };
            if let Some((first, last)) = device.ports {
                let object = builder.object(&device.name, ObjectKind::IoPorts, 0, 0);
                let ports = &mut builder.image.objects[object as usize];
                ports.first_port = first;
                ports.last_port = last;
                ports.requires = requires;
                let ports = |slot| Ports {
                    slot,
                    first: first.into(),
                };
                let key = (names::PORTS.of(&device.name), ports);
                builder.grant(place, key, object, Rights::ALL, 0);
            }
            if let Some((base, size)) = device.memory {
                let pages = size / PAGE;
                let object = builder.object(&device.name, ObjectKind::Device, 12, pages);
                let registers = &mut builder.image.objects[object as usize];
                registers.address = base;
                registers.requires = requires;
                let address = place.reserve(size, PAGE);
                let holder_slot = place.slots(pages as u32);
                builder.image.mappings.push(Mapping {
                    vspace: place.vspace,
                    object,
                    address,
                    rights: Rights::READ_WRITE,
                    cache: Cache::Uncached,
                    holder: place.cnode,
                    holder_slot,
                });
                let length = size;
                let key = names::REGISTERS.of(&device.name);
                place.tell(key, Region { address, length });
            }
            // The I/O APIC is blocked where interrupts are remapped.
            let by_message = model.remaps() && device.message;
            if let Some((pin, trigger)) = device.irq.filter(|_| by_message || !model.remaps()) {
                next_vector -= 1;
                let kind = if by_message {
                    ObjectKind::MessageIrq
                } else {
                    ObjectKind::IoApicIrq
                };
                let object = builder.object(&device.name, kind, 0, 0);
                let irq = &mut builder.image.objects[object as usize];
                irq.pin = pin;
                irq.requires = requires;
                irq.level = trigger == Trigger::Level;
                irq.vector = next_vector;
                let signal = |slot| Signal { slot, badge };
                let key = (names::IRQ.of(&device.name), signal);
                builder.grant(place, key, object, Rights::ALL, 0);
                let notification = place.notification;
                let key = (names::IRQ_NOTIFICATION.of(&device.name), Slot);
                builder.grant(place, key, notification, Rights::WRITE, badge);
                if by_message {
                    place.tell(names::IRQ_VECTOR.of(&device.name), next_vector);
                }
                badge <<= 1;
            }
        }
    }
    next_vector
}

pub fn channels(builder: &mut Builder, model: &Model, places: &mut [Place]) {
    for (index, channel) in model.channels.iter().enumerate() {
        let badge = call_badge(index as u64 + 1);
        let endpoint = places[channel.server].endpoint;
        let key = (names::CHANNEL.of(&channel.interface), Slot);
        let client = &mut places[channel.client];
        // Grant lets the kernel make the reply capability of a call.
        builder.grant(client, key, endpoint, Rights::FAULT, badge);
        let notification = client.notification;
        let client_name = &model.components[channel.client].name;
        let server = &mut places[channel.server];
        let name = format!("{}:{client_name}", channel.interface);
        server.tell(names::CLIENT.of(&name), badge);
        let program = &model.components[channel.server].program;
        if program.signals.contains(&channel.interface) {
            let signal = |slot| Signal { slot, badge };
            let key = (names::NOTIFY.of(client_name), signal);
            builder.grant(server, key, notification, Rights::WRITE, BADGE_TIMER);
        }
    }
}

/// Returns the badge with which a component calls over an interface.
pub fn badge_of(model: &Model, interface: &str, client: usize) -> u64 {
    model
        .channels
        .iter()
        .position(|c| c.interface == interface && c.client == client)
        .map_or(0, |index| call_badge(index as u64 + 1))
}
