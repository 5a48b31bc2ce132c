//! The checks that need more than one value.

mod channels;
mod components;
mod devices;
mod guests;

use std::ops::Range;
use std::path::Path;

use crate::model::{Authority, Component, Model, Policy};
use crate::reader::{Context, Located, Section};

pub use channels::{channel, cycles};
pub use components::{component, on_fault, program};
pub use devices::{
    device, device_owner, dma, hex_class, hex_pair, intx, on_dma_fault, reset_optional,
};
pub use guests::{guest_image, guest_memory, guest_priority, on_exit, vmm};

use channels::INTERFACES;

/// Largest stack: the room between the IPC buffer and the stack's top, less
/// guard pages.
pub const STACK_MAX: u64 = 512 << 10;

/// Large pages hold guest RAM.
pub const GUEST_PAGE: u64 = 2 << 20;

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

/// Reads a key that says one of these words, the first if it is missing; `what`
/// is what another word is not.
fn choice<T: Copy>(
    section: &Section<'_, '_>,
    key: &'static str,
    what: &str,
    words: &[(&str, T)],
) -> T {
    let first = words[0].1;
    let Some(text) = section.string(key) else {
        return first;
    };
    let known = words.iter().find(|(word, _)| *word == text.value);
    known.map_or_else(
        || {
            section.context.error(
                &text.span,
                format!("`{}` is no {what}", text.value),
                Context::suggest(&text.value, words.iter().map(|(word, _)| *word)),
            );
            first
        },
        |(_, value)| *value,
    )
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
        let hpet = component
            .devices
            .iter()
            .map(|&device| &model.board.devices[device])
            .find(|device| device.name == "hpet");
        if component.program == "timer"
            && model.remaps()
            && hpet.is_some_and(|hpet| hpet.irq.is_some() && !hpet.message)
        {
            context.error(
                &span,
                format!(
                    "`{}` gets no interrupt of device `hpet`: an IOMMU that remaps interrupts \
                     blocks the I/O APIC",
                    component.name
                ),
                format!(
                    "add `message = true` to [device.hpet] in {} if it can \
                     interrupt by messages of its own, or run without the IOMMU",
                    model.board.file
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
            // Its interrupt does not come there, or it has none.
            let polls = program == "console"
                && interface.name == "Timer"
                && (model.remaps() || !interrupts(model, component, "com1"));
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

/// Whether a component has a board device that interrupts. One that it lacks has
/// an error of its own.
fn interrupts(model: &Model, component: &Component, name: &str) -> bool {
    let mut own = component
        .devices
        .iter()
        .map(|&index| &model.board.devices[index]);
    own.find(|device| device.name == name)
        .is_none_or(|device| device.irq.is_some())
}

/// Reads a text file. A device or a pipe could be read without end.
pub fn read_text(path: &Path) -> std::io::Result<String> {
    if std::fs::metadata(path)?.is_file() {
        return std::fs::read_to_string(path);
    }
    Err(std::io::Error::other("it is not a regular file"))
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
