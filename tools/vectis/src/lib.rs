//! The one command: builds the system's image, runs it, and shows its output.
//!
//! Responsible for: the command line, calling cargo and the kernel builder,
//! putting the image together, QEMU's life, and turning serial streams into
//! text. Must never: leave a process or a temporary file behind. May call:
//! cargo, gcc, QEMU, apt-get (as root only).
//! Invariants: equal inputs give an equal image; every error names the failure, its
//! place, and the next step.
//!
//! # Map of the crates
//!
//! A component is logic in a library, which knows nothing of seL4, and a `main.rs` that
//! binds it to seL4. These pages show the libraries, private items included.
//!
//! | components | responsible for |
//! |---|---|
//! | [`init`] | building the system at boot; fault reports, restarts |
//! | [`console`] | serial ports, debug keys |
//! | [`timer`](../timer/index.html) | deadlines, on the HPET |
//! | [`pci_config`](../pci_config/index.html) | configuration space: BARs, capabilities, plain MSI |
//! | [`msix`](../msix/index.html) | MSI-X table, PBA, message control |
//! | [`irq_router`](../irq_router/index.html) | vectors, IRQ handler capabilities, routes |
//! | [`iommu`](../iommu/index.html) | memory and vectors that a function reaches |
//! | [`vmm`](../vmm/index.html) | the guest: instruction emulation, local APIC, injection |
//!
//! | shared by components | contains |
//! |---|---|
//! | [`channel`] | the interfaces between components; an example of one |
//! | [`runtime`](../runtime/index.html) | start, resources, logs and the receive loop of every program |
//! | [`spec`] | the image's records; facts that tools and components share |
//! | [`pci`] | PCI names, and how a function is discovered |
//! | [`acpi_tables`](../acpi_tables/index.html) | the firmware's tables, as far as they describe the IOMMU |
//! | [`dma_probe`](../dma_probe/index.html) | functions as copy engines, to measure DMA |
//! | [`shm`] | rings, counters and kept words in shared memory |
//! | [`sel4`](../sel4/index.html), [`sel4_sys`](../sel4_sys/index.html) | the binding, with rust-sel4's names |
//!
//! | tools | task |
//! |---|---|
//! | [`system`] | reads and checks system.toml, composes the image |
//! | [`guest_image`] | recognises guests' images, makes of each the file that the vmm loads |
//! | [`inspect`](mod@::inspect) | reads dumps of a machine, says what its functions could do |
//! | [`kernel`] | builds seL4 |
//! | [`sel4_idl`](../sel4_idl/index.html) | reads the kernel's interface files; writes C headers and Rust |
//! | [`replay`](mod@::replay) | replays recorded accesses against the components' logic |
//!
//! | before the kernel | |
//! |---|---|
//! | [`boot`](mod@::boot) | what a boot loader enters; checks of the machine |
//!
//! | guests | |
//! |---|---|
//! | [`kit`](../kit/index.html) | boot, interrupts, PCI, MSI-X, e1000e and NVMe drivers |
//! | [`web`](../web/index.html), [`probe`](../probe/index.html), [`hostile`](../hostile/index.html) | a web server; checks of a function; attacks |

#![forbid(unsafe_code)]

mod bench;
mod cli;
mod commands;
mod control;
mod error;
mod frames;
mod image;
mod inspect;
mod kernels;
mod logs;
mod manifest;
mod media;
mod metrics;
mod network;
mod output;
mod packages;
mod programs;
mod qemu;
mod record;
mod replay;
mod run;
mod soak;
mod start;
mod steps;
mod symbols;
mod text;
mod trace;
mod workspace;

pub use error::{Error, Result};
pub use start::main;
