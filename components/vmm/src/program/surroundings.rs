//! What the VMM's logic reaches: guest RAM, the channels, the routing page, the
//! console ring.

use core::ops::Range;

use channel::events::{EventPage, SlotEvents};
use channel::irq_router::{Source, SourceKind};
use channel::msix::FunctionBar;
use channel::pci_config::Effect;
use channel::routes::{Route, RoutePage};
use channel::{Error, iommu, msix, pci_config, timer};
use heapless::Vec;
use pci::{Bdf, FUNCTION_BARS, FunctionInfo, Width};
use runtime::{Channel, Context, GuestRam, RateLimit};
use sel4::cap::{IoPort, Notification};
use shm::{Places, Ring};
use spec::{FUNCTIONS, FunctionId, names};
use vmm::{GuestMemory, Host, Interrupts, PciFunctions, Trapped, Unclaimed};

use super::bars::Bars;
use super::guest::Guest;
use super::pins::Pins;
use super::priority::Priority;

/// Bytes of guest output that are collected before they go into the ring.
const CONSOLE_BATCH: usize = 128;

/// The component's implementation of the VMM's surroundings.
pub struct Surroundings<'a> {
    functions: &'a [FunctionInfo],
    ram: GuestRam,
    config: pci_config::Client<Channel>,
    table: msix::table::Client<Channel>,
    timer: timer::Client<Channel>,
    /// What lets the guest's functions reach its memory, where there is an iommu
    /// component.
    dma: Option<iommu::dma::Client<Channel>>,
    bars: Bars,
    context: Context,
    routes: &'static RoutePage,
    events: &'static EventPage,
    storms: RateLimit,
    unclaimed: RateLimit,
    pins: Pins,
    guest: &'a Guest,
    priority: Priority,
    console: &'static Ring,
    doorbell: Notification,
    output: Vec<u8, CONSOLE_BATCH>,
    /// Log every access to configuration space and MSI-X pages.
    trace: bool,
    /// Where the guest has each BAR, for the trace.
    addresses: [[Option<u64>; FUNCTION_BARS]; FUNCTIONS],
}

impl<'a> Surroundings<'a> {
    /// Takes everything from the component's resources.
    pub fn new(
        context: &Context,
        functions: &'a [FunctionInfo],
        guest: &'a Guest,
        config: pci_config::Client<Channel>,
        table: msix::table::Client<Channel>,
        timer: timer::Client<Channel>,
    ) -> Self {
        Self {
            functions,
            ram: GuestRam::new(context),
            config,
            table,
            timer,
            dma: context
                .find_channel(iommu::dma::NAME)
                .map(iommu::dma::Client),
            bars: Bars::new(context),
            context: *context,
            routes: context.shared(names::ROUTES),
            events: context.shared(names::EVENTS),
            storms: RateLimit::per_second(context.machine().tsc_khz),
            unclaimed: RateLimit::per_second(context.machine().tsc_khz),
            pins: Pins::new(context),
            guest,
            priority: Priority::new(context),
            console: context.shared(names::GUEST_CONSOLE),
            doorbell: context.capability(names::DOORBELL),
            output: Vec::new(),
            trace: context.get(names::TRACE),
            addresses: [[None; FUNCTION_BARS]; FUNCTIONS],
        }
    }

    fn trace_config(&self, op: &str, bdf: Bdf, offset: u16, width: Width, value: u32) {
        if self.trace {
            defmt::info!(
                "trace {=str} bdf {=u16} at {=u64} len {=u64} value {=u64}",
                op,
                bdf.requester_id(),
                u64::from(offset),
                width.bytes(),
                u64::from(value)
            );
        }
    }

    fn trace_memory(&self, op: &str, place: FunctionBar, offset: u32, width: Width, value: u64) {
        if !self.trace {
            return;
        }
        let address = self.addresses[place.function.index()][usize::from(place.bar)];
        if let (Some(info), Some(address)) = (self.info(place.function), address) {
            defmt::info!(
                "trace {=str} bdf {=u16} at {=u64} len {=u64} value {=u64}",
                op,
                info.guest_bdf,
                address + u64::from(offset),
                width.bytes(),
                value
            );
        }
    }

    /// Lets the guest's functions reach its memory. One for which iommu fails
    /// reaches nothing.
    pub fn attach(&mut self) {
        for info in self.functions {
            if let Some(dma) = &mut self.dma
                && let Err(error) = dma.attach(info.index)
            {
                defmt::error!(
                    "{=str}: not attached, it reaches no memory: {=str}",
                    self.name(info.index),
                    error.reason()
                );
            }
        }
    }

    /// Takes the guest's memory away from a function. Returns `false` if that failed.
    pub fn detach(&mut self, function: FunctionId) -> bool {
        let done = self.dma.as_mut().map_or(Ok(()), |dma| dma.detach(function));
        done.inspect_err(|error| {
            defmt::error!(
                "{=str}: detach: {=str}",
                self.name(function),
                error.reason()
            );
        })
        .is_ok()
    }

    /// Unmaps the BARs of all functions.
    pub fn unmap_bars(&mut self) {
        let long = vmm::is_long(self.mapped_pages());
        for &FunctionInfo { index, .. } in self.functions {
            for bar in 0..FUNCTION_BARS {
                if self.addresses[index.index()][bar].is_some() {
                    self.map_bar(index, bar, None, long);
                }
            }
        }
    }

    /// Returns how many pages each BAR has that is mapped.
    fn mapped_pages(&self) -> impl Iterator<Item = u64> {
        let bars = |info: &'a FunctionInfo| {
            let addresses = (0..).zip(self.addresses[info.index.index()]);
            addresses.filter_map(move |(bar, address)| address.map(|_| info.grain_count(bar)))
        };
        self.functions.iter().flat_map(bars)
    }

    /// Has `pci-config` start or continue resetting a function (M24). Returns in how
    /// many milliseconds it is done, or `None` if it failed.
    pub fn reset(&mut self, function: FunctionId) -> Option<u64> {
        let left = self.config.reset(function);
        left.inspect_err(|error| {
            defmt::error!("{=str}: reset: {=str}", self.name(function), error.reason());
        })
        .ok()
    }

    /// Zeroes the guest's memory. The guests that have their turn go first.
    pub fn clear_ram(&mut self) {
        self.priority.in_background(|| self.ram.clear());
    }

    /// Returns the guest's thread.
    pub const fn guest(&self) -> &'a Guest {
        self.guest
    }

    /// Gives what is counted here its places on the component's page.
    pub fn show_counters(&mut self, places: &mut Places) {
        self.bars.used.show(places, "table_slots_used");
    }

    /// Returns the guest addresses of its RAM.
    pub fn ram(&self) -> Range<u64> {
        self.ram.range()
    }

    /// Returns one of the guest's functions.
    fn info(&self, function: FunctionId) -> Option<&'a FunctionInfo> {
        self.functions.iter().find(|info| info.index == function)
    }

    /// Returns the capability to the ports of a BAR, and the machine's port at an offset;
    /// `None` if none was given.
    fn ports(&self, place: FunctionBar, offset: u16) -> Option<(IoPort, u16)> {
        let bar = &self.info(place.function)?.bars[usize::from(place.bar)];
        let port = bar.ports().start().wrapping_add(offset);
        (bar.first_slot != 0).then(|| (IoPort::from_bits(bar.first_slot), port))
    }

    /// Returns the name of a function, for messages.
    fn name(&self, function: FunctionId) -> &'static str {
        let mut all = self.context.resources.each(names::ASSIGNED);
        all.nth(function.index()).map_or("?", |(name, _)| name)
    }

    /// Hands what the guest wrote to the console.
    pub fn flush_console(&mut self) {
        if !self.output.is_empty() {
            // A full ring drops the record and counts it.
            self.console.push(&self.output);
            self.output.clear();
            self.doorbell.signal();
        }
    }
}

impl GuestMemory for Surroundings<'_> {
    fn read_ram(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        self.ram.read(address, bytes)
    }

    fn write_ram(&mut self, address: u64, bytes: &[u8]) -> bool {
        self.ram.write(address, bytes)
    }

    fn physical(&self, address: u64) -> u64 {
        self.ram.physical(address)
    }
}

impl PciFunctions for Surroundings<'_> {
    fn config_read(&mut self, bdf: Bdf, offset: u16, width: Width) -> u32 {
        let value = self.config.read(bdf, offset, width);
        let value = value.unwrap_or(width.all_ones() as u32);
        self.trace_config("cfg_read", bdf, offset, width, value);
        value
    }

    fn config_write(&mut self, bdf: Bdf, offset: u16, width: Width, value: u32) -> Effect {
        self.trace_config("cfg_write", bdf, offset, width, value);
        self.config.write_again(bdf, offset, width, value)
    }

    fn bar(&mut self, function: FunctionId, bar: usize) -> Option<u64> {
        self.config
            .bar(function, bar as u8)
            .ok()
            .filter(|&address| address != u64::MAX)
    }

    fn map_bar(&mut self, function: FunctionId, bar: usize, address: Option<u64>, long: bool) {
        if let Some(info) = self.info(function) {
            let mut map = || self.bars.map(info, bar, address);
            if long {
                self.priority.in_background(map);
            } else {
                map();
            }
            self.addresses[function.index()][bar] = address;
        }
    }

    fn ports_read(&mut self, place: FunctionBar, offset: u16, width: Width) -> u32 {
        let read = self.ports(place, offset).map(|(ports, port)| match width {
            Width::Byte => ports.ioport_in8(port).map(u32::from),
            Width::Word => ports.ioport_in16(port).map(u32::from),
            _ => ports.ioport_in32(port),
        });
        // The capability covers all ports of the BAR.
        read.and_then(Result::ok).unwrap_or(width.all_ones() as u32)
    }

    fn ports_write(&mut self, place: FunctionBar, offset: u16, width: Width, value: u32) {
        if let Some((ports, port)) = self.ports(place, offset) {
            let _ = match width {
                Width::Byte => ports.ioport_out8(port, value as u8),
                Width::Word => ports.ioport_out16(port, value as u16),
                _ => ports.ioport_out32(port, value),
            };
        }
    }

    fn table_read(&mut self, place: FunctionBar, offset: u32, width: Width) -> u64 {
        let value = self.table.read(place, offset, width);
        let value = value.unwrap_or(width.all_ones());
        self.trace_memory("mmio_read", place, offset, width, value);
        value
    }

    fn table_write(&mut self, place: FunctionBar, offset: u32, width: Width, value: u64) {
        self.trace_memory("mmio_write", place, offset, width, value);
        // A write that fails is dropped.
        let _ = self.table.write(place, offset, width, value);
    }
}

impl Interrupts for Surroundings<'_> {
    fn route(&mut self, slot: usize) -> Option<Route> {
        self.routes.get(slot)
    }

    fn set_throttled(&mut self, source: Source, throttled: bool) -> bool {
        let done = match source.kind {
            SourceKind::Msi => self.config.throttle_msi(source.function, throttled),
            _ => self.table.set_throttled(source, throttled),
        };
        done.is_ok()
    }

    fn report_storm(&mut self, source: Source) {
        if let Some(suppressed) = self.storms.allow(runtime::tsc(), 1) {
            defmt::warn!(
                "{=str}: {=str} entry {=u16}: interrupt storm, masked for a while (M23); \
                 {=u64} warnings suppressed",
                self.context.guest_of(self.name(source.function)),
                self.name(source.function),
                source.entry,
                suppressed
            );
        }
    }

    fn publish_events(&mut self, slot: usize, source: Source, events: &SlotEvents) {
        self.events.publish(slot, source, events);
    }

    fn acknowledge_pin(&mut self, pin: u8) -> bool {
        self.pins.acknowledge(pin, self.routes)
    }
}

impl Host for Surroundings<'_> {
    fn now(&mut self) -> u64 {
        runtime::tsc()
    }

    fn set_deadline(&mut self, deadline: Option<u64>) -> bool {
        let done = match deadline {
            Some(tsc) => self.timer.arm(tsc),
            None => self.timer.cancel(),
        };
        match done {
            Ok(()) => false,
            // For less than a millisecond, and not lost.
            Err(Error::TooOften) => true,
            Err(error) => {
                defmt::warn!("timer: {=str}", error.reason());
                false
            }
        }
    }

    fn set_foreground(&mut self, foreground: bool) {
        self.priority.set_foreground(foreground);
    }

    fn in_background<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let priority = self.priority;
        priority.in_background(|| work(self))
    }

    fn report_unclaimed(&mut self, place: Unclaimed) {
        let Some(suppressed) = self.unclaimed.allow(runtime::tsc(), 1) else {
            return;
        };
        // The guest is still at the instruction.
        let rip = Trapped::new(self.guest, &[]).rip();
        let (what, address) = match place {
            Unclaimed::Port(port) => ("port", port.into()),
            Unclaimed::Memory(address) => ("address", address),
        };
        defmt::info!(
            "nothing at {=str} {=u64:#x}, accessed at ip={=u64:#x}; {=u64} reports suppressed",
            what,
            address,
            rip,
            suppressed
        );
    }

    fn console_write(&mut self, byte: u8) {
        // Room was made below, so that this cannot fail.
        let _ = self.output.push(byte);
        if self.output.is_full() || byte == b'\n' {
            self.flush_console();
        }
    }
}
