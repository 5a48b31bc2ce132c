//! Assigns a vector and a slot to each interrupt source, and tells the vmm where its
//! events go.
//!
//! Responsible for: vectors, IRQ handler capabilities (through
//! [`IrqControl`]), the slots of each guest, and the routing pages.
//! Must never: hold a device or a guest's frame, or believe a message's
//! function: which guest owns a function is fixed at start.
//! May call: iommu.
//! Invariants: a source has at most one slot, a slot at most one source, a
//! vector at most one slot; a slot is on the routing page only while its
//! handler capability is there, and then always but for an MSI message that no
//! local APIC takes. All this holds again once a new router has taken over from
//! one that died, at whichever instruction; bound sources have not stopped
//! being delivered.

#![no_std]
#![forbid(unsafe_code)]

mod connect;
mod router;
mod vectors;

pub use connect::{Capabilities, Failure, connect};
pub use router::{Counters, IrqControl, KernelError, Router, Slot, kept_words};
