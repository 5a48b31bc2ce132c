//! Files that inherit from each other: read one by one, merged into one table
//! whose spans still say which file each key comes from.

use std::cell::RefCell;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use crate::diagnostic::{Report, Source};
use crate::files::read_text;
use crate::reader::{Context, Located, Section};

/// Longest chain of files: more than a system has reason for, few enough to read.
const FILES: usize = 8;

/// Reads `file` and the files that it inherits from, named by the key `inherit` of
/// each one's table `section`. Every mistake that keeps them from being merged goes
/// into `report`, and then there is no result; `help` is for a first file that
/// cannot be read.
pub fn read(
    root: &Path,
    file: &Path,
    section: &str,
    help: &str,
    report: &mut Report,
) -> Option<Source> {
    let before = report.diagnostics.len();
    let mut source = Source::default();
    let name = file
        .strip_prefix(root)
        .unwrap_or(file)
        .display()
        .to_string();
    match read_text(file) {
        Ok(text) => {
            let path = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
            source.add(name, path, &text);
        }
        Err(error) => report.file_error(file, &error, help),
    }
    while let Some(base) = base(&source, section, report) {
        let path = tidy(&source.files.last()?.folder().join(base.value));
        let name = path.strip_prefix(root).unwrap_or(&path).display();
        let names = source.files.iter().map(|file| file.name.as_str());
        let chain = names.collect::<Vec<_>>().join(" -> ");
        let text = if source.files.iter().any(|file| file.path == path) {
            Err(format!("{name} inherits from itself: {chain} -> {name}"))
        } else if source.files.len() == FILES {
            Err(format!(
                "more than {FILES} files inherit: {chain} -> {name}"
            ))
        } else {
            read_text(&path).map_err(|error| format!("cannot read {name}: {error}"))
        };
        match text {
            Ok(text) => source.add(name.to_string(), path.clone(), &text),
            Err(message) => {
                let help = "name another file, by its path from this one, or remove `inherit`";
                report.error(&source, &base.span, None, &message, help);
                break;
            }
        }
    }
    (report.diagnostics.len() == before).then_some(source)
}

/// Returns what the last file inherits from.
fn base(source: &Source, section: &str, report: &mut Report) -> Option<Located<String>> {
    let report = RefCell::new(report);
    let context = Context {
        source,
        report: &report,
        root: &DeTable::new(),
    };
    let document = context.parse(&source.files.last()?.text);
    let table = document.get(section)?.get_ref().as_table()?;
    Section::new(&context, table, format!("`{section}`"), 0..0).string("inherit")
}

/// Merges the files, each into what it inherits. A path that starts with `./` or
/// `../` becomes one from `root`, so that it is the same in whichever file it stands.
pub fn merged<'s>(source: &'s Source, root: &Path) -> DeTable<'s> {
    let mut whole = DeTable::new();
    for file in source.files.iter().rev() {
        // The text had no errors when it was read.
        let mut table = DeTable::parse_recoverable(&file.text).0.into_inner();
        count_from_root(&mut table, file.folder(), root);
        whole = merge(whole, table);
    }
    whole
}

/// Merges two tables. Keys of the base keep their order, and those of the child
/// follow; a value's span is in the file that states it.
fn merge<'s>(base: DeTable<'s>, mut child: DeTable<'s>) -> DeTable<'s> {
    let mut merged = DeTable::new();
    for (key, value) in base {
        let (key, value) = match child.remove_entry(&key) {
            Some((key, over)) => (key, merge_value(value.into_inner(), over)),
            None => (key, value),
        };
        merged.insert(key, value);
    }
    merged.extend(child);
    merged
}

fn merge_value<'s>(base: DeValue<'s>, child: Spanned<DeValue<'s>>) -> Spanned<DeValue<'s>> {
    let tables = |array: &DeArray<'_>| array.iter().all(|item| item.get_ref().is_table());
    let span = child.span();
    let value = match (base, child.into_inner()) {
        (DeValue::Table(base), DeValue::Table(child)) => DeValue::Table(merge(base, child)),
        (DeValue::Array(base), DeValue::Array(child)) if tables(&base) && tables(&child) => {
            DeValue::Array(base.into_iter().chain(child).collect())
        }
        (_, child) => child,
    };
    Spanned::new(span, value)
}

/// Makes paths count from `root`. The keys `board`, `image` and `prefix` are paths in
/// whichever table they stand.
fn count_from_root(table: &mut DeTable<'_>, folder: &Path, root: &Path) {
    for (key, value) in table.iter_mut() {
        let is_path = ["board", "image", "prefix"].contains(&key.get_ref().as_ref());
        match value.get_mut() {
            DeValue::Table(table) => count_from_root(table, folder, root),
            DeValue::String(text)
                if is_path && (text.starts_with("./") || text.starts_with("../")) =>
            {
                let path = tidy(&folder.join(text.as_ref()));
                let path = path.strip_prefix(root).unwrap_or(&path);
                *text = path.display().to_string().into();
            }
            _ => {}
        }
    }
}

/// Returns the path without `.` and `..`.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            tidy.pop();
        } else if part != Component::CurDir {
            tidy.push(part);
        }
    }
    tidy
}

/// Returns the merged table as one file, which inherits nothing and has every channel.
/// Each channel is its interface, client and server.
pub fn text(mut whole: DeTable<'_>, channels: impl Iterator<Item = [String; 3]>) -> String {
    if let Some(DeValue::Table(system)) = whole.get_mut("system").map(Spanned::get_mut) {
        system.remove("inherit");
    }
    let whole = Deserializer::from(Spanned::new(0..0, whole));
    let mut table = toml::Table::deserialize(whole).expect("every value was read");
    let channels = channels.map(|values| {
        let keys = ["interface", "client", "server"].map(str::to_owned);
        let values = values.map(toml::Value::String);
        toml::Table::from_iter(keys.into_iter().zip(values)).into()
    });
    table.insert("channel".to_owned(), toml::Value::Array(channels.collect()));
    table.to_string()
}
