//! The message that a device gets.

pub use channel::GuestMessage;

/// Where the local APICs listen (SDM vol. 3 section 11.11.1; the same in AMD's APIC).
const ADDRESS_BASE: u64 = 0xfee0_0000;

/// Vectors that seL4 gives to users: `v` of IRQControl_GetMSI is 0 to 107
/// (irq_user_min to irq_user_max in the kernel's plat/pc99/plat/machine.h).
pub const VECTORS: u8 = 108;
/// CPU vector of user vector 0: int_irq_user_min in the same file, above the
/// CPU's exceptions and 16 vectors kept for the legacy controllers.
const CPU_VECTOR_BASE: u32 = 0x30;

/// The message (address, data) that makes a device raise user vector `vector`:
/// local APIC 0, physical destination, fixed, edge.
#[must_use]
pub const fn host_message(vector: u8) -> (u64, u32) {
    (ADDRESS_BASE, CPU_VECTOR_BASE + vector as u32)
}

// The device puts a message's number into the low bits of its data: aligned
// user vectors must be aligned CPU vectors.
const _: () = assert!(CPU_VECTOR_BASE.is_multiple_of(1 << channel::irq_router::msi::MAX_LOG2));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m19_the_device_gets_our_vector() {
        assert_eq!(host_message(0), (0xfee0_0000, 0x30));
        assert_eq!(host_message(VECTORS - 1), (0xfee0_0000, 0x9b));
    }
}
