//! Instructions of ring 0 on the virtual CPU's registers, and those that ring 3 executes
//! otherwise.

use crate::cpu::Cpu;
use crate::decode::{Register, Source};
use crate::descriptors::{self, Exception, Segment};
use crate::host::GuestMemory;
use crate::registers::{RCX, RSP, Registers, is_canonical};

/// What an instruction raises, or nothing.
pub type Done = Result<(), Exception>;

const REFUSED: Exception = Exception::general_protection(0);
const INVALID_OPCODE: Exception = Exception { vector: 6, code: 0 };
/// #SS: the stack is not in RAM.
const NO_STACK: Exception = Exception {
    vector: 12,
    code: 0,
};
/// CR4: XGETBV and XSETBV are there.
const CR4_OSXSAVE: u64 = 1 << 18;
/// XCR0: x87, SSE and AVX state.
const XCR0_X87: u64 = 1;
const XCR0_SSE: u64 = 2;
const XCR0_AVX: u64 = 4;

/// Pushes the flags with the guest's own interrupt flag.
pub fn push_flags(cpu: &Cpu, regs: &mut Registers, host: &mut impl GuestMemory) -> Done {
    let top = regs.gpr[RSP].wrapping_sub(8);
    let word = cpu.flags(regs).to_le_bytes();
    if !host.write_ram(top, &word) {
        return Err(NO_STACK);
    }
    regs.gpr[RSP] = top;
    Ok(())
}

/// Pops the flags, of which the interrupt flag is the virtual CPU's.
pub fn pop_flags(cpu: &mut Cpu, regs: &mut Registers, host: &mut impl GuestMemory) -> Done {
    let top = regs.gpr[RSP];
    let mut word = [0; 8];
    if !host.read_ram(top, &mut word) {
        return Err(NO_STACK);
    }
    cpu.set_flags(regs, u64::from_le_bytes(word));
    regs.gpr[RSP] = top.wrapping_add(8);
    Ok(())
}

/// Sets the base of FS, or of GS.
pub fn write_base(from: Register, gs: bool, regs: &mut Registers) -> Done {
    let value = from.read(regs);
    if !is_canonical(value) {
        return Err(REFUSED);
    }
    if gs {
        regs.gs_base = value;
    } else {
        regs.fs_base = value;
    }
    Ok(())
}

/// Reads XCR0, if the guest has switched that on.
pub fn read_xcr(cpu: &Cpu, regs: &mut Registers) -> Done {
    if cpu.cr4 & CR4_OSXSAVE == 0 {
        return Err(INVALID_OPCODE);
    }
    if regs.gpr[RCX] as u32 != 0 {
        return Err(REFUSED);
    }
    regs.set_edx_eax(cpu.xcr0);
    Ok(())
}

/// Writes XCR0: kept, although XSAVE and AVX themselves raise #UD in ring 3, since the
/// kernel does not switch their state.
pub fn write_xcr(cpu: &mut Cpu, regs: &Registers) -> Done {
    if cpu.cr4 & CR4_OSXSAVE == 0 {
        return Err(INVALID_OPCODE);
    }
    let value = regs.edx_eax();
    let unknown = value & !(XCR0_X87 | XCR0_SSE | XCR0_AVX) != 0 || value & XCR0_X87 == 0;
    let alone = value & (XCR0_SSE | XCR0_AVX) == XCR0_AVX;
    if regs.gpr[RCX] as u32 != 0 || unknown || alone {
        return Err(REFUSED);
    }
    cpu.xcr0 = value;
    Ok(())
}

/// Loads a register that holds a selector.
pub fn load_segment(
    segment: Segment,
    source: Source,
    cpu: &mut Cpu,
    regs: &mut Registers,
    host: &mut impl GuestMemory,
) -> Done {
    let stack = regs.gpr[RSP];
    let selector = match source {
        Source::Register(register) => register.read(regs) as u16,
        Source::Memory(_) | Source::Stack => {
            let address = if let Source::Memory(address) = source {
                address
            } else {
                stack
            };
            let mut bytes = [0; 2];
            if !host.read_ram(address, &mut bytes) {
                return Err(REFUSED);
            }
            u16::from_le_bytes(bytes)
        }
    };
    descriptors::load(segment, selector, cpu, regs, host)?;
    if source == Source::Stack {
        regs.gpr[RSP] = stack.wrapping_add(8);
    }
    Ok(())
}
