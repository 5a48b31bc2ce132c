//! Slots of CNodes, and moving capabilities between them.

use crate::cap::CNode;
use crate::ipc_buffer::invoke;
use crate::{CPtrBits, CPtrWithDepth, CapRights, Result, Word};

/// A slot: an address and the CNode from which it is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsoluteCPtr {
    root: CNode,
    path: CPtrWithDepth,
}

impl CNode {
    /// Returns the slot at `path` from this CNode.
    pub fn absolute_cptr(self, path: impl Into<CPtrWithDepth>) -> AbsoluteCPtr {
        AbsoluteCPtr::new(self, path.into())
    }

    /// Returns the slot at the low `depth` bits of `bits` from this CNode.
    pub const fn absolute_cptr_from_bits_with_depth(
        self,
        bits: CPtrBits,
        depth: usize,
    ) -> AbsoluteCPtr {
        AbsoluteCPtr::new(self, CPtrWithDepth::from_bits_with_depth(bits, depth))
    }

    /// Returns this CNode itself, as the destination of a retype.
    pub const fn absolute_cptr_for_self(self) -> AbsoluteCPtr {
        self.absolute_cptr_from_bits_with_depth(0, 0)
    }
}

impl AbsoluteCPtr {
    pub(crate) const fn new(root: CNode, path: CPtrWithDepth) -> Self {
        AbsoluteCPtr { root, path }
    }

    /// Returns the CNode from which the address is resolved.
    pub const fn root(&self) -> CNode {
        self.root
    }

    /// Returns the address.
    pub const fn path(&self) -> CPtrWithDepth {
        self.path
    }

    /// Deletes everything derived from the capability here.
    ///
    /// # Errors
    /// As the kernel has it; mostly [`FailedLookup`](crate::Error::FailedLookup).
    pub fn revoke(&self) -> Result<()> {
        let (bits, depth) = (self.path.bits(), self.path.depth_u8());
        invoke(|ipc| sel4_sys::cnode_revoke(ipc, self.root.bits(), bits, depth))
    }

    /// Deletes the capability here; no error if the slot is empty.
    ///
    /// # Errors
    /// As [`revoke`](Self::revoke).
    pub fn delete(&self) -> Result<()> {
        let (bits, depth) = (self.path.bits(), self.path.depth_u8());
        invoke(|ipc| sel4_sys::cnode_delete(ipc, self.root.bits(), bits, depth))
    }

    /// Copies the capability at `src` here, with at most these rights.
    ///
    /// # Errors
    /// [`DeleteFirst`](crate::Error::DeleteFirst) if this slot is taken, or as
    /// [`revoke`](Self::revoke).
    pub fn copy(&self, src: &AbsoluteCPtr, rights: CapRights) -> Result<()> {
        invoke(|ipc| {
            sel4_sys::cnode_copy(
                ipc,
                self.root.bits(),
                self.path.bits(),
                self.path.depth_u8(),
                src.root.bits(),
                src.path.bits(),
                src.path.depth_u8(),
                rights.inner(),
            )
        })
    }

    /// Copies as [`copy`](Self::copy) and sets the badge:
    /// [`BADGE_BITS`](crate::BADGE_BITS) for an endpoint or notification without one,
    /// [`CNodeCapData`] for a CNode.
    ///
    /// # Errors
    /// As [`copy`](Self::copy), and
    /// [`IllegalOperation`](crate::Error::IllegalOperation) if the capability
    /// cannot have this badge.
    pub fn mint(&self, src: &AbsoluteCPtr, rights: CapRights, badge: Word) -> Result<()> {
        invoke(|ipc| {
            sel4_sys::cnode_mint(
                ipc,
                self.root.bits(),
                self.path.bits(),
                self.path.depth_u8(),
                src.root.bits(),
                src.path.bits(),
                src.path.depth_u8(),
                rights.inner(),
                badge,
            )
        })
    }

    /// Moves the capability at `src` here.
    ///
    /// # Errors
    /// As [`copy`](Self::copy).
    pub fn move_(&self, src: &AbsoluteCPtr) -> Result<()> {
        invoke(|ipc| {
            sel4_sys::cnode_move_(
                ipc,
                self.root.bits(),
                self.path.bits(),
                self.path.depth_u8(),
                src.root.bits(),
                src.path.bits(),
                src.path.depth_u8(),
            )
        })
    }

    /// Moves the capability at `src` here and sets its badge, as
    /// [`mint`](Self::mint) does.
    ///
    /// # Errors
    /// As [`mint`](Self::mint).
    pub fn mutate(&self, src: &AbsoluteCPtr, badge: Word) -> Result<()> {
        invoke(|ipc| {
            sel4_sys::cnode_mutate(
                ipc,
                self.root.bits(),
                self.path.bits(),
                self.path.depth_u8(),
                src.root.bits(),
                src.path.bits(),
                src.path.depth_u8(),
                badge,
            )
        })
    }

    /// Moves the capability at `pivot` here and the one at `src` to `pivot`,
    /// with these badges (0 leaves a badge as it is).
    ///
    /// # Errors
    /// As [`mint`](Self::mint).
    pub fn rotate(
        &self,
        dest_badge: Word,
        pivot: &AbsoluteCPtr,
        pivot_badge: Word,
        src: &AbsoluteCPtr,
    ) -> Result<()> {
        invoke(|ipc| {
            sel4_sys::cnode_rotate(
                ipc,
                self.root.bits(),
                self.path.bits(),
                self.path.depth_u8(),
                dest_badge,
                pivot.root.bits(),
                pivot.path.bits(),
                pivot.path.depth_u8(),
                pivot_badge,
                src.root.bits(),
                src.path.bits(),
                src.path.depth_u8(),
            )
        })
    }

    /// Puts the capability to reply to the last caller here.
    ///
    /// # Errors
    /// [`DeleteFirst`](crate::Error::DeleteFirst) if this slot is taken, or as
    /// [`revoke`](Self::revoke).
    pub fn save_caller(&self) -> Result<()> {
        let (bits, depth) = (self.path.bits(), self.path.depth_u8());
        invoke(|ipc| sel4_sys::cnode_save_caller(ipc, self.root.bits(), bits, depth))
    }
}

/// The guard of a CNode capability: bits of an address that must match before
/// the CNode's own bits are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CNodeCapData(Word);

impl CNodeCapData {
    /// Creates a guard of `guard_size` bits (0 to 63) with the value `guard`
    /// ([`GUARD_BITS`](sel4_sys::GUARD_BITS)). With a size of 0 the capability keeps the
    /// guard that it has.
    pub const fn new(guard: u64, guard_size: usize) -> Self {
        if guard_size == 0 {
            // The kernel takes the word 0 for "no change".
            return CNodeCapData(0);
        }
        #[cfg(sel4_cap_data)]
        let data = sel4_sys::CapData::guard_new(guard, guard_size as u64);
        #[cfg(not(sel4_cap_data))]
        let data = sel4_sys::CNodeCapData::new(guard, guard_size as u64);
        CNodeCapData(data.words[0])
    }

    /// Creates a guard of zeros that leaves `size_bits` for the CNode, so that
    /// its slots are addressed by their plain numbers at full depth.
    pub const fn skip_high_bits(size_bits: usize) -> Self {
        Self::new(0, sel4_sys::WORD_BITS - size_bits)
    }

    /// Returns the badge word that encodes it.
    pub const fn into_word(self) -> Word {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both forms are written out as the kernels' types have them.
    #[test]
    fn guard_word() {
        let word = if cfg!(sel4_cap_data) {
            // Type in bit 31, guard in 25:8, size in 7:2.
            1 << 31 | 5 << 8 | 52 << 2
        } else {
            // Guard in 63:6, size in 5:0.
            5 << 6 | 52
        };
        assert_eq!(CNodeCapData::new(5, 52).into_word(), word);
        assert_eq!(CNodeCapData::skip_high_bits(12), CNodeCapData::new(0, 52));
        assert_eq!(CNodeCapData::new(0, 0).into_word(), 0);
    }
}
