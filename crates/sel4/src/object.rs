//! Object types, and retyping untyped memory into them.

use sel4_sys::{object_type, size_bits};

use crate::cap::Untyped;
use crate::ipc_buffer::invoke;
use crate::{AbsoluteCPtr, Result};

/// An object's type, and its size where that is a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectBlueprint {
    /// A smaller untyped.
    Untyped {
        /// Its size as a power of two, in bytes: `MIN_UNTYPED` to `MAX_UNTYPED` of
        /// [`size_bits`].
        size_bits: usize,
    },
    /// An endpoint.
    Endpoint,
    /// A notification.
    Notification,
    /// A table of capabilities.
    CNode {
        /// The number of its slots as a power of two.
        size_bits: usize,
    },
    /// A thread.
    Tcb,
    /// Top level of a virtual address space.
    PML4,
    /// Page directory pointer table.
    PDPT,
    /// Page directory.
    PageDirectory,
    /// Page table.
    PageTable,
    /// A 4 KiB page.
    _4k,
    /// A 2 MiB page.
    LargePage,
    /// A 1 GiB page.
    HugePage,
}

impl ObjectBlueprint {
    /// Returns the object's number for the kernel.
    pub const fn ty(&self) -> u64 {
        match self {
            Self::Untyped { .. } => object_type::UNTYPED,
            Self::Endpoint => object_type::ENDPOINT,
            Self::Notification => object_type::NOTIFICATION,
            Self::CNode { .. } => object_type::CNODE,
            Self::Tcb => object_type::TCB,
            Self::PML4 => object_type::PML4,
            Self::PDPT => object_type::PDPT,
            Self::PageDirectory => object_type::PAGE_DIRECTORY,
            Self::PageTable => object_type::PAGE_TABLE,
            Self::_4k => object_type::PAGE_4K,
            Self::LargePage => object_type::LARGE_PAGE,
            Self::HugePage => object_type::HUGE_PAGE,
        }
    }

    /// Returns the size argument for the kernel; 0 where there is no choice.
    pub const fn api_size_bits(&self) -> usize {
        match self {
            Self::Untyped { size_bits } | Self::CNode { size_bits } => *size_bits,
            _ => 0,
        }
    }

    /// Returns the size of the object's memory, which is its alignment too, as
    /// a power of two in bytes.
    pub const fn physical_size_bits(&self) -> usize {
        match self {
            Self::Untyped { size_bits } => *size_bits,
            Self::Endpoint => size_bits::ENDPOINT,
            Self::Notification => size_bits::NOTIFICATION,
            Self::CNode { size_bits } => size_bits::SLOT + *size_bits,
            Self::Tcb => size_bits::TCB,
            Self::PML4 => size_bits::PML4,
            Self::PDPT => size_bits::PDPT,
            Self::PageDirectory => size_bits::PAGE_DIRECTORY,
            Self::PageTable => size_bits::PAGE_TABLE,
            Self::_4k => size_bits::PAGE,
            Self::LargePage => size_bits::LARGE_PAGE,
            Self::HugePage => size_bits::HUGE_PAGE,
        }
    }
}

impl Untyped {
    /// Makes `num_objects` objects (1 to 256) from the free end of this
    /// untyped, aligned to their size, and puts their capabilities into the
    /// CNode `dst` from slot `dst_offset` on.
    ///
    /// # Errors
    /// [`NotEnoughMemory`](crate::Error::NotEnoughMemory) if the remaining memory
    /// does not suffice, [`DeleteFirst`](crate::Error::DeleteFirst) if a slot is
    /// taken, and others for bad arguments.
    pub fn untyped_retype(
        self,
        blueprint: &ObjectBlueprint,
        dst: &AbsoluteCPtr,
        dst_offset: usize,
        num_objects: usize,
    ) -> Result<()> {
        invoke(|ipc| {
            sel4_sys::untyped_retype(
                ipc,
                self.bits(),
                blueprint.ty(),
                blueprint.api_size_bits() as u64,
                dst.root().bits(),
                dst.path().bits(),
                dst.path().depth() as u64,
                dst_offset as u64,
                num_objects as u64,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(
            ObjectBlueprint::CNode { size_bits: 7 }.physical_size_bits(),
            size_bits::SLOT + 7
        );
        assert_eq!(ObjectBlueprint::CNode { size_bits: 7 }.api_size_bits(), 7);
        assert_eq!(
            ObjectBlueprint::Untyped { size_bits: 20 }.physical_size_bits(),
            20
        );
        assert_eq!(ObjectBlueprint::Tcb.physical_size_bits(), size_bits::TCB);
        assert_eq!(ObjectBlueprint::LargePage.api_size_bits(), 0);
    }
}
