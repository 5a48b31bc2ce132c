//! Turns a checked system and its programs into the image that init carries
//! out.
//!
//! What a component gets is decided here and nowhere else; `vectis caps` prints
//! it from the same records.

mod builder;
mod components;
mod guests;
mod image;
mod iommu;
mod ram;
mod slots;

use spec::names::{self, Slot, Vectors};
use spec::{
    BADGE_DOORBELL, COM1, ENDPOINT_SLOT, FAULT_SLOT, Header, IPC_BUFFER_ADDRESS, ImageWriter,
    ObjectKind, RESOURCES_ADDRESS, Rights, VECTORS,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::manifest::Authority;
use crate::model::{Component, Model};
use builder::{Builder, Place};
use components::{board_devices, channels, new_place, program, stacks};
use guests::{add_guest, functions, whose};
use image::{PAGE, RING_SIZE};

pub use image::{ComposeError, Image, Options, Programs};

/// Composes the image. A program that is missing from `programs` leaves a
/// component without segments: good for looking at the records, not for
/// running.
///
/// # Errors
/// If something does not fit into a component's address space, CSpace or stack.
pub fn compose(
    model: &Model,
    programs: &Programs,
    options: Options,
) -> Result<Image, ComposeError> {
    // A system in which faults are injected may have components that overflow theirs.
    if !options.inject_faults {
        stacks(model, programs)?;
    }
    let mut builder = Builder::default();
    let monitor = builder.object("monitor", ObjectKind::Endpoint, 0, 0);
    let machine = builder.memory("machine", PAGE);
    let init_log = builder.memory("log:init", RING_SIZE);
    let mut logs = vec![(crate::ROOT_TASK.to_owned(), init_log)];
    let mut counters = Vec::new();
    let mut places = Vec::new();
    for (index, component) in model.components.iter().enumerate() {
        let mut place = new_place(&mut builder, component);
        let badge = index as u64 + 1;
        builder.capability(
            place.cnode,
            FAULT_SLOT as u32,
            monitor,
            Rights::FAULT,
            badge,
        );
        builder.capability(
            place.cnode,
            ENDPOINT_SLOT as u32,
            place.endpoint,
            Rights::READ,
            0,
        );
        builder.share(&mut place, names::MACHINE, machine, Rights::READ, PAGE);
        let (log, page) = own_memory(&mut builder, &mut place, component);
        logs.push((component.name.clone(), log));
        counters.push(page);
        place.tell(names::TRACE, options.trace);
        let guest = model.guests.iter().position(|guest| guest.vmm == index);
        let guest = guest.map_or(u64::MAX, |guest| guest as u64);
        program(&mut builder, component, guest, &place, programs)?;
        places.push(place);
    }
    let console = model.components.iter().position(|c| c.program.reads_logs);
    let doorbell = match console {
        Some(index) => places[index].notification,
        None => builder.object("doorbell", ObjectKind::Notification, 0, 0),
    };
    for place in &mut places {
        let doorbell_key = (names::DOORBELL, Slot);
        builder.grant(place, doorbell_key, doorbell, Rights::WRITE, BADGE_DOORBELL);
    }
    if let Some(index) = console {
        show_logs(&mut builder, &mut places[index], model, &logs, &counters);
    }
    let first_irq_vector = board_devices(&mut builder, model, &mut places);
    let unit = iommu::units(&mut builder, model, &mut places);
    channels(&mut builder, model, &mut places);
    if let Some(index) = model.holder(Authority::IrqControl) {
        irq_control(&mut builder, &mut places[index], first_irq_vector);
    }
    let counts = slots::counts(model, options.badge_bits, first_irq_vector)?;
    let mut rams = Vec::new();
    for (index, slots) in counts.into_iter().enumerate() {
        let ram = add_guest(
            &mut builder,
            model,
            index,
            slots,
            console,
            &mut places,
            programs,
        );
        rams.push(ram);
    }
    iommu::guests(&mut builder, model, &rams, &mut places);
    functions(&mut builder, model, &rams, &mut places)?;
    for place in &mut places {
        whose(place, model);
    }
    for (component, place) in model.components.iter().zip(&places) {
        finish(&mut builder, component, place)?;
    }
    let mut header = Header::new_zeroed();
    (header.ecam, header.buses) = model.board.ecam;
    let com1 = model.board.devices.iter().find(|d| d.name == "com1");
    let (com1, _) = com1.and_then(|com1| com1.ports).unwrap_or((COM1, COM1));
    header.com1 = u64::from(com1);
    let com2 = model.board.devices.iter().find(|d| d.name == "com2");
    let com2 = com2.and_then(|com2| com2.ports);
    header.com2 = com2.map_or(0, |(first, _)| first.into());
    header.console_by_tables = u64::from(model.board.console_by_tables);
    // One that no component has may be missing.
    let mut given = model.components.iter().flat_map(|c| &c.devices);
    let hpet = given.find(|index| model.board.devices[**index].name == "hpet");
    let hpet = hpet.and_then(|index| model.board.devices[*index].memory);
    header.hpet = hpet.map_or(0, |(base, _)| base);
    header.exit_port = u64::from(model.board.exit_port);
    header.machine = u64::from(machine);
    header.log = u64::from(init_log);
    header.monitor = u64::from(monitor);
    header.doorbell = u64::from(doorbell);
    header.inject_faults = u64::from(options.inject_faults);
    header.audit = u64::from(options.audit);
    header.probe = u64::from(options.probe);
    header.kernel = options.kernel;
    header.iommu = unit;
    builder.image.iommu = unit;
    header.gone = [Authority::ConfigurationSpace, Authority::Iommu].map(|authority| {
        let holder = model.holder(authority);
        holder.map_or(spec::NONE, |index| places[index].notification)
    });
    builder.image.log_writers = logs.into_iter().map(|(name, _)| name).collect();
    let mut image = builder.image;
    let mut bytes = Vec::new();
    ImageWriter {
        header,
        objects: &image.objects,
        capabilities: &image.capabilities,
        mappings: &image.mappings,
        fills: &builder.fills,
        threads: &image.threads,
        functions: &image.functions,
        data: &builder.data,
    }
    .write(|piece| bytes.extend_from_slice(piece));
    image.bytes = bytes;
    Ok(image)
}

/// Makes a component's log and counters, and the memory that a restart leaves as it is.
/// Returns its log and the page of its counters.
fn own_memory(builder: &mut Builder, place: &mut Place, component: &Component) -> (u32, u32) {
    let name = &component.name;
    let log = builder.memory(&format!("log:{name}"), RING_SIZE);
    builder.share(place, names::LOG, log, Rights::READ_WRITE, RING_SIZE);
    let counters = builder.memory(&format!("counters:{name}"), PAGE);
    builder.share(place, names::COUNTERS, counters, Rights::READ_WRITE, PAGE);
    let kept_size = component.program.kept_words * 8;
    if kept_size > 0 {
        let kept = builder.memory(&format!("{name}:kept"), kept_size);
        builder.share(place, names::KEPT, kept, Rights::READ_WRITE, kept_size);
    }
    (log, counters)
}

/// Maps every log, and every page of counters, into the component that shows them.
fn show_logs(
    builder: &mut Builder,
    place: &mut Place,
    model: &Model,
    logs: &[(String, u32)],
    counters: &[u32],
) {
    for (name, log) in logs {
        let key = names::LOG_OF.of(name);
        builder.share(place, key, *log, Rights::READ_WRITE, RING_SIZE);
    }
    for (component, page) in model.components.iter().zip(counters) {
        let key = names::COUNTERS_OF.of(&component.name);
        builder.share(place, key, *page, Rights::READ, PAGE);
    }
}

/// Grants IRQControl to the component that holds it, with the user vectors up to `end`
/// and a slot for the handler of each.
fn irq_control(builder: &mut Builder, place: &mut Place, end: u64) {
    let irq_control = builder.object("irq-control", ObjectKind::IrqControl, 0, 0);
    let key = (names::IRQ_CONTROL, Slot);
    builder.grant(place, key, irq_control, Rights::ALL, 0);
    builder.grant_own_cnode(place);
    let slots = place.empty_slots(u32::from(VECTORS) + 1);
    place.tell(names::HANDLER_SLOTS, slots);
    place.tell(names::VECTORS, Vectors { first: 0, end });
}

/// Writes the resource table, now that it is complete.
fn finish(builder: &mut Builder, component: &Component, place: &Place) -> Result<(), ComposeError> {
    if place.next_slot >> place.cnode_bits != 0 {
        return Err(ComposeError(format!(
            "{} needs {} capability slots and has {}: give it fewer devices or less guest memory",
            component.name,
            place.next_slot,
            1u32 << place.cnode_bits
        )));
    }
    let mut table = (place.resources.len() as u64).to_le_bytes().to_vec();
    table.extend_from_slice(place.resources.as_slice().as_bytes());
    let room = IPC_BUFFER_ADDRESS - RESOURCES_ADDRESS - PAGE;
    if table.len() as u64 > room {
        return Err(ComposeError(format!(
            "{} has {} resources, more than its table holds",
            component.name,
            place.resources.len()
        )));
    }
    let memory = builder.memory(&format!("{}:resources", component.name), table.len() as u64);
    builder.fill(memory, 0, &table);
    builder.map(place.vspace, memory, RESOURCES_ADDRESS, Rights::READ);
    Ok(())
}
