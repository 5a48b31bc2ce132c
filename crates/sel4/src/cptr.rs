//! Addresses of capabilities.

use sel4_sys::WORD_BITS;

/// The bits of a capability's address.
pub type CPtrBits = u64;

/// The address of a capability in a thread's CSpace, resolved to full depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CPtr(CPtrBits);

impl CPtr {
    /// Returns the address with these bits.
    pub const fn from_bits(bits: CPtrBits) -> Self {
        CPtr(bits)
    }

    /// Returns its bits.
    pub const fn bits(self) -> CPtrBits {
        self.0
    }
}

/// A capability's address and how many of its bits to resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CPtrWithDepth {
    bits: CPtrBits,
    depth: u8,
}

impl CPtrWithDepth {
    /// Returns the address `bits`, of which the low `depth` are resolved (0 to
    /// 64). A larger depth than 64 counts as 64.
    pub const fn from_bits_with_depth(bits: CPtrBits, depth: usize) -> Self {
        let depth = if depth > WORD_BITS { WORD_BITS } else { depth };
        CPtrWithDepth {
            bits,
            depth: depth as u8,
        }
    }

    /// Returns the bits of the address.
    pub const fn bits(self) -> CPtrBits {
        self.bits
    }

    /// Returns how many bits are resolved.
    pub const fn depth(self) -> usize {
        self.depth as usize
    }

    pub(crate) const fn depth_u8(self) -> u8 {
        self.depth
    }
}

impl From<CPtr> for CPtrWithDepth {
    fn from(cptr: CPtr) -> Self {
        CPtrWithDepth::from_bits_with_depth(cptr.bits(), WORD_BITS)
    }
}
