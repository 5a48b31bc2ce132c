//! Binds pci-config to seL4: a page of configuration space for each function, or its ports,
//! one endpoint for the vmms, a channel to msix and one to irq-router.

#![no_std]
#![no_main]

use channel::{irq_router, msix, pci_config as interface};
use defmt::Display2Format;
use pci::{ConfigPorts, Mechanism1, Width};
use pci_config::{Functions, Hardware, Method, Trouble, kept_words};
use runtime::{Channel, Context, Event, Mmio, Server};
use sel4::cap::IoPort;
use shm::Kept;
use spec::{BADGE_GUEST_GONE, Configuration, FUNCTIONS, FunctionId, GUESTS, names};

runtime::component!(main);

type Memory = Kept<{ kept_words(FUNCTIONS) }>;
const _: () = assert!(Memory::is_asked_for(include_str!("../component.toml")));

/// Configuration space of a PCI Express function.
const EXTENDED: u64 = 4096;

/// Configuration space that ports reach.
const CONVENTIONAL: u64 = 256;

/// The ports of configuration space, of which this component alone has a capability.
struct ConfigIo(IoPort);

impl ConfigPorts for ConfigIo {
    fn read(&mut self, port: u16, width: Width) -> u32 {
        // The capability covers the ports, so that this cannot fail.
        self.0.ioport_read(port, width.bytes()).unwrap_or(u32::MAX)
    }
    fn write(&mut self, port: u16, width: Width, value: u32) {
        let _ = self.0.ioport_write(port, width.bytes(), value);
    }
}

/// A function's configuration space.
enum Registers {
    Window(Mmio),
    Ports(Mechanism1<ConfigIo>),
}

impl Registers {
    fn new(context: &Context, device: &str) -> Self {
        match context.machine().configuration {
            Configuration::Window => Self::Window(context.registers(names::CONFIG.of(device))),
            Configuration::Ports => {
                let ports = ConfigIo(IoPort::from_bits(context.get(names::CONFIG_PORTS).slot));
                let function = context.function(device).host();
                Self::Ports(Mechanism1::new(function, ports))
            }
        }
    }

    fn read(&mut self, offset: u16, width: Width) -> u32 {
        match self {
            Self::Window(page) => page.read(offset.into(), width) as u32,
            Self::Ports(space) => space.read(offset, width),
        }
    }
}

struct ConfigSpace {
    registers: Registers,
    /// The registers by which the function is reset, and how many bytes they are.
    reset: Option<(Mmio, u64)>,
    tsc_khz: u64,
}

impl Hardware for ConfigSpace {
    fn read(&mut self, offset: u16, width: Width) -> u32 {
        self.registers.read(offset, width)
    }
    fn write(&mut self, offset: u16, width: Width, value: u32) {
        match &mut self.registers {
            Registers::Window(page) => page.write(offset.into(), width, value.into()),
            Registers::Ports(space) => space.write(offset, width, value),
        }
    }
    fn has_registers(&self) -> bool {
        self.reset.is_some()
    }
    fn read_register(&mut self, offset: u32, width: Width) -> u32 {
        self.reset
            .as_ref()
            .filter(|(_, bytes)| u64::from(offset) < *bytes)
            .map_or(u32::MAX, |(page, _)| {
                page.read(offset as usize, width) as u32
            })
    }
    fn write_register(&mut self, offset: u32, width: Width, value: u32) {
        let reset = self.reset.as_mut();
        if let Some((page, _)) = reset.filter(|(_, bytes)| u64::from(offset) < *bytes) {
            page.write(offset as usize, width, value.into());
        }
    }
    fn has_extended_space(&self) -> bool {
        matches!(self.registers, Registers::Window(_))
    }
    fn now_ms(&mut self) -> u64 {
        runtime::tsc() / self.tsc_khz
    }
}

/// Logs a function as the guest will find it: the header of a trace.
fn trace(context: &Context, device: &str) {
    let info = context.function(device);
    let mut registers = Registers::new(context, device);
    let mut bytes = [0; 256];
    for (offset, byte) in bytes.iter_mut().enumerate() {
        *byte = registers.read(offset as u16, Width::Byte) as u8;
    }
    defmt::info!(
        "trace device {=str} bdf {=u16} config {=[u8]}",
        device,
        info.guest_bdf,
        bytes
    );
    for (index, bar) in info.bars.iter().enumerate() {
        defmt::info!(
            "trace bar {=str} {=usize} kind {=u32} address {=u64} size {=u64}",
            device,
            index,
            bar.kind as u32,
            bar.address,
            bar.size
        );
    }
}

/// Says what became of a function's reset.
fn tell(context: &Context, function: FunctionId, trouble: Trouble) {
    let device = context.functions().nth(function.index()).unwrap_or("?");
    match trouble {
        Trouble::Gone => defmt::error!(
            "{=str}: it does not answer a minute after its reset, and reads all ones from now on",
            device
        ),
        Trouble::Unclean => defmt::warn!(
            "{=str}: nothing resets it: it may write into its guest's next life (M24)",
            device
        ),
    }
}

/// Says what a function is reset by between two lives of its guest.
fn tell_reset(device: &str, method: Option<Method>) {
    match method {
        Some(method) => defmt::info!("{=str}: reset by {}", device, Display2Format(&method)),
        None => defmt::warn!(
            "{=str}: nothing resets it: its guest does not start again without \
             `reset = \"optional\"` (M24)",
            device
        ),
    }
}

/// Takes back the functions of guests that the monitor reports as gone.
fn release(
    context: &Context,
    bits: u64,
    functions: &mut Functions<'_, ConfigSpace, Channel, FUNCTIONS>,
) {
    for (index, device) in context.functions().enumerate() {
        let guest = context.guest_index(device);
        if guest < GUESTS as u64 && bits & BADGE_GUEST_GONE << guest != 0 {
            defmt::warn!("{=str}: its guest is gone, taken back", device);
            functions.release(FunctionId::at(index));
        }
    }
}

fn main(context: Context) -> ! {
    let tsc_khz = context.machine().tsc_khz.max(1);
    if context.get(names::TRACE) {
        context
            .functions()
            .for_each(|device| trace(&context, device));
    }
    let assigned = context.functions().map(|device| {
        let info = context.function(device);
        let owner = context.owner(device);
        let hardware = ConfigSpace {
            registers: Registers::new(&context, device),
            reset: info.reset_registers().map(|registers| {
                let pages = context.registers(names::RESET_REGISTERS.of(device));
                (pages, registers.bytes())
            }),
            tsc_khz,
        };
        (info, owner, hardware)
    });
    let msix = msix::control::Client(context.channel(msix::control::NAME));
    let router = irq_router::msi::Client(context.channel(irq_router::msi::NAME));
    let kept: &Memory = context.shared(names::KEPT);
    let mut functions: Functions<'_, _, _, FUNCTIONS> = Functions::new(msix, router);
    functions.take_over(assigned, kept);
    defmt::info!(
        "{=usize} functions, each with {=u64} bytes",
        context.functions().count(),
        match context.machine().configuration {
            Configuration::Window => EXTENDED,
            Configuration::Ports => CONVENTIONAL,
        }
    );
    for (index, device) in context.functions().enumerate() {
        tell_reset(
            device,
            functions.reset_methods(FunctionId::at(index)).next(),
        );
    }
    let mut places = context.counters();
    functions.counters.show(&mut places);
    let mut server = Server::new(&context, &[interface::interface()], &mut places);
    loop {
        while let Some((function, trouble)) = functions.take_trouble() {
            tell(&context, function, trouble);
        }
        match server.wait() {
            Event::Request(caller, request) => {
                server.answer(&mut functions, caller, request);
            }
            Event::Notification(bits) => release(&context, bits, &mut functions),
        }
    }
}
