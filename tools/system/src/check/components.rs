//! Components: what a program needs, may have, and does after a fault.

use spec::OnFault;

use super::choice;
use crate::board::BoardDevice;
use crate::manifest::{DeviceNeed, Manifest, names};
use crate::model::{Component, Model};
use crate::reader::{Context, Located, Section};

/// Returns the parts of a board device that a program needs and that are not there:
/// each with an example.
fn missing(need: &DeviceNeed, device: &BoardDevice) -> Vec<(String, &'static str)> {
    let ports = device
        .ports
        .map_or(0, |(first, last)| u64::from(last) - u64::from(first) + 1);
    [
        (
            ports < need.ports,
            format!("{} `ports`", need.ports),
            "ports = { first = 0x3f8, count = 8 }",
        ),
        (
            need.memory && device.memory.is_none(),
            "`memory`".to_owned(),
            "memory = { base = 0xfed0_0000, size = \"4K\" }",
        ),
        (
            need.irq && device.irq.is_none(),
            "`irq`".to_owned(),
            "irq = { pin = 4, trigger = \"edge\" }",
        ),
    ]
    .into_iter()
    .filter_map(|(missing, what, example)| missing.then_some((what, example)))
    .collect()
}

/// A component has what its program needs, no power that its program does not
/// use, and nothing twice.
pub fn program(
    context: &Context<'_>,
    name: &Located<String>,
    component: &Component,
    model: &Model,
) {
    let program = &component.program;
    for need in &program.devices {
        let device = &need.name;
        let Some(found) = model.device_of(component, device) else {
            context.error(
                &name.span,
                format!(
                    "`{}` runs {}, which needs device `{device}`",
                    name.value, program.name
                ),
                format!("add it: `devices = [\"{device}\"]`"),
            );
            continue;
        };
        for (what, example) in missing(need, found) {
            context.error(
                &name.span,
                format!(
                    "`{}` runs {}, which needs {what} of device `{device}`",
                    name.value, program.name
                ),
                format!(
                    "add it to [device.{device}] in {}, such as `{example}`",
                    model.board.file
                ),
            );
        }
    }
    for authority in &component.authority {
        if !program.authority.contains(authority) {
            context.error(
                &name.span,
                format!(
                    "`{}` runs {}, which has no use for authority `{}`",
                    name.value,
                    program.name,
                    authority.name()
                ),
                format!(
                    "only a component whose program is `{}` may have it",
                    names(&model.programs, "` or `", |p| p
                        .authority
                        .contains(authority))
                ),
            );
        }
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
            context.conflict(
                &name.span,
                &context.key_span("component", &other.name),
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
            context.conflict(
                &name.span,
                &context.key_span("component", &other.name),
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
/// restarted. A vmm takes its guest with it and nobody else, unless the file says
/// so: it is the component that meets whatever a guest does.
pub fn on_fault(section: &Section<'_, '_>, program: &Manifest, programs: &[Manifest]) -> OnFault {
    if program.runs_guest && section.string("on-fault").is_none() {
        return OnFault::StopGuest;
    }
    let words = [
        ("stop", OnFault::Stop),
        ("restart", OnFault::Restart),
        ("stop-guest", OnFault::StopGuest),
    ];
    let policy = choice(section, "on-fault", "policy for faults", &words);
    let (message, help) = match policy {
        OnFault::StopGuest if !program.runs_guest => (
            format!("{} runs no guest that could be stopped", program.name),
            format!(
                "only {} has `on-fault = \"stop-guest\"`",
                names(programs, " or ", |p| p.runs_guest)
            ),
        ),
        OnFault::Restart if !program.restartable => (
            format!("{} cannot be restarted", program.name),
            format!(
                "one of these can: {}",
                names(programs, ", ", |p| p.restartable)
            ),
        ),
        _ => return policy,
    };
    if let Some(text) = section.string("on-fault") {
        section.context.error(&text.span, message, help);
    }
    OnFault::Stop
}
