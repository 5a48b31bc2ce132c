//! Carries out an access to memory that no page is mapped for.

use crate::alu;
use crate::decode::MemoryOp;
use crate::registers::Trapped;
use pci::Width;

/// Target of the accesses.
pub trait Bus {
    /// Reads `width` bytes at a guest address.
    fn read(&mut self, address: u64, width: Width) -> u64;
    /// Writes `width` bytes at a guest address. The value may cost a read of the guest's
    /// registers: it is asked for only where it matters.
    fn write(&mut self, address: u64, width: Width, value: impl FnOnce() -> u64);
}

/// Does one instruction's memory access on `bus` and its effect on registers
/// and flags; rip stays.
pub fn access(
    regs: &mut Trapped<'_>,
    address: u64,
    width: Width,
    op: MemoryOp,
    bus: &mut impl Bus,
) {
    match op {
        MemoryOp::Load { to, signed } => {
            let value = bus.read(address, width) & width.all_ones();
            let value = if signed {
                let unused = 64 - 8 * width.bytes();
                ((value << unused).cast_signed() >> unused).cast_unsigned()
            } else {
                value
            };
            to.write(regs, value);
        }
        MemoryOp::Store(value) => bus.write(address, width, || value.read(regs, width)),
        MemoryOp::Exchange(register) => {
            let old = bus.read(address, width);
            bus.write(address, width, || register.read(regs));
            register.write(regs, old);
        }
        MemoryOp::AluMemory(op, value) => {
            let old = bus.read(address, width);
            let (result, flags) =
                alu::compute(op, old, value.read(regs, width), width, regs.rflags());
            regs.set_rflags(flags);
            if alu::stores(op) {
                bus.write(address, width, || result);
            }
        }
        MemoryOp::AluRegister(op, register) => {
            let value = bus.read(address, width);
            let (result, flags) =
                alu::compute(op, register.read(regs), value, width, regs.rflags());
            regs.set_rflags(flags);
            if alu::stores(op) {
                register.write(regs, result);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Alu, Register, Value};
    use crate::registers::{RAX, Registers};

    struct Cell(u64);

    impl Bus for Cell {
        fn read(&mut self, _: u64, _: Width) -> u64 {
            self.0
        }
        fn write(&mut self, _: u64, _: Width, value: impl FnOnce() -> u64) {
            self.0 = value();
        }
    }

    const EAX: Register = Register {
        index: RAX as u8,
        width: Width::Dword,
        high: false,
    };

    #[test]
    fn loads_extend() {
        let all = Registers::default();
        let mut regs = Trapped::new(&all, &[]);
        regs.set(RAX, u64::MAX);
        let load = |signed| MemoryOp::Load { to: EAX, signed };
        access(&mut regs, 0, Width::Byte, load(false), &mut Cell(0x80));
        assert_eq!(regs.get(RAX), 0x80);
        access(&mut regs, 0, Width::Byte, load(true), &mut Cell(0x80));
        assert_eq!(regs.get(RAX), 0xffff_ff80);
    }

    #[test]
    fn read_modify_write() {
        let all = Registers::default();
        let mut regs = Trapped::new(&all, &[]);
        let mut cell = Cell(0b1100);
        let op = MemoryOp::AluMemory(Alu::And, Value::Immediate(0b0110));
        access(&mut regs, 0, Width::Dword, op, &mut cell);
        assert_eq!(cell.0, 0b0100);
        regs.set(RAX, 7);
        access(
            &mut regs,
            0,
            Width::Dword,
            MemoryOp::Exchange(EAX),
            &mut cell,
        );
        assert_eq!((cell.0, regs.get(RAX)), (7, 4));
        let op = MemoryOp::AluRegister(Alu::Cmp, EAX);
        access(&mut regs, 0, Width::Dword, op, &mut cell);
        assert_eq!((cell.0, regs.get(RAX)), (7, 4));
    }
}
