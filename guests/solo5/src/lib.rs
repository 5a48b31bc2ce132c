//! The shim beside a Solo5 hvt image: the logic of its hypercalls.
//!
//! Responsible for: the manifest, the arguments of each hypercall, and what they are
//! answered with, as Solo5's own monitor (the tender) does.
//! Must never: read or write an address of the image's that is not its memory, or trust a
//! length, an offset or a handle of its.
//! May call: the machine behind [`calls::Machine`].
//! Invariants: the manifest was checked before an entry of it is used.
#![no_std]
#![forbid(unsafe_code)]

/// Networks that one image can have.
pub const NETWORKS: usize = 4;
/// Disks that one image can have.
pub const DISKS: usize = 4;

pub mod abi;
pub mod calls;
pub mod manifest;
pub mod ram;
