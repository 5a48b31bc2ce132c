//! Addresses in fault reports to functions and lines.
//!
//! The monitor's report is text on the console: a line
//! `init: fault component=NAME ip=0x... ...`, then `init: backtrace 0x... 0x...`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use addr2line::Loader;

/// How the monitor begins its lines. A guest's begin with its name in brackets.
const MONITOR: &str = "init: ";

/// Bytes of a page.
const PAGE: u64 = 4096;

/// The prefix that programs are built with in place of the project's folder.
const PROJECT: &str = "vectis/";

/// Finds symbols of components.
#[derive(Default)]
pub struct Symbols {
    programs: BTreeMap<String, PathBuf>,
    /// The component of the last fault, whose backtrace follows.
    faulting: Option<String>,
}

impl Symbols {
    /// Returns the symbols from these components' ELF files.
    #[must_use]
    pub fn new(programs: &[(String, PathBuf)]) -> Self {
        Self {
            programs: programs.iter().cloned().collect(),
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
            // A return address is after its call, which may be a function's
            // last instruction.
            rest.split_whitespace()
                .filter_map(hex)
                .map(|address| address.saturating_sub(1))
                .collect()
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
        if addresses.is_empty() {
            return Vec::new();
        }
        let Ok(loader) = Loader::new(program) else {
            return vec![format!("    (no symbols in {})", program.display())];
        };
        addresses
            .into_iter()
            .flat_map(|address| describe(&loader, address))
            .collect()
    }
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
        (Symbols::new(&[("vmm".to_owned(), program)]), entry)
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
