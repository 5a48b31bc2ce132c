//! The base of every component's main.
//!
//! Responsible for: the way from the first instruction to the component's
//! main, its resources by name, logs into its ring, channels over endpoints,
//! and the receive loop. Must never: be called by a component's logic, which
//! knows nothing of seL4. May call: the kernel.
//! Invariants: one thread; a resource that is missing ends the component with
//! its name in the log, since that is a mistake of the build tool.

#![no_std]

#[cfg(feature = "program")]
use freestanding as _;

mod entry;
mod ipc;
mod last_words;
pub mod log;
#[cfg(feature = "program")]
mod logger;
mod mmio;
mod ram;
mod rate;
mod resources;
mod stop;
mod tables;

pub use entry::{panicked, start};
pub use ipc::{Channel, Event, Server};
pub use mmio::Mmio;
pub use ram::GuestRam;
pub use rate::RateLimit;
pub use resources::{Context, Shared};
pub use stop::Stop;
pub use tables::DeviceTables;

/// Returns the time stamp counter.
#[must_use]
pub fn tsc() -> u64 {
    // SAFETY: rdtsc reads a counter and is allowed in ring 3.
    unsafe { core::arch::x86_64::_rdtsc() }
}
