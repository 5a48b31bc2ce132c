//! What runs between a PC's boot loader and the kernel.
//!
//! A loader of today (GRUB by Multiboot 2, from BIOS or UEFI) tells things that the kernel
//! does not understand, and leaves out what it needs: the bundled seL4 misreads the fields
//! about the screen, has room for 16 pieces of memory, and looks for ACPI's root pointer
//! where UEFI has none. This program takes what the loader says, checks that this machine
//! can run the kernel at all, and tells the kernel what it needs to hear.
//!
//! Responsible for: the loader's information, the checks, the kernel's information.
//! Must never: write memory that firmware keeps; start a kernel that would stop without a
//! word. May call: acpi-tables. Invariants: any bytes of the loader's yield a result, without
//! a panic and in bounded time.
//!
//! The published Multiboot crates read such information but write none for a kernel, and
//! read it by pointers; a list of tags takes fewer lines than their use.
#![no_std]
#![forbid(unsafe_code)]

pub mod cpu;
mod handoff;
pub mod information;
mod memory;
mod root;
mod tags;

pub use handoff::{COMMAND_LINE, Handoff, LABEL, Protocol, SEGMENTS, SYMBOL, Segment, text};
pub use memory::{Map, REGIONS, Region, Trouble, check};
pub use root::{POINTER, RootPlace, has_rsdt, root_place};
pub use tags::{Information, MAGIC, Screen};

#[cfg(test)]
mod tests;
