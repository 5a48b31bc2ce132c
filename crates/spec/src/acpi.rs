//! Where a guest with `machine = "pc"` has its devices: what the build tool writes into
//! ACPI tables and the vmm emulates. The ports are those of QEMU's machine `q35`, which
//! some kernels use without looking into the tables.

/// PM1a event registers: status, and enable behind it, of two bytes each.
pub const PM1_EVENT: u16 = 0x600;
/// PM1a control register, of two bytes.
pub const PM1_CONTROL: u16 = 0x604;
/// Power management timer, of four bytes.
pub const PM_TIMER: u16 = 0x608;
/// Its frequency in Hz (ACPI 6.5 section 4.8.3.3).
pub const PM_TIMER_HZ: u32 = 3_579_545;
/// Sleep type of state S5, off.
pub const SLEEP_TYPE_S5: u8 = 0;
/// The reset control register.
pub const RESET_PORT: u16 = 0xcf9;
/// Value by which it resets the machine.
pub const RESET_VALUE: u8 = 6;
/// Interrupt of ACPI events, of which there are none.
pub const SCI: u8 = 9;
/// The byte of CMOS memory with the century.
pub const RTC_CENTURY: u8 = 0x32;
/// Guest-physical address of the I/O APIC's registers.
pub const IOAPIC_BASE: u64 = 0xfec0_0000;
/// The I/O APIC's pin that the 8254's channel 0 drives.
pub const TIMER_PIN: u8 = 2;
/// Where a PC's display has its memory: RAM ends there, and goes on at 1 MiB.
pub const DISPLAY: u64 = 0xa_0000;
/// Where a PC's firmware is. Nothing is between the display and it.
pub const FIRMWARE: core::ops::Range<u64> = 0xf_0000..0x10_0000;
/// The root pointer of ACPI's tables, which are behind it.
pub const RSDP: u64 = FIRMWARE.start;
