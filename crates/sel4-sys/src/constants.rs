//! Constants that the kernel declares in C headers (libsel4, x86_64).

/// Object type numbers for `Untyped_Retype`: `api_object` and its extensions
/// in `sel4_arch/objecttype.h` and `arch/objecttype.h`, with 1 GiB pages and
/// without the kernel's IOMMU driver and VT-x.
pub mod object_type {
    /// Memory without a purpose yet.
    pub const UNTYPED: u64 = 0;
    /// Thread control block.
    pub const TCB: u64 = 1;
    /// Endpoint.
    pub const ENDPOINT: u64 = 2;
    /// Notification.
    pub const NOTIFICATION: u64 = 3;
    /// Table of capabilities.
    pub const CNODE: u64 = 4;
    /// Page directory pointer table.
    pub const PDPT: u64 = 5;
    /// Top level of a virtual address space.
    pub const PML4: u64 = 6;
    /// 1 GiB page.
    pub const HUGE_PAGE: u64 = 7;
    /// 4 KiB page.
    pub const PAGE_4K: u64 = 8;
    /// 2 MiB page.
    pub const LARGE_PAGE: u64 = 9;
    /// Page table.
    pub const PAGE_TABLE: u64 = 10;
    /// Page directory.
    pub const PAGE_DIRECTORY: u64 = 11;
}

/// Object sizes as powers of two in bytes (`sel4_arch/constants.h`).
pub mod size_bits {
    /// One slot of a CNode.
    pub const SLOT: usize = 5;
    /// Thread control block.
    pub const TCB: usize = 11;
    /// Endpoint.
    pub const ENDPOINT: usize = 4;
    /// Notification.
    pub const NOTIFICATION: usize = 5;
    /// 4 KiB page.
    pub const PAGE: usize = 12;
    /// 2 MiB page.
    pub const LARGE_PAGE: usize = 21;
    /// 1 GiB page.
    pub const HUGE_PAGE: usize = 30;
    /// Any paging structure.
    pub const PAGING_STRUCTURE: usize = 12;
    /// ASID pool.
    pub const ASID_POOL: usize = 12;
    /// Smallest untyped.
    pub const MIN_UNTYPED: usize = 4;
    /// Largest untyped.
    pub const MAX_UNTYPED: usize = 47;
}

/// Slots of the root task's CNode that the kernel fills (`bootinfo_types.h`).
pub mod initial_cap {
    /// Empty.
    pub const NULL: u64 = 0;
    /// The root task's thread.
    pub const TCB: u64 = 1;
    /// The root task's CNode.
    pub const CNODE: u64 = 2;
    /// The root task's address space.
    pub const VSPACE: u64 = 3;
    /// Authority over interrupts.
    pub const IRQ_CONTROL: u64 = 4;
    /// Authority to make ASID pools.
    pub const ASID_CONTROL: u64 = 5;
    /// The ASID pool that holds the root task's address space.
    pub const ASID_POOL: u64 = 6;
    /// All I/O ports.
    pub const IO_PORT: u64 = 7;
    /// DMA address spaces; empty without the kernel's IOMMU driver.
    pub const IO_SPACE: u64 = 8;
    /// The BootInfo frame.
    pub const BOOT_INFO_FRAME: u64 = 9;
    /// The root task's IPC buffer frame.
    pub const IPC_BUFFER: u64 = 10;
    /// Authority over domains.
    pub const DOMAIN: u64 = 11;
}

/// Error numbers: the label of the reply to a refused invocation (`errors.h`).
pub mod error {
    /// Success.
    pub const NO_ERROR: u64 = 0;
    /// An argument is not valid.
    pub const INVALID_ARGUMENT: u64 = 1;
    /// A capability among the arguments is not valid.
    pub const INVALID_CAPABILITY: u64 = 2;
    /// Not permitted on this capability.
    pub const ILLEGAL_OPERATION: u64 = 3;
    /// An argument is out of range.
    pub const RANGE_ERROR: u64 = 4;
    /// An argument is not aligned.
    pub const ALIGNMENT_ERROR: u64 = 5;
    /// A capability or paging structure is missing on the way.
    pub const FAILED_LOOKUP: u64 = 6;
    /// The message is too short, or lacks a capability.
    pub const TRUNCATED_MESSAGE: u64 = 7;
    /// The destination must be deleted first.
    pub const DELETE_FIRST: u64 = 8;
    /// Something derived must be revoked first.
    pub const REVOKE_FIRST: u64 = 9;
    /// An untyped has too little memory left.
    pub const NOT_ENOUGH_MEMORY: u64 = 10;
}

/// Word of an error reply to a mapping call that tells which level is missing
/// (`SEL4_MAPPING_LOOKUP_LEVEL`).
pub const MAPPING_LOOKUP_LEVEL: usize = 2;

/// Words of the fault messages (`sel4_arch/constants.h`, `shared_types.h`).
pub mod fault_message {
    /// Length of a VM fault: IP, address, instruction fetch, FSR.
    pub const VM_FAULT_LENGTH: usize = 4;
    /// Length of an unknown system call: 18 registers and the number.
    pub const UNKNOWN_SYSCALL_LENGTH: usize = 19;
    /// Registers that a reply to an unknown system call can set.
    pub const UNKNOWN_SYSCALL_REPLY_LENGTH: usize = 18;
    /// Length of a user exception: IP, SP, FLAGS, vector, error code.
    pub const USER_EXCEPTION_LENGTH: usize = 5;
    /// Registers that a reply to a user exception can set: IP, SP, FLAGS.
    pub const USER_EXCEPTION_REPLY_LENGTH: usize = 3;
    /// Fixed words of a capability fault: IP, address, receive phase, kind.
    pub const CAP_FAULT_MIN_LENGTH: usize = 4;
}

/// Caching of a mapping (`seL4_X86_VMAttributes`).
pub mod vm_attributes {
    /// Write back: ordinary memory.
    pub const WRITE_BACK: u64 = 0;
    /// Write through.
    pub const WRITE_THROUGH: u64 = 1;
    /// Caching disabled, may be overridden by an MTRR.
    pub const CACHE_DISABLED: u64 = 2;
    /// Uncacheable: device registers.
    pub const UNCACHEABLE: u64 = 3;
    /// Write combining.
    pub const WRITE_COMBINING: u64 = 4;
}

/// Bits of a badge (`seL4_BadgeBits`).
pub const BADGE_BITS: u32 = 28;
/// Bits of a CNode's guard (`seL4_GuardBits`).
pub const GUARD_BITS: u32 = 18;
/// Bits in a word, which is the depth of a full CSpace address.
pub const WORD_BITS: usize = 64;
/// Most objects that one retype makes.
pub const MAX_RETYPE_OBJECTS: usize = 256;
