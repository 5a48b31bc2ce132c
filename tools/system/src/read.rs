//! Reads a system file into a [`Model`]: every key, and what its value must be.

mod channels;
mod components;
mod devices;
mod guests;

use std::cell::RefCell;
use std::path::Path;

use spec::IommuKind;
use toml::de::DeTable;

use crate::board::{self, Board};
use crate::check::{self, Broken};
use crate::diagnostic::{Report, Source};
use crate::files::folders;
use crate::manifest;
use crate::model::Model;
use crate::reader::{Context, Located, Section, find};

/// Reads and checks a system file, merged with what it inherits; everything wrong
/// goes into `report`.
pub fn parse(
    source: &Source,
    table: &DeTable<'_>,
    root: &Path,
    iommu: Option<IommuKind>,
    report: &mut Report,
) -> Option<Model> {
    let report = RefCell::new(report);
    let context = Context {
        source,
        report: &report,
        root: table,
    };
    let top = Section::new(&context, table, "the system file", 0..0);
    let system = top.required_section("system", "{ name, board }");
    let (name, board) = system.map_or((None, None), |system| {
        system.get("inherit");
        let name = system.required_string("name", "\"web\"");
        let board = system.required_string("board", "\"qemu-q35\"");
        system.finish();
        (name, board.and_then(|name| board_of(&context, &name, root)))
    });
    let before = context.errors();
    let programs = manifest::read(root, &mut report.borrow_mut());
    let programs_are_good = context.errors() == before;
    let mut model = Model {
        name: name.map_or_else(String::new, |name| name.value),
        // Without a board or a program hardly anything can be checked.
        board: board?,
        programs: Some(programs).filter(|_| programs_are_good)?,
        components: Vec::new(),
        channels: Vec::new(),
        devices: Vec::new(),
        guests: Vec::new(),
    };
    if let Some(iommu) = iommu {
        model.board.iommu = iommu;
    }
    let before = context.errors();
    components::read(&top, &mut model);
    components::choose(&mut model);
    let components = context.errors() > before;
    let channel_spans = channels::read(&top, &mut model, !components);
    check::cycles(&context, &model, &channel_spans);
    let broken_devices = devices::read(&top, &mut model);
    let before = context.errors();
    guests::read(&top, &mut model, root, &broken_devices);
    let broken = Broken {
        components,
        guests: context.errors() > before,
    };
    check::whole(&context, &model, broken);
    top.finish();
    Some(model)
}

/// Reads the board of this name: its folder's in board/, or its file's.
fn board_of(context: &Context<'_>, name: &Located<String>, root: &Path) -> Option<Board> {
    let is_file = name.value.contains('/') || name.value.ends_with(".toml");
    let (file, folder) = if is_file {
        (name.value.clone(), None)
    } else {
        let boards = folders(&root.join("board"));
        find(context, "board", name, boards.iter().map(String::as_str))?;
        let file = format!("board/{}/board.toml", name.value);
        (file, Some(name.value.as_str()))
    };
    if is_file && !root.join(&file).exists() {
        context.error(
            &name.span,
            format!("there is no board file `{file}`"),
            "name a folder in board/, or a board's file by its path from the project's root, or \
             by one with `./` or `../` from the file that says it",
        );
        return None;
    }
    board::parse(root, &file, folder, &mut context.report.borrow_mut())
}
