//! Root task: builds the system that the image describes, then only watches.
//!
//! Responsible for: making every object, handing out every capability, finding
//! the PCI functions, starting the components, and reporting their faults.
//! Must never: after boot, hold a device but for a serial port and a screen, or a guest's memory;
//! decide what the image does not say. May call: no component. Invariants: every failure at boot
//! stops the machine with a message and a status; nothing runs before
//! everything is in place.

#![no_std]
#![forbid(unsafe_code)]

mod assign;
mod board;
mod chunks;
mod expect;
mod groups;
#[cfg(test)]
mod image;
mod kinds;
mod measure;
mod policy;
mod probe;
mod report;
mod reserved;
mod restarts;
mod rtc;
mod tsc;
mod untyped;

pub use assign::{Fate, GivenBehind, Stop, Told, has_memory, look_at, share_out};
pub use board::{Difference, Lack, Places, Stated, Unfit, settle};
pub use chunks::{Chunk, chunks};
pub use expect::{Expect, Given};
pub use groups::{Conflict, Owned, conflict, is_stray};
pub use kinds::{Extent, Holder, Kind, PROBE_PAGES, Window, extent, holder};
pub use measure::{Answer, Surroundings, Unmeasured, Verdict, measure};
pub use policy::{Action, AfterFault, Guests, action, after_fault, resting_priority};
pub use probe::{Cpu, HpetTimer, Machine, conclude, function, guest_memory, memory};
pub use report::{BACKTRACE_MAX, Cause, LastWords, backtrace, in_guard_page};
pub use reserved::{NotMapped, check_reserved};
pub use restarts::Restarts;
pub use rtc::{DATA_PORT, INDEX_PORT, unix_time};
pub use tsc::keeps_rate;
pub use untyped::{Exhausted, Split, Untypeds};
