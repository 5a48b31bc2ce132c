//! Register map of the Intel 82574L, as far as the engine goes.
//!
//! From the Intel 82574 GbE Controller Family datasheet, section 10.2.

/// Device control.
pub const CTRL: u32 = 0x0000;
/// Full duplex.
pub const CTRL_FD: u32 = 1 << 0;
/// No new requests on the bus.
pub const CTRL_GIO_MASTER_DISABLE: u32 = 1 << 2;
/// Set link up. A frame that loops inside the MAC needs it too.
pub const CTRL_SLU: u32 = 1 << 6;
/// Full device reset; clears itself.
pub const CTRL_RST: u32 = 1 << 26;
/// Device status; read to let time pass.
pub const STATUS: u32 = 0x0008;
/// Requests on the bus are possible or under way.
pub const STATUS_GIO_MASTER_EN: u32 = 1 << 19;
/// NVM control.
pub const EECD: u32 = 0x0010;
/// The NVM has been read after a reset.
pub const EECD_AUTO_RD: u32 = 1 << 9;
/// Interrupt causes; writing 1 clears one.
pub const ICR: u32 = 0x00c0;
/// Interrupt mask clear.
pub const IMC: u32 = 0x00d8;

/// Receive control.
pub const RCTL: u32 = 0x0100;
/// Receiver enable.
pub const RCTL_EN: u32 = 1 << 1;
/// Take every unicast frame.
pub const RCTL_UPE: u32 = 1 << 3;
/// Take every multicast frame.
pub const RCTL_MPE: u32 = 1 << 4;
/// Loopback mode "MAC": sent frames are received.
pub const RCTL_LBM_MAC: u32 = 0b01 << 6;
/// Take broadcast frames.
pub const RCTL_BAM: u32 = 1 << 15;
/// Do not store the frame check sequence.
pub const RCTL_SECRC: u32 = 1 << 26;
/// Receive ring: address (low, high), length in bytes, head, tail.
pub const RDBAL: u32 = 0x2800;
/// See [`RDBAL`].
pub const RDBAH: u32 = 0x2804;
/// See [`RDBAL`].
pub const RDLEN: u32 = 0x2808;
/// See [`RDBAL`].
pub const RDH: u32 = 0x2810;
/// See [`RDBAL`].
pub const RDT: u32 = 0x2818;
/// Receive descriptor control.
pub const RXDCTL: u32 = 0x2828;

/// Transmit control.
pub const TCTL: u32 = 0x0400;
/// Transmitter enable.
pub const TCTL_EN: u32 = 1 << 1;
/// Collision threshold and distance as the datasheet recommends (10.2.6).
pub const TCTL_COLLISIONS: u32 = 0x0f << 4 | 0x3f << 12;
/// Inter-packet gap.
pub const TIPG: u32 = 0x0410;
/// The gap that the datasheet recommends (10.2.6): 8, 8, 6.
pub const TIPG_VALUE: u32 = 8 | 8 << 10 | 6 << 20;
/// Transmit ring: address (low, high), length in bytes, head, tail.
pub const TDBAL: u32 = 0x3800;
/// See [`TDBAL`].
pub const TDBAH: u32 = 0x3804;
/// See [`TDBAL`].
pub const TDLEN: u32 = 0x3808;
/// See [`TDBAL`].
pub const TDH: u32 = 0x3810;
/// See [`TDBAL`].
pub const TDT: u32 = 0x3818;
/// Transmit descriptor control.
pub const TXDCTL: u32 = 0x3828;
/// Descriptor control: write back each descriptor by itself (WTHRESH 1, GRAN).
pub const WRITE_BACK_EACH: u32 = 1 << 16 | 1 << 24;
/// Transmit descriptor control: must be 1 on this device.
pub const TXDCTL_COUNT_DESC: u32 = 1 << 22;

// Legacy descriptors (7.1.4, 7.2.10): address, then these fields in 8 bytes.
/// Receive, transmit: descriptor done.
pub const DONE: u64 = 1 << 32;
/// Transmit: the frame ends here.
pub const SEND_END: u64 = 1 << 24;
/// Transmit: insert the frame check sequence.
pub const SEND_FCS: u64 = 1 << 25;
/// Transmit: report status.
pub const SEND_REPORT: u64 = 1 << 27;
