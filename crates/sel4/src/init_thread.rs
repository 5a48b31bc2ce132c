//! Capabilities and slots with which the root task starts.

use core::marker::PhantomData;
use core::ops::Range;

use crate::cap::{Cap, CapType};
use crate::{CPtr, cap_type};

/// A slot of the root task's CNode.
#[derive(Debug)]
pub struct Slot<T: CapType = cap_type::Unspecified> {
    index: usize,
    _type: PhantomData<fn() -> T>,
}

impl<T: CapType> Clone for Slot<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: CapType> Copy for Slot<T> {}

impl<T: CapType> PartialEq for Slot<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl<T: CapType> Eq for Slot<T> {}

impl<T: CapType> Slot<T> {
    /// Returns the slot with this number.
    pub const fn from_index(index: usize) -> Self {
        Slot {
            index,
            _type: PhantomData,
        }
    }

    /// Returns its number.
    pub const fn index(self) -> usize {
        self.index
    }

    /// Returns its address: the root CNode resolves all 64 bits.
    pub const fn cptr(self) -> CPtr {
        CPtr::from_bits(self.index as u64)
    }

    /// Returns the capability in it.
    pub const fn cap(self) -> Cap<T> {
        Cap::from_cptr(self.cptr())
    }

    /// Returns the same slot for another type.
    pub const fn cast<U: CapType>(self) -> Slot<U> {
        Slot::from_index(self.index)
    }
}

/// Consecutive slots of the root task's CNode.
#[derive(Debug)]
pub struct SlotRegion<T: CapType = cap_type::Unspecified> {
    start: usize,
    end: usize,
    _type: PhantomData<fn() -> T>,
}

impl<T: CapType> Clone for SlotRegion<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: CapType> Copy for SlotRegion<T> {}

impl<T: CapType> SlotRegion<T> {
    pub(crate) const fn new(start: usize, end: usize) -> Self {
        SlotRegion {
            start,
            end,
            _type: PhantomData,
        }
    }

    /// Returns the first slot's number.
    pub const fn start(self) -> usize {
        self.start
    }

    /// Returns one more than the last slot's number.
    pub const fn end(self) -> usize {
        self.end
    }

    /// Returns the slots' numbers.
    pub const fn range(self) -> Range<usize> {
        self.start..self.end
    }

    /// Returns how many slots there are.
    pub const fn len(self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// Returns whether there are none.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Returns the slot at `index` from the start.
    ///
    /// # Panics
    /// If there are not so many.
    pub const fn index(self, index: usize) -> Slot<T> {
        assert!(index < self.len(), "slot index out of range");
        Slot::from_index(self.start + index)
    }
}

/// The slots that the kernel fills.
pub mod slot {
    use super::Slot;
    use crate::cap_type;
    use sel4_sys::initial_cap;

    /// Always empty.
    pub const NULL: Slot<cap_type::Null> = Slot::from_index(initial_cap::NULL as usize);
    /// The root task's thread.
    pub const TCB: Slot<cap_type::Tcb> = Slot::from_index(initial_cap::TCB as usize);
    /// The root task's CNode.
    pub const CNODE: Slot<cap_type::CNode> = Slot::from_index(initial_cap::CNODE as usize);
    /// The root task's address space.
    pub const VSPACE: Slot<cap_type::PML4> = Slot::from_index(initial_cap::VSPACE as usize);
    /// Authority over interrupts.
    pub const IRQ_CONTROL: Slot<cap_type::IrqControl> =
        Slot::from_index(initial_cap::IRQ_CONTROL as usize);
    /// Authority to make ASID pools.
    pub const ASID_CONTROL: Slot<cap_type::AsidControl> =
        Slot::from_index(initial_cap::ASID_CONTROL as usize);
    /// The ASID pool that holds the root task's address space.
    pub const ASID_POOL: Slot<cap_type::AsidPool> =
        Slot::from_index(initial_cap::ASID_POOL as usize);
    /// Authority over I/O ports.
    pub const IO_PORT_CONTROL: Slot<cap_type::IoPortControl> =
        Slot::from_index(initial_cap::IO_PORT_CONTROL as usize);
    /// The BootInfo frame.
    pub const BOOT_INFO_FRAME: Slot<cap_type::Granule> =
        Slot::from_index(initial_cap::BOOT_INFO_FRAME as usize);
    /// The frame of the root task's IPC buffer.
    pub const IPC_BUFFER: Slot<cap_type::Granule> =
        Slot::from_index(initial_cap::IPC_BUFFER as usize);
    /// Authority over domains.
    pub const DOMAIN: Slot<cap_type::DomainSet> = Slot::from_index(initial_cap::DOMAIN as usize);
    /// One more than the last of these slots.
    pub const COUNT: usize = initial_cap::COUNT as usize;
}
