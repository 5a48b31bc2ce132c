//! State of the interpreted CPU.

use crate::Width;

/// Flag that is always set.
const FLAG_FIXED: u32 = 1 << 1;
/// CR0 as a boot loader leaves it: protection on, extension type, and paging off.
const CR0_START: u32 = 1 << 0 | 1 << 4;

/// Protection, paging.
pub const CR0_PE: u32 = 1 << 0;
pub const CR0_PG: u32 = 1 << 31;
/// Physical address extension.
pub const CR4_PAE: u32 = 1 << 5;
/// EFER: long mode enabled, and active.
pub const EFER_LME: u64 = 1 << 8;
pub const EFER_LMA: u64 = 1 << 10;

pub const EAX: usize = 0;
pub const ECX: usize = 1;
pub const EDX: usize = 2;
pub const EBX: usize = 3;
pub const ESP: usize = 4;
pub const EBP: usize = 5;
pub const ESI: usize = 6;
pub const EDI: usize = 7;

pub const CS: usize = 1;
pub const SS: usize = 2;

/// A descriptor table's register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Address of its first byte.
    pub base: u32,
    /// Offset of its last byte.
    pub limit: u16,
}

/// Registers of the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI.
    pub gpr: [u32; 8],
    /// Address of the next instruction.
    pub eip: u32,
    /// Flags.
    pub eflags: u32,
    /// ES, CS, SS, DS, FS, GS.
    pub selectors: [u16; 6],
    /// CR0.
    pub cr0: u32,
    /// CR2.
    pub cr2: u32,
    /// CR3.
    pub cr3: u32,
    /// CR4.
    pub cr4: u32,
    /// Extended features.
    pub efer: u64,
    /// Global descriptor table.
    pub gdt: Table,
    /// Interrupt descriptor table.
    pub idt: Table,
}

impl Cpu {
    /// Creates the state in which boot loaders enter 32-bit code: flat segments, paging
    /// and interrupts off, no descriptor tables that could be used.
    #[must_use]
    pub const fn new(entry: u32, eax: u32, ebx: u32) -> Self {
        let mut gpr = [0; 8];
        gpr[EAX] = eax;
        gpr[EBX] = ebx;
        Self {
            gpr,
            eip: entry,
            eflags: FLAG_FIXED,
            selectors: [0; 6],
            cr0: CR0_START,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            gdt: Table { base: 0, limit: 0 },
            idt: Table { base: 0, limit: 0 },
        }
    }

    /// Returns a general register, or the part of it, by its number in instructions.
    pub const fn register(&self, number: u8, width: Width) -> u32 {
        let index = number as usize & 7;
        match width {
            Width::Dword => self.gpr[index],
            Width::Word => self.gpr[index] & 0xffff,
            // AH, CH, DH and BH are numbers 4 to 7.
            Width::Byte if index >= 4 => self.gpr[index - 4] >> 8 & 0xff,
            Width::Byte => self.gpr[index] & 0xff,
        }
    }

    /// Sets a general register, or a part of it.
    pub const fn set_register(&mut self, number: u8, width: Width, value: u32) {
        let index = number as usize & 7;
        match width {
            Width::Dword => self.gpr[index] = value,
            Width::Word => self.gpr[index] = self.gpr[index] & !0xffff | value & 0xffff,
            Width::Byte if index >= 4 => {
                self.gpr[index - 4] = self.gpr[index - 4] & !0xff00 | (value & 0xff) << 8;
            }
            Width::Byte => self.gpr[index] = self.gpr[index] & !0xff | value & 0xff,
        }
    }
}
