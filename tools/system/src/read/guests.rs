//! Guests: image, vmm, memory, priority and end.

use std::path::Path;

use spec::OnExit;

use crate::board::{Board, GUEST_PAGE};
use crate::files::read_text;
use crate::manifest::names;
use crate::model::{Guest, GuestImage, Model};
use crate::reader::{Context, Located, Section, choice, find, once, room};

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
    let address = *next_address;
    *next_address += memory.as_ref().map_or(0, |m| m.value);
    let priority = section.required_number("priority", 1..254, "100");
    if let (Some(priority), Some(vmm)) = (&priority, vmm) {
        guest_priority(context, priority, model, vmm);
    }
    let devices = section.strings("devices");
    once(context, &devices);
    let devices = devices
        .iter()
        .filter(|device| !broken.contains(&device.value))
        .filter_map(|device| {
            let known = model.devices.iter().map(|d| d.name.as_str());
            let index = find(context, "device", device, known)?;
            device_owner(context, device, model, index);
            Some(index)
        })
        .collect();
    let interrupt_budget = section
        .number("interrupt-budget", 1..1 << 32)
        .map_or(INTERRUPT_BUDGET, |budget| budget.value);
    let on_exit = on_exit(section);
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

/// Checks that a guest's vmm can run guests, and runs no other.
fn check_vmm(context: &Context<'_>, name: &Located<String>, model: &Model, index: usize) {
    let component = &model.components[index];
    if !component.program.runs_guest {
        context.error(
            &name.span,
            format!(
                "`{}` runs {}, which runs no guests",
                component.name, component.program.name
            ),
            format!(
                "name a component whose program is `{}`",
                names(&model.programs, "` or `", |program| program.runs_guest)
            ),
        );
    }
    if let Some(other) = model.guest_of(index) {
        context.conflict(
            &name.span,
            &context.key_span("guest", &other.name),
            format!("`{}` already runs guest `{}`", component.name, other.name),
            format!(
                "give each guest its own vmm: a second component with `program = \"{}\"`",
                component.program.name
            ),
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

/// Checks that a guest cannot keep its own vmm from running, and that the priority
/// below it, which it has outside of its turn, is free.
fn guest_priority(context: &Context<'_>, priority: &Located<u64>, model: &Model, vmm: usize) {
    let vmm = &model.components[vmm];
    let beside = |guest: &&Guest| u64::from(guest.priority).abs_diff(priority.value) == 1;
    if let Some(other) = model.guests.iter().find(beside) {
        context.conflict(
            &priority.span,
            &context.key_span("guest", &other.name),
            format!(
                "the guest's priority {} is next to that of guest `{}` ({})",
                priority.value, other.name, other.priority
            ),
            "give both the same, to share the time, or leave one between: outside of its turn \
             a guest runs at the next lower priority",
        );
    }
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

/// Checks that a function has one guest.
fn device_owner(context: &Context<'_>, name: &Located<String>, model: &Model, index: usize) {
    if let Some(owner) = model.owner(index) {
        context.conflict(
            &name.span,
            &context.key_span("guest", &model.guests[owner].name),
            format!(
                "device `{}` already belongs to guest `{}`",
                name.value, model.guests[owner].name
            ),
            "a function has one guest: take it from one of them",
        );
    }
}

/// Reads `on-exit`.
fn on_exit(section: &Section<'_, '_>) -> OnExit {
    let words = [
        ("stop", OnExit::Stop),
        ("halt", OnExit::Halt),
        ("restart", OnExit::Restart),
    ];
    choice(section, "on-exit", "policy for a guest's end", &words)
}
