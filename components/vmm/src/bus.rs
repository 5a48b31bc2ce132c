//! What answers the guest's port and memory accesses: configuration mechanism
//! #1 and the window of configuration space, a serial port, an exit port, the pages of local
//! APIC and I/O APIC, the ports of BARs, and the BAR pages that cannot be mapped.

use core::ops::Range;

use channel::irq_router::SourceKind;
use channel::msix::FunctionBar;
use channel::pci_config::Effect;
use pci::regs::{CONFIG_ADDRESS, CONFIG_DATA, CONFIG_ENABLE};
use pci::{Bdf, FUNCTION_BARS, FunctionInfo, GUEST_FUNCTIONS, PAGE_SIZE, Width};
use spec::{COM1, CONFIG_WINDOW, EXIT_PORT, EXIT_RESET, EXIT_SUCCESS};

use crate::bar_map::BarMap;
use crate::counters::Counters;
use crate::host::{Host, PciFunctions, StopReason, Unclaimed};
use crate::ioapic::IoApic;
use crate::lapic::{EOI, LAPIC_BASE, Lapic};
use crate::mmio::Bus;
use crate::pc::{Pc, Transition};
use crate::slots::bits;
use crate::uart::Uart;

const CONFIG_DATA_LAST: u16 = CONFIG_DATA + 3;
const UART_LAST: u16 = COM1 + 7;

/// Pages of BARs that are mapped and unmapped for one access above all guests: each
/// costs about a thousand instructions, and what takes longer than 100 us (300,000
/// of them at 3 GHz) is done while other guests go on.
const PAGES_AT_ONCE: u64 = 256;

/// Returns whether it takes long to map, or to unmap, so many pages
/// ([`FunctionInfo::grain_count`]) of BARs one after another.
pub fn is_long(pages: impl Iterator<Item = u64>) -> bool {
    // A function that is not given its BAR's pages may say that there are any number.
    pages.fold(0, u64::saturating_add) > PAGES_AT_ONCE
}

/// Returns the smallest range that has both in it, of which the first may be empty.
fn hull(a: &Range<u64>, b: &Range<u64>) -> Range<u64> {
    if a.is_empty() {
        b.clone()
    } else {
        a.start.min(b.start)..a.end.max(b.end)
    }
}

/// The devices' state.
#[derive(Debug)]
pub struct Devices<'a> {
    bars: BarMap<'a>,
    /// From the first to the last port that a BAR decodes: most accesses are to others.
    ports: Range<u64>,
    config_address: u32,
    uart: Uart,
    /// I/O APIC.
    pub ioapic: IoApic,
    /// The other devices of a PC, for a guest that has them.
    pub pc: Option<Pc>,
}

impl<'a> Devices<'a> {
    /// Devices as at reset; functions past [`GUEST_FUNCTIONS`] are not there.
    #[must_use]
    pub fn new(functions: &'a [FunctionInfo]) -> Self {
        Self {
            bars: BarMap::new(functions),
            ports: 0..0,
            config_address: 0,
            uart: Uart::default(),
            ioapic: IoApic::new(functions),
            pc: None,
        }
    }

    /// Asks where every BAR is and maps or unmaps what changed. Unmapping comes
    /// first, since a BAR may move to where another one was. Of BARs that a guest
    /// lays over each other, the first decodes: a page can be mapped once only.
    // Its lists would make the stack frame of every trap a large one.
    #[inline(never)]
    pub fn refresh_bars(&mut self, host: &mut impl PciFunctions) {
        let mut moved = [[None; FUNCTION_BARS]; GUEST_FUNCTIONS];
        let mut ports = 0..0;
        // No port is an address inside of a window.
        let mut decoded: heapless::Vec<Range<u64>, { GUEST_FUNCTIONS * FUNCTION_BARS }> =
            heapless::Vec::new();
        for (info, moved) in self.bars.functions().iter().zip(&mut moved) {
            for (bar, bar_info) in info.bars.iter().enumerate() {
                if !bar_info.is_memory() && !bar_info.has_ports() {
                    continue;
                }
                let range = host.bar(info.index, bar).and_then(|start| {
                    let range = start..start.checked_add(bar_info.size)?;
                    let free =
                        |other: &Range<u64>| range.end <= other.start || other.end <= range.start;
                    (bar_info.fits(start) && decoded.iter().all(free)).then_some(range)
                });
                moved[bar] = range.as_ref().map(|range| range.start);
                if let Some(range) = range {
                    if bar_info.has_ports() {
                        ports = hull(&ports, &range);
                    }
                    // It has room for every BAR that there can be.
                    let _ = decoded.push(range);
                }
            }
        }
        let mut changes: heapless::Vec<_, { 2 * GUEST_FUNCTIONS * FUNCTION_BARS }> =
            heapless::Vec::new();
        for unmap in [true, false] {
            let addresses = self.bars.addresses.iter().zip(moved);
            for (info, (before, after)) in self.bars.functions().iter().zip(addresses) {
                for (bar, (&before, after)) in before.iter().zip(after).enumerate() {
                    let wanted = if unmap { before } else { after };
                    if before != after && wanted.is_some() {
                        // It has room for both passes over every BAR.
                        let _ = changes.push((info, bar, after.filter(|_| !unmap)));
                    }
                }
            }
        }
        let long = is_long(changes.iter().map(|&(info, bar, _)| info.grain_count(bar)));
        for (info, bar, address) in changes {
            host.map_bar(info.index, bar, address, long);
        }
        self.bars.addresses = moved;
        self.ports = ports;
    }

    /// Returns the BAR that decodes all ports of an access, and the offset in it.
    fn ports_of_bar(&self, port: u16, width: Width) -> Option<(FunctionBar, u16)> {
        let near = self.ports.contains(&port.into());
        near.then(|| self.bars.ports(port, width))?
    }

    /// Returns whether a BAR decodes an address.
    #[must_use]
    pub fn decodes(&self, address: u64) -> bool {
        self.bars.place(address, Width::Byte).is_some()
    }

    fn config_target(&self, port: u16, width: Width) -> Option<(Bdf, u16)> {
        let end = u64::from(port - CONFIG_DATA) + width.bytes();
        if self.config_address & CONFIG_ENABLE == 0 || end > 4 {
            return None;
        }
        let bdf = Bdf::from_requester_id((self.config_address >> 8) as u16);
        let offset = (self.config_address & 0xfc) as u16 | (port & 3);
        Some((bdf, offset))
    }

    /// Writes configuration space, and maps BARs as that says before the guest goes on.
    fn config_write(
        &mut self,
        bdf: Bdf,
        offset: u16,
        width: Width,
        value: u32,
        host: &mut impl PciFunctions,
    ) {
        let effect = host.config_write(bdf, offset, width, value);
        if effect.contains(Effect::DECODE) || effect.contains(Effect::RESET) {
            self.refresh_bars(host);
        }
    }

    /// Reads a port. Those of BARs come last: a guest that lays a BAR over another device's
    /// ports has that device there.
    pub fn port_read(
        &mut self,
        port: u16,
        width: Width,
        host: &mut impl Host,
        counters: &mut Counters,
    ) -> u32 {
        let nothing = width.all_ones() as u32;
        match port {
            CONFIG_ADDRESS if width == Width::Dword => self.config_address,
            CONFIG_DATA..=CONFIG_DATA_LAST => self
                .config_target(port, width)
                .map_or(nothing, |(bdf, offset)| {
                    host.config_read(bdf, offset, width)
                }),
            COM1..=UART_LAST if width == Width::Byte => u32::from(self.uart.read(port - COM1)),
            _ => {
                let pc = self.pc.as_mut();
                if let Some(value) = pc.and_then(|pc| pc.read(port, width, host.now())) {
                    return value;
                }
                if let Some((place, offset)) = self.ports_of_bar(port, width) {
                    return host.ports_read(place, offset, width);
                }
                counters.unclaimed_ports += 1;
                host.report_unclaimed(Unclaimed::Port(port));
                nothing
            }
        }
    }

    /// Writes a port. Returns why the guest stops, if this ended it.
    pub fn port_write(
        &mut self,
        port: u16,
        width: Width,
        value: u32,
        host: &mut impl Host,
        counters: &mut Counters,
    ) -> Option<StopReason> {
        match port {
            CONFIG_ADDRESS if width == Width::Dword => self.config_address = value,
            CONFIG_DATA..=CONFIG_DATA_LAST => {
                let (bdf, offset) = self.config_target(port, width)?;
                self.config_write(bdf, offset, width, value, host);
            }
            COM1..=UART_LAST if width == Width::Byte => {
                if let Some(byte) = self.uart.write(port - COM1, value as u8) {
                    host.console_write(byte);
                }
            }
            EXIT_PORT => return Some(StopReason::Exit(value)),
            _ => {
                let pc = self.pc.as_mut();
                match pc.and_then(|pc| pc.write(port, width, value, host.now())) {
                    Some(Some(Transition::Off)) => return Some(StopReason::Exit(EXIT_SUCCESS)),
                    Some(Some(Transition::Reset)) => return Some(StopReason::Exit(EXIT_RESET)),
                    Some(None) => {}
                    None => match self.ports_of_bar(port, width) {
                        Some((place, offset)) => host.ports_write(place, offset, width, value),
                        None => {
                            counters.unclaimed_ports += 1;
                            host.report_unclaimed(Unclaimed::Port(port));
                        }
                    },
                }
            }
        }
        None
    }
}

/// Returns the function and the offset of an access to [`CONFIG_WINDOW`].
fn config_place(address: u64) -> Option<(Bdf, u16)> {
    let inside = CONFIG_WINDOW.contains(&address);
    let offset = address.wrapping_sub(CONFIG_WINDOW.start);
    inside.then(|| {
        let bdf = Bdf::from_requester_id((offset / PAGE_SIZE) as u16);
        (bdf, (offset % PAGE_SIZE) as u16)
    })
}

/// One memory access of the guest, with all that can answer it.
pub struct MemoryAccess<'a, 'f, H> {
    /// Devices.
    pub devices: &'a mut Devices<'f>,
    /// Local APIC.
    pub lapic: &'a mut Lapic,
    /// The local APIC's page is there: not in x2APIC mode.
    pub xapic: bool,
    /// Slots with an event that is held back (M20).
    pub held: u64,
    /// Surroundings.
    pub host: &'a mut H,
    /// Counters.
    pub counters: &'a mut Counters,
}

impl<H: Host> MemoryAccess<'_, '_, H> {
    /// Returns the register of the local APIC at an address: 32-bit aligned
    /// accesses only (SDM vol. 3 section 11.4.1).
    fn lapic_register(&self, address: u64, width: Width) -> Option<u32> {
        let offset = address.checked_sub(LAPIC_BASE)?;
        (self.xapic && offset < PAGE_SIZE && offset % 16 == 0 && width == Width::Dword)
            .then_some(offset as u32)
    }

    fn unclaimed(&mut self, address: u64) {
        self.counters.unclaimed_memory += 1;
        self.host.report_unclaimed(Unclaimed::Memory(address));
    }

    /// Reads configuration space: 8 bytes are two dwords (C1). An access that is not aligned,
    /// which one past the function's end is not either, reads all ones: pci-config counts it.
    fn config_read(&mut self, bdf: Bdf, offset: u16, width: Width) -> u64 {
        let mut read = |offset, width| u64::from(self.host.config_read(bdf, offset, width));
        match width {
            Width::Qword if width.is_aligned(offset.into()) => {
                read(offset, Width::Dword) | read(offset + 4, Width::Dword) << 32
            }
            _ => read(offset, width) | width.all_ones() & !u64::from(u32::MAX),
        }
    }

    /// Writes configuration space likewise.
    fn config_write(&mut self, bdf: Bdf, offset: u16, width: Width, value: u64) {
        let mut write = |offset, width, value| {
            self.devices
                .config_write(bdf, offset, width, value as u32, self.host);
        };
        if width == Width::Qword && width.is_aligned(offset.into()) {
            write(offset, Width::Dword, value);
            write(offset + 4, Width::Dword, value >> 32);
        } else {
            write(offset, width, value);
        }
    }

    /// Returns the bits of a PBA read that stand for events held here.
    fn held_bits(&mut self, place: FunctionBar, offset: u32, width: Width) -> u64 {
        if self.held == 0 {
            return 0;
        }
        let Some(info) = self.devices.bars.function(place.function) else {
            return 0;
        };
        let msix = info.msix;
        if msix.pba_bar != u32::from(place.bar) {
            return 0;
        }
        let mut pending = 0;
        for slot in bits(self.held) {
            let Some(route) = self.host.route(slot) else {
                continue;
            };
            let source = route.source;
            if (source.function, source.kind) != (place.function, SourceKind::Msix) {
                continue;
            }
            let bit = u64::from(msix.pba_offset) * 8 + u64::from(source.entry);
            let first = u64::from(offset) * 8;
            if bit >= first && bit < first + width.bytes() * 8 {
                pending |= 1 << (bit - first);
            }
        }
        pending
    }
}

impl<H: Host> Bus for MemoryAccess<'_, '_, H> {
    fn read(&mut self, address: u64, width: Width) -> u64 {
        if let Some(register) = self.lapic_register(address, width) {
            let now = self.host.now();
            return u64::from(self.lapic.read(register, now));
        }
        if let Some(register) = IoApic::register(address, width) {
            return self.devices.ioapic.read(register).into();
        }
        if let Some((bdf, offset)) = config_place(address) {
            return self.config_read(bdf, offset, width);
        }
        if let Some((place, offset)) = self.devices.bars.claimed(address, width) {
            let value = self.host.table_read(place, offset, width);
            return value | self.held_bits(place, offset, width);
        }
        self.unclaimed(address);
        width.all_ones()
    }

    fn write(&mut self, address: u64, width: Width, value: impl FnOnce() -> u64) {
        if let Some(register) = self.lapic_register(address, width) {
            if register == EOI {
                self.lapic.end_of_interrupt();
                return;
            }
            let now = self.host.now();
            self.lapic.write(register, value() as u32, now);
        } else if let Some(register) = IoApic::register(address, width) {
            let ioapic = &mut self.devices.ioapic;
            ioapic.write(register, value() as u32, self.host);
        } else if let Some((bdf, offset)) = config_place(address) {
            self.config_write(bdf, offset, width, value());
        } else if let Some((place, offset)) = self.devices.bars.claimed(address, width) {
            self.host.table_write(place, offset, width, value());
        } else {
            self.unclaimed(address);
        }
    }
}
