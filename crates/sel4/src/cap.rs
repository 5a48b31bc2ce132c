//! Capabilities with the type of their object.

use core::fmt;
use core::marker::PhantomData;

use crate::{CPtr, CPtrBits};

/// Marks the type of object that a capability refers to.
pub trait CapType: Copy + 'static {
    /// The type's name, for messages.
    const NAME: &'static str;
}

/// Marks capabilities to pages.
pub trait CapTypeForFrameObject: CapType {}

/// Marks capabilities to pages whose size the type tells.
pub trait CapTypeForFrameObjectOfFixedSize: CapTypeForFrameObject {
    /// The page's size as a power of two, in bytes.
    const SIZE_BITS: usize;
}

/// A capability in the thread's own CSpace. It is an address with a type, not
/// a resource: copying it copies the address, dropping it deletes nothing.
pub struct Cap<T: CapType> {
    cptr: CPtr,
    _type: PhantomData<fn() -> T>,
}

impl<T: CapType> Cap<T> {
    /// Returns the capability at `cptr`.
    pub const fn from_cptr(cptr: CPtr) -> Self {
        Cap {
            cptr,
            _type: PhantomData,
        }
    }

    /// Returns the capability at the address with these bits.
    pub const fn from_bits(bits: CPtrBits) -> Self {
        Self::from_cptr(CPtr::from_bits(bits))
    }

    /// Returns its address.
    pub const fn cptr(self) -> CPtr {
        self.cptr
    }

    /// Returns the bits of its address.
    pub const fn bits(self) -> CPtrBits {
        self.cptr.bits()
    }

    /// Returns the same address as another type. The kernel checks each
    /// invocation against the slot's real contents.
    pub const fn cast<U: CapType>(self) -> Cap<U> {
        Cap::from_cptr(self.cptr)
    }

    /// Returns the same address without a type.
    pub const fn upcast(self) -> Cap<cap_type::Unspecified> {
        self.cast()
    }
}

impl<T: CapType> Clone for Cap<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: CapType> Copy for Cap<T> {}

impl<T: CapType> PartialEq for Cap<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cptr == other.cptr
    }
}

impl<T: CapType> Eq for Cap<T> {}

impl<T: CapType> fmt::Debug for Cap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:#x})", T::NAME, self.bits())
    }
}

macro_rules! cap_types {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Types for [`Cap`].
        pub mod cap_type {
            $(
                $(#[$doc])*
                #[derive(Clone, Copy, Debug, PartialEq, Eq)]
                pub enum $name {}

                impl super::CapType for $name {
                    const NAME: &'static str = stringify!($name);
                }
            )*
        }

        $(
            $(#[$doc])*
            pub type $name = Cap<cap_type::$name>;
        )*
    };
}

cap_types! {
    /// An empty slot.
    Null,
    /// A capability of any type.
    Unspecified,
    /// Memory that objects are made from.
    Untyped,
    /// Where threads meet to pass messages.
    Endpoint,
    /// A word of signals.
    Notification,
    /// A thread.
    Tcb,
    /// A table of capabilities.
    CNode,
    /// Permission to reply once.
    Reply,
    /// Authority over interrupts.
    IrqControl,
    /// One interrupt.
    IrqHandler,
    /// Authority over I/O ports.
    IoPortControl,
    /// A range of I/O ports.
    IoPort,
    /// Top level of a virtual address space.
    PML4,
    /// Page directory pointer table.
    PDPT,
    /// Page directory.
    PageDirectory,
    /// Page table.
    PageTable,
    /// A 4 KiB page.
    Granule,
    /// A 2 MiB page.
    LargePage,
    /// A 1 GiB page.
    HugePage,
    /// A page of any size.
    UnspecifiedPage,
    /// Identifiers for address spaces.
    AsidPool,
    /// Authority to make ASID pools.
    AsidControl,
    /// Authority over domains.
    DomainSet,
}

/// A virtual address space, which its top level stands for.
pub type VSpace = PML4;

impl CapTypeForFrameObject for cap_type::Granule {}
impl CapTypeForFrameObject for cap_type::LargePage {}
impl CapTypeForFrameObject for cap_type::HugePage {}
impl CapTypeForFrameObject for cap_type::UnspecifiedPage {}

impl CapTypeForFrameObjectOfFixedSize for cap_type::Granule {
    const SIZE_BITS: usize = sel4_sys::size_bits::PAGE;
}
impl CapTypeForFrameObjectOfFixedSize for cap_type::LargePage {
    const SIZE_BITS: usize = sel4_sys::size_bits::LARGE_PAGE;
}
impl CapTypeForFrameObjectOfFixedSize for cap_type::HugePage {
    const SIZE_BITS: usize = sel4_sys::size_bits::HUGE_PAGE;
}
