//! Channels: those of the file, and those that follow from the manifests.

use std::ops::Range;

use crate::manifest::{Manifest, names};
use crate::model::{Channel, Model};
use crate::reader::{Context, Located, Section, find, list};

/// Reads the channels into `model` and returns their places. Those that follow from
/// the manifests are left out where errors would only bring more of them.
pub fn read(top: &Section<'_, '_>, model: &mut Model, complete: bool) -> Vec<Range<usize>> {
    let before = top.context.errors();
    let mut spans = Vec::new();
    for section in top.array("channel") {
        if let Some(channel) = channel(&section, model, &spans) {
            spans.push(section.span.clone());
            model.channels.push(channel);
        }
        section.finish();
    }
    if complete && top.context.errors() == before {
        implied(top.context, model, &mut spans);
    }
    spans
}

/// Reads one `[[channel]]`: both ends must exist, and the interface fit them. `spans`
/// are the places of the channels before.
fn channel(section: &Section<'_, '_>, model: &Model, spans: &[Range<usize>]) -> Option<Channel> {
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
    let what = &interface.value;
    let calls = |program: &Manifest| program.may_call(what);
    let serves = |program: &Manifest| program.serves.contains(what);
    for (end, name, fits) in [
        (client, &client_name, &calls as &dyn Fn(&Manifest) -> bool),
        (server, &server_name, &serves),
    ] {
        let program = &model.components[end].program;
        if !fits(program) {
            let between = names(&model.programs, " or ", calls);
            let and = names(&model.programs, " or ", serves);
            let fitting = names(&model.programs, "` or `", fits);
            let (name, runs, span) = (&name.value, &program.name, &name.span);
            context.error(
                span,
                format!("`{what}` is between {between} and {and}, but `{name}` runs {runs}"),
                format!("name a component whose program is `{fitting}`"),
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

/// Checks that a server is at least as urgent as its client.
fn priority(context: &Context<'_>, span: &Range<usize>, channel: &Channel, model: &Model) {
    let low = &model.components[channel.client];
    let high = &model.components[channel.server];
    // 0 stands for a priority that is missing or wrong, which has its own error.
    if high.priority < low.priority && high.priority > 0 {
        let (client, at) = (&low.name, low.priority);
        let (server, below) = (&high.name, high.priority);
        context.error(
            span,
            format!("`{client}` (priority {at}) calls `{server}` of lower priority ({below})"),
            "a component calls only components of the same or a higher priority: raise the \
             server's",
        );
    }
}

/// Adds the channels that no file has to state, since one component serves the
/// interface. `spans` are the places of channels.
fn implied(context: &Context<'_>, model: &mut Model, spans: &mut Vec<Range<usize>>) {
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
