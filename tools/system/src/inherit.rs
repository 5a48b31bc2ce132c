//! Files that inherit from each other: read one by one, merged into one table
//! whose spans still say which file each key comes from.

use std::cell::RefCell;
use std::fs;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use crate::check::read_text;
use crate::diagnostic::{Report, Source};
use crate::reader::{Context, Section};

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
    let mut source = Source::default();
    let mut path = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    let mut shown = file.strip_prefix(root).unwrap_or(file).to_path_buf();
    let mut named_at = None;
    let mut seen: Vec<PathBuf> = Vec::new();
    let before = report.diagnostics.len();
    loop {
        let text = match (read_text(&path), &named_at) {
            (Ok(text), _) => text,
            (Err(error), None) => {
                report.file_error(file, &error, help);
                break;
            }
            (Err(error), Some(span)) => {
                let help = "`inherit` names a file, by its path from the file that says it";
                let message = format!("cannot read {}: {error}", shown.display());
                report.error(&source, span, message, help);
                break;
            }
        };
        let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        if let Some(span) = &named_at {
            let again = seen.contains(&real);
            if again || seen.len() == FILES {
                let message = if again {
                    format!("{} inherits from itself", shown.display())
                } else {
                    format!("more than {FILES} files inherit from each other")
                };
                let chain: Vec<&str> = source.names().collect();
                let chain = format!("{} -> {}", chain.join(" -> "), shown.display());
                let help = format!("take `inherit` out of one of them: {chain}");
                report.error(&source, span, message, help);
                break;
            }
        }
        seen.push(real);
        let folder = path.parent().unwrap_or(root).to_path_buf();
        source.add(shown.display().to_string(), folder.clone(), &text);
        let Some((base, span)) = base(&source, section, report) else {
            break;
        };
        path = tidy(&folder.join(base));
        shown = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
        named_at = Some(span);
    }
    (report.diagnostics.len() == before).then_some(source)
}

/// What the last file inherits from, and where it says so.
fn base(source: &Source, section: &str, report: &mut Report) -> Option<(String, Range<usize>)> {
    let (document, errors) = DeTable::parse_recoverable(source.last());
    let report = RefCell::new(report);
    let context = Context {
        source,
        report: &report,
    };
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        context.error(&span, error.message(), "see https://toml.io for the format");
    }
    let table = document.get_ref().get(section)?.get_ref().as_table()?;
    let base = Section::new(&context, table, format!("`{section}`"), 0..0).string("inherit")?;
    Some((base.value, base.span))
}

/// Merges the files, each into what it inherits. A path that starts with `./` or
/// `../` becomes one from `root`, so that it is the same in whichever file it stands.
pub fn merged<'s>(source: &'s Source, root: &Path) -> DeTable<'s> {
    let mut whole = DeTable::new();
    for (text, folder) in source.files().rev() {
        // The text had no errors when it was read.
        let mut table = DeTable::parse_recoverable(text).0.into_inner();
        count_from_root(&mut table, folder, root);
        whole = merge(whole, table);
    }
    whole
}

/// Keys of the base keep their order, and those of the child follow; what the child
/// says stands where the child says it.
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

fn count_from_root(table: &mut DeTable<'_>, folder: &Path, root: &Path) {
    let count = |table: Option<&mut Spanned<DeValue<'_>>>, key| {
        let Some(DeValue::Table(table)) = table.map(Spanned::get_mut) else {
            return;
        };
        if let Some(DeValue::String(text)) = table.get_mut(key).map(Spanned::get_mut)
            && (text.starts_with("./") || text.starts_with("../"))
        {
            let path = tidy(&folder.join(text.as_ref()));
            let path = path.strip_prefix(root).unwrap_or(&path);
            *text = path.display().to_string().into();
        }
    };
    count(table.get_mut("system"), "board");
    if let Some(DeValue::Table(guests)) = table.get_mut("guest").map(Spanned::get_mut) {
        for (_, guest) in guests.iter_mut() {
            count(Some(guest), "image");
        }
    }
}

/// The path without `.` and `..`.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                tidy.pop();
            }
            part => tidy.push(part),
        }
    }
    tidy
}

/// The merged table as one file, which inherits nothing.
pub fn text(mut whole: DeTable<'_>) -> String {
    if let Some(DeValue::Table(system)) = whole.get_mut("system").map(Spanned::get_mut) {
        system.remove("inherit");
    }
    let whole = Deserializer::from(Spanned::new(0..0, whole));
    let table = toml::Table::deserialize(whole).expect("every value was read");
    table.to_string()
}
