//! Channels: what there is to connect, and how.

use std::ops::Range;

use crate::model::{Channel, Model, find};
use crate::reader::{Context, Section};

/// An interface of crates/channel.
pub(super) struct Interface {
    pub name: &'static str,
    /// Programs that may call over it.
    clients: &'static [&'static str],
    /// Those of them that cannot do without.
    pub needed_by: &'static [&'static str],
    pub server: &'static str,
}

/// One that its client needs.
const fn needed(name: &'static str, client: &'static [&str], server: &'static str) -> Interface {
    Interface {
        name,
        clients: client,
        needed_by: client,
        server,
    }
}

/// One that its client can do without.
const fn optional(name: &'static str, client: &'static [&str], server: &'static str) -> Interface {
    Interface {
        name,
        clients: client,
        needed_by: &[],
        server,
    }
}

/// The interfaces, and the programs at their two ends.
pub(super) const INTERFACES: [Interface; 11] = [
    needed("PciConfig", &["vmm"], "pci-config"),
    needed("MsixTable", &["vmm"], "msix"),
    needed("MsixControl", &["pci-config"], "msix"),
    needed("IrqRouter", &["msix"], "irq-router"),
    needed("MsiRouter", &["pci-config"], "irq-router"),
    Interface {
        name: "Timer",
        clients: &["vmm", "console", "iommu"],
        needed_by: &["vmm", "iommu"],
        server: "timer",
    },
    needed("InterruptRemap", &["irq-router"], "iommu"),
    needed("DmaControl", &["vmm"], "iommu"),
    optional("MsixDump", &["console"], "msix"),
    optional("IrqDump", &["console"], "irq-router"),
    optional("IommuDump", &["console"], "iommu"),
];

/// Reads one `[[channel]]`: ends that exist, an interface that fits them, and a
/// server that is at least as urgent as its client. A client that is no component but
/// a program stands for each component that runs it, so that a file that others
/// inherit need not know how many vmms they have, and channels stay in the order of
/// their interfaces.
pub fn channel(section: &Section<'_, '_>, model: &Model) -> Vec<Channel> {
    ends(section, model).unwrap_or_default()
}

fn ends(section: &Section<'_, '_>, model: &Model) -> Option<Vec<Channel>> {
    let context = section.context;
    let interface = section.required_string("interface", "\"PciConfig\"");
    let client = section.required_string("client", "\"vmm\"");
    let server = section.required_string("server", "\"pci-config\"");
    let names = || model.components.iter().map(|c| c.name.as_str());
    let known = INTERFACES.iter().map(|interface| interface.name);
    let index = interface
        .as_ref()
        .and_then(|name| find(context, "interface", name, known));
    let clients = client.and_then(|name| {
        let components = model.components.iter().enumerate();
        let running: Vec<usize> = components
            .filter(|(_, component)| component.program == name.value)
            .map(|(index, _)| index)
            .collect();
        if running.is_empty() || names().any(|known| known == name.value) {
            return Some((vec![find(context, "component", &name, names())?], name));
        }
        Some((running, name))
    });
    let server = server.and_then(|name| Some((find(context, "component", &name, names())?, name)));
    let (interface, (clients, client_name), (server, server_name)) =
        (interface?, clients?, server?);
    let ends = &INTERFACES[index?];
    let between = ends.clients.join(" or ");
    // Several clients run one program.
    for (end, name, programs) in [
        (clients[0], &client_name, ends.clients),
        (server, &server_name, &[ends.server]),
    ] {
        let runs = &model.components[end].program;
        if !programs.contains(&runs.as_str()) {
            context.error(
                &name.span,
                format!(
                    "`{}` is between {between} and {}, but `{}` runs {runs}",
                    interface.value, ends.server, name.value
                ),
                format!(
                    "name a component whose program is `{}`",
                    programs.join("` or `")
                ),
            );
        }
    }
    for &client in &clients {
        let (low, high) = (&model.components[client], &model.components[server]);
        // 0 stands for a priority that is missing or wrong, which has its own error.
        if high.priority < low.priority && high.priority > 0 {
            context.error(
                &server_name.span,
                format!(
                    "`{}` (priority {}) calls `{}` of lower priority ({})",
                    low.name, low.priority, high.name, high.priority
                ),
                "a component calls only components of the same or a higher priority: raise the \
                 server's",
            );
        }
        let twice = |other: &Channel| other.interface == interface.value && other.client == client;
        if model.channels.iter().any(twice) {
            context.error(
                &interface.span,
                format!("`{}` has a second channel `{}`", low.name, interface.value),
                "a component has one server for each interface: remove one",
            );
        }
    }
    let channels = clients.into_iter().map(|client| Channel {
        interface: interface.value.clone(),
        client,
        server,
    });
    Some(channels.collect())
}

/// Calls must not go in a circle: two components could wait for each other.
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
                format!("calls go in a circle: {}", names.join(" -> ")),
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
