//! Layout of the BootInfo frame (`seL4_BootInfo`, libsel4 `bootinfo_types.h`).
//!
//! The structure is packed, so most of it is not aligned; these are byte
//! offsets from its start.

/// Size of the frame that BootInfo fills, in bytes; additional chunks follow it.
pub const BOOTINFO_FRAME_SIZE: usize = 4096;

/// Byte offsets of BootInfo's parts.
pub mod bootinfo_offset {
    /// u64: length of the additional chunks, in bytes.
    pub const EXTRA_LEN: usize = 0;
    /// u64: this core's number.
    pub const NODE_ID: usize = 8;
    /// u64: cores.
    pub const NUM_NODES: usize = 16;
    /// u64: levels of the kernel's IOMMU tables; all ones if its driver is not
    /// built, 0 if it found no unit.
    pub const NUM_IOPT_LEVELS: usize = 24;
    /// u64: virtual address of the root task's IPC buffer.
    pub const IPC_BUFFER: usize = 32;
    /// Slot region: empty slots.
    pub const EMPTY: usize = 40;
    /// Slot region: frames shared between cores.
    pub const SHARED_FRAMES: usize = 56;
    /// Slot region: frames of the root task's image, by ascending address.
    pub const USER_IMAGE_FRAMES: usize = 72;
    /// Slot region: paging structures of the root task's image.
    pub const USER_IMAGE_PAGING: usize = 88;
    /// Slot region: DMA address spaces (ARM).
    pub const IO_SPACE_CAPS: usize = 104;
    /// Slot region: frames of the additional chunks.
    pub const EXTRA_BI_PAGES: usize = 120;
    /// u8: the root CNode's radix.
    pub const CNODE_SIZE_BITS: usize = 136;
    /// u64: the root task's domain.
    pub const DOMAIN: usize = 137;
    /// u64: the TSC's frequency in MHz.
    pub const ARCH_INFO: usize = 145;
    /// Slot region: untypeds.
    pub const UNTYPED: usize = 153;
    /// Array of untyped descriptions, one for each slot of `UNTYPED`.
    pub const UNTYPED_LIST: usize = 169;
}

/// An entry of the list of untypeds, in bytes from its start.
pub mod untyped_desc_offset {
    /// u64: physical address.
    pub const PADDR: usize = 0;
    /// u8: size as a power of two, in bytes.
    pub const SIZE_BITS: usize = 10;
    /// u8: not zero for memory that the kernel never touches.
    pub const IS_DEVICE: usize = 11;
    /// Size of an entry.
    pub const LENGTH: usize = 12;
}
