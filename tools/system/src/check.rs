//! The checks that need more than one value.

use std::ops::Range;
use std::path::Path;

use spec::{OnExit, OnFault};

use crate::board::{Board, Iommu};
use crate::model::{Authority, Channel, Component, Device, GuestImage, Model, Policy, find};
use crate::reader::{Context, Located, Section};

/// Largest stack: the room between the IPC buffer and the stack's top, less
/// guard pages.
pub const STACK_MAX: u64 = 512 << 10;

/// Large pages hold guest RAM.
pub const GUEST_PAGE: u64 = 2 << 20;

/// An interface of crates/channel.
struct Interface {
    name: &'static str,
    /// Programs that may call over it.
    clients: &'static [&'static str],
    /// Those of them that cannot do without.
    needed_by: &'static [&'static str],
    server: &'static str,
}

/// One that its client needs.
const fn needed(name: &'static str, client: &'static [&str], server: &'static str) -> Interface {
    Interface {
        name,
        clients: client,
        needed_by: client,
        server,
    }
}

/// One that its client can do without.
const fn optional(name: &'static str, client: &'static [&str], server: &'static str) -> Interface {
    Interface {
        name,
        clients: client,
        needed_by: &[],
        server,
    }
}

/// The interfaces, and the programs at their two ends.
const INTERFACES: [Interface; 11] = [
    needed("PciConfig", &["vmm"], "pci-config"),
    needed("MsixTable", &["vmm"], "msix"),
    needed("MsixControl", &["pci-config"], "msix"),
    needed("IrqRouter", &["msix"], "irq-router"),
    needed("MsiRouter", &["pci-config"], "irq-router"),
    Interface {
        name: "Timer",
        clients: &["vmm", "console", "iommu"],
        needed_by: &["vmm", "iommu"],
        server: "timer",
    },
    needed("InterruptRemap", &["irq-router"], "iommu"),
    needed("DmaControl", &["vmm"], "iommu"),
    optional("MsixDump", &["console"], "msix"),
    optional("IrqDump", &["console"], "irq-router"),
    optional("IommuDump", &["console"], "iommu"),
];

/// The board devices without which a program does not start, by the names that
/// it asks for.
const PROGRAM_DEVICES: [(&str, &str); 3] =
    [("console", "com1"), ("console", "com2"), ("timer", "hpet")];

/// Programs that go on where they were after a restart.
const RESTARTABLE: [&str; 6] = [
    "console",
    "timer",
    "pci-config",
    "msix",
    "irq-router",
    "iommu",
];

/// Names of the folders in a folder, sorted; none if it cannot be read.
pub fn folders(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// `8086:10d3` as vendor << 16 | device.
pub fn hex_pair(text: &str) -> Option<u32> {
    let (vendor, device) = text.split_once(':')?;
    Some(hex(vendor, 4)? << 16 | hex(device, 4)?)
}

/// `020000` as a class code.
pub fn hex_class(text: &str) -> Option<u32> {
    hex(text, 6)
}

fn hex(text: &str, digits: usize) -> Option<u32> {
    let good = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    good.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// A component has what its program needs, no power that its program does not
/// use, and nothing twice.
pub fn program(
    context: &Context<'_>,
    name: &Located<String>,
    component: &Component,
    board: &Board,
) {
    if name.value == "init" || component.program == "init" {
        context.error(
            &name.span,
            "`init` is the root task, which every system has",
            "remove it here, or give it another name and program",
        );
    }
    for (program, device) in PROGRAM_DEVICES {
        let has = component
            .devices
            .iter()
            .any(|&index| board.devices[index].name == device);
        if component.program == program && !has {
            context.error(
                &name.span,
                format!(
                    "`{}` runs {program}, which needs device `{device}`",
                    name.value
                ),
                format!("add it: `devices = [\"{device}\"]`"),
            );
        }
    }
    for authority in &component.authority {
        if component.program != authority.program() {
            context.error(
                &name.span,
                format!(
                    "`{}` runs {}, which has no use for authority `{}`",
                    name.value,
                    component.program,
                    authority.name()
                ),
                format!(
                    "only a component whose program is `{}` may have it",
                    authority.program()
                ),
            );
        }
    }
}

/// A list names nothing twice.
pub fn once(context: &Context<'_>, names: &[Located<String>]) {
    for (index, name) in names.iter().enumerate() {
        if names[..index].iter().any(|other| other.value == name.value) {
            context.error(
                &name.span,
                format!("`{}` is named twice", name.value),
                "once is enough: remove one",
            );
        }
    }
}

/// A system has no more guests and devices than its components have room for.
pub fn room(context: &Context<'_>, what: &str, names: &[Range<usize>], most: usize) {
    if let Some(span) = names.get(most) {
        context.error(
            span,
            format!("{} {what}s are too many for one system", names.len()),
            format!("components have room for {most}"),
        );
    }
}

/// A board device or an authority belongs to one component.
pub fn component(
    context: &Context<'_>,
    name: &Located<String>,
    component: &Component,
    model: &Model,
) {
    for other in &model.components {
        for &device in component
            .devices
            .iter()
            .filter(|d| other.devices.contains(d))
        {
            context.error(
                &name.span,
                format!(
                    "`{}` and `{}` both own device `{}`",
                    other.name, component.name, model.board.devices[device].name
                ),
                "a port, a page and an interrupt have one owner: take the device from one of them",
            );
        }
        for authority in component
            .authority
            .iter()
            .filter(|a| other.authority.contains(a))
        {
            context.error(
                &name.span,
                format!(
                    "`{}` and `{}` both have authority `{}`",
                    other.name,
                    component.name,
                    authority.name()
                ),
                "an authority has one holder: take it from one of them",
            );
        }
    }
}

/// Reads `on-fault`. Only a program whose state survives its restart may be
/// restarted.
pub fn on_fault(section: &Section<'_, '_>, program: &str) -> OnFault {
    let Some(text) = section.string("on-fault") else {
        return OnFault::Stop;
    };
    let policy = match text.value.as_str() {
        "stop" => Some(OnFault::Stop),
        "restart" => Some(OnFault::Restart),
        "stop-guest" => Some(OnFault::StopGuest),
        _ => None,
    };
    let (message, help) = match policy {
        None => (
            format!("`{}` is no policy for faults", text.value),
            Context::suggest(&text.value, ["stop", "restart", "stop-guest"]),
        ),
        Some(OnFault::StopGuest) if program != "vmm" => (
            format!("{program} runs no guest that could be stopped"),
            "only a vmm has `on-fault = \"stop-guest\"`".to_owned(),
        ),
        Some(OnFault::Restart) if !RESTARTABLE.contains(&program) => (
            format!("{program} cannot be restarted"),
            format!("one of these can: {}", RESTARTABLE.join(", ")),
        ),
        Some(policy) => return policy,
    };
    section.context.error(&text.span, message, help);
    OnFault::Stop
}

/// Reads one `[[channel]]`: ends that exist, an interface that fits them, and a
/// server that is at least as urgent as its client.
pub fn channel(section: &Section<'_, '_>, model: &Model) -> Option<Channel> {
    let context = section.context;
    let interface = section.required_string("interface", "\"PciConfig\"");
    let client = section.required_string("client", "\"vmm\"");
    let server = section.required_string("server", "\"pci-config\"");
    let names = || model.components.iter().map(|c| c.name.as_str());
    let known = INTERFACES.iter().map(|interface| interface.name);
    let index = interface
        .as_ref()
        .and_then(|name| find(context, "interface", name, known));
    let client = client.and_then(|name| Some((find(context, "component", &name, names())?, name)));
    let server = server.and_then(|name| Some((find(context, "component", &name, names())?, name)));
    let (interface, (client, client_name), (server, server_name)) = (interface?, client?, server?);
    let ends = &INTERFACES[index?];
    let clients = ends.clients.join(" or ");
    for (end, name, programs) in [
        (client, &client_name, ends.clients),
        (server, &server_name, &[ends.server]),
    ] {
        let runs = &model.components[end].program;
        if !programs.contains(&runs.as_str()) {
            context.error(
                &name.span,
                format!(
                    "`{}` is between {clients} and {}, but `{}` runs {runs}",
                    interface.value, ends.server, name.value
                ),
                format!(
                    "name a component whose program is `{}`",
                    programs.join("` or `")
                ),
            );
        }
    }
    let (low, high) = (&model.components[client], &model.components[server]);
    // 0 stands for a priority that is missing or wrong, which has its own error.
    if high.priority < low.priority && high.priority > 0 {
        context.error(
            &server_name.span,
            format!(
                "`{}` (priority {}) calls `{}` of lower priority ({})",
                low.name, low.priority, high.name, high.priority
            ),
            "a component calls only components of the same or a higher priority: raise the server's",
        );
    }
    if model
        .channels
        .iter()
        .any(|other| other.interface == interface.value && other.client == client)
    {
        context.error(
            &interface.span,
            format!("`{}` has a second channel `{}`", low.name, interface.value),
            "a component has one server for each interface: remove one",
        );
    }
    Some(Channel {
        interface: interface.value,
        client,
        server,
    })
}

/// Calls must not go in a circle: two components could wait for each other.
pub fn cycles(context: &Context<'_>, model: &Model, spans: &[Range<usize>]) {
    for (channel, span) in model.channels.iter().zip(spans) {
        if let Some(path) = path(model, channel.server, channel.client) {
            let first_of_cycle = path
                .windows(2)
                .filter_map(|ends| {
                    model
                        .channels
                        .iter()
                        .position(|c| c.client == ends[0] && c.server == ends[1])
                })
                .all(|index| spans[index].start >= span.start);
            if !first_of_cycle {
                continue;
            }
            let names: Vec<&str> = std::iter::once(channel.client)
                .chain(path)
                .map(|index| model.components[index].name.as_str())
                .collect();
            context.error(
                span,
                format!("calls go in a circle: {}", names.join(" -> ")),
                "remove one of these channels; a reply can carry what the server has to say",
            );
        }
    }
}

/// A way along channels, both ends included.
fn path(model: &Model, from: usize, to: usize) -> Option<Vec<usize>> {
    let mut reached = vec![from];
    let mut came_from = vec![None; model.components.len()];
    let mut next = 0;
    while let Some(&at) = reached.get(next) {
        if at == to {
            let mut way = vec![to];
            let mut back = to;
            while let Some(previous) = came_from[back] {
                way.push(previous);
                back = previous;
            }
            way.reverse();
            return Some(way);
        }
        for channel in model.channels.iter().filter(|c| c.client == at) {
            if !reached.contains(&channel.server) {
                came_from[channel.server] = Some(at);
                reached.push(channel.server);
            }
        }
        next += 1;
    }
    None
}

/// Two entries must not be the same function, nor the same address to a guest,
/// nor share an interrupt pin (C9).
pub fn device(context: &Context<'_>, name: &Located<String>, device: &Device, model: &Model) {
    for other in &model.devices {
        if other.selector == device.selector
            && other.value == device.value
            && device.selector == spec::Selector::Address
        {
            context.error(
                &name.span,
                format!(
                    "devices `{}` and `{}` are one function",
                    other.name, device.name
                ),
                "a function is assigned once: remove one entry",
            );
        }
        if other.guest_address == device.guest_address {
            context.error(
                &name.span,
                format!(
                    "devices `{}` and `{}` both have guest-address {}",
                    other.name, device.name, device.guest_address
                ),
                "give each its own `guest-address`",
            );
        }
    }
    let Some(pin) = device.intx else {
        return;
    };
    let functions = model.devices.iter().map(|other| (other.intx, &other.name));
    let board = model.board.devices.iter();
    let board = board.map(|other| (other.irq.map(|(pin, _)| pin), &other.name));
    if let Some((_, other)) = functions.chain(board).find(|(p, _)| *p == Some(pin)) {
        context.error(
            &name.span,
            format!("`{other}` and `{}` share interrupt pin {pin}", device.name),
            "the kernel gives a pin to one owner: remove `intx` here, and let the guest use \
             MSI-X or MSI, or put the function into another slot of the machine",
        );
    }
}

/// Where nothing confines it, a bus-mastering function needs its owner's word;
/// gives whether it has it.
pub fn dma(section: &Section<'_, '_>, model: &Model) -> bool {
    let context = section.context;
    match section.string("dma") {
        Some(text) if text.value == "trusted" => true,
        Some(text) => {
            context.error(
                &text.span,
                format!("`{}` is no way to treat DMA here", text.value),
                "write \"trusted\" if the guest may reach all memory by DMA; without the key the \
                 function must be confined",
            );
            false
        }
        None => {
            let missing = if model.board.iommu == Iommu::None {
                Some("nothing on this board confines it")
            } else if model.holder(Authority::Iommu).is_none() {
                Some("no component drives this board's IOMMU")
            } else {
                None
            };
            if let Some(missing) = missing {
                context.error(
                    &section.span,
                    format!("{} can reach all memory by DMA: {missing}", section.name),
                    "add `dma = \"trusted\"` if you trust the guest with that, else do not assign it",
                );
            }
            false
        }
    }
}

/// Reads `on-dma-fault`: whether the first refused access stops the guest.
pub fn on_dma_fault(section: &Section<'_, '_>) -> bool {
    let Some(text) = section.string("on-dma-fault") else {
        return false;
    };
    match text.value.as_str() {
        "count" => false,
        "stop-guest" => true,
        other => {
            section.context.error(
                &text.span,
                format!("`{other}` is no policy for refused accesses"),
                Context::suggest(other, ["count", "stop-guest"]),
            );
            false
        }
    }
}

/// Reads `on-exit`.
pub fn on_exit(section: &Section<'_, '_>) -> OnExit {
    let Some(text) = section.string("on-exit") else {
        return OnExit::Stop;
    };
    match text.value.as_str() {
        "stop" => OnExit::Stop,
        "halt" => OnExit::Halt,
        "restart" => OnExit::Restart,
        other => {
            section.context.error(
                &text.span,
                format!("`{other}` is no policy for a guest's end"),
                Context::suggest(other, ["stop", "halt", "restart"]),
            );
            OnExit::Stop
        }
    }
}

/// Where interrupts are remapped, the I/O APIC's pins are silent.
pub fn intx(context: &Context<'_>, pin: Option<&Located<u64>>, model: &Model) {
    if let Some(pin) = pin.filter(|_| model.remaps()) {
        context.error(
            &pin.span,
            "an IOMMU that remaps interrupts blocks the I/O APIC, through which INTx comes",
            "remove `intx`, and let the guest use MSI-X or MSI; or run without the IOMMU",
        );
    }
}

/// The image is a crate's folder or a file; both must be there.
pub fn guest_image(
    context: &Context<'_>,
    image: &Located<String>,
    root: &Path,
) -> Option<GuestImage> {
    let path = root.join(&image.value);
    if path.is_file() {
        return Some(GuestImage::File(path));
    }
    let manifest = path.join("Cargo.toml");
    let package = std::fs::read_to_string(&manifest).ok().and_then(|text| {
        let table: toml::Table = text.parse().ok()?;
        Some(table.get("package")?.get("name")?.as_str()?.to_owned())
    });
    if let Some(package) = package {
        return Some(GuestImage::Crate(path, package));
    }
    let message = if path.is_dir() {
        format!("`{}` is a folder without a crate", image.value)
    } else {
        format!("there is no guest image `{}`", image.value)
    };
    context.error(
        &image.span,
        message,
        "name an ELF file, or the folder of a guest's crate, from the project's root",
    );
    None
}

/// A guest's vmm runs the program vmm, and this guest only.
pub fn vmm(context: &Context<'_>, name: &Located<String>, model: &Model, index: usize) {
    let component = &model.components[index];
    if component.program != "vmm" {
        context.error(
            &name.span,
            format!(
                "`{}` runs {}, which runs no guests",
                component.name, component.program
            ),
            "name a component whose program is `vmm`",
        );
    }
    if let Some(other) = model.guest_of(index) {
        context.error(
            &name.span,
            format!("`{}` already runs guest `{}`", component.name, other.name),
            "give each guest its own vmm: a second component with `program = \"vmm\"`",
        );
    }
}

/// Guest RAM lies in the board's range, in large pages.
pub fn guest_memory(context: &Context<'_>, memory: &Located<u64>, board: &Board, start: u64) {
    if !memory.value.is_multiple_of(GUEST_PAGE) {
        context.error(
            &memory.span,
            format!("{} bytes are not whole large pages", memory.value),
            "give a multiple of 2M",
        );
    }
    let (base, size) = board.guest_memory;
    let left = (base + size).saturating_sub(start);
    if memory.value > left {
        context.error(
            &memory.span,
            format!(
                "{}M do not fit: board {} has {}M left for guests",
                memory.value >> 20,
                board.name,
                left >> 20
            ),
            "give this or another guest less memory",
        );
    }
}

/// A guest never keeps its own vmm from running.
pub fn guest_priority(context: &Context<'_>, priority: &Located<u64>, vmm: &Component) {
    // 0 stands for a priority that is missing or wrong, which has its own error.
    if priority.value >= u64::from(vmm.priority) && vmm.priority > 0 {
        context.error(
            &priority.span,
            format!(
                "the guest's priority {} is not below its vmm's ({})",
                priority.value, vmm.priority
            ),
            "lower it: the vmm must run as soon as it has something to do",
        );
    }
}

/// A function has one guest.
pub fn device_owner(context: &Context<'_>, name: &Located<String>, model: &Model, index: usize) {
    if let Some(owner) = model.owner(index) {
        context.error(
            &name.span,
            format!(
                "device `{}` already belongs to guest `{}`",
                name.value, model.guests[owner].name
            ),
            "a function has one guest: take it from one of them",
        );
    }
}

/// What could not be read. Its errors are told already, so that what would
/// follow from it is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Broken {
    pub components: bool,
    pub channels: bool,
    pub guests: bool,
}

/// What only the whole file shows.
pub fn whole(
    context: &Context<'_>,
    top: &Section<'_, '_>,
    model: &Model,
    devices: &[Range<usize>],
    broken: Broken,
) {
    if model.components.is_empty() && !broken.components {
        context.error(
            &(0..0),
            "the system has no components",
            "add [component.NAME] tables; system.toml of the project is an example",
        );
        return;
    }
    for (index, (device, span)) in model.devices.iter().zip(devices).enumerate() {
        if model.owner(index).is_none() && !broken.guests {
            context.error(
                span,
                format!("device `{}` belongs to no guest", device.name),
                "name it in a guest's `devices`, or remove it",
            );
        }
    }
    if let Some(span) = devices.first() {
        for authority in Authority::NEEDED {
            if model.holder(authority).is_none() && !broken.components {
                context.error(
                    span,
                    format!("no component has authority `{}`", authority.name()),
                    format!(
                        "a device needs one: add `authority = [\"{}\"]` to the component that \
                         runs {}",
                        authority.name(),
                        authority.program()
                    ),
                );
            }
        }
    }
    for (index, component) in model.components.iter().enumerate() {
        let span = key_span(top, "component", &component.name);
        if component.program == "vmm" && model.guest_of(index).is_none() && !broken.guests {
            context.error(
                &span,
                format!("`{}` runs no guest", component.name),
                format!(
                    "name it in a guest: `vmm = \"{}\"`, or remove it",
                    component.name
                ),
            );
        }
        let runs = |program| model.components.iter().any(|c| c.program == program);
        for interface in &INTERFACES {
            let has = model
                .channels
                .iter()
                .any(|c| c.client == index && c.interface == interface.name);
            let program = component.program.as_str();
            // A system may be without an iommu component.
            let there = interface.server != "iommu" || runs("iommu");
            let needs = interface.needed_by.contains(&program) && there;
            // Its interrupt does not come there.
            let polls = program == "console" && interface.name == "Timer" && model.remaps();
            if (needs || polls) && !has && !broken.channels {
                context.error(
                    &span,
                    format!("`{}` has no channel `{}`", component.name, interface.name),
                    format!(
                        "{program} calls {}: add a [[channel]] with that interface",
                        interface.server
                    ),
                );
            }
        }
    }
}

/// Where `[table.name]` stands.
fn key_span(top: &Section<'_, '_>, table: &str, name: &str) -> Range<usize> {
    top.table
        .get(table)
        .and_then(|value| value.get_ref().as_table())
        .and_then(|table| table.keys().find(|key| key.get_ref().as_ref() == name))
        .map_or(0..0, toml::Spanned::span)
}

/// Whether a policy lets gaps pass.
pub const fn permissive(policy: Policy) -> bool {
    matches!(policy, Policy::Permissive)
}
