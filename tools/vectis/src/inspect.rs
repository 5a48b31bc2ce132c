//! `vectis inspect`: what a machine's functions could do here, from dumps of it.

use std::path::Path;

use ::inspect::{Input, Start, Verdict};
use pci::Bdf;

use crate::cli::{Format, Inspect};
use crate::error::{Error, Result};
use crate::output;

/// The exit status for a file that is no dump.
const NO_DUMP: u8 = 2;

/// Inspects the functions of every file, with the ACPI tables of all of them.
///
/// # Errors
/// If a file cannot be read or is no dump, or if a function that was asked about would not start.
pub fn inspect(arguments: &Inspect) -> Result<()> {
    let mut machines = Vec::new();
    let mut tables = Vec::new();
    for file in &arguments.files {
        match read(file)? {
            Input::Functions(functions) => machines.push(functions),
            Input::Tables(more) => tables.extend(more),
        }
    }
    let verdicts: Vec<Verdict> = machines
        .iter()
        .flat_map(|functions| ::inspect::inspect(functions, &tables))
        .filter(|verdict| asked(&arguments.devices, verdict))
        .collect();
    if verdicts.is_empty() {
        return Err(Error::new(
            "nothing to inspect",
            "no function of the files was asked about",
            "name the output of `lspci -vvxxxx`, and a --device that is in it",
        )
        .with_status(NO_DUMP));
    }
    match arguments.format {
        Format::Text => {
            for verdict in &verdicts {
                output::line(&::inspect::table(verdict))?;
            }
        }
        Format::Json => {
            let json = serde_json::to_string_pretty(&verdicts)
                .map_err(|e| Error::new("cannot print the answers", e, "report this"))?;
            output::line(&json)?;
        }
    }
    let named = !arguments.devices.is_empty();
    let bad = verdicts.iter().filter(|verdict| match verdict.starts {
        Start::Yes => false,
        Start::Bridge => named,
        Start::No | Start::Unknown => true,
    });
    match bad.count() {
        0 => Ok(()),
        count => Err(Error::new(
            format!(
                "{count} of {} functions would not start, or are not known to",
                verdicts.len()
            ),
            "see above",
            "choose others with --device; docs/devices.md says what can be done",
        )),
    }
}

fn asked(devices: &[Bdf], verdict: &Verdict) -> bool {
    devices.is_empty()
        || devices
            .iter()
            .any(|bdf| verdict.segment == 0 && bdf.to_string() == verdict.address)
}

fn read(file: &Path) -> Result<Input> {
    let bytes =
        std::fs::read(file).map_err(|e| Error::file("read", file, &e).with_status(NO_DUMP))?;
    ::inspect::parse(&bytes).map_err(|e| {
        let place = match e.line {
            0 => file.display().to_string(),
            line => format!("{}:{line}", file.display()),
        };
        Error::new(
            format!("{place} is no dump"),
            e.message,
            "take the whole output of `lspci -vvxxxx` as root, or of `acpidump`",
        )
        .with_status(NO_DUMP)
    })
}
