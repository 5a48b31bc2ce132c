//! Guests: image, vmm, memory, priority and end.

use std::ops::Range;
use std::path::{Path, PathBuf};

use spec::OnExit;

use crate::board::{Board, GUEST_PAGE};
use crate::files::read_text;
use crate::manifest::names;
use crate::model::{Boot, Guest, GuestImage, Model, Place, Solo5Device, Solo5Kind};
use crate::reader::{Context, Located, Section, choice, find, indices, room};

/// Interrupts of one source in a second that are no storm: five times what an
/// e1000e raises under load in QEMU.
const INTERRUPT_BUDGET: u64 = 20_000;

/// Reads the guests into `model`. The devices in `broken` exist but have errors of
/// their own.
pub fn read(top: &Section<'_, '_>, model: &mut Model, root: &Path, broken: &[String]) {
    let guests = top.named("guest");
    room(top.context, "guest", &guests, spec::GUESTS);
    let mut next_address = model.board.guest_memory.0;
    for (name, section) in guests {
        let guest = guest(&name, &section, model, root, &mut next_address, broken);
        model.guests.extend(guest);
    }
}

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
        .and_then(|image| guest_image(context, &image, root));
    let vmm = section.required_string("vmm", "\"vmm\"").and_then(|vmm| {
        let known = model.components.iter().map(|c| c.name.as_str());
        let index = find(context, "component", &vmm, known)?;
        check_vmm(context, &vmm, model, index);
        Some(index)
    });
    let memory = section.required_size("memory", "\"32M\"");
    if let Some(memory) = &memory {
        guest_memory(context, memory, &model.board, *next_address);
    }
    let machine_address = *next_address;
    *next_address += memory.as_ref().map_or(0, |m| m.value);
    let priority = section.required_number("priority", 1..254, "100");
    if let (Some(priority), Some(vmm)) = (&priority, vmm) {
        guest_priority(context, priority, model, vmm);
    }
    // Those that are broken are known too, behind the others.
    let known = model
        .devices
        .iter()
        .map(|device| &device.name)
        .chain(broken);
    let mut devices = indices(section, "devices", "device", known.map(String::as_str));
    devices.retain(|device| device.value < model.devices.len());
    for device in &devices {
        device_owner(context, device, model);
    }
    if let Some(device) = devices.get(pci::GUEST_FUNCTIONS) {
        context.error(
            &device.span,
            format!("{} devices are too many for one guest", devices.len()),
            format!("a vmm has room for {}", pci::GUEST_FUNCTIONS),
        );
    }
    // A device's DMA addresses are the guest's only where a unit translates them.
    let translated = model.remaps() || devices.is_empty();
    let machines = [("minimal", false), ("pc", true)];
    let pc = choice(section, "machine", "kind of machine", &machines);
    let address = section.number("address", 0..1 << 32);
    let default = match &image {
        _ if !translated => machine_address,
        // We link it ourselves: nothing is at 0, where null pointers point to.
        Some(GuestImage::Crate(..)) if !pc => GUEST_PAGE,
        _ => 0,
    };
    let size = memory.as_ref().map_or(0, |memory| memory.value);
    let address = match (address, &memory) {
        (Some(address), _) => {
            let translated = translated || address.value == machine_address;
            guest_address(context, &address, size, translated);
            address.value
        }
        // Where nothing translates the machine's address is the guest's, wherever that is.
        (None, Some(memory)) if default == machine_address => {
            let help = "let the board's `guest-memory` end below that, or run on a machine with \
                        an IOMMU (`--iommu amd`)";
            below_bars(context, &memory.span, default, size, help);
            default
        }
        (None, _) => default,
    };
    let interrupt_budget = section
        .number("interrupt-budget", 1..1 << 32)
        .map_or(INTERRUPT_BUDGET, |budget| budget.value);
    let slots = section
        .number("slots", 1..spec::SLOTS as u64 + 1)
        .map(|slots| slots.value);
    let words = [
        ("stop", OnExit::Stop),
        ("halt", OnExit::Halt),
        ("restart", OnExit::Restart),
    ];
    let on_exit = choice(section, "on-exit", "policy for a guest's end", &words);
    let protocols = [
        ("auto", Boot::Auto),
        ("linux", Boot::Linux),
        ("multiboot", Boot::Multiboot),
        ("pvh", Boot::Pvh),
    ];
    let boot = choice(section, "boot", "boot protocol", &protocols);
    let modules = section.strings("modules");
    let modules = modules
        .iter()
        .filter_map(|file| module(context, file, root));
    let modules = modules.collect();
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
    let trusts_kernel = trusts_kernel(section);
    let solo5 = section.section("solo5");
    let place = solo5.as_ref().map_or(&name.span, |solo5| &solo5.span);
    let place = Place(context.source.line_of(place));
    let solo5 = solo5.map(|solo5| solo5_devices(&solo5, &devices, model));
    section.finish();
    Some(Guest {
        name: name.value.clone(),
        image: image?,
        vmm: vmm?,
        memory: memory?.value,
        address,
        machine_address,
        priority: priority?.value as u8,
        devices: devices.into_iter().map(|device| device.value).collect(),
        command_line: command_line.map_or_else(String::new, |text| text.value),
        solo5,
        trusts_kernel,
        place,
        interrupt_budget,
        slots,
        on_exit,
        share,
        pc,
        boot,
        modules,
    })
}

/// Reads `kernel`, and returns whether the guest may run on a kernel that it can halt.
fn trusts_kernel(section: &Section<'_, '_>) -> bool {
    let Some(text) = section.string("kernel") else {
        return false;
    };
    if text.value != "trusted" {
        section.context.error(
            &text.span,
            format!("`{}` is not a way to treat the kernel here", text.value),
            "write \"trusted\" if the guest may halt the machine where the kernel lets it; without \
             the key the kernel must be closed against it",
        );
    }
    text.value == "trusted"
}

/// Reads which of the guest's functions stands for which device of its image's manifest.
fn solo5_devices(
    section: &Section<'_, '_>,
    own: &[Located<usize>],
    model: &Model,
) -> Vec<Solo5Device> {
    let context = section.context;
    let mut all: Vec<Solo5Device> = Vec::new();
    for (key, kind) in [("net", Solo5Kind::Net), ("block", Solo5Kind::Block)] {
        for (name, function) in section.pairs(key) {
            let known = model.devices.iter().map(|device| device.name.as_str());
            let Some(device) = find(context, "device", &function, known) else {
                continue;
            };
            if !own.iter().any(|own| own.value == device) {
                context.error(
                    &function.span,
                    format!("device `{}` is not this guest's", function.value),
                    "name it in the guest's `devices` too",
                );
            }
            if let Some(other) = all.iter().find(|other| other.device == device) {
                context.error(
                    &function.span,
                    format!(
                        "device `{}` already stands for `{}`",
                        function.value, other.name
                    ),
                    "each name takes a function of its own",
                );
            }
            all.push(Solo5Device {
                place: Place(context.source.line_of(&name.span)),
                name: name.value,
                kind,
                device,
            });
        }
    }
    section.finish();
    all
}

/// Returns where a guest's image comes from: the folder of a crate, or a file.
fn guest_image(context: &Context<'_>, image: &Located<String>, root: &Path) -> Option<GuestImage> {
    let path = root.join(&image.value);
    if path.is_file() {
        return Some(GuestImage::File(path));
    }
    let manifest = path.join("Cargo.toml");
    let package = read_text(&manifest).ok().and_then(|text| {
        let table: toml::Table = text.parse().ok()?;
        Some(table.get("package")?.get("name")?.as_str()?.to_owned())
    });
    if let Some(package) = package {
        return Some(GuestImage::Crate(path, package));
    }
    let message = if path.is_dir() {
        format!("`{}` is a folder without a crate", image.value)
    } else if path.exists() {
        format!("guest image `{}` is not a regular file", image.value)
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

/// Returns a boot module's file.
fn module(context: &Context<'_>, file: &Located<String>, root: &Path) -> Option<PathBuf> {
    let path = root.join(&file.value);
    if path.is_file() {
        return Some(path);
    }
    context.error(
        &file.span,
        format!("there is no boot module `{}`", file.value),
        "name a file, from the project's root",
    );
    None
}

/// Checks that a guest's vmm can run guests, and runs no other.
fn check_vmm(context: &Context<'_>, name: &Located<String>, model: &Model, index: usize) {
    let (vmm, program) = (&name.value, &model.components[index].program);
    let runs = &program.name;
    if !program.runs_guest {
        let running = names(&model.programs, "` or `", |program| program.runs_guest);
        context.error(
            &name.span,
            format!("`{vmm}` runs {runs}, which runs no guests"),
            format!("name a component whose program is `{running}`"),
        );
    }
    if let Some(Guest { name: other, .. }) = model.guest_of(index) {
        context.conflict(
            &name.span,
            &context.key_span("guest", other),
            format!("`{vmm}` already runs guest `{other}`"),
            format!("give each guest its own vmm: a second component with `program = \"{runs}\"`"),
        );
    }
}

/// Checks that guest RAM fits into the board's range, in large pages.
fn guest_memory(context: &Context<'_>, memory: &Located<u64>, board: &Board, start: u64) {
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
        let (wanted, left, board) = (memory.value >> 20, left >> 20, &board.name);
        context.error(
            &memory.span,
            format!("{wanted}M do not fit: board {board} has {left}M left for guests"),
            "give this or another guest less memory",
        );
    }
}

/// Checks that guest RAM ends below the window of BARs.
fn below_bars(context: &Context<'_>, span: &Range<usize>, address: u64, size: u64, help: &str) {
    let end = address.saturating_add(size);
    if end > pci::BAR_WINDOW.start {
        context.error(
            span,
            format!(
                "guest RAM would end at {end:#x}, past the window of BARs, which begins at {:#x}",
                pci::BAR_WINDOW.start
            ),
            help,
        );
    }
}

/// Checks that RAM can lie at a guest address: in large pages, below the window of
/// BARs, and translated for devices.
fn guest_address(context: &Context<'_>, address: &Located<u64>, size: u64, translated: bool) {
    if !address.value.is_multiple_of(GUEST_PAGE) {
        context.error(
            &address.span,
            format!("guest RAM cannot begin at {:#x}", address.value),
            "give a multiple of 2M",
        );
    }
    let help = "give a lower address, or less memory";
    below_bars(context, &address.span, address.value, size, help);
    if !translated {
        context.error(
            &address.span,
            "the guest's devices would use addresses of the machine, not the guest's: nothing \
             translates them",
            "leave `address` out, or run on a machine with an IOMMU (`--iommu amd`)",
        );
    }
}

/// Checks that a guest cannot keep its own vmm from running, and that the priority
/// below it, which it has outside of its turn, is free.
fn guest_priority(context: &Context<'_>, priority: &Located<u64>, model: &Model, vmm: usize) {
    let (vmm, guest) = (&model.components[vmm], priority.value);
    let beside = |other: &&Guest| u64::from(other.priority).abs_diff(guest) == 1;
    if let Some(other) = model.guests.iter().find(beside) {
        let (name, at) = (&other.name, other.priority);
        context.conflict(
            &priority.span,
            &context.key_span("guest", name),
            format!("the guest's priority {guest} is next to that of guest `{name}` ({at})"),
            "give both the same, to share the time, or leave one between: outside of its turn \
             a guest runs at the next lower priority",
        );
    }
    // 0 stands for a priority that is missing or wrong, which has its own error.
    let at = vmm.priority;
    if guest >= u64::from(at) && at > 0 {
        context.error(
            &priority.span,
            format!("the guest's priority {guest} is not below its vmm's ({at})"),
            "lower it: the vmm must run as soon as it has something to do",
        );
    }
}

/// Checks that a function has one guest.
fn device_owner(context: &Context<'_>, device: &Located<usize>, model: &Model) {
    if let Some(owner) = model.owner(device.value) {
        let (name, owner) = (&model.devices[device.value].name, &model.guests[owner].name);
        context.conflict(
            &device.span,
            &context.key_span("guest", owner),
            format!("device `{name}` already belongs to guest `{owner}`"),
            "a function has one guest: take it from one of them",
        );
    }
}
