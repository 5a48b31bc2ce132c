//! Binds the console to seL4: two UARTs by I/O port capabilities, log and
//! guest rings, one notification.

#![no_std]
#![no_main]

mod servers;

use channel::{Error, timer};
use console::{Keys, Lines, Ports, Uart, position, send_frames};
use heapless::Vec;
use runtime::{Channel, Context};
use sel4::MessageInfo;
use sel4::cap::{Endpoint, IoPort, IrqHandler, Notification};
use servers::Servers;
use shm::Ring;
use spec::names::{self, Family, Region};
use spec::{BADGE_TIMER, Console, INJECT_LABEL};

runtime::component!(main);

/// Returns the board's device for people, and the one for logs.
const fn devices(console: Console) -> [&'static str; 2] {
    match console {
        Console::Com1 => ["com1", "com2"],
        Console::Com2 => ["com2", "com1"],
    }
}

/// Writers of logs, and guests: more than a board has memory for.
const MAX_WRITERS: usize = 32;

struct CapabilityPorts {
    ports: IoPort,
    first: u16,
}

impl CapabilityPorts {
    fn new(context: &Context, device: &str) -> Self {
        let ports = context.get(names::PORTS.of(device));
        Self {
            ports: IoPort::from_bits(ports.slot),
            first: ports.first as u16,
        }
    }
}

impl Ports for CapabilityPorts {
    fn read(&mut self, offset: u16) -> u8 {
        // A port without a device reads all ones.
        self.ports.ioport_in8(self.first + offset).unwrap_or(0xff)
    }
    fn write(&mut self, offset: u16, value: u8) {
        // The capability covers all eight ports, so that this cannot fail.
        let _ = self.ports.ioport_out8(self.first + offset, value);
    }
}

fn rings(
    context: &Context,
    family: Family<Region>,
) -> Vec<(&'static str, &'static Ring), MAX_WRITERS> {
    let mut rings = Vec::new();
    for (name, _) in context.resources.each(family) {
        let ring = context.shared(family.of(name));
        if rings.push((name, ring)).is_err() {
            defmt::warn!(
                "more than {} rings {}: the rest is not shown",
                MAX_WRITERS,
                family.prefix
            );
            break;
        }
    }
    rings
}

/// Followed by a position, this key crashes the component that is there in
/// system.toml, in a system that was composed for it: for tests.
const INJECT_KEY: u8 = b'F';

fn inject_fault(position: u8) {
    let monitor = Endpoint::from_bits(spec::FAULT_SLOT);
    monitor.call_with_mrs(
        MessageInfo::new(INJECT_LABEL, 0, 0, 1),
        [position.into(), 0, 0, 0],
    );
}

/// Time between two looks at the port for people where it has no interrupt, in ms: short for a
/// person, long for the machine.
const POLL_MS: u64 = 50;

/// The source that wakes the console for a key.
enum Wake {
    /// The interrupt of the port for people. Keys that were left for later come with the timer,
    /// where there is one.
    Interrupt {
        handler: IrqHandler,
        badge: u64,
        later: Option<(timer::Client<Channel>, u64)>,
    },
    /// The timer: where an IOMMU remaps interrupts, the I/O APIC is blocked.
    Poll {
        timer: timer::Client<Channel>,
        ticks: u64,
    },
}

impl Wake {
    /// Returns what wakes for the keys at this device.
    fn new(context: &Context, people: &str) -> Self {
        let handler = context.resources.find(names::IRQ.of(people));
        let timer = context.find_channel(timer::NAME).map(timer::Client);
        let ticks = POLL_MS * context.machine().tsc_khz;
        match (handler, timer) {
            (None, Some(timer)) => Self::Poll { timer, ticks },
            (None, None) => panic!("{people} has no interrupt and there is no channel Timer"),
            (Some(irq), timer) => {
                let handler = IrqHandler::from_bits(irq.slot);
                let key = names::IRQ_NOTIFICATION.of(people);
                let notification: Notification = context.capability(key);
                if handler.irq_handler_set_notification(notification).is_err() {
                    defmt::error!("no interrupt for {=str}: keys do not work", people);
                }
                Self::Interrupt {
                    handler,
                    badge: irq.badge,
                    later: timer.map(|timer| (timer, ticks)),
                }
            }
        }
    }

    const fn badge(&self) -> u64 {
        match self {
            Self::Interrupt { badge, .. } => *badge | BADGE_TIMER,
            Self::Poll { .. } => BADGE_TIMER,
        }
    }

    /// Asks to be woken again.
    fn again(&mut self) {
        match self {
            Self::Interrupt { handler, .. } => {
                // The capability is the console's own, so that this cannot fail.
                let _ = handler.irq_handler_ack();
            }
            Self::Poll { timer, ticks } => {
                // A timer that died signals all its clients when it is back.
                let _ = timer.arm(runtime::tsc() + *ticks);
            }
        }
    }

    /// Asks to be woken for keys that were left. Returns whether that will be; else
    /// they are to be taken without a rest.
    fn later(&mut self) -> bool {
        match self {
            // It looks again anyway.
            Self::Poll { .. } => true,
            Self::Interrupt { later: None, .. } => false,
            Self::Interrupt {
                later: Some((timer, ticks)),
                ..
            } => {
                let armed = timer.arm(runtime::tsc() + *ticks);
                // One that is put off is kept.
                matches!(armed, Ok(()) | Err(Error::TooOften))
            }
        }
    }
}

fn main(context: Context) -> ! {
    let [for_people, for_logs] = devices(context.machine().console);
    let mut people = Uart::new(CapabilityPorts::new(&context, for_people), true);
    let mut log_port = Uart::new(CapabilityPorts::new(&context, for_logs), false);
    let mut wake = Wake::new(&context, for_people);
    let logs = rings(&context, names::LOG_OF);
    let guests = rings(&context, names::CONSOLE_OF);
    let mut lines: Vec<Lines<'_>, MAX_WRITERS> =
        guests.iter().map(|(name, _)| Lines::new(name)).collect();
    let counters = context
        .resources
        .each(names::COUNTERS_OF)
        .map(|(name, _)| (name, context.shared(names::COUNTERS_OF.of(name))));
    let mut keys = Keys::new(counters, logs.iter().copied(), Servers::new(&context));
    // An interrupt may have come before the handler was set.
    wake.again();
    let mut more = true;
    let mut inject_next = false;
    loop {
        // The component's bound notification is waited for on its endpoint,
        // which has no other senders.
        let event = if more {
            wake.badge()
        } else {
            context.endpoint().recv_with_mrs(()).badge
        };
        more = false;
        for (id, (_, ring)) in logs.iter().enumerate() {
            more |= send_frames(id as u8, ring, &mut log_port);
        }
        for (lines, (_, ring)) in lines.iter_mut().zip(&guests) {
            more |= lines.drain(ring, &mut people);
        }
        if event & wake.badge() != 0 {
            // Before the keys are read: the kernel masks its interrupt until
            // then, and an edge that comes while it is masked is lost, with it
            // every key after.
            wake.again();
            let left = people.take_keys(|people, key| {
                match (position(key), key) {
                    (Some(position), _) if inject_next => inject_fault(position),
                    (_, INJECT_KEY) if !inject_next => {}
                    _ => keys.press(key, people),
                }
                inject_next = !inject_next && key == INJECT_KEY;
            });
            more |= left && !wake.later();
        }
    }
}
