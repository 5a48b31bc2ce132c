//! String instructions, one element at a time.

use yaxpeax_x86::protected_mode::{Instruction, Opcode};

use crate::alu::{self, DF, STATUS, ZF};
use crate::cpu::{ECX, EDI, ESI};
use crate::interpreter::{Interpreter, Trouble};
use crate::operands::width;
use crate::{Machine, Width};

impl<M: Machine> Interpreter<'_, M> {
    /// Does one element, and repeats the instruction while there are more.
    pub(crate) fn string(&mut self, instruction: &Instruction) -> Result<(), Trouble> {
        let prefixes = instruction.prefixes;
        // 16-bit addresses, and strings in FS and GS.
        if prefixes.address_size() || prefixes.fs() || prefixes.gs() {
            return Err(self.unknown());
        }
        let repeated = prefixes.rep_any();
        if repeated && self.cpu.gpr[ECX] == 0 {
            return Ok(());
        }
        let width = width(instruction, 0)
            .filter(|_| !instruction.operand(0).is_memory())
            .or_else(|| width(instruction, 1))
            .ok_or_else(|| self.unknown())?;
        let (source, destination) = (self.cpu.gpr[ESI], self.cpu.gpr[EDI]);
        let opcode = instruction.opcode();
        let (mut uses_source, mut uses_destination) = (true, true);
        let mut compared = None;
        match opcode {
            Opcode::MOVS => {
                let value = self.load(source, width)?;
                self.store(destination, width, value)?;
            }
            Opcode::STOS => {
                self.store(destination, width, self.cpu.register(0, width))?;
                uses_source = false;
            }
            Opcode::LODS => {
                let value = self.load(source, width)?;
                self.cpu.set_register(0, width, value);
                uses_destination = false;
            }
            Opcode::SCAS => {
                let value = self.load(destination, width)?;
                compared = Some((self.cpu.register(0, width), value));
                uses_source = false;
            }
            _ => {
                let first = self.load(source, width)?;
                compared = Some((first, self.load(destination, width)?));
            }
        }
        self.advance(ESI, width, uses_source);
        self.advance(EDI, width, uses_destination);
        if let Some((first, second)) = compared {
            let (_, flags) = alu::sub(first, second, false, width);
            self.set_flags(STATUS, flags);
        }
        if repeated {
            self.cpu.gpr[ECX] -= 1;
            let equal = self.cpu.eflags & ZF != 0;
            // REPNZ goes on while they differ; REP alone asks for nothing.
            let goes_on = compared.is_none() || equal != prefixes.repnz();
            if self.cpu.gpr[ECX] != 0 && goes_on {
                self.repeat();
            }
        }
        Ok(())
    }

    const fn advance(&mut self, register: usize, width: Width, used: bool) {
        let bytes = if used { width.bytes() } else { 0 };
        let at = self.cpu.gpr[register];
        self.cpu.gpr[register] = if self.cpu.eflags & DF == 0 {
            at.wrapping_add(bytes)
        } else {
            at.wrapping_sub(bytes)
        };
    }
}
