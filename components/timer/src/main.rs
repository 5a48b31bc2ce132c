//! Binds the timer to seL4: the HPET's page or the 8254's ports, the interrupt, one endpoint
//! for clients and the notification of each.

#![no_std]
#![no_main]

use core::num::NonZeroU32;

use channel::{Caller, timer as interface};
use heapless::Vec;
use pci::Width;
use runtime::{Context, Event, Mmio, Server};
use sel4::Cap;
use sel4::cap::{IoPort, IrqHandler, Notification};
use spec::{host_message, names};
use timer::{CLIENTS, Clock, Delivery, Hpet, Pit, Ports, Registers, SetupError, System, Timers};

runtime::component!(main);

/// The board's devices of which this has one.
const HPET: &str = "hpet";
const PIT: &str = "pit";

struct HpetPage(Mmio);

impl Registers for HpetPage {
    fn read(&mut self, offset: u16) -> u32 {
        self.0.read(offset.into(), Width::Dword) as u32
    }
    fn write(&mut self, offset: u16, value: u32) {
        self.0.write(offset.into(), Width::Dword, value.into());
    }
}

struct PitPorts {
    ports: IoPort,
    first: u16,
}

impl Ports for PitPorts {
    fn write(&mut self, offset: u16, value: u8) {
        // The capability covers all four ports, so that this cannot fail.
        let _ = self.ports.ioport_out8(self.first + offset, value);
    }
}

/// The interrupt's handler, and clients by badge, with the notification of each.
struct Surroundings {
    irq: IrqHandler,
    clients: Vec<(Caller, Notification), CLIENTS>,
}

impl System for Surroundings {
    fn tsc(&mut self) -> u64 {
        runtime::tsc()
    }
    fn signal(&mut self, client: Caller) {
        let mut clients = self.clients.iter();
        if let Some((_, notification)) = clients.find(|(caller, _)| *caller == client) {
            notification.signal();
        }
    }
    fn unmask(&mut self) {
        // The capability is the timer's own, so that this cannot fail.
        let _ = self.irq.irq_handler_ack();
    }
}

/// Returns how the HPET is to interrupt: the build tool gave a vector, or init found a pin.
fn delivery(context: &Context, pin: u8) -> Delivery {
    match context.resources.find(names::IRQ_VECTOR.of(HPET)) {
        Some(vector) => {
            let (address, data) = host_message(vector as u8);
            Delivery::Message {
                // All local APICs take messages below 4 GiB.
                address: address as u32,
                data,
            }
        }
        None => Delivery::Pin(pin),
    }
}

fn hpet(context: &Context, pin: u8) -> Hpet<HpetPage> {
    let delivery = delivery(context, pin);
    let page = HpetPage(context.registers(names::REGISTERS.of(HPET)));
    let hpet = match Hpet::new(page, delivery) {
        Ok(hpet) => hpet,
        Err(SetupError::NoMessages) => panic!(
            "the HPET cannot send messages, and an IOMMU blocks its pin: \
             switch them on (QEMU: -global hpet.msi=on), or run without the IOMMU"
        ),
        Err(SetupError::BadPeriod(period)) => {
            panic!("no HPET answers: its period reads {period} fs; is it off on this machine?")
        }
        Err(SetupError::NoRoute(pins)) => panic!(
            "the HPET cannot drive the I/O APIC's pin, only those in {pins:#x}: \
             change `irq` of device hpet in the board's file"
        ),
    };
    match delivery {
        Delivery::Pin(pin) => defmt::info!("HPET on I/O APIC pin {=u8}", pin),
        Delivery::Message { data, .. } => defmt::info!("HPET by message {=u32:#x}", data),
    }
    hpet
}

fn pit(context: &Context, pin: u8) -> Pit<PitPorts> {
    let ports = context.get(names::PORTS.of(PIT));
    let pit = Pit::new(PitPorts {
        ports: IoPort::from_bits(ports.slot),
        first: ports.first as u16,
    });
    defmt::info!("8254 on I/O APIC pin {=u8}", pin);
    pit
}

fn main(context: Context) -> ! {
    let machine = context.machine();
    let pin = machine.clock_pin as u8;
    let Some(tsc_mhz) = NonZeroU32::new((machine.tsc_khz / 1000) as u32) else {
        panic!("the kernel measured no time stamp counter frequency")
    };
    match machine.clock {
        spec::Clock::Hpet => run(&context, hpet(&context, pin), HPET, tsc_mhz),
        spec::Clock::Pit => run(&context, pit(&context, pin), PIT, tsc_mhz),
    }
}

/// Serves deadlines by the clock that the board's device `name` is.
fn run(context: &Context, clock: impl Clock, name: &str, tsc_mhz: NonZeroU32) -> ! {
    let clients: Vec<(Caller, Notification), CLIENTS> = context
        .resources
        .each(names::NOTIFY)
        .take(CLIENTS)
        .map(|(_, client)| (Caller(client.badge), Cap::from_bits(client.slot)))
        .collect();
    let irq = IrqHandler::from_bits(context.get(names::IRQ.of(name)).slot);
    let notification: Notification = context.capability(names::IRQ_NOTIFICATION.of(name));
    if let Err(error) = irq.irq_handler_set_notification(notification) {
        panic!("the interrupt of {name}: {error:?}");
    }
    if context.generation > 0 {
        // The deadlines died with the component. A spurious signal makes each client
        // check its own, and arm it again.
        for (_, notification) in &clients {
            notification.signal();
        }
    }
    // An interrupt of the component's former life may wait for this.
    let _ = irq.irq_handler_ack();
    let mut timers = Timers::new(clock, Surroundings { irq, clients }, tsc_mhz);
    let mut places = context.counters();
    timers.counters.show(&mut places);
    let mut server = Server::new(context, &[interface::interface()], &mut places);
    loop {
        match server.wait() {
            Event::Request(caller, request) => {
                server.answer(&mut timers, caller, request);
            }
            Event::Notification(_) => timers.interrupt(),
        }
    }
}
