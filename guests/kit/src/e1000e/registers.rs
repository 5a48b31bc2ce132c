//! Register map of the Intel 82574L.
//!
//! From the Intel 82574 GbE Controller Family datasheet, section 10.2 ("Port
//! registers"); each group names its subsection. Only what the driver uses.
#![forbid(unsafe_code)]

use tock_registers::register_bitfields;

use crate::mmio::Register;

register_bitfields![u32,
    /// Device control.
    pub Control [
        /// No new requests on the bus.
        GIO_MASTER_DISABLE OFFSET(2) NUMBITS(1) [],
        /// Set link up.
        SLU OFFSET(6) NUMBITS(1) [],
        /// Force speed: overrides the PHY's negotiation.
        FRCSPD OFFSET(11) NUMBITS(1) [],
        /// Force duplex: overrides the PHY's negotiation.
        FRCDPX OFFSET(12) NUMBITS(1) [],
        /// Full device reset; clears itself.
        RST OFFSET(26) NUMBITS(1) [],
        /// Reserved; the drivers of Linux and FreeBSD clear it on this device.
        RESERVED_29 OFFSET(29) NUMBITS(1) [],
    ],
    /// Device status.
    pub Status [
        /// Full duplex.
        FD OFFSET(0) NUMBITS(1) [],
        /// Link up.
        LU OFFSET(1) NUMBITS(1) [],
        /// Transmission is paused by flow control.
        TXOFF OFFSET(4) NUMBITS(1) [],
        /// Link speed.
        SPEED OFFSET(6) NUMBITS(2) [Mbit10 = 0, Mbit100 = 1],
        /// Requests on the bus are possible or under way.
        GIO_MASTER_EN OFFSET(19) NUMBITS(1) [],
    ],
    /// NVM control.
    pub NvmControl [
        /// The NVM has been read after a reset.
        AUTO_RD OFFSET(9) NUMBITS(1) [],
    ],
    /// Extended configuration control.
    pub ExtendedConfiguration [
        /// The driver, not firmware, owns the way to the PHY.
        MDIO_SW_OWNERSHIP OFFSET(5) NUMBITS(1) [],
    ],
    /// Extended device control.
    pub ControlExt [
        /// Reserved; the drivers of Linux and FreeBSD set it on this device.
        RESERVED_22 OFFSET(22) NUMBITS(1) [],
        /// Reserved; the drivers of Linux and FreeBSD clear it on this device.
        RESERVED_23 OFFSET(23) NUMBITS(1) [],
        /// Interrupt acknowledge auto-mask enable.
        IAME OFFSET(27) NUMBITS(1) [],
        /// A driver has the device: firmware leaves it alone.
        DRV_LOAD OFFSET(28) NUMBITS(1) [],
        /// Clears pending bits when an entry's cause is cleared.
        PBA_CLR OFFSET(31) NUMBITS(1) [],
    ],
    /// Interrupt causes: the layout of ICR, ICS, IMS, IMC, EIAC and IAM.
    pub Cause [
        /// Link status change.
        LSC OFFSET(2) NUMBITS(1) [],
        /// Receive queue 0.
        RXQ0 OFFSET(20) NUMBITS(1) [],
        /// Transmit queue 0.
        TXQ0 OFFSET(22) NUMBITS(1) [],
        /// Any cause that is not a queue.
        OTHER OFFSET(24) NUMBITS(1) [],
    ],
    /// MSI-X entry for each cause group; the top bit of each is "valid".
    pub Allocation [
        RXQ0 OFFSET(0) NUMBITS(3) [],
        RXQ0_VALID OFFSET(3) NUMBITS(1) [],
        TXQ0 OFFSET(8) NUMBITS(3) [],
        TXQ0_VALID OFFSET(11) NUMBITS(1) [],
        OTHER OFFSET(16) NUMBITS(3) [],
        OTHER_VALID OFFSET(19) NUMBITS(1) [],
    ],
    /// Receive control.
    pub ReceiveControl [
        EN OFFSET(1) NUMBITS(1) [],
        /// Accept broadcasts.
        BAM OFFSET(15) NUMBITS(1) [],
        /// Buffer size.
        BSIZE OFFSET(16) NUMBITS(2) [Bytes2048 = 0],
        /// Strip the frame check sequence.
        SECRC OFFSET(26) NUMBITS(1) [],
    ],
    /// Receive filter control.
    pub ReceiveFilter [
        /// No separate interrupt cause for TCP acknowledgements.
        ACKDIS OFFSET(12) NUMBITS(1) [],
        /// The same for acknowledgements that carry data.
        ACKD_DIS OFFSET(13) NUMBITS(1) [],
    ],
    /// Transmit control.
    pub TransmitControl [
        EN OFFSET(1) NUMBITS(1) [],
        /// Pad short packets.
        PSP OFFSET(3) NUMBITS(1) [],
        /// Collision threshold.
        CT OFFSET(4) NUMBITS(8) [],
        /// Collision distance.
        COLD OFFSET(12) NUMBITS(10) [],
    ],
    /// Receive and transmit descriptor control.
    pub DescriptorControl [
        /// Write-back threshold.
        WTHRESH OFFSET(16) NUMBITS(6) [],
        /// Must be 1 in the transmit register of this device.
        COUNT_DESC OFFSET(22) NUMBITS(1) [],
        /// Thresholds count descriptors, not cache lines.
        GRAN OFFSET(24) NUMBITS(1) [],
    ],
    /// Transmit arbitration.
    pub Arbitration [
        /// Reserved; the drivers of Linux and FreeBSD set it on this device.
        RESERVED_26 OFFSET(26) NUMBITS(1) [],
        /// Reserved; the same drivers clear them.
        RESERVED_27 OFFSET(27) NUMBITS(4) [],
    ],
    /// PCI Express control.
    pub BusControl [
        /// Reserved; the drivers of Linux and FreeBSD set it on this device.
        RESERVED_22 OFFSET(22) NUMBITS(1) [],
    ],
    /// Second PCI Express control.
    pub BusControl2 [
        /// Reserved; the same drivers set it, as a work-around for completions
        /// that the device drops.
        RESERVED_0 OFFSET(0) NUMBITS(1) [],
    ],
    /// Upper half of a receive address.
    pub AddressHigh [
        /// Bytes 4 and 5 of the address.
        HIGH OFFSET(0) NUMBITS(16) [],
        /// Address valid.
        AV OFFSET(31) NUMBITS(1) [],
    ],
];

// 10.2.2, general registers.
/// Device control.
pub const CTRL: Register<Control::Register> = Register::at(0x0000);
/// Device status.
pub const STATUS: Register<Status::Register> = Register::at(0x0008);
/// NVM control.
pub const EECD: Register<NvmControl::Register> = Register::at(0x0010);
/// Extended device control.
pub const CTRL_EXT: Register<ControlExt::Register> = Register::at(0x0018);
/// Extended configuration control.
pub const EXTCNF_CTRL: Register<ExtendedConfiguration::Register> = Register::at(0x0f00);
/// PCI Express control.
pub const GCR: Register<BusControl::Register> = Register::at(0x5b00);
/// Second PCI Express control.
pub const GCR2: Register<BusControl2::Register> = Register::at(0x5b64);

// 10.2.4, interrupt registers.
/// Cause read; writing 1 clears a cause.
pub const ICR: Register<Cause::Register> = Register::at(0x00c0);
/// Throttling of all interrupts, in units of 256 ns.
pub const ITR: Register = Register::at(0x00c4);
/// Cause set: raises causes as if their events had happened.
pub const ICS: Register<Cause::Register> = Register::at(0x00c8);
/// Mask set.
pub const IMS: Register<Cause::Register> = Register::at(0x00d0);
/// Mask clear.
pub const IMC: Register<Cause::Register> = Register::at(0x00d8);
/// Causes that clear themselves when their MSI-X message is sent.
pub const EIAC: Register<Cause::Register> = Register::at(0x00dc);
/// Causes that mask themselves.
pub const IAM: Register<Cause::Register> = Register::at(0x00e0);
/// MSI-X entry of each cause group.
pub const IVAR: Register<Allocation::Register> = Register::at(0x00e4);
/// Throttling by MSI-X entry (five registers), in units of 256 ns.
pub const EITR: [Register; 5] = [
    Register::at(0x00e8),
    Register::at(0x00ec),
    Register::at(0x00f0),
    Register::at(0x00f4),
    Register::at(0x00f8),
];

// 10.2.5, receive registers.
/// Receive control.
pub const RCTL: Register<ReceiveControl::Register> = Register::at(0x0100);
/// Receive ring address, low half.
pub const RDBAL: Register = Register::at(0x2800);
/// Receive ring address, high half.
pub const RDBAH: Register = Register::at(0x2804);
/// Receive ring length in bytes, a multiple of 128.
pub const RDLEN: Register = Register::at(0x2808);
/// Receive ring head: the device's next descriptor.
pub const RDH: Register = Register::at(0x2810);
/// Receive ring tail: the first descriptor that the device must not use.
pub const RDT: Register = Register::at(0x2818);
/// Delay of receive interrupts.
pub const RDTR: Register = Register::at(0x2820);
/// Receive descriptor control.
pub const RXDCTL: Register<DescriptorControl::Register> = Register::at(0x2828);
/// Absolute delay of receive interrupts.
pub const RADV: Register = Register::at(0x282c);
/// Receive filter control.
pub const RFCTL: Register<ReceiveFilter::Register> = Register::at(0x5008);
/// First of [`MTA_LEN`] words of the multicast hash table.
pub const MTA: u32 = 0x5200;
/// Number of words in the multicast hash table.
pub const MTA_LEN: u32 = 128;
/// First receive address, low half: bytes 0 to 3 of the station address.
pub const RAL0: Register = Register::at(0x5400);
/// First receive address, high half.
pub const RAH0: Register<AddressHigh::Register> = Register::at(0x5404);

// 10.2.6, transmit registers.
/// Transmit control.
pub const TCTL: Register<TransmitControl::Register> = Register::at(0x0400);
/// Inter-packet gap.
pub const TIPG: Register = Register::at(0x0410);
/// Transmit ring address, low half.
pub const TDBAL: Register = Register::at(0x3800);
/// Transmit ring address, high half.
pub const TDBAH: Register = Register::at(0x3804);
/// Transmit ring length in bytes, a multiple of 128.
pub const TDLEN: Register = Register::at(0x3808);
/// Transmit ring head: the device's next descriptor.
pub const TDH: Register = Register::at(0x3810);
/// Transmit ring tail: the first descriptor that the device must not use.
pub const TDT: Register = Register::at(0x3818);
/// Transmit descriptor control.
pub const TXDCTL: Register<DescriptorControl::Register> = Register::at(0x3828);
/// Transmit arbitration of queue 0.
pub const TARC0: Register<Arbitration::Register> = Register::at(0x3840);
/// Transmit descriptor control of queue 1, which is not used.
pub const TXDCTL1: Register<DescriptorControl::Register> = Register::at(0x3928);

// 10.2.7, statistics; reading clears them.
/// Frames with a bad check sequence.
pub const CRCERRS: Register = Register::at(0x4000);
/// Frames lost because the receive FIFO was full.
pub const MPC: Register = Register::at(0x4010);
