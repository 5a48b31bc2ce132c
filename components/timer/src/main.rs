//! Binds the timer to seL4: the HPET's page, its interrupt, one endpoint for
//! clients and the notification of each.

#![no_std]
#![no_main]

use core::num::NonZeroU32;

use channel::{Caller, timer as interface};
use heapless::Vec;
use pci::Width;
use runtime::{Context, Event, Mmio, Server};
use sel4::Cap;
use sel4::cap::{IrqHandler, Notification};
use spec::{host_message, names};
use timer::{CLIENTS, Delivery, Hpet, Registers, SetupError, System, Timers};

runtime::component!(main);

/// The board's device that this is.
const HPET: &str = "hpet";

struct HpetPage(Mmio);

impl Registers for HpetPage {
    fn read(&mut self, offset: u16) -> u32 {
        self.0.read(offset.into(), Width::Dword) as u32
    }
    fn write(&mut self, offset: u16, value: u32) {
        self.0.write(offset.into(), Width::Dword, value.into());
    }
}

/// Clients by badge, with the notification of each.
struct Clients(Vec<(Caller, Notification), CLIENTS>);

impl System for Clients {
    fn tsc(&mut self) -> u64 {
        runtime::tsc()
    }
    fn signal(&mut self, client: Caller) {
        if let Some((_, notification)) = self.0.iter().find(|(caller, _)| *caller == client) {
            notification.signal();
        }
    }
}

/// Returns how the HPET is to interrupt: the build tool gave a vector or a pin.
fn delivery(context: &Context) -> Delivery {
    match context.resources.find(names::IRQ_VECTOR.of(HPET)) {
        Some(vector) => {
            let (address, data) = host_message(vector as u8);
            Delivery::Message {
                // All local APICs take messages below 4 GiB.
                address: address as u32,
                data,
            }
        }
        None => Delivery::Pin(context.get(names::IRQ_PIN.of(HPET)) as u8),
    }
}

fn main(context: Context) -> ! {
    let clients: Vec<(Caller, Notification), CLIENTS> = context
        .resources
        .each(names::NOTIFY)
        .take(CLIENTS)
        .map(|(_, client)| (Caller(client.badge), Cap::from_bits(client.slot)))
        .collect();
    let delivery = delivery(&context);
    let hpet = match Hpet::new(
        HpetPage(context.registers(names::REGISTERS.of(HPET))),
        delivery,
    ) {
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
    let tsc_mhz = (context.machine().tsc_khz / 1000) as u32;
    let Some(tsc_mhz) = NonZeroU32::new(tsc_mhz) else {
        panic!("the kernel measured no time stamp counter frequency")
    };
    let irq = IrqHandler::from_bits(context.get(names::IRQ.of(HPET)).slot);
    let notification: Notification = context.capability(names::IRQ_NOTIFICATION.of(HPET));
    if let Err(error) = irq.irq_handler_set_notification(notification) {
        panic!("the HPET's interrupt: {error:?}");
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
    let mut timers = Timers::new(hpet, Clients(clients), tsc_mhz);
    match delivery {
        Delivery::Pin(pin) => defmt::info!("HPET on I/O APIC pin {=u8}", pin),
        Delivery::Message { data, .. } => defmt::info!("HPET by message {=u32:#x}", data),
    }
    let mut places = context.counters();
    timers.counters.show(&mut places);
    let mut server = Server::new(&context, &[interface::interface()], &mut places);
    loop {
        match server.wait() {
            Event::Request(caller, request) => {
                server.answer(&mut timers, caller, request);
            }
            Event::Notification(_) => {
                timers.interrupt();
                // The capability is the timer's own, so that this cannot fail.
                let _ = irq.irq_handler_ack();
            }
        }
    }
}
