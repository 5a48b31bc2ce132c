//! Base of a unikernel: boot, console, interrupts, clock, PCI, MSI-X, e1000e, NVMe and virtio drivers.
//!
//! Responsible for: getting one ELF64 image from either entry (PVH on bare
//! hardware, the Linux 64-bit boot protocol on Vectis) to a Rust `main`, and
//! for driving the guest's hardware.
//! Must never: allocate, use `fs:`/`gs:` or `pushf`/`popf` (which the build tool would
//! have to rewrite), or load CR3, GDT or CS after the 64-bit entry.
//! May call: smoltcp's device trait, the crate virtio-drivers; no operating system.
//! Invariants: interrupts are open only inside `interrupts::Interrupts`'s
//! two waiting functions, and an interrupt only counts itself, so no code here
//! is ever run concurrently. Guest-physical = guest-virtual = bus address.
#![no_std]

pub mod boot_params;
pub mod clock;
pub mod command_line;
pub mod console;
pub mod cpu;
pub mod e1000e;
pub mod mmio;
pub mod msix;
pub mod network;
pub mod nvme;
pub mod pci;
pub mod virtio;

#[cfg(feature = "entry")]
pub mod boot;
#[cfg(feature = "entry")]
pub mod interrupts;
#[cfg(feature = "entry")]
pub mod lapic;
#[cfg(feature = "entry")]
mod runtime;

use spec::EXIT_PORT;

/// Exit code of a guest that succeeded. QEMU's own exit
/// status is then `code << 1 | 1`.
pub const EXIT_SUCCESS: u8 = spec::EXIT_SUCCESS as u8;

/// Exit code of a guest that panicked or took an exception.
pub const EXIT_FAILURE: u8 = 0x11;

/// Ends the machine with `code`, or halts the CPU forever where there is no exit
/// device.
pub fn exit(code: u8) -> ! {
    cpu::out8(EXIT_PORT, code);
    cpu::stop()
}
