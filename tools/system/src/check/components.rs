//! Components: what a program needs, may have, and does after a fault.

use spec::OnFault;

use super::choice;
use crate::board::{Board, BoardDevice};
use crate::model::{Component, Model};
use crate::reader::{Context, Located, Section};

/// Ports of a serial port (16550 datasheet, table of registers).
const UART_PORTS: u16 = 8;

/// A part of a board device.
#[derive(Clone, Copy)]
enum Part {
    Ports,
    Memory,
    Irq,
}

impl Part {
    /// How its key in the board's file is called in an error.
    const fn what(self) -> &'static str {
        match self {
            Self::Ports => "8 `ports`",
            Self::Memory => "`memory`",
            Self::Irq => "`irq`",
        }
    }

    const fn example(self) -> &'static str {
        match self {
            Self::Ports => "ports = { first = 0x3f8, count = 8 }",
            Self::Memory => "memory = { base = 0xfed0_0000, size = \"4K\" }",
            Self::Irq => "irq = { pin = 4, trigger = \"edge\" }",
        }
    }

    fn is_there(self, device: &BoardDevice) -> bool {
        match self {
            Self::Ports => device
                .ports
                .is_some_and(|(first, last)| last - first >= UART_PORTS - 1),
            Self::Memory => device.memory.is_some(),
            Self::Irq => device.irq.is_some(),
        }
    }
}

/// The board devices without which a program does not start, by the names that
/// it asks for, with what of them it asks for. COM1's interrupt is not among
/// them: the console can look at it by the timer.
const PROGRAM_DEVICES: [(&str, &str, &[Part]); 3] = [
    ("console", "com1", &[Part::Ports]),
    ("console", "com2", &[Part::Ports]),
    ("timer", "hpet", &[Part::Memory, Part::Irq]),
];

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
    for (program, device, parts) in PROGRAM_DEVICES {
        if component.program != program {
            continue;
        }
        let mut own = component.devices.iter().map(|&index| &board.devices[index]);
        let Some(found) = own.find(|known| known.name == device) else {
            context.error(
                &name.span,
                format!(
                    "`{}` runs {program}, which needs device `{device}`",
                    name.value
                ),
                format!("add it: `devices = [\"{device}\"]`"),
            );
            continue;
        };
        for part in parts.iter().filter(|part| !part.is_there(found)) {
            context.error(
                &name.span,
                format!(
                    "`{}` runs {program}, which needs {} of device `{device}`",
                    name.value,
                    part.what()
                ),
                format!(
                    "add it to [device.{device}] in {}, such as `{}`",
                    board.file,
                    part.example()
                ),
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
