//! A base address register as the guest sees it (C4).

use pci::regs::{COMMAND_IO, COMMAND_MEMORY};
use pci::{BarInfo, BarKind};

/// Register bits of a memory BAR below the address: 64-bit type.
const TYPE_64: u32 = 2 << 1;
/// The one type bit of an I/O BAR.
const PORTS: u32 = 1;
/// Prefetchable.
const PREFETCHABLE: u32 = 1 << 3;

/// One BAR. The guest's address starts where init placed it, which is the host's
/// address if that will do, so that a guest which moves nothing sees what the
/// firmware set up.
///
/// The register's value and the decoded address are two things: a guest
/// that sizes a BAR, or writes a 64-bit one half by half, without switching decode
/// off, does not mean the values in between as places.
#[derive(Clone, Copy, Default)]
pub struct Bar {
    info: BarInfo,
    /// Returns the value that the guest wrote last.
    register: u64,
    /// Where the BAR is while it is decoded.
    address: u64,
}

impl Bar {
    /// Creates a BAR as at start.
    pub const fn new(info: BarInfo) -> Self {
        Self {
            info,
            register: info.guest,
            address: info.guest,
        }
    }

    /// Returns the register's low or only half.
    pub const fn low(&self) -> u32 {
        let kind = match self.info.kind {
            BarKind::Memory64 => TYPE_64,
            BarKind::Io => PORTS,
            _ => 0,
        };
        let prefetchable = if self.info.prefetchable != 0 {
            PREFETCHABLE
        } else {
            0
        };
        self.shown() as u32 | kind | prefetchable
    }

    /// Returns the register's upper half.
    pub const fn high(&self) -> u32 {
        (self.shown() >> 32) as u32
    }

    /// Returns the command bit by which it is decoded; 0 if it never is.
    pub fn decode_bit(&self) -> u16 {
        match self.info.kind {
            BarKind::None => 0,
            BarKind::Io if self.info.has_ports() => COMMAND_IO,
            BarKind::Io => 0,
            BarKind::Memory32 | BarKind::Memory64 => COMMAND_MEMORY,
        }
    }

    /// Returns the register's value for reads: 0 is not an address, and a BAR that was decoded when
    /// the guest wrote it stayed where it was.
    const fn shown(&self) -> u64 {
        match self.register {
            0 => self.address,
            register => register,
        }
    }

    /// Returns its value after a write of the low half. Bits below the size
    /// stay 0, which is what answers a sizing write.
    pub const fn with_low(&self, value: u32) -> u64 {
        self.aligned(self.register & !0xffff_ffff | value as u64)
    }

    /// Returns its value after a write of the upper half.
    pub const fn with_high(&self, value: u32) -> u64 {
        self.aligned(self.register & 0xffff_ffff | (value as u64) << 32)
    }

    /// Returns the value that the guest wrote last.
    pub const fn register(&self) -> u64 {
        self.register
    }

    /// Returns the guest's address.
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// Writes a value from [`Bar::with_low`] or [`Bar::with_high`]. True if the
    /// BAR moved: one that is decoded follows at once, but not to 0 and not to the
    /// ones of a sizing write.
    pub const fn write(&mut self, value: u64, decoded: bool) -> bool {
        self.register = value;
        if decoded && (value == 0 || self.is_sizing()) {
            return false;
        }
        let moved = self.address != value;
        self.address = value;
        moved
    }

    /// Settles the address as memory decode changes: the register's value is from now on where the
    /// BAR is.
    pub const fn settle(&mut self) {
        self.address = self.shown();
        self.register = self.address;
    }

    /// Takes the state of a record.
    pub const fn restore(&mut self, register: u64, address: u64) {
        self.register = register;
        self.address = address;
    }

    /// Returns whether a half is as a write of all ones leaves it (PCI Local
    /// Bus 3.0 section 6.2.5.1). No BAR is ever mapped there: it is outside the
    /// window.
    const fn is_sizing(&self) -> bool {
        let ones = self.aligned(u64::MAX);
        let low = ones as u32;
        (low != 0 && self.register as u32 == low)
            || (matches!(self.info.kind, BarKind::Memory64) && self.register >> 32 == ones >> 32)
    }

    const fn aligned(&self, address: u64) -> u64 {
        // The size is a power of two and never 0 for a BAR that is offered.
        address & !self.info.size.saturating_sub(1)
    }
}
