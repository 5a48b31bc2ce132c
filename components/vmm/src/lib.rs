//! Runs one guest as a deprivileged thread in ring 3.
//!
//! Responsible for: guest memory and its image, privileged instructions, I/O
//! ports, the local APIC and the I/O APIC, MMIO that cannot be mapped, interrupt injection, and
//! the translation of a slot of the notification word into a guest vector.
//! Must never: hold IRQControl, configuration space or an I/O port; trust
//! anything that the guest can write, the fault message included.
//! May call: pci-config, msix, iommu, timer.
//! Invariants: guest-physical = guest-virtual, but for RAM's second place if it has
//! one; every trap ends in a resumed, a
//! halted or a stopped guest; the guest's interrupt flag lives here, since the
//! real one is always set in ring 3.

#![no_std]
#![forbid(unsafe_code)]

mod alu;
mod bar_map;
mod bus;
mod counters;
mod cpu;
mod crash;
mod decode;
mod descriptors;
mod host;
mod inject;
mod instruction_cache;
mod instructions;
mod ioapic;
mod lapic;
mod lives;
mod loader;
mod mmio;
mod paging;
mod pc;
mod privileged;
mod registers;
mod share;
mod slots;
mod tables;
mod takeback;
mod uart;
mod vmm;

pub use bar_map::BarMap;
pub use bus::is_long;
pub use counters::Counters;
pub use crash::Crash;
pub use host::{GuestMemory, Host, Interrupts, PciFunctions, StopReason, Unclaimed};
pub use ioapic::IOAPIC_BASE;
pub use lapic::{LAPIC_BASE, Lapic};
pub use lives::{Lives, Next};
pub use loader::{BOOT_PARAMS_OFFSET, COMMAND_LINE_MAX, LoadError, load};
pub use paging::BadTable;
pub use pc::{Pc, describe as describe_pc};
pub use registers::{Registers, Source, Trapped, WORDS};
pub use share::Share;
pub use slots::Budget;
pub use tables::{Level, Structure, Tables};
pub use takeback::{TakeBack, take_back};
pub use vmm::{Fault, Outcome, Vmm};
