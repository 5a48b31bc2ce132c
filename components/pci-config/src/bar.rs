//! A base address register as the guest sees it (C4).

use pci::{BarInfo, BarKind};

/// Register bits of a memory BAR that are no address: 64-bit type.
const TYPE_64: u32 = 2 << 1;
/// Prefetchable.
const PREFETCHABLE: u32 = 1 << 3;

/// One BAR. The guest's address starts as the host's, so that a guest which
/// moves nothing sees what the firmware set up.
#[derive(Clone, Copy, Default)]
pub struct Bar {
    info: BarInfo,
    address: u64,
}

impl Bar {
    /// A BAR as at start.
    pub const fn new(info: BarInfo) -> Self {
        Self {
            info,
            address: info.address,
        }
    }

    /// The register's low or only half.
    pub const fn low(&self) -> u32 {
        let kind = match self.info.kind() {
            BarKind::Memory64 => TYPE_64,
            _ => 0,
        };
        let prefetchable = if self.info.prefetchable != 0 {
            PREFETCHABLE
        } else {
            0
        };
        self.address as u32 | kind | prefetchable
    }

    /// The register's upper half.
    pub const fn high(&self) -> u32 {
        (self.address >> 32) as u32
    }

    /// Where it would be after a write of the low half. Bits below the size
    /// stay 0, which is what answers a sizing write.
    pub const fn with_low(&self, value: u32) -> u64 {
        self.aligned(self.address & !0xffff_ffff | value as u64)
    }

    /// Where it would be after a write of the upper half.
    pub const fn with_high(&self, value: u32) -> u64 {
        self.aligned(self.address & 0xffff_ffff | (value as u64) << 32)
    }

    /// The guest's address.
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// Moves it to an address from [`Bar::with_low`] or [`Bar::with_high`].
    pub const fn set_address(&mut self, address: u64) {
        self.address = address;
    }

    /// What the firmware set up.
    pub const fn info(&self) -> &BarInfo {
        &self.info
    }

    const fn aligned(&self, address: u64) -> u64 {
        // The size is a power of two and never 0 for a BAR that is played.
        address & !self.info.size.saturating_sub(1)
    }
}
