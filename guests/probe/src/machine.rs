//! The machine that the checks run on: ports, memory, interrupts.

use kit::pci::Bdf;

/// Configuration address port (PCI Local Bus 3.0 section 3.2.2.3.2).
pub const CONFIG_ADDRESS: u16 = 0xcf8;
/// First of the four configuration data ports.
pub const CONFIG_DATA: u16 = 0xcfc;
/// Enable bit of the configuration address.
pub const CONFIG_ENABLE: u32 = 1 << 31;

/// Ports and device memory, at any width and alignment.
pub trait Machine {
    /// Reads `bytes` (1, 2 or 4) bytes from a port.
    fn port_read(&mut self, port: u16, bytes: u8) -> u32;
    /// Writes `bytes` (1, 2 or 4) bytes to a port.
    fn port_write(&mut self, port: u16, bytes: u8, value: u32);
    /// Reads `bytes` (1, 2, 4 or 8) bytes of device memory; `None` if this
    /// machine has no way to that address.
    fn memory_read(&mut self, address: u64, bytes: u8) -> Option<u64>;
    /// Writes `bytes` (1, 2, 4 or 8) bytes of device memory; false if there is
    /// no way to that address.
    fn memory_write(&mut self, address: u64, bytes: u8, value: u64) -> bool;
}

/// Where interrupts arrive.
pub trait Cpu {
    /// Returns the interrupts taken on `vector` so far.
    fn taken(&self, vector: u8) -> u64;
    /// Opens interrupts until one was taken, or for some milliseconds.
    fn rest(&mut self);
    /// Returns the APIC identifier, as the destination of a message.
    fn destination(&self) -> u8;
}

/// A device that can be told to raise an interrupt.
pub trait Source {
    /// Returns the MSI-X entry that it raises.
    fn entry(&self) -> u32;
    /// Makes it raise that entry once; without MSI and MSI-X, its pin.
    fn raise(&mut self);
    /// Ends the level on its pin.
    fn lower(&mut self);
}

/// Returns the configuration address of a dword.
pub fn config_address(bdf: Bdf, offset: u8) -> u32 {
    CONFIG_ENABLE
        | u32::from(bdf.bus) << 16
        | u32::from(bdf.device & 31) << 11
        | u32::from(bdf.function & 7) << 8
        | u32::from(offset & 0xfc)
}

/// Reads `bytes` bytes of configuration space; `offset` is a multiple of them.
pub fn config_read(machine: &mut impl Machine, bdf: Bdf, offset: u8, bytes: u8) -> u32 {
    machine.port_write(CONFIG_ADDRESS, 4, config_address(bdf, offset));
    machine.port_read(CONFIG_DATA + u16::from(offset & 3), bytes)
}

/// Writes `bytes` bytes of configuration space; `offset` is a multiple of them.
pub fn config_write(machine: &mut impl Machine, bdf: Bdf, offset: u8, bytes: u8, value: u32) {
    machine.port_write(CONFIG_ADDRESS, 4, config_address(bdf, offset));
    machine.port_write(CONFIG_DATA + u16::from(offset & 3), bytes, value);
}
