//! Components: what a program needs, may have, and does after a fault.

use spec::OnFault;

use super::choice;
use crate::board::Board;
use crate::model::{Component, Model};
use crate::reader::{Context, Located, Section};

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
/// restarted. A vmm takes its guest with it and nobody else, unless the file says
/// so: it is the component that meets whatever a guest does.
pub fn on_fault(section: &Section<'_, '_>, program: &str) -> OnFault {
    if program == "vmm" && section.string("on-fault").is_none() {
        return OnFault::StopGuest;
    }
    let words = [
        ("stop", OnFault::Stop),
        ("restart", OnFault::Restart),
        ("stop-guest", OnFault::StopGuest),
    ];
    let policy = choice(section, "on-fault", "policy for faults", &words);
    let (message, help) = match policy {
        OnFault::StopGuest if program != "vmm" => (
            format!("{program} runs no guest that could be stopped"),
            "only a vmm has `on-fault = \"stop-guest\"`".to_owned(),
        ),
        OnFault::Restart if !RESTARTABLE.contains(&program) => (
            format!("{program} cannot be restarted"),
            format!("one of these can: {}", RESTARTABLE.join(", ")),
        ),
        _ => return policy,
    };
    if let Some(text) = section.string("on-fault") {
        section.context.error(&text.span, message, help);
    }
    OnFault::Stop
}
