//! Times the logic behind a guest's access, on the host.
//!
//! Responsible for: the figures of `docs/performance.md`.
//! Must never: stand for the cost of a trap or a message between components;
//! those are the kernel's, and counted at boot.
//! May call: msix, pci-config, vmm, each with surroundings that do next to
//! nothing.
//! Invariants: one iteration leaves the state that the next one starts from;
//! samples have a fixed size, so that instructions can be counted.

#![forbid(unsafe_code)]

mod config;
mod guest;
mod table;

fn main() {
    divan::main();
}
