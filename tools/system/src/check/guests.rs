//! Guests: image, vmm, memory, priority and end.

use std::path::Path;

use spec::OnExit;

use super::{GUEST_PAGE, choice, read_text};
use crate::board::Board;
use crate::manifest::names;
use crate::model::{Guest, GuestImage, Model};
use crate::reader::{Context, Located, Section};

/// The image is a crate's folder or a file; both must be there.
pub fn guest_image(
    context: &Context<'_>,
    image: &Located<String>,
    root: &Path,
) -> Option<GuestImage> {
    let path = root.join(&image.value);
    if path.is_file() {
        return Some(GuestImage::File(path));
    }
    let manifest = path.join("Cargo.toml");
    let package = read_text(&manifest).ok().and_then(|text| {
        let table: toml::Table = text.parse().ok()?;
        Some(table.get("package")?.get("name")?.as_str()?.to_owned())
    });
    if let Some(package) = package {
        return Some(GuestImage::Crate(path, package));
    }
    let message = if path.is_dir() {
        format!("`{}` is a folder without a crate", image.value)
    } else if path.exists() {
        format!("guest image `{}` is not a regular file", image.value)
    } else {
        format!("there is no guest image `{}`", image.value)
    };
    context.error(
        &image.span,
        message,
        "name an ELF file, or the folder of a guest's crate, from the project's root",
    );
    None
}

/// A guest's vmm runs the program vmm, and this guest only.
pub fn vmm(context: &Context<'_>, name: &Located<String>, model: &Model, index: usize) {
    let component = &model.components[index];
    if !component.program.runs_guest {
        context.error(
            &name.span,
            format!(
                "`{}` runs {}, which runs no guests",
                component.name, component.program.name
            ),
            format!(
                "name a component whose program is `{}`",
                names(&model.programs, "` or `", |program| program.runs_guest)
            ),
        );
    }
    if let Some(other) = model.guest_of(index) {
        context.conflict(
            &name.span,
            &context.key_span("guest", &other.name),
            format!("`{}` already runs guest `{}`", component.name, other.name),
            format!(
                "give each guest its own vmm: a second component with `program = \"{}\"`",
                component.program.name
            ),
        );
    }
}

/// Guest RAM lies in the board's range, in large pages.
pub fn guest_memory(context: &Context<'_>, memory: &Located<u64>, board: &Board, start: u64) {
    if !memory.value.is_multiple_of(GUEST_PAGE) {
        context.error(
            &memory.span,
            format!("{} bytes are not whole large pages", memory.value),
            "give a multiple of 2M",
        );
    }
    let (base, size) = board.guest_memory;
    let left = (base + size).saturating_sub(start);
    if memory.value > left {
        context.error(
            &memory.span,
            format!(
                "{}M do not fit: board {} has {}M left for guests",
                memory.value >> 20,
                board.name,
                left >> 20
            ),
            "give this or another guest less memory",
        );
    }
}

/// A guest never keeps its own vmm from running, and what it gets outside of its
/// turn is nobody's turn.
pub fn guest_priority(context: &Context<'_>, priority: &Located<u64>, model: &Model, vmm: usize) {
    let vmm = &model.components[vmm];
    let beside = |guest: &&Guest| u64::from(guest.priority).abs_diff(priority.value) == 1;
    if let Some(other) = model.guests.iter().find(beside) {
        context.conflict(
            &priority.span,
            &context.key_span("guest", &other.name),
            format!(
                "the guest's priority {} is next to that of guest `{}` ({})",
                priority.value, other.name, other.priority
            ),
            "give both the same, to share the time, or leave one between: outside of its turn \
             a guest runs at the next lower priority",
        );
    }
    // 0 stands for a priority that is missing or wrong, which has its own error.
    if priority.value >= u64::from(vmm.priority) && vmm.priority > 0 {
        context.error(
            &priority.span,
            format!(
                "the guest's priority {} is not below its vmm's ({})",
                priority.value, vmm.priority
            ),
            "lower it: the vmm must run as soon as it has something to do",
        );
    }
}

/// Reads `on-exit`.
pub fn on_exit(section: &Section<'_, '_>) -> OnExit {
    let words = [
        ("stop", OnExit::Stop),
        ("halt", OnExit::Halt),
        ("restart", OnExit::Restart),
    ];
    choice(section, "on-exit", "policy for a guest's end", &words)
}
