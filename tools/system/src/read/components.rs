//! Components: what a program needs, may have, and does after a fault.

use spec::OnFault;

use crate::ROOT_TASK;
use crate::board::BoardDevice;
use crate::manifest::{DeviceNeed, Manifest, authorities, names};
use crate::model::{Component, Model};
use crate::reader::{Context, Located, Section, choice, find, indices};

/// Largest stack: the room between the IPC buffer and the stack's top, less
/// guard pages.
const STACK_MAX: u64 = 512 << 10;

/// Reads the components into `model`.
pub fn read(top: &Section<'_, '_>, model: &mut Model) {
    let context = top.context;
    for (name, section) in top.named("component") {
        let before = context.errors();
        let component = component(&name, &section, model);
        if context.errors() == before {
            program(context, &name, &component, model);
        }
        owners(context, &name, &component, model);
        model.components.push(component);
    }
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
        && stack.value > STACK_MAX
    {
        context.error(
            &stack.span,
            format!("a stack of {} bytes does not fit", stack.value),
            "a stack has at most 512K, so that its guard page stays free",
        );
    }
    // What is known of a program that is not there is its name.
    let program = index.map_or_else(
        || Manifest {
            name: program.value,
            ..Manifest::default()
        },
        |index| model.programs[index].clone(),
    );
    let known = board.devices.iter().map(|device| device.name.as_str());
    let what = format!("device on board {}:", board.name);
    // A device that stands in for another may be missing on the board.
    let optional = program.devices.iter().filter(|need| need.one_of.is_some());
    let optional = optional.map(|need| need.name.as_str());
    let optional = optional.filter(|name| !known.clone().any(|device| device == *name));
    let devices = indices(section, "devices", &what, known.clone().chain(optional));
    let devices = devices.into_iter().map(|device| device.value);
    let devices = devices.filter(|device| *device < board.devices.len());
    let authority = authorities(section);
    let on_fault = on_fault(section, &program, &model.programs);
    section.finish();
    Component {
        name: name.value.clone(),
        program,
        priority: priority.map_or(0, |p| p.value as u8),
        stack: stack.map_or(4096, |s| s.value),
        devices: devices.collect(),
        authority,
        on_fault,
    }
}

/// Leaves each component one device of those of which one will do: the first whose interrupt
/// arrives. Where the machine may not have that one, which shows at boot, the next stays too.
pub fn choose(model: &mut Model) {
    for index in 0..model.components.len() {
        let component = &model.components[index];
        let of_board = |device: usize| &model.board.devices[device];
        let need = |device: usize| {
            let mut needs = component.program.devices.iter();
            needs.find(|need| need.name == of_board(device).name)
        };
        let arrives = |device: usize| of_board(device).message || !model.remaps();
        let mut kept: Vec<usize> = Vec::new();
        for &device in &component.devices {
            let same = |other: &usize| {
                let needs = need(device).zip(need(*other));
                needs.is_some_and(|(this, other)| this.is_instead_of(other))
            };
            match kept.iter().rposition(same) {
                None => kept.push(device),
                Some(_) if !arrives(device) => {}
                Some(other) if !arrives(kept[other]) => kept[other] = device,
                Some(other) if of_board(kept[other]).is_sure() => {}
                Some(_) => kept.push(device),
            }
        }
        model.components[index].devices = kept;
    }
}

/// Returns the parts that a program needs of a board device and that the device does
/// not have, each with an example.
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

/// Checks that a component has what its program needs, and no authority that its
/// program does not use.
fn program(context: &Context<'_>, name: &Located<String>, component: &Component, model: &Model) {
    let program = &component.program;
    let runs = format!("`{}` runs {}, which", name.value, program.name);
    let file = &model.board.file;
    for need in &program.devices {
        let device = &need.name;
        let Some(found) = model.device_of(component, device) else {
            let all = program.devices.iter();
            let mut all = all.filter(|other| other.is_instead_of(need)).peekable();
            let first = all.peek().is_some_and(|first| first.name == *device);
            let names: Vec<&str> = all.map(|other| other.name.as_str()).collect();
            let another = |name: &&str| model.device_of(component, name).is_some();
            if first && !names.iter().any(another) {
                let message = format!("{runs} needs device `{}`", names.join("` or `"));
                let help = format!("add it: `devices = [\"{}\"]`", names.join("\", \""));
                context.error(&name.span, message, help);
            }
            continue;
        };
        for (what, example) in missing(need, found) {
            let message = format!("{runs} needs {what} of device `{device}`");
            let help = format!("add it to [device.{device}] in {file}, such as `{example}`");
            context.error(&name.span, message, help);
        }
    }
    let mut unused = component.authority.iter();
    while let Some(authority) = unused.find(|a| !program.authority.contains(a)) {
        let using = names(&model.programs, "` or `", |p| {
            p.authority.contains(authority)
        });
        let message = format!("{runs} has no use for authority `{}`", authority.name());
        let help = format!("only a component whose program is `{using}` may have it");
        context.error(&name.span, message, help);
    }
}

/// Checks that each board device and authority belongs to one component.
fn owners(context: &Context<'_>, name: &Located<String>, component: &Component, model: &Model) {
    for other in &model.components {
        let first = context.key_span("component", &other.name);
        let both = format!("`{}` and `{}` both", other.name, component.name);
        let devices = component.devices.iter();
        for &device in devices.filter(|device| other.devices.contains(device)) {
            let device = &model.board.devices[device].name;
            context.conflict(
                &name.span,
                &first,
                format!("{both} own device `{device}`"),
                "a port, a page and an interrupt have one owner: take the device from one of them",
            );
        }
        let authority = component.authority.iter();
        for authority in authority.filter(|authority| other.authority.contains(authority)) {
            context.conflict(
                &name.span,
                &first,
                format!("{both} have authority `{}`", authority.name()),
                "an authority has one holder: take it from one of them",
            );
        }
    }
}

/// Reads `on-fault`. Only a program whose state survives its restart may be
/// restarted. By default a program that runs a guest stops that guest with it and nothing
/// else: it is the component that is exposed to whatever a guest does.
fn on_fault(section: &Section<'_, '_>, program: &Manifest, programs: &[Manifest]) -> OnFault {
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
