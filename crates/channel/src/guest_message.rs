//! The message of a guest's interrupt: what irq-router routes by, and msix checks.

use spec::MESSAGES;

/// Vectors below 16 are illegal for a local APIC (SDM vol. 3 section 11.5.2).
const FIRST_VECTOR: u8 = 0x10;

/// A guest's message, taken apart (SDM vol. 3 section 11.11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestMessage {
    /// Vector: 16 to 255 if a local APIC takes it.
    pub vector: u8,
    /// Destination field, address bits 19:12.
    pub destination: u8,
    /// Delivery mode, data bits 10:8.
    pub delivery_mode: u8,
    /// Level-triggered, data bit 15.
    pub level: bool,
    /// Logical destination mode, address bit 2.
    pub logical: bool,
}

impl GuestMessage {
    /// Takes a message apart, whether or not a local APIC takes it.
    #[must_use]
    pub const fn split(address: u64, data: u32) -> Self {
        Self {
            vector: data as u8,
            destination: (address >> 12) as u8,
            delivery_mode: (data >> 8 & 7) as u8,
            level: data >> 15 & 1 == 1,
            logical: address >> 2 & 1 == 1,
        }
    }

    /// Takes a message apart; `None` for one that no local APIC takes (M17).
    #[must_use]
    pub const fn parse(address: u64, data: u32) -> Option<Self> {
        let message = Self::split(address, data);
        let reserved_mode = matches!(message.delivery_mode, 3 | 6);
        if address < MESSAGES.start
            || address >= MESSAGES.end
            || reserved_mode
            || message.vector < FIRST_VECTOR
        {
            return None;
        }
        Some(message)
    }

    /// Returns the message in bits 20:0 of a word.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.vector as u64
            | (self.destination as u64) << 8
            | (self.delivery_mode as u64 & 7) << 16
            | (self.level as u64) << 19
            | (self.logical as u64) << 20
    }

    /// Returns the message in bits 20:0 of a word; the other bits do not count.
    #[must_use]
    pub const fn from_bits(word: u64) -> Self {
        Self {
            vector: word as u8,
            destination: (word >> 8) as u8,
            delivery_mode: (word >> 16 & 7) as u8,
            level: word >> 19 & 1 == 1,
            logical: word >> 20 & 1 == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn m17_refuses_what_no_apic_takes() {
        for (address, data) in [
            (0xfedf_fffc, 0x30),
            (0xfef0_0000, 0x30),
            (0x1_fee0_0000, 0x30),
            (0, 0x30),
            (0xfee0_0000, 0x0f),
            (0xfee0_0000, 0x330),
            (0xfee0_0000, 0x630),
        ] {
            assert_eq!(
                GuestMessage::parse(address, data),
                None,
                "{address:#x} {data:#x}"
            );
        }
    }

    #[test]
    fn m17_accepts_the_edges() {
        for (address, data) in [(0xfee0_0000, 0x10), (0xfeef_fffc, 0x47ff)] {
            assert!(GuestMessage::parse(address, data).is_some());
        }
    }

    #[test]
    fn a_message_comes_apart_by_field() {
        assert_eq!(
            GuestMessage::parse(0xfee3_f004, 0x8141),
            Some(GuestMessage {
                vector: 0x41,
                destination: 0x3f,
                delivery_mode: 1,
                level: true,
                logical: true,
            })
        );
    }
}
