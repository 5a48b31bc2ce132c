//! The checks of the probe guest: the view that it must have of a PCI function.
//!
//! Responsible for: trying every register of a function and of its MSI-X table
//! as a careless or hostile driver would, and comparing with the rules (C, M, P).
//! Must never: leave a function other than it was found, or write to registers
//! whose meaning is the device's own.
//! May call: the machine, through the traits of [`machine`].
//! Invariants: a check does not depend on another one having passed.
#![no_std]
#![forbid(unsafe_code)]

pub mod check;
pub mod config;
pub mod interrupts;
pub mod machine;
pub mod message;
pub mod run;
pub mod table;
pub mod tap;
pub mod target;
