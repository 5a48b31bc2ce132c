//! Reads and checks system.toml and the board, and composes the image.
//!
//! Responsible for: strict parsing with every error at once, the checks on
//! authority, priorities and memory, and turning a checked system plus its
//! programs into the image that init carries out. Must never: start anything.
//! May call: nothing. Invariants: a [`Model`] has passed every check; the same
//! input gives the same image, byte for byte.

#![forbid(unsafe_code)]

mod attach;
mod board;
mod canvas;
mod caps;
mod check;
mod compose;
mod diagnostic;
mod graph;
mod model;
mod program;
mod reader;

pub use attach::attach;
pub use board::{Board, BoardDevice, Iommu, Trigger};
pub use caps::capability_table;
pub use compose::{ComposeError, Image, Programs, compose};
pub use diagnostic::{Diagnostic, Report};
pub use graph::draw;
pub use model::{Authority, Channel, Component, Device, Guest, GuestImage, Model, Policy};
pub use program::{Program, ProgramError, Segment};
pub use spec::OnExit;

use std::path::Path;

/// Reads `file` (system.toml) and its board from `root`/board, and checks all.
/// `iommu` takes the place of the one that the board's file names.
///
/// # Errors
/// Every error found, each with its place and help.
pub fn read(root: &Path, file: &Path, iommu: Option<Iommu>) -> Result<Model, Report> {
    let mut report = Report::default();
    let text = match check::read_text(file) {
        Ok(text) => text,
        Err(error) => {
            report.file_error(file, &error, "name the system file with --system FILE");
            return Err(report);
        }
    };
    let name = file.strip_prefix(root).unwrap_or(file);
    let model = model::parse(&name.display().to_string(), &text, root, iommu, &mut report);
    match model {
        Some(model) if report.is_empty() => Ok(model),
        _ => {
            report.sort();
            Err(report)
        }
    }
}
