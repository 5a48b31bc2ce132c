//! The attacks of the hostile guest: what a guest can try against the monitor, the kernel and the machine below it.
//!
//! Responsible for: trying, and comparing what the guest itself can see with
//! what the architecture and the rules (C, M, P) say. Whether anybody else was
//! hurt, the test around it must look at.
//! Must never: depend on an attack before it having left anything whole.
//! May call: the machine, through the trait of [`machine`]; probe's way to a
//! function's registers.
//! Invariants: the same seed makes the same attack. An attack that is listed as
//! [`Group::Common`] comes back, if all is well.
#![no_std]
#![forbid(unsafe_code)]

pub mod attack;
pub mod bars;
pub mod calls;
pub mod churn;
pub mod config;
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
pub mod segments;
pub mod soak;
pub mod table;

pub use attack::{Attack, Group, Hostile};
