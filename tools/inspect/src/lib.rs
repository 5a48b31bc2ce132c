//! Says what a function of a machine could do here, from dumps of that machine.
//!
//! Responsible for: reading `lspci` and `acpidump` output, a device that is the dump's
//! bytes, asking the components' logic about it, and telling the answers.
//! Must never: contain a rule of its own about BARs, MSI-X, resets or the IOMMU; these
//! are `pci`'s, `init`'s, `pci-config`'s, `msix`'s and `acpi-tables`'.
//! May call: these.
//! Invariants: any bytes are a dump or an error with file and line, without a panic.

#![forbid(unsafe_code)]

mod acpi;
mod dump;
mod group;
mod lspci;
mod machine;
mod table;
mod verdict;

pub use dump::{Dump, Input, ParseError, Region, parse};
pub use table::table;
pub use verdict::{Start, Verdict, inspect};
