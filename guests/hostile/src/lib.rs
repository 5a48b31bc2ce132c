//! The attacks of the hostile guest on the monitor, the kernel and the machine below it.
//!
//! Responsible for: carrying the attacks out, and comparing the effects visible to
//! the guest with the architecture and the rules (C, M, P). The test outside checks
//! whether anything else was affected.
//! Must never: depend on state that an earlier attack may have destroyed.
//! May call: the machine, through the trait of [`machine`]; probe's way to a
//! function's registers.
//! Invariants: the same seed makes the same attack. An attack in [`Group::Common`]
//! returns, if the system is sound.
#![no_std]
#![forbid(unsafe_code)]

pub mod attack;
pub mod bars;
pub mod calls;
pub mod churn;
pub mod config;
pub mod config_memory;
pub mod cpu;
pub mod dma;
pub mod ends;
pub mod exceptions;
pub mod flood;
pub mod kernel;
pub mod machine;
pub mod message;
pub mod nic;
pub mod options;
pub mod ports;
pub mod random;
pub mod run;
pub mod segments;
pub mod soak;
pub mod table;

pub use attack::{Attack, Group, Hostile};
