//! The checks that need more than one value.

mod channels;
mod components;
mod devices;
mod guests;

use std::ops::Range;
use std::path::Path;

use crate::manifest::names;
use crate::model::{Authority, Model, Policy};
use crate::reader::{Context, Located, Section};

pub use channels::{channel, cycles, implied};
pub use components::{component, on_fault, program};
pub use devices::{
    device, device_owner, dma, hex_class, hex_pair, intx, on_dma_fault, reset_optional,
};
pub use guests::{guest_image, guest_memory, guest_priority, on_exit, vmm};

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
pub fn choice<T: Copy>(
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
        let mut before = names[..index].iter();
        if let Some(first) = before.find(|other| other.value == name.value) {
            context.conflict(
                &name.span,
                &first.span,
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
    pub guests: bool,
}

/// What only the whole file shows.
pub fn whole(context: &Context<'_>, model: &Model, devices: &[Range<usize>], broken: Broken) {
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
                        names(&model.programs, " or ", |p| p
                            .authority
                            .contains(&authority))
                    ),
                );
            }
        }
    }
    for (index, component) in model.components.iter().enumerate() {
        let span = context.key_span("component", &component.name);
        let program = &component.program;
        if program.runs_guest && model.guest_of(index).is_none() && !broken.guests {
            context.error(
                &span,
                format!("`{}` runs no guest", component.name),
                format!(
                    "name it in a guest: `vmm = \"{}\"`, or remove it",
                    component.name
                ),
            );
        }
        for need in &program.devices {
            // A device that it lacks has an error of its own.
            let Some(device) = model.device_of(component, &need.name) else {
                continue;
            };
            if need.irq && model.remaps() && device.irq.is_some() && !device.message {
                context.error(
                    &span,
                    format!(
                        "`{}` gets no interrupt of device `{}`: an IOMMU that remaps interrupts \
                         blocks the I/O APIC",
                        component.name, device.name
                    ),
                    format!(
                        "add `message = true` to [device.{}] in {} if it can \
                         interrupt by messages of its own, or run without the IOMMU",
                        device.name, model.board.file
                    ),
                );
            }
        }
    }
}

/// Reads a text file. A device or a pipe could be read without end.
pub fn read_text(path: &Path) -> std::io::Result<String> {
    if std::fs::metadata(path)?.is_file() {
        return std::fs::read_to_string(path);
    }
    Err(std::io::Error::other("it is not a regular file"))
}

/// Whether a policy lets gaps pass.
pub const fn permissive(policy: Policy) -> bool {
    matches!(policy, Policy::Permissive)
}
