//! The fake's plain MSI: 64-bit, two messages, with mask bits.

use super::Flaw;

/// Its offset in configuration space.
pub const MSI: usize = 0x40;
/// Bytes.
pub const SIZE: usize = 24;
/// Message control: offers two messages, 64-bit address, mask bits.
const CONTROL: [u8; 2] = [0x82, 0x01];

/// Registers behind identifier and link.
pub struct Message {
    registers: [u8; SIZE],
    /// Data as it was when the guest enabled it.
    latched: u8,
}

impl Message {
    pub fn new(flaw: Flaw) -> Self {
        let mut registers = [0; SIZE];
        registers[2..4].copy_from_slice(&CONTROL);
        registers[2] |= u8::from(flaw == Flaw::MessageStartsOn);
        Self {
            registers,
            latched: 0,
        }
    }

    pub fn enabled(&self) -> bool {
        self.registers[2] & 1 != 0
    }

    pub fn byte(&self, at: usize) -> u8 {
        self.registers[at]
    }

    pub fn set_byte(&mut self, at: usize, value: u8, msix: bool, flaw: Flaw) {
        let register = &mut self.registers[at];
        *register = match at {
            2 => {
                let on = value & 1 & u8::from(!msix || flaw == Flaw::MessageWithMsix);
                let most = if flaw == Flaw::MessagesNotBounded {
                    7
                } else {
                    1
                };
                let allowed = (value >> 4 & 7).min(most);
                on | CONTROL[0] | allowed << 4
            }
            4 if flaw == Flaw::AddressTakesAll => value,
            4 => value & !3,
            5..14 => value,
            16 if flaw == Flaw::MaskTakesAll => value,
            16 => value & 3,
            _ => *register,
        };
        if at == 2 && value & 1 != 0 {
            self.latched = self.registers[12];
        }
    }

    /// Returns the vector that an event raises.
    pub fn vector(&self, flaw: Flaw) -> usize {
        match flaw {
            Flaw::MessageLatched => self.latched.into(),
            _ => self.registers[12].into(),
        }
    }
}
