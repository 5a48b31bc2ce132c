//! Offsets and bits of configuration space (PCI Local Bus 3.0 chapter 6,
//! PCIe 6.0 section 7.5), in bytes from the start of the function's space, and the
//! ports through which that is reached.

/// Configuration address port of mechanism #1 (PCI Local Bus 3.0 section
/// 3.2.2.3.2).
pub const CONFIG_ADDRESS: u16 = 0xcf8;
/// First of the four configuration data ports.
pub const CONFIG_DATA: u16 = 0xcfc;
/// Enable bit of the configuration address.
pub const CONFIG_ENABLE: u32 = 1 << 31;
/// Vendor id, 16 bits, of which 0xffff means that no function is there, and device id behind it.
pub const VENDOR: u16 = 0x00;
/// Command register, 16 bits.
pub const COMMAND: u16 = 0x04;
/// Status register, 16 bits.
pub const STATUS: u16 = 0x06;
/// Revision id, 8 bits; the class code is the 24 bits above it.
pub const REVISION: u16 = 0x08;
/// Header type, 8 bits: layout in 6:0, multi-function in 7.
pub const HEADER_TYPE: u16 = 0x0e;
/// First base address register, 32 bits; six of them in a type 0 header.
pub const BAR0: u16 = 0x10;
/// Expansion ROM base address, 32 bits.
pub const ROM: u16 = 0x30;
/// Pointer to the first capability, 8 bits, low two reserved.
pub const CAPABILITIES: u16 = 0x34;
/// Interrupt line, 8 bits: software's own scratch.
pub const INTERRUPT_LINE: u16 = 0x3c;
/// Interrupt pin, 8 bits: 0 none, 1 to 4 INTA to INTD.
pub const INTERRUPT_PIN: u16 = 0x3d;

/// Command: I/O space decode.
pub const COMMAND_IO: u16 = 1 << 0;
/// Command: memory space decode.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command: bus mastering, without which a function sends no DMA and no MSI.
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Command: INTx disable.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// Status: a capability list is present.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Capability id: power management.
pub const CAP_PM: u8 = 0x01;
/// Capability id: MSI.
pub const CAP_MSI: u8 = 0x05;
/// Capability id: vendor specific.
pub const CAP_VENDOR: u8 = 0x09;
/// Capability id: Advanced Features (Advanced Capabilities for Conventional PCI
/// ECN of 2006).
pub const CAP_AF: u8 = 0x13;
/// Capability id: PCI Express.
pub const CAP_PCIE: u8 = 0x10;
/// Capability id: MSI-X.
pub const CAP_MSIX: u8 = 0x11;

/// MSI-X message control, 16 bits, from the start of the capability.
pub const MSIX_CONTROL: u16 = 2;
/// MSI-X table offset and BIR, 32 bits, from the start of the capability.
pub const MSIX_TABLE: u16 = 4;
/// MSI-X PBA offset and BIR, 32 bits, from the start of the capability.
pub const MSIX_PBA: u16 = 8;
/// MSI-X message control: enable.
pub const MSIX_CONTROL_ENABLE: u16 = 1 << 15;
/// MSI-X message control: function mask.
pub const MSIX_CONTROL_FUNCTION_MASK: u16 = 1 << 14;
/// PCI Express device capabilities, 32 bits, from the start of the capability.
pub const PCIE_DEVICE_CAPABILITIES: u16 = 4;
/// PCI Express device control, 16 bits, from the start of the capability.
pub const PCIE_DEVICE_CONTROL: u16 = 8;
/// PCI Express device status, 16 bits, from the start of the capability.
pub const PCIE_DEVICE_STATUS: u16 = 10;
/// PCI Express link control, 16 bits, from the start of the capability.
pub const PCIE_LINK_CONTROL: u16 = 0x10;
/// PCI Express link control: the link's active state power management.
pub const PCIE_LINK_CONTROL_ASPM: u16 = 3;
/// Advanced Features: capabilities, 8 bits, from the start of the capability.
pub const AF_CAPABILITIES: u16 = 3;
/// Advanced Features: the pending bit is there.
pub const AF_TRANSACTIONS_PENDING: u8 = 1 << 0;
/// Advanced Features: function-level reset is there.
pub const AF_FLR: u8 = 1 << 1;
/// Advanced Features control, 8 bits, from the start of the capability.
pub const AF_CONTROL: u16 = 4;
/// Advanced Features control: initiate a function-level reset.
pub const AF_CONTROL_FLR: u8 = 1 << 0;
/// Advanced Features status, 8 bits, from the start of the capability.
pub const AF_STATUS: u16 = 5;
/// Advanced Features status: transactions are pending.
pub const AF_STATUS_PENDING: u8 = 1 << 0;
/// Power management control and status, 16 bits, from the start of the capability
/// (PCIe 6.0 section 7.5.2.2).
pub const PM_CONTROL: u16 = 4;
/// Power management control: the power state, 0 for D0.
pub const PM_CONTROL_STATE: u16 = 3;
/// The power state D3hot.
pub const PM_CONTROL_D3HOT: u16 = 3;
/// Power management control: from D3hot to D0 nothing is forgotten.
pub const PM_CONTROL_NO_SOFT_RESET: u16 = 1 << 3;
/// Power management status: an event is pending; cleared by writing 1.
pub const PM_CONTROL_EVENT: u16 = 1 << 15;
/// PCI Express device capabilities: function-level reset is there.
pub const PCIE_DEVICE_CAPABILITIES_FLR: u32 = 1 << 28;
/// PCI Express device control: initiate a function-level reset.
pub const PCIE_DEVICE_CONTROL_FLR: u16 = 1 << 15;
/// PCI Express device status: transactions are pending.
pub const PCIE_DEVICE_STATUS_PENDING: u16 = 1 << 5;
/// MSI message control, 16 bits, from the start of the capability.
pub const MSI_CONTROL: u16 = 2;
/// MSI message address, its low half, from the start of the capability.
pub const MSI_ADDRESS: u16 = 4;
/// MSI message control: enable.
pub const MSI_CONTROL_ENABLE: u16 = 1 << 0;
