//! A drawing surface that writes SVG: lines first, text last and with a white
//! edge, so that a label stays readable on a line; a white ground, so that the
//! picture can be seen on a dark page.

use std::fmt::Write as _;

use layout::core::format::{ClipHandle, RenderBackend};
use layout::core::geometry::Point;
use layout::core::style::StyleAttr;

/// Room around the picture.
const MARGIN: f64 = 20.;
const FONT_SIZE: f64 = 15.;
/// Width of a character, roughly: only the size of the picture depends on it.
pub const CHARACTER: f64 = 8.5;
const LINE_HEIGHT: f64 = 18.;

/// The drawing so far.
#[derive(Debug, Default)]
pub struct Canvas {
    lines: String,
    boxes: String,
    texts: String,
    right: f64,
    bottom: f64,
}

impl Canvas {
    /// Returns the picture as SVG.
    #[must_use]
    pub fn finish(self) -> String {
        let (width, height) = (self.right + MARGIN, self.bottom + MARGIN);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" \
             height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\">\n\
             <style>text {{ font: {FONT_SIZE}px sans-serif; text-anchor: middle; \
             paint-order: stroke; stroke: #fff; stroke-width: 4px; }}\n\
             rect, path {{ stroke: #334; stroke-width: 1.5px; fill: none; }}\n\
             rect {{ fill: #f4f6fa; }} .ground {{ fill: #fff; stroke: none; }}</style>\n\
             <defs><marker id=\"head\" markerWidth=\"10\" markerHeight=\"8\" refX=\"10\" \
             refY=\"4\" orient=\"auto\"><polygon points=\"0 0, 10 4, 0 8\" fill=\"#334\"/>\
             </marker></defs>\n\
             <rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n{}{}{}</svg>\n",
            self.lines, self.boxes, self.texts
        )
    }

    fn grow(&mut self, x: f64, y: f64) {
        self.right = self.right.max(x);
        self.bottom = self.bottom.max(y);
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

impl RenderBackend for Canvas {
    fn draw_rect(
        &mut self,
        xy: Point,
        size: Point,
        _look: &StyleAttr,
        _properties: Option<String>,
        _clip: Option<ClipHandle>,
    ) {
        self.grow(xy.x + size.x, xy.y + size.y);
        let _ = writeln!(
            self.boxes,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"4\"/>",
            xy.x, xy.y, size.x, size.y
        );
    }

    fn draw_text(&mut self, xy: Point, text: &str, _look: &StyleAttr) {
        let count = text.lines().count() as f64;
        // The middle of the lines is at `xy`; a baseline is below its line's
        // middle by about a third of the font's size.
        let mut y = xy.y - (count - 1.) * LINE_HEIGHT / 2. + FONT_SIZE / 3.;
        for line in text.lines() {
            self.grow(xy.x + line.chars().count() as f64 * CHARACTER / 2., y);
            let _ = writeln!(
                self.texts,
                "<text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
                xy.x,
                escaped(line)
            );
            y += LINE_HEIGHT;
        }
    }

    fn draw_arrow(
        &mut self,
        path: &[(Point, Point)],
        _dashed: bool,
        _head: (bool, bool),
        _look: &StyleAttr,
        _properties: Option<String>,
        _text: &str,
    ) {
        let [(start, leave), (arrive, end), rest @ ..] = path else {
            return;
        };
        let mut curve = format!(
            "M {:.1} {:.1} C {:.1} {:.1}, {:.1} {:.1}, {:.1} {:.1}",
            start.x, start.y, leave.x, leave.y, arrive.x, arrive.y, end.x, end.y
        );
        self.grow(end.x, end.y);
        for (control, point) in rest {
            let _ = write!(
                curve,
                " S {:.1} {:.1}, {:.1} {:.1}",
                control.x, control.y, point.x, point.y
            );
            self.grow(point.x, point.y);
        }
        let _ = writeln!(
            self.lines,
            "<path d=\"{curve}\" marker-end=\"url(#head)\"/>"
        );
    }

    // The layouter draws these only for shapes that we have none of.
    fn draw_line(&mut self, _: Point, _: Point, _: &StyleAttr, _: Option<String>) {}

    fn draw_circle(&mut self, _: Point, _: Point, _: &StyleAttr, _: Option<String>) {}

    fn create_clip(&mut self, _: Point, _: Point, _: usize) -> ClipHandle {
        0
    }
}
