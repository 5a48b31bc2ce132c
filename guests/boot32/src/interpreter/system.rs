//! Control registers, descriptors and ports.

use yaxpeax_x86::protected_mode::Instruction;

use super::{Interpreter, Step, Trouble};
use crate::cpu::{CR0_PE, CR0_PG, CR4_PAE, CS, EDX, EFER_LMA, EFER_LME, SS, Table};
use crate::operands::{address, immediate};
use crate::{Machine, Width};

impl<M: Machine> Interpreter<'_, M> {
    /// Loads a control register. Paging is long mode's, with the tables of long mode.
    pub(super) fn load_control(&mut self, number: u8, value: u32) -> Result<(), Trouble> {
        match number {
            0 => {
                if value & CR0_PE == 0 {
                    return Err(self.mode());
                }
                if value & CR0_PG != 0 {
                    if self.cpu.efer & EFER_LME == 0 || self.cpu.cr4 & CR4_PAE == 0 {
                        return Err(self.mode());
                    }
                    self.cpu.efer |= EFER_LMA;
                } else {
                    self.cpu.efer &= !EFER_LMA;
                }
                self.cpu.cr0 = value;
            }
            2 => self.cpu.cr2 = value,
            3 => self.cpu.cr3 = value,
            4 => self.cpu.cr4 = value,
            _ => return Err(self.unknown()),
        }
        Ok(())
    }

    /// Returns the descriptor of a selector.
    pub(super) fn descriptor(&mut self, selector: u16) -> Result<u64, Trouble> {
        let trouble = Trouble::Selector {
            eip: self.start,
            selector,
        };
        let offset = u32::from(selector & !7);
        // Only the global table.
        if selector & 4 != 0 || offset + 7 > u32::from(self.cpu.gdt.limit) {
            return Err(trouble);
        }
        let at = self.cpu.gdt.base.wrapping_add(offset);
        let low = self.load(at, Width::Dword)?;
        let high = self.load(at.wrapping_add(4), Width::Dword)?;
        let descriptor = u64::from(high) << 32 | u64::from(low);
        // Present, code or data, base 0.
        let base = descriptor >> 16 & 0xff_ffff | descriptor >> 32 & 0xff00_0000;
        let usable = descriptor >> 47 & 1 == 1 && descriptor >> 44 & 1 == 1 && base == 0;
        if usable { Ok(descriptor) } else { Err(trouble) }
    }

    pub(super) fn load_segment(&mut self, number: u8, selector: u16) -> Result<(), Trouble> {
        let index = usize::from(number % 6);
        if index == CS {
            return Err(self.unknown());
        }
        // The null selector is for segments that are not used; the stack is.
        if selector & !3 != 0 || index == SS {
            self.descriptor(selector)?;
        }
        self.cpu.selectors[index] = selector;
        Ok(())
    }

    pub(super) fn far_jump(&mut self, instruction: &Instruction) -> Result<Step, Trouble> {
        let at = address(&self.cpu, instruction, 0).ok_or_else(|| self.unknown())?;
        let width = Self::stack_width(instruction);
        let eip = self.load(at, width)?;
        let selector = self.load(at.wrapping_add(width.bytes()), Width::Word)?;
        self.enter(selector as u16, eip)
    }

    /// Goes to code of another segment.
    pub(super) fn enter(&mut self, selector: u16, eip: u32) -> Result<Step, Trouble> {
        let descriptor = self.descriptor(selector)?;
        let code = descriptor >> 43 & 1 == 1;
        let (long, wide) = (descriptor >> 53 & 1 == 1, descriptor >> 54 & 1 == 1);
        let active = self.cpu.efer & EFER_LMA != 0;
        // 16-bit code, or long mode's before it is active.
        if !code || !(active && long && !wide || wide && !long) {
            return Err(Trouble::Selector {
                eip: self.start,
                selector,
            });
        }
        self.cpu.selectors[CS] = selector;
        self.cpu.eip = eip;
        Ok(if long { Step::Long } else { Step::Next })
    }

    pub(super) fn table(&mut self, instruction: &Instruction) -> Result<Table, Trouble> {
        let at = address(&self.cpu, instruction, 0).ok_or_else(|| self.unknown())?;
        Ok(Table {
            limit: self.load(at, Width::Word)? as u16,
            base: self.load(at.wrapping_add(2), Width::Dword)?,
        })
    }

    pub(super) fn port(&self, instruction: &Instruction, index: u8) -> u16 {
        match immediate(instruction, index) {
            Some(port) => (port & 0xff) as u16,
            None => self.cpu.gpr[EDX] as u16,
        }
    }
}
