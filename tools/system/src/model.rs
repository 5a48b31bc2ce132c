//! The checked system, and how it is read.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use pci::Bdf;
use spec::{IommuKind, OnExit, OnFault, Selector};
use toml::de::DeTable;

use crate::ROOT_TASK;
use crate::board::{self, Board, BoardDevice};
use crate::check::{self, Broken};
use crate::diagnostic::{Report, Source};
use crate::manifest::{self, Manifest};
use crate::reader::{Context, Located, Section};

/// Interrupts of one source in a second that are no storm: five times what an
/// e1000e raises under load in QEMU.
const INTERRUPT_BUDGET: u64 = 20_000;

/// A kernel-level power beyond a component's own memory and channels. Each
/// belongs to one component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Authority {
    /// IRQControl and the guests' slots.
    IrqControl,
    /// The pages that hold MSI-X tables and PBAs.
    MsixTables,
    /// The configuration pages of the assigned functions.
    ConfigurationSpace,
    /// The IOMMU's registers, and all guest memory to map for devices.
    Iommu,
}

impl Authority {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::IrqControl,
        Self::MsixTables,
        Self::ConfigurationSpace,
        Self::Iommu,
    ];

    /// Those without which no function can be assigned.
    pub const NEEDED: [Self; 3] = [Self::IrqControl, Self::MsixTables, Self::ConfigurationSpace];

    /// Its name in system.toml.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IrqControl => "irq-control",
            Self::MsixTables => "msix-tables",
            Self::ConfigurationSpace => "configuration-space",
            Self::Iommu => "iommu",
        }
    }
}

/// An isolated component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// The program that it runs.
    pub program: Manifest,
    /// 0 to 255, 255 most urgent.
    pub priority: u8,
    /// Bytes.
    pub stack: u64,
    /// Board devices, as indices into [`Board::devices`].
    pub devices: Vec<usize>,
    /// Powers.
    pub authority: Vec<Authority>,
    /// What happens when it faults.
    pub on_fault: OnFault,
}

/// A typed endpoint between two components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// The interface's name in crates/channel.
    pub interface: String,
    /// Index of the calling component.
    pub client: usize,
    /// Index of the serving component.
    pub server: usize,
}

/// What happens to accesses that no handler of configuration space takes (C2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Reads give what is known safe, writes are dropped.
    Strict,
    /// Both pass.
    Permissive,
}

/// A PCI function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// How it is found at boot.
    pub selector: Selector,
    /// What by: requester id, vendor << 16 | device, or class code.
    pub value: u32,
    /// Address that the guest sees.
    pub guest_address: Bdf,
    /// Policy.
    pub policy: Policy,
    /// I/O APIC pin of its INTx pin, if the guest is offered that (C9).
    pub intx: Option<u8>,
    /// It is assigned even if nothing confines it.
    pub trusted: bool,
    /// The first refused access of the function stops its guest.
    pub stop_on_dma_fault: bool,
    /// The guest may start again although nothing resets the function (M24).
    pub reset_optional: bool,
    /// QEMU's `-device` arguments that make the function, and what it needs,
    /// on a QEMU board.
    pub qemu: Vec<String>,
}

/// Where a guest's image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestImage {
    /// A crate: its folder and the name of its package.
    Crate(PathBuf, String),
    /// An ELF file.
    File(PathBuf),
}

/// A guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: GuestImage,
    /// Index of the component that runs it.
    pub vmm: usize,
    /// RAM in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// First address of its RAM, its own and the machine's.
    pub address: u64,
    /// 0 to 255.
    pub priority: u8,
    /// Indices into [`Model::devices`].
    pub devices: Vec<usize>,
    /// What it finds as its command line.
    pub command_line: String,
    /// Interrupts that each of its sources may raise in a second (M23).
    pub interrupt_budget: u64,
    /// What happens when it ends.
    pub on_exit: OnExit,
    /// Its part of the CPU's time, relative to the other guests of its priority.
    pub share: u64,
}

/// A system that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Its machine.
    pub board: Board,
    /// Every program that a component can run, by name.
    pub programs: Vec<Manifest>,
    /// Components in the file's order.
    pub components: Vec<Component>,
    /// Channels: those of the file, and then those that follow from what the
    /// programs call.
    pub channels: Vec<Channel>,
    /// PCI functions in the file's order: the order in which components number
    /// them.
    pub devices: Vec<Device>,
    /// Guests in the file's order.
    pub guests: Vec<Guest>,
}

impl Model {
    /// The component that holds a power.
    #[must_use]
    pub fn holder(&self, authority: Authority) -> Option<usize> {
        self.components
            .iter()
            .position(|component| component.authority.contains(&authority))
    }

    /// A component's board device of this name.
    #[must_use]
    pub fn device_of(&self, component: &Component, name: &str) -> Option<&BoardDevice> {
        let own = component.devices.iter();
        let mut own = own.map(|&index| &self.board.devices[index]);
        own.find(|device| device.name == name)
    }

    /// Whether a component drives an IOMMU: devices interrupt by remapped
    /// messages then, and the I/O APIC's pins do not work.
    #[must_use]
    pub fn remaps(&self) -> bool {
        self.board.iommu != IommuKind::None && self.holder(Authority::Iommu).is_some()
    }

    /// The component that serves an interface to another.
    #[must_use]
    pub fn server(&self, client: usize, interface: &str) -> Option<usize> {
        let mut channels = self.channels.iter();
        let channel = channels.find(|c| c.client == client && c.interface == interface)?;
        Some(channel.server)
    }

    /// The guest that a component runs.
    #[must_use]
    pub fn guest_of(&self, component: usize) -> Option<&Guest> {
        self.guests.iter().find(|guest| guest.vmm == component)
    }

    /// The guest to which a function is assigned.
    #[must_use]
    pub fn owner(&self, device: usize) -> Option<usize> {
        self.guests
            .iter()
            .position(|guest| guest.devices.contains(&device))
    }
}

/// Looks a name up, or says that it is unknown.
pub(crate) fn find<'n>(
    context: &Context<'_>,
    what: &str,
    name: &Located<String>,
    known: impl Iterator<Item = &'n str> + Clone,
) -> Option<usize> {
    let found = known.clone().position(|candidate| candidate == name.value);
    if found.is_none() {
        context.error(
            &name.span,
            format!("there is no {what} `{}`", name.value),
            Context::suggest(&name.value, known),
        );
    }
    found
}

/// Reads the key `authority`.
pub(crate) fn authorities(section: &Section<'_, '_>) -> Vec<Authority> {
    let texts = section.strings("authority");
    check::once(section.context, &texts);
    let known = Authority::ALL.iter().map(|authority| authority.name());
    let index = |text| find(section.context, "authority", text, known.clone());
    let found = texts.iter().filter_map(index);
    found.map(|index| Authority::ALL[index]).collect()
}

fn component(name: &Located<String>, section: &Section<'_, '_>, model: &Model) -> Component {
    let context = section.context;
    let board = &model.board;
    let program = section.string("program").unwrap_or_else(|| name.clone());
    let known = model.programs.iter().map(|program| program.name.as_str());
    let index = if [&name.value, &program.value].contains(&&ROOT_TASK.to_owned()) {
        context.error(
            &name.span,
            format!("`{ROOT_TASK}` is the root task, which every system has"),
            "remove it here, or give it another name and program",
        );
        None
    } else {
        find(context, "component program", &program, known)
    };
    let priority = section.required_number("priority", 1..254, "200");
    let stack = section.required_size("stack", "\"16K\"");
    if let Some(stack) = &stack
        && stack.value > check::STACK_MAX
    {
        context.error(
            &stack.span,
            format!("a stack of {} bytes does not fit", stack.value),
            "a stack has at most 512K, so that its guard page stays free",
        );
    }
    let devices = section.strings("devices");
    check::once(context, &devices);
    let devices = devices
        .iter()
        .filter_map(|device| {
            let known = board.devices.iter().map(|device| device.name.as_str());
            find(
                context,
                &format!("device on board {}:", board.name),
                device,
                known,
            )
        })
        .collect();
    let authority = authorities(section);
    // What is known of a program that is not there is its name.
    let program = index.map_or_else(
        || Manifest {
            name: program.value,
            ..Manifest::default()
        },
        |index| model.programs[index].clone(),
    );
    let on_fault = check::on_fault(section, &program, &model.programs);
    section.finish();
    Component {
        name: name.value.clone(),
        program,
        priority: priority.map_or(0, |p| p.value as u8),
        stack: stack.map_or(4096, |s| s.value),
        devices,
        authority,
        on_fault,
    }
}

fn device(
    name: &Located<String>,
    section: &Section<'_, '_>,
    index: usize,
    model: &Model,
) -> Option<Device> {
    let context = section.context;
    let ways = [
        ("address", section.string("address")),
        ("match", section.string("match")),
        ("class", section.string("class")),
    ];
    let given: Vec<_> = ways
        .iter()
        .filter_map(|(way, text)| Some((*way, text.as_ref()?)))
        .collect();
    let selector = match given[..] {
        [("address", text)] => Bdf::parse(&text.value)
            .map(|bdf| (Selector::Address, u32::from(bdf.requester_id())))
            .or_else(|| {
                context.error(
                    &text.span,
                    format!("`{}` is no PCI address", text.value),
                    "write bus:device.function as lspci does, such as \"00:02.0\"",
                );
                None
            }),
        [("match", text)] => check::hex_pair(&text.value)
            .map(|value| (Selector::VendorDevice, value))
            .or_else(|| {
                context.error(
                    &text.span,
                    format!("`{}` is no pair of vendor and device id", text.value),
                    "write four and four hexadecimal digits, such as \"8086:10d3\"",
                );
                None
            }),
        [("class", text)] => check::hex_class(&text.value)
            .map(|value| (Selector::Class, value))
            .or_else(|| {
                context.error(
                    &text.span,
                    format!("`{}` is no class code", text.value),
                    "write six hexadecimal digits, such as \"020000\" for Ethernet",
                );
                None
            }),
        _ => {
            context.error(
                &section.span,
                format!("{} must say which function it is, in one way", section.name),
                "give one of `address = \"00:02.0\"`, `match = \"8086:10d3\"`, `class = \"020000\"`",
            );
            None
        }
    };
    let policies = [
        ("strict", Policy::Strict),
        ("permissive", Policy::Permissive),
    ];
    let policy = check::choice(section, "policy", "policy", &policies);
    let guest_address = match section.string("guest-address") {
        None => {
            let device = u8::try_from(index + 1).ok();
            let bdf = device.and_then(|device| Bdf::new(0, device, 0));
            if bdf.is_none() {
                context.error(
                    &section.span,
                    format!("no address on bus 00 is left for {}", section.name),
                    "a bus has 32 devices: give some of them functions with `guest-address`",
                );
            }
            bdf
        }
        Some(text) => {
            let bdf = Bdf::parse(&text.value).filter(|bdf| bdf.bus() == 0);
            if bdf.is_none() {
                context.error(
                    &text.span,
                    format!("`{}` is no address on bus 00", text.value),
                    "a guest has bus 00 only: write \"00:01.0\" to \"00:1f.7\"",
                );
            }
            bdf
        }
    };
    let trusted = check::dma(section, model);
    let stop_on_dma_fault = check::on_dma_fault(section);
    let reset_optional = check::reset_optional(section);
    let intx = section.number("intx", 16..24);
    check::intx(context, intx.as_ref(), model);
    let qemu = section
        .strings("qemu")
        .into_iter()
        .map(|text| text.value)
        .collect();
    section.finish();
    let (selector, value) = selector?;
    Some(Device {
        name: name.value.clone(),
        selector,
        value,
        guest_address: guest_address?,
        policy,
        intx: intx.map(|pin| pin.value as u8),
        trusted,
        stop_on_dma_fault,
        reset_optional,
        qemu,
    })
}

/// Reads a guest. The devices in `broken` exist but have errors of their own.
fn guest(
    name: &Located<String>,
    section: &Section<'_, '_>,
    model: &Model,
    root: &Path,
    next_address: &mut u64,
    broken: &[String],
) -> Option<Guest> {
    let context = section.context;
    let image = section
        .required_string("image", "\"guests/web\"")
        .and_then(|image| check::guest_image(context, &image, root));
    let vmm = section.required_string("vmm", "\"vmm\"").and_then(|vmm| {
        let known = model.components.iter().map(|c| c.name.as_str());
        let index = find(context, "component", &vmm, known)?;
        check::vmm(context, &vmm, model, index);
        Some(index)
    });
    let memory = section.required_size("memory", "\"32M\"");
    if let Some(memory) = &memory {
        check::guest_memory(context, memory, &model.board, *next_address);
    }
    let address = *next_address;
    *next_address += memory.as_ref().map_or(0, |m| m.value);
    let priority = section.required_number("priority", 1..254, "100");
    if let (Some(priority), Some(vmm)) = (&priority, vmm) {
        check::guest_priority(context, priority, model, vmm);
    }
    let devices = section.strings("devices");
    check::once(context, &devices);
    let devices = devices
        .iter()
        .filter(|device| !broken.contains(&device.value))
        .filter_map(|device| {
            let known = model.devices.iter().map(|d| d.name.as_str());
            let index = find(context, "device", device, known)?;
            check::device_owner(context, device, model, index);
            Some(index)
        })
        .collect();
    let interrupt_budget = section
        .number("interrupt-budget", 1..1 << 32)
        .map_or(INTERRUPT_BUDGET, |budget| budget.value);
    let on_exit = check::on_exit(section);
    let share = section.number("share", 1..1001).map_or(1, |s| s.value);
    let command_line = section.string("command-line");
    if let Some(text) = &command_line
        && text.value.len() > 1024
    {
        context.error(
            &text.span,
            format!("the command line has {} bytes", text.value.len()),
            "write at most 1024",
        );
    }
    section.finish();
    Some(Guest {
        name: name.value.clone(),
        image: image?,
        vmm: vmm?,
        memory: memory?.value,
        address,
        priority: priority?.value as u8,
        devices,
        command_line: command_line.map_or_else(String::new, |text| text.value),
        interrupt_budget,
        on_exit,
        share,
    })
}

/// Whether a board is named by its file, and not by its folder in board/.
fn is_file(board: &str) -> bool {
    board.contains('/') || board.ends_with(".toml")
}

/// Reads a board that exists; the name of one that does not is an error elsewhere.
fn board(root: &Path, name: &str, report: &mut Report) -> Option<Board> {
    let (file, folder, exists) = if is_file(name) {
        (name.to_owned(), None, root.join(name).exists())
    } else {
        let exists = check::folders(&root.join("board"));
        let exists = exists.iter().any(|folder| folder == name);
        (format!("board/{name}/board.toml"), Some(name), exists)
    };
    if !exists {
        return None;
    }
    board::parse(root, &file, folder, report)
}

/// Reads and checks a system file, merged with what it inherits; everything wrong
/// goes into `report`.
pub fn parse(
    source: &Source,
    table: &DeTable<'_>,
    root: &Path,
    iommu: Option<IommuKind>,
    report: &mut Report,
) -> Option<Model> {
    let board_name = table
        .get("system")
        .and_then(|system| system.get_ref().as_table()?.get("board"))
        .and_then(|board| board.get_ref().as_str());
    let board = board_name.and_then(|name| board(root, name, report));
    let before_programs = report.diagnostics.len();
    let programs = manifest::read(root, report);
    let programs_are_good = report.diagnostics.len() == before_programs;
    let report = RefCell::new(report);
    let context = Context {
        source,
        report: &report,
        root: table,
    };
    let top = Section::new(&context, table, "the system file", 0..0);
    let mut model = Model {
        name: String::new(),
        board: Board::default(),
        programs: Vec::new(),
        components: Vec::new(),
        channels: Vec::new(),
        devices: Vec::new(),
        guests: Vec::new(),
    };
    if let Some(system) = top.required_section("system", "{ name, board }") {
        system.get("inherit");
        let name = system.required_string("name", "\"web\"");
        model.name = name.map_or_else(String::new, |name| name.value);
        if let Some(board) = system.required_string("board", "\"qemu-q35\"") {
            if !is_file(&board.value) {
                let boards = check::folders(&root.join("board"));
                find(&context, "board", &board, boards.iter().map(String::as_str));
            } else if !root.join(&board.value).exists() {
                context.error(
                    &board.span,
                    format!("there is no board file `{}`", board.value),
                    "name a folder in board/, or a board's file by its path from the project's \
                     root, or by one with `./` or `../` from the file that says it",
                );
            }
        }
        system.finish();
    }
    // Without a board or a program hardly anything can be checked.
    model.board = board?;
    model.programs = Some(programs).filter(|_| programs_are_good)?;
    if let Some(iommu) = iommu {
        model.board.iommu = iommu;
    }
    let mut broken = Broken::default();
    let errors = || report.borrow().diagnostics.len();
    let before_components = errors();
    for (name, section) in top.named("component") {
        let before = errors();
        let component = component(&name, &section, &model);
        if errors() == before {
            check::program(&context, &name, &component, &model);
        }
        check::component(&context, &name, &component, &model);
        model.components.push(component);
    }
    broken.components = errors() > before_components;
    let before_channels = errors();
    let mut channel_spans = Vec::new();
    for section in top.array("channel") {
        if let Some(channel) = check::channel(&section, &model, &channel_spans) {
            channel_spans.push(section.span.clone());
            model.channels.push(channel);
        }
        section.finish();
    }
    if !broken.components && errors() == before_channels {
        check::implied(&context, &mut model, &mut channel_spans);
    }
    check::cycles(&context, &model, &channel_spans);
    let mut device_spans = Vec::new();
    let mut broken_devices = Vec::new();
    let devices = top.named("device");
    let names: Vec<_> = devices.iter().map(|(name, _)| name.span.clone()).collect();
    check::room(&context, "device", &names, spec::FUNCTIONS);
    for (index, (name, section)) in devices.iter().enumerate() {
        match device(name, section, index, &model) {
            Some(device) => {
                check::device(&context, name, &device, &model);
                device_spans.push(name.span.clone());
                model.devices.push(device);
            }
            None => broken_devices.push(name.value.clone()),
        }
    }
    let before_guests = errors();
    let mut next_address = model.board.guest_memory.0;
    let guests = top.named("guest");
    let names: Vec<_> = guests.iter().map(|(name, _)| name.span.clone()).collect();
    check::room(&context, "guest", &names, spec::GUESTS);
    for (name, section) in guests {
        let guest = guest(
            &name,
            &section,
            &model,
            root,
            &mut next_address,
            &broken_devices,
        );
        model.guests.extend(guest);
    }
    broken.guests = errors() > before_guests;
    check::whole(&context, &model, &device_spans, broken);
    top.finish();
    Some(model)
}
