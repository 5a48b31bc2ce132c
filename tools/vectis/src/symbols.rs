//! Addresses in fault reports to functions and lines.
//!
//! The monitor's report is text on the console: a line
//! `init: fault component=NAME ip=0x... ...`, then `init: backtrace 0x... 0x...`. A vmm
//! reports its guest's end by one log record with the same words
//! (`components/vmm/src/crash.rs`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use addr2line::Loader;
use guest_image::Foreign;

use crate::workspace::Opened;

/// How the monitor begins its lines. A guest's begin with its name in brackets.
const MONITOR: &str = "init: ";

/// How a vmm's report of its guest's end begins.
const GUEST_END: &str = "guest ended at ";

/// Bytes of a page.
const PAGE: u64 = 4096;

/// The prefix that programs are built with in place of the project's folder.
const PROJECT: &str = "vectis/";

/// Finds symbols of components and guests.
#[derive(Default)]
pub struct Symbols {
    programs: BTreeMap<String, Program>,
    /// Guests' files, by the component that runs each.
    guests: BTreeMap<String, Vec<GuestFile>>,
    /// The component of the last fault, whose backtrace follows.
    faulting: Option<String>,
}

impl Symbols {
    /// Returns the symbols from the ELF files of these components, and of the guests
    /// by the component that runs each, which may have several.
    #[must_use]
    pub fn new(programs: &[(String, PathBuf)], guests: &[(String, PathBuf)]) -> Self {
        let mut by_component: BTreeMap<String, Vec<GuestFile>> = BTreeMap::new();
        for (component, path) in guests {
            let files = by_component.entry(component.clone()).or_default();
            files.push(GuestFile::new(path));
        }
        Self {
            programs: programs
                .iter()
                .map(|(name, path)| (name.clone(), Program::new(path)))
                .collect(),
            guests: by_component,
            faulting: None,
        }
    }

    /// Returns the lines to print below a line of the console: one for each address in
    /// it, or none if it is not of a fault report.
    pub fn explain(&mut self, line: &str) -> Vec<String> {
        let Some(text) = line.strip_prefix(MONITOR) else {
            return Vec::new();
        };
        let addresses: Vec<u64> = if text.starts_with("fault ") {
            self.faulting = word_after(text, "component=").map(str::to_owned);
            word_after(text, "ip=").and_then(hex).into_iter().collect()
        } else if let Some(rest) = text.strip_prefix("backtrace ") {
            calls(rest)
        } else {
            Vec::new()
        };
        let Some(program) = self
            .faulting
            .as_ref()
            .and_then(|name| self.programs.get(name))
        else {
            return Vec::new();
        };
        program.describe(&addresses)
    }

    /// Returns the lines to print below a log record of a component: those of its
    /// guest's end, or none.
    #[must_use]
    pub fn explain_guest(&self, component: &str, text: &str) -> Vec<String> {
        let Some(report) = text.strip_prefix(GUEST_END) else {
            return Vec::new();
        };
        let Some(files) = self.guests.get(component) else {
            return Vec::new();
        };
        let at = word_after(report, "ip=").and_then(hex);
        let backtrace = report.split_once("\nbacktrace ");
        let callers = backtrace.map_or(Vec::new(), |(_, rest)| calls(rest));
        let addresses: Vec<u64> = at.into_iter().chain(callers).collect();
        let file_of = |address: &u64| {
            let has =
                |file: &&GuestFile| file.segments.as_ref().is_some_and(|s| s.contains(*address));
            files.iter().find(has).or(files.first())
        };
        let described = addresses.iter().flat_map(|address| {
            file_of(address).map_or(Vec::new(), |file| file.program.describe(&[*address]))
        });
        described.collect()
    }
}

/// A file with symbols.
struct Program {
    name: PathBuf,
    /// `None` if it cannot be read.
    file: Option<Opened>,
}

impl Program {
    fn new(path: &Path) -> Self {
        Self {
            name: path.to_path_buf(),
            file: Opened::new(path).ok(),
        }
    }

    /// Returns the lines for these addresses.
    fn describe(&self, addresses: &[u64]) -> Vec<String> {
        if addresses.is_empty() {
            return Vec::new();
        }
        let file = self.file.as_ref();
        let Some(loader) = file.and_then(|file| Loader::new(file.path()).ok()) else {
            return vec![format!("    (no symbols in {})", self.name.display())];
        };
        let addresses = addresses.iter();
        addresses
            .flat_map(|address| describe(&loader, *address))
            .collect()
    }
}

/// A file with symbols of a guest.
struct GuestFile {
    program: Program,
    /// Where its parts lie; `None` if the file cannot be read.
    segments: Option<Foreign>,
}

impl GuestFile {
    fn new(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_default();
        Self {
            program: Program::new(path),
            segments: Foreign::from_elf(&bytes).ok(),
        }
    }
}

/// Returns the calls before these return addresses: a call may be its function's last
/// instruction, so that the address behind it is in another one.
fn calls(addresses: &str) -> Vec<u64> {
    addresses
        .split_whitespace()
        .filter_map(hex)
        .map(|address| address.saturating_sub(1))
        .collect()
}

/// Returns one line for the function at an address, and one for each function
/// that it was inlined into.
fn describe(loader: &Loader, address: u64) -> Vec<String> {
    let mut lines = Vec::new();
    // The first page is never mapped; symbols there are not code.
    if address < PAGE {
        return vec![format!("    {address:#x} no code")];
    }
    if let Ok(mut frames) = loader.find_frames(address) {
        while let Ok(Some(frame)) = frames.next() {
            let name = frame
                .function
                .as_ref()
                .and_then(|function| function.demangle().ok().map(|name| name.into_owned()));
            let place = frame.location.as_ref().and_then(|location| {
                let file = location.file?;
                let file = file.strip_prefix(PROJECT).unwrap_or(file);
                Some(format!("{file}:{}", location.line.unwrap_or(0)))
            });
            if name.is_some() || place.is_some() {
                let name = name.unwrap_or_else(|| "?".to_owned());
                let place = place.unwrap_or_else(|| "?".to_owned());
                lines.push(format!("    {address:#x} {name} ({place})"));
            }
        }
    }
    if lines.is_empty() {
        let name = loader.find_symbol(address).map_or_else(
            || "no symbol".to_owned(),
            |name| addr2line::demangle_auto(name.into(), None).into_owned(),
        );
        lines.push(format!("    {address:#x} {name}"));
    }
    lines
}

fn word_after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.split_whitespace()
        .find_map(|word| word.strip_prefix(key))
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the symbols of this test's own program, and an address in its file.
    fn symbols() -> (Symbols, u64) {
        let program = std::env::current_exe().unwrap();
        let bytes = std::fs::read(&program).unwrap();
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let entry = word(24);
        let programs = [("vmm".to_owned(), program)];
        (Symbols::new(&programs, &programs), entry)
    }

    #[test]
    fn a_fault_and_its_backtrace_are_explained() {
        let (mut symbols, entry) = symbols();
        let fault = format!("init: fault component=vmm cause=page ip={entry:#x} address=0x0");
        let shown = symbols.explain(&fault);
        assert!(shown[0].contains("_start"), "{shown:?}");
        let backtrace = format!("init: backtrace {:#x} 0xffffffffffff0000", entry + 1);
        let shown = symbols.explain(&backtrace);
        assert!(shown[0].contains("_start"), "{shown:?}");
        assert!(shown[1].contains("no symbol"), "{shown:?}");
        let shown = symbols.explain("init: fault component=vmm cause=page ip=0x8");
        assert!(shown[0].contains("no code"), "{shown:?}");
    }

    #[test]
    fn a_guests_end_is_explained_from_its_own_file() {
        let (symbols, entry) = symbols();
        let report = format!(
            "guest ended at ip={entry:#x} flags=0x2\nrax=0x1\nbacktrace {:#x} 0x8",
            entry + 1
        );
        let shown = symbols.explain_guest("vmm", &report);
        assert!(shown[0].contains("_start"), "{shown:?}");
        assert!(shown[1].contains("_start"), "{shown:?}");
        assert!(shown[2].contains("no code"), "{shown:?}");
        assert!(symbols.explain_guest("timer", &report).is_empty());
        assert!(
            symbols
                .explain_guest("vmm", "guest entry ip=0x1")
                .is_empty()
        );
    }

    #[test]
    fn each_address_is_looked_up_in_the_file_that_holds_it() {
        let (_, entry) = symbols();
        let file = |path: PathBuf| ("vmm".to_owned(), path);
        let own = std::env::current_exe().unwrap();
        let symbols = Symbols::new(&[], &[file("/nowhere".into()), file(own)]);
        let report = format!("guest ended at ip={entry:#x}\nbacktrace 0x7fffffffffff");
        let shown = symbols.explain_guest("vmm", &report);
        assert!(shown[0].contains("_start"), "{shown:?}");
        assert!(shown[1].contains("no symbols in /nowhere"), "{shown:?}");
    }

    #[test]
    fn only_the_monitor_reports_faults() {
        let (mut symbols, entry) = symbols();
        let text = format!("[vmm] init: fault component=vmm ip={entry:#x}");
        assert!(symbols.explain(&text).is_empty());
        assert!(symbols.explain("init: backtrace 0x1").is_empty());
        assert!(
            symbols
                .explain("init: fault component=nobody ip=0x1")
                .is_empty()
        );
    }
}
