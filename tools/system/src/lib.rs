//! Reads and checks system.toml and the board, and composes the image.
//!
//! Responsible for: strict parsing with every error at once, the checks on
//! authority, priorities and memory, and turning a checked system plus its
//! programs into the image that init carries out. Must never: start anything.
//! May call: nothing. Invariants: a [`Model`] has passed every check; the same
//! input gives the same image, byte for byte.
//!
//! `read/` has a file for each table of a system file, `manifest.rs` and `board.rs`
//! read the files that it refers to, `check.rs` has what only the whole shows, and
//! `compose/` decides who gets what.

#![forbid(unsafe_code)]

mod attach;
mod board;
mod canvas;
mod caps;
mod check;
mod compose;
mod diagnostic;
mod files;
mod graph;
mod inherit;
mod manifest;
mod model;
mod program;
mod read;
mod reader;
mod stack;

pub use attach::{attach, attach_to, elf_file, offset_of};
pub use board::{Board, BoardDevice, Qemu, Trigger};
pub use caps::capability_table;
pub use compose::{ComposeError, Image, Options, Programs, compose};
pub use diagnostic::{Diagnostic, Report};
pub use graph::draw;
pub use manifest::{Authority, DeviceNeed, Manifest};
pub use model::{
    Boot, Channel, Component, Device, Guest, GuestImage, Model, Place, Policy, Solo5Device,
    Solo5Kind,
};
pub use program::{Program, ProgramError, Segment};
pub use spec::OnExit;

use spec::IommuKind;
use std::path::Path;

/// The name of init among those who write logs; no component has it.
pub const ROOT_TASK: &str = "init";

/// Returns the system that `file` (system.toml), the files that it inherits from and
/// its board describe, after every check. `root` is the project's folder; `iommu`
/// takes the place of the one that the board's file names.
///
/// # Errors
/// Every error found, each with its place and help.
pub fn read(root: &Path, file: &Path, iommu: Option<IommuKind>) -> Result<Model, Report> {
    Ok(read_whole(root, file, iommu)?.0)
}

/// Returns what [`read()`] reads as the text of one system file, which inherits nothing
/// and gives the same [`Model`]: wherever it is written, its paths count from `root`.
///
/// # Errors
/// Those of [`read()`].
pub fn expand(root: &Path, file: &Path, iommu: Option<IommuKind>) -> Result<String, Report> {
    Ok(read_whole(root, file, iommu)?.1)
}

fn read_whole(
    root: &Path,
    file: &Path,
    iommu: Option<IommuKind>,
) -> Result<(Model, String), Report> {
    let mut report = Report::default();
    let help = "name the system file with --system FILE";
    if let Some(source) = inherit::read(root, file, "system", help, &mut report) {
        let table = inherit::merged(&source, root);
        let model = read::parse(&source, &table, root, iommu, &mut report);
        if let Some(model) = model.filter(|_| report.is_empty()) {
            let name = |component: usize| model.components[component].name.clone();
            let channels = model.channels.iter();
            let channels = channels.map(|c| [c.interface.clone(), name(c.client), name(c.server)]);
            let text = inherit::text(table, channels);
            return Ok((model, text));
        }
    }
    report.sort();
    Err(report)
}
