//! Arithmetic: its operands, and the flags that follow.

use yaxpeax_x86::protected_mode::{Instruction, Opcode};

use super::{Interpreter, Trouble};
use crate::alu::{self, CF, OF, STATUS, Shift};
use crate::cpu::EDX;
use crate::operands::immediate;
use crate::{Machine, Width};

impl<M: Machine> Interpreter<'_, M> {
    pub(super) fn arithmetic(&mut self, instruction: &Instruction) -> Result<(), Trouble> {
        let width = self.width(instruction, 0)?;
        let a = self.get(instruction, 0, width)?;
        let b = self.get(instruction, 1, width)?;
        let carry = self.cpu.eflags & CF != 0;
        let logic = |result| (result, alu::of_result(result, width));
        let opcode = instruction.opcode();
        let (result, flags) = match opcode {
            Opcode::ADD => alu::add(a, b, false, width),
            Opcode::ADC => alu::add(a, b, carry, width),
            Opcode::SUB | Opcode::CMP => alu::sub(a, b, false, width),
            Opcode::SBB => alu::sub(a, b, carry, width),
            Opcode::OR => logic(a | b),
            Opcode::XOR => logic(a ^ b),
            _ => logic(a & b),
        };
        if !matches!(opcode, Opcode::CMP | Opcode::TEST) {
            self.set(instruction, 0, width, result)?;
        }
        self.set_flags(STATUS, flags);
        Ok(())
    }

    pub(super) fn shift(&mut self, instruction: &Instruction, kind: Shift) -> Result<(), Trouble> {
        let width = self.width(instruction, 0)?;
        let value = self.get(instruction, 0, width)?;
        let count = self.get(instruction, 1, Width::Byte)?;
        let (result, flags) = alu::shift(kind, value, count, self.cpu.eflags, width);
        self.set(instruction, 0, width, result)?;
        self.set_flags(STATUS, flags);
        Ok(())
    }

    pub(super) fn double_shift(&mut self, instruction: &Instruction) -> Result<(), Trouble> {
        let width = self.width(instruction, 0)?;
        let count = self.get(instruction, 2, Width::Byte)? & 31;
        if count == 0 {
            return Ok(());
        }
        if width != Width::Dword {
            return Err(self.unknown());
        }
        let first = self.get(instruction, 0, width)?;
        let second = self.get(instruction, 1, width)?;
        let (result, carry) = if instruction.opcode() == Opcode::SHLD {
            let wide = u64::from(first) << 32 | u64::from(second);
            ((wide << count >> 32) as u32, first >> (32 - count) & 1)
        } else {
            let wide = u64::from(second) << 32 | u64::from(first);
            ((wide >> count) as u32, first >> (count - 1) & 1)
        };
        self.set(instruction, 0, width, result)?;
        let overflow = alu::flag((first ^ result) & width.sign() != 0, OF);
        let flags = alu::flag(carry != 0, CF) | overflow | alu::of_result(result, width);
        self.set_flags(STATUS, flags);
        Ok(())
    }

    pub(super) fn bit_test(&mut self, instruction: &Instruction) -> Result<(), Trouble> {
        let width = self.width(instruction, 0)?;
        let in_memory = instruction.operand(0).is_memory();
        // A register's bit may be outside of the operand in memory: not interpreted.
        if in_memory && immediate(instruction, 1).is_none() {
            return Err(self.unknown());
        }
        let bit = self.get(instruction, 1, width)? % width.bits();
        let value = self.get(instruction, 0, width)?;
        let mask = 1 << bit;
        let result = match instruction.opcode() {
            Opcode::BTS => value | mask,
            Opcode::BTR => value & !mask,
            Opcode::BTC => value ^ mask,
            _ => value,
        };
        if instruction.opcode() != Opcode::BT {
            self.set(instruction, 0, width, result)?;
        }
        self.set_flags(CF, alu::flag(value & mask != 0, CF));
        Ok(())
    }

    /// Does MUL and the three forms of IMUL.
    pub(super) fn multiply(&mut self, instruction: &Instruction) -> Result<(), Trouble> {
        let width = self.width(instruction, 0)?;
        let signed = instruction.opcode() == Opcode::IMUL;
        let extend = |value: u32| {
            if signed && value & width.sign() != 0 {
                i64::from((value | !width.mask()).cast_signed())
            } else {
                i64::from(value)
            }
        };
        let forms = instruction.operand_count();
        let (a, b) = match forms {
            1 => (
                self.cpu.register(0, width),
                self.get(instruction, 0, width)?,
            ),
            2 => (
                self.get(instruction, 0, width)?,
                self.get(instruction, 1, width)?,
            ),
            _ => (
                self.get(instruction, 1, width)?,
                self.get(instruction, 2, width)?,
            ),
        };
        let product = if signed {
            extend(a).wrapping_mul(extend(b)).cast_unsigned()
        } else {
            u64::from(a).wrapping_mul(b.into())
        };
        let low = product as u32 & width.mask();
        let high = (product >> width.bits()) as u32 & width.mask();
        if forms == 1 {
            if width == Width::Byte {
                self.cpu.set_register(0, Width::Word, high << 8 | low);
            } else {
                self.cpu.set_register(0, width, low);
                self.cpu.set_register(EDX as u8, width, high);
            }
        } else {
            self.set(instruction, 0, width, low)?;
        }
        let fits = if signed {
            extend(low).cast_unsigned() == product
        } else {
            high == 0
        };
        self.set_flags(CF | OF, alu::flag(!fits, CF | OF));
        Ok(())
    }

    pub(super) fn divide(&mut self, instruction: &Instruction) -> Result<(), Trouble> {
        let width = self.width(instruction, 0)?;
        let by = self.get(instruction, 0, width)?;
        let bits = width.bits();
        let (high, low) = if width == Width::Byte {
            let value = self.cpu.register(0, Width::Word);
            (value >> 8, value & 0xff)
        } else {
            let high = self.cpu.register(EDX as u8, width);
            (high, self.cpu.register(0, width))
        };
        let wide = u64::from(high) << bits | u64::from(low);
        let trouble = Trouble::Divide { eip: self.start };
        let (quotient, rest) = if instruction.opcode() == Opcode::IDIV {
            // Both extended by their sign.
            let unused = 64 - 2 * bits;
            let wide = (wide << unused).cast_signed() >> unused;
            let by = (u64::from(by) << (64 - bits)).cast_signed() >> (64 - bits);
            let quotient = wide.checked_div(by).ok_or(trouble)?;
            let shortened = (quotient.cast_unsigned() << (64 - bits)).cast_signed() >> (64 - bits);
            if shortened != quotient {
                return Err(trouble);
            }
            (quotient as u32, wide.wrapping_rem(by) as u32)
        } else {
            let quotient = wide.checked_div(by.into()).ok_or(trouble)?;
            if quotient > width.mask().into() {
                return Err(trouble);
            }
            (quotient as u32, (wide % u64::from(by)) as u32)
        };
        if width == Width::Byte {
            let both = (rest & 0xff) << 8 | quotient & 0xff;
            self.cpu.set_register(0, Width::Word, both);
        } else {
            self.cpu.set_register(0, width, quotient);
            self.cpu.set_register(EDX as u8, width, rest);
        }
        Ok(())
    }
}
