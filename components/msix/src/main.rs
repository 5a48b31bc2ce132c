//! Binds msix to seL4: the pages with each function's table and PBA, one
//! endpoint for pci-config, the vmms and the console, told apart by badge, and a channel to
//! irq-router.

#![no_std]
#![no_main]

use channel::msix::{FunctionBar, control, dump, table};
use channel::{Caller, irq_router};
use heapless::Vec;
use msix::{Failure, Hardware, Msix, kept_words};
use pci::{FunctionInfo, PAGE_SIZE, Width};
use runtime::{Context, Event, Mmio, RateLimit, Server};
use shm::Kept;
use spec::{FUNCTIONS, FunctionId, names};

runtime::component!(main);

type Memory = Kept<{ kept_words(FUNCTIONS, ENTRIES) }>;
const _: () = assert!(Memory::is_asked_for(include_str!("../component.toml")));

/// Table entries of all functions together: two of the largest tables.
const ENTRIES: usize = 4096;

/// One function's pages, mapped one after the other in the order of
/// `MsixInfo::pages`.
struct Pages {
    info: FunctionInfo,
    registers: Mmio,
}

struct Device(Vec<Pages, FUNCTIONS>);

impl Device {
    /// Returns the function's registers and the offset in them.
    fn locate(&mut self, place: FunctionBar, offset: u32) -> Option<(&mut Mmio, usize)> {
        let pages = self.0.get_mut(place.function.index())?;
        let page = u64::from(offset) / PAGE_SIZE;
        let index = pages.info.msix.page_index(place.bar.into(), page)?;
        let bar = &pages.info.bars[usize::from(place.bar)];
        // A BAR that is smaller than a page may begin anywhere on it.
        let within = (bar.address + u64::from(offset)) % PAGE_SIZE;
        Some((
            &mut pages.registers,
            (index as u64 * PAGE_SIZE + within) as usize,
        ))
    }
}

impl Hardware for Device {
    fn read(&mut self, place: FunctionBar, offset: u32, width: Width) -> u64 {
        match self.locate(place, offset) {
            Some((registers, offset)) => registers.read(offset, width),
            None => width.all_ones(),
        }
    }
    fn write(&mut self, place: FunctionBar, offset: u32, width: Width, value: u64) {
        if let Some((registers, offset)) = self.locate(place, offset) {
            registers.write(offset, width, value);
        }
    }
}

/// Logs a failure, with the names of its guest and function.
fn warn(context: &Context, limit: &mut RateLimit, count: u32, failure: &Failure) {
    let device = context.functions().nth(failure.function.index());
    let device = device.unwrap_or("?");
    let Some(suppressed) = limit.allow(runtime::tsc(), count) else {
        return;
    };
    defmt::warn!(
        "{=str}: {=str} entry {=u16}: {=str} failed: {=str} (M5); {=u64} warnings suppressed",
        context.guest_of(device),
        device,
        failure.entry,
        failure.what,
        failure.why.reason(),
        suppressed
    );
}

fn main(context: Context) -> ! {
    let mut limit = RateLimit::per_second(context.machine().tsc_khz);
    let mut device = Device(Vec::new());
    for name in context.functions() {
        let info = context.function(name);
        let registers = context.registers(names::MSIX.of(name));
        if device.0.push(Pages { info, registers }).is_err() {
            panic!("more than {FUNCTIONS} functions");
        }
    }
    let functions = context
        .functions()
        .map(|name| (context.function(name), context.owner(name)));
    let router = irq_router::Client(context.channel(irq_router::NAME));
    let kept: &Memory = context.shared(names::KEPT);
    let mut msix: Msix<'_, _, _, FUNCTIONS> = Msix::new(device, router, kept);
    msix.take_over(ENTRIES, functions);
    for function in (0..context.functions().count()).map(FunctionId::at) {
        match dump::MsixDump::state(&mut msix, Caller(0), function) {
            Ok(value) => defmt::info!(
                "function {=u8}: {=u16} entries",
                function.0,
                (value & 0x7ff) + 1
            ),
            Err(_) => defmt::warn!("function {=u8} has no usable MSI-X", function.0),
        }
    }
    let interfaces = [control::interface(), table::interface(), dump::interface()];
    let mut places = context.counters();
    msix.counters.show(&mut places);
    let mut server = Server::new(&context, &interfaces, &mut places);
    loop {
        if let Some((count, failure)) = msix.take_failures() {
            warn(&context, &mut limit, count, &failure);
        }
        if let Event::Request(caller, request) = server.wait() {
            server.answer(&mut msix, caller, request);
        }
    }
}
