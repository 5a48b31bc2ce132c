//! The register table (C1): which bytes have a handler, and which one.

use heapless::Vec;
use pci::Width;

use crate::layout::CONVENTIONAL;

/// Registers of one function: a header needs about 20, PCI Express 15, and the
/// 48 capabilities that a list can have 2 each. What does not fit is hidden.
const CAPACITY: usize = 160;

/// Which bits of a device's register a guest reaches (C2). A bit that is in
/// none of `writable`, `clear` and `zero` is preserved on a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    /// Read from the device; the others read 0.
    pub readable: u32,
    /// Written through.
    pub writable: u32,
    /// Cleared by writing 1, unharmed by 0.
    pub clear: u32,
    /// Reserved: always written as 0.
    pub zero: u32,
}

impl Masks {
    /// Everything can be read, nothing written.
    pub const READ_ONLY: Self = Self {
        readable: u32::MAX,
        writable: 0,
        clear: 0,
        zero: 0,
    };
}

/// The registers of an MSI capability that are emulated (PCIe 6.0 section 7.7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsiField {
    /// Message control.
    Control,
    /// Message address, low half.
    Address,
    /// Its upper half.
    AddressHigh,
    /// Message data.
    Data,
    /// A mask bit for each message.
    Mask,
}

/// What happens at a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reads this value; writes are dropped.
    Constant(u32),
    /// The device's register, through masks.
    Hardware(Masks),
    /// The command register (C5).
    Command,
    /// The low or only half of a BAR (C4).
    Bar(u8),
    /// The upper half of this 64-bit BAR.
    BarHigh(u8),
    /// The guest's own note; the device never sees it.
    InterruptLine,
    /// MSI-X message control.
    MsixControl,
    /// A register of the MSI capability.
    Msi(MsiField),
    /// PCI Express device control, with function-level reset (C8).
    DeviceControl,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// First byte.
    pub offset: u16,
    /// Bytes: 1, 2 or 4.
    pub width: Width,
    /// Its handler.
    pub action: Action,
}

impl Register {
    /// Creates a row.
    pub const fn new(offset: u16, width: Width, action: Action) -> Self {
        Self {
            offset,
            width,
            action,
        }
    }

    /// Returns the byte after the last.
    pub const fn end(&self) -> u16 {
        self.offset + self.width.bytes() as u16
    }
}

/// Dwords of conventional space, in which nearly all registers are.
const DWORDS: usize = CONVENTIONAL as usize / 4;
const _: () = assert!(CAPACITY <= u8::MAX as usize);

/// A function's registers, sorted, none overlapping another.
pub struct RegisterTable {
    registers: Vec<Register, CAPACITY>,
    /// For each dword the first register that ends behind its start: a search begins there.
    first: [u8; DWORDS],
}

impl Default for RegisterTable {
    fn default() -> Self {
        Self {
            registers: Vec::new(),
            first: [0; DWORDS],
        }
    }
}

impl RegisterTable {
    /// Adds all of `registers`, or none of them if one overlaps what is there
    /// or another, ends after `limit`, or does not fit. Returns whether they were added.
    pub fn add(&mut self, registers: &[Register], limit: u16) -> bool {
        let before = self.registers.clone();
        let added = registers.iter().all(|&new| {
            let at = self.registers.partition_point(|r| r.end() <= new.offset);
            let free = self
                .registers
                .get(at)
                .is_none_or(|next| next.offset >= new.end());
            free && new.end() <= limit && self.registers.insert(at, new).is_ok()
        });
        if !added {
            self.registers = before;
        }
        for (dword, first) in self.first.iter_mut().enumerate() {
            let start = 4 * dword as u16;
            *first = self.registers.partition_point(|r| r.end() <= start) as u8;
        }
        added
    }

    /// Returns the register that holds byte `at`, or where the gap around it
    /// ends.
    pub fn at(&self, at: u16) -> Result<Register, u16> {
        let dword = usize::from(at / 4).min(DWORDS - 1);
        let mut index = usize::from(self.first[dword]);
        while let Some(register) = self.registers.get(index) {
            if register.offset > at {
                return Err(register.offset);
            }
            if register.end() > at {
                return Ok(*register);
            }
            index += 1;
        }
        Err(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(offset: u16, width: Width) -> Register {
        Register::new(offset, width, Action::Constant(0))
    }

    #[test]
    fn c1_overlaps_are_refused_whole() {
        let mut table = RegisterTable::default();
        assert!(table.add(
            &[register(0x44, Width::Dword), register(0x40, Width::Word)],
            256
        ));
        for (offset, width) in [
            (0x40, Width::Byte),
            (0x42, Width::Dword),
            (0x47, Width::Byte),
        ] {
            let pair = [register(0x80, Width::Byte), register(offset, width)];
            assert!(!table.add(&pair, 256));
            assert_eq!(table.at(0x80), Err(u16::MAX));
        }
        let twice = [register(0x80, Width::Dword), register(0x82, Width::Byte)];
        assert!(!table.add(&twice, 256));
        assert!(table.add(&[register(0x42, Width::Word)], 256));
        assert!(!table.add(&[register(0xfc, Width::Dword)], 0xff));
    }

    #[test]
    fn c1_every_byte_finds_its_register_or_gap() {
        let mut table = RegisterTable::default();
        assert!(table.add(
            &[register(0x44, Width::Dword), register(0x40, Width::Word)],
            256
        ));
        let found = |at| table.at(at).map(|register| register.offset);
        assert_eq!(found(0), Err(0x40));
        assert_eq!(found(0x41), Ok(0x40));
        assert_eq!(found(0x42), Err(0x44));
        assert_eq!(found(0x47), Ok(0x44));
        assert_eq!(found(0x48), Err(u16::MAX));
    }

    #[test]
    fn a_full_table_refuses() {
        let mut table = RegisterTable::default();
        for offset in 0..CAPACITY as u16 {
            assert!(table.add(&[register(offset, Width::Byte)], 256));
        }
        assert!(!table.add(&[register(255, Width::Byte)], 256));
    }
}
