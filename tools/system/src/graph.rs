//! A picture of the system, drawn from the same model as the image.

use layout::core::base::Orientation;
use layout::core::geometry::Point;
use layout::core::style::StyleAttr;
use layout::std_shapes::shapes::{Arrow, Element, ShapeKind};
use layout::topo::layout::VisualGraph;

use crate::canvas::{CHARACTER, Canvas};
use crate::model::Model;

/// Height of every box: two lines of text.
const HEIGHT: f64 = 56.;
/// Narrowest box, and the room beside a box's text.
const WIDTH: f64 = 120.;
const PADDING: f64 = 24.;

/// Returns a picture of components, guests, devices and channels, as SVG.
#[must_use]
pub fn draw(model: &Model) -> String {
    let mut graph = VisualGraph::new(Orientation::TopToBottom);
    let mut node = |text: &str| {
        let shape = ShapeKind::new_box(text);
        let style = StyleAttr::simple();
        let longest = text.lines().map(|line| line.chars().count()).max();
        let width = longest.unwrap_or(0) as f64 * CHARACTER + PADDING;
        let size = Point::new(width.max(WIDTH), HEIGHT);
        graph.add_node(Element::create(
            shape,
            style,
            Orientation::TopToBottom,
            size,
        ))
    };
    let guests: Vec<_> = model
        .guests
        .iter()
        .map(|guest| node(&format!("guest {}\n{}M", guest.name, guest.memory >> 20)))
        .collect();
    let components: Vec<_> = model
        .components
        .iter()
        .map(|component| {
            let owned: Vec<&str> = component
                .devices
                .iter()
                .map(|&device| model.board.devices[device].name.as_str())
                .chain(component.authority.iter().map(|authority| authority.name()))
                .collect();
            node(&format!("{}\n{}", component.name, owned.join(", ")))
        })
        .collect();
    let devices: Vec<_> = model
        .devices
        .iter()
        .map(|device| node(&format!("function {}", device.name)))
        .collect();
    let mut edge = |from, to, text: &str| graph.add_edge(Arrow::simple(text), from, to);
    for (guest, &from) in model.guests.iter().zip(&guests) {
        edge(from, components[guest.vmm], "traps");
        for &device in &guest.devices {
            edge(components[guest.vmm], devices[device], "BARs");
        }
    }
    for channel in &model.channels {
        edge(
            components[channel.client],
            components[channel.server],
            &channel.interface,
        );
    }
    let mut canvas = Canvas::default();
    graph.do_it(false, false, false, &mut canvas);
    canvas.finish()
}
