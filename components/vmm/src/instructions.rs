//! Instructions that ring 3 executes otherwise than ring 0, or raises #UD for.

use crate::cpu::Cpu;
use crate::decode::Op;
use crate::host::GuestMemory;
use crate::registers::{RCX, RSP, Trapped, is_canonical};

/// #UD.
const INVALID_OPCODE: u8 = 6;
/// #GP.
const REFUSED: u8 = 13;
/// CR4: XGETBV and XSETBV are there.
const CR4_OSXSAVE: u64 = 1 << 18;
/// XCR0: x87, and that with SSE and AVX state.
const XCR0_X87: u64 = 1;
const XCR0_ALL: u64 = 7;

/// Carries out such an instruction.
///
/// # Errors
/// Returns the vector of its exception, with error code 0: #UD if it is none of them.
pub fn carry_out(
    op: Op,
    cpu: &mut Cpu,
    regs: &mut Trapped<'_>,
    host: &mut impl GuestMemory,
) -> Result<(), u8> {
    let stack = regs.get(RSP);
    match op {
        Op::PushFlags => {
            let top = stack.wrapping_sub(8);
            if !host.write_ram(top, &cpu.flags(regs).to_le_bytes()) {
                return Err(REFUSED);
            }
            regs.set(RSP, top);
        }
        Op::PopFlags => {
            cpu.set_flags(regs, host.read_word(stack).ok_or(REFUSED)?);
            regs.set(RSP, stack.wrapping_add(8));
        }
        // Whatever the guest's CR4 says: where the kernel has switched them on, ring 3 executes
        // them in each case, and the guest is to see the same.
        Op::ReadBase(to, gs) => to.write(regs, regs.base(gs)),
        Op::WriteBase(from, gs) => {
            let base = Some(from.read(regs)).filter(|&base| is_canonical(base));
            regs.set_base(gs, base.ok_or(REFUSED)?);
        }
        Op::Xgetbv | Op::Xsetbv if cpu.cr4 & CR4_OSXSAVE == 0 => return Err(INVALID_OPCODE),
        Op::Xgetbv if regs.get(RCX) as u32 == 0 => regs.set_edx_eax(cpu.xcr0),
        // Kept, although XSAVE and AVX themselves raise #UD in ring 3: the kernel does not
        // switch their state.
        Op::Xsetbv if regs.get(RCX) as u32 == 0 => {
            let value = regs.edx_eax();
            if value & !XCR0_ALL != 0 || value & XCR0_X87 == 0 {
                return Err(REFUSED);
            }
            cpu.xcr0 = value;
        }
        Op::Xgetbv | Op::Xsetbv => return Err(REFUSED),
        _ => return Err(INVALID_OPCODE),
    }
    Ok(())
}
