//! System tests: the command as a user types it, the image in QEMU.
//!
//! A machine for each core runs at a time, since QEMU takes one; one that counts has the
//! host to itself. Every wait has an end, and whatever a test started is ended with it, by
//! process id.

mod bench;
mod board;
mod boot;
mod changed;
mod cli;
mod client;
mod cpu;
mod devices;
mod faults;
mod fleet;
mod guests;
mod harness;
mod hostile;
mod iommu;
mod lives;
mod pc;
mod serve;
mod share;
mod soak;
mod solo5;
mod virtio;
