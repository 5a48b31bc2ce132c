//! Where an image made for another monitor and the shim beside it lie in a guest's RAM,
//! and what the build tool tells the shim.
//!
//! A shim is a guest of its own, built for the last [`SIZE`] bytes of RAM. It is entered
//! first, does what the image's monitor would do, and enters the image. Tool and shim
//! agree on the block at [`HANDOFF_OFFSET`] of the shim's RAM.

use core::ops::RangeInclusive;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of RAM that a shim has, at the end of the guest's.
pub const SIZE: u64 = 8 << 20;
/// Where the block lies, from the start of the shim's RAM: above its stack and below its
/// program, which starts at 1 MiB.
pub const HANDOFF_OFFSET: u64 = 0x8_0000;
/// Bytes that the block has at most.
pub const HANDOFF_SIZE: usize = 0x8_0000;

/// The port on which a shim registers, by the address of its code for calls, once. From then on
/// interrupts are delivered by the table that is loaded there and then; the image may load
/// another one for its exceptions.
pub const REGISTER_PORT: u16 = 0x500;
/// The ports by which an image calls its shim: hypercalls 1 to 8 of Solo5's hvt ABI
/// (hvt_abi.h).
///
/// The vmm makes every `out dx, eax` that lies below the shim's RAM a jump to the code that
/// was registered: which port it is, is in a register that it need not read. That code finds
/// all registers as the image had them but the stack pointer, which is [`RED_ZONE`] lower and
/// then at the address to return to. Outputs to other ports it makes itself.
pub const CALL_PORTS: RangeInclusive<u16> = 0x501..=0x508;
/// Bytes below the stack pointer that code may use (System V ABI for AMD64, 3.2.2).
pub const RED_ZONE: u64 = 128;

/// "VECTSHIM", the first bytes of a block.
const MAGIC: u64 = u64::from_le_bytes(*b"VECTSHIM");

/// What the tool tells a shim about its image. The command line and then the payload
/// follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Handoff {
    magic: u64,
    /// First instruction of the image.
    pub entry: u64,
    /// Lowest address of the image.
    pub image_start: u64,
    /// First address after the image.
    pub image_end: u64,
    /// First address of the guest's RAM.
    pub ram_start: u64,
    /// First address that is not the image's: the shim's RAM begins here.
    pub ram_end: u64,
    command_line: u64,
    payload: u64,
}

impl Handoff {
    /// Creates the head of a block.
    #[must_use]
    pub const fn new(entry: u64, image: (u64, u64), ram: (u64, u64)) -> Self {
        Self {
            magic: MAGIC,
            entry,
            image_start: image.0,
            image_end: image.1,
            ram_start: ram.0,
            ram_end: ram.1,
            command_line: 0,
            payload: 0,
        }
    }

    /// Returns the same for a block with a command line and a payload of these lengths,
    /// in bytes.
    #[must_use]
    pub const fn with(mut self, command_line: u64, payload: u64) -> Self {
        self.command_line = command_line;
        self.payload = payload;
        self
    }

    /// Returns the head of a block, its command line and its payload; `None` if it is not
    /// a whole block.
    #[must_use]
    pub fn parse(block: &[u8]) -> Option<(Self, &[u8], &[u8])> {
        let (head, rest) = Self::read_from_prefix(block).ok()?;
        let (line, rest) = rest.split_at_checked(usize::try_from(head.command_line).ok()?)?;
        let payload = rest.get(..usize::try_from(head.payload).ok()?)?;
        (head.magic == MAGIC).then_some((head, line, payload))
    }
}

/// Payload for the shim of Solo5 images, before the manifest's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Solo5Devices {
    /// Requester id of the function that stands for each entry of the manifest;
    /// [`NO_DEVICE`] where there is none.
    pub functions: [u16; 64],
}

/// No function, in [`Solo5Devices`].
pub const NO_DEVICE: u16 = u16::MAX;

/// How 32-bit code is entered, in [`Boot32`].
pub mod protocol {
    /// Multiboot 1.
    pub const MULTIBOOT: u32 = 1;
    /// PVH.
    pub const PVH: u32 = 2;
}

/// Payload for the shim that enters 32-bit code, before [`Boot32Module`] for each module
/// and then the modules' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Boot32 {
    /// One of [`protocol`].
    pub protocol: u32,
    /// How many modules there are.
    pub modules: u32,
    /// Address of ACPI's RSDP; 0 if there is none.
    pub rsdp: u64,
    /// First address after the guest's RAM, the shim's included.
    pub ram_end: u64,
    /// 1 if instructions of the image were rewritten ([`crate::rewrite`]), else 0.
    pub rewritten: u64,
}

/// A boot module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Boot32Module {
    /// Address of its first byte.
    pub start: u64,
    /// Address after its last byte.
    pub end: u64,
    /// Bytes of its name.
    pub name: u64,
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    fn block(head: Handoff, rest: &[u8]) -> Vec<u8> {
        [head.as_bytes(), rest].concat()
    }

    #[test]
    fn a_block_is_read_as_it_was_written() {
        let head = Handoff::new(1, (2, 3), (4, 5)).with(4, 3);
        let bytes = block(head, b"linepay more");
        let (read, line, payload) = Handoff::parse(&bytes).unwrap();
        assert_eq!((read, line, payload), (head, &b"line"[..], &b"pay"[..]));
    }

    #[test]
    fn what_is_not_a_whole_block_is_none() {
        let head = Handoff::new(1, (2, 3), (4, 5));
        assert_eq!(Handoff::parse(&[]), None);
        assert_eq!(Handoff::parse(&[0; 4096]), None);
        for (line, payload) in [(5, 0), (0, 5), (2, 3), (u64::MAX, 0), (0, u64::MAX)] {
            let bytes = block(head.with(line, payload), b"1234");
            assert_eq!(Handoff::parse(&bytes), None, "{line} {payload}");
        }
    }
}
