//! What components share in memory besides messages, and what outlives a crash.
//!
//! Responsible for: the byte ring that carries logs and guest output to the
//! console, the page of named counters by which every component tells how often
//! it did what, and the words that a component keeps from one life to the next. Must never: block, or believe the other side.
//! May call: nothing. Invariants: all shared words are atomics, so that no
//! access is undefined whatever the other side writes; a ring whose indices
//! make no sense counts as empty.

#![no_std]
#![forbid(unsafe_code)]

mod counters;
mod kept;
mod ring;

pub use counters::{COUNTERS, Counter, CounterPage, Places, RESTARTS};
pub use kept::{Keep, Kept};
pub use ring::{RING_CAPACITY, RING_RECORD_MAX, Ring};
