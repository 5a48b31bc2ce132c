//! What the bits of a badge mean, in notification words and in what calls carry.
//!
//! The two lowest bits are the timer's and the calls'. What is above them is each
//! component's own; in a vmm's word they are slots, as many as the kernel's badges have
//! room for.

/// Badge bit of the timer in a client's notification word.
pub const BADGE_TIMER: u64 = 1 << 0;
/// Badge bit of every endpoint capability and of no notification's: tells a
/// call or fault from a slot of the notification word.
pub const BADGE_CALL: u64 = 1 << 1;
/// Bits below a word's own.
const COMMON: u32 = 2;
/// Badge bit of the console's notification that says: there are log records.
pub const BADGE_DOORBELL: u64 = 1 << COMMON;
/// Badge bit of a component's first interrupt in its notification word; the
/// others follow.
pub const BADGE_FIRST_IRQ: u64 = BADGE_DOORBELL << 1;
/// Badge bit of guest 0 in the notification words of pci-config and iommu: the
/// guest is gone, its functions are to be quiesced. The other guests follow, up to the
/// width of the narrowest badge.
pub const BADGE_GUEST_GONE: u64 = 1 << 8;
/// Slots of one guest on the kernel with the widest badges: what has a place for each
/// slot has so many, and [`slots`] says how many are used.
pub const SLOTS: usize = slots(u64::BITS);

/// Returns how many slots one guest can have on a kernel whose badges have so many bits:
/// bits of the vmm's notification word, each of which can stand for an interrupt source.
#[must_use]
pub const fn slots(badge_bits: u32) -> usize {
    let bits = if badge_bits < u64::BITS {
        badge_bits
    } else {
        u64::BITS
    };
    bits.saturating_sub(COMMON) as usize
}

/// Returns the badge of a slot, which is below [`SLOTS`].
#[must_use]
pub const fn slot_badge(slot: u8) -> u64 {
    1 << (COMMON + slot as u32)
}

/// Returns the slots that a notification word names, a bit each.
#[must_use]
pub const fn slots_of(word: u64) -> u64 {
    word >> COMMON
}

/// Returns the badge of the calls with this number.
#[must_use]
pub const fn call_badge(number: u64) -> u64 {
    BADGE_CALL | number << COMMON
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_has_a_bit_of_its_own() {
        for (badge_bits, expected) in [(28, 26), (63, 61), (64, 62), (128, 62), (1, 0)] {
            let count = slots(badge_bits);
            assert_eq!(count, expected);
            let mut seen = BADGE_TIMER | BADGE_CALL;
            for slot in 0..count as u8 {
                let badge = slot_badge(slot);
                assert_eq!(seen & badge, 0, "slot {slot}");
                assert_eq!(slots_of(badge), 1 << slot);
                seen |= badge;
            }
            // All the badge's bits, and no other: a kernel would cut those off.
            if count > 0 {
                assert_eq!(seen, u64::MAX >> (u64::BITS - badge_bits.min(u64::BITS)));
            }
        }
    }

    #[test]
    fn what_all_words_have_is_no_slot() {
        assert_eq!(slots_of(BADGE_TIMER | BADGE_CALL), 0);
    }

    #[test]
    fn a_call_is_none_of_the_signals() {
        for number in 0..9 {
            let badge = call_badge(number);
            assert_eq!(badge & BADGE_CALL, BADGE_CALL);
            assert_eq!(badge & BADGE_TIMER, 0);
            assert_eq!(slots_of(badge), number);
        }
        // 28 bits: those of the bundled kernel's badges.
        const { assert!(BADGE_GUEST_GONE << (crate::GUESTS - 1) < 1 << 28) };
        let signals = BADGE_TIMER | BADGE_DOORBELL | BADGE_FIRST_IRQ | BADGE_GUEST_GONE;
        assert_eq!(signals.count_ones(), 4);
        assert_eq!(signals & BADGE_CALL, 0);
    }
}
