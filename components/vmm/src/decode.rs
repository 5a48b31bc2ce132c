//! Decodes guest instructions, by a library, into operations for the VMM.

use yaxpeax_x86::long_mode::{InstDecoder, Instruction, Opcode, Operand, RegSpec, register_class};

use crate::Registers;
use crate::descriptors::Segment;
use pci::Width;
use spec::rewrite::{
    BASE_PREFIX, POPF, PUSHF, REWRITTEN_BASE_PREFIX, REWRITTEN_POPF, REWRITTEN_PUSHF,
};

/// Longest instruction, SDM vol. 2 section 2.3.11.
pub const MAX_INSTRUCTION: usize = 15;

/// A general register, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// Index in [`Registers::gpr`].
    pub index: usize,
    /// How much of it.
    pub width: Width,
    /// The second byte (ah, ch, dh, bh).
    pub high: bool,
}

impl Register {
    fn new(spec: RegSpec) -> Option<Self> {
        let class = spec.class();
        let number = usize::from(spec.num());
        let (index, width, high) = match class {
            register_class::Q => (number, Width::Qword, false),
            register_class::D => (number, Width::Dword, false),
            register_class::W => (number, Width::Word, false),
            register_class::B if number >= 4 => (number - 4, Width::Byte, true),
            register_class::B | register_class::RB => (number, Width::Byte, false),
            _ => return None,
        };
        (index < 16).then_some(Self { index, width, high })
    }

    /// Returns its value, zero-extended.
    #[must_use]
    pub const fn read(self, regs: &Registers) -> u64 {
        let value = regs.gpr[self.index];
        let value = if self.high { value >> 8 } else { value };
        value & self.width.all_ones()
    }

    /// Sets it as the CPU does: a 32-bit write clears the upper half, a smaller
    /// one keeps the rest.
    pub const fn write(self, regs: &mut Registers, value: u64) {
        let old = regs.gpr[self.index];
        let shift = if self.high { 8 } else { 0 };
        regs.gpr[self.index] = match self.width {
            Width::Qword => value,
            Width::Dword => value & 0xffff_ffff,
            Width::Word | Width::Byte => {
                let mask = self.width.all_ones() << shift;
                old & !mask | (value << shift) & mask
            }
        };
    }
}

/// A source operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A register.
    Register(Register),
    /// An immediate, sign-extended.
    Immediate(u64),
}

impl Value {
    /// Returns its value for an operation of this width.
    #[must_use]
    pub const fn read(self, regs: &Registers, width: Width) -> u64 {
        match self {
            Self::Register(register) => register.read(regs),
            Self::Immediate(value) => value & width.all_ones(),
        }
    }
}

/// Where an instruction's port number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The instruction.
    Immediate(u8),
    /// dx.
    Dx,
}

/// Arithmetic on a memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alu {
    /// And, result stored.
    And,
    /// Or, result stored.
    Or,
    /// Exclusive or, result stored.
    Xor,
    /// Sum, result stored.
    Add,
    /// Difference, result stored.
    Sub,
    /// Difference, only flags.
    Cmp,
    /// And, only flags.
    Test,
}

/// An access to memory that no page is mapped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryOp {
    /// Load, zero-extended or sign-extended into `to`.
    Load {
        /// Destination.
        to: Register,
        /// Sign-extend.
        signed: bool,
    },
    /// Store.
    Store(Value),
    /// Exchange with a register.
    Exchange(Register),
    /// Arithmetic whose first operand is memory.
    AluMemory(Alu, Value),
    /// Arithmetic whose second operand is memory.
    AluRegister(Alu, Register),
}

/// Where a selector comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A register.
    Register(Register),
    /// Memory at this address.
    Memory(u64),
    /// The top of the stack, from which eight bytes are taken.
    Stack,
}

/// Operation of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Port input into al, ax or eax.
    In(Port, Width),
    /// Port output.
    Out(Port, Width),
    /// String port input or output: not offered.
    StringIo,
    /// cli.
    Cli,
    /// sti.
    Sti,
    /// hlt.
    Hlt,
    /// iretq.
    Iretq,
    /// lidt from memory at this address.
    Lidt(u64),
    /// lgdt from memory at this address.
    Lgdt(u64),
    /// A load of a register that holds a selector.
    SegmentLoad(Segment, Source),
    /// retfq.
    FarReturn,
    /// swapgs.
    SwapGs,
    /// xgetbv.
    Xgetbv,
    /// xsetbv.
    Xsetbv,
    /// pushfq.
    PushFlags,
    /// popfq.
    PopFlags,
    /// wrfsbase, or wrgsbase if the flag is set.
    WriteBase(Register, bool),
    /// rdmsr.
    Rdmsr,
    /// wrmsr.
    Wrmsr,
    /// A register from control register n.
    FromControl(Register, u8),
    /// Control register n from a register.
    ToControl(u8, Register),
    /// Cache and TLB maintenance, and the local descriptor table: nothing to do.
    Maintenance,
    /// int n.
    Interrupt(u8),
    /// A memory access of this width at this address.
    Memory {
        /// Guest address.
        address: u64,
        /// Bytes.
        width: Width,
        /// The operation on memory.
        op: MemoryOp,
    },
    /// Anything else.
    Other,
}

/// A decoded instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Its operation.
    pub op: Op,
    /// Bytes, 1 to 15.
    pub length: u64,
}

/// Decodes the instruction at the start of `bytes`, with the registers that it
/// is about to run with; `None` if the bytes are not an instruction.
#[must_use]
pub fn decode(bytes: &[u8], regs: &Registers) -> Option<Decoded> {
    use yaxpeax_arch::LengthedInstruction as _;
    let instruction = InstDecoder::default().decode_slice(bytes).ok()?;
    let length = instruction.len().to_const();
    let next = regs.rip.wrapping_add(length);
    // The library does not tell whether a far return has 64-bit operands, by REX.W.
    let op = operation(&instruction, regs, next)
        .filter(|op| *op != Op::FarReturn || bytes[0] & 0xf8 == 0x48)
        .unwrap_or(Op::Other);
    Some(Decoded { op, length })
}

/// Decodes what the build tool may have put in the place of an instruction
/// ([`spec::rewrite`]) as that instruction; `None` if it is not such.
#[must_use]
pub fn rewritten(bytes: &[u8], regs: &Registers) -> Option<Decoded> {
    let mut original = [0; MAX_INSTRUCTION];
    let original = &mut original[..bytes.len()];
    original.copy_from_slice(bytes);
    *original.first_mut()? = match *bytes.first()? {
        REWRITTEN_PUSHF => PUSHF,
        REWRITTEN_POPF => POPF,
        REWRITTEN_BASE_PREFIX => BASE_PREFIX,
        _ => return None,
    };
    decode(original, regs)
}

fn operation(instruction: &Instruction, regs: &Registers, next: u64) -> Option<Op> {
    let address = |index| effective_address(instruction, index, regs, next);
    Some(match instruction.opcode() {
        Opcode::IN => Op::In(port(instruction, 1)?, register(instruction, 0)?.width),
        Opcode::OUT => Op::Out(port(instruction, 0)?, register(instruction, 1)?.width),
        Opcode::INS | Opcode::OUTS => Op::StringIo,
        Opcode::CLI => Op::Cli,
        Opcode::STI => Op::Sti,
        Opcode::HLT => Op::Hlt,
        Opcode::IRETQ => Op::Iretq,
        Opcode::LIDT => Op::Lidt(address(0)?),
        Opcode::LGDT => Op::Lgdt(address(0)?),
        Opcode::LTR => Op::SegmentLoad(Segment::Task, source(instruction, 0, regs, next)?),
        Opcode::POP => Op::SegmentLoad(segment(instruction)?, Source::Stack),
        Opcode::RETF if !instruction.operand_present(0) => Op::FarReturn,
        Opcode::SWAPGS => Op::SwapGs,
        Opcode::XGETBV => Op::Xgetbv,
        Opcode::XSETBV => Op::Xsetbv,
        Opcode::PUSHF => Op::PushFlags,
        Opcode::POPF => Op::PopFlags,
        Opcode::WRFSBASE => Op::WriteBase(register(instruction, 0)?, false),
        Opcode::WRGSBASE => Op::WriteBase(register(instruction, 0)?, true),
        Opcode::RDMSR => Op::Rdmsr,
        Opcode::WRMSR => Op::Wrmsr,
        Opcode::LLDT | Opcode::WBINVD | Opcode::INVD | Opcode::INVLPG | Opcode::CLTS => {
            Op::Maintenance
        }
        Opcode::INT => match instruction.operand(0) {
            Operand::ImmediateU8 { imm } => Op::Interrupt(imm),
            Operand::ImmediateI8 { imm } => Op::Interrupt(imm.cast_unsigned()),
            _ => return None,
        },
        Opcode::MOV => match (instruction.operand(0), instruction.operand(1)) {
            (Operand::Register { reg }, _) if reg.class() == register_class::S => {
                Op::SegmentLoad(segment(instruction)?, source(instruction, 1, regs, next)?)
            }
            (Operand::Register { reg }, Operand::Register { reg: from })
                if reg.class() == register_class::CR =>
            {
                Op::ToControl(reg.num(), Register::new(from)?)
            }
            (Operand::Register { reg: to }, Operand::Register { reg })
                if reg.class() == register_class::CR =>
            {
                Op::FromControl(Register::new(to)?, reg.num())
            }
            _ => memory(instruction, regs, next)?,
        },
        _ => memory(instruction, regs, next)?,
    })
}

fn memory(instruction: &Instruction, regs: &Registers, next: u64) -> Option<Op> {
    let bytes = instruction.mem_size()?.bytes_size()?;
    let width = Width::from_bytes(u64::from(bytes))?;
    let opcode = instruction.opcode();
    let alu = match opcode {
        Opcode::AND => Some(Alu::And),
        Opcode::OR => Some(Alu::Or),
        Opcode::XOR => Some(Alu::Xor),
        Opcode::ADD => Some(Alu::Add),
        Opcode::SUB => Some(Alu::Sub),
        Opcode::CMP => Some(Alu::Cmp),
        Opcode::TEST => Some(Alu::Test),
        _ => None,
    };
    let first = effective_address(instruction, 0, regs, next);
    let (address, op) = match (first, opcode) {
        (Some(address), Opcode::MOV) => (address, MemoryOp::Store(value(instruction, 1)?)),
        (Some(address), Opcode::XCHG) => (address, MemoryOp::Exchange(register(instruction, 1)?)),
        (Some(address), _) => (address, MemoryOp::AluMemory(alu?, value(instruction, 1)?)),
        (None, _) => {
            let address = effective_address(instruction, 1, regs, next)?;
            let to = register(instruction, 0)?;
            let op = match opcode {
                Opcode::MOV | Opcode::MOVZX => MemoryOp::Load { to, signed: false },
                Opcode::MOVSX | Opcode::MOVSXD => MemoryOp::Load { to, signed: true },
                Opcode::XCHG => MemoryOp::Exchange(to),
                _ => MemoryOp::AluRegister(alu?, to),
            };
            (address, op)
        }
    };
    Some(Op::Memory { address, width, op })
}

/// Returns the segment register that an instruction loads; `None` for CS.
fn segment(instruction: &Instruction) -> Option<Segment> {
    match instruction.operand(0) {
        Operand::Register { reg } if reg.class() == register_class::S => match reg.num() {
            0 | 3 => Some(Segment::Data),
            2 => Some(Segment::Stack),
            4 => Some(Segment::Fs),
            5 => Some(Segment::Gs),
            _ => None,
        },
        _ => None,
    }
}

fn source(instruction: &Instruction, index: u8, regs: &Registers, next: u64) -> Option<Source> {
    match register(instruction, index) {
        Some(register) => Some(Source::Register(register)),
        None => effective_address(instruction, index, regs, next).map(Source::Memory),
    }
}

fn register(instruction: &Instruction, index: u8) -> Option<Register> {
    match operand(instruction, index)? {
        Operand::Register { reg } => Register::new(reg),
        _ => None,
    }
}

fn value(instruction: &Instruction, index: u8) -> Option<Value> {
    Some(match operand(instruction, index)? {
        Operand::Register { reg } => Value::Register(Register::new(reg)?),
        Operand::ImmediateI8 { imm } => Value::Immediate(i64::from(imm).cast_unsigned()),
        Operand::ImmediateI16 { imm } => Value::Immediate(i64::from(imm).cast_unsigned()),
        Operand::ImmediateI32 { imm } => Value::Immediate(i64::from(imm).cast_unsigned()),
        Operand::ImmediateI64 { imm } => Value::Immediate(imm.cast_unsigned()),
        Operand::ImmediateU8 { imm } => Value::Immediate(u64::from(imm)),
        Operand::ImmediateU16 { imm } => Value::Immediate(u64::from(imm)),
        Operand::ImmediateU32 { imm } => Value::Immediate(u64::from(imm)),
        Operand::ImmediateU64 { imm } => Value::Immediate(imm),
        _ => return None,
    })
}

fn port(instruction: &Instruction, index: u8) -> Option<Port> {
    Some(match operand(instruction, index)? {
        Operand::ImmediateU8 { imm } => Port::Immediate(imm),
        Operand::ImmediateI8 { imm } => Port::Immediate(imm.cast_unsigned()),
        Operand::Register { .. } => Port::Dx,
        _ => return None,
    })
}

fn operand(instruction: &Instruction, index: u8) -> Option<Operand> {
    instruction
        .operand_present(index)
        .then(|| instruction.operand(index))
}

/// Returns the address of a memory operand.
fn effective_address(
    instruction: &Instruction,
    index: u8,
    regs: &Registers,
    next: u64,
) -> Option<u64> {
    use yaxpeax_x86::long_mode::Segment;
    let operand = operand(instruction, index)?;
    let segment = match instruction.segment_override_for_op(index) {
        Some(Segment::FS) => regs.fs_base,
        Some(Segment::GS) => regs.gs_base,
        _ => 0,
    };
    let base = |spec: RegSpec| match spec.class() {
        register_class::RIP => Some(next),
        register_class::Q | register_class::D => Register::new(spec).map(|r| r.read(regs)),
        _ => None,
    };
    let scaled = |spec, scale: u8| Some(base(spec)?.wrapping_mul(u64::from(scale)));
    let plus = |a: u64, disp: i32| a.wrapping_add_signed(i64::from(disp));
    let offset = match operand {
        Operand::AbsoluteU32 { addr } => u64::from(addr),
        Operand::AbsoluteU64 { addr } => addr,
        Operand::MemDeref { base: b } => base(b)?,
        Operand::Disp { base: b, disp } => plus(base(b)?, disp),
        Operand::MemIndexScale { index, scale } => scaled(index, scale)?,
        Operand::MemIndexScaleDisp { index, scale, disp } => plus(scaled(index, scale)?, disp),
        Operand::MemBaseIndexScale {
            base: b,
            index,
            scale,
        } => base(b)?.wrapping_add(scaled(index, scale)?),
        Operand::MemBaseIndexScaleDisp {
            base: b,
            index,
            scale,
            disp,
        } => plus(base(b)?.wrapping_add(scaled(index, scale)?), disp),
        _ => return None,
    };
    Some(segment.wrapping_add(offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registers::{RAX, RCX};

    fn op(bytes: &[u8], regs: &Registers) -> Op {
        let decoded = decode(bytes, regs).expect("an instruction");
        assert_eq!(decoded.length, bytes.len() as u64);
        decoded.op
    }

    fn gpr(index: usize, width: Width) -> Register {
        Register {
            index,
            width,
            high: false,
        }
    }

    #[test]
    fn port_instructions() {
        let regs = Registers::default();
        assert_eq!(
            op(&[0xe4, 0x71], &regs),
            Op::In(Port::Immediate(0x71), Width::Byte)
        );
        assert_eq!(op(&[0xed], &regs), Op::In(Port::Dx, Width::Dword));
        assert_eq!(op(&[0x66, 0xef], &regs), Op::Out(Port::Dx, Width::Word));
        assert_eq!(
            op(&[0xe6, 0xf4], &regs),
            Op::Out(Port::Immediate(0xf4), Width::Byte)
        );
        assert_eq!(op(&[0xf3, 0x6e], &regs), Op::StringIo);
    }

    #[test]
    fn privileged_instructions() {
        let regs = Registers::default();
        assert_eq!(op(&[0xfa], &regs), Op::Cli);
        assert_eq!(op(&[0xfb], &regs), Op::Sti);
        assert_eq!(op(&[0xf4], &regs), Op::Hlt);
        assert_eq!(op(&[0x48, 0xcf], &regs), Op::Iretq);
        assert_eq!(op(&[0x0f, 0x32], &regs), Op::Rdmsr);
        assert_eq!(op(&[0x0f, 0x30], &regs), Op::Wrmsr);
        assert_eq!(op(&[0xcd, 0x80], &regs), Op::Interrupt(0x80));
        assert_eq!(
            op(&[0x0f, 0x22, 0xd8], &regs),
            Op::ToControl(3, gpr(RAX, Width::Qword))
        );
        assert_eq!(
            op(&[0x0f, 0x20, 0xc1], &regs),
            Op::FromControl(gpr(RCX, Width::Qword), 0)
        );
        assert_eq!(op(&[0x0f, 0x01, 0xc0], &regs), Op::Other);
        assert_eq!(op(&[0x90], &regs), Op::Other);
    }

    #[test]
    fn lidt_takes_its_operand_s_address() {
        let mut regs = Registers::default();
        regs.gpr[RAX] = 0x1000;
        assert_eq!(op(&[0x0f, 0x01, 0x58, 0x08], &regs), Op::Lidt(0x1008));
        regs.rip = 0x4000;
        // lidt [rip + 0x10], seven bytes
        assert_eq!(
            op(&[0x0f, 0x01, 0x1d, 0x10, 0, 0, 0], &regs),
            Op::Lidt(0x4017)
        );
    }

    #[test]
    fn memory_instructions() {
        let mut regs = Registers::default();
        regs.gpr[RAX] = 0xfee0_0000;
        regs.gpr[RCX] = 2;
        let load = |to, signed| MemoryOp::Load { to, signed };
        let memory = |address, width, op| Op::Memory { address, width, op };
        // mov ecx, [rax + 0x20]
        assert_eq!(
            op(&[0x8b, 0x48, 0x20], &regs),
            memory(
                0xfee0_0020,
                Width::Dword,
                load(gpr(RCX, Width::Dword), false)
            )
        );
        // mov dword ptr [rax + 0xb0], 0
        assert_eq!(
            op(&[0xc7, 0x80, 0xb0, 0, 0, 0, 0, 0, 0, 0], &regs),
            memory(
                0xfee0_00b0,
                Width::Dword,
                MemoryOp::Store(Value::Immediate(0))
            )
        );
        // mov [rax + rcx*8], cl
        assert_eq!(
            op(&[0x88, 0x0c, 0xc8], &regs),
            memory(
                0xfee0_0010,
                Width::Byte,
                MemoryOp::Store(Value::Register(gpr(RCX, Width::Byte)))
            )
        );
        // movzx ecx, word ptr [rax]
        assert_eq!(
            op(&[0x0f, 0xb7, 0x08], &regs),
            memory(
                0xfee0_0000,
                Width::Word,
                load(gpr(RCX, Width::Dword), false)
            )
        );
        // movsx rcx, byte ptr [rax]
        assert_eq!(
            op(&[0x48, 0x0f, 0xbe, 0x08], &regs),
            memory(0xfee0_0000, Width::Byte, load(gpr(RCX, Width::Qword), true))
        );
        // test byte ptr [rax], 1
        assert_eq!(
            op(&[0xf6, 0x00, 0x01], &regs),
            memory(
                0xfee0_0000,
                Width::Byte,
                MemoryOp::AluMemory(Alu::Test, Value::Immediate(1))
            )
        );
        // and ecx, [rax]
        assert_eq!(
            op(&[0x23, 0x08], &regs),
            memory(
                0xfee0_0000,
                Width::Dword,
                MemoryOp::AluRegister(Alu::And, gpr(RCX, Width::Dword))
            )
        );
        // movups xmm0, [rax]: no width that an access has
        assert_eq!(op(&[0x0f, 0x10, 0x00], &regs), Op::Other);
    }

    #[test]
    fn parts_of_registers() {
        let mut regs = Registers::default();
        regs.gpr[RAX] = 0x1122_3344_5566_7788;
        let ah = Register {
            index: RAX,
            width: Width::Byte,
            high: true,
        };
        assert_eq!(ah.read(&regs), 0x77);
        ah.write(&mut regs, 0xff);
        assert_eq!(regs.gpr[RAX], 0x1122_3344_5566_ff88);
        gpr(RAX, Width::Word).write(&mut regs, 0x1_0001);
        assert_eq!(regs.gpr[RAX], 0x1122_3344_5566_0001);
        gpr(RAX, Width::Dword).write(&mut regs, 5);
        assert_eq!(regs.gpr[RAX], 5);
    }

    #[test]
    fn bytes_that_are_no_instruction() {
        let regs = Registers::default();
        assert_eq!(decode(&[], &regs), None);
        assert_eq!(decode(&[0x0f], &regs), None);
        assert_eq!(decode(&[0x06], &regs), None);
    }
}
