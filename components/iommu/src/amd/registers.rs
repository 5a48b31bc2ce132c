//! AMD-Vi registers and the formats of its tables (AMD I/O Virtualization
//! Technology (IOMMU) Specification, 48882 revision 3.x).

use tock_registers::register_bitfields;

/// Device table base (section 3.4.1).
pub const DEVICE_TABLE: usize = 0x0000;
/// Command buffer base.
pub const COMMAND_BASE: usize = 0x0008;
/// Event log base.
pub const EVENT_BASE: usize = 0x0010;
/// Control.
pub const CONTROL: usize = 0x0018;
/// Exclusion range base: addresses that devices reach untranslated.
pub const EXCLUSION_BASE: usize = 0x0020;
/// Extended features.
pub const FEATURES: usize = 0x0030;
/// Command buffer head, a byte offset: the unit's (section 3.4.13).
pub const COMMAND_HEAD: usize = 0x2000;
/// Command buffer tail, a byte offset: ours.
pub const COMMAND_TAIL: usize = 0x2008;
/// Event log head, a byte offset: ours.
pub const EVENT_HEAD: usize = 0x2010;
/// Event log tail, a byte offset: the unit's.
pub const EVENT_TAIL: usize = 0x2018;
/// Status.
pub const STATUS: usize = 0x2020;

register_bitfields![u64,
    /// Device table base.
    pub DeviceTable [
        /// 4 KiB pages of it, less 1.
        SIZE OFFSET(0) NUMBITS(9) [],
        /// Machine address in pages.
        PAGE OFFSET(12) NUMBITS(40) []
    ],
    /// Command buffer or event log base.
    pub Buffer [
        /// Machine address in pages.
        PAGE OFFSET(12) NUMBITS(40) [],
        /// Entries as a power of two, 8 to 15.
        LENGTH OFFSET(56) NUMBITS(4) []
    ],
    /// Control.
    pub Control [
        /// Translates and remaps.
        ENABLE OFFSET(0) NUMBITS(1) [],
        /// HyperTransport tunnel: as the firmware wants it.
        TUNNEL OFFSET(1) NUMBITS(1) [],
        /// Writes the event log.
        EVENT_LOG OFFSET(2) NUMBITS(1) [],
        /// How long an invalidation of a device's own cache may take.
        TIMEOUT OFFSET(5) NUMBITS(3) [],
        /// Posted writes pass: as the firmware wants it.
        PASS_WRITES OFFSET(8) NUMBITS(1) [],
        /// Responses pass: as the firmware wants it.
        PASS_RESPONSES OFFSET(9) NUMBITS(1) [],
        /// Reads of the device table look into the CPU's caches.
        COHERENT OFFSET(10) NUMBITS(1) [],
        /// Isochronous: as the firmware wants it.
        ISOCHRONOUS OFFSET(11) NUMBITS(1) [],
        /// Runs commands.
        COMMANDS OFFSET(12) NUMBITS(1) []
    ],
    /// Exclusion range base.
    pub Exclusion [
        /// There is such a range.
        ENABLE OFFSET(0) NUMBITS(1) []
    ],
    /// Extended features.
    pub Features [
        /// Knows the command that invalidates everything.
        INVALIDATE_ALL OFFSET(6) NUMBITS(1) []
    ],
    /// Status.
    pub Status [
        /// Events were lost; write 1 to clear.
        EVENT_OVERFLOW OFFSET(0) NUMBITS(1) [],
        /// Writes events.
        EVENT_RUN OFFSET(3) NUMBITS(1) [],
        /// Runs commands.
        COMMAND_RUN OFFSET(4) NUMBITS(1) []
    ],
    /// Device table entry, bits 63:0 (section 2.2.2.1).
    pub Translation [
        /// The entry counts; without it everything passes.
        VALID OFFSET(0) NUMBITS(1) [],
        /// The translation's fields count.
        TRANSLATION_VALID OFFSET(1) NUMBITS(1) [],
        /// Levels of the page tables; 0: none, and the two permissions decide.
        LEVELS OFFSET(9) NUMBITS(3) [],
        /// Machine address of the root table, in pages.
        ROOT OFFSET(12) NUMBITS(40) [],
        /// May read.
        READ OFFSET(61) NUMBITS(1) [],
        /// May write.
        WRITE OFFSET(62) NUMBITS(1) []
    ],
    /// Device table entry, bits 127:64.
    pub Domain [
        /// What translations are remembered under.
        ID OFFSET(0) NUMBITS(16) []
    ],
    /// Device table entry, bits 191:128.
    pub Interrupts [
        /// The interrupt's fields count; without it every message passes.
        VALID OFFSET(0) NUMBITS(1) [],
        /// Entries of the interrupt table as a power of two.
        LENGTH OFFSET(1) NUMBITS(4) [],
        /// Machine address of the interrupt table, in units of 64 bytes.
        TABLE OFFSET(6) NUMBITS(46) [],
        /// What becomes of fixed and arbitrated interrupts.
        CONTROL OFFSET(60) NUMBITS(2) [
            /// They are refused.
            Abort = 0,
            /// The interrupt table decides.
            Remap = 2
        ]
    ],
    /// Entry of a page table (section 2.2.3).
    pub Page [
        /// Present.
        PRESENT OFFSET(0) NUMBITS(1) [],
        /// Level of the table that it leads to; 0: it is a page.
        NEXT OFFSET(9) NUMBITS(3) [],
        /// Machine address in pages.
        ADDRESS OFFSET(12) NUMBITS(40) [],
        /// DMA looks into the CPU's caches, whatever the device asks for.
        COHERENT OFFSET(60) NUMBITS(1) [],
        /// May be read.
        READ OFFSET(61) NUMBITS(1) [],
        /// May be written.
        WRITE OFFSET(62) NUMBITS(1) []
    ],
    /// First word of a command (section 2.4).
    pub Command [
        /// COMPLETION_WAIT: stores the second word.
        STORE OFFSET(0) NUMBITS(1) [],
        /// The other commands: the device.
        DEVICE OFFSET(0) NUMBITS(16) [],
        /// COMPLETION_WAIT: where to, in units of 8 bytes.
        ADDRESS OFFSET(3) NUMBITS(49) [],
        /// INVALIDATE_IOMMU_PAGES: the domain.
        DOMAIN OFFSET(32) NUMBITS(16) [],
        /// Which command.
        CODE OFFSET(60) NUMBITS(4) [
            /// COMPLETION_WAIT (section 2.4.1).
            Wait = 1,
            /// INVALIDATE_DEVTAB_ENTRY (section 2.4.2).
            Device = 2,
            /// INVALIDATE_IOMMU_PAGES (section 2.4.3).
            Pages = 3,
            /// INVALIDATE_INTERRUPT_TABLE (section 2.4.5).
            Interrupts = 5,
            /// INVALIDATE_IOMMU_ALL (section 2.4.8).
            All = 8
        ]
    ],
    /// First word of an event (section 2.5).
    pub Event [
        /// The device.
        DEVICE OFFSET(0) NUMBITS(16) [],
        /// It was an interrupt request.
        INTERRUPT OFFSET(51) NUMBITS(1) [],
        /// It was a write.
        WRITE OFFSET(53) NUMBITS(1) [],
        /// Which event; 0: the unit has not written it yet.
        CODE OFFSET(60) NUMBITS(4) []
    ]
];

register_bitfields![u32,
    /// Entry of an interrupt table, in its basic format (section 2.2.5.2).
    pub Remap [
        /// It counts.
        VALID OFFSET(0) NUMBITS(1) [],
        /// Local APIC, by physical id; fixed delivery is type 0.
        DESTINATION OFFSET(8) NUMBITS(8) [],
        /// CPU vector.
        VECTOR OFFSET(16) NUMBITS(8) []
    ]
];

/// Second word of INVALIDATE_IOMMU_PAGES that means every address: S says that
/// the address encodes a size, PDE that inner entries go too.
pub const ALL_PAGES: u64 = 0x7fff_ffff_ffff_f000 | 1 | 2;
