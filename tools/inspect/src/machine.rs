//! A function that is a dump's bytes, as discovery and pci-config reach it.

use models::Registers;
use pci::{CapabilityList, ConfigSpace, FUNCTION_BARS, PAGE_SIZE, Width, regs};
use pci_config::Hardware;

use crate::dump::Dump;

/// Bytes without extended space, and with it.
const CONVENTIONAL: usize = 256;
const EXTENDED: usize = 4096;
/// Ports that a BAR has at most (PCI Local Bus 3.0 section 6.2.5.1).
const MOST_PORTS: u64 = 256;

/// The function.
#[derive(Clone)]
pub struct Device {
    registers: Registers,
    /// The registers by which it is reset are said to be at hand.
    pub has_registers: bool,
    /// Whether the dump tells the size of each BAR.
    pub sized: [bool; FUNCTION_BARS],
}

impl Device {
    /// Creates it. What the dump lacks behind its end reads 0.
    pub fn new(dump: &Dump) -> Self {
        let mut bytes = dump.config.clone();
        let size = if bytes.len() > CONVENTIONAL {
            EXTENDED
        } else {
            CONVENTIONAL
        };
        bytes.resize(size, 0);
        let mut device = Self {
            registers: Registers::new(bytes),
            has_registers: false,
            sized: [true; FUNCTION_BARS],
        };
        let needs = device.needs();
        let mut masks = [0; FUNCTION_BARS];
        let mut index = 0;
        while index < FUNCTION_BARS {
            index += device.size(dump, index, &needs, &mut masks);
        }
        device.registers = device.registers.with_bar_masks(masks);
        device
    }

    /// Returns the bytes that each BAR must have for the MSI-X capability to be sound.
    fn needs(&mut self) -> [u64; FUNCTION_BARS] {
        let mut needs = [0; FUNCTION_BARS];
        let Some(at) = CapabilityList::read(self).find(regs::CAP_MSIX) else {
            return needs;
        };
        for place in [regs::MSIX_TABLE, regs::MSIX_PBA] {
            // 8 bytes at least; the upper half of a size is not told by this.
            let value = match at + place {
                offset if usize::from(offset) + 4 <= CONVENTIONAL => self.read32(offset),
                _ => continue,
            };
            if let Some(need) = needs.get_mut(value as usize & 7) {
                *need = (*need).max(u64::from(value & !7) + 8);
            }
        }
        needs
    }

    /// Sets the bits of a BAR that can be written, and returns how many registers it has.
    fn size(
        &mut self,
        dump: &Dump,
        index: usize,
        needs: &[u64; FUNCTION_BARS],
        masks: &mut [u32; FUNCTION_BARS],
    ) -> usize {
        let at = regs::BAR0 + 4 * index as u16;
        let low = self.read32(at);
        let ports = low & 1 == 1;
        let wide = low & 7 == 4 && index + 1 < FUNCTION_BARS;
        let high = if wide { self.read32(at + 4) } else { 0 };
        let flags = if ports { 3 } else { 15 };
        let address = u64::from(high) << 32 | u64::from(low & !flags);
        let told = dump.regions[index];
        let elsewhere = |region: crate::Region| region.ports || region.address != 0;
        if low == 0 && high == 0 && told.is_none_or(elsewhere) {
            // A BAR that is not there, or not in a register: ports of old disk
            // controllers, Enhanced Allocation.
            return 1;
        }
        let fits = |size: u64| size > u64::from(flags) && address & (size - 1) == 0;
        let told = told.filter(|region| region.ports == ports && fits(region.size));
        self.sized[index] = told.is_some();
        let aligned = address & address.wrapping_neg();
        let size = told.map_or_else(
            || {
                let most = if aligned == 0 { 1 << 31 } else { aligned };
                let likely = match (ports, needs[index]) {
                    (true, _) => MOST_PORTS,
                    (false, need) => need.next_power_of_two().max(PAGE_SIZE),
                };
                likely.min(most)
            },
            |region| region.size,
        );
        let mask = !(size - 1);
        masks[index] = mask as u32 & !flags;
        if wide {
            masks[index + 1] = (mask >> 32) as u32;
        }
        1 + usize::from(wide)
    }
}

impl ConfigSpace for Device {
    fn read32(&mut self, offset: u16) -> u32 {
        self.registers.read(offset, Width::Dword)
    }
    fn write32(&mut self, offset: u16, value: u32) {
        self.registers.write(offset, Width::Dword, value);
    }
    fn write16(&mut self, offset: u16, value: u16) {
        self.registers.write(offset, Width::Word, value.into());
    }
}

impl Hardware for Device {
    fn read(&mut self, offset: u16, width: Width) -> u32 {
        self.registers.read(offset, width)
    }
    fn write(&mut self, offset: u16, width: Width, value: u32) {
        self.registers.write(offset, width, value);
    }
    fn has_registers(&self) -> bool {
        self.has_registers
    }
    fn has_extended_space(&self) -> bool {
        self.registers.is_extended()
    }
    fn now_ms(&mut self) -> u64 {
        0
    }
}
