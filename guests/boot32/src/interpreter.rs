//! One instruction after another (SDM vol. 2).

mod arithmetic;
mod system;

use core::fmt;

use spec::rewrite::{POPF, PUSHF, REWRITTEN_POPF, REWRITTEN_PUSHF};
use yaxpeax_x86::protected_mode::{
    ConditionCode, InstDecoder, Instruction, Opcode, Operand, register_class,
};

use crate::alu::{self, CF, DF, OF, SF, STATUS, Shift, ZF};
use crate::cpu::{Cpu, EAX, EBP, EBX, ECX, EDX, EFER_LMA, EFER_LME, ESP};
use crate::operands::{address, immediate, special, width};
use crate::{Machine, Width};

/// Longest instruction in bytes.
pub const LONGEST: usize = 15;
/// The far jump to an address in the instruction, which the decoder does not know.
const FAR_JUMP: u8 = 0xea;
const FAR_JUMP_LENGTH: u8 = 7;
/// Interrupt flag.
const IF: u32 = 1 << 9;
/// What POPF and IRET change at privilege level 0 and an interpreter can honour.
const POPPED: u32 = STATUS | DF | IF;
const EFER: u32 = 0xc000_0080;
/// Bits of EFER that are there: SCE, LME, NXE.
const EFER_KNOWN: u64 = 1 << 0 | EFER_LME | 1 << 11;

/// Why the image's entry code cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// An instruction that is not interpreted.
    Instruction {
        /// Its address.
        eip: u32,
        /// Bytes from there on.
        bytes: [u8; LONGEST],
        /// How many of them are its own, or can be read.
        length: u8,
    },
    /// An access to what is not the image's memory.
    Memory {
        /// The instruction's address.
        eip: u32,
        /// The address that it uses.
        address: u32,
    },
    /// A selector of the image's descriptor table that is no flat segment.
    Selector {
        /// The instruction's address.
        eip: u32,
        /// The selector.
        selector: u16,
    },
    /// A control register or MSR with a value that leads elsewhere than to long mode.
    Mode {
        /// The instruction's address.
        eip: u32,
    },
    /// A division by 0, or with too large a result.
    Divide {
        /// The instruction's address.
        eip: u32,
    },
    /// It halted: 32-bit code is not interrupted.
    Halt {
        /// The instruction's address.
        eip: u32,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Instruction { eip, bytes, length } => {
                write!(f, "instruction")?;
                for byte in &bytes[..usize::from(length)] {
                    write!(f, " {byte:02x}")?;
                }
                write!(f, " at {eip:#x} is not interpreted")
            }
            Self::Memory { eip, address } => {
                write!(
                    f,
                    "code at {eip:#x} reaches {address:#x}, which is not its memory"
                )
            }
            Self::Selector { eip, selector } => write!(
                f,
                "code at {eip:#x} loads selector {selector:#x}, which is no flat segment"
            ),
            Self::Mode { eip } => write!(
                f,
                "code at {eip:#x} enters a mode that is not long mode, or leaves protected mode"
            ),
            Self::Divide { eip } => write!(f, "code at {eip:#x} divides by zero or overflows"),
            Self::Halt { eip } => write!(f, "code at {eip:#x} halts before long mode"),
        }
    }
}

/// Code of which mode follows an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// 32-bit code.
    Next,
    /// 64-bit code: EIP and CS are its.
    Long,
}

/// The CPU with the machine around it.
#[derive(Debug)]
pub struct Interpreter<'m, M> {
    /// The registers.
    pub cpu: Cpu,
    pub(crate) machine: &'m mut M,
    /// The build tool has rewritten instructions of the image ([`spec::rewrite`]).
    rewritten: bool,
    /// Address of the current instruction, and its bytes.
    start: u32,
    bytes: [u8; LONGEST],
    length: u8,
}

impl<'m, M: Machine> Interpreter<'m, M> {
    /// Creates an interpreter that begins at `cpu.eip`. If the image was rewritten
    /// ([`spec::rewrite`]), what stands for an instruction is that.
    pub const fn new(cpu: Cpu, rewritten: bool, machine: &'m mut M) -> Self {
        Self {
            cpu,
            machine,
            rewritten,
            start: 0,
            bytes: [0; LONGEST],
            length: 0,
        }
    }

    /// Runs at most `steps` instructions. Returns whether 64-bit code is next.
    ///
    /// # Errors
    /// If the code does what cannot be interpreted.
    pub fn run(&mut self, steps: u64) -> Result<bool, Trouble> {
        for _ in 0..steps {
            if self.step()? == Step::Long {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Runs one instruction, or one element of a repeated string instruction.
    ///
    /// # Errors
    /// See [`Trouble`]; the registers are then of no use.
    pub fn step(&mut self) -> Result<Step, Trouble> {
        use yaxpeax_arch::LengthedInstruction as _;
        self.start = self.cpu.eip;
        self.bytes = [0; LONGEST];
        self.length = 0;
        for (index, byte) in (0..).zip(&mut self.bytes) {
            let Some(value) = self
                .machine
                .read(self.start.wrapping_add(index), Width::Byte)
            else {
                break;
            };
            *byte = value as u8;
            self.length += 1;
        }
        if self.length == 0 {
            return Err(self.no_memory(self.start));
        }
        if self.length >= FAR_JUMP_LENGTH && self.bytes[0] == FAR_JUMP {
            let [_, a, b, c, d, low, high, ..] = self.bytes;
            self.length = FAR_JUMP_LENGTH;
            let selector = u16::from_le_bytes([low, high]);
            return self.enter(selector, u32::from_le_bytes([a, b, c, d]));
        }
        // In 32-bit code these are PUSH ES and POP ES. Code that has both kinds gets the
        // flags pushed and popped for the selector, which is flat either way.
        match self.bytes[0] {
            REWRITTEN_PUSHF if self.rewritten => self.bytes[0] = PUSHF,
            REWRITTEN_POPF if self.rewritten => self.bytes[0] = POPF,
            _ => {}
        }
        let decoded = InstDecoder::default().decode_slice(&self.bytes[..usize::from(self.length)]);
        let Ok(instruction) = decoded else {
            return Err(self.unknown());
        };
        self.length = instruction.len().to_const() as u8;
        self.cpu.eip = self.start.wrapping_add(self.length.into());
        self.execute(&instruction)
    }

    /// Returns the trouble of an instruction that is not interpreted.
    pub(crate) const fn unknown(&self) -> Trouble {
        Trouble::Instruction {
            eip: self.start,
            bytes: self.bytes,
            length: self.length,
        }
    }

    pub(crate) const fn no_memory(&self, address: u32) -> Trouble {
        Trouble::Memory {
            eip: self.start,
            address,
        }
    }

    const fn mode(&self) -> Trouble {
        Trouble::Mode { eip: self.start }
    }

    /// Lets the current instruction be run again.
    pub(crate) const fn repeat(&mut self) {
        self.cpu.eip = self.start;
    }

    fn width(&self, instruction: &Instruction, index: u8) -> Result<Width, Trouble> {
        width(instruction, index).ok_or_else(|| self.unknown())
    }

    /// Returns the bytes that a push or a far transfer has on the stack.
    fn stack_width(instruction: &Instruction) -> Width {
        if instruction.prefixes.operand_size() {
            Width::Word
        } else {
            Width::Dword
        }
    }

    pub(crate) const fn set_flags(&mut self, mask: u32, flags: u32) {
        self.cpu.eflags = self.cpu.eflags & !mask | flags & mask;
    }

    fn push(&mut self, width: Width, value: u32) -> Result<(), Trouble> {
        let top = self.cpu.gpr[ESP].wrapping_sub(width.bytes());
        self.store(top, width, value)?;
        self.cpu.gpr[ESP] = top;
        Ok(())
    }

    fn pop(&mut self, width: Width) -> Result<u32, Trouble> {
        let value = self.load(self.cpu.gpr[ESP], width)?;
        self.cpu.gpr[ESP] = self.cpu.gpr[ESP].wrapping_add(width.bytes());
        Ok(value)
    }

    fn holds(&self, condition: ConditionCode) -> bool {
        let set = |flag| self.cpu.eflags & flag != 0;
        let less = set(SF) != set(OF);
        match condition {
            ConditionCode::O => set(OF),
            ConditionCode::NO => !set(OF),
            ConditionCode::B => set(CF),
            ConditionCode::AE => !set(CF),
            ConditionCode::Z => set(ZF),
            ConditionCode::NZ => !set(ZF),
            ConditionCode::BE => set(CF) || set(ZF),
            ConditionCode::A => !set(CF) && !set(ZF),
            ConditionCode::S => set(SF),
            ConditionCode::NS => !set(SF),
            ConditionCode::P => set(alu::PF),
            ConditionCode::NP => !set(alu::PF),
            ConditionCode::L => less,
            ConditionCode::GE => !less,
            ConditionCode::LE => set(ZF) || less,
            ConditionCode::G => !set(ZF) && !less,
        }
    }

    /// Goes to a near target: relative, or in a register or memory.
    fn target(&mut self, instruction: &Instruction) -> Result<u32, Trouble> {
        if instruction.prefixes.operand_size() {
            // It would cut EIP to 16 bits.
            return Err(self.unknown());
        }
        match immediate(instruction, 0) {
            Some(distance) => Ok(self.cpu.eip.wrapping_add(distance)),
            None => self.get(instruction, 0, Width::Dword),
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm an instruction")]
    fn execute(&mut self, instruction: &Instruction) -> Result<Step, Trouble> {
        let opcode = instruction.opcode();
        match opcode {
            Opcode::MOV => self.mov(instruction)?,
            Opcode::LEA => {
                let address = address(&self.cpu, instruction, 1);
                let address = address.ok_or_else(|| self.unknown())?;
                let width = self.width(instruction, 0)?;
                self.set(instruction, 0, width, address)?;
            }
            Opcode::MOVZX | Opcode::MOVSX => {
                let (to, from) = (self.width(instruction, 0)?, self.width(instruction, 1)?);
                let mut value = self.get(instruction, 1, from)?;
                if opcode == Opcode::MOVSX && value & from.sign() != 0 {
                    value |= !from.mask();
                }
                self.set(instruction, 0, to, value)?;
            }
            Opcode::XCHG => {
                let width = self.width(instruction, 0)?;
                let first = self.get(instruction, 0, width)?;
                let second = self.get(instruction, 1, width)?;
                self.set(instruction, 0, width, second)?;
                self.set(instruction, 1, width, first)?;
            }
            Opcode::XADD => {
                let width = self.width(instruction, 0)?;
                let first = self.get(instruction, 0, width)?;
                let second = self.get(instruction, 1, width)?;
                let (sum, flags) = alu::add(first, second, false, width);
                self.set(instruction, 1, width, first)?;
                self.set(instruction, 0, width, sum)?;
                self.set_flags(STATUS, flags);
            }
            Opcode::CMPXCHG => {
                let width = self.width(instruction, 0)?;
                let first = self.get(instruction, 0, width)?;
                let (_, flags) = alu::sub(self.cpu.register(0, width), first, false, width);
                if flags & ZF != 0 {
                    let second = self.get(instruction, 1, width)?;
                    self.set(instruction, 0, width, second)?;
                } else {
                    self.cpu.set_register(0, width, first);
                }
                self.set_flags(STATUS, flags);
            }
            Opcode::ADD
            | Opcode::ADC
            | Opcode::SUB
            | Opcode::SBB
            | Opcode::CMP
            | Opcode::AND
            | Opcode::OR
            | Opcode::XOR
            | Opcode::TEST => self.arithmetic(instruction)?,
            Opcode::INC | Opcode::DEC => {
                let width = self.width(instruction, 0)?;
                let value = self.get(instruction, 0, width)?;
                let (result, flags) = if opcode == Opcode::INC {
                    alu::add(value, 1, false, width)
                } else {
                    alu::sub(value, 1, false, width)
                };
                self.set(instruction, 0, width, result)?;
                self.set_flags(STATUS & !CF, flags);
            }
            Opcode::NEG | Opcode::NOT => {
                let width = self.width(instruction, 0)?;
                let value = self.get(instruction, 0, width)?;
                if opcode == Opcode::NOT {
                    self.set(instruction, 0, width, !value)?;
                } else {
                    let (result, flags) = alu::sub(0, value, false, width);
                    self.set(instruction, 0, width, result)?;
                    self.set_flags(STATUS, flags);
                }
            }
            Opcode::SHL => self.shift(instruction, Shift::Left)?,
            Opcode::SAL => self.shift(instruction, Shift::Left)?,
            Opcode::SHR => self.shift(instruction, Shift::Right)?,
            Opcode::SAR => self.shift(instruction, Shift::RightSigned)?,
            Opcode::ROL => self.shift(instruction, Shift::RotateLeft)?,
            Opcode::ROR => self.shift(instruction, Shift::RotateRight)?,
            Opcode::RCL => self.shift(instruction, Shift::CarryLeft)?,
            Opcode::RCR => self.shift(instruction, Shift::CarryRight)?,
            Opcode::SHLD | Opcode::SHRD => self.double_shift(instruction)?,
            Opcode::MUL | Opcode::IMUL => self.multiply(instruction)?,
            Opcode::DIV | Opcode::IDIV => self.divide(instruction)?,
            Opcode::BT | Opcode::BTS | Opcode::BTR | Opcode::BTC => self.bit_test(instruction)?,
            Opcode::BSF | Opcode::BSR => {
                let width = self.width(instruction, 0)?;
                let value = self.get(instruction, 1, width)?;
                self.set_flags(ZF, alu::flag(value == 0, ZF));
                if value != 0 {
                    let index = if opcode == Opcode::BSF {
                        value.trailing_zeros()
                    } else {
                        31 - value.leading_zeros()
                    };
                    self.set(instruction, 0, width, index)?;
                }
            }
            Opcode::BSWAP => {
                let value = self.get(instruction, 0, Width::Dword)?;
                self.set(instruction, 0, Width::Dword, value.swap_bytes())?;
            }
            Opcode::CBW => {
                let value = self.cpu.register(0, Width::Byte) as u8;
                let value = i32::from(value.cast_signed()).cast_unsigned();
                self.cpu.set_register(0, Width::Word, value);
            }
            Opcode::CWDE => {
                let value = self.cpu.gpr[EAX] as u16;
                self.cpu.gpr[EAX] = i32::from(value.cast_signed()).cast_unsigned();
            }
            Opcode::CWD | Opcode::CDQ => {
                let width = Self::stack_width(instruction);
                let negative = self.cpu.register(0, width) & width.sign() != 0;
                let fill = if negative { u32::MAX } else { 0 };
                self.cpu.set_register(EDX as u8, width, fill);
            }
            Opcode::PUSH => self.push_operand(instruction)?,
            Opcode::POP => self.pop_operand(instruction)?,
            Opcode::PUSHA => {
                let width = Self::stack_width(instruction);
                let before = self.cpu;
                for index in 0..8 {
                    self.push(width, before.register(index, width))?;
                }
            }
            Opcode::POPA => {
                let width = Self::stack_width(instruction);
                for index in (0..8u8).rev() {
                    let value = self.pop(width)?;
                    if usize::from(index) != ESP {
                        self.cpu.set_register(index, width, value);
                    }
                }
            }
            Opcode::PUSHF => {
                let width = Self::stack_width(instruction);
                self.push(width, self.cpu.eflags)?;
            }
            Opcode::POPF => {
                let flags = self.pop(Self::stack_width(instruction))?;
                self.set_flags(POPPED, flags);
            }
            Opcode::LEAVE => {
                self.cpu.gpr[ESP] = self.cpu.gpr[EBP];
                self.cpu.gpr[EBP] = self.pop(Width::Dword)?;
            }
            Opcode::CALL => {
                let target = self.target(instruction)?;
                self.push(Width::Dword, self.cpu.eip)?;
                self.cpu.eip = target;
            }
            Opcode::JMP => self.cpu.eip = self.target(instruction)?,
            Opcode::RETURN => {
                if instruction.prefixes.operand_size() {
                    return Err(self.unknown());
                }
                self.cpu.eip = self.pop(Width::Dword)?;
                let extra = immediate(instruction, 0).unwrap_or(0) & 0xffff;
                self.cpu.gpr[ESP] = self.cpu.gpr[ESP].wrapping_add(extra);
            }
            Opcode::LOOP | Opcode::LOOPZ | Opcode::LOOPNZ | Opcode::JECXZ => {
                self.counted_jump(instruction)?;
            }
            Opcode::JMPF => return self.far_jump(instruction),
            Opcode::RETF => {
                let width = Self::stack_width(instruction);
                let eip = self.pop(width)?;
                let selector = self.pop(width)? as u16;
                let extra = immediate(instruction, 0).unwrap_or(0) & 0xffff;
                self.cpu.gpr[ESP] = self.cpu.gpr[ESP].wrapping_add(extra);
                return self.enter(selector, eip);
            }
            Opcode::IRET | Opcode::IRETD => {
                let width = Self::stack_width(instruction);
                let eip = self.pop(width)?;
                let selector = self.pop(width)? as u16;
                let flags = self.pop(width)?;
                self.set_flags(POPPED, flags);
                return self.enter(selector, eip);
            }
            Opcode::MOVS | Opcode::STOS | Opcode::LODS | Opcode::SCAS | Opcode::CMPS => {
                self.string(instruction)?;
            }
            Opcode::IN => {
                let width = self.width(instruction, 0)?;
                let port = self.port(instruction, 1);
                let value = self.machine.port_read(port, width);
                self.set(instruction, 0, width, value)?;
            }
            Opcode::OUT => {
                let width = self.width(instruction, 1)?;
                let port = self.port(instruction, 0);
                let value = self.get(instruction, 1, width)?;
                self.machine.port_write(port, width, value);
            }
            Opcode::CPUID => {
                let [a, b, c, d] = self.machine.cpuid(self.cpu.gpr[EAX], self.cpu.gpr[ECX]);
                self.cpu.gpr[EAX] = a;
                self.cpu.gpr[EBX] = b;
                self.cpu.gpr[ECX] = c;
                self.cpu.gpr[EDX] = d;
            }
            Opcode::RDTSC => {
                let tsc = self.machine.tsc();
                self.cpu.gpr[EAX] = tsc as u32;
                self.cpu.gpr[EDX] = (tsc >> 32) as u32;
            }
            Opcode::RDMSR if self.cpu.gpr[ECX] == EFER => {
                self.cpu.gpr[EAX] = self.cpu.efer as u32;
                self.cpu.gpr[EDX] = (self.cpu.efer >> 32) as u32;
            }
            Opcode::WRMSR if self.cpu.gpr[ECX] == EFER => {
                let value = u64::from(self.cpu.gpr[EDX]) << 32 | u64::from(self.cpu.gpr[EAX]);
                if value & !(EFER_KNOWN | EFER_LMA) != 0 {
                    return Err(self.mode());
                }
                self.cpu.efer = self.cpu.efer & EFER_LMA | value & EFER_KNOWN;
            }
            Opcode::LGDT => self.cpu.gdt = self.table(instruction)?,
            Opcode::LIDT => self.cpu.idt = self.table(instruction)?,
            Opcode::CLTS => self.cpu.cr0 &= !(1 << 3),
            Opcode::CLI => self.cpu.eflags &= !IF,
            Opcode::STI => self.cpu.eflags |= IF,
            Opcode::CLD => self.cpu.eflags &= !DF,
            Opcode::STD => self.cpu.eflags |= DF,
            Opcode::CLC => self.cpu.eflags &= !CF,
            Opcode::STC => self.cpu.eflags |= CF,
            Opcode::CMC => self.cpu.eflags ^= CF,
            Opcode::LAHF => self.cpu.set_register(4, Width::Byte, self.cpu.eflags),
            Opcode::SAHF => {
                let flags = self.cpu.register(4, Width::Byte);
                self.set_flags(STATUS & !OF, flags);
            }
            // The cache and the TLB need no care; the x87 FPU is as FNINIT leaves it.
            Opcode::NOP
            | Opcode::WBINVD
            | Opcode::INVD
            | Opcode::INVLPG
            | Opcode::FNINIT
            | Opcode::ENDBR32
            | Opcode::ENDBR64
            | Opcode::MFENCE
            | Opcode::LFENCE
            | Opcode::SFENCE => {}
            Opcode::HLT => return Err(Trouble::Halt { eip: self.start }),
            _ => {
                let Some(condition) = opcode.condition() else {
                    return Err(self.unknown());
                };
                self.conditional(instruction, condition)?;
            }
        }
        Ok(Step::Next)
    }

    fn conditional(
        &mut self,
        instruction: &Instruction,
        condition: ConditionCode,
    ) -> Result<(), Trouble> {
        let holds = self.holds(condition);
        let opcode = instruction.opcode();
        if opcode.is_jcc() {
            let target = self.target(instruction)?;
            if holds {
                self.cpu.eip = target;
            }
        } else if opcode.is_setcc() {
            self.set(instruction, 0, Width::Byte, holds.into())?;
        } else if opcode.is_cmovcc() {
            let width = self.width(instruction, 0)?;
            let value = self.get(instruction, 1, width)?;
            if holds {
                self.set(instruction, 0, width, value)?;
            }
        } else {
            return Err(self.unknown());
        }
        Ok(())
    }

    fn counted_jump(&mut self, instruction: &Instruction) -> Result<(), Trouble> {
        if instruction.prefixes.address_size() {
            return Err(self.unknown());
        }
        let target = self.target(instruction)?;
        let opcode = instruction.opcode();
        if opcode != Opcode::JECXZ {
            self.cpu.gpr[ECX] = self.cpu.gpr[ECX].wrapping_sub(1);
        }
        let (left, zero) = (self.cpu.gpr[ECX] != 0, self.cpu.eflags & ZF != 0);
        let jumps = match opcode {
            Opcode::LOOP => left,
            Opcode::LOOPZ => left && zero,
            Opcode::LOOPNZ => left && !zero,
            _ => !left,
        };
        if jumps {
            self.cpu.eip = target;
        }
        Ok(())
    }

    fn push_operand(&mut self, instruction: &Instruction) -> Result<(), Trouble> {
        let width = Self::stack_width(instruction);
        let value = match special(instruction, 0, register_class::S) {
            Some(number) => self.cpu.selectors[usize::from(number % 6)].into(),
            None => match immediate(instruction, 0) {
                Some(value) => value,
                None => self.get(instruction, 0, width)?,
            },
        };
        self.push(width, value)
    }

    fn pop_operand(&mut self, instruction: &Instruction) -> Result<(), Trouble> {
        let width = Self::stack_width(instruction);
        let value = self.pop(width)?;
        match special(instruction, 0, register_class::S) {
            Some(number) => self.load_segment(number, value as u16),
            None => self.set(instruction, 0, width, value),
        }
    }

    fn mov(&mut self, instruction: &Instruction) -> Result<(), Trouble> {
        if let Some(number) = special(instruction, 0, register_class::CR) {
            let value = self.get(instruction, 1, Width::Dword)?;
            return self.load_control(number, value);
        }
        if let Some(number) = special(instruction, 1, register_class::CR) {
            let value = match number {
                0 => self.cpu.cr0,
                2 => self.cpu.cr2,
                3 => self.cpu.cr3,
                4 => self.cpu.cr4,
                _ => return Err(self.unknown()),
            };
            return self.set(instruction, 0, Width::Dword, value);
        }
        if let Some(number) = special(instruction, 0, register_class::S) {
            let selector = self.get(instruction, 1, Width::Word)? as u16;
            return self.load_segment(number, selector);
        }
        if let Some(number) = special(instruction, 1, register_class::S) {
            let selector = self.cpu.selectors[usize::from(number % 6)];
            // Memory gets two bytes, a register all of its own.
            let width = match instruction.operand(0) {
                Operand::Register { reg } => Width::of(reg.width()),
                _ => Some(Width::Word),
            };
            let width = width.ok_or_else(|| self.unknown())?;
            return self.set(instruction, 0, width, selector.into());
        }
        let width = self.width(instruction, 0)?;
        let value = self.get(instruction, 1, width)?;
        self.set(instruction, 0, width, value)
    }
}

#[cfg(test)]
mod tests;
