//! Arithmetic on values that came over the bus, with the CPU's flags.

use crate::decode::Alu;
use pci::Width;

const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;

/// Computes `a op b`. Returns the result and the new flags (SDM vol. 1 section
/// 3.4.3.1); flags outside the six arithmetic ones are unchanged.
pub fn compute(op: Alu, a: u64, b: u64, width: Width, rflags: u64) -> (u64, u64) {
    let mask = width.all_ones();
    let sign = mask ^ (mask >> 1);
    let (a, b) = (a & mask, b & mask);
    let (result, carry, overflow) = match op {
        Alu::And | Alu::Test => (a & b, false, false),
        Alu::Or => (a | b, false, false),
        Alu::Xor => (a ^ b, false, false),
        Alu::Add => {
            let sum = a.wrapping_add(b) & mask;
            (sum, sum < a, (a ^ sum) & (b ^ sum) & sign != 0)
        }
        Alu::Sub | Alu::Cmp => {
            let difference = a.wrapping_sub(b) & mask;
            (difference, a < b, (a ^ b) & (a ^ difference) & sign != 0)
        }
    };
    let adjust = matches!(op, Alu::Add | Alu::Sub | Alu::Cmp) && (a ^ b ^ result) & 0x10 != 0;
    let mut flags = rflags & !(CF | PF | AF | ZF | SF | OF);
    let parity = (result as u8).count_ones().is_multiple_of(2);
    for (set, flag) in [
        (carry, CF),
        (parity, PF),
        (adjust, AF),
        (result == 0, ZF),
        (result & sign != 0, SF),
        (overflow, OF),
    ] {
        if set {
            flags |= flag;
        }
    }
    (result, flags)
}

/// Returns whether the result goes back to where the first operand came from.
pub const fn stores(op: Alu) -> bool {
    !matches!(op, Alu::Cmp | Alu::Test)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_follow_the_result() {
        let (result, flags) = compute(Alu::Add, 0xff, 1, Width::Byte, 0x202);
        assert_eq!((result, flags), (0, 0x202 | CF | ZF | AF | PF));
        let (result, flags) = compute(Alu::Add, 0x7f, 1, Width::Byte, 2);
        assert_eq!((result, flags), (0x80, 2 | SF | OF | AF));
        let (result, flags) = compute(Alu::Cmp, 1, 2, Width::Dword, 2);
        assert_eq!((result, flags), (0xffff_ffff, 2 | CF | SF | AF | PF));
        let (result, flags) = compute(Alu::Sub, 0x80, 1, Width::Byte, 2);
        assert_eq!((result, flags), (0x7f, 2 | OF | AF));
        let (_, flags) = compute(Alu::Test, 0xf0, 0x0f, Width::Dword, 2 | CF | OF);
        assert_eq!(flags, 2 | ZF | PF);
    }
}
