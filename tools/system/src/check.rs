//! The checks that need the whole system.

use std::ops::Range;

use crate::manifest::{Authority, names};
use crate::model::Model;
use crate::reader::Context;

/// The parts that have errors already: what would follow from those is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Broken {
    pub components: bool,
    pub guests: bool,
}

/// Checks what only the whole system shows.
pub fn whole(context: &Context<'_>, model: &Model, broken: Broken) {
    if model.components.is_empty() && !broken.components {
        context.error(
            &(0..0),
            "the system has no components",
            "add [component.NAME] tables; system.toml of the project is an example",
        );
        return;
    }
    for (index, device) in model.devices.iter().enumerate() {
        if model.owner(index).is_none() && !broken.guests {
            context.error(
                &context.key_span("device", &device.name),
                format!("device `{}` belongs to no guest", device.name),
                "name it in a guest's `devices`, or remove it",
            );
        }
    }
    if let Some(device) = model.devices.first() {
        for authority in Authority::NEEDED {
            if model.holder(authority).is_none() && !broken.components {
                let name = authority.name();
                let using = names(&model.programs, " or ", |p| {
                    p.authority.contains(&authority)
                });
                context.error(
                    &context.key_span("device", &device.name),
                    format!("no component has authority `{name}`"),
                    format!(
                        "a device needs one: add `authority = [\"{name}\"]` to the component that \
                         runs {using}"
                    ),
                );
            }
        }
    }
    for (index, component) in model.components.iter().enumerate() {
        let span = context.key_span("component", &component.name);
        let (program, name) = (&component.program, &component.name);
        if program.runs_guest && model.guest_of(index).is_none() && !broken.guests {
            context.error(
                &span,
                format!("`{name}` runs no guest"),
                format!("name it in a guest: `vmm = \"{name}\"`, or remove it"),
            );
        }
        for need in &program.devices {
            // A device that it lacks has an error of its own.
            let Some(device) = model.device_of(component, &need.name) else {
                continue;
            };
            if need.irq && model.remaps() && device.irq.is_some() && !device.message {
                let (device, file) = (&device.name, &model.board.file);
                context.error(
                    &span,
                    format!(
                        "`{name}` gets no interrupt of device `{device}`: an IOMMU that remaps \
                         interrupts blocks the I/O APIC"
                    ),
                    format!(
                        "add `message = true` to [device.{device}] in {file} if it can interrupt \
                         by messages of its own, or run without the IOMMU"
                    ),
                );
            }
        }
    }
}

/// Checks that calls go in no cycle: two components could wait for each other.
/// `spans` are the places of channels.
pub fn cycles(context: &Context<'_>, model: &Model, spans: &[Range<usize>]) {
    for (first, (channel, span)) in model.channels.iter().zip(spans).enumerate() {
        if let Some(path) = path(model, channel.server, channel.client) {
            let first_of_cycle = path
                .windows(2)
                .filter_map(|ends| {
                    model
                        .channels
                        .iter()
                        .position(|c| c.client == ends[0] && c.server == ends[1])
                })
                .all(|index| index >= first);
            if !first_of_cycle {
                continue;
            }
            let names: Vec<&str> = std::iter::once(channel.client)
                .chain(path)
                .map(|index| model.components[index].name.as_str())
                .collect();
            context.error(
                span,
                format!("calls go in a cycle: {}", names.join(" -> ")),
                "remove one of these channels; a reply can carry what the server has to say",
            );
        }
    }
}

/// Returns a path along channels, both ends included.
fn path(model: &Model, from: usize, to: usize) -> Option<Vec<usize>> {
    let mut reached = vec![from];
    let mut came_from = vec![None; model.components.len()];
    let mut next = 0;
    while let Some(&at) = reached.get(next) {
        if at == to {
            let mut path = vec![to];
            let mut back = to;
            while let Some(previous) = came_from[back] {
                path.push(previous);
                back = previous;
            }
            path.reverse();
            return Some(path);
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
