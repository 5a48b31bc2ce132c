//! VT-d registers and the formats of its tables (Intel Virtualization
//! Technology for Directed I/O, Architecture Specification, revision 4.x).

use tock_registers::register_bitfields;

/// Capabilities (section 11.4).
pub const CAPABILITY: usize = 0x08;
/// Extended capabilities.
pub const EXTENDED: usize = 0x10;
/// Global command, 32 bits.
pub const COMMAND: usize = 0x18;
/// Global status, 32 bits.
pub const STATUS: usize = 0x1c;
/// Root table address.
pub const ROOT_TABLE: usize = 0x20;
/// Fault status, 32 bits.
pub const FAULT_STATUS: usize = 0x34;
/// Protected memory enable, 32 bits.
pub const PROTECTED_MEMORY: usize = 0x64;
/// Invalidation queue head: a byte offset.
pub const QUEUE_HEAD: usize = 0x80;
/// Invalidation queue tail: a byte offset.
pub const QUEUE_TAIL: usize = 0x88;
/// Invalidation queue address.
pub const QUEUE: usize = 0x90;
/// Interrupt remapping table address.
pub const INTERRUPT_TABLE: usize = 0xb8;

/// Bytes of a fault record.
pub const FAULT_RECORD: usize = 16;
/// The upper half of a fault record.
pub const FAULT_UPPER: usize = 8;
/// The 32 bits of it whose top bit, when written as 1, frees it.
pub const FAULT_TOP: usize = 12;
/// Value that frees the record.
pub const FAULT_FREE: u32 = 1 << 31;
/// Value that clears the overflow bit of the fault status.
pub const FAULT_OVERFLOW: u32 = 1;

/// Bits of the global status that a write to the global command repeats: those
/// of one-shot commands are not among them (section 11.4.4).
pub const COMMAND_KEEPS: u32 = 0x96ff_ffff;

register_bitfields![u64,
    /// Capabilities.
    pub Capability [
        /// Domains: 1 << (4 + 2 * this).
        DOMAINS OFFSET(0) NUMBITS(3) [],
        /// Its write buffer has to be flushed.
        WRITE_BUFFER OFFSET(4) NUMBITS(1) [],
        /// It has a protected low memory region.
        PROTECTED_LOW OFFSET(5) NUMBITS(1) [],
        /// It has a protected high memory region.
        PROTECTED_HIGH OFFSET(6) NUMBITS(1) [],
        /// Page tables of three levels.
        LEVELS_3 OFFSET(9) NUMBITS(1) [],
        /// Page tables of four levels.
        LEVELS_4 OFFSET(10) NUMBITS(1) [],
        /// Bits of the largest address, less 1.
        WIDTH OFFSET(16) NUMBITS(6) [],
        /// Where the fault records are, in units of 16 bytes.
        FAULT_OFFSET OFFSET(24) NUMBITS(10) [],
        /// Pages of 2 MiB.
        LARGE OFFSET(34) NUMBITS(1) [],
        /// Fault records, less 1.
        FAULTS OFFSET(40) NUMBITS(8) []
    ],
    /// Extended capabilities.
    pub Extended [
        /// It looks into the CPU's caches when it reads its tables.
        COHERENT OFFSET(0) NUMBITS(1) [],
        /// It has an invalidation queue.
        QUEUE OFFSET(1) NUMBITS(1) [],
        /// It remaps interrupts.
        REMAPPING OFFSET(3) NUMBITS(1) []
    ],
    /// Interrupt remapping table address.
    pub InterruptTable [
        /// Entries: 2 << this.
        SIZE OFFSET(0) NUMBITS(4) [],
        /// Machine address in pages.
        PAGE OFFSET(12) NUMBITS(52) []
    ],
    /// Lower half of a root entry (section 9.1).
    pub Root [
        /// Present.
        PRESENT OFFSET(0) NUMBITS(1) [],
        /// Machine address of the context table, in pages.
        PAGE OFFSET(12) NUMBITS(52) []
    ],
    /// Lower half of a context entry (section 9.3); type 0 is a second-level
    /// translation.
    pub ContextLower [
        /// Present.
        PRESENT OFFSET(0) NUMBITS(1) [],
        /// Machine address of the root of the page tables, in pages.
        PAGE OFFSET(12) NUMBITS(52) []
    ],
    /// Upper half of a context entry.
    pub ContextUpper [
        /// Levels, less 2.
        LEVELS OFFSET(0) NUMBITS(3) [],
        /// What translations are remembered under.
        DOMAIN OFFSET(8) NUMBITS(16) []
    ],
    /// Entry of a second-level page table (section 9.8).
    pub Page [
        /// May be read.
        READ OFFSET(0) NUMBITS(1) [],
        /// May be written.
        WRITE OFFSET(1) NUMBITS(1) [],
        /// A page, above level 1.
        LARGE OFFSET(7) NUMBITS(1) [],
        /// Machine address in pages.
        PAGE OFFSET(12) NUMBITS(40) []
    ],
    /// Lower half of an interrupt remapping entry (section 9.10). All other
    /// bits 0: physical destination, fixed, edge.
    pub RemapLower [
        /// Present.
        PRESENT OFFSET(0) NUMBITS(1) [],
        /// CPU vector.
        VECTOR OFFSET(16) NUMBITS(8) [],
        /// Local APIC, as xAPIC has it.
        DESTINATION OFFSET(40) NUMBITS(8) []
    ],
    /// Upper half of an interrupt remapping entry.
    pub RemapUpper [
        /// The requester that may use it.
        SOURCE OFFSET(0) NUMBITS(16) [],
        /// How that is checked.
        VALIDATION OFFSET(18) NUMBITS(2) [
            /// By all 16 bits of the id.
            Requester = 1
        ]
    ],
    /// Address of a message in the remappable format (section 5.1.2).
    pub Message [
        /// Bit 15 of the handle.
        HANDLE_TOP OFFSET(2) NUMBITS(1) [],
        /// The data is added to the handle.
        SUBHANDLE OFFSET(3) NUMBITS(1) [],
        /// It is in this format.
        REMAPPABLE OFFSET(4) NUMBITS(1) [],
        /// Bits 14 to 0 of the handle.
        HANDLE OFFSET(5) NUMBITS(15) [],
        /// The interrupt address range.
        RANGE OFFSET(20) NUMBITS(12) []
    ],
    /// Lower half of a descriptor in the invalidation queue (section 6.5.2).
    pub Descriptor [
        /// Which.
        TYPE OFFSET(0) NUMBITS(4) [
            /// Context cache.
            Context = 1,
            /// Translations.
            Translations = 2,
            /// Interrupt entries; with granularity 0 all of them.
            Interrupts = 4,
            /// Wait.
            Wait = 5
        ],
        /// Of contexts and translations: how much.
        GRANULARITY OFFSET(4) NUMBITS(2) [
            /// All of them.
            Global = 1
        ],
        /// Of a wait: stores the data when all before is done.
        STORE OFFSET(5) NUMBITS(1) [],
        /// Of translations: reads that are on their way end first.
        DRAIN_READS OFFSET(6) NUMBITS(1) [],
        /// Of translations: writes that are on their way end first.
        DRAIN_WRITES OFFSET(7) NUMBITS(1) [],
        /// Invalidation wait: status data to store.
        DATA OFFSET(32) NUMBITS(32) []
    ],
    /// Upper half of a fault record (section 11.4).
    pub Fault [
        /// The requester.
        SOURCE OFFSET(0) NUMBITS(16) [],
        /// Why.
        REASON OFFSET(32) NUMBITS(8) [],
        /// It was a read.
        READ OFFSET(62) NUMBITS(1) [],
        /// The record is in use.
        USED OFFSET(63) NUMBITS(1) []
    ]
];

register_bitfields![u32,
    /// Bits shared by global command (requested state) and global status (actual
    /// state).
    pub Global [
        /// Compatibility-format messages pass.
        COMPATIBILITY OFFSET(23) NUMBITS(1) [],
        /// Takes the interrupt table's address.
        SET_INTERRUPTS OFFSET(24) NUMBITS(1) [],
        /// Remaps interrupts.
        REMAPPING OFFSET(25) NUMBITS(1) [],
        /// Reads the invalidation queue.
        QUEUE OFFSET(26) NUMBITS(1) [],
        /// Flushes its write buffer; in the status: is at it.
        WRITE_BUFFER OFFSET(27) NUMBITS(1) [],
        /// Takes the root table's address.
        SET_ROOT OFFSET(30) NUMBITS(1) [],
        /// Translates.
        TRANSLATION OFFSET(31) NUMBITS(1) []
    ],
    /// Fault status.
    pub FaultStatus [
        /// Faults were lost.
        OVERFLOW OFFSET(0) NUMBITS(1) [],
        /// A fault record is in use.
        PENDING OFFSET(1) NUMBITS(1) [],
        /// The queue stands at a descriptor that cannot be read or is none.
        QUEUE_ERROR OFFSET(4) NUMBITS(1) [],
        /// A device's answer to an invalidation is wrong.
        COMPLETION_ERROR OFFSET(5) NUMBITS(1) [],
        /// A device does not answer an invalidation.
        TIMEOUT OFFSET(6) NUMBITS(1) [],
        /// The oldest fault record.
        FIRST OFFSET(8) NUMBITS(8) []
    ],
    /// Protected memory enable.
    pub ProtectedMemory [
        /// In the regions, nothing is reached.
        STATUS OFFSET(0) NUMBITS(1) [],
        /// Asks for that.
        ENABLE OFFSET(31) NUMBITS(1) []
    ]
];
