//! Turns a checked system and its programs into the image that init carries
//! out.
//!
//! What a component gets is decided here and nowhere else; `vectis caps` prints
//! it from the same records.

mod builder;
mod components;
mod guests;
mod iommu;

use std::collections::BTreeMap;
use std::fmt;

use spec::{
    BADGE_DOORBELL, COM1, Capability, ENDPOINT_SLOT, FAULT_SLOT, Function, Header,
    IPC_BUFFER_ADDRESS, ImageWriter, IommuPlace, Mapping, Object, ObjectKind, RESOURCES_ADDRESS,
    ResourceKind, Rights, Thread, VECTORS,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::manifest::Authority;
use crate::model::{Component, Model};
use crate::program::Program;
use builder::{Builder, Place};
use components::{board_devices, channels, new_place, program, stacks};
use guests::{add_guest, functions, names};

const PAGE: u64 = 4096;

/// Programs by name, and guest images by the guest's name.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// Component programs.
    pub components: BTreeMap<String, Program>,
    /// Guest ELF files.
    pub guests: BTreeMap<String, Vec<u8>>,
}

/// What the command decides, and no file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The console may crash components: for tests.
    pub inject_faults: bool,
    /// Init compares every CSpace with the table and ends.
    pub audit: bool,
    /// Components log every access of the guests.
    pub trace: bool,
}

/// A composed image.
#[derive(Clone, Debug)]
pub struct Image {
    /// Objects to be made.
    pub objects: Vec<Object>,
    /// Capabilities to be handed out.
    pub capabilities: Vec<Capability>,
    /// Mappings.
    pub mappings: Vec<Mapping>,
    /// PCI functions.
    pub functions: Vec<Function>,
    /// Threads.
    pub threads: Vec<Thread>,
    /// Where the IOMMU goes.
    pub iommu: IommuPlace,
    /// The image as init reads it.
    pub bytes: Vec<u8>,
    /// Who writes which log, in the order of the ids on the log port.
    pub log_writers: Vec<String>,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            objects: Vec::new(),
            capabilities: Vec::new(),
            mappings: Vec::new(),
            functions: Vec::new(),
            threads: Vec::new(),
            iommu: IommuPlace::NONE,
            bytes: Vec::new(),
            log_writers: Vec::new(),
        }
    }
}

/// Why a system cannot be composed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComposeError(String);

impl fmt::Display for ComposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ComposeError {}

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
    let monitor = builder.object("monitor", ObjectKind::Endpoint, 0, 1);
    let machine = builder.memory("machine", PAGE);
    let init_log = builder.memory("log:init", size_of::<shm::Ring>() as u64);
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
        builder.share(&mut place, "machine", machine, Rights::READ, PAGE);
        let size = size_of::<shm::Ring>() as u64;
        let log = builder.memory(&format!("log:{}", component.name), size);
        builder.share(&mut place, "log", log, Rights::READ_WRITE, size);
        logs.push((component.name.clone(), log));
        let page = builder.memory(&format!("counters:{}", component.name), PAGE);
        builder.share(&mut place, "counters", page, Rights::READ_WRITE, PAGE);
        counters.push(page);
        let kept_size = component.program.kept_words * 8;
        if kept_size > 0 {
            let kept = builder.memory(&format!("{}:kept", component.name), kept_size);
            builder.share(&mut place, "kept", kept, Rights::READ_WRITE, kept_size);
        }
        place.tell(ResourceKind::Number, "trace", u64::from(options.trace), 0);
        let guest = model.guests.iter().position(|guest| guest.vmm == index);
        let guest = guest.map_or(u64::MAX, |guest| guest as u64);
        program(&mut builder, component, guest, &place, programs)?;
        places.push(place);
    }
    let console = model.components.iter().position(|c| c.program.reads_logs);
    let doorbell = match console {
        Some(index) => places[index].notification,
        None => builder.object("doorbell", ObjectKind::Notification, 0, 1),
    };
    for place in &mut places {
        builder.grant(
            place,
            "doorbell",
            doorbell,
            Rights::WRITE,
            BADGE_DOORBELL,
            0,
        );
    }
    if let Some(index) = console {
        for (name, log) in &logs {
            let size = size_of::<shm::Ring>() as u64;
            builder.share(
                &mut places[index],
                &format!("log:{name}"),
                *log,
                Rights::READ_WRITE,
                size,
            );
        }
        for (component, page) in model.components.iter().zip(&counters) {
            let name = format!("counters:{}", component.name);
            builder.share(&mut places[index], &name, *page, Rights::READ, PAGE);
        }
    }
    let first_irq_vector = board_devices(&mut builder, model, &mut places);
    let unit = iommu::unit(&mut builder, model, &mut places);
    channels(&mut builder, model, &mut places);
    if let Some(index) = model.holder(Authority::IrqControl) {
        let irq_control = builder.object("irq-control", ObjectKind::IrqControl, 0, 1);
        let place = &mut places[index];
        builder.grant(place, "irq-control", irq_control, Rights::ALL, 0, 0);
        let bits = u64::from(place.cnode_bits);
        let cnode = place.cnode;
        builder.grant(place, "cnode", cnode, Rights::ALL, 0, bits);
        let first = place.slots(u32::from(VECTORS) + 1);
        place.tell(
            ResourceKind::Number,
            "free-slots",
            u64::from(first),
            u64::from(VECTORS) + 1,
        );
        place.tell(ResourceKind::Number, "vectors", 0, first_irq_vector);
    }
    let mut rams = Vec::new();
    for (index, guest) in model.guests.iter().enumerate() {
        let ram = add_guest(
            &mut builder,
            model,
            index,
            guest,
            console,
            &mut places,
            programs,
        );
        rams.push(ram);
    }
    iommu::guests(&mut builder, model, &rams, &mut places);
    functions(&mut builder, model, &rams, &mut places)?;
    for place in &mut places {
        names(place, model);
    }
    for (component, place) in model.components.iter().zip(&places) {
        finish(&mut builder, component, place)?;
    }
    let mut header = Header::new_zeroed();
    (header.ecam, header.buses) = model.board.ecam;
    let com1 = model.board.devices.iter().find(|d| d.name == "com1");
    let (com1, _) = com1.and_then(|com1| com1.ports).unwrap_or((COM1, COM1));
    header.com1 = u64::from(com1);
    header.exit_port = u64::from(model.board.exit_port);
    header.machine = u64::from(machine);
    header.log = u64::from(init_log);
    header.monitor = u64::from(monitor);
    header.doorbell = u64::from(doorbell);
    header.inject_faults = u64::from(options.inject_faults);
    header.audit = u64::from(options.audit);
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
