//! Arithmetic with its flags (SDM vol. 1 section 3.4.3.1 and appendix A).

use crate::Width;

/// Carry.
pub const CF: u32 = 1 << 0;
/// Parity of the low byte.
pub const PF: u32 = 1 << 2;
/// Carry out of the low four bits.
pub const AF: u32 = 1 << 4;
/// Zero.
pub const ZF: u32 = 1 << 6;
/// Sign.
pub const SF: u32 = 1 << 7;
/// Direction of string instructions.
pub const DF: u32 = 1 << 10;
/// Overflow.
pub const OF: u32 = 1 << 11;
/// The flags that arithmetic changes.
pub const STATUS: u32 = CF | PF | AF | ZF | SF | OF;

/// Returns `flag` if `set`.
pub const fn flag(set: bool, flag: u32) -> u32 {
    if set { flag } else { 0 }
}

/// Returns the flags of a result: zero, sign and parity.
pub const fn of_result(result: u32, width: Width) -> u32 {
    flag(result & width.mask() == 0, ZF)
        | flag(result & width.sign() != 0, SF)
        | flag((result as u8).count_ones().is_multiple_of(2), PF)
}

/// Returns a sum, and its flags.
pub const fn add(a: u32, b: u32, carry: bool, width: Width) -> (u32, u32) {
    let sum = a as u64 + b as u64 + carry as u64;
    let result = sum as u32 & width.mask();
    let flags = flag(sum >> width.bits() != 0, CF)
        | flag((a ^ b ^ result) & 0x10 != 0, AF)
        | flag((a ^ result) & (b ^ result) & width.sign() != 0, OF);
    (result, flags | of_result(result, width))
}

/// Returns a difference, and its flags.
pub const fn sub(a: u32, b: u32, borrow: bool, width: Width) -> (u32, u32) {
    let result = a.wrapping_sub(b).wrapping_sub(borrow as u32) & width.mask();
    let flags = flag((a as u64) < b as u64 + borrow as u64, CF)
        | flag((a ^ b ^ result) & 0x10 != 0, AF)
        | flag((a ^ b) & (a ^ result) & width.sign() != 0, OF);
    (result, flags | of_result(result, width))
}

/// A shift or rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// To the left.
    Left,
    /// To the right, with zeros.
    Right,
    /// To the right, with the sign.
    RightSigned,
    /// Rotation to the left.
    RotateLeft,
    /// Rotation to the right.
    RotateRight,
    /// Rotation to the left through carry.
    CarryLeft,
    /// Rotation to the right through carry.
    CarryRight,
}

/// Returns a value shifted, and all flags. A count of 0, of the 5 bits that count, changes
/// nothing.
pub fn shift(kind: Shift, value: u32, count: u32, flags: u32, width: Width) -> (u32, u32) {
    let count = count & 31;
    if count == 0 {
        return (value, flags);
    }
    let (bits, sign) = (width.bits(), width.sign());
    let mut result = value;
    let mut carry = flags & CF != 0;
    for _ in 0..count {
        let (low, high) = (result & 1 != 0, result & sign != 0);
        let (next, out) = match kind {
            Shift::Left => (result << 1, high),
            Shift::Right => (result >> 1, low),
            Shift::RightSigned => (result >> 1 | result & sign, low),
            Shift::RotateLeft => (result << 1 | u32::from(high), high),
            Shift::RotateRight => (result >> 1 | u32::from(low) << (bits - 1), low),
            Shift::CarryLeft => (result << 1 | u32::from(carry), high),
            Shift::CarryRight => (result >> 1 | u32::from(carry) << (bits - 1), low),
        };
        result = next & width.mask();
        carry = out;
    }
    // Defined for a count of 1 only; a CPU does the same for others.
    let overflow = match kind {
        Shift::Left | Shift::RotateLeft | Shift::CarryLeft => (result & sign != 0) != carry,
        Shift::Right => value & sign != 0,
        Shift::RightSigned => false,
        Shift::RotateRight | Shift::CarryRight => (result & sign != 0) != (result << 1 & sign != 0),
    };
    let changed = flag(carry, CF) | flag(overflow, OF);
    let flags = match kind {
        Shift::Left | Shift::Right | Shift::RightSigned => {
            flags & !STATUS | changed | of_result(result, width)
        }
        _ => flags & !(CF | OF) | changed,
    };
    (result, flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_their_flags() {
        for (a, b, carry, width, result, flags) in [
            (1, 2, false, Width::Dword, 3, PF),
            (0xffff_ffff, 1, false, Width::Dword, 0, CF | PF | AF | ZF),
            (
                0x7fff_ffff,
                1,
                false,
                Width::Dword,
                0x8000_0000,
                PF | AF | SF | OF,
            ),
            (0xff, 0, true, Width::Byte, 0, CF | PF | AF | ZF),
            (0x80, 0x80, false, Width::Byte, 0, CF | PF | ZF | OF),
            (0xffff, 0xffff, true, Width::Word, 0xffff, CF | PF | AF | SF),
        ] {
            assert_eq!(add(a, b, carry, width), (result, flags), "{a:#x} {b:#x}");
        }
    }

    #[test]
    fn differences_and_their_flags() {
        for (a, b, borrow, width, result, flags) in [
            (3, 3, false, Width::Dword, 0, PF | ZF),
            (0, 1, false, Width::Dword, 0xffff_ffff, CF | PF | AF | SF),
            (0x8000, 1, false, Width::Word, 0x7fff, PF | AF | OF),
            (0, 0xff, true, Width::Byte, 0, CF | PF | AF | ZF),
            (5, 4, true, Width::Byte, 0, PF | ZF),
        ] {
            assert_eq!(sub(a, b, borrow, width), (result, flags), "{a:#x} {b:#x}");
        }
    }

    #[test]
    fn shifts_and_rotations() {
        let shifted = |kind, value, count, width| shift(kind, value, count, 0, width).0;
        for (kind, value, count, width, result) in [
            (Shift::Left, 0x8000_0001, 1, Width::Dword, 2),
            (Shift::Left, 1, 33, Width::Dword, 2),
            (Shift::Right, 0x80, 7, Width::Byte, 1),
            (Shift::RightSigned, 0x80, 7, Width::Byte, 0xff),
            (Shift::RotateLeft, 0x8001, 4, Width::Word, 0x18),
            (Shift::RotateRight, 0x8001, 4, Width::Word, 0x1800),
            (Shift::CarryLeft, 0x80, 2, Width::Byte, 1),
            (Shift::CarryRight, 0x01, 2, Width::Byte, 0x80),
        ] {
            assert_eq!(
                shifted(kind, value, count, width),
                result,
                "{kind:?} {value:#x}"
            );
        }
        assert_eq!(shift(Shift::Left, 1, 32, STATUS, Width::Dword), (1, STATUS));
        // Rotations leave zero, sign and parity.
        let (_, flags) = shift(Shift::RotateLeft, 0, 1, ZF | CF, Width::Dword);
        assert_eq!(flags, ZF);
        let (_, flags) = shift(Shift::Left, 0xc000_0000, 1, 0, Width::Dword);
        assert_eq!(flags, CF | SF | PF);
    }
}
