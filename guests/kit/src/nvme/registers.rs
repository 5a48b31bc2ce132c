//! Controller registers of NVMe.
//!
//! Names, offsets and fields from the NVM Express Base Specification 1.4,
//! section 3.1. 64-bit registers are two here: section 3.1 allows 32-bit
//! accesses to each half. Only what the driver uses.

use tock_registers::register_bitfields;

use crate::mmio::Register;

register_bitfields![u32,
    /// Controller capabilities, lower half (3.1.1).
    pub CapabilitiesLow [
        /// Most entries of a queue, less 1.
        MQES OFFSET(0) NUMBITS(16) [],
    ],
    /// Controller capabilities, upper half (3.1.1).
    pub CapabilitiesHigh [
        /// Distance of doorbells: 4 bytes shifted left by this.
        DSTRD OFFSET(0) NUMBITS(4) [],
        /// Command sets: the NVM command set (bit 37 of the register).
        NVM OFFSET(5) NUMBITS(1) [],
        /// Smallest memory page: 4 KiB shifted left by this.
        MPSMIN OFFSET(16) NUMBITS(4) [],
    ],
    /// Controller configuration (3.1.5).
    pub Configuration [
        /// Enable.
        EN OFFSET(0) NUMBITS(1) [],
        /// Memory page: 4 KiB shifted left by this.
        MPS OFFSET(7) NUMBITS(4) [],
        /// Size of a submission entry, as a power of two.
        IOSQES OFFSET(16) NUMBITS(4) [],
        /// Size of a completion entry, as a power of two.
        IOCQES OFFSET(20) NUMBITS(4) [],
    ],
    /// Controller status (3.1.6).
    pub Status [
        /// Ready.
        RDY OFFSET(0) NUMBITS(1) [],
        /// Fatal.
        CFS OFFSET(1) NUMBITS(1) [],
    ],
    /// Admin queue attributes (3.1.8).
    pub AdminQueues [
        /// Entries of the submission queue, less 1.
        ASQS OFFSET(0) NUMBITS(12) [],
        /// Entries of the completion queue, less 1.
        ACQS OFFSET(16) NUMBITS(12) [],
    ],
];

/// Controller capabilities.
pub const CAP: Register<CapabilitiesLow::Register> = Register::at(0x00);
/// Its upper half.
pub const CAP_HIGH: Register<CapabilitiesHigh::Register> = Register::at(0x04);
/// Controller configuration.
pub const CC: Register<Configuration::Register> = Register::at(0x14);
/// Controller status.
pub const CSTS: Register<Status::Register> = Register::at(0x1c);
/// Admin queue attributes.
pub const AQA: Register<AdminQueues::Register> = Register::at(0x24);
/// Address of the admin submission queue (3.1.9).
pub const ASQ: Register = Register::at(0x28);
/// Its upper half.
pub const ASQ_HIGH: Register = Register::at(0x2c);
/// Address of the admin completion queue (3.1.10).
pub const ACQ: Register = Register::at(0x30);
/// Its upper half.
pub const ACQ_HIGH: Register = Register::at(0x34);

/// First doorbell: the tail of the admin submission queue (3.1.16). The next
/// is the head of the admin completion queue.
pub const DOORBELLS: u32 = 0x1000;
