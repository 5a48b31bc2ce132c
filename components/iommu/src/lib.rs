//! Decides what each PCI function reaches by DMA and which interrupts it may
//! raise.
//!
//! Responsible for: the IOMMU (AMD-Vi or VT-d), all units of it: their tables, command
//! queues and records of faults, and whose guest a function works for.
//! Must never: map memory that it holds no capability for, but for the firmware's own that
//! init names, map the interrupt address range, open the way for a function that is not attached, or believe
//! a message's function: which client owns it is fixed at start.
//! May call: the timer.
//! Invariants: an operation that takes something away is complete, in the unit
//! too, when it returns without an error; a restart changes nothing that the
//! unit sees; no wait for the hardware is without an end.
//!
//! Out of scope: functions behind a bridge to conventional PCI, whose requests
//! carry the bridge's id and not their own.

#![no_std]
#![forbid(unsafe_code)]

mod amd;
mod faults;
mod hardware;
mod intel;
mod layout;
mod pages;
mod service;
mod unit;

pub use amd::Amd;
pub use faults::{FAULTS_A_POLL, KEPT_FAULTS, NO_DEVICE};
pub use hardware::{Registers, Tables};
pub use intel::Intel;
pub use layout::Layout;
pub use pages::{Access, FRAME, Fixed, Frames, Ram, join};
pub use service::{Counters, Function, Iommu};
pub use unit::{Failed, Memory, Requester, SetupError, Start, Unit};

#[cfg(test)]
extern crate std;
#[cfg(test)]
mod tests;
