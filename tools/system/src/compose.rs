//! Turns a checked system and its programs into the image that init carries
//! out.
//!
//! What a component gets is decided here and nowhere else; `vectis caps` prints
//! it from the same records.

use std::collections::BTreeMap;
use std::fmt;

use channel::routes::SLOTS;
use pci::MAX_MSIX_PAGES;
use spec::{
    BADGE_CALL, BADGE_DOORBELL, BADGE_FIRST_IRQ, BADGE_TIMER, Cache, Capability, ENDPOINT_SLOT,
    FAULT_SLOT, Fill, Function, Header, IPC_BUFFER_ADDRESS, ImageWriter, Mapping, NONE, Name,
    Object, ObjectKind, OnFault, REGIONS_ADDRESS, RESOURCES_ADDRESS, Resource, ResourceKind,
    Rights, STACK_TOP, Thread,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::board::Trigger;
use crate::check::permissive;
use crate::model::{Authority, Component, Guest, Model};
use crate::program::Program;

const PAGE: u64 = 4096;
const LARGE_PAGE_BITS: u32 = 21;
/// Slots of a component's CNode, as a power of two.
const CNODE_BITS: u32 = 9;
/// The vmm's: room for guest RAM, BAR pages and page tables.
const VMM_CNODE_BITS: u32 = 13;
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
/// User vectors that the kernel has (IRQ_INT_OFFSET in seL4's irq.h leaves
/// 0x30 to 0x9b).
const VECTORS: u64 = 108;

/// Programs by name, and guest images by the guest's name.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// Component programs.
    pub components: BTreeMap<String, Program>,
    /// Guest ELF files.
    pub guests: BTreeMap<String, Vec<u8>>,
}

/// A composed image.
#[derive(Clone, Debug, Default)]
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
    /// The image as init reads it.
    pub bytes: Vec<u8>,
    /// Who writes which log, in the order of the ids on the log port.
    pub log_writers: Vec<String>,
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

/// A component while it is being put together.
struct Place {
    cnode: u32,
    cnode_bits: u32,
    vspace: u32,
    endpoint: u32,
    notification: u32,
    next_slot: u32,
    next_address: u64,
    resources: Vec<Resource>,
}

#[derive(Default)]
struct Builder {
    image: Image,
    fills: Vec<Fill>,
    data: Vec<u8>,
}

impl Builder {
    fn object(&mut self, name: &str, kind: ObjectKind, size_bits: u32, count: u64) -> u32 {
        self.image.objects.push(Object {
            name: Name::new(name),
            kind: kind as u32,
            size_bits,
            count,
            address: u64::MAX,
            last: 0,
        });
        (self.image.objects.len() - 1) as u32
    }

    fn memory(&mut self, name: &str, bytes: u64) -> u32 {
        self.object(name, ObjectKind::Memory, 12, bytes.div_ceil(PAGE).max(1))
    }

    fn fill(&mut self, object: u32, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.fills.push(Fill {
            object,
            reserved: 0,
            offset,
            source: self.data.len() as u64,
            length: bytes.len() as u64,
        });
        self.data.extend_from_slice(bytes);
        // What follows may be records that want their alignment.
        self.data.resize(self.data.len().next_multiple_of(8), 0);
    }

    fn map(&mut self, vspace: u32, object: u32, address: u64, rights: Rights) {
        self.image.mappings.push(Mapping {
            vspace,
            object,
            address,
            rights,
            cache: Cache::WriteBack as u32,
            holder: NONE,
            holder_slot: 0,
        });
    }

    /// Maps memory into a component at the next free address and tells it.
    fn share(&mut self, place: &mut Place, name: &str, object: u32, rights: Rights, length: u64) {
        let size = self.image.objects[object as usize].count * PAGE;
        let address = place.reserve(size, PAGE);
        self.map(place.vspace, object, address, rights);
        place.tell(ResourceKind::Memory, name, address, length);
    }

    fn grant(
        &mut self,
        place: &mut Place,
        name: &str,
        object: u32,
        rights: Rights,
        badge: u64,
        extra: u64,
    ) {
        let slot = place.slots(1);
        self.capability(place.cnode, slot, object, rights, badge);
        place.tell(ResourceKind::Capability, name, u64::from(slot), extra);
    }

    fn capability(&mut self, cnode: u32, slot: u32, object: u32, rights: Rights, badge: u64) {
        self.image.capabilities.push(Capability {
            cnode,
            slot,
            object,
            rights,
            badge,
        });
    }
}

impl Place {
    fn slots(&mut self, count: u32) -> u32 {
        let first = self.next_slot;
        self.next_slot += count;
        first
    }

    /// Takes addresses, with an unmapped page behind them.
    fn reserve(&mut self, size: u64, align: u64) -> u64 {
        let address = self.next_address.next_multiple_of(align);
        self.next_address = address + size + PAGE;
        address
    }

    fn tell(&mut self, kind: ResourceKind, name: &str, value: u64, extra: u64) {
        self.resources.push(Resource::new(kind, name, value, extra));
    }
}

/// Composes the image. A program that is missing from `programs` leaves a
/// component without segments: good for looking at the records, not for
/// running.
///
/// # Errors
/// If something does not fit into a component's address space or CSpace.
pub fn compose(model: &Model, programs: &Programs) -> Result<Image, ComposeError> {
    let mut builder = Builder::default();
    let monitor = builder.object("monitor", ObjectKind::Endpoint, 0, 1);
    let machine = builder.memory("machine", PAGE);
    let init_log = builder.memory("log:init", size_of::<shm::Ring>() as u64);
    let mut logs = vec![("init".to_owned(), init_log)];
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
        place.tell(ResourceKind::Number, "trace", u64::from(model.trace), 0);
        program(&mut builder, component, &place, programs)?;
        places.push(place);
    }
    let console = model.components.iter().position(|c| c.program == "console");
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
    channels(&mut builder, model, &mut places);
    if let Some(index) = model.holder(Authority::IrqControl) {
        let irq_control = builder.object("irq-control", ObjectKind::IrqControl, 0, 1);
        let place = &mut places[index];
        builder.grant(place, "irq-control", irq_control, Rights::ALL, 0, 0);
        let bits = u64::from(place.cnode_bits);
        let cnode = place.cnode;
        builder.grant(place, "cnode", cnode, Rights::ALL, 0, bits);
        let first = place.slots(VECTORS as u32 + 1);
        place.tell(
            ResourceKind::Number,
            "free-slots",
            u64::from(first),
            VECTORS + 1,
        );
        place.tell(ResourceKind::Number, "vectors", 0, first_irq_vector);
    }
    for (index, guest) in model.guests.iter().enumerate() {
        add_guest(
            &mut builder,
            model,
            index,
            guest,
            console,
            &mut places,
            programs,
        );
    }
    functions(&mut builder, model, &mut places)?;
    for place in &mut places {
        names(place, model);
    }
    for (component, place) in model.components.iter().zip(&places) {
        finish(&mut builder, component, place)?;
    }
    let mut header = Header::new_zeroed();
    (header.ecam, header.buses) = model.board.ecam;
    header.exit_port = u64::from(model.board.exit_port);
    header.machine = u64::from(machine);
    header.log = u64::from(init_log);
    header.monitor = u64::from(monitor);
    header.doorbell = u64::from(doorbell);
    header.inject_faults = u64::from(model.inject_faults);
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

fn new_place(builder: &mut Builder, component: &Component) -> Place {
    let name = &component.name;
    let cnode_bits = if component.program == "vmm" {
        VMM_CNODE_BITS
    } else {
        CNODE_BITS
    };
    let cnode = builder.object(name, ObjectKind::CNode, cnode_bits, 1);
    let vspace = builder.object(name, ObjectKind::VSpace, 0, 1);
    let endpoint = builder.object(name, ObjectKind::Endpoint, 0, 1);
    let notification = builder.object(name, ObjectKind::Notification, 0, 1);
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

/// The component's segments, stack, IPC buffer and thread.
fn program(
    builder: &mut Builder,
    component: &Component,
    place: &Place,
    programs: &Programs,
) -> Result<(), ComposeError> {
    let name = &component.name;
    let program = programs.components.get(&component.program);
    for (index, segment) in program.iter().flat_map(|p| &p.segments).enumerate() {
        let start = segment.address & !(PAGE - 1);
        let end = segment.address + segment.size;
        if start < STACK_TOP || end > REGIONS_ADDRESS {
            return Err(ComposeError(format!(
                "program {} has a segment at {start:#x} to {end:#x}; it must lie between \
                 {STACK_TOP:#x} and {REGIONS_ADDRESS:#x}",
                component.program
            )));
        }
        let memory = builder.memory(&format!("{name}:segment-{index}"), end - start);
        builder.fill(memory, segment.address - start, &segment.bytes);
        builder.image.objects[memory as usize].last = u64::from(segment.writable);
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
    let tcb = builder.object(name, ObjectKind::Tcb, 0, 1);
    builder.image.threads.push(Thread {
        name: Name::new(name),
        tcb,
        cnode: place.cnode,
        vspace: place.vspace,
        ipc_buffer,
        notification: place.notification,
        priority: u32::from(component.priority),
        stack,
        start: 1,
        ipc_address: IPC_BUFFER_ADDRESS,
        entry: program.map_or(0, |program| program.entry),
        stack_top: STACK_TOP,
        fault_slot: FAULT_SLOT,
        tls_base: 0,
        on_fault: component.on_fault as u64,
    });
    Ok(())
}

/// Hands out ports, registers and interrupts. I/O APIC interrupts take user
/// vectors from the top; gives how many are left below them.
fn board_devices(builder: &mut Builder, model: &Model, places: &mut [Place]) -> u64 {
    let mut next_vector = VECTORS;
    for (component, place) in model.components.iter().zip(places) {
        let mut badge = BADGE_FIRST_IRQ;
        for &device in &component.devices {
            let device = &model.board.devices[device];
            if let Some((first, last)) = device.ports {
                let object = builder.object(&device.name, ObjectKind::IoPorts, 0, 1);
                let ports = &mut builder.image.objects[object as usize];
                ports.address = u64::from(first);
                ports.last = u64::from(last);
                let name = format!("ports:{}", device.name);
                builder.grant(place, &name, object, Rights::ALL, 0, u64::from(first));
            }
            if let Some((base, size)) = device.memory {
                let pages = size / PAGE;
                let object = builder.object(&device.name, ObjectKind::Device, 12, pages);
                builder.image.objects[object as usize].address = base;
                let address = place.reserve(size, PAGE);
                let holder_slot = place.slots(pages as u32);
                builder.image.mappings.push(Mapping {
                    vspace: place.vspace,
                    object,
                    address,
                    rights: Rights::READ_WRITE,
                    cache: Cache::Uncached as u32,
                    holder: place.cnode,
                    holder_slot,
                });
                let name = format!("registers:{}", device.name);
                place.tell(ResourceKind::Memory, &name, address, size);
            }
            if let Some((pin, trigger)) = device.irq {
                next_vector -= 1;
                let level = u64::from(trigger == Trigger::Level);
                let object = builder.object(&device.name, ObjectKind::IoApicIrq, 0, level);
                let irq = &mut builder.image.objects[object as usize];
                irq.address = u64::from(pin);
                irq.last = next_vector;
                let name = format!("irq:{}", device.name);
                builder.grant(place, &name, object, Rights::ALL, 0, badge);
                let notification = place.notification;
                let name = format!("irq-notification:{}", device.name);
                builder.grant(place, &name, notification, Rights::WRITE, badge, 0);
                place.tell(
                    ResourceKind::Number,
                    &format!("irq-pin:{}", device.name),
                    u64::from(pin),
                    level,
                );
                badge <<= 1;
            }
        }
    }
    next_vector
}

fn channels(builder: &mut Builder, model: &Model, places: &mut [Place]) {
    for (index, channel) in model.channels.iter().enumerate() {
        let badge = BADGE_CALL | (index as u64 + 1);
        let endpoint = places[channel.server].endpoint;
        let name = format!("channel:{}", channel.interface);
        let client = &mut places[channel.client];
        // Grant lets the kernel make the reply capability of a call.
        builder.grant(client, &name, endpoint, Rights::FAULT, badge, 0);
        let notification = client.notification;
        let client_name = &model.components[channel.client].name;
        let server = &mut places[channel.server];
        let name = format!("client:{}:{client_name}", channel.interface);
        server.tell(ResourceKind::Number, &name, badge, 0);
        if channel.interface == "Timer" {
            let name = format!("notify:{client_name}");
            builder.grant(
                server,
                &name,
                notification,
                Rights::WRITE,
                BADGE_TIMER,
                badge,
            );
        }
    }
}

/// The badge with which a component calls over an interface.
fn badge_of(model: &Model, interface: &str, client: usize) -> u64 {
    model
        .channels
        .iter()
        .position(|c| c.interface == interface && c.client == client)
        .map_or(0, |index| BADGE_CALL | (index as u64 + 1))
}

fn add_guest(
    builder: &mut Builder,
    model: &Model,
    index: usize,
    guest: &Guest,
    console: Option<usize>,
    places: &mut [Place],
    programs: &Programs,
) {
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
        stack: NONE,
        start: 0,
        ipc_address: 0,
        entry: 0,
        stack_top: 0,
        fault_slot: FAULT_SLOT,
        tls_base: PAGE * (index as u64 + 1),
        on_fault: OnFault::Stop as u64,
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
}

fn functions(
    builder: &mut Builder,
    model: &Model,
    places: &mut [Place],
) -> Result<(), ComposeError> {
    for (index, device) in model.devices.iter().enumerate() {
        let holders = Authority::ALL.map(|authority| model.holder(authority));
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
        for component in [config, msix, vmm] {
            let resource = format!("function:{name}");
            builder.share(&mut places[component], &resource, info, Rights::READ, PAGE);
        }
        let number = |place: &mut Place, value| {
            place.tell(ResourceKind::Number, &format!("owner:{name}"), value, 0);
        };
        number(&mut places[config], badge_of(model, "PciConfig", vmm));
        number(&mut places[msix], badge_of(model, "MsixTable", vmm));
        number(&mut places[router], owner as u64);
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
            permissive: u32::from(permissive(device.policy)),
            intx: device.intx.map_or(0, u32::from),
            reserved: 0,
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
            bar_slot,
            bar_slots,
        });
    }
    Ok(())
}

/// Tells a component how guests and functions are called, in their order, for
/// what it says to people.
fn names(place: &mut Place, model: &Model) {
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
