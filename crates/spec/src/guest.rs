//! Ports and numbers by which guests and what runs them know each other
//! (guests/README.md).

/// Data register of a PC's first serial port: the guest's console, and the
/// machine's where the image names no other.
pub const COM1: u16 = 0x3f8;
/// The port on which a guest writes how it ended: where guests have QEMU's
/// isa-debug-exit when they run without seL4.
pub const EXIT_PORT: u16 = 0xf4;
/// Value that a guest writes there when it succeeded.
pub const EXIT_SUCCESS: u32 = 0x10;
/// How a guest's end counts that reset its machine: neither a success nor a panic. A
/// guest whose entry says `on-exit = "restart"` is started again.
pub const EXIT_RESET: u32 = 0x12;
/// Guest addresses of configuration space as memory (ECAM, PCIe 6.0 section 7.2.2): that of bus
/// 00, where all functions of a guest are. It lies behind the interrupt messages, where no RAM
/// and no BAR of a guest can be.
pub const CONFIG_WINDOW: core::ops::Range<u64> = 0xfef0_0000..0xff00_0000;
