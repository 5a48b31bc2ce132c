//! Walks the capability list (PCI Local Bus 3.0 section 6.7).

use crate::{ConfigSpace, regs};

/// Capabilities that fit between the header and the end of the 256 bytes, one
/// every 4 bytes: also the bound of the walk.
pub const MAX_CAPABILITIES: usize = (256 - 64) / 4;

/// One capability of the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// Its ID, for example [`regs::CAP_MSIX`].
    pub id: u8,
    /// Where it starts: 0x40 to 0xfc, a multiple of 4.
    pub offset: u16,
}

/// The capabilities of a function in the order of its list, latched: whoever
/// works on them never follows the device's pointers again (C6).
#[derive(Clone, Copy, Debug)]
pub struct CapabilityList {
    items: [Capability; MAX_CAPABILITIES],
    length: usize,
}

impl CapabilityList {
    /// A list without a capability.
    pub const EMPTY: Self = Self {
        items: [Capability { id: 0, offset: 0 }; MAX_CAPABILITIES],
        length: 0,
    };

    /// Reads the list once. The low two bits of each pointer are ignored; a
    /// pointer into the header, or back to an earlier one, ends the list.
    pub fn read(space: &mut impl ConfigSpace) -> Self {
        let mut list = Self::EMPTY;
        let status = space.read32(regs::COMMAND) >> 16;
        if status & u32::from(regs::STATUS_CAPABILITIES) == 0 {
            return list;
        }
        let mut pointer = space.read32(regs::CAPABILITIES) & 0xfc;
        while pointer >= 0x40 && list.length < MAX_CAPABILITIES {
            let offset = pointer as u16;
            if list.as_slice().iter().any(|c| c.offset == offset) {
                break;
            }
            let header = space.read32(offset);
            list.items[list.length] = Capability {
                id: header as u8,
                offset,
            };
            list.length += 1;
            pointer = header >> 8 & 0xfc;
        }
        list
    }

    /// Returns the capabilities in list order.
    #[must_use]
    pub fn as_slice(&self) -> &[Capability] {
        &self.items[..self.length]
    }

    /// Returns the offset of the first capability with this id.
    #[must_use]
    pub fn find(&self, id: u8) -> Option<u16> {
        self.as_slice()
            .iter()
            .find(|c| c.id == id)
            .map(|c| c.offset)
    }
}
