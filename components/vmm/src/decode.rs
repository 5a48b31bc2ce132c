//! Decodes guest instructions, by a library, into operations for the VMM.

use yaxpeax_x86::long_mode::{InstDecoder, Instruction, Opcode, Operand, RegSpec, register_class};

use crate::Trapped;
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
    /// Index in [`Registers::gpr`](crate::Registers::gpr).
    pub index: u8,
    /// How much of it.
    pub width: Width,
    /// The second byte (ah, ch, dh, bh).
    pub high: bool,
}

impl Register {
    fn new(spec: RegSpec) -> Option<Self> {
        let class = spec.class();
        let number = spec.num();
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
    pub fn read(self, regs: &Trapped<'_>) -> u64 {
        let value = regs.get(self.index.into());
        let value = if self.high { value >> 8 } else { value };
        value & self.width.all_ones()
    }

    /// Sets it as the CPU does: a 32-bit write clears the upper half, a smaller
    /// one keeps the rest.
    pub fn write(self, regs: &mut Trapped<'_>, value: u64) {
        let shift = if self.high { 8 } else { 0 };
        let value = match self.width {
            Width::Qword => value,
            Width::Dword => value & 0xffff_ffff,
            Width::Word | Width::Byte => {
                let mask = self.width.all_ones() << shift;
                regs.get(self.index.into()) & !mask | (value << shift) & mask
            }
        };
        regs.set(self.index.into(), value);
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
    pub fn read(self, regs: &Trapped<'_>, width: Width) -> u64 {
        match self {
            Self::Register(register) => register.read(regs),
            Self::Immediate(value) => value & width.all_ones(),
        }
    }
}

/// Address of a memory operand: a sum of what the instruction says and of registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The base of FS, or of GS if it is true.
    pub segment: Option<bool>,
    /// A register.
    pub base: Option<Register>,
    /// A register times a number.
    pub index: Option<(Register, u8)>,
    /// A number, and the address of the next instruction where that is the base.
    pub displacement: u64,
}

impl Address {
    /// Returns it with these registers.
    #[must_use]
    pub fn of(self, regs: &Trapped<'_>) -> u64 {
        let segment = self.segment.map_or(0, |gs| regs.base(gs));
        let base = self.base.map_or(0, |base| base.read(regs));
        let scaled =
            |(index, scale): (Register, u8)| index.read(regs).wrapping_mul(u64::from(scale));
        let index = self.index.map_or(0, scaled);
        let sum = segment.wrapping_add(base).wrapping_add(index);
        sum.wrapping_add(self.displacement)
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
    Memory(Address),
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
    Lidt(Address),
    /// lgdt from memory at this address.
    Lgdt(Address),
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
    /// rdfsbase, or rdgsbase if the flag is set.
    ReadBase(Register, bool),
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
        address: Address,
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
    pub length: u8,
}

/// Decodes the instruction at the start of `bytes`, which lie at `rip`; `None` if the
/// bytes are not an instruction.
#[must_use]
pub fn decode(bytes: &[u8], rip: u64) -> Option<Decoded> {
    use yaxpeax_arch::LengthedInstruction as _;
    let instruction = InstDecoder::default().decode_slice(bytes).ok()?;
    let length = instruction.len().to_const();
    let next = rip.wrapping_add(length);
    // The library does not tell whether a far return has 64-bit operands, by REX.W.
    let op = operation(&instruction, next)
        .filter(|op| *op != Op::FarReturn || bytes[0] & 0xf8 == 0x48)
        .unwrap_or(Op::Other);
    Some(Decoded {
        op,
        length: length as u8,
    })
}

/// Decodes what the build tool may have put in the place of an instruction
/// ([`spec::rewrite`]) as that instruction; `None` if it is not such.
#[must_use]
pub fn rewritten(bytes: &[u8], rip: u64) -> Option<Decoded> {
    let mut original = [0; MAX_INSTRUCTION];
    let original = &mut original[..bytes.len()];
    original.copy_from_slice(bytes);
    *original.first_mut()? = match *bytes.first()? {
        REWRITTEN_PUSHF => PUSHF,
        REWRITTEN_POPF => POPF,
        REWRITTEN_BASE_PREFIX => BASE_PREFIX,
        _ => return None,
    };
    // Reading a base needs no trap, so that the tool leaves it as it is.
    decode(original, rip).filter(|decoded| !matches!(decoded.op, Op::ReadBase(..)))
}

fn operation(instruction: &Instruction, next: u64) -> Option<Op> {
    let address = |index| effective_address(instruction, index, next);
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
        Opcode::LTR => Op::SegmentLoad(Segment::Task, source(instruction, 0, next)?),
        Opcode::POP => Op::SegmentLoad(segment(instruction)?, Source::Stack),
        Opcode::RETF if !instruction.operand_present(0) => Op::FarReturn,
        Opcode::SWAPGS => Op::SwapGs,
        Opcode::XGETBV => Op::Xgetbv,
        Opcode::XSETBV => Op::Xsetbv,
        Opcode::PUSHF => Op::PushFlags,
        Opcode::POPF => Op::PopFlags,
        Opcode::RDFSBASE => Op::ReadBase(register(instruction, 0)?, false),
        Opcode::RDGSBASE => Op::ReadBase(register(instruction, 0)?, true),
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
                Op::SegmentLoad(segment(instruction)?, source(instruction, 1, next)?)
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
            _ => memory(instruction, next)?,
        },
        _ => memory(instruction, next)?,
    })
}

fn memory(instruction: &Instruction, next: u64) -> Option<Op> {
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
    let first = effective_address(instruction, 0, next);
    let (address, op) = match (first, opcode) {
        (Some(address), Opcode::MOV) => (address, MemoryOp::Store(value(instruction, 1)?)),
        (Some(address), Opcode::XCHG) => (address, MemoryOp::Exchange(register(instruction, 1)?)),
        (Some(address), _) => (address, MemoryOp::AluMemory(alu?, value(instruction, 1)?)),
        (None, _) => {
            let address = effective_address(instruction, 1, next)?;
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

fn source(instruction: &Instruction, index: u8, next: u64) -> Option<Source> {
    match register(instruction, index) {
        Some(register) => Some(Source::Register(register)),
        None => effective_address(instruction, index, next).map(Source::Memory),
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
fn effective_address(instruction: &Instruction, index: u8, next: u64) -> Option<Address> {
    use yaxpeax_x86::long_mode::Segment;
    let (base, scaled, disp) = match operand(instruction, index)? {
        Operand::AbsoluteU32 { addr } => (None, None, u64::from(addr)),
        Operand::AbsoluteU64 { addr } => (None, None, addr),
        Operand::MemDeref { base } => (Some(base), None, 0),
        Operand::Disp { base, disp } => (Some(base), None, extended(disp)),
        Operand::MemIndexScale { index, scale } => (None, Some((index, scale)), 0),
        Operand::MemIndexScaleDisp { index, scale, disp } => {
            (None, Some((index, scale)), extended(disp))
        }
        Operand::MemBaseIndexScale { base, index, scale } => (Some(base), Some((index, scale)), 0),
        Operand::MemBaseIndexScaleDisp {
            base,
            index,
            scale,
            disp,
        } => (Some(base), Some((index, scale)), extended(disp)),
        _ => return None,
    };
    let mut address = Address {
        segment: match instruction.segment_override_for_op(index) {
            Some(Segment::FS) => Some(false),
            Some(Segment::GS) => Some(true),
            _ => None,
        },
        displacement: disp,
        ..Address::default()
    };
    let register = |spec: RegSpec| match spec.class() {
        register_class::Q | register_class::D => Register::new(spec),
        _ => None,
    };
    match base {
        Some(spec) if spec.class() == register_class::RIP => {
            address.displacement = disp.wrapping_add(next);
        }
        Some(spec) => address.base = Some(register(spec)?),
        None => {}
    }
    if let Some((spec, scale)) = scaled {
        address.index = Some((register(spec)?, scale));
    }
    Some(address)
}

/// Returns a displacement, sign-extended.
fn extended(displacement: i32) -> u64 {
    i64::from(displacement).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registers::{RAX, RCX, Registers};

    const RIP: u64 = 0x4000;

    fn op(bytes: &[u8]) -> Op {
        let decoded = decode(bytes, RIP).expect("an instruction");
        assert_eq!(usize::from(decoded.length), bytes.len());
        decoded.op
    }

    fn at(base: usize, displacement: u64) -> Address {
        Address {
            base: Some(gpr(base, Width::Qword)),
            displacement,
            ..Address::default()
        }
    }

    fn gpr(index: usize, width: Width) -> Register {
        Register {
            index: index as u8,
            width,
            high: false,
        }
    }

    #[test]
    fn port_instructions() {
        assert_eq!(
            op(&[0xe4, 0x71]),
            Op::In(Port::Immediate(0x71), Width::Byte)
        );
        assert_eq!(op(&[0xed]), Op::In(Port::Dx, Width::Dword));
        assert_eq!(op(&[0x66, 0xef]), Op::Out(Port::Dx, Width::Word));
        assert_eq!(
            op(&[0xe6, 0xf4]),
            Op::Out(Port::Immediate(0xf4), Width::Byte)
        );
        assert_eq!(op(&[0xf3, 0x6e]), Op::StringIo);
    }

    #[test]
    fn privileged_instructions() {
        assert_eq!(op(&[0xfa]), Op::Cli);
        assert_eq!(op(&[0xfb]), Op::Sti);
        assert_eq!(op(&[0xf4]), Op::Hlt);
        assert_eq!(op(&[0x48, 0xcf]), Op::Iretq);
        assert_eq!(op(&[0x0f, 0x32]), Op::Rdmsr);
        assert_eq!(op(&[0x0f, 0x30]), Op::Wrmsr);
        assert_eq!(op(&[0xcd, 0x80]), Op::Interrupt(0x80));
        assert_eq!(
            op(&[0x0f, 0x22, 0xd8]),
            Op::ToControl(3, gpr(RAX, Width::Qword))
        );
        assert_eq!(
            op(&[0x0f, 0x20, 0xc1]),
            Op::FromControl(gpr(RCX, Width::Qword), 0)
        );
        assert_eq!(op(&[0x0f, 0x01, 0xc0]), Op::Other);
        assert_eq!(op(&[0x90]), Op::Other);
    }

    #[test]
    fn lidt_takes_its_operand_s_address() {
        assert_eq!(op(&[0x0f, 0x01, 0x58, 0x08]), Op::Lidt(at(RAX, 8)));
        // lidt [rip + 0x10], seven bytes
        assert_eq!(
            op(&[0x0f, 0x01, 0x1d, 0x10, 0, 0, 0]),
            Op::Lidt(Address {
                displacement: RIP + 0x17,
                ..Address::default()
            })
        );
    }

    #[test]
    fn memory_instructions() {
        let load = |to, signed| MemoryOp::Load { to, signed };
        let memory = |address, width, op| Op::Memory { address, width, op };
        // mov ecx, [rax + 0x20]
        assert_eq!(
            op(&[0x8b, 0x48, 0x20]),
            memory(
                at(RAX, 0x20),
                Width::Dword,
                load(gpr(RCX, Width::Dword), false)
            )
        );
        // mov dword ptr [rax + 0xb0], 0
        assert_eq!(
            op(&[0xc7, 0x80, 0xb0, 0, 0, 0, 0, 0, 0, 0]),
            memory(
                at(RAX, 0xb0),
                Width::Dword,
                MemoryOp::Store(Value::Immediate(0))
            )
        );
        // mov [rax + rcx*8], cl
        assert_eq!(
            op(&[0x88, 0x0c, 0xc8]),
            memory(
                Address {
                    index: Some((gpr(RCX, Width::Qword), 8)),
                    ..at(RAX, 0)
                },
                Width::Byte,
                MemoryOp::Store(Value::Register(gpr(RCX, Width::Byte)))
            )
        );
        // movzx ecx, word ptr [rax]
        assert_eq!(
            op(&[0x0f, 0xb7, 0x08]),
            memory(at(RAX, 0), Width::Word, load(gpr(RCX, Width::Dword), false))
        );
        // movsx rcx, byte ptr [rax]
        assert_eq!(
            op(&[0x48, 0x0f, 0xbe, 0x08]),
            memory(at(RAX, 0), Width::Byte, load(gpr(RCX, Width::Qword), true))
        );
        // test byte ptr [rax], 1
        assert_eq!(
            op(&[0xf6, 0x00, 0x01]),
            memory(
                at(RAX, 0),
                Width::Byte,
                MemoryOp::AluMemory(Alu::Test, Value::Immediate(1))
            )
        );
        // and ecx, [rax]
        assert_eq!(
            op(&[0x23, 0x08]),
            memory(
                at(RAX, 0),
                Width::Dword,
                MemoryOp::AluRegister(Alu::And, gpr(RCX, Width::Dword))
            )
        );
        // movups xmm0, [rax]: no width that an access has
        assert_eq!(op(&[0x0f, 0x10, 0x00]), Op::Other);
    }

    #[test]
    fn an_address_is_the_sum_of_its_parts() {
        let mut all = Registers {
            fs_base: 0x10_0000,
            gs_base: 0x20_0000,
            ..Registers::default()
        };
        all.gpr[RAX] = 0xffff_ffff_0000_1000;
        all.gpr[RCX] = 2;
        let regs = Trapped::new(&all, &[]);
        for (bytes, sum) in [
            // mov cl, [rax - 1], [eax], [rcx*8 + 0x100], [rip], fs:[rcx], gs:[rax + rcx*4]
            (&[0x8a, 0x48, 0xff][..], 0xffff_ffff_0000_0fff),
            (&[0x67, 0x8a, 0x08], 0x1000),
            (&[0x8a, 0x0c, 0xcd, 0, 1, 0, 0], 0x110),
            (&[0x8a, 0x0d, 0, 0, 0, 0], RIP + 6),
            (&[0x64, 0x8a, 0x09], 0x10_0002),
            (&[0x65, 0x8a, 0x0c, 0x88], 0xffff_ffff_0020_1008),
        ] {
            let Op::Memory { address, .. } = op(bytes) else {
                panic!("{bytes:x?}")
            };
            assert_eq!(address.of(&regs), sum, "{bytes:x?}");
        }
    }

    #[test]
    fn parts_of_registers() {
        let mut all = Registers::default();
        all.gpr[RAX] = 0x1122_3344_5566_7788;
        let mut regs = Trapped::new(&all, &[]);
        let ah = Register {
            index: RAX as u8,
            width: Width::Byte,
            high: true,
        };
        assert_eq!(ah.read(&regs), 0x77);
        ah.write(&mut regs, 0xff);
        assert_eq!(regs.get(RAX), 0x1122_3344_5566_ff88);
        gpr(RAX, Width::Word).write(&mut regs, 0x1_0001);
        assert_eq!(regs.get(RAX), 0x1122_3344_5566_0001);
        gpr(RAX, Width::Dword).write(&mut regs, 5);
        assert_eq!(regs.get(RAX), 5);
    }

    #[test]
    fn bytes_that_are_no_instruction() {
        assert_eq!(decode(&[], RIP), None);
        assert_eq!(decode(&[0x0f], RIP), None);
        assert_eq!(decode(&[0x06], RIP), None);
    }
}
