//! How a device interrupts the CPU: by a message to a local APIC.

use core::ops::Range;

/// User vectors, which are 0 to 107 in IRQControl_GetMSI (irq_user_min to
/// irq_user_max in the kernel's plat/pc99/plat/machine.h).
pub const VECTORS: u8 = 108;
/// CPU vector of user vector 0 (int_irq_user_min in the same file): above the
/// CPU's exceptions and the 16 vectors kept for the legacy controllers.
const CPU_VECTOR_BASE: u16 = 0x30;
/// Addresses at which the local APICs take messages (SDM vol. 3 section 11.11.1;
/// the same in AMD's APIC). No IOMMU translates them.
pub const MESSAGES: Range<u64> = 0xfee0_0000..0xfef0_0000;

const _: () = assert!(cpu_vector(VECTORS) <= 0x100);

/// Returns the CPU vector of a user vector. A number that is none gets one too
/// high, so that a dump can show it.
#[must_use]
pub const fn cpu_vector(vector: u8) -> u16 {
    CPU_VECTOR_BASE + vector as u16
}

/// Returns the message (address, data) by which a device raises user vector
/// `vector` where nothing remaps it: local APIC 0, physical destination, fixed,
/// edge-triggered.
#[must_use]
pub const fn host_message(vector: u8) -> (u64, u32) {
    (MESSAGES.start, cpu_vector(vector) as u32)
}

/// Returns the set of `count` user vectors from `first` on, a bit each.
#[must_use]
pub const fn vector_bits(first: u8, count: u8) -> u128 {
    ((1 << count) - 1) << first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m19_the_device_gets_our_vector() {
        assert_eq!(host_message(0), (0xfee0_0000, 0x30));
        assert_eq!(host_message(VECTORS - 1), (0xfee0_0000, 0x9b));
    }

    #[test]
    fn a_run_of_vectors_has_a_bit_each() {
        assert_eq!(vector_bits(4, 2), 0b11_0000);
        assert_eq!(vector_bits(VECTORS - 1, 1), 1 << 107);
    }
}
