//! PCI names and facts that components share.
//!
//! Responsible for: addresses, access widths, register offsets, and the
//! description of an assigned function ([`FunctionInfo`]) that init finds at
//! boot and hands, read-only, to every component that works on it.
//! Must never: touch a device but through the [`ConfigSpace`] or the [`ConfigPorts`] it is given.
//! May call: nothing.
//! Invariants: every type here is plain data; decoding one from a word that
//! another component sent either becomes a valid value or `None`.

#![no_std]
#![forbid(unsafe_code)]

mod capability;
mod discover;
mod function;
mod grain;
mod group;
mod place;
mod ports;
pub mod regs;
mod scan;
mod unassigned;
mod virtio;

pub use capability::{Capability, CapabilityList, MAX_CAPABILITIES};
pub use discover::{ConfigSpace, NoFunction, NoMsix, discover, find_msix};
pub use function::{
    BarInfo, BarKind, CommonRegisters, FUNCTION_BARS, FunctionInfo, MAX_MSIX_PAGES, MsixInfo,
    MsixPage, PAGE_SIZE, RESET_PAGES, ResetRegisters,
};
pub use grain::{Grain, LARGE_PAGE_SIZE};
pub use group::{
    Reach, Tree, bridge_above, can_redirect, carried_id, extended_capability, redirect,
    switch_ats_off,
};
pub use place::{
    BAR_WINDOW, GUEST_BAR_SLOTS, GUEST_BAR_TABLES, GUEST_FUNCTIONS, HIGH_BAR_WINDOW,
    claim_small_bars, place_bars,
};
pub use ports::{ConfigPorts, Mechanism1};
pub use scan::{buses_behind, each_function};
pub use unassigned::{Given, NoAddress, give_addresses};
pub use virtio::{NoVirtio, Virtio, VirtioPlace, VirtioRegisters, is_virtio, virtio_registers};

use core::fmt;

/// The address of a PCI function: bus, device and function number.
///
/// Packed as the requester id of PCI Express (PCIe 6.0 section 2.2.6.2): bus
/// in bits 15:8, device in 7:3, function in 2:0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf(u16);

impl Bdf {
    /// Makes an address; `None` if `device` is above 31 or `function` above 7.
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Option<Self> {
        if device > 31 || function > 7 {
            return None;
        }
        Some(Self(
            (bus as u16) << 8 | (device as u16) << 3 | function as u16,
        ))
    }

    /// Returns the address with this requester id; every 16-bit value is one.
    #[must_use]
    pub const fn from_requester_id(id: u16) -> Self {
        Self(id)
    }

    /// Returns the requester id: bus << 8 | device << 3 | function.
    #[must_use]
    pub const fn requester_id(self) -> u16 {
        self.0
    }

    /// Bus number, 0 to 255.
    #[must_use]
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Returns the device number, 0 to 31.
    #[must_use]
    pub const fn device(self) -> u8 {
        (self.0 >> 3 & 31) as u8
    }

    /// Returns the function number, 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        (self.0 & 7) as u8
    }

    /// Reads `bb:dd.f` (hexadecimal, as `lspci` prints it), with or without a
    /// leading `0000:` segment; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("0000:").unwrap_or(text);
        let (bus, rest) = text.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let hex = |part: &str, digits: usize| {
            (part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit()))
                .then(|| u8::from_str_radix(part, 16).ok())
                .flatten()
        };
        Self::new(hex(bus, 2)?, hex(device, 2)?, hex(function, 1)?)
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:02x}:{:02x}.{}",
            self.bus(),
            self.device(),
            self.function()
        )
    }
}

impl fmt::Debug for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How many bytes one access moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Width {
    /// 1 byte.
    Byte = 1,
    /// 2 bytes.
    Word = 2,
    /// 4 bytes.
    Dword = 4,
    /// 8 bytes: memory only, a configuration access never has it.
    Qword = 8,
}

impl Width {
    /// Returns the width of `bytes` bytes; `None` unless 1, 2, 4 or 8.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            8 => Some(Self::Qword),
            _ => None,
        }
    }

    /// Returns the bytes: 1, 2, 4 or 8.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self as u64
    }

    /// Returns all bits of the width set, the value of a read that nothing answers.
    #[must_use]
    pub const fn all_ones(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }

    /// Returns whether `address` is a multiple of the width.
    #[must_use]
    pub const fn is_aligned(self, address: u64) -> bool {
        address & (self.bytes() - 1) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::string::ToString;

    #[test]
    fn bdf_parses_what_it_prints() {
        for id in 0..=u16::MAX {
            let bdf = Bdf::from_requester_id(id);
            assert_eq!(Bdf::parse(&bdf.to_string()), Some(bdf));
            assert_eq!(Bdf::new(bdf.bus(), bdf.device(), bdf.function()), Some(bdf));
        }
    }

    #[test]
    fn bdf_refuses_what_is_no_address() {
        for bad in [
            "",
            "00:02",
            "0:02.0",
            "00:20.0",
            "00:02.8",
            "00:+2.0",
            "00:02.0 ",
            "0001:00:02.0",
        ] {
            assert_eq!(Bdf::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Bdf::parse("0000:00:02.0"), Bdf::new(0, 2, 0));
    }

    #[test]
    fn width_masks_and_alignment() {
        assert_eq!(Width::Byte.all_ones(), 0xff);
        assert_eq!(Width::Dword.all_ones(), 0xffff_ffff);
        assert_eq!(Width::Qword.all_ones(), u64::MAX);
        assert!(Width::Dword.is_aligned(8) && !Width::Qword.is_aligned(12));
        assert_eq!(Width::from_bytes(3), None);
    }
}
