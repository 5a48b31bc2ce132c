//! What init learns about the machine at boot.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Facts for every component, on a page shared read-only.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MachineInfo {
    /// Frequency of the time stamp counter in kHz, as the kernel measured it.
    pub tsc_khz: u64,
    /// Time stamp counter when the kernel handed over to init.
    pub handover_tsc: u64,
    /// How many functions were found and assigned.
    pub functions: u64,
}
