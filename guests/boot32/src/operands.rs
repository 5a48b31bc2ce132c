//! Operands of instructions: registers, memory, immediates.

use yaxpeax_x86::protected_mode::{Instruction, Operand, RegSpec, Segment, register_class};

use crate::cpu::Cpu;
use crate::interpreter::{Interpreter, Trouble};
use crate::{Machine, Width};

/// Returns the register or immediate width of an operand, or that of the memory access.
pub fn width(instruction: &Instruction, index: u8) -> Option<Width> {
    match instruction.operand(index) {
        Operand::Register { reg } => Width::of(reg.width()),
        Operand::ImmediateI8 { .. } | Operand::ImmediateU8 { .. } => Some(Width::Byte),
        Operand::ImmediateI16 { .. } | Operand::ImmediateU16 { .. } => Some(Width::Word),
        Operand::ImmediateI32 { .. } | Operand::ImmediateU32 { .. } => Some(Width::Dword),
        _ => Width::of(instruction.mem_size()?.bytes_size()?),
    }
}

/// Returns an immediate operand, sign-extended.
pub fn immediate(instruction: &Instruction, index: u8) -> Option<u32> {
    Some(match instruction.operand(index) {
        Operand::ImmediateI8 { imm } => i32::from(imm).cast_unsigned(),
        Operand::ImmediateI16 { imm } => i32::from(imm).cast_unsigned(),
        Operand::ImmediateI32 { imm } => imm.cast_unsigned(),
        Operand::ImmediateU8 { imm } => imm.into(),
        Operand::ImmediateU16 { imm } => imm.into(),
        Operand::ImmediateU32 { imm } => imm,
        _ => return None,
    })
}

/// Returns the register of an operand, if it is one of this class.
pub fn special(
    instruction: &Instruction,
    index: u8,
    class: yaxpeax_x86::protected_mode::RegisterClass,
) -> Option<u8> {
    match instruction.operand(index) {
        Operand::Register { reg } if reg.class() == class => Some(reg.num()),
        _ => None,
    }
}

/// Returns the address of a memory operand. All segments begin at 0.
pub fn address(cpu: &Cpu, instruction: &Instruction, index: u8) -> Option<u32> {
    let part = |reg: RegSpec| {
        let width = if reg.class() == register_class::W {
            Width::Word
        } else if reg.class() == register_class::D {
            Width::Dword
        } else {
            return None;
        };
        Some(cpu.register(reg.num(), width))
    };
    let scaled = |reg, scale: u8| Some(part(reg)?.wrapping_mul(scale.into()));
    let address = match instruction.operand(index) {
        Operand::AbsoluteU16 { addr } => addr.into(),
        Operand::AbsoluteU32 { addr } => addr,
        Operand::MemDeref { base } => part(base)?,
        Operand::Disp { base, disp } => part(base)?.wrapping_add_signed(disp),
        Operand::MemIndexScale { index, scale } => scaled(index, scale)?,
        Operand::MemIndexScaleDisp { index, scale, disp } => {
            scaled(index, scale)?.wrapping_add_signed(disp)
        }
        Operand::MemBaseIndexScale { base, index, scale } => {
            part(base)?.wrapping_add(scaled(index, scale)?)
        }
        Operand::MemBaseIndexScaleDisp {
            base,
            index,
            scale,
            disp,
        } => part(base)?
            .wrapping_add(scaled(index, scale)?)
            .wrapping_add_signed(disp),
        _ => return None,
    };
    if instruction.prefixes.address_size() {
        return Some(address & 0xffff);
    }
    // The bases of FS and GS are 64-bit code's to set.
    let segment = instruction.segment_override_for_op(index);
    (!matches!(segment, Some(Segment::FS | Segment::GS))).then_some(address)
}

impl<M: Machine> Interpreter<'_, M> {
    /// Reads memory.
    pub(crate) fn load(&mut self, address: u32, width: Width) -> Result<u32, Trouble> {
        let value = self.machine.read(address, width);
        value.ok_or_else(|| self.no_memory(address))
    }

    /// Writes memory.
    pub(crate) fn store(&mut self, address: u32, width: Width, value: u32) -> Result<(), Trouble> {
        let done = self.machine.write(address, width, value & width.mask());
        done.ok_or_else(|| self.no_memory(address))
    }

    /// Reads an operand of this width.
    pub(crate) fn get(
        &mut self,
        instruction: &Instruction,
        index: u8,
        width: Width,
    ) -> Result<u32, Trouble> {
        if let Operand::Register { reg } = instruction.operand(index) {
            if [register_class::B, register_class::W, register_class::D].contains(&reg.class()) {
                return Ok(self.cpu.register(reg.num(), width));
            }
        } else if let Some(value) = immediate(instruction, index) {
            return Ok(value & width.mask());
        } else if let Some(address) = address(&self.cpu, instruction, index) {
            return self.load(address, width);
        }
        Err(self.unknown())
    }

    /// Writes an operand of this width.
    pub(crate) fn set(
        &mut self,
        instruction: &Instruction,
        index: u8,
        width: Width,
        value: u32,
    ) -> Result<(), Trouble> {
        if let Operand::Register { reg } = instruction.operand(index) {
            if [register_class::B, register_class::W, register_class::D].contains(&reg.class()) {
                self.cpu.set_register(reg.num(), width, value);
                return Ok(());
            }
        } else if let Some(address) = address(&self.cpu, instruction, index) {
            return self.store(address, width, value);
        }
        Err(self.unknown())
    }
}
