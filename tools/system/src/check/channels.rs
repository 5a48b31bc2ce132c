//! Channels: what there is to connect, and how.

use std::ops::Range;

use crate::manifest::{Manifest, names};
use crate::model::{Channel, Model, find};
use crate::reader::{Context, Located, Section, list};

/// Reads one `[[channel]]`: ends that exist, and an interface that fits them. `spans`
/// are the places of those before.
pub fn channel(
    section: &Section<'_, '_>,
    model: &Model,
    spans: &[Range<usize>],
) -> Option<Channel> {
    let context = section.context;
    let interface = section.required_string("interface", "\"PciConfig\"");
    let client = section.required_string("client", "\"vmm\"");
    let server = section.required_string("server", "\"pci-config\"");
    let served = model.programs.iter().flat_map(|program| &program.serves);
    let known = interface
        .as_ref()
        .and_then(|name| find(context, "interface", name, served.map(String::as_str)));
    let component = |name: Option<Located<String>>| {
        let components = model.components.iter().map(|c| c.name.as_str());
        name.and_then(|name| Some((find(context, "component", &name, components)?, name)))
    };
    let (client, server) = (component(client), component(server));
    let (interface, (client, client_name), (server, server_name)) = (interface?, client?, server?);
    known?;
    let calls = |program: &Manifest| program.may_call(&interface.value);
    let serves = |program: &Manifest| program.serves.contains(&interface.value);
    for (end, name, fits) in [
        (client, &client_name, &calls as &dyn Fn(&Manifest) -> bool),
        (server, &server_name, &serves),
    ] {
        let runs = &model.components[end].program;
        if !fits(runs) {
            context.error(
                &name.span,
                format!(
                    "`{}` is between {} and {}, but `{}` runs {}",
                    interface.value,
                    names(&model.programs, " or ", calls),
                    names(&model.programs, " or ", serves),
                    name.value,
                    runs.name
                ),
                format!(
                    "name a component whose program is `{}`",
                    names(&model.programs, "` or `", fits)
                ),
            );
        }
    }
    let same = |other: &Channel| other.client == client && other.interface == interface.value;
    if let Some(first) = model.channels.iter().position(same) {
        context.conflict(
            &interface.span,
            &spans[first],
            format!(
                "`{}` has a second channel `{}`",
                client_name.value, interface.value
            ),
            "a component has one server for each interface: remove one",
        );
    }
    let channel = Channel {
        interface: interface.value,
        client,
        server,
    };
    priority(context, &server_name.span, &channel, model);
    Some(channel)
}

/// A server is at least as urgent as its client.
fn priority(context: &Context<'_>, span: &Range<usize>, channel: &Channel, model: &Model) {
    let low = &model.components[channel.client];
    let high = &model.components[channel.server];
    // 0 stands for a priority that is missing or wrong, which has its own error.
    if high.priority < low.priority && high.priority > 0 {
        context.error(
            span,
            format!(
                "`{}` (priority {}) calls `{}` of lower priority ({})",
                low.name, low.priority, high.name, high.priority
            ),
            "a component calls only components of the same or a higher priority: raise the \
             server's",
        );
    }
}

/// Adds the channels that the file need not say, since an interface that a component
/// calls has one server. `spans` are the places of channels.
pub fn implied(context: &Context<'_>, model: &mut Model, spans: &mut Vec<Range<usize>>) {
    for client in 0..model.components.len() {
        let component = &model.components[client];
        let span = context.key_span("component", &component.name);
        let program = component.program.clone();
        let silent = program.devices.iter().filter(|need| {
            // A device that it lacks has an error of its own.
            let device = model.device_of(component, &need.name);
            device.is_some_and(|device| device.irq.is_none() || model.remaps())
        });
        let polled: Vec<_> = silent
            .filter_map(|need| need.without_irq.as_ref())
            .collect();
        for interface in program.calls.iter().chain(&program.optional_calls) {
            if model.server(client, interface).is_some() {
                continue;
            }
            let name = &model.components[client].name;
            let components = model.components.iter().enumerate();
            let servers = components.filter(|(_, other)| other.program.serves.contains(interface));
            let servers: Vec<_> = servers.map(|(index, other)| (index, &other.name)).collect();
            match servers[..] {
                [(server, _)] => {
                    let channel = Channel {
                        interface: interface.clone(),
                        client,
                        server,
                    };
                    priority(context, &span, &channel, model);
                    spans.push(span.clone());
                    model.channels.push(channel);
                }
                [] if program.calls.contains(interface) || polled.contains(&interface) => {
                    context.error(
                        &span,
                        format!("`{name}` calls `{interface}`, which no component serves"),
                        format!(
                            "add a component whose program is `{}`",
                            names(&model.programs, "` or `", |p| p.serves.contains(interface))
                        ),
                    );
                }
                [] => {}
                [(_, first), ..] => context.error(
                    &span,
                    format!(
                        "`{name}` calls `{interface}`, which {} components serve",
                        servers.len()
                    ),
                    format!(
                        "choose one of {}: add a [[channel]] with `interface = \"{interface}\"`, \
                         `client = \"{name}\"` and such as `server = \"{first}\"`",
                        list(servers.iter().map(|(_, name)| name.as_str()))
                    ),
                ),
            }
        }
    }
}

/// Calls must not go in a cycle: two components could wait for each other.
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

/// A way along channels, both ends included.
fn path(model: &Model, from: usize, to: usize) -> Option<Vec<usize>> {
    let mut reached = vec![from];
    let mut came_from = vec![None; model.components.len()];
    let mut next = 0;
    while let Some(&at) = reached.get(next) {
        if at == to {
            let mut way = vec![to];
            let mut back = to;
            while let Some(previous) = came_from[back] {
                way.push(previous);
                back = previous;
            }
            way.reverse();
            return Some(way);
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
