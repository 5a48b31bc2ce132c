//! Enters an image whose first code is 32-bit code, on a virtual CPU that knows long mode
//! only: the code is interpreted until it enters long mode itself.
//!
//! Responsible for: the 32-bit CPU as a boot loader leaves it, and the information that
//! Multiboot 1 and PVH promise. Must never: reach memory but the image's; guess what an
//! instruction does that it does not know. May call: the [`Machine`] passed in.
//! Invariants: it runs in the guest, so that whatever the image does to it hurts the guest
//! alone; each step is one instruction, or one element of a string; any bytes yield a
//! result.
#![no_std]
#![forbid(unsafe_code)]

mod alu;
mod cpu;
pub mod information;
mod interpreter;
mod operands;
mod strings;

pub use cpu::{Cpu, Table};
pub use interpreter::{Interpreter, Step, Trouble};

/// Bytes of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 1 byte.
    Byte = 1,
    /// 2 bytes.
    Word = 2,
    /// 4 bytes.
    Dword = 4,
}

impl Width {
    /// Returns the width of so many bytes.
    #[must_use]
    pub const fn of(bytes: u8) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            _ => None,
        }
    }

    /// Returns the bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self as u32
    }

    /// Returns the bits of a value.
    #[must_use]
    pub const fn bits(self) -> u32 {
        8 * self as u32
    }

    /// Returns a value with all bits set.
    #[must_use]
    pub const fn mask(self) -> u32 {
        u32::MAX >> (32 - self.bits())
    }

    /// Returns the sign bit.
    #[must_use]
    pub const fn sign(self) -> u32 {
        1 << (self.bits() - 1)
    }
}

/// The machine around the interpreted CPU.
pub trait Machine {
    /// Reads the image's memory; `None` if there is none.
    fn read(&mut self, address: u32, width: Width) -> Option<u32>;
    /// Writes the image's memory; `None` if there is none.
    fn write(&mut self, address: u32, width: Width, value: u32) -> Option<()>;
    /// Reads an I/O port.
    fn port_read(&mut self, port: u16, width: Width) -> u32;
    /// Writes an I/O port.
    fn port_write(&mut self, port: u16, width: Width, value: u32);
    /// Returns EAX, EBX, ECX and EDX of a CPUID leaf.
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4];
    /// Returns the time stamp counter.
    fn tsc(&mut self) -> u64;
}
