//! Wakes each client once, at or after the time it asked for.
//!
//! Responsible for: the HPET's main counter and timer 0, and one deadline for
//! each client.
//! Must never: signal a client that did not ask, touch another timer of the
//! HPET, or send another FSB message than the one that was given to it, for with
//! these it could write anywhere.
//! May call: nothing.
//! Invariants: while a deadline is pending, the comparator lies ahead of the
//! counter or its interrupt is pending; the comparator is a hint and the time
//! stamp counter decides, so that no deadline fires early.

#![no_std]
#![forbid(unsafe_code)]

mod deadlines;
mod hpet;
mod ratio;
mod registers;

pub use deadlines::{CLIENTS, Counters, System, Timers};
pub use hpet::{Delivery, Hpet, Registers, SetupError};

#[cfg(test)]
mod tests;
