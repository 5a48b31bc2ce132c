//! Wakes each client once, at or after the time it asked for.
//!
//! Responsible for: one clock, which is the HPET's main counter and timer 0, or
//! counter 0 of the 8254; and one deadline for each client.
//! Must never: signal a client that did not ask, touch another timer of the
//! HPET or another counter of the 8254, or send another FSB message than the one that was
//! given to it, for with these it could write anywhere.
//! May call: nothing.
//! A client that asks without end takes the time of its own calls, and no more of
//! the clock's than a fixed number of programmings in a millisecond: what it asks
//! for beyond that is put off to the end of that millisecond, never dropped.
//! Invariants: while a deadline is pending, the clock's interrupt lies ahead or is
//! pending; the clock is a hint and the time stamp counter decides, so that no
//! deadline fires early.

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

mod clock;
mod deadlines;
mod hpet;
mod pit;
mod ratio;
mod registers;

pub use clock::Clock;
pub use deadlines::{CLIENTS, Counters, System, Timers};
pub use hpet::{Delivery, Hpet, Registers, SetupError};
pub use pit::{Pit, Ports};

#[cfg(test)]
mod tests;
