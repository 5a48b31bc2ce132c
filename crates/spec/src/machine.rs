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

/// The IOMMU that init found by ACPI, on a page for the iommu component.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IommuInfo {
    /// 0: none that can be used; 1: AMD-Vi; 2: VT-d.
    pub kind: u32,
    /// Requester id of the I/O APIC, as the firmware tells it.
    pub ioapic: u32,
    /// Machine address of its registers.
    pub registers: u64,
    /// Bytes of registers that are mapped.
    pub registers_size: u64,
    /// Machine address of the memory for the unit's tables, which is in one
    /// piece, and starts at a multiple of 2 MiB.
    pub tables: u64,
    /// Bytes of it.
    pub tables_size: u64,
}
