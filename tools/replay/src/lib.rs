//! Replays a recorded trace of guest accesses against the real pci-config and
//! msix logic, and compares what they do with what the trace expects.
//!
//! Responsible for: the trace format (JSON lines), a device that is plain
//! bytes, a router that records events, and the comparison.
//! Must never: contain a rule of its own about MSI-X or configuration space;
//! these are the components'.
//! May call: pci-config and msix, through their channels.
//! Invariants: a bad trace is an error with line and column, never a panic.

#![forbid(unsafe_code)]

mod device;
mod machine;
mod trace;

pub use machine::{Mismatch, Outcome, Report, run};
pub use trace::{Event, ParseError, Trace, parse};
